//! The edge stage against its oracle: random graphs, both directions, time that passes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use kernloom::dataplane::{Features, GraphSizes, LoadOptions, Permits, Reason, Shield};
use kernloom::graph::{Direction, Edge, EdgeRow, Groups, Mode, Peer, Service};
use kernloom::model::{Ktime, Source};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::edges::{Count, Edges, Graph};
use super::frames::{self, Rng};
use super::graph_mutants::MUTANTS;
use super::model::Model;
use super::variant::{Patch, Variant};
use super::{Counted, Program, READING, Rig, WORLD, compare_counts, seed, stay_on_this_cpu};
use crate::packet::{DOT1Q, Frame, L4};

const PACKETS: usize = 300_000;
/// Packets after which a mutant counts as not caught.
const MUTANT_PACKETS: usize = 40_000;
const V6_BITS: u8 = 64;

const PORTS: [u16; 9] = [0, 22, 53, 67, 68, 443, 2_049, 40_000, 51_820];
const FLAGS: [u8; 8] = [0x02, 0x02, 0x10, 0x10, 0x12, 0x11, 0x14, 0x18];
/// Often the two that are as far apart as an acknowledgment may be.
const NUMBERS: [u32; 8] = [0, 0, 1, 65_535, 65_536, 65_536, 0x8000_0000, u32::MAX];
/// Type, code, checksum, identifier; echo and its reply, and what is neither.
const ICMP: [&[u8]; 5] = [
    &[8, 0, 0, 0, 0, 1, 0, 1],
    &[0, 0, 0, 0, 0, 1, 0, 1],
    &[3, 1, 0, 0, 0, 0, 0, 0],
    &[13, 0, 0, 0, 0, 2, 0, 1],
    &[8, 0, 0, 0],
];
const ICMP6: [&[u8]; 5] = [
    &[128, 0, 0, 0, 0, 1, 0, 1],
    &[129, 0, 0, 0, 0, 1, 0, 1],
    &[2, 0, 0, 0, 0, 0, 0, 0],
    &[135, 0, 0, 0, 0, 0, 0, 0],
    &[128, 0],
];
const SCTP: &[u8] = &[0, 22, 1, 187, 0, 0, 0, 0, 0, 0, 0, 0];

fn rig(name: &str, edges: u32) -> Rig {
    let options = LoadOptions {
        features: Features::Graph,
        graph: GraphSizes {
            edges,
            flows: 1 << 16,
        },
        ..LoadOptions::default()
    };
    Rig::new(name, options)
}

fn groups() -> Groups {
    let mut groups = Groups::default();
    for (name, prefix) in [
        ("office", "10.7.1.0/24"),
        ("office", "2001:db8:1::/48"),
        ("printer", "10.7.1.3"),
        ("west", "2001:db8:0:1::/64"),
    ] {
        groups.add(name, prefix.parse().unwrap()).unwrap();
    }
    groups
}

fn source(rng: &mut Rng) -> IpAddr {
    if rng.one_in(2) {
        return frames::v4_source(rng).into();
    }
    // One of four is the first address of its prefix, which is not the prefix.
    let host = u16::try_from(rng.below(4)).unwrap();
    let net = u16::try_from(rng.below(2)).unwrap();
    match rng.below(4) {
        0 => Ipv6Addr::new(0xfd55, 0, 0, net, 0, 0, 0, host).into(),
        1 => Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host).into(),
        _ => frames::v6_source(rng).into(),
    }
}

/// This end of a conversation: beside some of the sources, or beside nobody, which must not matter.
/// Where it is `busy`, always the same, so that connections of one edge are completed.
fn local(rng: &mut Rng, v4: bool, busy: bool) -> IpAddr {
    if v4 {
        return [198, 51, 100, 1].into();
    }
    let net = |first, second, site, net| Ipv6Addr::new(first, second, site, net, 0, 0, 0, 0x99);
    if busy {
        return net(0x2001, 0xdb8, 0, 1).into();
    }
    let own = rng.pick(&[
        net(0x2001, 0xdb8, 0xffff, 0),
        net(0x2001, 0xdb8, 0xffff, 0),
        net(0x2001, 0xdb8, 0, 1),
        net(0x2001, 0xdb8, 0, 1),
        net(0x2001, 0xdb8, 1, 0),
        net(0xfd55, 0, 0, 1),
        net(0xfe80, 0, 0, 0),
        Ipv6Addr::LOCALHOST,
    ]);
    own.into()
}

/// A source as a graph may name it: all of its prefix, or it alone.
fn named(rng: &mut Rng) -> Source {
    let address = source(rng);
    if rng.one_in(2) {
        Source::host(address)
    } else {
        Source::tracked(address, V6_BITS)
    }
}

