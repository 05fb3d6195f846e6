//! However many senders there are, and however little it takes to be held: what is remembered of
//! them is bounded, and what is left out is what harms least or is counted elsewhere.

use std::net::Ipv4Addr;

use super::roster::MOST;
use super::*;

/// Sources of a full table.
const MANY: u32 = 131_072;

fn numbered(n: u32) -> Source {
    Source::host(Ipv4Addr::from(0x0a00_0000 + n).into())
}

fn world() -> World {
    let mut world = World::new(web());
    world.coverage = ALL;
    world
}

/// Each opens more than it may, and nobody proved anything.
fn crowd(of: impl Iterator<Item = u32>) -> Vec<Sample> {
    of.map(|n| syn_flood(numbered(n), 600)).collect()
}

/// So many ports that it took a day, in one packet a second.
fn slow_crowd(of: impl Iterator<Item = u32>, second: u32) -> Vec<Sample> {
    of.map(|n| Sample {
        port_bits: 0x1_0001_0001 << (second % 16),
        ..syn_flood(numbered(n), 1)
    })
    .collect()
}

fn held_singles(world: &World) -> usize {
    let single = |(source, ..): &(&Source, Stage, Ktime)| source.bits() == 128;
    world.engine.held().filter(single).count()
}

#[test]
fn a_table_full_of_attackers_fills_three_quarters_and_everyone_is_held_for_the_rest() {
    let mut world = world();
    for round in 0..4 {
        world.tick(&crowd(round * MANY..(round + 1) * MANY));
        assert!(world.engine.sources.ladders.len() <= MOST * 3 / 4);
    }
    let crowd = crowd(0..MANY);
    world.ticks(3, &crowd);
    assert_eq!(held_singles(&world), MOST * 3 / 4);
    assert!(world.stage(source("::/0")) > Stage::Observe);
    // Nobody can make these up, and everyone's limit is not for them.
    let peer = numbered(MANY);
    let mut with_peer = crowd;
    with_peer.push(Sample {
        proven: true,
        ..syn_flood(peer, 2_500)
    });
    world.tick(&with_peer);
    assert!(world.stage(peer) > Stage::Observe);
}

#[test]
fn made_up_slow_scanners_leave_room_for_who_floods() {
    let mut world = world();
    for second in 0..40 {
        world.tick(&slow_crowd(0..20_000, second));
    }
    assert_eq!(held_singles(&world), MOST / 2);
    let flooder = numbered(MANY);
    world.tick(&[syn_flood(flooder, 2_500)]);
    assert_eq!(world.stage(flooder), Stage::RateSoft);
}

#[test]
fn made_up_prefixes_are_bounded_and_the_loudest_stays_in_view() {
    let mut world = world();
    let loud = source("10.200.0.0/24");
    for round in 0..12 {
        // Two of each /24, and another one each second.
        let quiet = (0..30_000u32).flat_map(|n| {
            let base = 0x1000_0000 + (round * 30_000 + n) * 256;
            [base, base + 1].map(|n| syn_flood(Source::host(Ipv4Addr::from(n).into()), 200))
        });
        let of_loud = (0..64).map(|n| syn_flood(numbered(200 * 65_536 + n), 240));
        let samples: Vec<_> = of_loud.chain(quiet).collect();
        world.tick(&samples);
        assert!(world.engine.prefixes.ladders.len() <= MOST);
    }
    assert_eq!(world.stage(loud), Stage::RateSoft);
}

#[test]
fn alerts_between_ticks_are_bounded_too() {
    let mut world = world();
    world.tick(&[]);
    let now = Ktime::from_secs(world.secs);
    let alerted = (0..MANY).filter(|n| {
        let sample = port_scan(numbered(*n), 300);
        world.engine.alert(now, &sample, &|_| false).is_some()
    });
    assert_eq!(alerted.count(), MOST * 3 / 4);
    assert_eq!(world.engine.alerted_ports.len(), MOST * 3 / 4);
    world.tick(&[]);
    assert_eq!(world.engine.sources.ladders.len(), MOST * 3 / 4);
}

#[test]
fn a_state_that_holds_more_than_there_is_room_for_is_taken_up_so_far() {
    let mut world = world();
    world.ticks(2, &crowd(0..1_000));
    let moment = crate::model::Moment {
        ktime: Ktime::from_secs(world.secs),
        unix: Duration::from_secs(50_000),
    };
    let mut state = world.engine.state(moment);
    let one = state.held[0].clone();
    state.held = (0..20_000)
        .map(|n| Held {
            source: numbered(n),
            ..one.clone()
        })
        .collect();
    let mut engine = Engine::new(web());
    assert_eq!(engine.restore(&state, moment).len(), MOST);
    assert_eq!(engine.len(), MOST);
}

#[test]
fn what_covers_an_address_answers_for_it_the_most_specific_first() {
    let mut world = world();
    let wide = source("fd14::/64");
    world.tick(&[syn_flood(wide, 2_500)]);
    let held_as = |world: &World, asked: &str, alone: bool| {
        let held = world
            .engine
            .held_as(&source(asked), 64, alone, Ktime::from_secs(world.secs));
        held.to_string()
    };
    assert_eq!(held_as(&world, "fd14::5", false), "fd14::/64");
    assert_eq!(held_as(&world, "fd14::5", true), "fd14::/64");
    // Nobody is held: what it would count for.
    assert_eq!(held_as(&world, "fd15::5", false), "fd15::/64");
    assert_eq!(held_as(&world, "198.51.100.7", false), "198.51.100.7");
    assert_eq!(held_as(&world, "0.0.0.0/0", false), "::/0");
    for _ in 0..3 {
        world.tick(&crowd(0..MANY));
    }
    assert!(world.stage(source("::/0")) > Stage::Observe);
    for asked in ["198.51.100.7", "fd15::5", "0.0.0.0/0"] {
        assert_eq!(held_as(&world, asked, false), "::/0", "{asked}");
    }
    assert_eq!(held_as(&world, "198.51.100.7", true), "198.51.100.7");
}
