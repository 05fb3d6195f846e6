//! What outlives a restart: who is held, why and until when, in the time of day.

use serde::{Deserialize, Serialize};

use super::Engine;
use super::aggregate::{everyone, prefix_of};
use super::decision::{Decision, Kind, Why};
use super::explain::Reading;
use super::ladder::{Ladder, Step};
use super::roster::{MOST, decision};
use super::severity::Signal;
use crate::model::{Hold, Ktime, LimitScope, Moment, RateLimit, Source, Stage};

/// One source above OBSERVE. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub source: Source,
    pub stage: Stage,
    /// What RATE_SOFT limits.
    pub scope: LimitScope,
    /// RATE_HARD limits what is new, too.
    #[serde(default)]
    pub spares: bool,
    /// The limit in force, at RATE_SOFT and RATE_HARD.
    pub limit: Option<RateLimit>,
    pub entered_ms: u64,
    /// Before this the stage is not left.
    pub ends_ms: u64,
    /// When the kernel's entry ends by itself.
    pub until_ms: u64,
    pub strikes: u32,
    /// Low ticks in a row.
    pub down: u32,
    pub nat: u32,
    pub proven: bool,
    pub cause: Reading,
}

/// The engine's part of the state file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineState {
    pub held: Vec<Held>,
}

impl Engine {
    /// What a restart must not lose, sorted by source.
    pub fn state(&self, now: Moment) -> EngineState {
        let mut held: Vec<Held> = self
            .ladders()
            .filter(|(_, ladder)| ladder.stage > Stage::Observe)
            .map(|(source, ladder)| Held {
                source: *source,
                stage: ladder.stage,
                scope: ladder.scope,
                spares: ladder.spares,
                limit: ladder.limit,
                entered_ms: now.unix_ms(ladder.entered),
                ends_ms: now.unix_ms(ladder.ends),
                until_ms: now.unix_ms(ladder.until),
                strikes: ladder.strikes,
                down: ladder.down,
                nat: ladder.hosts.into(),
                proven: ladder.proven,
                cause: ladder.cause(),
            })
            .collect();
        held.sort_by_key(|held| held.source);
        EngineState { held }
    }

    /// Takes up who was held before a restart and still is to be, for the time that was left, and
    /// answers with what the kernel must hold for it. What has ended meanwhile, what is held
    /// already and what contradicts itself is passed over; strikes never exceed the ceiling.
    pub fn restore(&mut self, state: &EngineState, now: Moment) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for held in &state.held {
            let until = now.ktime(held.until_ms);
            if held.stage == Stage::Observe || until <= now.ktime {
                continue;
            }
            let limits = matches!(held.stage, Stage::RateSoft | Stage::RateHard);
            if limits != held.limit.is_some() {
                continue;
            }
            let mut ladder = Ladder {
                entered: now.ktime(held.entered_ms),
                ends: now.ktime(held.ends_ms).min(until),
                until,
                stage: held.stage,
                scope: held.scope,
                spares: held.spares,
                limit: held.limit,
                strikes: held.strikes.min(self.config.strike_ceiling()),
                down: held.down,
                hosts: u8::try_from(held.nat).unwrap_or(u8::MAX).max(1),
                proven: held.proven,
                ..Ladder::default()
            };
            ladder.set_cause(&held.cause);
            decisions.extend(self.take_up(held.source, ladder));
        }
        decisions
    }

    /// Takes up an entry that the kernel holds in IQ's name and no state tells of, so that it
    /// neither stays longer than it says nor is set anew: what it allows is taken for its stage.
    pub fn adopt(&mut self, source: Source, hold: Hold, until: Ktime, now: Ktime) {
        let (stage, scope, limit) = match hold {
            Hold::Deny => (Stage::Block, LimitScope::All, None),
            Hold::Limit { limit, scope } => match scope {
                LimitScope::All => (Stage::RateHard, scope, Some(limit)),
                LimitScope::New => (Stage::RateSoft, scope, Some(limit)),
            },
        };
        if until > now {
            let ladder = Ladder {
                entered: now,
                ends: until,
                until,
                stage,
                scope,
                limit,
                ..Ladder::default()
            };
            self.take_up(source, ladder);
        }
    }

    fn take_up(&mut self, source: Source, ladder: Ladder) -> Option<Decision> {
        let roster = if source == everyone() {
            &mut self.overall
        } else if prefix_of(&source) == source {
            &mut self.prefixes
        } else {
            &mut self.sources
        };
        if roster.ladders.len() >= MOST || !roster.ladders.put(source, ladder) {
            return None;
        }
        let cause = ladder.cause();
        let step = Step {
            from: ladder.stage,
            kind: Kind::Renew,
            why: Why {
                severity: cause.severity,
                signal: cause.signal,
                rate: cause.rate,
                trigger: cause.trigger,
                strikes: ladder.strikes,
                nat: ladder.hosts.into(),
                proven: ladder.proven,
                exempt: false,
            },
        };
        (cause.signal != Signal::Silence).then(|| decision(&ladder, step, source))
    }
}
