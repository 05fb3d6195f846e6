//! The edge stage, packet by packet, both families.

mod exempt;
mod neighbours;
mod weaknesses;

use std::net::IpAddr;
use std::time::Duration;

use kernloom::dataplane::{Features, GraphPlane, GraphSizes, LoadOptions, Permits, Reason};
use kernloom::graph::{Direction, Edge, EdgeRow, Groups, Mode, Peer, Service};

use super::{Plane, families, ip};
use crate::packet::{Frame, L4};

fn plane() -> Plane {
    sized(1_024)
}

/// Its edge table has one set on each CPU.
fn one_set() -> Plane {
    sized(4 * u32::try_from(libbpf_rs::num_possible_cpus().unwrap()).unwrap())
}

fn sized(edges: u32) -> Plane {
    Plane::with(LoadOptions {
        features: Features::Graph,
        graph: GraphSizes {
            edges,
            flows: 1_024,
        },
        ..LoadOptions::default()
    })
}

fn graph(plane: &Plane) -> GraphPlane<'_> {
    plane.shield.graph().unwrap()
}

fn own(plane: &Plane, source: IpAddr, service: &str) -> Edge {
    Edge {
        direction: Direction::In,
        peer: Peer::Source(plane.tracked(source)),
        service: service.parse().unwrap(),
    }
}

fn permits(allowed: &[Edge]) -> Permits {
    Permits {
        allowed: allowed.iter().cloned().collect(),
        ..Permits::default()
    }
}

fn switch(plane: &Plane, mode: Mode, permits: &Permits) {
    graph(plane).switch(mode, permits, None, plane.now).unwrap();
}

fn rows(plane: &Plane) -> Vec<EdgeRow> {
    let mut rows = Vec::new();
    graph(plane).edges().unwrap().visit(|_, row| rows.push(row));
    rows
}

#[test]
fn a_known_edge_passes_and_any_other_is_dropped() {
    for source in families() {
        let plane = plane();
        switch(
            &plane,
            Mode::Enforce,
            &permits(&[own(&plane, source, "tcp/443")]),
        );
        assert_eq!(plane.syn(source), Reason::Pass);
        assert_eq!(plane.send(&Frame::ack(source, 443).build()), Reason::Pass);
        assert_eq!(
            plane.send(&Frame::syn(source, 22).build()),
            Reason::EdgeUnknown
        );
        assert_eq!(
            plane.send(&Frame::udp(source, 40_000, 443).build()),
            Reason::EdgeUnknown
        );
    }
}

#[test]
fn what_no_default_deny_may_drop_passes() {
    for source in families() {
        let plane = plane();
        switch(&plane, Mode::Enforce, &permits(&[]));
        let icmp = |kind: u8| {
            let payload: &'static [u8] = Box::leak(Box::new([kind, 0, 0, 0, 0, 0, 0, 0]));
            let proto = if source.is_ipv4() { 1 } else { 58 };
            Frame::new(source, L4::Raw { proto, payload })
        };
        let errors: &[u8] = if source.is_ipv4() {
            &[3, 11, 12]
        } else {
            &[1, 2, 3, 4]
        };
        for kind in errors {
            assert_eq!(plane.send(&icmp(*kind).build()), Reason::Pass, "{kind}");
        }
        if source.is_ipv6() {
            for kind in 133..=136 {
                assert_eq!(
                    plane.send(&icmp(kind).ttl(255).build()),
                    Reason::Pass,
                    "{kind}"
                );
                assert!(plane.send(&icmp(kind).ttl(64).build()).drops(), "{kind}");
            }
            // Listener reports come from a link-local address (RFC 3590).
            for kind in [130, 131, 132, 143] {
                let report: &'static [u8] = Box::leak(Box::new([kind, 0, 0, 0, 0, 0, 0, 0]));
                let l4 = L4::Raw {
                    proto: 58,
                    payload: report,
                };
                let local = Frame::new(ip("fe80::7"), l4).ttl(1);
                assert_eq!(plane.send(&local.build()), Reason::Pass, "{kind}");
                assert!(plane.send(&icmp(kind).ttl(1).build()).drops(), "{kind}");
            }
        }
    }
}

