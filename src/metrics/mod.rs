//! What a running IQ tells Prometheus: one page, over HTTP or in a file. Labels come from fixed
//! sets only, so an attacker cannot make series.

mod page;
mod server;
mod text;
mod textfile;

use std::collections::BTreeMap;
use std::time::Duration;

pub use page::{Gauges, GraphGauges};
pub use server::Server;
pub use textfile::Textfile;

use crate::dataplane::{Counters, Entry};
use crate::engine::{Decision, Kind};
use crate::model::{Ktime, Source, Stage};

/// Upper bounds of the tick duration's buckets, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Counts kept since this IQ started. What the kernel counts is read, not kept.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By kind and the stage led to.
    decisions: BTreeMap<(&'static str, Stage), u64>,
    failures: u64,
    overruled: u64,
    expirations: u64,
    /// Ticks at most as long as each bucket; longer ones are in `ticks` only.
    buckets: [u64; BUCKETS.len()],
    ticks: u64,
    tick_seconds: f64,
    /// Entries with an end that had not come when they were last looked at.
    ending: BTreeMap<Source, Ktime>,
    gauges: Gauges,
    counters: Option<Counters>,
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Escalate => "escalate",
        Kind::Renew => "renew",
        Kind::Release => "release",
    }
}

impl Metrics {
    /// A decision that was carried out.
    pub fn decided(&mut self, decision: &Decision) {
        *self
            .decisions
            .entry((word(decision.kind), decision.to))
            .or_default() += 1;
    }

    /// A decision that an operator's entry stands against.
    pub fn overruled(&mut self) {
        self.overruled += 1;
    }

    /// Decisions that the data plane did not take.
    pub fn failed(&mut self, decisions: u64) {
        self.failures += decisions;
    }

    /// Takes note of the policy as it is now and counts the entries whose end has come since the
    /// last time. One that was removed before its end did not expire.
    pub fn policy(&mut self, entries: &[Entry], now: Ktime) {
        self.count_ended(now);
        self.ending = entries
            .iter()
            .filter(|entry| entry.is_live(now))
            .filter_map(|entry| Some((entry.source, entry.rule.expires?)))
            .collect();
        self.gauges.policy = page::Policy::of(entries, now);
    }

    /// Counts the entries whose end has come, where policy did not change.
    pub fn count_ended(&mut self, now: Ktime) {
        let before = self.ending.len();
        self.ending.retain(|_, end| now < *end);
        self.expirations += (before - self.ending.len()) as u64;
    }

    /// The end of a tick that took `spent`.
    pub fn ticked(&mut self, spent: Duration, counters: Counters, gauges: Gauges) {
        let seconds = spent.as_secs_f64();
        self.ticks += 1;
        self.tick_seconds += seconds;
        for (count, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        let policy = self.gauges.policy;
        self.gauges = Gauges { policy, ..gauges };
        self.counters = Some(counters);
    }
}