fn service(rng: &mut Rng) -> Service {
    match rng.below(12) {
        0 => Service::new(1, 0),
        1 => Service::new(58, 0),
        2 => Service::new(47, 0),
        3 => Service::new(132, 443),
        4..7 => Service::udp(rng.pick(&PORTS)),
        _ => Service::tcp(rng.pick(&PORTS)),
    }
}

fn edge(rng: &mut Rng) -> Edge {
    let direction = rng.pick(&[
        Direction::In,
        Direction::In,
        Direction::In,
        Direction::Out,
        Direction::Cast,
    ]);
    let peer = match (direction, rng.below(4)) {
        (Direction::Cast, _) => Peer::Any,
        (_, 0) => Peer::Group(
            rng.pick(&["office", "printer", "west", "internet"])
                .to_owned(),
        ),
        _ => Peer::Source(named(rng)),
    };
    Edge {
        direction,
        peer,
        service: service(rng),
    }
}

/// Of an address the edge of its prefix, of a prefix that of an address in it.
fn contradicted(edge: &Edge) -> Option<Edge> {
    let Peer::Source(source) = edge.peer else {
        return None;
    };
    let prefix = Source::tracked(source.ip(), V6_BITS);
    let mut first = source.octets();
    first[15] |= 1;
    let other = if source == prefix {
        Source::containing(first, 128)
    } else {
        prefix
    };
    (!source.is_ipv4()).then_some(Edge {
        peer: Peer::Source(other),
        ..edge.clone()
    })
}

fn graph(rng: &mut Rng) -> Graph {
    let mode = rng.pick(&[
        Mode::Learn,
        Mode::Observe,
        Mode::Observe,
        Mode::Enforce,
        Mode::Enforce,
        Mode::Enforce,
        Mode::Off,
    ]);
    let mut graph = Graph {
        mode,
        groups: groups(),
        broadcast: vec!["198.51.100.255".parse().unwrap()],
        ..Graph::default()
    };
    for _ in 0..rng.below(160) {
        graph.allowed.insert(edge(rng));
    }
    for _ in 0..rng.below(20) {
        graph.denied.insert(edge(rng));
    }
    for edge in graph.allowed.iter().filter(|_| rng.one_in(8)) {
        graph.denied.extend(contradicted(edge));
    }
    for _ in 0..rng.below(4) {
        graph.only.insert(service(rng));
    }
    graph
}

/// Mostly TCP and UDP; where it is `busy`, nothing else.
fn transport(rng: &mut Rng, v4: bool, (sport, dport): (u16, u16), busy: bool) -> L4 {
    let raw = |proto, payload| L4::Raw { proto, payload };
    let icmp = if v4 {
        raw(1, rng.pick(&ICMP))
    } else {
        raw(58, rng.pick(&ICMP6))
    };
    match rng.below(16).max(if busy { 9 } else { 0 }) {
        0..2 => icmp,
        2 => raw(132, SCTP),
        3 => raw(rng.pick(&[47, 2, 255, 4]), &[0; 20]),
        4 => raw(6, rng.pick(&[&[0, 22, 1, 187, 0, 0, 0, 0][..], &[0; 2]])),
        5..10 => L4::Udp { sport, dport },
        _ => L4::Tcp {
            sport,
            dport,
            flags: rng.pick(&FLAGS),
        },
    }
}

/// Either family's DHCP, and what is neither's.
fn dhcp_ports(rng: &mut Rng, outbound: bool) -> [u16; 2] {
    let [server, client] = rng.pick(&[[67, 68], [547, 546], [547, 68]]);
    if outbound {
        [client, server]
    } else {
        [server, client]
    }
}

/// Whom DHCPv6 speaks to when it `renews`, at times, else that peer.
fn dhcp_peer(rng: &mut Rng, peer: IpAddr, renews: bool) -> IpAddr {
    if renews && rng.one_in(2) {
        return Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).into();
    }
    peer
}

