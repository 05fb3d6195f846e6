//! IPv6 peers: each stands for itself, whichever address of this host's it talks to, in both directions
//! and for forwarded traffic.

use std::net::IpAddr;

use kernloom::dataplane::{EdgeBy, Permits, Reason, What};
use kernloom::graph::{Direction, Edge, Mode, Peer};

use super::super::{Plane, ip};
use super::{one_set, permits, plane, rows, switch};
use crate::packet::Frame;

/// The host's address of `Frame`, a container's behind it, and peers beside either.
const HOST: &str = "2001:db8:ffff::1";
const CONTAINER: &str = "2001:db8:77::10";
const UNIQUE_LOCAL: &str = "fd55::1";

fn edge(direction: Direction, peer: &str) -> Edge {
    Edge {
        direction,
        peer: Peer::parse(peer, |_| false).unwrap(),
        service: "tcp/22".parse().unwrap(),
    }
}

fn enforce(plane: &Plane, allowed: &[&str], denied: &[&str]) {
    let both = |peers: &[&str]| -> Vec<Edge> {
        let of = |direction| peers.iter().map(move |peer| edge(direction, peer));
        of(Direction::In).chain(of(Direction::Out)).collect()
    };
    let permits = Permits {
        denied: both(denied).into_iter().collect(),
        ..permits(&both(allowed))
    };
    switch(plane, Mode::Enforce, &permits);
}

/// What becomes of a connection that `peer` opens to `local`, and of one that `local` opens to it.
fn both_ways(plane: &Plane, peer: &str, local: &str) -> (bool, bool) {
    let frame = |port| Frame::syn(ip(peer), port).to(ip(local));
    let inbound = plane.send(&frame(22).build()).drops();
    let companion = plane.shield.companion().unwrap().unwrap();
    let outbound = companion.drops(&frame(22).leaving().build()).unwrap();
    (!inbound, !outbound)
}

const PASS: (bool, bool) = (true, true);
const DROP: (bool, bool) = (false, false);

#[test]
fn a_neighbour_is_no_better_for_sharing_the_link_of_one_that_may() {
    let plane = plane();
    enforce(
        &plane,
        &["fd55::2", "2001:db8:ffff::2", "2001:db8:77::2", "fe80::2"],
        &[],
    );
    for round in 0..2 {
        for (peer, local, expected) in [
            ("fd55::2", HOST, PASS),
            ("fd55::66", HOST, DROP),
            ("fd55::2", CONTAINER, PASS),
            ("fd55::66", CONTAINER, DROP),
            ("2001:db8:ffff::2", HOST, PASS),
            ("2001:db8:ffff::66", HOST, DROP),
            ("2001:db8:ffff::", HOST, DROP),
            ("2001:db8:77::2", CONTAINER, PASS),
            ("2001:db8:77::66", CONTAINER, DROP),
            // Each by the host's other prefixes, too.
            ("2001:db8:ffff::2", CONTAINER, PASS),
            ("2001:db8:ffff::66", CONTAINER, DROP),
            ("2001:db8:ffff::2", UNIQUE_LOCAL, PASS),
            ("2001:db8:ffff::66", UNIQUE_LOCAL, DROP),
            ("fe80::2", "fe80::1", PASS),
            ("fe80::66", "fe80::1", DROP),
        ] {
            let told = both_ways(&plane, peer, local);
            assert_eq!(told, expected, "{peer} {local} {round}");
        }
    }
}

#[test]
fn a_frozen_prefix_still_means_everyone_in_it_and_the_most_specific_edge_wins() {
    let plane = plane();
    enforce(&plane, &["fd55::/64", "2001:db8:ffff::/64"], &["fd55::66"]);
    for (peer, expected) in [
        ("fd55::2", PASS),
        ("fd55::66", DROP),
        ("fd55:0:0:1::2", DROP),
        ("2001:db8:ffff::2", PASS),
    ] {
        assert_eq!(both_ways(&plane, peer, HOST), expected, "{peer}");
    }
    enforce(&plane, &["fd55::2"], &["fd55::/64"]);
    assert_eq!(both_ways(&plane, "fd55::2", HOST), PASS);
    assert_eq!(plane.send(&to_host("fd55::3")), Reason::EdgeDenied);
    // The first address of a prefix is one address.
    enforce(&plane, &["fd55::"], &[]);
    assert_eq!(both_ways(&plane, "fd55::", HOST), PASS);
    assert_eq!(both_ways(&plane, "fd55::2", HOST), DROP);
}

fn to_host(peer: &str) -> Vec<u8> {
    Frame::syn(ip(peer), 22).build()
}

