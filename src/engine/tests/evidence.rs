//! What counts, for whom, and how far it leads.

use super::*;
use crate::model::{Hold, LimitScope};

pub(super) fn peer() -> Source {
    source("203.0.113.9")
}

pub(super) fn measured(config: Config) -> World {
    World {
        coverage: ALL,
        ..World::new(config)
    }
}

pub(super) fn proven(sample: Sample) -> Sample {
    Sample {
        proven: true,
        ..sample
    }
}

/// SYNs that nobody follows up.
pub(super) fn half_open(of: Source, syns: u32) -> Sample {
    Sample {
        opens: syns,
        half_open: syns,
        ..syn_flood(of, syns.into())
    }
}

/// One new port each time, nearly never the same bit twice in a row.
fn probe(of: Source, n: u64) -> Sample {
    Sample {
        packets: 1,
        bytes: 60,
        syns: 1,
        opens: 1,
        refusals: 1,
        ports: 1,
        port_bits: 1 << (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58),
        ..quiet(of)
    }
}

pub(super) fn harshest(world: &World, of: Source) -> Stage {
    let decisions = world.log.iter().filter(|(_, d)| d.source == of);
    decisions.map(|(_, d)| d.to).max().unwrap_or_default()
}

#[test]
fn proof_or_volume_opens_the_block_gate() {
    let mut world = measured(web());
    world.ticks(60, &[proven(syn_flood(peer(), 2_500))]);
    assert_eq!(world.stage(peer()), Stage::Block);
    let mut world = measured(web());
    world.ticks(60, &[udp_flood(peer(), 12_000)]);
    assert_eq!(world.stage(peer()), Stage::Block);
}

#[test]
fn half_opens_and_refusals_are_signals_of_their_own() {
    let mut world = measured(web());
    let decisions = world.ticks(2, &[half_open(peer(), 400)]);
    assert_eq!(decisions[0].why.signal, Signal::HalfOpen);
    assert_eq!(
        (decisions[0].why.rate, decisions[0].why.trigger),
        (400.0, 125.0)
    );
    let mut world = measured(web());
    let fin_scan = Sample {
        packets: 900,
        bytes: 54_000,
        refusals: 900,
        ..quiet(peer())
    };
    let decisions = world.tick(&[fin_scan]);
    assert_eq!(decisions[0].why.signal, Signal::Refusals);
}

#[test]
fn w19_a_proven_client_of_many_services_is_no_scanner() {
    let client = Sample {
        opens: 60,
        ports: 60,
        port_bits: u64::MAX >> 20,
        ..proven(syn_flood(peer(), 60))
    };
    let mut world = measured(web());
    assert_eq!(world.ticks(3_600, &[client]), []);
    let scanner = Sample {
        refusals: 55,
        ..client
    };
    let mut world = measured(web());
    assert_eq!(world.tick(&[scanner])[0].why.signal, Signal::Ports);
}

#[test]
fn w19_answers_to_this_host_are_no_flood() {
    let resolver = Sample {
        packets: 50_000,
        bytes: 15_000_000,
        answers: 50_000,
        ..quiet(source("192.0.2.53"))
    };
    let mut world = measured(web());
    assert_eq!(world.ticks(600, &[resolver]), []);
    world.coverage.consent = false;
    assert!(
        !world.tick(&[resolver]).is_empty(),
        "unless nobody tells them apart"
    );
}

#[test]
fn what_a_proven_peer_sends_in_its_connections_counts_less() {
    let upload = Sample {
        packets: 40_000,
        bytes: 48_000_000,
        opens: 1,
        ..proven(quiet(peer()))
    };
    let mut world = measured(web());
    // As much as 10 Gbit/s is in frames of 1 500 bytes.
    let fastest = Sample {
        packets: 812_000,
        bytes: 1_218_000_000,
        ..upload
    };
    assert_eq!(world.ticks(600, &[fastest]), []);
    let refused = Sample {
        refusals: 40_000,
        ..upload
    };
    assert!(!world.tick(&[refused]).is_empty(), "unless it is refused");
    let mut blind = measured(web());
    blind.coverage.refusals = false;
    let larger = Sample {
        packets: 80_000,
        ..upload
    };
    assert!(
        !blind.ticks(2, &[larger]).is_empty(),
        "unless nobody sees refusals"
    );
    let smaller = Sample {
        packets: 5_754,
        ..upload
    };
    blind.engine.reset();
    assert_eq!(blind.ticks(600, &[smaller]), []);
}

