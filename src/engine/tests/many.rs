//! What many sources do together, by prefix and as everyone.

use super::evidence::{half_open, measured, peer, proven};
use super::*;

/// 250 sources of one /24, none of which is loud.
fn neighbours(prefix: &str, syns: u32) -> Vec<Sample> {
    (1..=250)
        .map(|n| half_open(source(&format!("{prefix}.{n}")), syns))
        .collect()
}

#[test]
fn w08_a_prefix_is_limited_for_what_its_sources_do_together() {
    let mut world = measured(web());
    let decisions = world.ticks(2, &neighbours("198.51.100", 16));
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0].source, source("198.51.100.0/24"));
    assert_eq!(decisions[0].to, Stage::RateSoft);
    let limit = decisions[0].hold.unwrap().to_string();
    assert_eq!(
        limit, "limit-new:1000pps/2000",
        "what would not have been too much"
    );
    world.ticks(600, &neighbours("198.51.100", 16));
    let held: Vec<_> = world
        .engine
        .held()
        .map(|(s, stage, _)| (*s, stage))
        .collect();
    assert_eq!(
        held,
        [(source("198.51.100.0/24"), Stage::RateSoft)],
        "and never blocked"
    );
    let mut proven_ones = neighbours("198.51.100", 16);
    for sample in &mut proven_ones {
        (sample.proven, sample.half_open) = (true, 0);
    }
    assert_eq!(measured(web()).ticks(60, &proven_ones), []);
}

#[test]
fn w07_a_spoofed_flood_is_seen_and_known_networks_keep_limits_of_their_own() {
    let known = proven(Sample {
        packets: 20,
        bytes: 9_000,
        ..syn_flood(peer(), 1)
    });
    let mut spoofed: Vec<_> = (0..20_000u32)
        .map(|n| {
            let address = std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761));
            Sample {
                fresh: true,
                ..half_open(Source::host(address.into()), 1)
            }
        })
        .collect();
    spoofed.push(known);
    let mut world = measured(web());
    let decisions = world.ticks(2, &spoofed);
    let told: Vec<_> = decisions
        .iter()
        .map(|d| (d.source.to_string(), d.hold.unwrap().to_string()))
        .collect();
    let expected = [
        ("203.0.113.0/24", "limit-new:1000pps/2000"),
        ("::/0", "limit-new:5000pps/10000"),
    ];
    assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    // What everyone sent is not said to be theirs.
    let causes = decisions.iter().map(|decision| decision.why.signal);
    assert_eq!(
        causes.collect::<Vec<_>>(),
        [Signal::Everyone, Signal::HalfOpen]
    );
    let sheltered = world
        .engine
        .explain(&decisions[0].source, Ktime::from_secs(world.secs))
        .cause;
    assert_eq!(sheltered.signal, Signal::Everyone);
    assert!(sheltered.rate > 10_000.0);
    assert!(world.engine.overview().pressure > 4.0);
    // Nor that nothing led there, once the limit works.
    world.ticks(40, &[known]);
    assert_eq!(world.stage(source("203.0.113.0/24")), Stage::RateSoft);
    let cause = world
        .engine
        .explain(&decisions[0].source, Ktime::from_secs(world.secs));
    assert_eq!(cause.cause, sheltered);
    // Peace: everything is let go.
    world.ticks(300, &[known]);
    assert!(world.engine.is_empty());
    assert_eq!(world.engine.overview().pressure, 1.0);
}

/// Of sources that had to make room, the table keeps nothing: a flood of more than it holds was the
/// less seen the faster it was.
#[test]
fn what_came_from_sources_that_made_room_counts_as_what_is_new_beside_it() {
    let spoofed = |kind: fn(Source, u64) -> Sample| -> Vec<Sample> {
        let address = |n: u32| std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761));
        (0..2_000)
            .map(|n| Sample {
                fresh: true,
                ..kind(Source::host(address(n).into()), 1)
            })
            .collect()
    };
    let syns: fn(Source, u64) -> Sample = |of, count| half_open(of, count.try_into().unwrap());
    for (kind, signal) in [(syns, Signal::HalfOpen), (udp_flood, Signal::Packets)] {
        let kept = spoofed(kind);
        let mut world = measured(web());
        let sent = |packets| {
            Some(Traffic {
                packets,
                bytes: packets * 60,
                drops: 0,
            })
        };
        world.all = sent(2_000);
        assert_eq!(world.ticks(10, &kept), [], "all of them have their places");
        world.all = sent(200_000);
        let decisions = world.ticks(2, &kept);
        let [decision] = &decisions[..] else {
            panic!("{decisions:?}");
        };
        assert_eq!(decision.source.to_string(), "::/0");
        assert_eq!(
            (decision.why.signal, decision.why.rate),
            (signal, 200_000.0)
        );
        // The limit holds, and nothing of what it drops got through.
        world.all = Some(Traffic {
            drops: 199_000,
            ..sent(200_000).unwrap()
        });
        world.ticks(200, &kept[..500]);
        assert_eq!(world.stage(decision.source), Stage::RateSoft);
        world.all = None;
        world.ticks(300, &[]);
        assert!(world.engine.is_empty());
    }
}

/// Whoever floods for two windows was there before the second one.
#[test]
fn who_came_with_a_flood_is_not_known_from_before_it() {
    let unproven = |address: [u8; 4], fresh| Sample {
        fresh,
        ..udp_flood(Source::host(address.into()), 20)
    };
    let before = unproven([203, 0, 113, 9], false);
    let windows = [true, false].map(|fresh| {
        let flood = (0..8_000u32).map(|n| {
            let [.., a, b] = n.to_be_bytes();
            unproven([10, a, b, 1], fresh)
        });
        flood.chain([before]).collect::<Vec<_>>()
    });
    let mut world = measured(web());
    world.tick(&[before]);
    world.tick(&windows[0]);
    for _ in 0..3 {
        world.tick(&windows[1]);
    }
    let held: Vec<_> = world
        .log
        .iter()
        .map(|(_, d)| (d.source.to_string(), d.to))
        .collect();
    let expected = ["203.0.113.0/24", "::/0"].map(|one| (one.to_owned(), Stage::RateSoft));
    assert_eq!(held, expected);
}

#[test]
fn w08_under_pressure_less_is_too_much_for_who_proves_nothing() {
    let far_apart: Vec<_> = (0..300u32)
        .map(|n| {
            let address = std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761));
            half_open(Source::host(address.into()), 110)
        })
        .collect();
    let mut world = measured(web());
    assert_eq!(
        world.ticks(20, &far_apart[..20]),
        [],
        "few of them are below every bound"
    );
    let decisions = world.ticks(4, &far_apart);
    let hosts = decisions.iter().filter(|d| d.source.bits() == 128).count();
    assert_eq!(hosts, 300);
}

#[test]
fn without_proof_nobody_is_summed_up() {
    let mut world = World::new(web());
    assert_eq!(world.ticks(60, &neighbours("198.51.100", 60)), []);
}
