use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::disk::read_accepted;
use super::violations::Violations;
use super::{GRAPH, frozen_path, is_excluded, links};
use crate::cli::ExportFormat;
use crate::dataplane::{EdgeTable, GraphPlane, Permits, Shield, TrackWidth};
use crate::error::{Error, Result};
use crate::graph::{
    Coverage, Edge, EdgeMeter, Frozen, Groups, Learner, Mode, Promotion, Readiness, State,
};
use crate::metrics::GraphGauges;
use crate::model::{Ktime, Moment, Source, Wall, counted, format_duration};
use crate::report::{
    GraphView, edge_lines, graph_tree, readiness_json, readiness_lines, violation_lines,
    violations_json,
};
use crate::store::{Batch, GraphStore, node_identity};

/// How often what changed is written: an SD card lives long, and a crash costs little.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// Scanners that one tick tells by name.
const MOST_SCANNERS_TOLD: usize = 4;
const EXPIRE_EVERY: Duration = Duration::from_secs(3_600);

/// What a keeper goes by.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) store: PathBuf,
    pub(crate) groups: Groups,
    pub(crate) promotion: Promotion,
    /// Sources that teach nothing.
    pub(crate) exclude: Vec<Source>,
    /// Whether a database that cannot be read is set aside for a new one.
    pub(crate) fresh: bool,
}

impl Setup {
    fn dir(&self) -> PathBuf {
        self.store.parent().map(PathBuf::from).unwrap_or_default()
    }
}

/// The one who reads and writes the graph: learns each tick, flushes, and carries out commands.
pub(crate) struct GraphKeeper<'a> {
    pub(super) setup: Setup,
    pub(super) shield: Option<&'a Shield>,
    pub(super) node: String,
    store: GraphStore,
    pub(super) learner: Learner,
    coverage: Coverage,
    pub(super) violations: Violations,
    /// Packets of violations since the start.
    violation_packets: u64,
    /// Entries of the kernel's edge table in use, at the last reading.
    table_used: u64,
    coverage_changed: bool,
    /// What commands put in force, and that is confirmed.
    pub(super) mode: Option<Mode>,
    mode_changed: bool,
    /// What the data plane did when it was looked at last.
    seen_mode: Mode,
    /// `Err`: the file is there and cannot be used.
    pub(super) frozen: Result<Option<(Frozen, String)>, String>,
    /// Width that IPv6 sources are tracked at.
    v6_bits: u8,
    table: Option<(EdgeTable, EdgeMeter)>,
    /// The graph's clock runs this many times as fast as the wall's, from its start on.
    rate: u32,
    started: Moment,
    flushed: Ktime,
    expired: Ktime,
}

impl<'a> GraphKeeper<'a> {
    pub(crate) fn open(shield: Option<&'a Shield>, setup: Setup, now: Moment) -> Result<Self> {
        let node = node_identity(&setup.dir())?;
        let store = if setup.fresh {
            let (store, why) = GraphStore::open_or_start_over(&setup.store, &node)?;
            if let Some(why) = why {
                log::warn!(target: GRAPH, "{why}; set aside as told, starting over");
            }
            store
        } else {
            GraphStore::open(&setup.store, &node)?
        };
        Self::with_store(store, node, shield, setup, now)
    }

    /// Of this process alone: the next one knows nothing of what it did to the graph.
    pub(super) fn without_store(
        shield: Option<&'a Shield>,
        setup: Setup,
        now: Moment,
    ) -> Result<Self> {
        let node = node_identity(&setup.dir())?;
        let store = GraphStore::in_memory(&node)?;
        Self::with_store(store, node, shield, setup, now)
    }

