//! Progressive enforcement: windows of counts in, decisions out. Pure: `now` is an argument.
//!
//! `severity` says how bad a window was, `track` what a source did over longer than that,
//! `ladder` what follows for one source, `aggregate` what many do together, and [`Engine`] keeps
//! what has to be remembered of each.

mod aggregate;
mod collateral;
mod config;
mod decision;
mod explain;
mod ladder;
mod roster;
mod severity;
mod sorted;
mod state;
#[cfg(test)]
mod tests;
mod track;

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use aggregate::{Aggregate, Prefixes, Shelter, everyone};
pub use config::{
    Aggregates, BlockGate, Collateral, Config, Evidence, NonCompliance, PerStage, REFUSALS_MOST,
    SlowPorts, StageLimit, Triggers, Weights,
};
pub use decision::{Decision, Kind, Why};
pub use explain::{Explanation, Overview, Reading};
pub use ladder::HIGH;
use ladder::{Ladder, Tick};
use roster::{Exempt, Roster, Round, Seen, decision};
pub use severity::Signal;
use severity::{Calm, Scale, Scored, Standing};
pub use state::{EngineState, Held};
#[cfg(test)]
pub(crate) use tests::web;
use track::{Tracks, Watch};

use crate::model::{Ktime, Source, Stage};
use crate::telemetry::{Coverage, Key, Order, Sample, Traffic, Window};

/// Shortest time that an alert's counts are spread over.
const SECOND: Duration = Duration::from_secs(1);

/// Longest time that the next tick is assumed to be away; a window that was longer was late.
const LONGEST_TICK: Duration = Duration::from_secs(60);

/// Learns from a source, see [`Engine::tick_learning`].
type Learn<'a> = &'a mut dyn FnMut(&Source, &Triggers, bool) -> bool;

/// What the sources of one window did together.
struct Crowd<'a> {
    aggregate: Aggregate<'a>,
    shelter: Shelter,
}

/// Progressive enforcement of all sources. Equal calls give equal decisions, in the same order.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    /// What samples come in.
    order: Order,
    /// What a prefix, and everyone together, is judged by.
    prefix_config: Config,
    overall_config: Config,
    sources: Roster,
    prefixes: Roster,
    overall: Roster,
    /// What prefixes sent in a window.
    sums: Prefixes,
    /// Prefixes of who sent before everyone together was too loud.
    known: Vec<Source>,
    tracks: Tracks,
    /// Sources that an alert brought up since the last tick; none of them is in `sources`.
    alerted: BTreeMap<Source, Ladder>,
    /// Ports that alerts told of since the last tick: the tracks do not know them yet.
    alerted_ports: BTreeMap<Source, u32>,
    /// When the running window began.
    window_start: Option<Ktime>,
    window_length: Duration,
    overview: Overview,
}

impl Engine {
    /// Of samples in the order of sources.
    pub fn new(config: Config) -> Self {
        Self::in_order(config, Order::BY_SOURCE)
    }

