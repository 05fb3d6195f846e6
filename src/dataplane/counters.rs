//! Packets and bytes by reason, and the source table's gauges, summed over CPUs.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::abi::{Reason, kl_counts, kl_limits};
use super::pod;
use crate::error::{Doing, Error, Result};
use crate::telemetry::Traffic;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonCount {
    pub reason: Reason,
    pub packets: u64,
    pub bytes: u64,
}

/// Totals since the program was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// One per reason, in the reasons' own order.
    pub reasons: Vec<ReasonCount>,
    /// Entries of the source table in use.
    pub sources: u64,
    /// Entries taken from one source for another.
    pub replaced: u64,
    /// Of those, from a source heard of within the last 512 jiffies: the table is too small.
    pub crowded: u64,
    /// Events that found the ring buffer full.
    pub events_lost: u64,
    /// Frames by length, in bins of [`Self::LENGTH_BIN`] bytes; the last is open-ended.
    pub lengths: Vec<u64>,
}

impl Counters {
    /// Width of a bin of the length histogram, in bytes.
    pub const LENGTH_BIN: u32 = 1 << kl_limits::KL_LENGTH_SHIFT.0;

    pub(super) fn read(map: &MapHandle) -> Result<Self> {
        let doing = || "reading the counters";
        let values = map
            .lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)
            .doing(doing)?
            .ok_or_else(|| Error::world("reading the counters: the map is empty"))?;
        let per_cpu: Vec<kl_counts> = values.iter().filter_map(|bytes| pod::read(bytes)).collect();
        let sum = |field: &dyn Fn(&kl_counts) -> u64| per_cpu.iter().map(field).sum::<u64>();
        let count = |reason: Reason| {
            let slot = reason.number() as usize;
            ReasonCount {
                reason,
                packets: sum(&|c| c.reason[slot].packets),
                bytes: sum(&|c| c.reason[slot].bytes),
            }
        };
        Ok(Self {
            reasons: Reason::ALL.iter().copied().map(count).collect(),
            sources: sum(&|c| c.sources),
            replaced: sum(&|c| c.replaced),
            crowded: sum(&|c| c.crowded),
            events_lost: sum(&|c| c.events_lost),
            lengths: (0..kl_limits::KL_LENGTHS.0 as usize)
                .map(|bin| sum(&|c| c.length[bin]))
                .collect(),
        })
    }

    pub fn of(&self, reason: Reason) -> u64 {
        self.reasons
            .iter()
            .find(|count| count.reason == reason)
            .map_or(0, |count| count.packets)
    }

    /// What all sources sent since `then`, if one had to make room for another meanwhile: what it
    /// had sent is in no row of the table any more.
    pub fn crowded_since(&self, then: &Self) -> Option<Traffic> {
        if self.replaced == then.replaced {
            return None;
        }
        let mut all = Traffic::default();
        for (now, then) in self.reasons.iter().zip(&then.reasons) {
            if !now.reason.has_source() {
                continue;
            }
            let packets = now.packets.saturating_sub(then.packets);
            all.packets += packets;
            all.bytes += now.bytes.saturating_sub(then.bytes);
            if now.reason.drops() {
                all.drops += packets;
            }
        }
        Some(all)
    }

    pub fn packets(&self) -> u64 {
        self.reasons.iter().map(|count| count.packets).sum()
    }

    pub fn dropped(&self) -> u64 {
        self.reasons
            .iter()
            .filter(|count| count.reason.drops())
            .map(|count| count.packets)
            .sum()
    }
}
