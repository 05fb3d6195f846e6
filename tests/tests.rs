//! The one integration test binary. Most of it needs root: it loads BPF programs and makes network
//! namespaces.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "one test crate: pub marks what a sibling module uses; a failed unwrap fails its test"
)]

mod cli; // what a person at the terminal sees
mod dataplane; // the XDP program, packet by packet
mod lab; // network namespaces, attacks and benign load; shared with examples/demo
mod layering; // who may use whom
mod metrics; // the page Prometheus reads, the board and the alerts
mod netns; // the built program, end to end
mod oracle; // the program against an oracle of its design
mod packet; // frames built by hand
mod page; // the graph as a page, in a browser
mod seat; // replays, pages, and the schemas of all JSON
mod ship; // as a service
