//! One running IQ: what a tick, an alert, a changed file and the end of the run do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::super::graph::{GRAPH, GraphKeeper};
use super::gate::LogGate;
use super::keep::{self, Keeper, Reconciled};
use super::learn::Learner;
use super::lists::{Lists, wall};
use super::notes::{Notes, stamp};
use super::run::Before;
use super::{IQ, Settings, judged_by};
use crate::dataplane::{
    Action, DryRun, Entry, Events, MapEnforcer, Owner, PinDir, Shield, SourceTable, What,
};
use crate::engine::{Decision, Engine, EngineState, Kind};
use crate::error::{Error, Result};
use crate::exempt::{By, Exempt};
use crate::graph::{Edge, Peer};
use crate::model::{Moment, Source, Wall};
use crate::report::{decision_line, whole_seconds};
use crate::runtime::moment;
use crate::seams::{Enforcer, Order, Outcome};
use crate::state::{Journal, Record, State};
use crate::telemetry::{Coverage, Meter, Sample, Window, linear_count, linear_ones};

/// Lines of one reason that are logged, and transitions that are journalled, in ten seconds.
const MOST_LINES: u32 = 20;
const MOST_RECORDS: u32 = 5_000;

pub(super) struct Iq<'a> {
    pub(super) shield: &'a Shield,
    pub(super) pins: &'a PinDir,
    pub(super) settings: Settings,
    pub(super) engine: Engine,
    pub(super) learner: Learner,
    pub(super) lists: Lists,
    pub(super) graph: Option<GraphKeeper<'a>>,
    pub(super) notes: Notes,
    pub(super) started: Moment,
    pub(super) ticks: u64,
    table: SourceTable,
    meter: Meter,
    enforcer: Box<dyn Enforcer + 'a>,
    operators: Operators,
    keeper: Keeper,
    journal: Option<Journal>,
    lines: LogGate,
    records: LogGate,
    last_tick: Moment,
    resets: u32,
    events_lost: u64,
}

impl<'a> Iq<'a> {
    pub(super) fn new(
        shield: &'a Shield,
        pins: &'a PinDir,
        settings: Settings,
        keeper: Keeper,
        lists: Lists,
        graph: Option<GraphKeeper<'a>>,
        state: &State,
    ) -> Result<Self> {
        let table = shield.sources()?;
        let mut meter = Meter::new(table.capacity());
        // What was counted before this start is not one tick's traffic.
        table.take(|slot, row| meter.row(slot, row));
        meter.samples();
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
        let engine = Engine::new(learner.config());
        shield.set_port_alert(linear_ones(engine.port_alert()));
        let journal = Journal::open(&settings.iq.journal)
            .inspect_err(|error| log::error!(target: IQ, "{error}; going on without it"))
            .ok();
        let now = moment()?;
        Ok(Self {
            started: now,
            ticks: 0,
            notes: Notes::default(),
            lines: LogGate::new(MOST_LINES),
            records: LogGate::new(MOST_RECORDS),
            operators: Operators::default(),
            last_tick: now,
            resets: shield.resets(),
            events_lost: shield.counters()?.events_lost,
            shield,
            pins,
            settings,
            engine,
            learner,
            lists,
            graph,
            table,
            meter,
            enforcer,
            keeper,
            journal,
        })
    }

    pub(super) fn profile(&self) -> &str {
        &self.settings.name
    }

    pub(super) fn interval(&self) -> Duration {
        self.settings.iq.interval
    }