#[test]
fn a_lease_that_nobody_confirms_ends_in_the_kernel() {
    let (mut plane, source) = (plane(), ip("10.0.0.5"));
    switch(&plane, Mode::Learn, &permits(&[]));
    let lease = |plane: &Plane| {
        let end = plane.now + Duration::from_secs(300);
        graph(plane)
            .switch(Mode::Enforce, &permits(&[]), Some(end), plane.now)
            .unwrap();
    };
    lease(&plane);
    assert!(plane.syn(source).drops());
    plane.pass_time(Duration::from_secs(299));
    assert!(plane.syn(source).drops());
    assert_eq!(
        graph(&plane).status(plane.now).lease.unwrap().1,
        Mode::Learn
    );
    plane.pass_time(Duration::from_secs(1));
    assert_eq!(plane.syn(source), Reason::Pass);
    assert_eq!(graph(&plane).status(plane.now).mode, Mode::Learn);
    assert!(!graph(&plane).confirm(plane.now));
    lease(&plane);
    // A lease given while one is pending falls back to what was confirmed, not to the other lease.
    lease(&plane);
    assert!(plane.syn(source).drops());
    assert!(graph(&plane).confirm(plane.now));
    plane.pass_time(Duration::from_secs(100_000));
    assert!(plane.syn(source).drops());
}

#[test]
fn a_new_graph_counts_at_once_and_whole() {
    for source in families() {
        let plane = plane();
        let edges: Vec<Edge> = (1..=500)
            .map(|port| own(&plane, source, &format!("tcp/{port}")))
            .collect();
        switch(&plane, Mode::Enforce, &permits(&edges));
        for port in [1, 250, 500] {
            assert_eq!(plane.send(&Frame::syn(source, port).build()), Reason::Pass);
        }
        switch(&plane, Mode::Enforce, &permits(&edges[1..2]));
        for port in [1, 250, 500] {
            assert!(
                plane.send(&Frame::syn(source, port).build()).drops(),
                "{port}"
            );
        }
        assert_eq!(plane.send(&Frame::syn(source, 2).build()), Reason::Pass);
    }
}

#[test]
fn observing_counts_what_enforcing_would_drop() {
    for source in families() {
        let plane = plane();
        switch(
            &plane,
            Mode::Observe,
            &permits(&[own(&plane, source, "tcp/443")]),
        );
        assert_eq!(plane.syn(source), Reason::Pass);
        assert_eq!(
            plane.send(&Frame::syn(source, 22).build()),
            Reason::EdgeObserved
        );
        let violations: u32 = rows(&plane).iter().map(|row| row.violations).sum();
        assert_eq!(violations, 1);
    }
}

#[test]
fn a_group_is_one_edge_and_a_member_may_have_its_own() {
    let plane = plane();
    let mut groups = Groups::default();
    groups
        .add("office", "198.51.100.0/24".parse().unwrap())
        .unwrap();
    groups
        .add("office", "2001:db8:77::/48".parse().unwrap())
        .unwrap();
    let edge = |peer: &str, service: &str| Edge {
        direction: Direction::In,
        peer: Peer::parse(peer, |name| groups.contains(name)).unwrap(),
        service: service.parse().unwrap(),
    };
    let edges = [
        edge("office", "tcp/443"),
        edge("internet", "tcp/80"),
        edge("198.51.100.7", "tcp/22"),
    ];
    let named = Permits {
        groups,
        ..permits(&edges)
    };
    switch(&plane, Mode::Enforce, &named);
    for (source, port, passes) in [
        ("198.51.100.1", 443, true),
        ("198.51.100.200", 443, true),
        ("2001:db8:77:9::1", 443, true),
        ("198.51.100.1", 80, false),
        ("192.0.2.9", 80, true),
        ("2001:db8:9::1", 80, true),
        ("10.0.0.1", 80, false),
        ("192.0.2.9", 443, false),
        ("198.51.100.7", 22, true),
        ("198.51.100.8", 22, false),
    ] {
        let reason = plane.send(&Frame::syn(ip(source), port).build());
        assert_eq!(!reason.drops(), passes, "{source} {port}: {reason}");
    }
    let undefined = graph(&plane).switch(Mode::Enforce, &permits(&edges), None, plane.now);
    assert_eq!(undefined.unwrap_err().exit_code(), 2);
    assert_eq!(
        plane.send(&Frame::syn(ip("198.51.100.1"), 443).build()),
        Reason::Pass
    );
}

