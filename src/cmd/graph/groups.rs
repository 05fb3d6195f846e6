//! Which groups apply: packets are judged by those of the frozen graph, and learned by the configured.

use super::keeper::GraphKeeper;
use super::{frozen_path, links};
use crate::error::{Error, Result};
use crate::graph::{Frozen, Groups, Peer, State};
use crate::host::Host;
use crate::model::Source;
use crate::store::read_frozen;

/// The operator's groups, and this host's own prefixes, which are never `internet`.
pub(in crate::cmd) fn groups(host: &Host) -> Result<Groups> {
    let mut groups = Groups::new(links::local()?);
    for (name, prefixes) in &host.groups {
        for prefix in prefixes {
            groups.add(name, *prefix)?;
        }
    }
    Ok(groups)
}

/// The group that a source is judged as.
pub(in crate::cmd) fn group_of(host: &Host, source: &Source) -> Result<Option<Peer>> {
    let configured = groups(host)?;
    let frozen = read_frozen(&frozen_path(&host.graph_store(None)))?;
    let groups = frozen.map_or(configured.clone(), |(frozen, _)| {
        frozen.groups_on(&configured)
    });
    Ok(Some(groups.peer(source)).filter(|peer| matches!(peer, Peer::Group(_))))
}

impl GraphKeeper<'_> {
    /// The groups that packets are judged by: those of the frozen graph, so that what was frozen keeps
    /// its meaning, and none beside it. Where nothing is frozen, the configured ones.
    pub(super) fn groups(&self) -> Groups {
        let Ok(frozen) = self.own_frozen() else {
            return self.known();
        };
        let mut groups = frozen.groups_on(&self.setup.groups);
        let denied = self.learner.records().iter();
        let denied = denied.filter(|(_, record)| record.state == State::Denied);
        for (edge, _) in denied.filter(|(edge, _)| !frozen.defines(&edge.peer)) {
            // Denied before denials were kept in the file.
            if let Some((name, prefixes)) = self.configured(&edge.peer) {
                prefixes.iter().for_each(|prefix| {
                    // What another group has is frozen as that.
                    let _ = groups.add(name, *prefix);
                });
            }
        }
        groups
    }

    /// The groups that edges are learned and named by: those configured, and those frozen beside them.
    pub(super) fn known(&self) -> Groups {
        let mut groups = self.setup.groups.clone();
        let frozen = self
            .own_frozen()
            .into_iter()
            .flat_map(|frozen| &frozen.groups);
        for (name, prefixes) in frozen.filter(|(name, _)| !self.setup.groups.contains(name)) {
            for prefix in prefixes {
                // A configured group took it over.
                let _ = groups.add(name, *prefix);
            }
        }
        groups
    }

    pub(super) fn configured(&self, peer: &Peer) -> Option<(&str, &[Source])> {
        let Peer::Group(group) = peer else {
            return None;
        };
        self.setup.groups.named().find(|(name, _)| name == group)
    }

    /// Defines in a frozen graph what group an edge of it names, as it is configured.
    ///
    /// # Errors
    /// Operator's, if nobody says what the group is.
    pub(super) fn define(&self, peer: &Peer, frozen: &mut Frozen) -> Result<()> {
        if frozen.defines(peer) {
            return Ok(());
        }
        let (name, prefixes) = self.configured(peer).ok_or_else(|| {
            Error::operator(format!(
                "the group {peer} is not defined; give --group {peer}=PREFIX. Nothing was changed"
            ))
        })?;
        let mut groups = frozen.groups_on(&self.setup.groups);
        for prefix in prefixes {
            groups.add(name, *prefix)?;
        }
        let before = frozen.clone();
        frozen.groups.insert(name.to_owned(), prefixes.to_vec());
        frozen.inherit(&before, &self.setup.groups, self.learner.records());
        Ok(())
    }

    /// How the configured groups differ from the frozen ones, by which packets are judged; a line each.
    pub(super) fn groups_apart(&self) -> String {
        let named = self.setup.groups.named();
        named
            .filter_map(|(name, prefixes)| self.group_apart(name, prefixes))
            .collect()
    }

    /// The same of one group as it is configured; `None` where it is frozen so.
    pub(super) fn group_apart(&self, name: &str, prefixes: &[Source]) -> Option<String> {
        let what = match self.own_frozen().ok()?.groups.get(name) {
            Some(frozen) if frozen == prefixes => return None,
            Some(_) => "is configured otherwise than it was frozen",
            None => "is not in the frozen graph",
        };
        Some(format!(
            "group {name} {what}: until 'kernloom graph freeze', its members are judged as before\n"
        ))
    }
}
