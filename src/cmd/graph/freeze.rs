//! The frozen file: made, edited, read again, and what is known of each edge brought in line with it.

use std::collections::BTreeSet;
use std::fs;

use super::disk::read_accepted;
use super::keeper::GraphKeeper;
use super::{GRAPH, frozen_path};
use crate::dataplane::Shield;
use crate::error::{Error, Result};
use crate::graph::{
    Edge, Freeze, FreezeFrom, Frozen, LeftOut, MOST_RISK, Mode, Record, Service, State,
};
use crate::model::{Moment, Wall, counted};
use crate::report::readiness_lines;
use crate::store::write_whole;
use crate::trust;

/// Edges left out that a freeze names.
const MOST_LEFT_OUT: usize = 20;

const DRY_RUN: &str = "dry run: nothing was changed\n";

impl GraphKeeper<'_> {
    /// A dry run is the same but for the writing, so that it tells what the real one would do.
    pub(super) fn freeze(
        &mut self,
        only: BTreeSet<Service>,
        dry_run: bool,
        accept_risk: bool,
        now: Moment,
    ) -> Result<String> {
        let readiness = self.readiness();
        let wall = self.wall(now);
        let before = self.unedited()?;
        let made = self.freeze_now(only, wall)?;
        let frozen = &made.frozen;
        let used: BTreeSet<Service> = frozen.edges.iter().map(|edge| edge.service).collect();
        let unused = |service: &&Service| !used.contains(service);
        if let Some(service) = frozen.only.iter().find(unused) {
            return Err(Error::operator(format!(
                "no accepted edge uses {service}: frozen, it would be closed to everyone; \
                 'kernloom graph allow PEER {service}' first. Nothing was changed"
            )));
        }
        let file = self.text_of(frozen, before.as_deref(), now)?;
        let mut text = readiness_lines(&readiness);
        text.push_str(&self.in_force(frozen).changes_to(frozen));
        text.push_str(&remarks(&made));
        let risky = format!(
            "the risk is above {:.0} %: learn longer, or freeze with --accept-risk",
            MOST_RISK * 100.0
        );
        match (readiness.is_ready() || accept_risk, dry_run) {
            (true, true) => Ok(text + DRY_RUN),
            (false, true) => Ok(format!("{text}it would be refused: {risky}\n{DRY_RUN}")),
            (false, false) => Err(Error::operator(format!(
                "{text}{risky}. Nothing was changed"
            ))),
            (true, false) => {
                text.push_str(&self.put_frozen((made.frozen, file), before, wall, now)?);
                Ok(text)
            }
        }
    }

    /// What a freeze would make of all that is known.
    pub(super) fn freeze_now(&self, only: BTreeSet<Service>, wall: Wall) -> Result<Freeze> {
        let made = Frozen::freeze(FreezeFrom {
            node: &self.node,
            now: wall,
            only,
            groups: &self.setup.groups,
            records: self.learner.records(),
            before: self.own_frozen().ok(),
        });
        made.map_err(|error| Error::operator(format!("{error}. Nothing was changed")))
    }

    pub(super) fn accept_edits(&mut self, dry_run: bool, now: Moment) -> Result<String> {
        let path = frozen_path(&self.setup.store);
        let named =
            |error: &dyn std::fmt::Display| Error::operator(format!("{}: {error}", path.display()));
        let written = trust::read_settings(&path).map_err(|error| named(&error))?;
        let mut frozen = Frozen::from_edited(&written).map_err(|error| named(&error))?;
        frozen
            .check_written(self.v6_bits())
            .map_err(|error| named(&error))?;
        frozen.node.clone_from(&self.node);
        self.complete(&mut frozen)?;
        let file = self.text_of(&frozen, Some(&written), now)?;
        let mut text = self.in_force(&frozen).changes_to(&frozen);
        if dry_run {
            return Ok(text + DRY_RUN);
        }
        text.push_str(&self.put_frozen((frozen, file), Some(written), self.wall(now), now)?);
        Ok(text)
    }

    /// The text of the file that a frozen graph would be. `before`: the file it replaces.
    ///
    /// # Errors
    /// Operator's, if it would shut everyone out at once.
    pub(super) fn text_of(
        &self,
        frozen: &Frozen,
        before: Option<&str>,
        now: Moment,
    ) -> Result<String> {
        if frozen.edges.is_empty() && self.enforces(now) {
            return Err(Error::operator(
                "no edge would be left, and everyone would be shut out at once; 'kernloom graph observe' first. \
                 Nothing was changed",
            ));
        }
        let text = frozen.to_text(before);
        let read = Frozen::from_text(&text).map_err(|error| error.to_string());
        if read.as_ref() != Ok(frozen) {
            return Err(Error::world(format!(
                "{}: it would not read back as it is written ({}). Nothing was changed",
                frozen_path(&self.setup.store).display(),
                read.err().unwrap_or_default()
            )));
        }
        Ok(text)
    }

    /// Writes a frozen graph's file, and only then goes by it. `before`: the text of the file it replaces,
    /// which comes back if the graph cannot be put in force.
    pub(super) fn put_frozen(
        &mut self,
        (frozen, text): (Frozen, String),
        before: Option<String>,
        wall: Wall,
        now: Moment,
    ) -> Result<String> {
        let path = frozen_path(&self.setup.store);
        write_whole(&path, &text)?;
        let noted = self.note_frozen(&frozen, wall);
        let hash = frozen.hash();
        let count = frozen.edges.len();
        let known = std::mem::replace(&mut self.frozen, Ok(Some((frozen, text))));
        if let Err(error) = self.renew(now) {
            self.frozen = known;
            for (edge, record) in noted {
                self.learner.restore(&edge, record);
            }
            match before {
                Some(text) => write_whole(&path, &text)?,
                // What was just written; the error that counts is the first one.
                None => drop(fs::remove_file(&path)),
            }
            return Err(error);
        }
        self.keep_accepted();
        Ok(format!(
            "{} frozen in {} (sha256 {})\n{}",
            counted(count, "edge is", "edges are"),
            path.display(),
            hash.get(..16).unwrap_or(&hash),
            self.store_now(now)
        ))
    }

    pub(super) fn enforces(&self, now: Moment) -> bool {
        let plane = self.shield.and_then(Shield::graph);
        plane.is_some_and(|plane| plane.status(now.ktime).mode == Mode::Enforce)
    }

    /// Goes by the file as it is now, before it is put in force.
    pub(super) fn reread(&mut self, now: Moment) -> Result<()> {
        self.frozen = Ok(read_accepted(
            &self.setup.store,
            &self.node,
            self.v6_bits(),
        )?);
        self.go_by_file(now);
        self.keep_accepted();
        Ok(())
    }

    /// Brings what is known of each edge in line with the frozen graph, if it is this host's: a database
    /// that was lost learns what is frozen and denied, one that is older than the file what changed.
    pub(super) fn go_by_file(&mut self, now: Moment) {
        let Ok(frozen) = self.own_frozen().cloned() else {
            return;
        };
        for (edge, before) in self.note_frozen(&frozen, self.wall(now)) {
            let denied = before.is_some_and(|record| record.state == State::Denied);
            if denied && !frozen.denies(&edge) {
                log::warn!(target: GRAPH, "{edge} is denied no longer: the frozen file does not say so");
            }
        }
    }

    /// Brings what is known of each edge in line with a frozen graph. What was known before.
    fn note_frozen(&mut self, frozen: &Frozen, wall: Wall) -> Vec<(Edge, Option<Record>)> {
        let records = self.learner.records();
        let mut changes = Vec::new();
        for (edge, record) in records {
            let state = frozen.state_of(edge, record.state);
            if state != Some(record.state) {
                changes.push((edge.clone(), Some(record.clone()), state));
            }
        }
        let frozen_edges = frozen.edges.iter().map(|edge| (edge, State::Frozen));
        let denied = frozen.denied().map(|edge| (edge, State::Denied));
        for (edge, state) in frozen_edges.chain(denied) {
            if !records.contains_key(edge) {
                changes.push((edge.clone(), None, Some(state)));
            }
        }
        let mut before = Vec::new();
        for (edge, record, state) in changes {
            match state {
                Some(state) => self.learner.decide(&edge, state, wall),
                None => self.learner.remove(&edge),
            }
            before.push((edge, record));
        }
        before
    }
}

/// What an operator would miss among the changes.
fn remarks(made: &Freeze) -> String {
    let mut text = String::new();
    for name in &made.kept {
        text.push_str(&format!(
            "kept: group {name} is not configured any more; its edges stay, for what it was frozen as\n"
        ));
    }
    for (edge, why) in made.left_out.iter().take(MOST_LEFT_OUT) {
        let why = match why {
            LeftOut::NoGroup => format!("the group {} is not defined", edge.peer),
            LeftOut::GroupMoved => format!("other groups have all of {} now", edge.peer),
            LeftOut::Removed => {
                "removed by hand before; 'kernloom graph allow' lets it back".to_owned()
            }
        };
        text.push_str(&format!("left out: {edge}: {why}\n"));
    }
    if let Some(more @ 1..) = made.left_out.len().checked_sub(MOST_LEFT_OUT) {
        text.push_str(&format!(
            "left out: {more} more; 'kernloom graph edges --state removed' lists what was removed by hand\n"
        ));
    }
    text
}