#[test]
fn elsewhere_too_an_address_is_a_peer_and_its_prefix_everyone_in_it() {
    let plane = plane();
    enforce(
        &plane,
        &["2001:db8:1:2::/64", "2001:db8:1:3::7", "2001:db8:1:4::7"],
        &["2001:db8:1:2::66", "2001:db8:1:4::/64"],
    );
    for (peer, expected) in [
        ("2001:db8:1:2::7", PASS),
        ("2001:db8:1:2:ffff::1", PASS),
        ("2001:db8:1:2::66", DROP),
        ("2001:db8:1:3::7", PASS),
        ("2001:db8:1:3::8", DROP),
        ("2001:db8:1:3::", DROP),
        ("2001:db8:1:4::7", PASS),
        ("2001:db8:1:4::8", DROP),
    ] {
        assert_eq!(both_ways(&plane, peer, HOST), expected, "{peer}");
    }
}

/// No IPv6 packet comes from IPv4, and what claims to passes for nobody.
#[test]
fn a_mapped_source_does_not_pass_for_the_address_that_is_mapped() {
    let plane = plane();
    enforce(&plane, &["10.0.0.5"], &[]);
    for _ in 0..2 {
        assert_eq!(plane.send(&to_host("10.0.0.5")), Reason::Pass);
        assert_eq!(plane.send(&to_host("::ffff:10.0.0.5")), Reason::EdgeUnknown);
    }
    let peers: Vec<String> = rows(&plane)
        .into_iter()
        .map(|row| row.source.unwrap().to_string())
        .collect();
    assert!(peers.contains(&"::/64".to_owned()), "{peers:?}");
}

/// However many addresses a prefix has: as of IPv4, who sends one packet each evicts his own kind.
#[test]
fn a_peer_that_rotates_its_address_evicts_no_edge_in_use() {
    for (known, rotating) in [
        (
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
            (|n| IpAddr::from([10, 0, n, 1])) as fn(u8) -> IpAddr,
        ),
        (["fd55::1", "2001:db8:1:2::2", "fe80::3"], |n| {
            IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, u16::from(n), 1])
        }),
    ] {
        let plane = one_set();
        enforce(&plane, &known, &[]);
        for source in known {
            assert_eq!(plane.send(&to_host(source)), Reason::Pass);
            assert_eq!(plane.send(&to_host(source)), Reason::Pass);
        }
        for n in 0..200 {
            plane.send(&Frame::syn(rotating(n), 22).build());
        }
        let rows = rows(&plane);
        for source in known {
            let row = rows.iter().find(|row| row.source == source.parse().ok());
            assert_eq!(row.map(|row| row.packets), Some(2), "{source}");
        }
        assert_eq!(rows.len(), 4);
    }
}

#[test]
fn neighbours_are_counted_and_reported_one_by_one() {
    let plane = plane();
    let events = plane.shield.events().unwrap().unwrap();
    enforce(&plane, &["fd55::2"], &[]);
    for peer in ["fd55::2", "fd55::66", "2001:db8:ffff::66", "2001:db8:9::66"] {
        plane.send(&to_host(peer));
    }
    let mut seen: Vec<(String, u32)> = rows(&plane)
        .into_iter()
        .map(|row| (row.source.unwrap().to_string(), row.violations))
        .collect();
    seen.sort();
    let expected = [
        ("2001:db8:9::66", 1),
        ("2001:db8:ffff::66", 1),
        ("fd55::2", 0),
        ("fd55::66", 1),
    ];
    assert_eq!(seen, expected.map(|(peer, count)| (peer.to_owned(), count)));
    let told: Vec<String> = events
        .drain()
        .into_iter()
        .filter(|event| matches!(event.what, What::Violation(Direction::In, _)))
        .map(|event| event.source.to_string())
        .collect();
    assert_eq!(told, ["fd55::66", "2001:db8:ffff::66", "2001:db8:9::66"]);
    // Scoring and limits go by the prefix, as before.
    let sources = plane.shield.sources().unwrap();
    let tracked = sources.rows().map(|row| row.source.to_string());
    let mut tracked: Vec<_> = tracked.collect();
    tracked.sort();
    assert_eq!(
        tracked,
        ["2001:db8:9::/64", "2001:db8:ffff::/64", "fd55::/64"]
    );
}

#[test]
fn a_probe_is_told_whether_an_address_or_its_prefix_decided() {
    let plane = plane();
    enforce(&plane, &["fd55::2", "fd66::/64"], &[]);
    let ask = |peer: &str| {
        let source: IpAddr = ip(peer);
        let answer = plane
            .shield
            .probe(&Frame::syn(source, 22).build(), &plane.lock);
        answer.unwrap().edge
    };
    assert_eq!(ask("fd55::2"), EdgeBy::Source);
    assert_eq!(ask("fd66::2"), EdgeBy::Prefix);
    assert_eq!(ask("fd55::66"), EdgeBy::Nothing);
}
