//! Progressive enforcement: windows of counts in, decisions out. Pure: `now` is an argument.
//!
//! `severity` says how bad a window was, `ladder` what follows from it for one source, and
//! [`Engine`] keeps one ladder per source that has anything to remember.

mod config;
mod decision;
mod ladder;
mod severity;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

pub use config::{BlockGate, Config, NonCompliance, PerStage, StageLimit, Triggers, Weights};
pub use decision::{Decision, Kind, Why};
use ladder::{LOW, Ladder, Step, Tick};
use severity::Score;
pub use severity::Signal;

use crate::model::{Ktime, Source, Stage};
use crate::telemetry::{Sample, Window};

/// Shortest time that an alert's counts are spread over.
const SECOND: Duration = Duration::from_secs(1);

/// Longest time that the next tick is assumed to be away; a window that was longer was late.
const LONGEST_TICK: Duration = Duration::from_secs(60);

/// Entries that the map of sources keeps room for, however quiet it gets.
const LEAST_ROOM: usize = 1024;

/// A ladder and the last tick that moved it.
#[derive(Debug, Clone, Copy, Default)]
struct Tracked {
    ladder: Ladder,
    ticks: u64,
}

/// Progressive enforcement of all sources. Equal calls give equal decisions, in the same order.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    /// Sources with something to remember. The map's hash is keyed: sources choose their address.
    tracked: HashMap<Source, Tracked>,
    ticks: u64,
    /// When the running window began.
    window_start: Option<Ktime>,
    window_length: Duration,
}

impl Engine {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            tracked: HashMap::new(),
            ticks: 0,
            window_start: None,
            window_length: SECOND,
        }
    }

    /// Scores one window that ended `now`, each source in it once; sources absent from it were
    /// silent and are judged too. Exempt sources never leave OBSERVE. Decisions come by source.
    pub fn tick(
        &mut self,
        now: Ktime,
        window: Window<'_>,
        exempt: &dyn Fn(&Source) -> bool,
    ) -> Vec<Decision> {
        self.ticks += 1;
        self.window_start = Some(now);
        self.window_length = window.length.clamp(SECOND, LONGEST_TICK);
        let tick = Tick {
            config: &self.config,
            now,
            length: self.window_length,
        };
        let mut decisions = Vec::new();
        for sample in window.samples {
            let score = Score::of(tick.config, sample, window.length);
            let tracked = if score.severity < LOW && score.drops <= 0.0 {
                self.tracked.get_mut(&sample.source)
            } else {
                Some(self.tracked.entry(sample.source).or_default())
            };
            if let Some(tracked) = tracked {
                tracked.ticks = self.ticks;
                let ladder = &mut tracked.ladder;
                decisions.extend(judge(ladder, &tick, &score, sample.source, exempt));
            }
        }
        let ticks = self.ticks;
        self.tracked.retain(|source, tracked| {
            if tracked.ticks != ticks {
                let ladder = &mut tracked.ladder;
                decisions.extend(judge(ladder, &tick, &Score::SILENT, *source, exempt));
            }
            !tracked.ladder.is_blank()
        });
        self.give_back_room();
        decisions.sort_unstable_by_key(|decision| decision.source);
        decisions
    }

    /// Scores one source between ticks, on an alert of the data plane. `sample` holds what the
    /// running window has counted so far, which is not extrapolated. Only a flash leads to a
    /// decision, and the tick that follows scores the whole window as if there had been no alert.
    pub fn alert(
        &mut self,
        now: Ktime,
        sample: &Sample,
        exempt: &dyn Fn(&Source) -> bool,
    ) -> Option<Decision> {
        let elapsed = self.window_start.map_or(SECOND, |start| now.since(start));
        let tick = Tick {
            config: &self.config,
            now,
            length: self.window_length,
        };
        let score = Score::of(tick.config, sample, elapsed.max(SECOND));
        if !score.flashes(tick.config) || exempt(&sample.source) {
            return None;
        }
        let ladder = &mut self.tracked.entry(sample.source).or_default().ladder;
        let step = ladder.alert(&tick, &score)?;
        Some(decision(ladder, tick.config, step, sample.source))
    }

    /// Lets go of the memory that a past attack took.
    fn give_back_room(&mut self) {
        let room = self.tracked.len().saturating_mul(2).max(LEAST_ROOM);
        if self.tracked.capacity() / 4 > room {
            self.tracked.shrink_to(room);
        }
    }

    /// Forgets every source.
    pub fn reset(&mut self) {
        self.tracked = HashMap::new();
    }

    /// Forgets one source.
    pub fn forget(&mut self, source: &Source) {
        self.tracked.remove(source);
    }

    /// Sources above OBSERVE, in no order, and when the kernel's entry ends by itself.
    pub fn held(&self) -> impl Iterator<Item = (&Source, Stage, Ktime)> {
        self.tracked
            .iter()
            .map(|(source, tracked)| (source, tracked.ladder.stage(), tracked.ladder.until()))
            .filter(|(_, stage, _)| *stage > Stage::Observe)
    }

    /// Sources with something to remember.
    pub fn len(&self) -> usize {
        self.tracked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracked.is_empty()
    }

    /// See [`Config::port_alert`].
    pub fn port_alert(&self) -> u32 {
        self.config.port_alert()
    }
}

/// Advances one ladder. Whether a source is exempt is asked only where it makes a difference,
/// because asking can be the most costly part of a tick.
fn judge(
    ladder: &mut Ladder,
    tick: &Tick<'_>,
    score: &Score,
    source: Source,
    exempt: &dyn Fn(&Source) -> bool,
) -> Option<Decision> {
    let from = ladder.stage();
    let step = ladder.advance(tick, score);
    if (from > Stage::Observe || step.is_some()) && exempt(&source) {
        *ladder = Ladder::default();
        let why = Why {
            exempt: true,
            ..Why::of(score, ladder.strikes())
        };
        let kind = Kind::Release;
        let release = Step { from, kind, why };
        return (from > Stage::Observe).then(|| decision(ladder, tick.config, release, source));
    }
    step.map(|step| decision(ladder, tick.config, step, source))
}

fn decision(ladder: &Ladder, config: &Config, step: Step, source: Source) -> Decision {
    let hold = ladder.hold(config);
    Decision {
        source,
        from: step.from,
        to: ladder.stage(),
        kind: step.kind,
        until: hold.map(|_| ladder.until()),
        hold,
        why: step.why,
    }
}
