use std::time::Duration;

use serde::Serialize;

use super::Engine;
use super::aggregate::judged_as;
use super::ladder::Ladder;
use super::severity::Signal;
use crate::model::{Hold, Ktime, Source, Stage};

/// What was measured, in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
pub struct Reading {
    pub severity: f64,
    pub signal: Signal,
    /// Per second, or over the time that the signal names; like `trigger`.
    pub rate: f64,
    /// With hosts and pressure taken in.
    pub trigger: f64,
}

/// Where a source stands and why, for an operator who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub source: Source,
    pub stage: Stage,
    pub hold: Option<Hold>,
    /// When the stage was entered.
    pub entered: Ktime,
    /// Before this the stage is not left.
    pub ends: Ktime,
    /// When the kernel's entry ends by itself; set with `hold`.
    pub until: Option<Ktime>,
    pub strikes: u32,
    /// High and low ticks in a row.
    pub up: u32,
    pub down: u32,
    /// Ticks of not yielding to a limit.
    pub unyielding: u32,
    /// How long the block gate's severity has lasted.
    pub gate: Option<Duration>,
    /// Hosts behind the address: triggers and limits are multiplied by it.
    pub nat: u32,
    /// This host completed a handshake with it.
    pub proven: bool,
    /// Distinct ports within a minute, an hour and a day.
    pub ports: [u32; 3],
    /// What led to the stage.
    pub cause: Reading,
    /// The last window.
    pub last: Reading,
}

/// What one tick saw of everyone.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Overview {
    /// Sources that sent.
    pub sources: u64,
    /// Of those, at OBSERVE.
    pub free: u64,
    /// Sources of which nothing was known before.
    pub fresh: u64,
    /// Sources that thresholds were learned from.
    pub learned: u64,
    /// Severity of all unproven sources together.
    pub severity: f64,
    /// What the triggers of unproven sources are divided by, 1 in peace.
    pub pressure: f64,
    /// Escalations that were not made because they would have hit too many proven sources.
    pub withheld: u64,
}

impl Engine {
    /// Where `source` stands at `now`. For one that is not remembered that is OBSERVE and zeros.
    pub fn explain(&self, source: &Source, now: Ktime) -> Explanation {
        let ladder = [&self.sources, &self.prefixes, &self.overall]
            .into_iter()
            .find_map(|roster| roster.ladders.get(source))
            .or_else(|| self.alerted.get(source))
            .copied()
            .unwrap_or_default();
        self.explanation(source, &ladder, now)
    }

    /// As what packets from `source` are held at `now`, the most specific: itself, the source they
    /// count for where sources are told apart at `v6_bits`, and, unless `alone`, its prefix or
    /// everyone. Where nobody of these is held, the source they count for.
    pub fn held_as(&self, source: &Source, v6_bits: u8, alone: bool, now: Ktime) -> Source {
        let judged = judged_as(source, v6_bits);
        let held = |one: &&Source| self.explain(one, now).stage > Stage::Observe;
        let these = if alone { &judged[..2] } else { &judged[..] };
        *these.iter().find(held).unwrap_or(&judged[1])
    }

    /// The same for everybody who is remembered, in no order: what a journal notes each tick.
    pub fn explanations(&self, now: Ktime) -> impl Iterator<Item = Explanation> {
        self.ladders()
            .map(move |(source, ladder)| self.explanation(source, ladder, now))
    }

    fn explanation(&self, source: &Source, ladder: &Ladder, now: Ktime) -> Explanation {
        let hold = ladder.hold();
        let alerted = self.alerted_ports.get(source).copied().unwrap_or_default();
        let ports = self.tracks.ports(source, now);
        Explanation {
            source: *source,
            stage: ladder.stage,
            hold,
            entered: ladder.entered,
            ends: ladder.ends,
            until: hold.map(|_| ladder.until),
            strikes: ladder.strikes,
            up: ladder.up,
            down: ladder.down,
            unyielding: ladder.unyielding(),
            gate: ladder.gate_since().map(|since| now.since(since)),
            nat: match ladder.stage {
                Stage::Observe => self.tracks.hosts(source, &self.config.evidence),
                Stage::RateSoft | Stage::RateHard | Stage::Block => ladder.hosts.into(),
            },
            proven: ladder.proven,
            ports: ports.map(|seen| seen.max(alerted)),
            cause: ladder.cause(),
            last: ladder.last(),
        }
    }
}
