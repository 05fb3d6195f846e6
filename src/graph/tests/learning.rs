use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{
    Baseline, Coverage, Direction, EdgeMeter, EdgeRow, Groups, Learner, Promotion, Readiness,
    Service, State,
};
use super::{START, edge, seen, source, tried};
use crate::model::{Source, Wall};

const TICK: Duration = Duration::from_secs(1);

fn learner() -> Learner {
    Learner::new(Promotion::default(), BTreeMap::new())
}

fn state(learner: &Learner, peer: &str, service: &str) -> Option<State> {
    let record = learner.records().get(&edge(peer, service));
    record.map(|record| record.state)
}

fn after(secs: u64) -> Wall {
    START + Duration::from_secs(secs)
}

#[test]
fn w36_a_burst_of_packets_is_not_a_habit() {
    let mut learner = learner();
    let visit = [seen("10.0.0.5", "tcp/443")];
    for second in 0..300 {
        learner.tick(after(second), TICK, &visit);
    }
    let record = &learner.records()[&edge("10.0.0.5", "tcp/443")];
    assert_eq!((record.ticks, record.windows, record.days), (300, 1, 1));
    // The age is long enough by now, the windows are not.
    learner.tick(after(605), TICK, &visit);
    assert_eq!(
        state(&learner, "10.0.0.5", "tcp/443"),
        Some(State::Candidate)
    );
    learner.tick(after(1_205), TICK, &visit);
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
}

#[test]
fn what_was_removed_by_hand_is_not_learned_again() {
    let mut learner = learner();
    let visit = [seen("10.0.0.5", "tcp/443")];
    learner.tick(START, TICK, &visit);
    learner.decide(&visit[0].edge, State::Removed, START);
    for window in 1..20 {
        learner.tick(after(window * 600), TICK, &visit);
    }
    learner.expire(after(90 * 86_400));
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Removed));
    let coverage = Coverage {
        days: 90,
        ..Coverage::default()
    };
    let readiness = Readiness::of(learner.records(), &coverage, 0);
    assert_eq!((readiness.accepted, readiness.edge_days), (0, 0));
}

#[test]
fn w36_a_service_nobody_answers_is_not_learned() {
    let mut learner = learner();
    for window in 0..20 {
        learner.tick(after(window * 600), TICK, &[tried("10.0.0.5", "tcp/443")]);
    }
    assert_eq!(
        state(&learner, "10.0.0.5", "tcp/443"),
        Some(State::Candidate)
    );
    learner.tick(after(12_000), TICK, &[seen("10.0.0.5", "tcp/443")]);
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
}

#[test]
fn w36_a_scanner_teaches_nothing_and_what_it_taught_is_forgotten() {
    let mut learner = learner();
    let ports = |range: std::ops::Range<u16>| -> Vec<_> {
        range
            .map(|port| tried("10.0.0.66", &format!("udp/{port}")))
            .collect()
    };
    for window in 0..5 {
        learner.tick(after(window * 600), TICK, &[seen("10.0.0.5", "tcp/443")]);
        learner.tick(after(window * 600 + 1), TICK, &ports(1..4));
    }
    assert_eq!(state(&learner, "10.0.0.66", "udp/2"), Some(State::Learned));
    learner.tick(after(3_000), TICK, &ports(100..109));
    assert_eq!(state(&learner, "10.0.0.66", "udp/104"), None, "in doubt");
    learner.tick(after(3_001), TICK, &[]);
    assert_eq!(learner.scanners().count(), 1);
    assert_eq!(state(&learner, "10.0.0.66", "udp/104"), None);
    learner.tick(after(3_100), TICK, &[tried("10.0.0.66", "udp/4444")]);
    assert_eq!(state(&learner, "10.0.0.66", "udp/4444"), None);
    // Nobody else's edges suffer.
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
    learner.tick(
        after(3_100 + 86_401),
        TICK,
        &[tried("10.0.0.66", "udp/4444")],
    );
    assert_eq!(
        state(&learner, "10.0.0.66", "udp/4444"),
        Some(State::Candidate)
    );
}

