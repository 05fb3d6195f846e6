//! Progressive enforcement: windows of counts in, decisions out. Pure: `now` is an argument.
//!
//! `severity` says how bad a window was, `ladder` what follows from it for one source, and
//! [`Engine`] keeps one ladder per source that has anything to remember.
//!
//! Ladders are kept sorted by source and a tick merges them with the sorted window. That is
//! linear in memory order, so a window of the data plane's whole table costs milliseconds, and
//! unlike a hash table it gives senders, who choose their addresses, nothing to collide in.

mod config;
mod decision;
mod ladder;
mod severity;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::mem;
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

/// Ladders that room is kept for, however quiet it gets.
const LEAST_ROOM: usize = 1024;

/// Progressive enforcement of all sources. Equal calls give equal decisions, in the same order.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    /// Sources with something to remember, sorted.
    ladders: Vec<(Source, Ladder)>,
    /// What `ladders` was before the last tick; only its memory is of use.
    spare: Vec<(Source, Ladder)>,
    /// The last window's samples that could matter, by source.
    samples: Vec<Sample>,
    order: Vec<(u128, u8, usize)>,
    /// Sources that an alert brought up since the last tick; none of them is in `ladders`.
    alerted: BTreeMap<Source, Ladder>,
    /// When the running window began.
    window_start: Option<Ktime>,
    window_length: Duration,
}

impl Engine {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ladders: Vec::new(),
            spare: Vec::new(),
            samples: Vec::new(),
            order: Vec::new(),
            alerted: BTreeMap::new(),
            window_start: None,
            window_length: SECOND,
        }
    }

    /// Scores one window that ended `now`; of several samples of one source the first counts.
    /// Sources absent from the window were silent and are judged too. Exempt sources never leave
    /// OBSERVE. At most one decision per source, sorted by source.
    pub fn tick(
        &mut self,
        now: Ktime,
        window: Window<'_>,
        exempt: &dyn Fn(&Source) -> bool,
    ) -> Vec<Decision> {
        self.window_start = Some(now);
        self.window_length = window.length.clamp(SECOND, LONGEST_TICK);
        self.admit_alerted();
        self.sort_window(&window);
        let tick = Tick {
            config: &self.config,
            now,
            length: self.window_length,
        };
        let mut round = Round {
            tick,
            exempt,
            decisions: Vec::new(),
            kept: mem::take(&mut self.spare),
        };
        let mut known = self.ladders.iter().copied().peekable();
        for sample in &self.samples {
            let score = Score::of(&self.config, sample, window.length);
            while let Some((source, ladder)) = known.next_if(|known| known.0 < sample.source) {
                round.judge(source, ladder, &Score::SILENT);
            }
            let ladder = known
                .next_if(|known| known.0 == sample.source)
                .map_or_else(Ladder::default, |known| known.1);
            round.judge(sample.source, ladder, &score);
        }
        for (source, ladder) in known {
            round.judge(source, ladder, &Score::SILENT);
        }
        let Round {
            decisions, kept, ..
        } = round;
        self.spare = mem::replace(&mut self.ladders, kept);
        self.spare.clear();
        self.give_back_room();
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
        let source = sample.source;
        let score = Score::of(tick.config, sample, elapsed.max(SECOND));
        if !score.flashes(tick.config) || exempt(&source) {
            return None;
        }
        let ladder = match find(&self.ladders, &source) {
            Ok(index) => &mut self.ladders[index].1,
            Err(_) => self.alerted.entry(source).or_default(),
        };
        let step = ladder.alert(&tick, &score)?;
        Some(decision(ladder, tick.config, step, source))
    }

    /// Forgets every source.
    pub fn reset(&mut self) {
        self.ladders = Vec::new();
        self.spare = Vec::new();
        self.samples = Vec::new();
        self.order = Vec::new();
        self.alerted.clear();
    }

    /// Forgets one source.
    pub fn forget(&mut self, source: &Source) {
        self.alerted.remove(source);
        if let Ok(index) = find(&self.ladders, source) {
            self.ladders.remove(index);
        }
    }

    /// Sources above OBSERVE, in no order, and when the kernel's entry ends by itself.
    pub fn held(&self) -> impl Iterator<Item = (&Source, Stage, Ktime)> {
        let ladders = self.ladders.iter().map(|(source, ladder)| (source, ladder));
        ladders
            .chain(&self.alerted)
            .map(|(source, ladder)| (source, ladder.stage(), ladder.until()))
            .filter(|(_, stage, _)| *stage > Stage::Observe)
    }

    /// Sources with something to remember.
    pub fn len(&self) -> usize {
        self.ladders.len() + self.alerted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What sources are judged by now.
    pub const fn triggers(&self) -> &Triggers {
        &self.config.triggers
    }

    /// See [`Config::port_alert`].
    pub fn port_alert(&self) -> u32 {
        self.config.port_alert()
    }

    fn admit_alerted(&mut self) {
        if !self.alerted.is_empty() {
            self.ladders.extend(mem::take(&mut self.alerted));
            self.ladders.sort_by_key(|(source, _)| *source);
        }
    }

    /// Sorts out the samples that can matter. A low one matters only to a ladder, so there are
    /// none of them while there are no ladders.
    fn sort_window(&mut self, window: &Window<'_>) {
        let matters = |sample: &Sample| {
            !self.ladders.is_empty() || {
                let score = Score::of(&self.config, sample, window.length);
                score.severity >= LOW || score.drops > 0.0
            }
        };
        let order = &mut self.order;
        order.clear();
        for (index, sample) in window.samples.iter().enumerate() {
            if matters(sample) {
                let source = sample.source;
                order.push((u128::from_be_bytes(source.octets()), source.bits(), index));
            }
        }
        // Few share an address and differ in length, and comparing one number needs no branch.
        order.sort_unstable_by_key(|(address, ..)| *address);
        for same in order.chunk_by_mut(|a, b| a.0 == b.0) {
            same.sort_unstable();
        }
        order.dedup_by_key(|(address, bits, _)| (*address, *bits));
        // A loop of nothing but these copies lets their cache misses overlap.
        self.samples.clear();
        self.samples
            .extend(order.iter().map(|(_, _, index)| window.samples[*index]));
    }

    /// Lets go of the memory that a past attack took.
    fn give_back_room(&mut self) {
        fit(&mut self.spare, self.ladders.len());
        fit(&mut self.ladders, 0);
        fit(&mut self.samples, 0);
        fit(&mut self.order, 0);
    }
}

