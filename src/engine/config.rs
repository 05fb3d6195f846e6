use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{RateLimit, Stage};

/// What counts as "at the threshold" for one source, per second; 0 disables a signal.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    pub pps: f64,
    /// Frame bytes per second.
    pub bps: f64,
    pub syn: f64,
    /// Distinct destination ports opened per second.
    pub ports: f64,
}

/// Share of each signal in the weighted severity; 0 disables a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    pub pps: f64,
    pub bps: f64,
    pub syn: f64,
    pub ports: f64,
}

/// A figure for each stage above OBSERVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerStage<T> {
    pub soft: T,
    pub hard: T,
    pub block: T,
}

/// BLOCK needs this severity in every tick for this long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockGate {
    pub severity: f64,
    pub lasting: Duration,
}

/// When a source that is already limited and does not yield is blocked from RATE_HARD.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NonCompliance {
    /// Ticks of not yielding.
    pub at: u32,
    /// Limiter drops per second that count as not yielding, and as a high tick; 0 disables.
    pub drops: f64,
    /// Severity that counts as not yielding; 0 disables.
    pub severity: f64,
    /// Below this severity, and without drops, the count starts over.
    pub reset: f64,
}

/// The packet limit of a stage: `floor`, or `factor` times the packet trigger if that is more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageLimit {
    pub floor: RateLimit,
    pub factor: Option<f64>,
}

/// What is gone by beyond a profile's four rates. 0 disables a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Trigger of half-open connections per second, as a share of the SYN trigger.
    pub half_open: f64,
    /// Trigger of refused packets per second, as a multiple of the port trigger, of which 50 count
    /// at most.
    pub refusals: f64,
    /// Distinct ports that make a scan when spread over a minute, an hour, a day.
    pub slow_ports: SlowPorts,
    /// Share of the SYN trigger that is too much when kept up for an hour.
    pub sustained: f64,
    /// How many packets that this host asked for count as one; 1 counts all alike.
    pub consent: f64,
    /// Most that triggers and limits are multiplied by for hosts that share an address.
    pub nat: u32,
}

/// Distinct ports within a time, for scans too slow for a single window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowPorts {
    pub minute: u32,
    pub hour: u32,
    pub day: u32,
}

impl Default for Evidence {
    /// A scanner at a public host shows 20 ports a day far more often than 10 in any second.
    fn default() -> Self {
        Self {
            half_open: 0.5,
            refusals: 1.0,
            slow_ports: SlowPorts {
                minute: 20,
                hour: 20,
                day: 20,
            },
            sustained: 0.5,
            consent: 512.0,
            nat: 8,
        }
    }
}

/// Thresholds of many unproven sources together, as multiples of those of one; 0 disables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aggregates {
    /// Of an IPv4 /24 or an IPv6 /48.
    pub prefix: f64,
    /// Of everyone.
    pub overall: f64,
    /// Most that the triggers of one unproven source are divided by while all of them together
    /// exceed theirs.
    pub pressure: f64,
}

impl Default for Aggregates {
    fn default() -> Self {
        Self {
            prefix: 4.0,
            overall: 20.0,
            pressure: 8.0,
        }
    }
}

/// How much of proven sources' traffic decisions may touch before they step back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Collateral {
    /// Share of the packets from proven sources, each counted up to its packet trigger.
    pub share: f64,
    /// Proven sources that may be held whatever their share.
    pub sources: usize,
}

impl Default for Collateral {
    fn default() -> Self {
        Self {
            share: 0.10,
            sources: 3,
        }
    }
}

/// Everything the engine goes by, in domain values. `profile` resolves and checks it:
/// `1 <= soft_at < hard_at < block_at`, figures finite and not negative, stays above zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub triggers: Triggers,
    pub weights: Weights,
    /// Most that one signal's ratio to its trigger, and severity by dominance, can be.
    pub cap: f64,
    /// A single signal has severity 1 at this multiple of its trigger; 0 disables.
    pub dominance: f64,
    /// At this multiple of a trigger a source is limited in its first tick; 0 disables.
    pub flash: f64,
    /// Strikes that justify RATE_SOFT.
    pub soft_at: u32,
    /// Strikes that justify RATE_HARD; `None` is never.
    pub hard_at: Option<u32>,
    /// Strikes that justify BLOCK; `None` is never, by non-compliance neither.
    pub block_at: Option<u32>,
    /// High ticks in a row before a step up.
    pub up_need: u32,
    /// Low ticks in a row before a step down.
    pub down_need: u32,
    pub ttl: PerStage<Duration>,
    /// Minimum hold.
    pub hold: PerStage<Duration>,
    pub gate: Option<BlockGate>,
    pub noncompliance: Option<NonCompliance>,
    pub soft: StageLimit,
    pub hard: StageLimit,
    pub evidence: Evidence,
    pub aggregates: Aggregates,
    pub collateral: Collateral,
}