#[test]
fn invented_scanners_fill_no_memory_and_the_first_found_go() {
    let mut learner = Learner::new(
        Promotion {
            fan_out: 1,
            ..Promotion::default()
        },
        BTreeMap::new(),
    );
    let first = "10.0.0.66";
    let scan = |peer: &str| ["udp/1", "udp/2"].map(|service| tried(peer, service));
    learner.tick(after(0), TICK, &scan(first));
    learner.tick(after(1), TICK, &[]);
    assert_eq!(learner.scanners().count(), 1);
    for window in 1..6 {
        let invented: Vec<_> = (0..16_384)
            .flat_map(|host| scan(&format!("172.{window}.{}.{}", host >> 8 & 255, host & 255)))
            .collect();
        learner.tick(after(window * 600), TICK, &invented);
        learner.tick(after(window * 600 + 1), TICK, &[]);
        assert!(learner.scanners().count() <= 65_536);
    }
    assert_eq!(learner.scanners().count(), 65_536);
    assert!(learner.scanners().all(|one| one.to_string() != first));
}

/// A look at twelve services may have its SYNs in one tick and the rest in the next, or later.
#[test]
fn what_is_completed_a_tick_later_was_not_in_vain() {
    let mut learner = learner();
    let ports = |of: fn(&str, &str) -> super::super::Observation| -> Vec<_> {
        (1..=12)
            .map(|port| of("10.0.0.5", &format!("tcp/{port}")))
            .collect()
    };
    for look in 0..40 {
        learner.tick(after(look * 60), TICK, &ports(tried));
        learner.tick(after(look * 60 + 1), TICK, &ports(seen));
        assert_eq!(learner.scanners().count(), 0, "{look}");
    }
    assert_eq!(state(&learner, "10.0.0.5", "tcp/7"), Some(State::Learned));
    // One at a time, each completed late: as many as ever stay in doubt, and no more.
    for port in 100..140u64 {
        let service = format!("tcp/{port}");
        let begun = 5_000 + port * 3;
        learner.tick(after(begun), TICK, &[tried("10.0.0.6", &service)]);
        learner.tick(after(begun + 1), TICK, &[]);
        learner.tick(after(begun + 2), TICK, &[seen("10.0.0.6", &service)]);
    }
    assert_eq!(learner.scanners().count(), 0);
}

/// Whoever borrows an address can have this host answer it over UDP.
#[test]
fn an_answer_over_udp_is_not_in_vain_and_keeps_nothing_from_a_scan() {
    let mut learner = learner();
    let answered: Vec<_> = (1..=12)
        .map(|port| seen("10.0.0.5", &format!("udp/{port}")))
        .collect();
    learner.tick(after(0), TICK, &answered);
    learner.tick(after(1), TICK, &[]);
    assert_eq!(learner.scanners().count(), 0);
    assert_eq!(learner.records().len(), 12);
    let scan: Vec<_> = (100..=115)
        .map(|port| tried("10.0.0.5", &format!("udp/{port}")))
        .collect();
    learner.tick(after(2), TICK, &scan);
    learner.tick(after(3), TICK, &[]);
    assert_eq!(learner.scanners().count(), 1);
    assert!(learner.records().is_empty());
}

#[test]
fn a_client_of_many_services_is_no_scanner() {
    let mut learner = learner();
    let services: Vec<_> = (1..40)
        .map(|port| seen("10.0.0.9", &format!("tcp/{port}")))
        .collect();
    learner.tick(after(0), TICK, &services);
    assert_eq!(learner.records().len(), 39);
}

#[test]
fn what_was_decided_neither_expires_nor_changes_by_evidence() {
    let mut learner = learner();
    for state in [State::Approved, State::Frozen, State::Denied] {
        learner.decide(&edge("10.0.0.5", "tcp/443"), state, after(0));
        for window in 0..4 {
            learner.tick(after(window * 600), TICK, &[seen("10.0.0.5", "tcp/443")]);
        }
        learner.expire(after(100_000_000));
        assert_eq!(
            super::learning::state(&learner, "10.0.0.5", "tcp/443"),
            Some(state)
        );
    }
}

#[test]
fn an_edge_unseen_for_long_starts_over_and_is_then_forgotten() {
    let mut learner = learner();
    let day = 86_400;
    for window in 0..5 {
        learner.tick(after(window * 600), TICK, &[seen("10.0.0.5", "tcp/443")]);
    }
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
    learner.expire(after(29 * day));
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
    learner.expire(after(31 * day));
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Expired));
    learner.tick(after(31 * day + 1), TICK, &[seen("10.0.0.5", "tcp/443")]);
    let record = &learner.records()[&edge("10.0.0.5", "tcp/443")];
    assert_eq!((record.state, record.ticks), (State::Candidate, 1));
    learner.expire(after(92 * day));
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), None);
}