#[test]
fn a_scoped_graph_speaks_of_its_services_only() {
    for source in families() {
        let plane = plane();
        let permits = Permits {
            allowed: [own(&plane, source, "tcp/5432")].into(),
            only: [Service::tcp(5432)].into(),
            ..Permits::default()
        };
        switch(&plane, Mode::Enforce, &permits);
        assert_eq!(plane.send(&Frame::syn(source, 5432).build()), Reason::Pass);
        assert_eq!(plane.send(&Frame::syn(source, 22).build()), Reason::Pass);
        assert_eq!(
            plane.send(&Frame::syn(ip("10.9.9.9"), 5432).build()),
            Reason::EdgeUnknown
        );
    }
}

#[test]
fn learning_counts_connections_and_believes_a_handshake_only_with_its_number() {
    for source in families() {
        let plane = plane();
        switch(&plane, Mode::Learn, &permits(&[]));
        let tcp = |flags, number: u32| {
            Frame::new(
                source,
                L4::Tcp {
                    sport: 40_000,
                    dport: 443,
                    flags,
                },
            )
            .number(number)
        };
        plane.send(&tcp(0x02, 0).build());
        let answer = Frame::new(
            source,
            L4::Tcp {
                sport: 443,
                dport: 40_000,
                flags: 0x12,
            },
        )
        .number(0x1234_5678)
        .leaving();
        let companion = plane.shield.companion().unwrap().unwrap();
        companion.drops(&answer.build()).unwrap();
        plane.send(&tcp(0x10, 0x9999_0000).build());
        let handshakes = || rows(&plane).iter().map(|row| row.handshakes).sum::<u32>();
        assert_eq!(handshakes(), 0);
        plane.send(&tcp(0x10, 0x1234_5679).build());
        assert_eq!(handshakes(), 1);
        plane.send(&tcp(0x10, 0x1234_5679).build());
        assert_eq!(handshakes(), 1);
        let row = rows(&plane)[0];
        assert_eq!((row.connections, row.packets), (1, 4));
    }
}

/// Has this thread run on one CPU: the first there is, or the last.
fn run_on(last: bool) {
    use nix::sched::{CpuSet, sched_setaffinity};
    let mut order: Vec<usize> = (0..CpuSet::count()).collect();
    if last {
        order.reverse();
    }
    let moved = order.into_iter().any(|cpu| {
        let mut one = CpuSet::new();
        one.set(cpu).is_ok() && sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).is_ok()
    });
    assert!(moved);
}

