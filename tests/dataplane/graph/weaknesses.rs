//! The weaknesses of default-deny by edge, each under its name.

use std::net::IpAddr;
use std::time::Duration;

use kernloom::dataplane::{Features, LoadOptions, Permits, Reason};
use kernloom::graph::{Direction, Edge, Mode, Peer, Service};
use kernloom::model::Source;

use super::super::{Plane, families, ip, limit};
use super::{own, permits, plane, rows, switch};
use crate::packet::{DOT1Q, Frame, L4};

/// Every kind of packet an attacker inside may try towards a host that knows it for tcp/443 only.
fn moves(source: IpAddr) -> Vec<Frame> {
    vec![
        Frame::syn(source, 22),
        Frame::syn(source, 0),
        Frame::ack(source, 22),
        Frame::ack(source, 0),
        Frame::udp(source, 40_000, 443),
        Frame::udp(source, 53, 40_000),
        Frame::new(source, L4::IcmpEcho),
        Frame::new(
            source,
            L4::Raw {
                proto: 132,
                payload: &[0x9c, 0x40, 0x0f, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0],
            },
        ),
        Frame::new(
            source,
            L4::Raw {
                proto: 47,
                payload: &[0; 8],
            },
        ),
        Frame::new(
            source,
            L4::Raw {
                proto: 4,
                payload: &[0x45; 20],
            },
        ),
        Frame::new(
            source,
            L4::Raw {
                proto: 253,
                payload: &[0; 20],
            },
        ),
        // A TCP header cut short of its flags, and one cut short of its ports.
        Frame::new(
            source,
            L4::Raw {
                proto: 6,
                payload: &[0x9c, 0x40, 0, 22, 0, 0, 0, 0],
            },
        )
        .unpadded(),
        Frame::new(
            source,
            L4::Raw {
                proto: 6,
                payload: &[0x9c, 0x40],
            },
        )
        .unpadded(),
        Frame::syn(source, 22).vlan(DOT1Q, 5),
    ]
}

#[test]
fn w1_default_deny_holds_for_both_families() {
    for source in families() {
        let plane = plane();
        switch(&plane, Mode::Enforce, &permits(&[]));
        for frame in moves(source) {
            let reason = plane.send(&frame.build());
            assert!(reason.drops(), "{source}: {reason}: {frame:?}");
        }
        assert!(plane.syn(source).drops());
    }
    // An IPv4 edge opens nothing to IPv6, nor the other way round.
    let [v4, v6] = families();
    for (known, other) in [(v4, v6), (v6, v4)] {
        let plane = plane();
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, known, "tcp/443")]),
        );
        assert_eq!(plane.syn(known), Reason::Pass);
        assert_eq!(plane.syn(other), Reason::EdgeUnknown);
    }
}

#[test]
fn w2_no_odd_packet_passes_beside_the_edges_of_its_source() {
    for source in families() {
        let plane = plane();
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, source, "tcp/443")]),
        );
        for frame in moves(source) {
            let reason = plane.send(&frame.build());
            assert!(reason.drops(), "{source}: {reason}: {frame:?}");
        }
        // Too many tags to look behind.
        let deep = Frame::syn(source, 443)
            .vlan(DOT1Q, 1)
            .vlan(DOT1Q, 2)
            .vlan(DOT1Q, 3)
            .vlan(DOT1Q, 4)
            .vlan(DOT1Q, 5);
        assert_eq!(plane.send(&deep.build()), Reason::EdgeUnread);
        assert_eq!(
            plane.send(&Frame::syn(source, 443).vlan(DOT1Q, 5).build()),
            Reason::Pass
        );
    }
    let source = ip("2001:db8:1:2::7");
    let plane = plane();
    switch(
        &plane,
        Mode::Enforce,
        &permits(&[own(&plane, source, "tcp/443")]),
    );
    let behind = |chain: &[u8], port| Frame::syn(source, port).extensions(chain).build();
    assert_eq!(plane.send(&behind(&[0, 60], 443)), Reason::Options);
    assert_eq!(plane.send(&behind(&[0, 60], 22)), Reason::EdgeUnknown);
    assert_eq!(plane.send(&behind(&[60; 9], 443)), Reason::EdgeUnread);
}

#[test]
fn w6_a_source_that_is_limited_is_still_held_to_its_edges() {
    use kernloom::model::LimitScope;
    for source in families() {
        let plane = plane();
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, source, "tcp/443")]),
        );
        let name = plane.tracked(source).to_string();
        plane.set(&name, limit(1_000, 1_000, LimitScope::All));
        for _ in 0..20 {
            assert_eq!(plane.syn(source), Reason::WithinLimit);
        }
        assert_eq!(
            plane.send(&Frame::syn(source, 22).build()),
            Reason::EdgeUnknown
        );
        plane.set(&name, kernloom::dataplane::Action::Allow);
        assert_eq!(
            plane.send(&Frame::syn(source, 22).build()),
            Reason::EdgeUnknown
        );
        assert_eq!(plane.syn(source), Reason::Allow);
    }
}