#[test]
fn w57_a_full_table_gives_up_candidates_and_never_what_was_earned() {
    let promotion = Promotion {
        max_edges: 4,
        ..Promotion::default()
    };
    let mut learner = Learner::new(promotion, BTreeMap::new());
    for window in 0..5 {
        learner.tick(after(window * 600), TICK, &[seen("10.0.0.5", "tcp/443")]);
    }
    for peer in 0..50u64 {
        let address = format!("10.1.0.{peer}");
        learner.tick(after(2_500 + peer), TICK, &[tried(&address, "tcp/443")]);
    }
    assert_eq!(learner.records().len(), 4);
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
    assert_eq!(
        state(&learner, "10.1.0.49", "tcp/443"),
        Some(State::Candidate)
    );
    for port in 1..4 {
        learner.decide(
            &edge("10.0.0.5", &format!("udp/{port}")),
            State::Approved,
            after(3_000),
        );
        learner.remove(&edge(&format!("10.1.0.{}", 50 - port), "tcp/443"));
    }
    learner.tick(after(3_001), TICK, &[seen("10.2.0.1", "tcp/443")]);
    assert_eq!(learner.turned_away(), 1);
}

#[test]
fn w57_a_decision_is_not_undone_by_what_is_seen_after_it() {
    let mut learner = learner();
    learner.tick(after(0), TICK, &[seen("10.0.0.5", "tcp/443")]);
    learner.take_dirty();
    learner.decide(&edge("10.0.0.5", "tcp/443"), State::Denied, after(1));
    learner.tick(after(2), TICK, &[seen("10.0.0.5", "tcp/443")]);
    let dirty = learner.take_dirty();
    let record = dirty[0].1.as_ref().unwrap();
    assert_eq!((record.state, record.ticks), (State::Denied, 2));
    assert!(learner.take_dirty().is_empty());
}

#[test]
fn w57_a_scanner_is_known_by_its_address_and_its_peers_in_the_group_are_not_it() {
    let mut learner = learner();
    let group = |mut seen: super::super::Observation| {
        seen.edge.peer = super::super::Peer::Group("internet".to_owned());
        seen
    };
    let scan: Vec<_> = (1..20)
        .map(|port| group(tried("192.0.2.66", &format!("tcp/{port}"))))
        .collect();
    for window in 0..5 {
        learner.tick(
            after(window * 600),
            TICK,
            &[group(seen("192.0.2.5", "tcp/443"))],
        );
        learner.tick(after(window * 600), TICK, &scan);
    }
    assert_eq!(
        learner.scanners().collect::<Vec<_>>(),
        [&source("192.0.2.66")]
    );
    assert_eq!(state(&learner, "internet", "tcp/443"), Some(State::Learned));
    assert_eq!(learner.records().len(), 1);
}

/// Who has a prefix elsewhere has each of its addresses; a neighbour on the link is himself.
#[test]
fn w57_a_scanner_elsewhere_is_known_by_its_prefix_whichever_address_it_takes() {
    let scanners = |peer: fn(u16) -> String| {
        let groups = Groups::new(vec![source("2001:db8:77::/64"), source("10.0.0.0/24")]);
        let (mut learner, mut meter) = (learner(), EdgeMeter::new(20));
        for port in 1..=20 {
            let row = EdgeRow {
                direction: Direction::In,
                source: Some(source(&peer(port))),
                service: Service::udp(port),
                group: 0,
                bytes: 60,
                packets: 1,
                connections: 1,
                handshakes: 0,
                violations: 0,
            };
            meter.row(usize::from(port) - 1, row, &groups.peers());
        }
        let mut reading = meter.reading();
        reading.join_remote(&groups, 64);
        learner.tick(after(0), TICK, &reading.seen);
        learner.tick(after(1), TICK, &[]);
        let found: Vec<String> = learner.scanners().map(Source::to_string).collect();
        (found, learner.records().len())
    };
    for peer in [
        (|port| format!("fd55::{port:x}")) as fn(u16) -> String,
        |port| format!("fd55::{port:x}:1"),
    ] {
        assert_eq!(scanners(peer), (vec!["fd55::/64".to_owned()], 0));
    }
    assert_eq!(
        scanners(|_| "2001:db8:77::66".to_owned()).0,
        ["2001:db8:77::66"]
    );
    for peer in [
        (|port| format!("2001:db8:77::{port:x}")) as fn(u16) -> String,
        |port| format!("10.0.0.{port}"),
        |port| format!("10.9.0.{port}"),
    ] {
        assert_eq!(scanners(peer), (Vec::new(), 20));
    }
}