    /// Of samples in this order.
    pub fn in_order(config: Config, order: Order) -> Self {
        let (prefix_config, overall_config) = many(&config);
        Self {
            config,
            order,
            prefix_config,
            overall_config,
            sources: Roster::in_order(order),
            prefixes: Roster::default(),
            overall: Roster::default(),
            sums: Prefixes::default(),
            known: Vec::new(),
            tracks: Tracks::in_order(order),
            alerted: BTreeMap::new(),
            alerted_ports: BTreeMap::new(),
            window_start: None,
            window_length: SECOND,
            overview: Overview::default(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What samples come in.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Goes by `config` from now on. Who is held stays held for as long as was decided; strikes
    /// beyond the new ceiling are forgiven.
    pub fn reconfigure(&mut self, config: Config) {
        (self.prefix_config, self.overall_config) = many(&config);
        self.config = config;
    }

    /// As [`Engine::tick_learning`], with nobody to learn, and samples in any order.
    pub fn tick(
        &mut self,
        now: Ktime,
        window: Window<impl AsRef<[Sample]>>,
        exempt: Exempt<'_>,
    ) -> Vec<Decision> {
        let window = window.by_ref().sorted(&self.order);
        self.tick_learning(now, window.by_ref(), exempt, &mut |_, _, fit| fit)
    }

    /// Scores one window that ended `now`. Samples come in the order that was agreed; one that does
    /// not is passed over, as are further ones of a source. Sources absent from the window were silent
    /// and are judged too. Exempt sources never leave OBSERVE. At most one decision per source or
    /// prefix: sources in order, then prefixes sorted, then everyone.
    ///
    /// `learn` is given each source that is not held, exempt or not, in order, with its rates and
    /// whether thresholds are to be learned from it by itself: not if it is loud without proof. It
    /// answers whether they were.
    pub fn tick_learning(
        &mut self,
        now: Ktime,
        window: Window<impl Iterator<Item = Sample>>,
        exempt: Exempt<'_>,
        learn: Learn<'_>,
    ) -> Vec<Decision> {
        self.window_start = Some(now);
        self.window_length = window.length.clamp(SECOND, LONGEST_TICK);
        self.sources.ladders.extend(mem::take(&mut self.alerted));
        self.alerted_ports.clear();
        let (length, coverage) = (window.length, window.coverage);
        let mut sums = mem::take(&mut self.sums);
        let mut crowd = Crowd {
            aggregate: Aggregate::new(&self.config, length.as_secs_f64(), &mut sums),
            shelter: Shelter::default(),
        };
        let mut decisions = self.judge_sources(now, window, exempt, learn, &mut crowd);
        decisions.extend(self.judge_many(now, (length, coverage), exempt, crowd));
        self.sums = sums;
        self.tracks.end_pass(now);
        decisions
    }

    fn judge_sources(
        &mut self,
        now: Ktime,
        window: Window<impl Iterator<Item = Sample>>,
        exempt: Exempt<'_>,
        learn: Learn<'_>,
        crowd: &mut Crowd<'_>,
    ) -> Vec<Decision> {
        let (coverage, pressure) = (window.coverage, self.overview.pressure.max(1.0));
        let (all, mut seen_of_all) = (window.all, Traffic::default());
        let mut overview = Overview::default();
        let mut allowance = collateral::Allowance::new(&self.config);
        let tick = Tick {
            config: &self.config,
            now,
            length: self.window_length,
            many: false,
        };
        let scale = Scale::new(&self.config, window.length, coverage);
        let scale = (&scale, &scale.calm(pressure));
        let watch = Watch::new(&self.config, coverage, now, window.length);
        let mut round = Round::new(tick, exempt);
        round.most = window.samples.size_hint().1.unwrap_or_default();
        let mut last = None;
        for sample in window.samples {
            let sample = &sample;
            let key = self.order.key(sample.source);
            if last >= Some(key) {
                continue;
            }
            last = Some(key);
            seen_of_all.add(sample);
            let mut standing = self.tracks.follow(&watch, &key, sample);
            // Whom this host asks for most of it is no part of what presses.
            let asked = u64::from(sample.answers) * 2 > sample.packets;
            if coverage.proof && !sample.proven && !asked {
                standing.pressure = pressure;
            }
            let one = (key, sample, &standing);
            let (seen, alone, fit) = judge(&mut self.sources, &mut round, scale, one);
            overview.sources += 1;
            overview.free += u64::from(seen.stage == Stage::Observe);
            overview.fresh += u64::from(sample.fresh);
            allowance.see(sample, seen.stage);
            if let Some(fit) = fit {
                overview.learned += u64::from(learn(&sample.source, &alone, fit));
            }
            if coverage.proof && !sample.proven && seen.stage == Stage::Observe && !seen.exempt {
                crowd.aggregate.add(sample);
            }
            crowd.shelter.see(sample);
        }
        if coverage.proof
            && let Some(all) = all
        {
            crowd.aggregate.add_unseen(all.without(&seen_of_all));
        }
        self.sources.finish(&mut round);
        let Round {
            mut decisions,
            proven,
            ..
        } = round;
        overview.withheld = allowance.withhold(&mut self.sources, &mut decisions, &proven);
        overview.free += overview.withheld;
        self.overview = overview;
        decisions
    }

    fn judge_many(
        &mut self,
        now: Ktime,
        (length, coverage): (Duration, Coverage),
        exempt: Exempt<'_>,
        crowd: Crowd<'_>,
    ) -> Vec<Decision> {
        let (aggregate, mut shelter) = (crowd.aggregate, crowd.shelter);
        self.keep_known(&mut shelter);
        let (overall, prefixes) = aggregate.close();
        let standing = Standing::default();
        let scale = Scale::new(&self.prefix_config, length, coverage);
        let aggregates = self.config.aggregates;
        let round = |config| {
            let tick = Tick {
                config,
                now,
                length: self.window_length,
                many: true,
            };
            Round::new(tick, exempt)
        };
        let (mut of_everyone, mut of_prefixes) =
            (round(&self.overall_config), round(&self.prefix_config));
        let everyone_scale = Scale::new(&self.overall_config, length, coverage);
        let everything = everyone_scale.score(&overall, &standing).score;
        let mut limited = false;
        if aggregates.overall > 0.0 {
            let key = by_source(everyone());
            let seen = self.overall.judge(&mut of_everyone, key, &everything);
            limited = seen.stage > Stage::Observe;
            self.overview.pressure = everything.ratio.clamp(1.0, aggregates.pressure.max(1.0));
            self.overview.severity = everything.severity;
        }
        self.overall.finish(&mut of_everyone);

        let shelter = if limited {
            shelter.with(&self.known)
        } else {
            Vec::new()
        };
        let mut shelter = shelter.into_iter().map(by_source).peekable();
        if aggregates.prefix > 0.0 {
            for sum in &prefixes {
                let key = by_source(sum.source);
                while let Some(prefix) = shelter.next_if(|prefix| *prefix < key) {
                    self.prefixes.shelter(&mut of_prefixes, prefix, &everything);
                }
                shelter.next_if(|prefix| *prefix == key);
                let score = scale.score(sum, &standing).score;
                self.prefixes.judge(&mut of_prefixes, key, &score);
            }
        }
        for prefix in shelter {
            self.prefixes.shelter(&mut of_prefixes, prefix, &everything);
        }
        self.prefixes.finish(&mut of_prefixes);
        let mut decisions = of_prefixes.decisions;
        decisions.extend(of_everyone.decisions);
        decisions
    }

    /// Who sent before this window, if it is the first in which everyone together may be too loud.
    fn keep_known(&mut self, shelter: &mut Shelter) {
        let calm = |ladder: &Ladder| ladder.stage == Stage::Observe && ladder.up == 0;
        if self.overall.ladders.get(&everyone()).is_none_or(calm) {
            self.known = shelter.take_known();
        }
    }

    /// Scores one source between ticks, on an alert of the data plane. `sample` holds what the
    /// running window has counted so far, which is not extrapolated. Only a flash leads to a
    /// decision, and the tick that follows scores the whole window as if there had been no alert.
    /// A proven peer is left to that: only then is it known what of its openings failed.
    pub fn alert(&mut self, now: Ktime, sample: &Sample, exempt: Exempt<'_>) -> Option<Decision> {
        let elapsed = self.window_start.map_or(SECOND, |start| now.since(start));
        let tick = Tick {
            config: &self.config,
            now,
            length: self.window_length,
            many: false,
        };
        let source = sample.source;
        let (length, coverage) = (elapsed.max(SECOND), Coverage::default());
        let scale = Scale::new(tick.config, length, coverage);
        let score = scale.score(sample, &Standing::default()).score;
        if sample.proven || !score.flashes(tick.config) || exempt(&source) {
            return None;
        }
        let room = self.sources.has_room(&score, self.alerted.len());
        let ladder = match self.sources.ladders.get_mut(&source) {
            Some(ladder) => ladder,
            None if room => self.alerted.entry(source).or_default(),
            None => return None,
        };
        self.alerted_ports.insert(source, sample.ports);
        let step = ladder.alert(&tick, &score)?;
        Some(decision(ladder, step, source))
    }

    /// Forgets every source.
    pub fn reset(&mut self) {
        self.sources = Roster::in_order(self.order);
        self.prefixes = Roster::default();
        self.overall = Roster::default();
        self.known.clear();
        self.tracks = Tracks::in_order(self.order);
        self.alerted.clear();
        self.alerted_ports.clear();
    }

    /// Forgets these sources and prefixes, in any order; many cost hardly more than one.
    pub fn forget(&mut self, sources: &[Source]) {
        for source in sources {
            self.alerted.remove(source);
            self.alerted_ports.remove(source);
        }
        let mut gone = sources.to_vec();
        gone.sort_unstable();
        self.tracks.forget(&gone);
        for roster in [&mut self.sources, &mut self.prefixes, &mut self.overall] {
            roster.ladders.remove(&gone);
        }
    }

    /// Sources and prefixes above OBSERVE, in no order, and when the kernel's entry ends by
    /// itself.
    pub fn held(&self) -> impl Iterator<Item = (&Source, Stage, Ktime)> {
        self.ladders()
            .map(|(source, ladder)| (source, ladder.stage(), ladder.until()))
            .filter(|(_, stage, _)| *stage > Stage::Observe)
    }

    fn ladders(&self) -> impl Iterator<Item = (&Source, &Ladder)> {
        [&self.sources, &self.prefixes, &self.overall]
            .into_iter()
            .flat_map(|roster| roster.ladders.iter())
            .chain(&self.alerted)
    }

    /// Sources and prefixes with something to remember.
    pub fn len(&self) -> usize {
        self.ladders().count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// See [`Config::port_alert`].
    pub fn port_alert(&self) -> u32 {
        self.config.port_alert()
    }

    /// What the last tick saw of everyone.
    pub fn overview(&self) -> Overview {
        self.overview
    }
}

/// What prefixes and everyone together are judged by.
fn many(config: &Config) -> (Config, Config) {
    let Aggregates {
        prefix, overall, ..
    } = config.aggregates;
    (config.of_many(prefix), config.of_many(overall))
}

/// Prefixes, and everyone together, come sorted.
fn by_source(prefix: Source) -> Key {
    Order::BY_SOURCE.key(prefix)
}

/// Judges one source: what became of it, its rates alone, and, unless it is held, whether thresholds
/// may be learned from it.
fn judge(
    sources: &mut Roster,
    round: &mut Round<'_>,
    (scale, calm): (&Scale<'_>, &Calm),
    (key, sample, standing): (Key, &Sample, &Standing),
) -> (Seen, Triggers, Option<bool>) {
    if calm.holds(sample, standing) && !sources.knows(round, &key) {
        return (Seen::UNTOUCHED, scale.alone(sample, standing), Some(true));
    }
    let Scored { score, alone } = scale.score(sample, standing);
    let seen = sources.judge(round, key, &score);
    let is_free = seen.stage == Stage::Observe && score.drops <= 0.0;
    let fit = is_free.then(|| scale.is_fit_to_learn(&score));
    (seen, alone, fit)
}