/// A packet as a host of some kind would send it; `outbound` turns it round.
fn tidy(rng: &mut Rng, outbound: bool) -> Vec<u8> {
    let mut peer = source(rng);
    let to_many = rng.one_in(12);
    if outbound && to_many {
        peer = if rng.one_in(2) {
            rng.pick(&[[224, 0, 0, 251], [255, 255, 255, 255]]).into()
        } else {
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into()
        };
    }
    let [mut sport, mut dport] = [rng.pick(&PORTS), rng.pick(&PORTS)];
    // Conversations need the same ends again and again.
    let busy = !to_many && rng.one_in(3);
    if busy {
        peer = rng.pick(&[
            [10, 7, 1, 2].into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 7).into(),
        ]);
        [sport, dport] = rng.pick(&[[40_000, 443], [443, 40_000]]);
    }
    let dhcp = !busy && rng.one_in(if to_many { 4 } else { 16 });
    if dhcp {
        [sport, dport] = dhcp_ports(rng, outbound);
        peer = dhcp_peer(rng, peer, outbound && !to_many);
    }
    let l4 = if dhcp {
        L4::Udp { sport, dport }
    } else {
        transport(rng, peer.is_ipv4(), (sport, dport), busy)
    };
    let mut frame = Frame::new(peer, l4)
        .number(rng.pick(&NUMBERS))
        .ttl(rng.pick(&[64, 255]));
    // The stack trims what it forwards, and pads nothing of its own.
    if outbound || rng.one_in(3) {
        frame = frame.unpadded();
    }
    if rng.one_in(10) {
        let (id, offset) = (rng.pick(&[1, 2]), rng.pick(&[0, 0, 1, 185]));
        frame = frame.fragment(id, offset, rng.one_in(2));
    }
    frame = frame.to(local(rng, peer.is_ipv4(), busy));
    if outbound {
        return frame.leaving().build();
    }
    if to_many {
        frame = match (peer.is_ipv4(), rng.below(3)) {
            (true, 0) => frame.to([224, 0, 0, 251].into()),
            (true, 1) => frame.to([198, 51, 100, 255].into()),
            (true, _) => frame.to([255, 255, 255, 255].into()),
            (false, _) => frame.to(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into()),
        };
    }
    if rng.one_in(if to_many { 2 } else { 40 }) {
        frame = frame.broadcast();
    }
    if rng.one_in(20) {
        frame = frame.vlan(DOT1Q, 5);
    }
    if peer.is_ipv6() && rng.one_in(20) {
        frame = frame.extensions(&[60]);
    }
    frame.build()
}

impl Rig {
    /// Switches the edge stage off and empties its tables: a mutant may leave edges where the next
    /// would not look.
    fn forget(&self) {
        let plane = self.shield.graph().unwrap();
        let nothing = Permits::default();
        plane.switch(Mode::Off, &nothing, None, self.now).unwrap();
        let open = |name| MapHandle::from_pinned_path(self.pins.path().join(name)).unwrap();
        let edges = open("edges");
        let nothing = vec![0; edges.value_size() as usize];
        for set in 0..edges.max_entries() {
            edges
                .update(&set.to_ne_bytes(), &nothing, MapFlags::ANY)
                .unwrap();
        }
        for flows in ["opened", "accepted", "frags"].map(open) {
            for key in flows.keys().collect::<Vec<_>>() {
                flows.delete(&key).unwrap();
            }
        }
    }

    /// Another graph, mostly, and now and then a lease, its confirmation, or a long silence.
    fn govern(&mut self, model: &mut Model, rng: &mut Rng) {
        let now = self.now;
        let plane = self.shield.graph().unwrap();
        let edges = model.edges.as_mut().unwrap();
        if rng.one_in(3) {
            plane.confirm(now);
            edges.confirm(now.as_nanos());
        }
        if !rng.one_in(8) {
            let graph = graph(rng);
            let permits = Permits {
                allowed: graph.allowed.clone(),
                denied: graph.denied.clone(),
                only: graph.only.clone(),
                groups: graph.groups.clone(),
                broadcast: graph.broadcast.clone(),
            };
            let whole = now.as_nanos() / 1_000_000_000 + 1 + rng.next() % 4;
            let end = rng
                .one_in(3)
                .then(|| Ktime::from_nanos(whole * 1_000_000_000 + 500_000_000));
            plane.switch(graph.mode, &permits, end, now).unwrap();
            edges.switch(graph, end.map(Ktime::as_nanos), now.as_nanos());
        }
        assert_eq!(plane.status(now).mode, edges.mode(now.as_nanos()));
        if rng.one_in(4) {
            let silence = rng.pick(&[59u64, 61, 179, 181, 21_599, 21_601]);
            self.at(model, now + Duration::from_secs(silence));
        }
    }
}

/// What the program has counted of each edge.
fn counted(shield: &Shield) -> Result<BTreeMap<Edge, EdgeRow>, String> {
    let (mut rows, mut twice) = (BTreeMap::new(), None);
    let table = shield.graph().unwrap().edges().unwrap();
    table.visit(|_, row| {
        let edge = Edge {
            direction: row.direction,
            peer: row.source.map_or(Peer::Any, Peer::Source),
            service: row.service,
        };
        if rows.insert(edge.clone(), row).is_some() {
            twice = Some(format!("{edge} is there twice"));
        }
    });
    twice.map_or(Ok(rows), Err)
}