/// One who takes ever new addresses fills what room there is, and takes nobody's who earned it.
#[test]
fn w57_a_neighbour_that_rotates_its_address_costs_nobody_a_learned_edge() {
    let promotion = Promotion {
        max_edges: 64,
        ..Promotion::default()
    };
    let mut learner = Learner::new(promotion, BTreeMap::new());
    for window in 0..5 {
        learner.tick(after(window * 600), TICK, &[seen("fd55::5", "tcp/443")]);
    }
    for address in 0..1_000u64 {
        let peer = format!("fd55::1:{address:x}");
        learner.tick(after(2_500 + address), TICK, &[tried(&peer, "udp/53")]);
        assert!(learner.records().len() <= 64);
    }
    assert_eq!(learner.turned_away(), 0);
    assert_eq!(state(&learner, "fd55::5", "tcp/443"), Some(State::Learned));
}

#[test]
fn w28_a_steady_edge_may_change_a_little_and_fall_silent() {
    let mut baseline = Baseline::default();
    for _ in 0..10_000 {
        baseline.update(2.0);
    }
    assert!(baseline.deviation_pps < 0.001);
    for pps in [0.0, 0.5, 1.0, 3.0, 6.9] {
        assert_eq!(baseline.surge(pps), None, "{pps}");
    }
    assert!(baseline.surge(8.0).is_some());
}

#[test]
fn w28_a_surge_is_told_and_the_edge_stays_what_it_is() {
    let mut learner = learner();
    let mut visit = [seen("10.0.0.5", "tcp/443")];
    for window in 0..40 {
        assert!(learner.tick(after(window * 600), TICK, &visit).is_empty());
    }
    visit[0].evidence.packets = 10_000;
    let surges = learner.tick(after(40 * 600), TICK, &visit);
    assert_eq!(surges.len(), 1);
    assert_eq!(surges[0].edge, edge("10.0.0.5", "tcp/443"));
    assert_eq!(state(&learner, "10.0.0.5", "tcp/443"), Some(State::Learned));
}

/// The same observation, the other way round.
fn outwards(mut seen: super::super::Observation) -> super::super::Observation {
    seen.edge.direction = Direction::Out;
    seen
}

/// What a peer of three weeks is known by does not hang on who sends SYNs in its name.
#[test]
fn a_forged_scan_takes_no_edge_that_the_peer_or_this_host_made() {
    let mut learner = learner();
    let peer = "10.0.0.5";
    let honest = [
        seen(peer, "tcp/443"),
        outwards(seen(peer, "tcp/5432")),
        outwards(tried(peer, "udp/123")),
    ];
    learner.tick(START, TICK, &honest);
    let scan: Vec<_> = (1..=15)
        .map(|port| tried(peer, &format!("tcp/{port}")))
        .collect();
    learner.tick(after(1), TICK, &scan);
    learner.tick(after(2), TICK, &[]);
    assert_eq!(learner.new_scanners(), [source(peer)]);
    let readiness = Readiness::of(
        learner.records(),
        &Coverage::default(),
        learner.scanners().count(),
    );
    assert_eq!(readiness.scanners, 1);
    let held: Vec<_> = learner.records().keys().cloned().collect();
    let mut made: Vec<_> = honest.iter().map(|seen| seen.edge.clone()).collect();
    made.sort();
    assert_eq!(held, made);
    // They are learned on, and what this host opens to it is new or not; a new way in is not.
    let later = [
        honest.to_vec(),
        vec![outwards(seen(peer, "tcp/25")), seen(peer, "tcp/22")],
    ]
    .concat();
    for window in 1..6 {
        learner.tick(after(window * 600), TICK, &later);
        assert_eq!(learner.new_scanners(), []);
    }
    let states: Vec<_> = later
        .iter()
        .map(|seen| learner.records().get(&seen.edge).map(|record| record.state))
        .collect();
    let learned = Some(State::Learned);
    assert_eq!(states, [learned, learned, learned, learned, None]);
}

#[test]
fn a_scan_that_nobody_answers_before_or_after_teaches_nothing_as_ever() {
    let mut learner = learner();
    let peer = "10.0.0.66";
    learner.tick(START, TICK, &[tried(peer, "tcp/443")]);
    let scan: Vec<_> = (1..=15)
        .map(|port| tried(peer, &format!("tcp/{port}")))
        .collect();
    learner.tick(after(1), TICK, &scan);
    learner.tick(after(2), TICK, &[seen(peer, "tcp/443")]);
    assert!(learner.records().is_empty());
}
