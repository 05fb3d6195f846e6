//! One running IQ: what a tick, an alert and the end of the run do.

mod files;
mod telling;

use std::time::Duration;

use super::super::graph::{GRAPH, GraphKeeper};
use super::exemptions::{Exemptions, Operators};
use super::exposed::{Exposed, Peaks};
use super::gate::{LogGate, Once};
use super::happened::Happened;
use super::keep::{self, Keeper, Reconciled};
use super::learn::{Learner, Pupils};
use super::links::Links;
use super::lists::{Lists, wall};
use super::notes::Notes;
use super::recorder::{Recorder, Run};
use super::run::Before;
use super::witness::Witness;
use super::{IQ, Settings};
use crate::dataplane::{
    Action, Counters, DryRun, Entry, Events, MapEnforcer, Owner, PinDir, Retired, Shield,
    SourceTable, What,
};
use crate::engine::{Decision, Engine, EngineState};
use crate::error::{Error, Result};
use crate::exempt::By;
use crate::graph::{Edge, Peer};
use crate::model::{Moment, Source, Wall, counted};
use crate::report::{graph_does, settings_yaml, whole_seconds};
use crate::runtime::moment;
use crate::seams::{Enforcer, Order};
use crate::state::{Journal, State};
use crate::telemetry::{Meter, Sample, Window, linear_count, linear_ones};

/// Lines of one reason that are logged, and transitions that are journalled, in ten seconds.
const MOST_LINES: u32 = 20;
const MOST_RECORDS: u32 = 5_000;

/// How often it is logged that a source could not be held.
const FAILURE_EVERY: Duration = Duration::from_secs(60);

/// How often one edge's violation is logged: the program reports it by CPU, and each doubling of its
/// packets.
const VIOLATION_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Iq<'a> {
    pub(super) shield: &'a Shield,
    pub(super) pins: &'a PinDir,
    pub(super) settings: Settings,
    pub(super) engine: Engine,
    pub(super) learner: Learner,
    pub(super) lists: Lists,
    links: Links,
    pub(super) graph: Option<GraphKeeper<'a>>,
    pub(super) notes: Notes,
    pub(super) happened: Happened,
    pub(super) started: Moment,
    pub(super) ticks: u64,
    table: SourceTable,
    meter: Meter,
    pub(super) witness: Witness,
    enforcer: Box<dyn Enforcer + 'a>,
    operators: Operators,
    keeper: Keeper,
    journal: Option<Journal>,
    lines: LogGate,
    records: LogGate,
    violations: Once<Edge>,
    failures: Once<Source>,
    last_tick: Moment,
    resets: u32,
    /// Right after the table was read.
    counted: Counters,
    exposed: Option<Exposed>,
    recorder: Option<Recorder>,
}

