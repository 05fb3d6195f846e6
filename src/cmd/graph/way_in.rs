//! The way in under a graph. Management addresses pass wherever it is silent, so that only two things
//! shut them out: an edge that is denied, and an entry inside them that counts instead of theirs.

use super::keeper::GraphKeeper;
use crate::dataplane::{Action, Entry, Owner};
use crate::error::Result;
use crate::graph::{Direction, Edge, Groups, Peer, State};
use crate::model::{Ktime, Source};

impl GraphKeeper<'_> {
    /// A warning for each management address that one of these denied edges shuts out.
    pub(super) fn shut_out_by<'e>(
        &self,
        denied: impl IntoIterator<Item = &'e Edge>,
        now: Ktime,
    ) -> Result<String> {
        let entries = self.management_and_others(now)?.0;
        let groups = self.groups();
        let mut text = String::new();
        for edge in denied {
            let met = entries
                .iter()
                .filter(|entry| meets(&groups, edge, &entry.source));
            for Entry { source, .. } in met {
                text.push_str(&format!(
                    "warning: {edge} is denied, and the management address {source} with it; 'kernloom graph allow \
                     {} {}' takes that back\n",
                    edge.peer, edge.service
                ));
            }
        }
        Ok(text)
    }

    /// The same for all that is denied, and for what has an entry of its own inside one.
    pub(super) fn shut_out(&self, now: Ktime) -> Result<String> {
        let records = self.learner.records().iter();
        let denied = records.filter(|(_, record)| record.state == State::Denied);
        let mut text = self.shut_out_by(denied.map(|(edge, _)| edge), now)?;
        let (managed, others) = self.management_and_others(now)?;
        for other in others {
            let around = |entry: &&Entry| entry.source.contains(&other.source);
            if let Some(Entry { source, .. }) = managed.iter().find(around) {
                text.push_str(&format!(
                    "warning: {} in the management address {source} has an entry of its own, and needs edges as \
                     anybody does; 'kernloom shield management add {0}' exempts it\n",
                    other.source
                ));
            }
        }
        Ok(text)
    }

    /// Live entries of management addresses, and those that let others pass no further than the graph.
    fn management_and_others(&self, now: Ktime) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let Some(shield) = self.shield else {
            return Ok(Default::default());
        };
        let mut entries = shield.entries()?;
        entries.retain(|entry| entry.is_live(now) && entry.rule.action != Action::Deny);
        let (managed, mut others): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| entry.rule.owner == Owner::Management);
        others.retain(|entry| entry.binds(now) && entry.rule.owner != Owner::Iq);
        Ok((managed, others))
    }
}

/// Whether an edge is one by which the source, or part of it, comes in.
fn meets(groups: &Groups, edge: &Edge, source: &Source) -> bool {
    let within = |peer: &Source| peer.contains(source) || source.contains(peer);
    let comes = match &edge.peer {
        Peer::Any => false,
        Peer::Source(peer) => within(peer),
        Peer::Group(name) => {
            let mut named = groups.named().filter(|(known, _)| known == name);
            groups.peer(source) == edge.peer || named.any(|(_, all)| all.iter().any(within))
        }
    };
    edge.direction == Direction::In && comes
}
