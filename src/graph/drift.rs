use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Edge, Frozen, Peer, Record, State};
use crate::model::Wall;

/// How an edge differs between the frozen graph and what is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Learned or approved, and not in the frozen graph.
    Added,
    /// Denied, and the frozen graph does not say so.
    Denied,
    /// In the frozen graph, and not seen for long, or never.
    Unused,
}

impl Change {
    /// As a line of a diff begins.
    pub const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Denied => '-',
            Self::Unused => '?',
        }
    }
}

/// The frozen graph against what is known now, in the graph's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub changes: Vec<(Edge, Change)>,
    /// Edges that the frozen graph speaks about and lacks, seen too little to be learned.
    pub candidates: usize,
}

impl Drift {
    /// `unused_for`: silence that makes a frozen edge unused.
    pub fn between(
        frozen: &Frozen,
        records: &BTreeMap<Edge, Record>,
        now: Wall,
        unused_for: Duration,
    ) -> Self {
        let mut changes = BTreeMap::new();
        let prefixes: Vec<&Edge> = frozen.edges.iter().filter(|edge| is_prefix(edge)).collect();
        let within = |edge: &Edge| prefixes.iter().find(|prefix| holds(prefix, edge)).copied();
        let fresh = |record: &Record| record.ticks > 0 && now.since(record.last_seen) <= unused_for;
        let mut used = BTreeSet::new();
        let mut candidates = 0;
        for (edge, record) in records {
            let lacks = || !frozen.edges.contains(edge) && within(edge).is_none();
            let is_candidate = record.state == State::Candidate && frozen.covers(edge.service);
            candidates += usize::from(is_candidate && lacks());
            let wanted = record.state.is_accepted() && frozen.covers(edge.service);
            let prefix = within(edge);
            used.extend(prefix.filter(|_| fresh(record) && record.state != State::Denied));
            if record.state == State::Denied && !frozen.denies(edge) {
                changes.insert(edge.clone(), Change::Denied);
            }
            if wanted && !frozen.edges.contains(edge) && prefix.is_none() {
                changes.insert(edge.clone(), Change::Added);
            }
        }
        for edge in &frozen.edges {
            match records.get(edge) {
                Some(record) if record.state == State::Denied || fresh(record) => {}
                Some(_) | None if used.contains(edge) => {}
                Some(_) | None => {
                    changes.insert(edge.clone(), Change::Unused);
                }
            }
        }
        Self {
            candidates,
            changes: changes.into_iter().collect(),
        }
    }
}

/// Whether its peer is several addresses.
fn is_prefix(edge: &Edge) -> bool {
    matches!(&edge.peer, Peer::Source(source) if source.bits() < 128)
}

/// Whether `edge` is that of one address of `prefix`.
fn holds(prefix: &Edge, edge: &Edge) -> bool {
    let (Peer::Source(all), Peer::Source(one)) = (&prefix.peer, &edge.peer) else {
        return false;
    };
    (prefix.direction, prefix.service) == (edge.direction, edge.service)
        && all != one
        && all.contains(one)
}