impl<'a> Iq<'a> {
    pub(super) fn new(
        shield: &'a Shield,
        pins: &'a PinDir,
        settings: Settings,
        keeper: Keeper,
        lists: Lists,
        state: &State,
        exposed: Option<Exposed>,
    ) -> Result<Self> {
        let table = shield.sources()?;
        let links = Links::now(pins)?;
        let (shape, order) = (table.shape(), table.order());
        let mut witness = Witness::call(shield, shape.entries(), order);
        // Who is refused in the first second counts, too.
        witness.stand_at(&links.interfaces());
        let mut meter = Meter::new(shape, order);
        // What was counted before this start is not one tick's traffic.
        meter.samples(|at| table.take(at)).for_each(drop);
        let counted = shield.counters()?;
        let enforcer: Box<dyn Enforcer + 'a> = if settings.iq.dry_run {
            Box::new(DryRun)
        } else {
            Box::new(MapEnforcer { shield, pins })
        };
        let base = settings.effective.config()?;
        let learner = Learner::new(
            &settings.effective,
            base,
            &settings.name,
            state.autotune.clone(),
        );
        let engine = Engine::in_order(learner.config(), order);
        shield.set_port_alert(linear_ones(engine.port_alert()));
        let journal = Journal::open(&settings.iq.journal)
            .inspect_err(|error| log::error!(target: IQ, "{error}; going on without it"))
            .ok();
        let now = moment()?;
        Ok(Self {
            started: now,
            ticks: 0,
            notes: Notes::default(),
            happened: Happened::default(),
            lines: LogGate::new(MOST_LINES),
            records: LogGate::new(MOST_RECORDS),
            violations: Once::per(VIOLATION_EVERY),
            failures: Once::per(FAILURE_EVERY),
            operators: Operators::default(),
            last_tick: now,
            resets: shield.resets(),
            counted,
            links,
            shield,
            pins,
            settings,
            engine,
            learner,
            lists,
            graph: None,
            table,
            meter,
            witness,
            enforcer,
            keeper,
            journal,
            exposed,
            recorder: None,
        })
    }

    pub(super) fn profile(&self) -> &str {
        &self.settings.name
    }

    pub(super) fn interval(&self) -> Duration {
        self.settings.iq.interval
    }

    /// What becomes of decisions, and of what the graph lacks.
    pub(super) fn mode(&self) -> Result<String> {
        let iq = if self.settings.iq.dry_run {
            "dry run: iq enforces nothing"
        } else {
            "enforcing"
        };
        Ok(format!("{iq}{}", self.graph_does(moment()?)))
    }

    /// What the graph does beside IQ, with or without it.
    fn graph_does(&self, now: Moment) -> String {
        let gauges = self.graph.as_ref().map(|graph| graph.gauges(now));
        gauges.map_or_else(String::new, |gauges| {
            graph_does(gauges.mode, gauges.lease > 0.0)
        })
    }

    /// Takes up what was held before. A dry run holds nothing, so what one printed is not taken
    /// up by a run that enforces, nor the other way round.
    pub(super) fn begin(&mut self, state: &State, before: &Before) -> Result<()> {
        let dry_run = self.settings.iq.dry_run;
        let reading = before.reading;
        if dry_run {
            say_enforced(&before.kernel.entries, moment()?);
            if state.dry_run {
                self.engine.restore(&state.engine, reading);
            }
            return Ok(());
        }
        let nobody = EngineState::default();
        let held = if state.dry_run {
            &nobody
        } else {
            &state.engine
        };
        let engine = &mut self.engine;
        let Reconciled {
            kept,
            adopted,
            orders,
        } = keep::reconcile(engine, held, before);
        if kept + adopted > 0 {
            log::info!(target: IQ,
                "{} held as before, {} found in the kernel",
                counted(kept, "source stays", "sources stay"),
                counted(adopted, "more was", "more were")
            );
        }
        let mut failed = Vec::new();
        for (order, outcome) in orders
            .iter()
            .zip(self.enforcer.enforce(&orders, moment()?.ktime)?)
        {
            if let Err(error) = outcome {
                log::error!(target: IQ, "holding {} again: {error}", order.source);
                failed.push(order.source);
            }
        }
        self.engine.forget(&failed);
        let ours = |entry: &Entry| entry.rule.owner == Owner::Iq && !entry.is_live(reading.ktime);
        let lock = self.pins.lock()?;
        self.shield.edit(&lock).remove_all(ours)?;
        Ok(())
    }

    /// Lets go of every held source inside one of `sources`; they may be judged anew.
    pub(super) fn forgive(&mut self, sources: &[Source], by: &str) -> Result<usize> {
        if sources.is_empty() {
            return Ok(0);
        }
        let inside = |held: &Source| sources.iter().any(|one| one.contains(held));
        let held: Vec<Source> = self
            .engine
            .held()
            .map(|(source, ..)| *source)
            .filter(inside)
            .collect();
        let orders: Vec<Order> = held
            .iter()
            .map(|source| Order {
                source: *source,
                hold: None,
            })
            .collect();
        let mut freed = Vec::new();
        for (source, outcome) in held
            .iter()
            .zip(self.enforcer.enforce(&orders, moment()?.ktime)?)
        {
            if let Err(error) = outcome {
                self.engine.forget(&freed);
                return Err(error);
            }
            freed.push(*source);
            log::info!(target: IQ, "source={source} forgiven by {by}");
        }
        self.engine.forget(&freed);
        self.engine.forget(sources);
        if let Some(recorder) = &mut self.recorder {
            recorder.forget(&held);
            recorder.forget(sources);
        }
        self.keeper.note_change();
        Ok(held.len())
    }

    pub(super) fn on_tick(&mut self) -> Result<()> {
        let now = moment()?;
        let length = now.ktime.since(self.last_tick.ktime);
        self.last_tick = now;
        self.ticks += 1;
        self.watch_upgrade()?;
        let attached = self.links.check(self.shield, self.pins)?;
        self.witness.stand_at(&attached);
        self.watch_reset(now)?;
        if let Some(entries) = self.operators.refresh(self.shield)? {
            self.exempt_in_kernel(&entries, now)?;
        } else if self.lists.is_due(now.ktime) {
            self.exempt_in_kernel(&self.shield.entries()?, now)?;
        }
        let decisions = self.judge(now, length)?;
        self.carry_out(now, &decisions)?;
        self.notes.take(&self.engine, now);
        self.tune(length, now);
        self.say_held_back(now);
        if self.keeper.is_due(now.ktime) {
            self.save(now)?;
        }
        if let Some(graph) = &mut self.graph {
            graph.tick(now, length);
        }
        if let Some(exposed) = &mut self.exposed {
            let dry_run = self.settings.iq.dry_run;
            let plane = (self.shield, &self.table);
            let graph = self.graph.as_ref().map(|graph| graph.gauges(now));
            exposed.ticked(plane, &self.engine, graph, now, dry_run)?;
        }
        Ok(())
    }

    /// What the sources did in the last `length`, and what is to be done about it.
    fn judge(&mut self, now: Moment, length: Duration) -> Result<Vec<Decision>> {
        // From reading to reading: whatever a reading takes, every row has what came between.
        let all = self.shield.counters()?.crowded_since(&self.counted);
        let mut known = self.witness.ask(now.ktime)?;
        let coverage = known.coverage;
        let learner = &mut self.learner;
        let exempt = Exemptions {
            operators: &self.operators,
            lists: self.lists.exempt(),
            now,
        };
        let (whitelisted, others) = exempt.split();
        if let Some(recorder) = &mut self.recorder {
            recorder.exempt(&whitelisted, &others);
        }
        let learns = self.settings.iq.whitelist_learn;
        let mut pupils = Pupils::new(learns, whitelisted, others, self.engine.order());
        let mut peaks = Peaks::default();
        let table = &self.table;
        let samples = self.meter.samples(|at| table.take(at)).map(|mut sample| {
            known.mark(&mut sample);
            peaks.see(&sample);
            sample
        });
        let window = Window {
            length,
            samples,
            coverage,
            all,
        };
        let exempt = |source: &_| exempt.cover(source);
        let mut learn =
            |source: &_, rates: &_, fit| learner.learn_from(&mut pupils, source, rates, fit);
        let (engine, now_at) = (&mut self.engine, now.ktime);
        let decisions = match &mut self.recorder {
            None => engine.tick_learning(now_at, window, &exempt, &mut learn),
            // Decided again, it comes in no table's order.
            Some(recorder) => {
                let window = window.sorted(&engine.order());
                let decisions = engine.tick_learning(now_at, window.by_ref(), &exempt, &mut learn);
                recorder.tick(now, window, &decisions);
                decisions
            }
        };
        self.witness.remember(known);
        all_in_order(self.meter.misplaced(), self.engine.overview().sources)?;
        let counted = self.shield.counters()?;
        say_lost(&counted, &self.counted);
        self.counted = counted;
        if let Some(exposed) = &mut self.exposed {
            exposed.measured(&self.engine, peaks, length);
        }
        Ok(decisions)
    }

    pub(super) fn on_scrape(&mut self) -> Result<()> {
        self.exposed.as_mut().map_or(Ok(()), Exposed::serve)
    }

    pub(super) fn exposed(&self) -> Option<&Exposed> {
        self.exposed.as_ref()
    }

    /// Keeps what is judged from here on and how.
    pub(super) fn record(&mut self, mut recorder: Recorder) -> Result<()> {
        let Settings {
            name,
            effective,
            iq,
            ..
        } = &self.settings;
        let run = Run {
            profile: name,
            settings: settings_yaml(name, &effective.settings()),
            whitelist_learn: iq.whitelist_learn,
            dry_run: iq.dry_run,
        };
        recorder.start(&mut self.engine, &self.learner, run, self.last_tick)?;
        if let Some((path, _)) = &self.settings.record {
            log::info!(target: IQ, "recording to {}", path.display());
        }
        self.recorder = Some(recorder);
        Ok(())
    }

    /// Orders to maps that no program reads would be silence.
    fn watch_upgrade(&self) -> Result<()> {
        match self.shield.retired() {
            None => Ok(()),
            Some(Retired::Replaced) => Err(Error::world(
                "the data plane was given new tables ('kernloom shield upgrade'); start iq again to steer those",
            )),
            Some(Retired::Purged) => Err(Error::world(
                "the data plane was removed ('kernloom shield detach --purge')",
            )),
        }
    }

    fn tune(&mut self, length: Duration, now: Moment) {
        let (overview, at) = (self.engine.overview(), now.unix_ms(now.ktime));
        let (changed, revision) = self.learner.tick(length, &overview, at);
        if let Some(revision) = revision {
            let triggers = revision.triggers;
            log::info!(
                target: IQ,
                "tuned revision={} phase={} pps={:.1} bps={:.0} syn={:.1} ports={:.1} clean={:.3}",
                revision.revision, revision.phase, triggers.pps, triggers.bps, triggers.syn,
                triggers.ports, revision.clean_share
            );
            self.keeper.note_change();
        }
        if changed {
            self.reconfigure();
        }
    }

    fn reconfigure(&mut self) {
        self.engine.reconfigure(self.learner.config());
        self.shield
            .set_port_alert(linear_ones(self.engine.port_alert()));
    }

    pub(super) fn on_events(&mut self, events: &Events) -> Result<()> {
        let now = moment()?;
        let exempt = Exemptions {
            operators: &self.operators,
            lists: self.lists.exempt(),
            now,
        };
        let mut decisions = Vec::new();
        for event in events.drain() {
            self.happened.note(&event, now);
            let bits = match event.what {
                What::Ports(bits) => bits,
                What::Violation(direction, service) => {
                    let edge = Edge {
                        direction,
                        peer: Peer::Source(event.source),
                        service,
                    };
                    if self.violations.is_due(&edge, now.ktime) && self.lines.admits("violation") {
                        log::warn!(target: GRAPH, "violation: {edge}");
                        self.violations.told(edge, now.ktime);
                    }
                    continue;
                }
            };
            // The window of that alert is over: a tick has judged it, or nobody ran then.
            if event.time < self.last_tick.ktime {
                continue;
            }
            let sample = alerted(event.source, bits, self.witness.proves(&event.source)?);
            let covered = |source: &Source| exempt.cover(source);
            let decision = self.engine.alert(now.ktime, &sample, &covered);
            if let Some(recorder) = &mut self.recorder {
                let (whitelisted, others) = exempt.split();
                recorder.exempt(&whitelisted, &others);
                recorder.alert(now, &sample, decision.as_ref());
            }
            decisions.extend(decision);
        }
        self.carry_out(now, &decisions)
    }

    /// Whether an operator reset what IQ enforced since the last look.
    pub(super) fn watch_reset(&mut self, now: Moment) -> Result<bool> {
        let resets = self.shield.resets();
        if resets == self.resets {
            return Ok(false);
        }
        self.resets = resets;
        self.engine.reset();
        if let Some(recorder) = &mut self.recorder {
            recorder.reset();
        }
        self.notes = Notes::default();
        self.compile_lists(now)?;
        self.keeper.note_change();
        log::info!(target: IQ, "reset by the operator: every source starts over at OBSERVE");
        Ok(true)
    }

    fn save(&mut self, now: Moment) -> Result<bool> {
        let policy = keep::Policy::read(self.shield, now)?;
        let state = State {
            profile: self.settings.name.clone(),
            dry_run: self.settings.iq.dry_run,
            engine: self.engine.state(now),
            autotune: self.learner.state(),
            exemptions: self.lists.commanded(),
            feedback: self.lists.first_seen(),
            operators: policy.operators,
            allow_only: policy.allow_only,
            ceiling: policy.ceiling,
            ..State::default()
        };
        Ok(self.keeper.write(state, now))
    }

    /// Whether the state is stored.
    pub(super) fn farewell(&mut self) -> Result<bool> {
        let now = moment()?;
        if let Some(graph) = &mut self.graph {
            graph.flush(now)?;
        }
        let stored = self.save(now)?;
        let held = self.engine.held().count();
        if self.settings.iq.dry_run || held == 0 {
            log::info!(target: IQ, "stopping; iq holds nobody{}", self.graph_does(now));
        } else {
            let ends = self.engine.held().map(|(_, _, until)| until);
            let left = ends.max().unwrap_or(now.ktime).since(now.ktime);
            log::info!(
                target: IQ,
                "stopping; {}, the last in {}; 'kernloom reset' frees them now{}",
                counted(
                    held,
                    "source stays enforced until it expires",
                    "sources stay enforced until they expire"
                ),
                whole_seconds(left),
                self.graph_does(now)
            );
        }
        Ok(stored)
    }

    /// Who exempts a source, in words, and until when.
    pub(super) fn exempted(
        &self,
        source: &Source,
        now: Moment,
    ) -> Option<(By, Source, Option<Wall>)> {
        let listed = self.lists.exempt().covering(source, wall(now));
        let listed = listed.map(|(entry, exempted)| (exempted.by, entry, exempted.until));
        listed.or_else(|| {
            let entry = self.operators.covering(source, now)?;
            let until = entry
                .rule
                .expires
                .map(|end| Wall::from_secs(now.unix_ms(end) / 1_000));
            Some((By::Operator, entry.source, until))
        })
    }
}

