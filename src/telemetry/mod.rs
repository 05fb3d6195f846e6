//! What was seen: per-source sums of one window, made from table snapshots. Pure.

use std::time::Duration;

use crate::model::Source;

/// What one source did in one window, summed over CPUs. Counts, not rates: the window's length
/// travels beside a batch of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub source: Source,
    /// Packets received, dropped ones included.
    pub packets: u64,
    /// Frame bytes received, dropped ones included.
    pub bytes: u64,
    /// TCP SYN without ACK.
    pub syns: u64,
    /// Packets dropped by a limit or a deny.
    pub drops: u64,
    /// Distinct destination ports opened, estimated by linear counting.
    pub ports: u32,
    /// Distinct stack fingerprints among SYNs, estimated by linear counting: hosts behind it.
    pub stacks: u32,
}

/// Samples and the window they were counted in.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    pub length: Duration,
    pub samples: &'a [Sample],
}
