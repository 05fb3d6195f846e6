//! One source's place between OBSERVE and BLOCK.
//!
//! Up: one stage per tick, to at most the stage its strikes justify, after `up_need` high ticks;
//! or from RATE_HARD to BLOCK when it does not yield to the limit. BLOCK also needs its gate.
//! OBSERVE to RATE_SOFT needs a single tick if one signal flashes.
//!
//! Down: one stage at a time, after the stage has lasted its stay (TTL and minimum hold, counted
//! from entry or last renewal) and `down_need` low ticks came last. Strikes never release.
//!
//! What is imposed on the kernel outlives the stay by the time those low ticks can take, so the
//! ladder's own release always comes first while the daemon lives.

use std::time::Duration;

use super::config::Config;
use super::decision::{Kind, Why};
use super::severity::{Score, Signal};
use crate::model::{Hold, Ktime, LimitScope, Stage};

/// A tick is high from this severity on.
const HIGH: f64 = 1.0;

/// A tick is low below this severity, if no limit dropped anything.
pub(super) const LOW: f64 = 0.25;

/// Ticks that may come late before the kernel's entry ends on its own.
const SPARE_TICKS: u32 = 3;

/// What one tick goes by, for every ladder.
pub(super) struct Tick<'a> {
    pub(super) config: &'a Config,
    pub(super) now: Ktime,
    /// Expected time to the next tick.
    pub(super) length: Duration,
}

/// A decision before its source is named.
pub(super) struct Step {
    pub(super) from: Stage,
    pub(super) kind: Kind,
    pub(super) why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    High,
    Between,
    Low,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ladder {
    /// When the stage was entered or last renewed.
    since: Ktime,
    until: Ktime,
    /// First of the ticks in a row that reach the block gate's severity.
    gate_since: Option<Ktime>,
    strikes: u32,
    /// High ticks in a row.
    up: u32,
    /// Low ticks in a row.
    down: u32,
    /// Ticks of not yielding to a limit.
    unyielding: u32,
    stage: Stage,
    /// What RATE_SOFT limits, by the signal that led there.
    scope: LimitScope,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            since: Ktime::default(),
            until: Ktime::default(),
            gate_since: None,
            strikes: 0,
            up: 0,
            down: 0,
            unyielding: 0,
            stage: Stage::Observe,
            scope: LimitScope::New,
        }
    }
}

impl Ladder {
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn until(&self) -> Ktime {
        self.until
    }

    #[cfg(test)]
    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Whether nothing would be lost by starting anew.
    pub(super) fn is_blank(&self) -> bool {
        self.stage == Stage::Observe
            && self.strikes == 0
            && self.up == 0
            && self.gate_since.is_none()
    }

    /// What the data plane is to do at this stage.
    pub(super) fn hold(&self, config: &Config) -> Option<Hold> {
        match self.stage {
            Stage::Observe => None,
            Stage::RateSoft => Some(Hold::Limit {
                limit: config.soft_limit(),
                scope: self.scope,
            }),
            Stage::RateHard => Some(Hold::Limit {
                limit: config.hard_limit(),
                scope: LimitScope::All,
            }),
            Stage::Block => Some(Hold::Deny),
        }
    }

    /// Takes in one window's score and moves by at most one stage.
    pub(super) fn advance(&mut self, tick: &Tick<'_>, score: &Score) -> Option<Step> {
        let mood = self.mood(tick.config, score);
        self.remember(tick, score, mood);
        let target = self.target(tick, score, mood);
        if target > self.stage {
            return Some(self.enter(tick, target, score));
        }
        if self.stage == Stage::Observe {
            return None;
        }
        let stayed = tick.now.since(self.since);
        let stay = tick.config.stay(self.stage);
        if mood == Mood::Low {
            let done = stayed >= stay && self.down >= tick.config.down_need;
            return done.then(|| self.step_down(tick, score));
        }
        let widens = mood == Mood::High
            && self.stage == Stage::RateSoft
            && self.scope == LimitScope::New
            && scope_for(score.signal) == LimitScope::All;
        (stayed >= stay / 2 || widens).then(|| self.enter(tick, self.stage, score))
    }

    /// Limits at once a source that flashes, between ticks. Streaks and strikes are left to the
    /// tick that follows, whose window holds the same packets.
    pub(super) fn alert(&mut self, tick: &Tick<'_>, score: &Score) -> Option<Step> {
        (self.stage == Stage::Observe && score.flashes(tick.config))
            .then(|| self.enter(tick, Stage::RateSoft, score))
    }

    /// Drops per second that say something: at BLOCK every packet is one.
    fn drops(&self, score: &Score) -> f64 {
        if self.stage == Stage::Block {
            0.0
        } else {
            score.drops
        }
    }

    fn mood(&self, config: &Config, score: &Score) -> Mood {
        let drops = self.drops(score);
        let ignores_limit = config
            .noncompliance
            .is_some_and(|rule| reaches(drops, rule.drops));
        if score.severity >= HIGH || ignores_limit {
            Mood::High
        } else if score.severity < LOW && drops <= 0.0 {
            Mood::Low
        } else {
            Mood::Between
        }
    }

