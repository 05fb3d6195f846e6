use std::collections::BTreeMap;
use std::time::Duration;

use super::{Edge, Frozen, Record, State};
use crate::model::Wall;

/// How an edge differs between the frozen graph and what is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Learned or approved, and not in the frozen graph.
    Added,
    /// Denied, and still in the frozen graph.
    Removed,
    /// In the frozen graph, and not seen for long, or never.
    Unused,
}

impl Change {
    /// As a line of a diff begins.
    pub const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Unused => '?',
        }
    }
}

/// The frozen graph against what is known now, in the graph's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub changes: Vec<(Edge, Change)>,
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
        for edge in &frozen.edges {
            match records.get(edge) {
                Some(record) if record.state == State::Denied => {
                    changes.insert(edge.clone(), Change::Removed);
                }
                Some(record) if record.ticks > 0 && now.since(record.last_seen) <= unused_for => {}
                Some(_) | None => {
                    changes.insert(edge.clone(), Change::Unused);
                }
            }
        }
        for (edge, record) in records {
            let wanted = record.state.is_accepted() && frozen.covers(edge.service);
            if wanted && !frozen.edges.contains(edge) {
                changes.insert(edge.clone(), Change::Added);
            }
        }
        Self {
            changes: changes.into_iter().collect(),
        }
    }
}