    fn with_store(
        store: GraphStore,
        node: String,
        shield: Option<&'a Shield>,
        setup: Setup,
        now: Moment,
    ) -> Result<Self> {
        let kept = store.load()?;
        let v6_bits = shield.map_or(TrackWidth::default().bits(), Shield::v6_bits);
        let frozen = read_accepted(&setup.store, &node, v6_bits).map_err(|error| error.to_string());
        let table = match shield.and_then(Shield::graph) {
            Some(plane) => {
                let table = plane.edges()?;
                let mut meter = EdgeMeter::new(table.capacity());
                // What was counted before this start was read then, or is not one tick's traffic.
                let peers = setup.groups.peers();
                table.visit(|slot, row| meter.row(slot, row, &peers));
                meter.reading();
                Some((table, meter))
            }
            None => None,
        };
        Ok(Self {
            learner: Learner::new(setup.promotion, kept.records),
            coverage: kept.coverage,
            violations: Violations::new(kept.violations),
            violation_packets: 0,
            table_used: 0,
            coverage_changed: false,
            mode: kept.mode.as_deref().and_then(mode_named),
            mode_changed: false,
            seen_mode: Mode::Off,
            frozen,
            v6_bits,
            table,
            rate: 1,
            started: now,
            flushed: now.ktime,
            expired: now.ktime,
            setup,
            shield,
            node,
            store,
        })
    }

    pub(crate) fn set_rate(&mut self, rate: u32) {
        self.rate = rate.max(1);
    }

    /// Puts the graph in force at the start of an IQ. What a command put in force stays: a restart
    /// neither opens what was closed nor closes what was opened.
    pub(crate) fn begin(&mut self, asked: Option<Mode>, now: Moment) -> Result<Mode> {
        let plane = self.plane()?;
        let status = plane.status(now.ktime);
        // What is frozen is recorded, too.
        let lost = self.learner.records().is_empty();
        if let Some(error) = self.fall_back(asked, status.mode) {
            log::error!(target: GRAPH, "{error}");
        } else {
            self.keep_accepted();
        }
        self.go_by_file(now);
        self.seen_mode = status.mode;
        if let Some((_, after)) = status.lease {
            log::warn!(target: GRAPH, "{} is leased; {after} comes back unless 'kernloom graph confirm' does", status.mode);
            return Ok(status.mode);
        }
        let mode = match (self.mode, asked) {
            (Some(mode), asked) => {
                if let Some(asked) = asked.filter(|asked| *asked != mode) {
                    log::warn!(
                        target: GRAPH,
                        "{mode} was put in force by command and stays; it overrules the {asked} of --graph-mode or \
                         of the profile, until 'kernloom graph {}'",
                        command_for(asked)
                    );
                }
                mode
            }
            (None, Some(asked)) if lost && asked != status.mode && status.mode.is_frozen() => {
                log::warn!(
                    target: GRAPH,
                    "{} is in force, and the database that would know who put it there is new: it stays; \
                     'kernloom graph {}' ends it",
                    status.mode,
                    command_for(asked)
                );
                status.mode
            }
            (None, Some(asked)) => asked,
            (None, None) if status.mode != Mode::Off => status.mode,
            (None, None) => Mode::Learn,
        };
        self.apply(mode, None, now)?;
        self.seen_mode = mode;
        self.warn(mode);
        Ok(mode)
    }

    /// What an operator should know of the graph that an IQ begins with.
    fn warn(&self, mode: Mode) {
        let mut text = self.groups_apart();
        if let (false, Err(error)) = (mode.is_frozen(), &self.frozen) {
            text.push_str(&format!(
                "{error}; until then, what is denied is what the database says\n"
            ));
        }
        for line in text.lines() {
            log::warn!(target: GRAPH, "{}", line.trim_start_matches("warning: "));
        }
    }