/// Shrinks a buffer of which less than an eighth was used.
fn fit<T>(buffer: &mut Vec<T>, used: usize) {
    let room = buffer.len().max(used).saturating_mul(2).max(LEAST_ROOM);
    if buffer.capacity() / 4 > room {
        buffer.shrink_to(room);
    }
}

fn find(ladders: &[(Source, Ladder)], source: &Source) -> Result<usize, usize> {
    ladders.binary_search_by(|(known, _)| known.cmp(source))
}

/// One tick under way.
struct Round<'a> {
    tick: Tick<'a>,
    exempt: &'a dyn Fn(&Source) -> bool,
    decisions: Vec<Decision>,
    kept: Vec<(Source, Ladder)>,
}

impl Round<'_> {
    /// Advances one ladder and keeps it if it has anything to remember. Whether a source is exempt
    /// is asked only where it makes a difference: asking can be the most costly part of a tick.
    fn judge(&mut self, source: Source, mut ladder: Ladder, score: &Score) {
        let from = ladder.stage();
        let mut step = ladder.advance(&self.tick, score);
        if (from > Stage::Observe || step.is_some()) && (self.exempt)(&source) {
            ladder = Ladder::default();
            let why = Why {
                exempt: true,
                ..Why::of(score, 0)
            };
            let kind = Kind::Release;
            step = (from > Stage::Observe).then_some(Step { from, kind, why });
        }
        if let Some(step) = step {
            let config = self.tick.config;
            self.decisions.push(decision(&ladder, config, step, source));
        }
        if !ladder.is_blank() {
            self.kept.push((source, ladder));
        }
    }
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