/// High ticks before many sources together are limited, at most: waiting saves nobody there.
const MANY_UP_NEED: u32 = 2;

/// However many ports a profile tolerates: more refusals per second than this are no mistake.
pub const REFUSALS_MOST: f64 = 50.0;

/// Strikes a source can gather beyond the harshest threshold.
const STRIKES_ABOVE: u32 = 3;

impl Config {
    /// The harshest stage that `strikes` justify.
    pub(super) fn justified(&self, strikes: u32) -> Stage {
        let reached = |at: Option<u32>| at.is_some_and(|at| strikes >= at);
        if reached(self.block_at) {
            Stage::Block
        } else if reached(self.hard_at) {
            Stage::RateHard
        } else if strikes >= self.soft_at {
            Stage::RateSoft
        } else {
            Stage::Observe
        }
    }

    /// Most strikes that are kept for a source. Bounded, so that debt is paid off in seconds.
    pub(super) fn strike_ceiling(&self) -> u32 {
        let harshest = self.block_at.or(self.hard_at).unwrap_or(self.soft_at);
        harshest.saturating_add(STRIKES_ABOVE)
    }

    /// Most strikes that do not justify `stage`.
    pub(super) fn strikes_below(&self, stage: Stage) -> u32 {
        let at = match stage {
            Stage::Observe | Stage::RateSoft => Some(self.soft_at),
            Stage::RateHard => self.hard_at,
            Stage::Block => self.block_at,
        };
        at.unwrap_or(u32::MAX).saturating_sub(1)
    }

    /// How long a stage lasts at least: its TTL and its minimum hold run side by side.
    pub(super) fn stay(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Observe => Duration::ZERO,
            Stage::RateSoft => self.ttl.soft.max(self.hold.soft),
            Stage::RateHard => self.ttl.hard.max(self.hold.hard),
            Stage::Block => self.ttl.block.max(self.hold.block),
        }
    }

    /// What `factor` sources together are held to: limited, never blocked, because someone else
    /// may be among them.
    pub(super) fn of_many(&self, factor: f64) -> Self {
        let Triggers {
            pps,
            bps,
            syn,
            ports,
        } = self.triggers;
        let limit = StageLimit {
            floor: self.soft.over(self.triggers.pps).times(whole(factor)),
            factor: None,
        };
        Self {
            triggers: Triggers {
                pps: pps * factor,
                bps: bps * factor,
                syn: syn * factor,
                ports: ports * factor,
            },
            hard_at: None,
            block_at: None,
            gate: None,
            noncompliance: None,
            up_need: self.up_need.min(MANY_UP_NEED),
            soft: limit,
            hard: limit,
            ..self.clone()
        }
    }

    /// Half-open connections per second of one host that are too many.
    pub fn half_open_trigger(&self) -> f64 {
        self.evidence.half_open * self.triggers.syn
    }

    /// Refused packets per second of one host that are too many. They are to ports what half-opens are
    /// to SYNs: without a weight there is no trigger.
    pub fn refusals_trigger(&self) -> f64 {
        if self.weights.ports > 0.0 {
            self.evidence.refusals * self.triggers.ports.min(REFUSALS_MOST)
        } else {
            0.0
        }
    }

    /// The packet limit of RATE_SOFT.
    pub fn soft_limit(&self) -> RateLimit {
        self.soft.over(self.triggers.pps)
    }

    /// The packet limit of RATE_HARD.
    pub fn hard_limit(&self) -> RateLimit {
        self.hard.over(self.triggers.pps)
    }

    /// Distinct ports in one window from which `flash` applies, for the data plane's alert;
    /// `u32::MAX` if ports are not scored or flash is off.
    pub fn port_alert(&self) -> u32 {
        let bound = self.flash * self.triggers.ports;
        if bound > 0.0 && self.weights.ports > 0.0 {
            whole(bound.ceil())
        } else {
            u32::MAX
        }
    }
}

impl StageLimit {
    /// The limit for a packet trigger of `trigger` per second; the burst grows with the rate.
    fn over(&self, trigger: f64) -> RateLimit {
        let wanted = whole(self.factor.unwrap_or(0.0) * trigger);
        let Some(pps) = NonZeroU32::new(wanted).filter(|pps| *pps > self.floor.pps) else {
            return self.floor;
        };
        let seconds = f64::from(self.floor.burst.get()) / f64::from(self.floor.pps.get());
        let burst = NonZeroU32::new(whole(seconds * f64::from(pps.get())));
        RateLimit {
            pps,
            burst: burst.unwrap_or(self.floor.burst),
        }
    }
}

/// The nearest `u32`, halves up; values outside its range give its ends. `f64::round` is a call
/// where the target has no instruction for it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float-to-integer cast saturates, which is what is wanted here"
)]
pub(super) fn whole(value: f64) -> u32 {
    let below = value as u32;
    below.saturating_add(u32::from(value - f64::from(below) >= 0.5))
}