    fn plane(&self) -> Result<GraphPlane<'a>> {
        self.shield.and_then(Shield::graph).ok_or_else(|| {
            Error::operator(
                "the data plane is not loaded with the edge stage; start 'kernloom iq --graph'",
            )
        })
    }

    pub(super) fn wall(&self, now: Moment) -> Wall {
        let passed = now.ktime.since(self.started.ktime);
        Wall::from_secs(self.started.unix.as_secs()) + passed * self.rate
    }

    pub(super) fn v6_bits(&self) -> u8 {
        self.v6_bits
    }

    pub(super) fn frozen(&self) -> Result<&Frozen> {
        match &self.frozen {
            Ok(Some((frozen, _))) => Ok(frozen),
            Ok(None) => Err(Error::operator(format!(
                "there is no frozen graph yet ({}); 'kernloom graph freeze' makes one{}",
                frozen_path(&self.setup.store).display(),
                self.way_out()
            ))),
            Err(error) => Err(Error::operator(error.clone())),
        }
    }

    /// What lets go of a graph that outlived its file.
    fn way_out(&self) -> &'static str {
        let plane = self.shield.and_then(Shield::graph);
        let in_force = |plane: GraphPlane<'_>| plane.status(self.started.ktime).mode.is_frozen();
        if plane.is_some_and(in_force) {
            "; one that is lost is still in force: 'kernloom graph thaw' lets go of it"
        } else {
            ""
        }
    }

    /// The frozen graph, if it is this host's.
    pub(super) fn own_frozen(&self) -> Result<&Frozen> {
        let frozen = self.frozen()?;
        if frozen.node != self.node {
            return Err(Error::operator(format!(
                "{} was frozen on another host ({}; this one is {}); freeze here, or accept it with \
                 'kernloom graph freeze --accept-edits'",
                frozen_path(&self.setup.store).display(),
                frozen.node,
                self.node
            )));
        }
        Ok(frozen)
    }

    /// Whether an IQ can begin so, asked before anything is attached.
    pub(crate) fn check(&mut self, asked: Option<Mode>) -> Result<()> {
        self.fall_back(asked, Mode::Off);
        match self.mode.or(asked) {
            Some(Mode::Observe | Mode::Enforce) => self.own_frozen().map(drop),
            Some(Mode::Off | Mode::Learn) | None => Ok(()),
        }
    }

    /// Makes the data plane do `mode` with the graph as it is now.
    fn apply(&self, mode: Mode, lease: Option<Ktime>, now: Moment) -> Result<()> {
        let plane = self.plane()?;
        let mut permits = Permits::default();
        if mode.is_frozen() {
            let frozen = self.own_frozen()?;
            permits.allowed = frozen.edges.clone();
            permits.only = frozen.only.clone();
        }
        let denied = self.learner.records().iter();
        let denied = denied.filter(|(_, record)| record.state == State::Denied);
        permits.denied = denied.map(|(edge, _)| edge.clone()).collect();
        permits.groups = self.groups();
        permits.broadcast = links::broadcast()?;
        plane.switch(mode, &permits, lease, now.ktime)
    }

    /// The same mode with the graph as it is now, after a decision. Nothing where nothing runs.
    pub(super) fn renew(&self, now: Moment) -> Result<()> {
        let Some(plane) = self.shield.and_then(Shield::graph) else {
            return Ok(());
        };
        let status = plane.status(now.ktime);
        if status.mode == Mode::Off {
            return Ok(());
        }
        self.apply(status.mode, status.lease.map(|(end, _)| end), now)
    }

    pub(crate) fn tick(&mut self, now: Moment, length: Duration) {
        let wall = self.wall(now);
        let known = self.known();
        let peers = known.peers();
        let enforcing = self.enforces(now);
        self.tell_end_of_lease(now);
        let Some((table, meter)) = &mut self.table else {
            return;
        };
        self.table_used = 0;
        table.visit(|slot, row| {
            self.table_used += 1;
            meter.row(slot, row, &peers);
        });
        let mut reading = meter.reading();
        let exclude = &self.setup.exclude;
        reading
            .seen
            .retain(|seen| !is_excluded(exclude, &seen.edge, &seen.source));
        if enforcing {
            reading.forget_dropped();
        }
        reading.join_remote(&known, self.v6_bits);
        reading.join_public(&peers);
        self.coverage_changed |= self.coverage.note(wall);
        for surge in self.learner.tick(wall, length, &reading.seen) {
            log::info!(target: GRAPH, "{} runs at {:.0} pps, usually at {:.0}", surge.edge, surge.pps, surge.usual_pps);
        }
        self.tell_scanners();
        let packets = |(_, packets): &(Edge, u64)| *packets;
        self.violation_packets += reading.violations.iter().map(packets).sum::<u64>();
        self.violations.note(reading.violations, wall);
        if now.ktime.since(self.expired) * self.rate >= EXPIRE_EVERY {
            self.expired = now.ktime;
            self.learner.expire(wall);
        }
        if now.ktime.since(self.flushed) >= FLUSH_EVERY
            && let Err(error) = self.flush(now)
        {
            log::error!(target: GRAPH, "{error}; trying again");
        }
    }

    /// The kernel goes back by itself: nobody else would tell.
    fn tell_end_of_lease(&mut self, now: Moment) {
        let Ok(plane) = self.plane() else { return };
        let mode = plane.status(now.ktime).mode;
        if mode != self.seen_mode {
            log::warn!(target: GRAPH, "the lease of {} ended unconfirmed: {mode} again", self.seen_mode);
            self.seen_mode = mode;
        }
    }

    /// A line for each source that the last tick found scanning, and a count where there are many.
    fn tell_scanners(&self) {
        let (found, most) = (self.learner.new_scanners(), self.learner.fan_out());
        for source in found.iter().take(MOST_SCANNERS_TOLD) {
            log::warn!(target: GRAPH, "{source} tried more than {most} services in vain: new edges of it teach nothing for a day");
        }
        if let Some(more @ 1..) = found.len().checked_sub(MOST_SCANNERS_TOLD) {
            let more = counted(more, "more source", "more sources");
            log::warn!(target: GRAPH, "{more} tried as many in vain, and teach nothing for a day, either");
        }
    }

    /// Stores what changed. What cannot be stored is kept for the next time.
    pub(crate) fn flush(&mut self, now: Moment) -> Result<()> {
        self.flushed = now.ktime;
        let edges = self.learner.take_dirty();
        let violations = self.violations.dirty();
        if edges.is_empty() && violations.is_empty() && !self.coverage_changed && !self.mode_changed
        {
            return Ok(());
        }
        let stored = self.store.flush(&Batch {
            edges: &edges,
            violations: &violations,
            coverage: self.coverage_changed.then_some(&self.coverage),
            mode: self.mode_changed.then(|| self.mode.map(Mode::name)),
        });
        if stored.is_err() {
            self.learner
                .not_stored(edges.into_iter().map(|(edge, _)| edge));
            return stored;
        }
        self.violations.stored();
        self.coverage_changed = false;
        self.mode_changed = false;
        Ok(())
    }

    /// Flushes; what it could not do, as a line for the operator. Then the next flush does.
    pub(super) fn store_now(&mut self, now: Moment) -> String {
        match self.flush(now) {
            Ok(()) => String::new(),
            Err(error) => format!("in force, but not stored yet: {error}\n"),
        }
    }

    pub(super) fn switch_to(
        &mut self,
        mode: Mode,
        lease: Option<Duration>,
        now: Moment,
    ) -> Result<String> {
        if mode.is_frozen() {
            self.reread(now)?;
        }
        self.apply(mode, lease.map(|span| now.ktime + span), now)?;
        self.seen_mode = mode;
        let warned = match mode {
            Mode::Enforce => self.shut_out(now.ktime)?,
            Mode::Off | Mode::Learn | Mode::Observe => String::new(),
        };
        let leased = self.plane()?.status(now.ktime).lease;
        if let (Some(span), Some((_, after))) = (lease, leased) {
            return Ok(format!(
                "{mode} for {}; 'kernloom graph confirm' keeps it, else the kernel goes back by itself, to the \
                 {after} of before\n{warned}",
                format_duration(span)
            ));
        }
        Ok(format!("{mode}\n{warned}{}", self.set_mode(mode, now)))
    }

    fn set_mode(&mut self, mode: Mode, now: Moment) -> String {
        self.mode = Some(mode);
        self.mode_changed = true;
        self.store_now(now)
    }

    pub(super) fn confirm(&mut self, now: Moment) -> Result<String> {
        let plane = self.plane()?;
        if !plane.confirm(now.ktime) {
            return Err(Error::operator(format!(
                "there is no lease to confirm; the data plane is in {}",
                plane.status(now.ktime).mode
            )));
        }
        let mode = plane.status(now.ktime).mode;
        Ok(format!("{mode} is confirmed\n{}", self.set_mode(mode, now)))
    }

    pub(super) fn reset(&mut self, now: Moment) -> Result<String> {
        // A refusal was never learned: whoever it shut out must not be let in by this.
        let records = self.learner.records().iter();
        let edges: Vec<Edge> = records
            .filter(|(_, record)| !matches!(record.state, State::Denied | State::Removed))
            .map(|(edge, _)| edge.clone())
            .collect();
        edges.iter().for_each(|edge| self.learner.remove(edge));
        // What is frozen is known, though nobody saw it used.
        self.go_by_file(now);
        self.violations.clear();
        self.coverage = Coverage::default();
        self.coverage_changed = true;
        self.renew(now)?;
        Ok(format!(
            "{} forgotten; the frozen file stays, and what is denied or was removed from it\n{}",
            counted(edges.len(), "edge is", "edges are"),
            self.store_now(now)
        ))
    }

    pub(super) fn readiness(&self) -> Readiness {
        let scanners = self.learner.scanners().count();
        Readiness::of(self.learner.records(), &self.coverage, scanners)
    }

    pub(super) fn readiness_told(&self, json: bool) -> String {
        let readiness = self.readiness();
        if json {
            readiness_json(&readiness)
        } else {
            readiness_lines(&readiness)
        }
    }

    /// # Errors
    /// Operator's, where there are none and nothing runs that could have told of any.
    pub(super) fn violations_told(&self, json: bool) -> Result<String> {
        let all = self.violations.all();
        if all.is_empty() {
            self.plane()?;
        }
        Ok(if json {
            violations_json(all)
        } else {
            violation_lines(all)
        })
    }

    pub(super) fn edges(&self, state: Option<&str>) -> Result<String> {
        let state = state.map(Self::state_named).transpose()?;
        Ok(edge_lines(self.learner.records(), state))
    }

    pub(super) fn show(&self, now: Moment) -> String {
        graph_tree(&self.view(now))
    }

    pub(super) fn export(&self, format: ExportFormat, now: Moment) -> Result<String> {
        let view = self.view(now);
        match format {
            ExportFormat::Dot => Ok(view.to_dot()),
            ExportFormat::Mermaid => Ok(view.to_mermaid()),
            ExportFormat::Json => Ok(view.to_json()),
            ExportFormat::Html => view.to_html(),
            ExportFormat::Yaml => {
                let made = self.freeze_now(BTreeSet::new(), self.wall(now))?;
                Ok(made.frozen.to_text(None))
            }
        }
    }

    /// The graph as metrics show it.
    pub(crate) fn gauges(&self, now: Moment) -> GraphGauges {
        let status = self
            .shield
            .and_then(Shield::graph)
            .map(|plane| plane.status(now.ktime));
        let lease = status.and_then(|status| status.lease);
        let mut edges = [0; State::ALL.len()];
        for record in self.learner.records().values() {
            edges[record.state as usize] += 1;
        }
        GraphGauges {
            mode: status.map_or(Mode::Off, |status| status.mode),
            lease: lease.map_or(0.0, |(end, _)| end.since(now.ktime).as_secs_f64()),
            edges,
            table_used: self.table_used,
            table_capacity: self
                .table
                .as_ref()
                .map_or(0, |(table, _)| table.capacity() as u64),
            violating: self.violations.all().len() as u64,
            violation_packets: self.violation_packets,
            turned_away: self.learner.turned_away(),
        }
    }

    pub(super) fn view(&self, now: Moment) -> GraphView {
        let status = self
            .shield
            .and_then(Shield::graph)
            .map(|plane| plane.status(now.ktime));
        let lease = status.and_then(|status| status.lease);
        GraphView::of(
            &self.node,
            status.map_or(Mode::Off, |status| status.mode),
            lease.map(|(end, _)| end.since(now.ktime)),
            self.wall(now),
            &self.readiness(),
            self.learner.records(),
            self.violations.all(),
        )
    }
}

/// The command that puts a mode in force.
const fn command_for(mode: Mode) -> &'static str {
    match mode {
        Mode::Off | Mode::Learn => "thaw",
        Mode::Observe => "observe",
        Mode::Enforce => "enforce",
    }
}

/// What a command put in force, by its name; `off` never is.
fn mode_named(name: &str) -> Option<Mode> {
    let named = Mode::ALL.into_iter().find(|mode| mode.name() == name);
    named.filter(|mode| *mode != Mode::Off)
}
