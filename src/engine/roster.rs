//! The ladders of all sources that have anything to remember, and one tick's walk along them.

use super::decision::{Decision, Kind, Why};
use super::ladder::{HIGH, Ladder, Step, Tick};
use super::severity::Score;
use super::sorted::{Sorted, push};
use crate::model::{Source, Stage};
use crate::telemetry::{Key, Order};

pub(super) type Exempt<'a> = &'a dyn Fn(&Source) -> bool;

/// Most ladders of one kind, so that no number of senders takes more memory than was promised.
/// Whom there is no room for, everyone's aggregate still counts.
pub(super) const MOST: usize = 16_384;

/// Of that, what is kept for others than those whose evidence took long to gather, which costs
/// least to make up, and for others than those who prove nothing: whoever did is in no aggregate.
const KEPT: usize = MOST / 4;

#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) ladders: Sorted<Ladder>,
}

/// One tick under way. Keys come in order; those passed over were silent.
pub(super) struct Round<'a> {
    pub(super) tick: Tick<'a>,
    pub(super) exempt: Exempt<'a>,
    /// Sources that may come.
    pub(super) most: usize,
    pub(super) decisions: Vec<Decision>,
    /// For each proven source that leaves OBSERVE: its decision, and its packets per second.
    pub(super) proven: Vec<(usize, f64)>,
}

/// What became of a source in a tick.
pub(super) struct Seen {
    pub(super) stage: Stage,
    pub(super) exempt: bool,
}

impl Seen {
    pub(super) const UNTOUCHED: Self = Self {
        stage: Stage::Observe,
        exempt: false,
    };
}

impl Roster {
    pub(super) fn in_order(order: Order) -> Self {
        Self {
            ladders: Sorted::in_order(order),
        }
    }

    /// Whether there is room for one more with this score, beside `more` who wait.
    pub(super) fn has_room(&self, score: &Score, more: usize) -> bool {
        let most = match (score.proven, score.ratio >= 1.0) {
            (true, _) => MOST,
            (false, true) => MOST - KEPT,
            (false, false) => MOST - 2 * KEPT,
        };
        self.ladders.len() + more < most
    }

    /// Judges everybody before `key` as silent. Whether anything is remembered of its source.
    pub(super) fn knows(&mut self, round: &mut Round<'_>, key: &Key) -> bool {
        self.silent(round, Some(key));
        self.ladders.is_at(key)
    }

    /// Judges a source by `score`, and everybody before it as silent.
    pub(super) fn judge(&mut self, round: &mut Round<'_>, key: Key, score: &Score) -> Seen {
        self.silent(round, Some(&key));
        let source = key.source;
        let mut seen = None;
        if let Some(ladder) = self.ladders.pass_to(&key) {
            seen = Some(round.advance(source, ladder, score));
        }
        seen.unwrap_or_else(|| {
            if round.tick.leaves_blank(score) {
                return Seen::UNTOUCHED;
            }
            if !self.has_room(score, 0) {
                return Seen {
                    stage: Stage::Observe,
                    exempt: score.severity >= HIGH && (round.exempt)(&source),
                };
            }
            let mut ladder = Ladder::default();
            let seen = round.advance(source, &mut ladder, score);
            if !ladder.is_blank() {
                self.ladders.insert(key, ladder, round.most);
            }
            seen
        })
    }

    /// Judges everybody that is left as silent, and drops who has nothing to remember.
    pub(super) fn finish(&mut self, round: &mut Round<'_>) {
        self.silent(round, None);
        self.ladders.end_pass(|ladder| !ladder.is_blank());
    }

    /// Keeps a prefix of known peers at a limit of its own while everyone else shares one.
    pub(super) fn shelter(&mut self, round: &mut Round<'_>, prefix: Key, overall: &Score) {
        self.silent(round, Some(&prefix));
        if let Some(ladder) = self.ladders.pass_to(&prefix) {
            round.shelter(prefix.source, ladder, overall);
        } else if self.ladders.len() < MOST {
            let mut ladder = Ladder::default();
            round.shelter(prefix.source, &mut ladder, overall);
            self.ladders.insert(prefix, ladder, round.most);
        }
    }

    fn silent(&mut self, round: &mut Round<'_>, before: Option<&Key>) {
        while let Some((source, ladder)) = self.ladders.next_before(before) {
            round.advance(source, ladder, &Score::SILENT);
        }
    }
}

impl<'a> Round<'a> {
    pub(super) fn new(tick: Tick<'a>, exempt: Exempt<'a>) -> Self {
        Self {
            tick,
            exempt,
            most: 0,
            decisions: Vec::new(),
            proven: Vec::new(),
        }
    }

    /// Advances one ladder. Whether a source is exempt is asked only where it makes a difference:
    /// asking can be the most costly part of a tick.
    fn advance(&mut self, source: Source, ladder: &mut Ladder, score: &Score) -> Seen {
        let from = ladder.stage();
        let mut step = ladder.advance(&self.tick, score);
        let asks = from > Stage::Observe || step.is_some() || score.severity >= HIGH;
        let exempt = asks && (self.exempt)(&source);
        if exempt {
            *ladder = Ladder::default();
            let why = Why {
                exempt: true,
                ..Why::of(score, 0)
            };
            let kind = Kind::Release;
            step = (from > Stage::Observe).then_some(Step { from, kind, why });
        }
        if let Some(step) = step {
            if step.from == Stage::Observe && score.proven {
                self.proven.push((self.decisions.len(), score.packets));
            }
            push(
                &mut self.decisions,
                decision(ladder, step, source),
                self.most,
            );
        }
        Seen {
            stage: ladder.stage(),
            exempt,
        }
    }

    fn shelter(&mut self, prefix: Source, ladder: &mut Ladder, overall: &Score) {
        if (self.exempt)(&prefix) {
            return;
        }
        if let Some(step) = ladder.shelter(&self.tick, overall) {
            self.decisions.push(decision(ladder, step, prefix));
        }
    }
}

pub(super) fn decision(ladder: &Ladder, step: Step, source: Source) -> Decision {
    let hold = ladder.hold();
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