#[test]
fn w20_what_this_host_opened_is_answered_whatever_the_ports() {
    for remote in families() {
        let plane = plane();
        let mut out = own(&plane, remote, "tcp/443");
        out.direction = Direction::Out;
        let out = |service: &str| Edge {
            service: service.parse().unwrap(),
            ..out.clone()
        };
        let services = ["tcp/443", "udp/53", "udp/51820"];
        switch(&plane, Mode::Enforce, &permits(&services.map(out)));
        let leave = |frame: Frame| {
            plane
                .shield
                .companion()
                .unwrap()
                .unwrap()
                .drops(&frame.build())
                .unwrap()
        };
        // Nothing was asked yet: nothing is an answer.
        assert_eq!(
            plane.send(&Frame::udp(remote, 53, 40_000).build()),
            Reason::EdgeUnknown
        );
        assert!(!leave(Frame::udp(remote, 40_000, 53).leaving()));
        assert_eq!(
            plane.send(&Frame::udp(remote, 53, 40_000).build()),
            Reason::Pass
        );
        assert_eq!(
            plane.send(&Frame::udp(remote, 53, 40_001).build()),
            Reason::EdgeUnknown
        );
        assert_eq!(
            plane.send(&Frame::udp(remote, 54, 40_000).build()),
            Reason::EdgeUnknown
        );
        assert!(!leave(Frame::syn(remote, 443).leaving()));
        let answer = L4::Tcp {
            sport: 443,
            dport: 40_000,
            flags: 0x12,
        };
        assert_eq!(
            plane.send(&Frame::new(remote, answer).build()),
            Reason::Pass
        );
        assert!(!leave(Frame::udp(remote, 51_820, 51_820).leaving()));
        assert_eq!(
            plane.send(&Frame::udp(remote, 51_820, 51_820).build()),
            Reason::Pass
        );
        // And nothing else leaves.
        assert!(leave(Frame::syn(remote, 22).leaving()));
        assert!(leave(Frame::udp(remote, 40_000, 161).leaving()));
        assert!(leave(Frame::new(remote, L4::IcmpEcho).leaving()));
    }
}

#[test]
fn w20_an_answer_is_one_only_for_as_long_as_its_conversation_lasts() {
    let (remote, mut plane) = (ip("10.0.0.53"), plane());
    let mut edge = own(&plane, remote, "udp/53");
    edge.direction = Direction::Out;
    switch(&plane, Mode::Enforce, &permits(&[edge]));
    plane
        .shield
        .companion()
        .unwrap()
        .unwrap()
        .drops(&Frame::udp(remote, 40_000, 53).leaving().build())
        .unwrap();
    let answer = Frame::udp(remote, 53, 40_000).build();
    plane.pass_time(Duration::from_secs(170));
    assert_eq!(plane.send(&answer), Reason::Pass);
    plane.pass_time(Duration::from_secs(170));
    assert_eq!(plane.send(&answer), Reason::Pass);
    plane.pass_time(Duration::from_secs(190));
    assert_eq!(plane.send(&answer), Reason::EdgeUnknown);
}

#[test]
fn w20_services_at_high_ports_are_edges_like_any_other() {
    for source in families() {
        let plane = plane();
        switch(&plane, Mode::Learn, &permits(&[]));
        plane.send(&Frame::udp(source, 51_820, 51_820).build());
        plane.send(&Frame::syn(source, 50_051).build());
        let mut seen: Vec<String> = rows(&plane)
            .iter()
            .map(|row| row.service.to_string())
            .collect();
        seen.sort();
        assert_eq!(seen, ["tcp/50051", "udp/51820"]);
        let edges = ["tcp/50051", "udp/51820"].map(|service| own(&plane, source, service));
        switch(&plane, Mode::Enforce, &permits(&edges));
        assert_eq!(
            plane.send(&Frame::udp(source, 51_820, 51_820).build()),
            Reason::Pass
        );
        assert_eq!(
            plane.send(&Frame::syn(source, 50_051).build()),
            Reason::Pass
        );
        assert_eq!(
            plane.send(&Frame::syn(source, 50_052).build()),
            Reason::EdgeUnknown
        );
    }
}

