//! Readings of the edge table to what one tick saw, as `telemetry` does for sources.

use std::collections::{BTreeMap, BTreeSet};

use super::{Direction, Edge, Evidence, Groups, INTERNET, Observation, Peer, Peers, Service};
use crate::model::Source;

/// One entry of the edge table: totals since the edge took the slot. 32-bit counts wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeRow {
    pub direction: Direction,
    /// The remote identity; `None` for what is sent to a multicast or broadcast address.
    pub source: Option<Source>,
    pub service: Service,
    /// Number of the source's group where packets were judged, 0 = none.
    pub group: u8,
    pub bytes: u64,
    pub packets: u32,
    pub connections: u32,
    pub handshakes: u32,
    pub violations: u32,
}

impl EdgeRow {
    fn is_same_edge(&self, other: &Self) -> bool {
        self.direction == other.direction
            && self.source == other.source
            && self.service == other.service
    }

    /// The edge by its source, whatever group that is in.
    fn own_edge(&self) -> Edge {
        Edge {
            direction: self.direction,
            peer: self.source.map_or(Peer::Any, Peer::Source),
            service: self.service,
        }
    }
}

/// What one tick saw.
#[derive(Debug, Default, PartialEq)]
pub struct Reading {
    pub seen: Vec<Observation>,
    /// Packets of edges that the frozen graph lacks, by their source until they are joined.
    pub violations: Vec<(Edge, u64)>,
}

impl Reading {
    /// Takes out what teaches nothing where the frozen graph is enforced: that somebody tried what
    /// was dropped.
    pub fn forget_dropped(&mut self) {
        let dropped: BTreeSet<&Edge> = self.violations.iter().map(|(edge, _)| edge).collect();
        self.seen.retain(|seen| {
            let mut edge = seen.edge.clone();
            if edge.peer != Peer::Any {
                edge.peer = Peer::Source(seen.source);
            }
            !dropped.contains(&edge)
        });
    }

    /// Tells what public addresses tried as tried by `internet`: who invents sources does not wash out
    /// what those who are near tried.
    pub fn join_public(&mut self, peers: &Peers) {
        let mut joined: BTreeMap<Edge, u64> = BTreeMap::new();
        for (mut edge, packets) in std::mem::take(&mut self.violations) {
            if let Peer::Source(source) = edge.peer
                && let public @ Peer::Group(name) = &peers.of(&source)
                && name == INTERNET
            {
                edge.peer = public.clone();
            }
            *joined.entry(edge).or_default() += packets;
        }
        self.violations = joined.into_iter().collect();
    }

    /// Counts who is on none of this host's links by what is tracked as one source, where IPv6 is at
    /// `v6_bits`: whoever has a prefix has each of its addresses, and is not somebody else with each.
    pub fn join_remote(&mut self, groups: &Groups, v6_bits: u8) {
        for seen in &mut self.seen {
            if seen.edge.direction != Direction::Cast && !groups.is_beside(&seen.source) {
                seen.source = Source::tracked(seen.source.ip(), v6_bits);
            }
        }
    }
}

/// Remembers the last reading and gives the difference to it.
#[derive(Debug)]
pub struct EdgeMeter {
    last: Vec<Option<EdgeRow>>,
    seen: BTreeMap<(Edge, Source), Evidence>,
    violations: BTreeMap<Edge, u64>,
}

impl EdgeMeter {
    /// `slots`: entries of the table, over all CPUs.
    pub fn new(slots: usize) -> Self {
        Self {
            last: vec![None; slots],
            seen: BTreeMap::new(),
            violations: BTreeMap::new(),
        }
    }

    /// Adds one row of a reading. `peers`: the groups to learn by, which need not be those that packets
    /// are judged by.
    pub fn row(&mut self, slot: usize, row: EdgeRow, peers: &Peers) {
        let Some(last) = self.last.get_mut(slot) else {
            return;
        };
        let base = last
            .replace(row)
            .filter(|last| last.is_same_edge(&row) && last.bytes <= row.bytes);
        let since = |now: u32, then: fn(&EdgeRow) -> u32| {
            u64::from(now.wrapping_sub(base.as_ref().map_or(0, then)))
        };
        let evidence = Evidence {
            connections: since(row.connections, |row| row.connections),
            packets: since(row.packets, |row| row.packets),
            bytes: row.bytes - base.map_or(0, |base| base.bytes),
            handshakes: since(row.handshakes, |row| row.handshakes),
        };
        let violations = since(row.violations, |row| row.violations);
        if evidence.packets == 0 && evidence.handshakes == 0 {
            return;
        }
        if violations > 0 {
            *self.violations.entry(row.own_edge()).or_default() += violations;
        }
        let edge = Edge {
            peer: row.source.map_or(Peer::Any, |source| peers.of(&source)),
            ..row.own_edge()
        };
        let source = row.source.unwrap_or(Source::containing([0; 16], 0));
        self.seen.entry((edge, source)).or_default().add(&evidence);
    }

