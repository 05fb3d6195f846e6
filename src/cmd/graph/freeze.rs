//! The frozen file: made, edited, read again, and what is known of each edge brought in line with it.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::keeper::GraphKeeper;
use super::{frozen_path, read_sound};
use crate::dataplane::Shield;
use crate::error::{Error, Result};
use crate::graph::{Edge, FreezeFrom, Frozen, MOST_RISK, Mode, Peer, Record, Service, State};
use crate::model::{Moment, Wall, counted};
use crate::report::readiness_lines;
use crate::store::write_whole;
use crate::trust;

impl GraphKeeper<'_> {
    pub(super) fn freeze(
        &mut self,
        only: BTreeSet<Service>,
        dry_run: bool,
        accept_risk: bool,
        now: Moment,
    ) -> Result<String> {
        let readiness = self.readiness();
        let wall = self.wall(now);
        let frozen = Frozen::freeze(FreezeFrom {
            node: &self.node,
            now: wall,
            only,
            groups: &self.setup.groups,
            records: self.learner.records(),
        });
        let used: BTreeSet<Service> = frozen.edges.iter().map(|edge| edge.service).collect();
        let unused = |service: &&Service| !used.contains(service);
        if let Some(service) = frozen.only.iter().find(unused) {
            return Err(Error::operator(format!(
                "no accepted edge uses {service}: frozen, it would be closed to everyone; \
                 'kernloom graph allow PEER {service}' first. Nothing was changed"
            )));
        }
        let mut text = readiness_lines(&readiness);
        text.push_str(&self.changes(&frozen));
        if dry_run {
            text.push_str("dry run: nothing was changed\n");
            return Ok(text);
        }
        if !readiness.is_ready() && !accept_risk {
            return Err(Error::operator(format!(
                "{text}the risk is above {:.0} %: learn longer, or freeze with --accept-risk. Nothing was changed",
                MOST_RISK * 100.0
            )));
        }
        text.push_str(&self.put_frozen(frozen, wall, now)?);
        Ok(text)
    }

    pub(super) fn accept_edits(&mut self, dry_run: bool, now: Moment) -> Result<String> {
        let path = frozen_path(&self.setup.store);
        let named =
            |error: &dyn std::fmt::Display| Error::operator(format!("{}: {error}", path.display()));
        let written = trust::read_to_string(&path).map_err(|error| named(&error))?;
        let mut frozen = Frozen::from_edited(&written).map_err(|error| named(&error))?;
        frozen
            .check(self.v6_bits())
            .map_err(|error| named(&error))?;
        frozen.node.clone_from(&self.node);
        let mut text = self.changes(&frozen);
        if dry_run {
            text.push_str("dry run: nothing was changed\n");
            return Ok(text);
        }
        self.frozen = Ok(Some((frozen.clone(), written)));
        text.push_str(&self.put_frozen(frozen, self.wall(now), now)?);
        Ok(text)
    }

    /// Edges that a new frozen graph adds to the one there is, and that it lacks.
    fn changes(&self, next: &Frozen) -> String {
        let none = BTreeSet::new();
        let before = match &self.frozen {
            Ok(Some((frozen, _))) => &frozen.edges,
            Ok(None) | Err(_) => &none,
        };
        let mut text = String::new();
        for edge in next.edges.union(before) {
            match (before.contains(edge), next.edges.contains(edge)) {
                (false, true) => text.push_str(&format!("+ {edge}\n")),
                (true, false) => text.push_str(&format!("- {edge}\n")),
                _ => {}
            }
        }
        text
    }

    /// Writes the file, reads it back, and only then goes by it.
    fn put_frozen(&mut self, frozen: Frozen, wall: Wall, now: Moment) -> Result<String> {
        let path = frozen_path(&self.setup.store);
        if frozen.edges.is_empty() && self.enforces(now) {
            return Err(Error::operator(
                "no edge would be left, and everyone would be shut out at once; 'kernloom graph observe' first. \
                 Nothing was changed",
            ));
        }
        let before = self.unedited()?;
        let text = frozen.to_text(before);
        let read = Frozen::from_text(&text).map_err(|error| error.to_string());
        if read.as_ref() != Ok(&frozen) {
            return Err(Error::world(format!(
                "{}: it would not read back as it is written ({}). Nothing was changed",
                path.display(),
                read.err().unwrap_or_default()
            )));
        }
        write_whole(&path, &text)?;
        let noted = self.note_frozen(&frozen, wall);
        let hash = frozen.hash();
        let count = frozen.edges.len();
        let before = std::mem::replace(&mut self.frozen, Ok(Some((frozen, text))));
        if let Err(error) = self.renew(now) {
            self.frozen = before;
            for (edge, record) in noted {
                self.learner.restore(&edge, record);
            }
            if let Ok(Some((_, text))) = &self.frozen {
                write_whole(&path, text)?;
            }
            return Err(error);
        }
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

    /// The file's text as this process knows it; `None` where there is no file.
    ///
    /// # Errors
    /// Operator's, if the file says something else: what was edited must not be written over.
    fn unedited(&self) -> Result<Option<&str>> {
        let path = frozen_path(&self.setup.store);
        let known = match &self.frozen {
            Ok(known) => known.as_ref().map(|(_, text)| text.as_str()),
            Err(_) => None,
        };
        match trust::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Ok(text) if Some(text.as_str()) == known => Ok(known),
            Ok(_) => Err(Error::operator(format!(
                "{0} was edited and not accepted yet: review it, then 'kernloom graph freeze --accept-edits'; or \
                 remove it to give the edits up. Nothing was changed",
                path.display()
            ))),
            Err(error) => Err(Error::operator(format!(
                "reading {}: {error}",
                path.display()
            ))),
        }
    }

    /// Goes by the file as it is now, before it is put in force.
    pub(super) fn reread(&mut self, now: Moment) -> Result<()> {
        let read = read_sound(&self.setup.store, self.v6_bits())?;
        if let Some((frozen, _)) = &read {
            self.note_frozen(&frozen.clone(), self.wall(now));
        }
        self.frozen = Ok(read);
        Ok(())
    }

    /// Takes in what is frozen and was never seen.
    pub(super) fn note_unknown(&mut self, frozen: &Frozen, wall: Wall) {
        for edge in &frozen.edges {
            if !self.learner.records().contains_key(edge) {
                self.learner.decide(edge, State::Frozen, wall);
            }
        }
    }

    /// Brings what is known of each edge in line with a frozen graph. What was known before.
    fn note_frozen(&mut self, frozen: &Frozen, wall: Wall) -> Vec<(Edge, Option<Record>)> {
        let mut before = Vec::new();
        for (edge, record) in self.learner.records() {
            let frozen = frozen.edges.contains(edge);
            if frozen != (record.state == State::Frozen) {
                before.push((edge.clone(), Some(record.clone())));
            }
        }
        let unknown = |edge: &&Edge| !self.learner.records().contains_key(*edge);
        let unknown = frozen.edges.iter().filter(unknown);
        before.extend(unknown.map(|edge| (edge.clone(), None)));
        for (edge, _) in &before {
            let state = if frozen.edges.contains(edge) {
                State::Frozen
            } else {
                State::Learned
            };
            self.learner.decide(edge, state, wall);
        }
        before
    }

    /// Takes a decision over edges: it counts at once, in every mode.
    pub(super) fn decide(&mut self, edges: &[Edge], allow: bool, now: Moment) -> Result<String> {
        let wall = self.wall(now);
        let state = if allow {
            State::Approved
        } else {
            State::Denied
        };
        let before: Vec<_> = edges
            .iter()
            .map(|edge| (edge, self.learner.records().get(edge).cloned()))
            .collect();
        for edge in edges {
            self.learner.decide(edge, state, wall);
        }
        let mut text: String = edges
            .iter()
            .map(|edge| format!("{state}: {edge}\n"))
            .collect();
        match self.carry_out(edges, allow, wall, now) {
            Ok(said) => text.push_str(&said),
            Err(error) => {
                for (edge, record) in before {
                    self.learner.restore(edge, record);
                }
                return Err(error);
            }
        }
        if allow {
            edges.iter().for_each(|edge| self.violations.remove(edge));
        } else {
            text.push_str(&self.shut_out_by(edges, now.ktime)?);
        }
        text.push_str(&self.store_now(now));
        Ok(text)
    }

    /// Puts a decision that the records hold into the frozen graph, and in force.
    fn carry_out(
        &mut self,
        edges: &[Edge],
        allow: bool,
        wall: Wall,
        now: Moment,
    ) -> Result<String> {
        let known = self.frozen.as_ref();
        if let Some((frozen, _)) = known.map_err(|error| Error::operator(error.clone()))? {
            let mut next = frozen.clone();
            for edge in edges {
                if allow {
                    next.edges.insert(edge.clone());
                    if let Peer::Group(name) = &edge.peer {
                        self.define(name, &mut next);
                    }
                } else {
                    next.edges.remove(edge);
                }
            }
            if next.edges != frozen.edges {
                return self.put_frozen(next, wall, now);
            }
        }
        self.renew(now)?;
        Ok(String::new())
    }

    /// A group that was configured after the freeze.
    fn define(&self, name: &str, frozen: &mut Frozen) {
        let configured = self.setup.groups.named().find(|(known, _)| *known == name);
        if let Some((name, prefixes)) = configured {
            let groups = &mut frozen.groups;
            groups
                .entry(name.to_owned())
                .or_insert_with(|| prefixes.to_vec());
        }
    }
}
