use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Edge;
use crate::model::Wall;
use crate::store::{MOST_VIOLATIONS, Violation};

/// What the frozen graph lacks and was tried, and what of it is not stored yet.
#[derive(Debug, Default)]
pub(super) struct Violations {
    all: BTreeMap<Edge, Violation>,
    dirty: BTreeSet<Edge>,
}

impl Violations {
    pub(super) fn new(all: BTreeMap<Edge, Violation>) -> Self {
        Self {
            all,
            dirty: BTreeSet::new(),
        }
    }

    pub(super) const fn all(&self) -> &BTreeMap<Edge, Violation> {
        &self.all
    }

    /// Adds the packets that a tick saw.
    pub(super) fn note(&mut self, seen: Vec<(Edge, u64)>, wall: Wall) {
        for (edge, packets) in seen {
            let fresh = Violation {
                first_seen: wall,
                last_seen: wall,
                packets: 0,
            };
            let violation = self.all.entry(edge.clone()).or_insert(fresh);
            violation.packets += packets;
            violation.last_seen = wall;
            self.dirty.insert(edge);
        }
        // Who invents sources must not fill the memory: the longest silent go.
        let surplus = self.all.len().saturating_sub(MOST_VIOLATIONS);
        if surplus == 0 {
            return;
        }
        let mut order: Vec<_> = self
            .all
            .iter()
            .map(|(edge, violation)| (violation.last_seen, violation.packets, edge.clone()))
            .collect();
        order.sort_unstable();
        for (_, _, edge) in order.into_iter().take(surplus) {
            self.remove(&edge);
        }
    }

    pub(super) fn remove(&mut self, edge: &Edge) {
        if self.all.remove(edge).is_some() {
            self.dirty.insert(edge.clone());
        }
    }

    pub(super) fn clear(&mut self) {
        self.dirty.extend(std::mem::take(&mut self.all).into_keys());
    }

    /// What is to be stored: each edge with its violation, `None` where it was removed.
    pub(super) fn dirty(&self) -> Vec<(Edge, Option<Violation>)> {
        self.dirty
            .iter()
            .map(|edge| (edge.clone(), self.all.get(edge).copied()))
            .collect()
    }

    pub(super) fn stored(&mut self) {
        self.dirty.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Direction, Peer, Service};
    use crate::model::Source;

    fn edge(number: u32) -> Edge {
        Edge {
            direction: Direction::In,
            peer: Peer::Source(Source::host((0x0a00_0000 + number).to_be_bytes().into())),
            service: Service::tcp(22),
        }
    }

    #[test]
    fn w57_invented_sources_fill_no_memory_and_the_longest_silent_go() {
        let mut violations = Violations::default();
        let most = u32::try_from(MOST_VIOLATIONS).unwrap();
        violations.note(vec![(edge(0), 7)], Wall::from_secs(1));
        for tick in 0..5 {
            let flood = (0..most / 2).map(|host| (edge(1 + tick * most + host), 1));
            violations.note(flood.collect(), Wall::from_secs(2 + u64::from(tick)));
            assert!(violations.all().len() <= MOST_VIOLATIONS);
        }
        assert!(!violations.all().contains_key(&edge(0)));
        let removed = violations.dirty().into_iter();
        assert_eq!(
            removed.filter(|(_, there)| there.is_none()).count() + MOST_VIOLATIONS,
            violations.dirty().len()
        );
        violations.stored();
        assert!(violations.dirty().is_empty());
    }
}