    /// Everything since the last call.
    pub fn reading(&mut self) -> Reading {
        let seen = std::mem::take(&mut self.seen);
        Reading {
            seen: seen
                .into_iter()
                .map(|((edge, source), evidence)| Observation {
                    edge,
                    source,
                    evidence,
                })
                .collect(),
            violations: std::mem::take(&mut self.violations).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Groups;
    use super::*;

    fn row(source: &str, packets: u32) -> EdgeRow {
        EdgeRow {
            direction: Direction::In,
            source: Some(source.parse().unwrap()),
            service: Service::tcp(443),
            group: 0,
            bytes: u64::from(packets) * 60,
            packets,
            connections: 1,
            handshakes: 1,
            violations: 0,
        }
    }

    #[test]
    fn readings_are_differences_joined_over_cpus() {
        let (mut meter, peers) = (EdgeMeter::new(4), Groups::default().peers());
        meter.row(0, row("10.0.0.5", 10), &peers);
        meter.row(1, row("10.0.0.5", 5), &peers);
        let reading = meter.reading();
        assert_eq!(reading.seen.len(), 1);
        assert_eq!(
            (
                reading.seen[0].evidence.packets,
                reading.seen[0].evidence.connections
            ),
            (15, 2)
        );
        meter.row(0, row("10.0.0.5", 12), &peers);
        meter.row(1, row("10.0.0.5", 5), &peers);
        let evidence = meter.reading().seen[0].evidence;
        assert_eq!((evidence.packets, evidence.connections), (2, 0));
        meter.row(0, row("10.0.0.5", 12), &peers);
        assert_eq!(meter.reading(), Reading::default());
    }

    /// The data plane judges by the frozen graph's groups.
    #[test]
    fn edges_are_learned_by_other_groups_than_packets_are_judged_by() {
        let mut groups = Groups::default();
        groups.add("dns", "192.0.2.0/24".parse().unwrap()).unwrap();
        let mut meter = EdgeMeter::new(4);
        let judged = EdgeRow {
            group: 1,
            ..row("192.0.2.5", 3)
        };
        meter.row(0, judged, &groups.peers());
        assert_eq!(meter.reading().seen[0].edge.to_string(), "dns -> tcp/443");
    }

    #[test]
    fn a_slot_that_changed_hands_starts_anew() {
        let (mut meter, peers) = (EdgeMeter::new(4), Groups::default().peers());
        meter.row(0, row("10.0.0.5", 10), &peers);
        meter.reading();
        meter.row(0, row("10.0.0.6", 11), &peers);
        assert_eq!(meter.reading().seen[0].evidence.packets, 11);
    }

    #[test]
    fn what_was_dropped_teaches_nothing_and_others_of_the_group_do() {
        let (mut meter, peers) = (EdgeMeter::new(4), Groups::default().peers());
        for (slot, (source, violations)) in
            [("192.0.2.5", 2), ("192.0.2.6", 0)].into_iter().enumerate()
        {
            let row = EdgeRow {
                group: 1,
                violations,
                ..row(source, 3)
            };
            meter.row(slot, row, &peers);
        }
        let mut reading = meter.reading();
        reading.forget_dropped();
        let sources: Vec<_> = reading
            .seen
            .iter()
            .map(|seen| seen.source.to_string())
            .collect();
        assert_eq!(sources, ["192.0.2.6"]);
        assert_eq!(reading.violations.len(), 1);
    }

    #[test]
    fn a_grouped_source_counts_as_its_group_and_violates_as_itself() {
        let (mut meter, peers) = (EdgeMeter::new(4), Groups::default().peers());
        for (slot, source) in ["192.0.2.5", "192.0.2.6"].into_iter().enumerate() {
            let row = EdgeRow {
                group: 1,
                violations: 2,
                ..row(source, 3)
            };
            meter.row(slot, row, &peers);
        }
        let reading = meter.reading();
        assert_eq!(reading.seen[0].edge.to_string(), "internet -> tcp/443");
        assert_eq!(reading.seen[0].edge, reading.seen[1].edge);
        let violations: Vec<_> = reading
            .violations
            .iter()
            .map(|(edge, count)| (edge.to_string(), *count))
            .collect();
        assert_eq!(
            violations,
            [
                ("192.0.2.5 -> tcp/443".to_owned(), 2),
                ("192.0.2.6 -> tcp/443".to_owned(), 2)
            ]
        );
    }

    #[test]
    fn what_public_addresses_tried_is_one_violation_and_what_neighbours_tried_is_theirs() {
        let groups = Groups::new(vec!["198.51.100.0/24".parse().unwrap()]);
        let mut meter = EdgeMeter::new(4);
        for (slot, source) in ["192.0.2.1", "192.0.2.2", "198.51.100.9", "10.0.0.5"]
            .iter()
            .enumerate()
        {
            let row = EdgeRow {
                violations: 2,
                ..row(source, 2)
            };
            meter.row(slot, row, &groups.peers());
        }
        let mut reading = meter.reading();
        reading.join_public(&groups.peers());
        let told: Vec<String> = reading
            .violations
            .iter()
            .map(|(edge, packets)| format!("{} {packets}", edge.peer))
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        for line in ["internet 4", "198.51.100.9 2", "10.0.0.5 2"] {
            assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
        }
    }
}
