//! What a freeze makes of the graph, and what becomes of it where groups changed since the last one.
//!
//! A source counts as one group. A group that is new, or that grew, takes members out of others, and
//! what was frozen for those would pass or drop them no longer. So it begins with their edges: what
//! was frozen keeps its meaning, and each edge is there to be seen and taken out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Edge, Frozen, FrozenError, Groups, Peer, Record, Service, State};
use crate::model::{Source, Wall};

/// What a freeze takes from the graph.
pub struct FreezeFrom<'a> {
    pub node: &'a str,
    pub now: Wall,
    pub only: BTreeSet<Service>,
    /// As configured.
    pub groups: &'a Groups,
    pub records: &'a BTreeMap<Edge, Record>,
    /// The frozen graph that is replaced.
    pub before: Option<&'a Frozen>,
}

/// What a freeze makes, and what an operator would miss in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    pub frozen: Frozen,
    /// Groups that are no longer configured, with the prefixes they were frozen with.
    pub kept: Vec<String>,
    pub left_out: Vec<(Edge, LeftOut)>,
}

/// Why an edge does not come into the frozen graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Nobody knows its group's prefixes.
    NoGroup,
    /// Other groups have all its group's prefixes now, and its edges with them.
    GroupMoved,
    /// The operator took it out of the file before.
    Removed,
}

impl Frozen {
    /// Every accepted edge of the services in scope, every denied one, and the groups they name.
    ///
    /// # Errors
    /// A group that a denied edge names is not defined: left out, it would be allowed.
    pub fn freeze(from: FreezeFrom<'_>) -> Result<Freeze, FrozenError> {
        let mut frozen = Self {
            node: from.node.to_owned(),
            frozen_at: from.now.to_string(),
            only: from.only,
            denied: Some(BTreeSet::new()),
            ..Self::default()
        };
        let (groups, kept) = groups_of(from.groups, from.before, from.records);
        frozen.groups = groups;
        let mut left_out = Vec::new();
        for (edge, record) in from.records {
            let wanted = match record.state {
                State::Denied => true,
                State::Learned | State::Approved | State::Frozen | State::Removed => {
                    frozen.covers(edge.service)
                }
                State::Candidate | State::Expired => false,
            };
            if !wanted {
                continue;
            }
            let denied = record.state == State::Denied;
            let moved = from.before.is_some_and(|before| before.defines(&edge.peer));
            if record.state == State::Removed {
                left_out.push((edge.clone(), LeftOut::Removed));
            } else if frozen.defines(&edge.peer) {
                frozen.put(edge, denied);
            } else if moved {
                left_out.push((edge.clone(), LeftOut::GroupMoved));
            } else if denied {
                return Err(FrozenError::Undefined(edge.clone()));
            } else {
                left_out.push((edge.clone(), LeftOut::NoGroup));
            }
        }
        if let Some(before) = from.before {
            frozen.inherit(before, from.groups, from.records);
        }
        Ok(Freeze {
            frozen,
            kept,
            left_out,
        })
    }

    /// Allows or denies an edge.
    pub fn put(&mut self, edge: &Edge, denied: bool) {
        let list = self.denied.get_or_insert_default();
        if denied {
            self.edges.remove(edge);
            list.insert(edge.clone());
        } else {
            list.remove(edge);
            self.edges.insert(edge.clone());
        }
    }

    /// Gives each group the edges of those that it takes members out of, but for those that an operator
    /// decided. What one of them is denied, all of it is.
    pub fn inherit(&mut self, before: &Self, host: &Groups, records: &BTreeMap<Edge, Record>) {
        let old = before.groups_on(host);
        let decided = |edge: &Edge| {
            records
                .get(edge)
                .is_some_and(|record| record.state.is_decided())
        };
        for (name, prefixes) in self.groups.clone() {
            let had = before.groups.get(&name).map_or(&[][..], Vec::as_slice);
            let fresh = prefixes.iter().filter(|prefix| !had.contains(prefix));
            let group = Peer::Group(name);
            let from: BTreeSet<Peer> = fresh
                .map(|prefix| old.peer(prefix))
                .filter(|peer| matches!(peer, Peer::Group(_)) && *peer != group)
                .collect();
            for (denied, edge) in before.lines().filter(|(_, edge)| from.contains(&edge.peer)) {
                let edge = Edge {
                    peer: group.clone(),
                    ..edge.clone()
                };
                if !decided(&edge) && (denied || self.covers(edge.service)) {
                    self.put(&edge, denied);
                }
            }
        }
    }
}

/// The configured groups, and those that are only frozen and that an edge names: their prefixes that
/// no other group has now.
fn groups_of(
    configured: &Groups,
    before: Option<&Frozen>,
    records: &BTreeMap<Edge, Record>,
) -> (BTreeMap<String, Vec<Source>>, Vec<String>) {
    let mut groups = configured.clone();
    let mut kept = Vec::new();
    let in_use = |name: &str| {
        records.iter().any(|(edge, record)| {
            let used = record.state.is_accepted() || record.state == State::Denied;
            used && matches!(&edge.peer, Peer::Group(group) if group == name)
        })
    };
    for (name, prefixes) in before.iter().flat_map(|before| &before.groups) {
        if configured.contains(name) || !in_use(name) {
            continue;
        }
        let mut free = 0;
        for prefix in prefixes {
            free += usize::from(groups.add(name, *prefix).is_ok());
        }
        if free > 0 {
            kept.push(name.clone());
        }
    }
    let groups = groups.named();
    let groups = groups.map(|(name, prefixes)| (name.to_owned(), prefixes.to_vec()));
    (groups.collect(), kept)
}
