//! What an operator decides of an edge: it counts at once, in every mode, and stands in the frozen file.

use super::keeper::GraphKeeper;
use crate::error::{Error, Result};
use crate::graph::{Edge, Frozen, State};
use crate::model::{Moment, Wall};

impl GraphKeeper<'_> {
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
        }
        let group = edges.first().and_then(|edge| self.configured(&edge.peer));
        // It may not be who the operator thinks it is.
        if let Some(apart) = group.and_then(|(name, prefixes)| self.group_apart(name, prefixes)) {
            text.push_str(&apart);
        }
        text.push_str(&self.store_now(now));
        if !allow {
            text.push_str(&self.shut_out_by(edges, now.ktime)?);
        }
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
        if let Err(error) = &self.frozen {
            return Err(Error::operator(error.clone()));
        }
        let Ok(frozen) = self.own_frozen() else {
            self.renew(now)?;
            let kept = "in force; kept in the database alone until 'kernloom graph freeze' writes the frozen file\n";
            return Ok(kept.to_owned());
        };
        let (frozen, mut next) = (frozen.clone(), frozen.clone());
        self.complete(&mut next)?;
        for edge in edges {
            self.define(&edge.peer, &mut next)?;
            next.put(edge, !allow);
        }
        if next == frozen {
            self.renew(now)?;
            return Ok(String::new());
        }
        let inherited = Self::beyond(edges, &frozen, &next);
        let before = self.unedited()?;
        let text = self.text_of(&next, before.as_deref(), now)?;
        let said = self.put_frozen((next, text), before, wall, now)?;
        Ok(inherited + &said)
    }

    /// Where the file is from before denials were kept in it, they come into it now.
    pub(super) fn complete(&self, frozen: &mut Frozen) -> Result<()> {
        if frozen.denied.is_some() {
            return Ok(());
        }
        for (edge, record) in self.learner.records() {
            if record.state == State::Denied && !frozen.edges.contains(edge) {
                self.define(&edge.peer, frozen)?;
                frozen.put(edge, true);
            }
        }
        frozen.denied.get_or_insert_default();
        Ok(())
    }

    /// What changes besides the edges that were decided.
    fn beyond(edges: &[Edge], frozen: &Frozen, next: &Frozen) -> String {
        let (mut before, mut after) = (frozen.clone(), next.clone());
        for edge in edges {
            for graph in [&mut before, &mut after] {
                graph.edges.remove(edge);
                graph.denied.get_or_insert_default().remove(edge);
            }
        }
        before.changes_to(&after)
    }
}