    pub(super) fn mode(&self) -> &'static str {
        if self.settings.iq.dry_run {
            "dry run: nothing is enforced"
        } else {
            "enforcing"
        }
    }

    /// The files that are read again when they change.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let iq = &self.settings.iq;
        let mut files = vec![iq.whitelist.clone(), iq.feedback.clone()];
        files.extend(iq.pdp_config.clone());
        files
    }

    /// Takes up what was held before. A dry run holds nothing, so what one printed is not taken
    /// up by a run that enforces, nor the other way round.
    pub(super) fn begin(&mut self, state: &State, before: &Before) -> Result<()> {
        let dry_run = self.settings.iq.dry_run;
        let reading = before.reading;
        if dry_run {
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
            log::info!(target: IQ, "{kept} sources stay held as before, {adopted} more were found in the kernel");
        }
        for (order, outcome) in orders.iter().zip(self.enforcer.enforce(&orders)?) {
            if let Err(error) = outcome {
                log::error!(target: IQ, "holding {} again: {error}", order.source);
                self.engine.forget(&order.source);
            }
        }
        let ours = |entry: &Entry| entry.rule.owner == Owner::Iq && !entry.is_live(reading.ktime);
        let lock = self.pins.lock()?;
        self.shield.edit(&lock).remove_all(ours)?;
        Ok(())
    }

    pub(super) fn read_lists(&mut self) -> Result<()> {
        let now = moment()?;
        self.lists.read_whitelist();
        let forgiven = self.lists.read_feedback(now);
        self.forgive(&forgiven, "feedback")?;
        self.sync_lists(now)
    }

    /// Puts the lists in force. What an operator said is on disk before anyone is told so.
    pub(super) fn sync_lists(&mut self, now: Moment) -> Result<()> {
        self.lists.compile(now);
        if !self.settings.iq.dry_run {
            self.lists.sync(self.shield, self.pins, now)?;
        }
        self.save(now)
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
        for (source, outcome) in held.iter().zip(self.enforcer.enforce(&orders)?) {
            outcome?;
            self.engine.forget(source);
            log::info!(target: IQ, "source={source} forgiven by {by}");
        }
        sources.iter().for_each(|source| self.engine.forget(source));
        self.keeper.note_change();
        Ok(held.len())
    }

    pub(super) fn on_tick(&mut self) -> Result<()> {
        let now = moment()?;
        let length = now.ktime.since(self.last_tick.ktime);
        self.last_tick = now;
        self.ticks += 1;
        self.watch_upgrade()?;
        self.watch_reset(now)?;
        self.operators.refresh(self.shield)?;
        let meter = &mut self.meter;
        self.table.take(|slot, row| meter.row(slot, row));
        let samples = self.meter.samples();
        let window = Window {
            length,
            samples,
            coverage: Coverage::default(),
        };
        let learner = &mut self.learner;
        let exempt = Exemptions {
            operators: &self.operators,
            lists: self.lists.exempt(),
            now,
        };
        let decisions = self.engine.tick_learning(
            now.ktime,
            window,
            &|source| exempt.cover(source),
            &mut |rates| learner.learn(rates),
        );
        if self.settings.iq.whitelist_learn {
            let listed = |sample: &&Sample| {
                let covering = self.lists.exempt().covering(&sample.source, wall(now));
                covering.is_some()
            };
            self.learner
                .learn_exempt(samples.iter().filter(listed), length);
        }
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
        self.watch_ring()
    }

    /// Orders to maps that no program reads would be silence.
    fn watch_upgrade(&self) -> Result<()> {
        if self.shield.is_retired() {
            return Err(Error::world(
                "the data plane was given new tables ('kernloom shield upgrade'); start iq again to steer those",
            ));
        }
        Ok(())
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
            let bits = match event.what {
                What::Ports(bits) => bits,
                What::Violation(direction, service) => {
                    let edge = Edge {
                        direction,
                        peer: Peer::Source(event.source),
                        service,
                    };
                    if self.lines.admits("violation") {
                        log::warn!(target: GRAPH, "violation: {edge}");
                    }
                    continue;
                }
            };
            // The event tells of ports only; each of them took a packet.
            let ports = linear_count(u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0));
            let sample = Sample {
                packets: ports.into(),
                ports,
                ..Sample::silent(event.source)
            };
            let covered = |source: &Source| exempt.cover(source);
            decisions.extend(self.engine.alert(now.ktime, &sample, &covered));
        }
        self.carry_out(now, &decisions)
    }

    /// Reads again what changed. A version that cannot be used changes nothing.
    pub(super) fn on_files(&mut self, changed: &BTreeSet<PathBuf>) -> Result<()> {
        let now = moment()?;
        let iq = &self.settings.iq;
        let is = |path: &PathBuf| changed.contains(path);
        let (whitelist, feedback) = (is(&iq.whitelist), is(&iq.feedback));
        if iq.pdp_config.as_ref().is_some_and(is) {
            self.read_profile();
        }
        if whitelist {
            self.lists.read_whitelist();
        }
        if feedback {
            let forgiven = self.lists.read_feedback(now);
            self.forgive(&forgiven, "feedback")?;
        }
        if whitelist || feedback {
            self.sync_lists(now)?;
        }
        Ok(())
    }

    fn read_profile(&mut self) {
        let read = judged_by(&self.settings.iq).and_then(|(name, profile)| {
            let effective = profile.effective(&self.settings.overrides)?;
            let base = effective.config()?;
            Ok((name, effective, base))
        });
        let (name, effective, base) = match read {
            Ok(read) => read,
            Err(error) => {
                log::error!(target: IQ, "{error}; the profile read before stays in force");
                return;
            }
        };
        if effective == self.settings.effective {
            return;
        }
        self.learner = Learner::new(&effective, base, &name, self.learner.state());
        log::info!(target: IQ, "profile {name} read again");
        (self.settings.name, self.settings.effective) = (name, effective);
        self.reconfigure();
    }

    /// Enforces and tells. A source whose order failed is forgotten: the next tick decides anew.
    fn carry_out(&mut self, now: Moment, decisions: &[Decision]) -> Result<()> {
        let orders: Vec<Order> = decisions
            .iter()
            .map(|decision| Order {
                source: decision.source,
                hold: decision.hold.zip(decision.until),
            })
            .collect();
        let outcomes = match self.enforcer.enforce(&orders) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                log::error!(target: IQ, "enforcing {} decisions: {error}; trying again", orders.len());
                orders
                    .iter()
                    .for_each(|order| self.engine.forget(&order.source));
                return Ok(());
            }
        };
        for (decision, outcome) in decisions.iter().zip(outcomes) {
            let line = decision_line(decision, now.ktime, self.settings.iq.dry_run);
            match outcome {
                Ok(Outcome::Done) => self.tell(decision, &line, now),
                // Its exemption has taken the entry's place already.
                Ok(Outcome::OperatorRules) if decision.why.exempt => {
                    self.tell(decision, &line, now);
                }
                Ok(Outcome::OperatorRules) => {
                    log::debug!(target: IQ, "{line} (an entry that is not IQ's stands)")
                }
                Err(error) => {
                    if self.lines.admits("error") {
                        log::error!(target: IQ, "{line}: {error}");
                    }
                    self.engine.forget(&decision.source);
                }
            }
        }
        Ok(())
    }

    /// Transitions are news; renewals are not.
    fn tell(&mut self, decision: &Decision, line: &str, now: Moment) {
        if decision.kind == Kind::Renew {
            log::debug!(target: IQ, "{line}");
            return;
        }
        self.keeper.note_change();
        let Decision { from, to, why, .. } = decision;
        if self
            .lines
            .admits(&format!("{from} -> {to} signal={}", why.signal))
        {
            log::info!(target: IQ, "{line}");
        }
        if self.records.admits("transitions") {
            self.journalise(decision, now);
        }
    }

    fn journalise(&mut self, decision: &Decision, now: Moment) {
        let why = &decision.why;
        let record = Record {
            time: wall(now).to_string(),
            source: decision.source.to_string(),
            from: decision.from.to_string(),
            to: decision.to.to_string(),
            kind: decision.kind.to_string(),
            severity: why.severity,
            signal: why.signal.to_string(),
            rate: why.rate,
            trigger: why.trigger,
            strikes: why.strikes,
            hold: decision
                .hold
                .map_or_else(|| "none".to_owned(), |hold| hold.to_string()),
            until: decision
                .until
                .map(|until| stamp(now.unix_ms(until)))
                .unwrap_or_default(),
            dry_run: self.settings.iq.dry_run,
        };
        let Some(journal) = &mut self.journal else {
            return;
        };
        if let Err(error) = journal.write(&record)
            && self.lines.admits("journal")
        {
            log::error!(target: IQ, "{error}");
        }
    }

    fn say_held_back(&mut self, now: Moment) {
        for (reason, count) in self.lines.held_back(now.ktime) {
            log::warn!(target: IQ, "{count} more lines like '{reason}' were not logged");
        }
        for (_, count) in self.records.held_back(now.ktime) {
            log::warn!(target: IQ, "{count} more transitions were not journalled");
        }
    }

    /// Whether an operator reset what IQ enforced since the last look.
    pub(super) fn watch_reset(&mut self, now: Moment) -> Result<bool> {
        let resets = self.shield.resets();
        if resets == self.resets {
            return Ok(false);
        }
        self.resets = resets;
        self.engine.reset();
        self.notes = Notes::default();
        self.sync_lists(now)?;
        log::info!(target: IQ, "reset by the operator: every source starts over at OBSERVE");
        Ok(true)
    }

    fn watch_ring(&mut self) -> Result<()> {
        let lost = self.shield.counters()?.events_lost;
        if lost > self.events_lost {
            log::warn!(target: IQ, "{} alerts found the ring full; the tick sees those sources", lost - self.events_lost);
            self.events_lost = lost;
        }
        Ok(())
    }

    fn save(&mut self, now: Moment) -> Result<()> {
        let entries = self.shield.entries()?;
        let state = State {
            profile: self.settings.name.clone(),
            dry_run: self.settings.iq.dry_run,
            engine: self.engine.state(now),
            autotune: self.learner.state(),
            exemptions: self.lists.commanded(),
            feedback: self.lists.first_seen(),
            operators: keep::operators(&entries, now),
            ..State::default()
        };
        self.keeper.write(state, now);
        Ok(())
    }

    pub(super) fn farewell(&mut self) -> Result<()> {
        let now = moment()?;
        if let Some(graph) = &mut self.graph {
            graph.flush(now)?;
        }
        self.save(now)?;
        let held = self.engine.held().count();
        if self.settings.iq.dry_run || held == 0 {
            log::info!(target: IQ, "stopping; nothing is enforced by iq");
        } else {
            let ends = self.engine.held().map(|(_, _, until)| until);
            let left = ends.max().unwrap_or(now.ktime).since(now.ktime);
            log::info!(
                target: IQ,
                "stopping; {held} sources stay enforced until they expire, the last in {}; 'kernloom reset' frees them now",
                whole_seconds(left)
            );
        }
        Ok(())
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

/// Everyone that a tick must leave alone.
struct Exemptions<'a> {
    operators: &'a Operators,
    lists: &'a Exempt,
    now: Moment,
}

impl Exemptions<'_> {
    fn cover(&self, source: &Source) -> bool {
        self.lists.covering(source, wall(self.now)).is_some()
            || self.operators.covering(source, self.now).is_some()
    }
}

/// Sources that operators allow; read again only when policy changed.
#[derive(Default)]
struct Operators {
    generation: Option<u32>,
    allowed: Vec<Entry>,
}

impl Operators {
    fn refresh(&mut self, shield: &Shield) -> Result<()> {
        let generation = shield.generation();
        if self.generation != Some(generation) {
            let allows =
                |entry: &Entry| entry.rule.owner != Owner::Iq && entry.rule.action == Action::Allow;
            self.allowed = shield.entries()?.into_iter().filter(allows).collect();
            self.generation = Some(generation);
        }
        Ok(())
    }

    fn covering(&self, source: &Source, now: Moment) -> Option<&Entry> {
        let covers = |entry: &&Entry| entry.is_live(now.ktime) && entry.source.contains(source);
        self.allowed.iter().find(covers)
    }
}