/// Each CPU has a table of its own, and packets of a connection come to several.
#[test]
fn a_connection_that_another_cpu_goes_on_with_is_counted_once() {
    use std::net::{TcpListener, TcpStream};
    for source in [ip("127.0.0.1"), ip("::1")] {
        let listener = TcpListener::bind((source, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _accepted = listener.accept().unwrap();
        let (sport, dport) = (
            stream.local_addr().unwrap().port(),
            listener.local_addr().unwrap().port(),
        );
        for completed_at_once in [true, false] {
            let plane = plane();
            switch(&plane, Mode::Learn, &permits(&[]));
            let tcp = |flags, number| {
                let l4 = L4::Tcp {
                    sport,
                    dport,
                    flags,
                };
                plane.send(&Frame::new(source, l4).to(source).number(number).build());
            };
            let answer = L4::Tcp {
                sport: dport,
                dport: sport,
                flags: 0x12,
            };
            run_on(false);
            tcp(0x02, 0);
            let answer = Frame::new(source, answer).to(source).number(0x1234_5678);
            let companion = plane.shield.companion().unwrap().unwrap();
            companion.drops(&answer.leaving().build()).unwrap();
            if completed_at_once {
                tcp(0x10, 0x1234_5679);
            }
            run_on(true);
            tcp(0x10, 0x1234_5679);
            tcp(0x10, 0x1234_5679);
            run_on(false);
            tcp(0x10, 0x1234_5679);
            let rows = rows(&plane);
            let sum = |of: fn(&EdgeRow) -> u32| rows.iter().map(of).sum::<u32>();
            let sums = (sum(|row| row.connections), sum(|row| row.handshakes));
            assert_eq!(sums, (1, 1), "{source}, {completed_at_once}: {rows:?}");
        }
    }
}

/// As outbound ones: an exchange over UDP is nothing that was tried in vain.
#[test]
fn what_this_host_answers_over_udp_counts_as_completed_once() {
    let plane = plane();
    switch(&plane, Mode::Learn, &permits(&[]));
    for source in families() {
        for _ in 0..3 {
            plane.send(&Frame::udp(source, 40_000, 53).build());
            let answer = Frame::udp(source, 53, 40_000).leaving();
            let companion = plane.shield.companion().unwrap().unwrap();
            assert!(!companion.drops(&answer.build()).unwrap());
        }
    }
    let rows: Vec<_> = rows(&plane)
        .iter()
        .map(|row| (row.direction, row.packets, row.connections, row.handshakes))
        .collect();
    assert_eq!(rows, [(Direction::In, 3, 1, 1); 2]);
}

#[test]
fn observed_a_refusal_is_no_edge_of_this_host() {
    let plane = plane();
    for source in families() {
        switch(&plane, Mode::Observe, &permits(&[]));
        assert_eq!(plane.syn(source), Reason::EdgeObserved);
        let refusal = L4::Tcp {
            sport: 443,
            dport: 40_000,
            flags: 0x14,
        };
        let companion = plane.shield.companion().unwrap().unwrap();
        let refusal = Frame::new(source, refusal).leaving().build();
        assert!(!companion.drops(&refusal).unwrap());
        let rows = rows(&plane);
        assert!(
            rows.iter().all(|row| row.direction == Direction::In),
            "{rows:?}"
        );
    }
}

#[test]
fn a_probe_without_a_connection_teaches_nothing() {
    for source in families() {
        let plane = plane();
        switch(&plane, Mode::Learn, &permits(&[]));
        assert_eq!(plane.send(&Frame::ack(source, 443).build()), Reason::Pass);
        assert!(rows(&plane).is_empty());
    }
}

#[test]
fn without_the_edge_stage_nothing_of_it_is_loaded() {
    let plane = Plane::new();
    assert!(plane.shield.graph().is_none());
    assert!(plane.shield.companion().unwrap().is_none());
}

#[test]
fn edges_that_share_a_set_are_told_apart() {
    let plane = one_set();
    let known = ["10.0.0.5", "2001:db8:1:2::7"].map(ip);
    switch(
        &plane,
        Mode::Enforce,
        &permits(&known.map(|source| own(&plane, source, "tcp/443"))),
    );
    for round in 0..2 {
        for (source, other) in known
            .into_iter()
            .zip(["10.0.1.5", "2001:db8:1:3::7"].map(ip))
        {
            assert_eq!(plane.syn(source), Reason::Pass, "{round}");
            assert_eq!(plane.syn(other), Reason::EdgeUnknown, "{round}");
            let beside = Frame::syn(source, 444).build();
            assert_eq!(plane.send(&beside), Reason::EdgeUnknown, "{round}");
        }
    }
}

#[test]
fn a_link_local_neighbour_is_one_edge_both_ways() {
    let plane = plane();
    let neighbour = ip("fe80::7");
    switch(
        &plane,
        Mode::Enforce,
        &permits(&[own(&plane, neighbour, "udp/546")]),
    );
    let ask = Frame::udp(neighbour, 40_000, 546);
    assert_eq!(plane.send(&ask.build()), Reason::Pass);
    let answer = Frame::udp(neighbour, 546, 40_000).leaving().build();
    let companion = plane.shield.companion().unwrap().unwrap();
    assert!(!companion.drops(&answer).unwrap());
    let other = Frame::udp(ip("fe80::8"), 546, 40_000).leaving().build();
    assert!(companion.drops(&other).unwrap());
    assert_eq!(
        plane.send(&Frame::udp(ip("fe80::8"), 40_000, 546).build()),
        Reason::EdgeUnknown
    );
}
