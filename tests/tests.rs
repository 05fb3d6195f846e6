//! The one integration test binary. Everything here needs root: it loads BPF programs and makes
//! network namespaces.
#![allow(unreachable_pub, reason = "one crate; pub marks what a sibling module uses")]

/// The XDP program, packet by packet.
mod dataplane;
/// Frames built by hand.
mod packet;