fn compare_edges(model: &Model, shield: &Shield) -> Result<(), String> {
    let (rows, edges) = (counted(shield)?, model.edges.as_ref().unwrap());
    if rows.len() != edges.counts.len() {
        return Err(format!(
            "edges: program {}, oracle {}",
            rows.len(),
            edges.counts.len()
        ));
    }
    for (edge, count) in &edges.counts {
        let Some(row) = rows.get(edge) else {
            return Err(format!("{edge:?}: not in the table, but {count:?}"));
        };
        let program = (
            row.packets,
            row.bytes,
            row.connections,
            row.handshakes,
            row.violations,
            row.group,
        );
        let &Count {
            packets,
            bytes,
            connections,
            handshakes,
            violations,
            group,
            ..
        } = count;
        let oracle = (packets, bytes, connections, handshakes, violations, group);
        if program != oracle {
            return Err(format!(
                "{edge:?}: packets, bytes, connections, handshakes, violations, group: \
                 program {program:?}, oracle {oracle:?}"
            ));
        }
    }
    Ok(())
}

/// Feeds packets of both directions under ever new policies and graphs.
fn agree(
    rig: &mut Rig,
    (inbound, outbound): (&Program<'_>, &Program<'_>),
    rng: &mut Rng,
    packets: usize,
) -> Result<Model, String> {
    let before = Counted::read(&rig.shield);
    let mut model = Model::with(Edges::default());
    let now = rig.now;
    rig.at(&mut model, now + Duration::from_secs(60));
    for n in 0..packets {
        if n % WORLD == 0 {
            rig.legislate(&mut model, rng);
            rig.govern(&mut model, rng);
        }
        rig.pass_time(&mut model, rng);
        if rng.one_in(4) {
            let frame = tidy(rng, true);
            let (dropped, expected) = (outbound(&frame), model.leave(&frame));
            if dropped != expected {
                return Err(format!(
                    "packet {n}, leaving: dropped {dropped}, oracle {expected}\nframe {frame:02x?}"
                ));
            }
        } else {
            let frame = if rng.one_in(4) {
                frames::frame(rng)
            } else {
                tidy(rng, false)
            };
            rig.compare(&mut model, inbound, &frame)
                .map_err(|text| format!("packet {n}: {text}"))?;
        }
        if (n + 1) % READING == 0 || n + 1 == packets {
            compare_counts(&model, &before, &Counted::read(&rig.shield))?;
            compare_edges(&model, &rig.shield)?;
        }
    }
    Ok(model)
}

#[test]
fn random_graphs_and_packets_of_both_directions_agree_with_the_oracle() {
    stay_on_this_cpu();
    let mut rig = rig("goracle", 1 << 20);
    let mut rng = Rng(seed());
    let path = rig.pins.path().to_owned();
    let shield = Shield::open(&kernloom::dataplane::PinDir::new(path)).unwrap();
    let shield = shield.unwrap();
    let companion = shield.companion().unwrap().unwrap();
    let inbound = |frame: &[u8]| shield.test_run(frame, 1).unwrap().dropped;
    let outbound = |frame: &[u8]| companion.drops(frame).unwrap();
    let model = agree(&mut rig, (&inbound, &outbound), &mut rng, PACKETS)
        .unwrap_or_else(|text| panic!("KERNLOOM_SEED={}: {text}", seed()));
    for reason in Reason::ALL.iter().filter(|reason| reason.is_of_graph()) {
        let (packets, _) = model.reasons.get(reason).copied().unwrap_or_default();
        assert!(packets >= 100, "{reason}: only {packets} packets");
    }
    // Both ways, connections were opened and completed.
    for direction in [Direction::In, Direction::Out] {
        let edges = model.edges.iter().flat_map(|edges| &edges.counts);
        let done = edges.filter(|(edge, count)| {
            edge.direction == direction && count.connections > 0 && count.handshakes > 0
        });
        assert!(done.count() >= 20, "{direction}");
    }
}

/// Those of `mutants` that pass for the program.
fn survivors(name: &str, mutants: &[Patch]) -> Vec<Patch> {
    let mut rig = rig(name, 1 << 17);
    let mut survivors = Vec::new();
    for mutant in mutants {
        rig.forget();
        let programs = ["kernloom_graph", "kernloom_egress"];
        let [inside, outside] = Variant::load_all(&rig.pins, programs, Some(mutant));
        let inbound = |frame: &[u8]| inside.run(frame);
        let outbound = |frame: &[u8]| outside.returned(frame) == 2;
        let mut rng = Rng(seed());
        let agreed = agree(&mut rig, (&inbound, &outbound), &mut rng, MUTANT_PACKETS);
        if agreed.is_ok() {
            survivors.push(*mutant);
        }
    }
    survivors
}

#[test]
fn every_mutant_of_the_edge_stage_is_caught() {
    let (some, others) = MUTANTS.split_at(MUTANTS.len() / 2);
    let survivors = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            stay_on_this_cpu();
            survivors("gmutants-b", others)
        });
        stay_on_this_cpu();
        let mut all = survivors("gmutants-a", some);
        all.extend(others.join().unwrap());
        all
    });
    assert!(survivors.is_empty(), "not caught: {survivors:#?}");
}