/// What a dry run must not be taken for the cause of, nor be thought to have ended.
fn say_enforced(entries: &[Entry], now: Moment) {
    let left = entries.iter().filter(|entry| {
        let enforces = entry.rule.action != Action::Allow && entry.is_live(now.ktime);
        entry.rule.owner == Owner::Iq && enforces
    });
    let left: Vec<String> = left.map(|entry| entry.source.to_string()).collect();
    if !left.is_empty() {
        let most = 3.min(left.len());
        log::warn!(
            target: IQ,
            "{} from before is still in force, though this is a dry run: {}{}; 'kernloom reset' ends that, else it \
             expires",
            counted(left.len(), "entry of an iq", "entries of an iq"),
            left[..most].join(", "),
            if most < left.len() { ", ..." } else { "" }
        );
    }
}

fn say_lost(now: &Counters, then: &Counters) {
    let lost = now.events_lost.saturating_sub(then.events_lost);
    if lost > 0 {
        log::warn!(target: IQ, "{} found the ring full; the tick sees those sources", counted(lost, "alert", "alerts"));
    }
}

/// What an alert tells of its source: ports only; each of them took a packet.
pub(super) fn alerted(source: Source, bits: u32, proven: bool) -> Sample {
    let ports = linear_count(u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0));
    Sample {
        packets: ports.into(),
        ports,
        proven,
        ..Sample::silent(source)
    }
}

/// Entries outside their sets are those that changed hands just then. Were the order another, most
/// would be, and their sources judged by nobody.
fn all_in_order(misplaced: u64, judged: u64) -> Result<()> {
    if misplaced <= judged {
        return Ok(());
    }
    Err(Error::world(format!(
        "{misplaced} entries of the source table are not where its program looks for them: this is no table of this \
         version; 'kernloom shield detach --all --purge', then start anew"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_another_order_is_an_error_and_a_torn_entry_is_none() {
        assert!(all_in_order(0, 0).is_ok());
        assert!(all_in_order(1, 100).is_ok());
        let error = all_in_order(90, 30).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("90 entries"), "{error}");
    }
}