#[test]
fn w08_slow_scans_are_seen_over_a_minute_an_hour_and_a_day() {
    for (every, signal, most) in [
        (2, Signal::PortsMinute, 60),
        (60, Signal::PortsHour, 3_600),
        (1_200, Signal::PortsDay, 43_200),
    ] {
        let mut world = measured(web());
        let mut first = None;
        for second in 0..86_400 {
            let due = second % every == 0;
            let probes = [probe(peer(), second / every)];
            let decisions = world.tick(if due { &probes } else { &[] });
            if let Some(decision) = decisions.first() {
                first = Some((second, decision.clone()));
                break;
            }
        }
        let (second, decision) = first.unwrap();
        assert_eq!(
            (decision.why.signal, decision.to),
            (signal, Stage::RateSoft)
        );
        assert!(second <= most, "{signal}: after {second} s");
        let ports = world
            .engine
            .explain(&peer(), Ktime::from_secs(world.secs))
            .ports;
        assert!(ports[2] >= 15, "{ports:?}");
    }
}

#[test]
fn where_nobody_sees_refusals_a_slow_scan_is_limited_and_no_more() {
    let mut world = World::new(web());
    for n in 0..600 {
        world.tick(&[probe(peer(), n)]);
    }
    assert_eq!(harshest(&world, peer()), Stage::RateSoft);
}

#[test]
fn where_nobody_sees_refusals_a_fast_scan_is_a_scan_all_the_same() {
    let scan = Sample {
        port_bits: u64::MAX,
        ..port_scan(peer(), 266)
    };
    let mut world = World::new(web());
    world.ticks(60, &[scan]);
    assert_eq!(world.stage(peer()), Stage::Block);
}

#[test]
fn a_flood_of_made_up_sources_does_not_displace_a_slow_scanner() {
    let mut world = measured(web());
    for n in 0..12 {
        world.tick(&[probe(peer(), n)]);
    }
    for round in 0..3u32 {
        let flood: Vec<_> = (0..80_000)
            .map(|n| {
                probe(
                    Source::host(std::net::Ipv4Addr::from(round * 80_000 + n).into()),
                    1,
                )
            })
            .collect();
        world.tick(&flood);
        world.ticks(60, &[]);
    }
    let ports = world
        .engine
        .explain(&peer(), Ktime::from_secs(world.secs))
        .ports;
    assert!(ports[2] >= 9, "{ports:?}");
}

#[test]
fn a_flood_of_made_up_sources_leaves_room_for_who_shows_more_than_one_port_or_proves_itself() {
    let flood: Vec<_> = (0..80_000)
        .map(|n| probe(Source::host(std::net::Ipv4Addr::from(n).into()), 1))
        .collect();
    let mut world = measured(web());
    world.tick(&flood);
    let scanner = Sample {
        port_bits: 0b111,
        ports: 3,
        ..probe(source("203.0.113.9"), 0)
    };
    let office = proven(Sample {
        stack_bits: 0b1_0110_1001,
        stacks: 5,
        ..syn_flood(source("203.0.113.10"), 20)
    });
    world.tick(&[scanner, office]);
    world.tick(&flood);
    let told = |of: Source| world.engine.explain(&of, Ktime::from_secs(world.secs));
    assert_eq!(told(scanner.source).ports, [3; 3]);
    assert_eq!(told(office.source).nat, 5);
}

#[test]
fn w08_a_low_rate_kept_up_for_an_hour_is_limited_to_what_is_not_too_much() {
    let mut world = measured(web());
    let steady = Sample {
        opens: 200,
        ..proven(syn_flood(peer(), 200))
    };
    assert_eq!(world.ticks(1_800, &[steady]), [], "half an hour is no hour");
    let decisions = world.ticks(1_800, &[steady]);
    assert_eq!(decisions[0].why.signal, Signal::Sustained);
    assert_eq!(decisions[0].why.trigger, 125.0);
    let Some(Hold::Limit { limit, scope }) = decisions[0].hold else {
        panic!("{decisions:?}");
    };
    assert_eq!((limit.pps.get(), scope), (125, LimitScope::New));
    assert_eq!(harshest(&world, peer()), Stage::RateSoft);
    let mut world = measured(web());
    world.ticks(60, &[proven(syn_flood(peer(), 20_000))]);
    world.log.clear();
    world.until(peer(), Stage::Observe, &[proven(syn_flood(peer(), 20))]);
    assert_eq!(
        world.ticks(600, &[proven(syn_flood(peer(), 20))]),
        [],
        "a flood is no hour"
    );
}

#[test]
fn the_collateral_budget_takes_back_the_mildest() {
    let loud = |n: u32, syns| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + n * 256);
        Sample {
            opens: u32::try_from(syns).unwrap(),
            ..proven(syn_flood(Source::host(address.into()), syns))
        }
    };
    // A misfitting threshold: every client is too loud. A few far more than the others.
    let mut all: Vec<_> = (0..100).map(|n| loud(n, 2_500 + u64::from(n))).collect();
    all.push(loud(200, 100_000));
    let mut world = measured(web());
    let decisions = world.tick(&all);
    assert!(
        decisions.len() >= 3 && decisions.len() <= 11,
        "{}",
        decisions.len()
    );
    assert_eq!(
        world.engine.overview().withheld,
        101 - decisions.len() as u64
    );
    assert!(
        decisions.iter().any(|d| d.source == all[100].source),
        "the worst is held"
    );
    // The same from sources without proof is no mistake.
    for sample in &mut all {
        sample.proven = false;
    }
    let hosts = measured(web()).tick(&all);
    assert!(hosts.len() > 100);
}