#[test]
fn w20_later_fragments_pass_behind_a_first_that_did() {
    for source in families() {
        let mut plane = plane();
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, source, "udp/2049")]),
        );
        let part = |port, id, offset, more| {
            Frame::udp(source, 40_000, port)
                .fragment(id, offset, more)
                .build()
        };
        assert_eq!(plane.send(&part(2049, 7, 185, true)), Reason::EdgeFragment);
        assert_eq!(plane.send(&part(2049, 7, 0, true)), Reason::FragmentFirst);
        assert_eq!(plane.send(&part(2049, 7, 185, true)), Reason::FragmentLater);
        assert_eq!(
            plane.send(&part(2049, 7, 370, false)),
            Reason::FragmentLater
        );
        assert_eq!(plane.send(&part(2049, 8, 370, false)), Reason::EdgeFragment);
        assert_eq!(plane.send(&part(2050, 9, 0, true)), Reason::EdgeUnknown);
        assert_eq!(plane.send(&part(2050, 9, 185, false)), Reason::EdgeFragment);
        plane.pass_time(Duration::from_secs(61));
        assert_eq!(plane.send(&part(2049, 7, 370, false)), Reason::EdgeFragment);
    }
}

#[test]
fn w21_a_violation_costs_its_packet_and_the_source_nothing() {
    for source in families() {
        let plane = plane();
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, source, "tcp/443")]),
        );
        let events = plane.shield.events().unwrap().unwrap();
        for _ in 0..100 {
            assert!(
                plane
                    .send(&Frame::new(source, L4::IcmpEcho).build())
                    .drops()
            );
            assert_eq!(plane.syn(source), Reason::Pass);
        }
        assert!(plane.shield.entries().unwrap().is_empty());
        let row = *rows(&plane).iter().find(|row| row.violations > 0).unwrap();
        assert_eq!(
            (row.violations, row.source),
            (100, Some(Source::host(source)))
        );
        // 1, 2, 4 .. 64: told as they double.
        assert_eq!(events.drain().len(), 7);
    }
}

#[test]
fn w22_multicast_and_broadcast_are_edges_of_nobody_and_dhcp_always_passes() {
    let (plane, source) = (plane(), ip("10.0.0.77"));
    switch(&plane, Mode::Learn, &permits(&[]));
    let mdns = |source| Frame::udp(source, 5353, 5353).to(ip("224.0.0.251")).build();
    plane.send(&mdns(source));
    let row = rows(&plane)[0];
    assert_eq!((row.direction, row.source), (Direction::Cast, None));
    let any = Edge {
        direction: Direction::Cast,
        peer: Peer::Any,
        service: Service::udp(5353),
    };
    switch(&plane, Mode::Enforce, &permits(&[any]));
    // A device that is new in the network says hello, and may.
    assert_eq!(plane.send(&mdns(ip("10.0.0.200"))), Reason::Pass);
    assert!(plane.send(&Frame::udp(source, 5353, 5353).build()).drops());
    assert!(
        plane
            .send(
                &Frame::udp(source, 1900, 1900)
                    .to(ip("239.255.255.250"))
                    .build()
            )
            .drops()
    );
    for to in ["10.0.0.1", "255.255.255.255"] {
        assert_eq!(
            plane.send(&Frame::udp(source, 67, 68).to(ip(to)).build()),
            Reason::Pass,
            "{to}"
        );
    }
    // A broadcast address of this host's links counts as one, in a frame to everyone.
    let broadcast = ip("10.0.0.255");
    let any = Edge {
        direction: Direction::Cast,
        peer: Peer::Any,
        service: Service::udp(137),
    };
    let permits = Permits {
        broadcast: vec![Source::host(broadcast)],
        ..permits(&[any])
    };
    switch(&plane, Mode::Enforce, &permits);
    let hello = Frame::udp(source, 137, 137).to(broadcast);
    assert!(plane.send(&hello.build()).drops());
    assert_eq!(plane.send(&hello.broadcast().build()), Reason::Pass);
    // Unicast in a frame to everyone is unicast.
    assert!(
        plane
            .send(&Frame::udp(source, 137, 137).broadcast().build())
            .drops()
    );
}