    /// Updates everything that a later tick will go by, except the stage.
    fn remember(&mut self, tick: &Tick<'_>, score: &Score, mood: Mood) {
        match mood {
            Mood::High => (self.up, self.down) = (self.up.saturating_add(1), 0),
            Mood::Low => (self.up, self.down) = (0, self.down.saturating_add(1)),
            Mood::Between => {
                self.up = self.up.saturating_sub(1);
                self.down = self.down.saturating_sub(1);
            }
        }
        let earned = [1.0, 2.0, 3.0].map(|step| u32::from(score.severity >= step));
        self.strikes = self
            .strikes
            .saturating_add(earned.iter().sum())
            .min(tick.config.strike_ceiling());
        if mood == Mood::Low {
            self.strikes = self.strikes.saturating_sub(1);
        }
        self.gate_since = tick
            .config
            .gate
            .filter(|gate| score.severity >= gate.severity)
            .map(|_| self.gate_since.unwrap_or(tick.now));
        self.count_unyielding(tick.config, score);
    }

    fn count_unyielding(&mut self, config: &Config, score: &Score) {
        let Some(rule) = config.noncompliance else {
            return;
        };
        let drops = self.drops(score);
        if self.stage == Stage::Observe || (score.severity < rule.reset && drops <= 0.0) {
            self.unyielding = 0;
        } else if reaches(drops, rule.drops) || reaches(score.severity, rule.severity) {
            self.unyielding = self.unyielding.saturating_add(1);
        }
    }

    /// Where the source should be after this tick: here or one stage harsher.
    fn target(&mut self, tick: &Tick<'_>, score: &Score, mood: Mood) -> Stage {
        let config = tick.config;
        if self.stage == Stage::Observe && score.flashes(config) {
            self.strikes = self.strikes.max(config.soft_at);
            return Stage::RateSoft;
        }
        if mood != Mood::High || self.up < config.up_need {
            return self.stage;
        }
        let justified = config.justified(self.strikes);
        match self.stage {
            Stage::Observe if justified > Stage::Observe => Stage::RateSoft,
            Stage::RateSoft if justified > Stage::RateSoft => Stage::RateHard,
            Stage::RateHard
                if (justified > Stage::RateHard || self.is_unyielding(config))
                    && self.gate_is_open(tick) =>
            {
                Stage::Block
            }
            stage @ (Stage::Observe | Stage::RateSoft | Stage::RateHard | Stage::Block) => stage,
        }
    }

    fn is_unyielding(&self, config: &Config) -> bool {
        config.block_at.is_some()
            && config
                .noncompliance
                .is_some_and(|rule| self.unyielding >= rule.at)
    }

    fn gate_is_open(&self, tick: &Tick<'_>) -> bool {
        tick.config.gate.is_none_or(|gate| {
            self.gate_since
                .is_some_and(|since| tick.now.since(since) >= gate.lasting)
        })
    }

    /// Enters `to` anew, which is the same or a harsher stage.
    fn enter(&mut self, tick: &Tick<'_>, to: Stage, score: &Score) -> Step {
        let score = self.decisive(tick.config, score);
        let from = self.stage;
        let kind = if to > from {
            Kind::Escalate
        } else {
            Kind::Renew
        };
        let widest = self.scope == LimitScope::All && from != Stage::Observe;
        self.scope = if widest {
            LimitScope::All
        } else {
            scope_for(score.signal)
        };
        self.settle(tick, to);
        let why = Why::of(&score, self.strikes);
        Step { from, kind, why }
    }

    /// Steps down and clears what would lead straight back up.
    fn step_down(&mut self, tick: &Tick<'_>, score: &Score) -> Step {
        let from = self.stage;
        self.strikes = self.strikes.min(tick.config.strikes_below(from));
        self.unyielding = 0;
        self.settle(tick, from.milder());
        Step {
            from,
            kind: Kind::Release,
            why: Why::of(score, self.strikes),
        }
    }

    fn settle(&mut self, tick: &Tick<'_>, stage: Stage) {
        self.stage = stage;
        self.since = tick.now;
        let spare = tick.config.down_need.saturating_add(SPARE_TICKS);
        self.until = tick.now
            + tick
                .config
                .stay(stage)
                .saturating_add(tick.length.saturating_mul(spare));
    }

    /// The score, with drops as its signal where they are what made the tick high.
    fn decisive(&self, config: &Config, score: &Score) -> Score {
        match config.noncompliance {
            Some(rule) if score.severity < HIGH && reaches(self.drops(score), rule.drops) => {
                Score {
                    signal: Signal::Drops,
                    rate: score.drops,
                    trigger: rule.drops,
                    ..*score
                }
            }
            Some(_) | None => *score,
        }
    }
}

/// Whether `value` reaches a bound that is not switched off with 0.
fn reaches(value: f64, bound: f64) -> bool {
    bound > 0.0 && value >= bound
}

/// What RATE_SOFT must limit against `signal`: new connections, or packets where volume harms.
fn scope_for(signal: Signal) -> LimitScope {
    match signal {
        Signal::Syns | Signal::Ports | Signal::Silence => LimitScope::New,
        Signal::Packets | Signal::Bytes | Signal::Drops => LimitScope::All,
    }
}