#[test]
fn hosts_behind_an_address_are_counted_only_with_proof() {
    let many = Sample {
        stack_bits: 0xffff,
        ..syn_flood(peer(), 100)
    };
    let nat = |sample| {
        let mut world = measured(web());
        world.tick(&[sample]);
        world
            .engine
            .explain(&peer(), Ktime::from_secs(world.secs))
            .nat
    };
    assert_eq!(nat(many), 1);
    assert_eq!(nat(proven(many)), 8);
    let made_up = Sample {
        half_open: 90,
        ..proven(many)
    };
    assert_eq!(
        nat(made_up),
        1,
        "options of half-open SYNs are easily made up"
    );
}

#[test]
fn limits_of_a_shared_address_are_those_of_its_hosts_together() {
    let shared = Sample {
        stack_bits: 0xffff,
        ..proven(half_open(peer(), 0))
    };
    let mut world = measured(web());
    world.tick(&[Sample {
        packets: 10,
        ..shared
    }]);
    let flood = Sample {
        opens: 25_000,
        half_open: 0,
        ..proven(syn_flood(peer(), 25_000))
    };
    let decisions = world.tick(&[flood]);
    let hold = decisions[0].hold.unwrap().to_string();
    assert_eq!(
        (decisions[0].why.nat, hold.as_str()),
        (8, "limit-new:3200pps/6400")
    );
    assert!(decisions[0].why.to_string().ends_with(" nat=8 proven"));
}

#[test]
fn what_opens_nothing_is_held_to_its_packets() {
    let scope = |sample: Sample| match measured(web()).tick(&[sample])[..] {
        [
            Decision {
                hold: Some(Hold::Limit { scope, .. }),
                ..
            },
        ] => scope,
        ref other => panic!("{other:?}"),
    };
    // FINs that the host refuses, each its own packet; a limit of new connections is none to them.
    let fins = Sample {
        packets: 1_000,
        opens: 1_000,
        refusals: 1_000,
        strays: 1_000,
        ..quiet(source("198.51.100.7"))
    };
    assert_eq!(scope(fins), LimitScope::All);
    let syns = Sample {
        syns: 1_000,
        strays: 0,
        ..fins
    };
    assert_eq!(scope(syns), LimitScope::New);
}

#[test]
fn w19_a_proven_resolver_is_no_flood_either() {
    let mut world = measured(web());
    let answers = Sample {
        packets: 20_000,
        bytes: 4_000_000,
        opens: 20_000,
        answers: 20_000,
        ..quiet(source("192.0.2.53"))
    };
    assert_eq!(
        world.ticks(
            60,
            &[
                answers,
                proven(Sample {
                    source: peer(),
                    ..answers
                })
            ]
        ),
        []
    );
    let unasked = Sample {
        answers: 0,
        ..answers
    };
    assert!(!world.tick(&[unasked]).is_empty());
}

#[test]
fn rates_are_shown_of_whom_nothing_is_held_against_and_whether_they_are_fit_to_learn_from() {
    let [calm, loud, proven, exempt] = [1, 2, 3, 4].map(numbered_peer);
    let samples = [
        udp_flood(calm, 100),
        udp_flood(loud, 2_000),
        Sample {
            proven: true,
            ..udp_flood(proven, 2_000)
        },
        udp_flood(exempt, 50_000),
    ];
    let mut engine = Engine::new(web());
    let window = Window {
        length: SECOND,
        samples: samples.into_iter(),
        coverage: ALL,
        all: None,
    };
    let mut shown = Vec::new();
    let exempts = |source: &Source| *source == exempt;
    let learn = &mut |source: &Source, rates: &Triggers, fit| {
        shown.push((*source, rates.pps, fit));
        *source == exempt
    };
    engine.tick_learning(Ktime::from_secs(5), window, &exempts, learn);
    assert_eq!(
        shown.iter().map(|one| (one.0, one.2)).collect::<Vec<_>>(),
        [(calm, true), (loud, false), (proven, true), (exempt, false)]
    );
    assert_eq!(shown[3].1, 50_000.0);
    assert_eq!(engine.overview().learned, 1, "as the answer says");
}

fn numbered_peer(n: u8) -> Source {
    Source::host(std::net::Ipv4Addr::new(192, 0, 2, n).into())
}