#[test]
fn w22_dhcp_and_igmp_of_one_family_open_nothing_to_the_other() {
    let plane = plane();
    switch(&plane, Mode::Enforce, &permits(&[]));
    let [v4, routed, neighbour] = ["10.0.0.77", "2001:db8:1:2::7", "fe80::7"].map(ip);
    let send = |source, sport, dport| plane.send(&Frame::udp(source, sport, dport).build());
    assert_eq!(send(v4, 67, 68), Reason::Pass);
    assert_eq!(send(neighbour, 547, 546), Reason::Pass);
    for (source, sport, dport) in [
        (v4, 547, 546),
        (v4, 67, 546),
        (routed, 67, 68),
        (neighbour, 67, 68),
        // Whoever is beyond the next router is no server that answers.
        (routed, 547, 546),
        (ip("::"), 547, 546),
        (neighbour, 546, 547),
    ] {
        let reason = send(source, sport, dport);
        assert_eq!(reason, Reason::EdgeUnknown, "{source} {sport} {dport}");
    }
    let igmp = |source| {
        let payload = &[0x11, 0, 0, 0, 0, 0, 0, 0];
        plane.send(&Frame::new(source, L4::Raw { proto: 2, payload }).build())
    };
    assert_eq!(igmp(v4), Reason::Pass);
    assert_eq!(igmp(neighbour), Reason::EdgeUnknown);
    assert_eq!(igmp(routed), Reason::EdgeUnknown);
    // This host's question leaves, and lets nobody answer who may not.
    let leave = |remote, sport, dport| {
        let companion = plane.shield.companion().unwrap().unwrap();
        let frame = Frame::udp(remote, sport, dport).leaving().build();
        !companion.drops(&frame).unwrap()
    };
    assert!(leave(v4, 68, 67) && leave(ip("255.255.255.255"), 68, 67));
    assert!(leave(neighbour, 546, 547) && leave(ip("ff02::1:2"), 546, 547));
    assert!(!leave(routed, 546, 547) && !leave(routed, 68, 67) && !leave(v4, 546, 547));
    assert_eq!(send(routed, 547, 546), Reason::EdgeUnknown);
    assert_eq!(send(neighbour, 547, 546), Reason::Pass);
}

#[test]
fn w39_a_denied_edge_is_dropped_in_every_mode_and_until_it_is_not() {
    for source in families() {
        let plane = plane();
        let denied = Permits {
            denied: [own(&plane, source, "tcp/443")].into(),
            ..Permits::default()
        };
        for mode in [Mode::Learn, Mode::Observe, Mode::Enforce] {
            switch(&plane, mode, &permits(&[own(&plane, source, "tcp/443")]));
            assert_eq!(plane.syn(source), Reason::Pass, "{mode}");
            switch(&plane, mode, &denied);
            assert_eq!(plane.syn(source), Reason::EdgeDenied, "{mode}");
        }
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, source, "tcp/443")]),
        );
        assert_eq!(plane.syn(source), Reason::Pass);
    }
}

#[test]
fn w39_a_denied_edge_ends_what_came_in_and_is_under_way_in_learn_alone() {
    for source in families() {
        for (mode, ends) in [
            (Mode::Learn, true),
            (Mode::Observe, false),
            (Mode::Enforce, false),
        ] {
            let plane = plane();
            let edge = own(&plane, source, "udp/53");
            switch(&plane, Mode::Learn, &permits(&[]));
            let ask = |sport| plane.send(&Frame::udp(source, sport, 53).build());
            assert_eq!(ask(40_000), Reason::Pass);
            let companion = plane.shield.companion().unwrap().unwrap();
            let answer = Frame::udp(source, 53, 40_000).leaving().build();
            assert!(!companion.drops(&answer).unwrap());
            let denied = Permits {
                denied: [edge].into(),
                ..permits(&[])
            };
            switch(&plane, mode, &denied);
            let expected = if ends {
                Reason::EdgeDenied
            } else {
                Reason::Pass
            };
            assert_eq!(ask(40_000), expected, "{source} {mode}");
            assert_eq!(ask(40_001), Reason::EdgeDenied, "{source} {mode}");
        }
    }
}

#[test]
fn w57_a_flood_that_fills_the_table_hides_no_violation() {
    let (plane, known) = (plane(), ip("10.0.0.5"));
    switch(
        &plane,
        Mode::Enforce,
        &permits(&[own(&plane, known, "tcp/443")]),
    );
    for number in 0..5_000u32 {
        let source = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
        assert_eq!(plane.syn(source), Reason::EdgeUnknown);
    }
    assert_eq!(plane.syn(known), Reason::Pass);
    assert_eq!(plane.syn(ip("10.0.0.6")), Reason::EdgeUnknown);
    assert_eq!(
        plane.shield.counters().unwrap().of(Reason::EdgeUnknown),
        5_001
    );
}

#[test]
fn w37_a_thousand_edges_in_one_tick_are_all_seen() {
    let plane = Plane::with(LoadOptions {
        features: Features::Graph,
        ..LoadOptions::default()
    });
    switch(&plane, Mode::Learn, &permits(&[]));
    for number in 0..1_000u32 {
        let source = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        plane.send(&Frame::syn(source, 443).build());
    }
    assert_eq!(rows(&plane).len(), 1_000);
}
