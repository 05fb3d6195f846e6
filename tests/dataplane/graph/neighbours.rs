//! IPv6 peers on one link: each stands for itself, in both directions and for forwarded traffic.

use std::net::IpAddr;

use kernloom::dataplane::{EdgeBy, Permits, Reason, What};
use kernloom::graph::{Direction, Edge, Mode, Peer};

use super::super::{Plane, ip};
use super::{permits, plane, rows, switch};
use crate::packet::Frame;

/// The host's address of `Frame`, a container's behind it, and peers beside either.
const HOST: &str = "2001:db8:ffff::1";
const CONTAINER: &str = "2001:db8:77::10";

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
fn beyond_its_networks_a_prefix_is_one_peer() {
    let plane = plane();
    enforce(&plane, &["2001:db8:1:2::/64", "2001:db8:1:3::7"], &[]);
    for peer in ["2001:db8:1:2::7", "2001:db8:1:2:ffff::1"] {
        assert_eq!(both_ways(&plane, peer, HOST), PASS, "{peer}");
    }
    // Nobody there is told apart, so that an edge of one matches nobody.
    assert_eq!(both_ways(&plane, "2001:db8:1:3::7", HOST), DROP);
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
        ("2001:db8:9::/64", 1),
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
    assert_eq!(told, ["fd55::66", "2001:db8:ffff::66", "2001:db8:9::/64"]);
    // Scoring and limits go by the prefix, as before.
    let sources = plane.shield.sources().unwrap();
    let mut tracked = Vec::new();
    sources.visit(|_, row| tracked.push(row.source.to_string()));
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
