//! The one integration binary. A line per module.

mod lab; // network namespaces, attacks and benign load; shared with examples/demo
mod netns; // the lab itself; needs root
