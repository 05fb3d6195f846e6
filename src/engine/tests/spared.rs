//! What a flood in the name of a peer, or behind a shared address, costs whoever is meant by neither.

use super::evidence::{half_open, harshest, measured, peer, proven};
use super::*;
use crate::model::{Hold, LimitScope, Moment};

#[test]
fn w21_what_anybody_could_have_sent_in_its_name_blocks_nobody() {
    let mut world = measured(web());
    world.ticks(600, &[half_open(peer(), 2_400)]);
    assert_eq!(harshest(&world, peer()), Stage::RateHard);
    // The same in the name of a peer that did complete a handshake.
    let mut world = measured(web());
    world.ticks(600, &[proven(half_open(peer(), 1_100))]);
    assert_eq!(harshest(&world, peer()), Stage::RateSoft);
}

/// Beside the connections of a peer, `packets` of them.
fn beside_connections(packets: u64, flood: Sample) -> Sample {
    Sample {
        packets: flood.packets + packets,
        bytes: flood.bytes + packets * 600,
        ..proven(flood)
    }
}

fn holds(world: &World) -> Vec<(Stage, Option<LimitScope>)> {
    let scope = |hold: Option<Hold>| match hold {
        Some(Hold::Limit { scope, .. }) => Some(scope),
        Some(Hold::Deny) | None => None,
    };
    let escalations = world.log.iter().filter(|(_, d)| d.kind == Kind::Escalate);
    escalations.map(|(_, d)| (d.to, scope(d.hold))).collect()
}

/// Floods whose volume is many times what one host may, in the name of a peer at work: it lost its
/// connections to the limit of RATE_HARD, then to BLOCK.
#[test]
fn a_flood_in_a_peers_name_costs_it_nothing_that_is_under_way() {
    let datagrams = |packets: u32| Sample {
        opens: packets,
        ..udp_flood(peer(), packets.into())
    };
    for flood in [half_open(peer(), 30_000), datagrams(30_000)] {
        let mut world = measured(web());
        world.ticks(600, &[beside_connections(400, flood)]);
        let [soft, hard] = holds(&world)[..] else {
            panic!("{:?}", world.log);
        };
        assert_eq!(soft, (Stage::RateSoft, Some(LimitScope::New)));
        assert_eq!(hard, (Stage::RateHard, Some(LimitScope::New)));
    }
}

#[test]
fn an_address_that_hosts_share_is_never_held_to_packets_for_what_they_open() {
    let hosts = Sample {
        stack_bits: 0b1_0110_1001,
        stacks: 5,
        ..syn_flood(peer(), 300)
    };
    let mut world = measured(web());
    // They become known, then one of them floods, and nothing of that is followed up.
    world.ticks(10, &[beside_connections(3_000, hosts)]);
    let flood = Sample {
        stack_bits: 0b1_0110_1001,
        stacks: 5,
        ..half_open(peer(), 30_000)
    };
    world.ticks(600, &[beside_connections(3_000, flood)]);
    assert!(
        (holds(&world).iter()).all(|(stage, scope)| *stage < Stage::Block
            && (*stage == Stage::RateSoft || *scope == Some(LimitScope::New))),
        "{:?}",
        world.log
    );
}

#[test]
fn what_is_spared_at_first_is_limited_once_it_harms_and_not_spared_again() {
    let mut world = measured(web());
    let openings = beside_connections(400, half_open(peer(), 30_000));
    world.until(peer(), Stage::RateHard, &[openings]);
    // Packets of no connection, which no limit of what is new would hold.
    let strays = Sample {
        refusals: 40_000,
        strays: 40_000,
        ..beside_connections(40_000, half_open(peer(), 1_000))
    };
    let decisions = world.tick(&[strays]);
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    let limit = |decision: &Decision| match decision.hold {
        Some(Hold::Limit { scope, .. }) => scope,
        hold => panic!("{hold:?}"),
    };
    assert_eq!(decisions[0].kind, Kind::Renew);
    assert_eq!(limit(&decisions[0]), LimitScope::All);
    let renewed = world.ticks(600, &[openings]);
    assert!(!renewed.is_empty());
    assert!(
        renewed.iter().all(|d| limit(d) == LimitScope::All),
        "{renewed:?}"
    );
}

/// Others than who flooded may be behind the address: what they are refused for the flood's sake kept
/// them held for good, and first made the limit one of all their packets.
#[test]
fn who_is_left_when_a_peers_flood_stops_is_not_held_for_exceeding_its_limit() {
    let left = beside_connections(
        400,
        Sample {
            opens: 60,
            drops: 20,
            ..syn_flood(peer(), 60)
        },
    );
    for flood in [half_open(peer(), 30_000), half_open(peer(), 2_000)] {
        let mut world = measured(web());
        let flooding = beside_connections(400, flood);
        world.until(peer(), Stage::RateSoft, &[flooding]);
        world.ticks(1, &[flooding]);
        let before = world.log.len();
        world.ticks(1_000, &[left]);
        for (_, decision) in &world.log[before..] {
            assert_ne!(decision.kind, Kind::Escalate, "{decision:?}");
            let limits_all = matches!(
                decision.hold,
                Some(Hold::Limit {
                    scope: LimitScope::All,
                    ..
                })
            );
            assert!(!limits_all, "{decision:?}");
        }
        assert_eq!(world.stage(peer()), Stage::Observe);
    }
    // Who goes on flooding is not left alone for what the limit leaves of it.
    let mut world = measured(web());
    let flood = beside_connections(400, half_open(peer(), 30_000));
    world.until(peer(), Stage::RateHard, &[flood]);
    let limited = Sample {
        packets: 30_000,
        opens: 30_000,
        drops: 29_900,
        ..half_open(peer(), 100)
    };
    world.ticks(2_000, &[beside_connections(400, limited)]);
    assert_eq!(world.stage(peer()), Stage::RateHard);
}

/// Anybody can send packets of no connection in a peer's name, and what would hold them holds its
/// connections: 66 of them per second did.
#[test]
fn strays_in_a_peers_name_count_by_their_volume_alone() {
    let strays = Sample {
        packets: 66,
        bytes: 66 * 54,
        refusals: 66,
        strays: 66,
        ..quiet(peer())
    };
    let mut world = measured(web());
    assert_eq!(world.ticks(600, &[beside_connections(500, strays)]), []);
    world.ticks(600, &[strays]);
    assert_eq!(holds(&world)[0], (Stage::RateSoft, Some(LimitScope::All)));
    // What tried to open something does count: a limit of what is new holds it.
    let openings = Sample {
        strays: 0,
        ..beside_connections(500, strays)
    };
    let mut world = measured(web());
    world.ticks(600, &[openings]);
    assert_eq!(holds(&world)[0], (Stage::RateSoft, Some(LimitScope::New)));
    // And so much of it harms.
    let flood = Sample {
        packets: 30_000,
        refusals: 30_000,
        strays: 30_000,
        ..strays
    };
    let mut world = measured(web());
    world.ticks(600, &[beside_connections(500, flood)]);
    assert_eq!(holds(&world)[0], (Stage::RateSoft, Some(LimitScope::All)));
}

#[test]
fn what_is_spared_stays_so_over_a_restart() {
    let mut world = measured(web());
    let openings = beside_connections(400, half_open(peer(), 30_000));
    world.until(peer(), Stage::RateHard, &[openings]);
    let now = Moment {
        ktime: Ktime::from_secs(world.secs),
        unix: Duration::from_secs(1_800_000_000),
    };
    let state = world.engine.state(now);
    let restored = Engine::new(web()).restore(&state, now);
    assert_eq!(restored[0].hold, world.log.last().unwrap().1.hold);
    assert!(matches!(
        restored[0].hold,
        Some(Hold::Limit {
            scope: LimitScope::New,
            ..
        })
    ));
}

/// SYNs to closed ports, which anybody may have sent in its name, beside what it opens itself.
fn scan_in_its_name(ports: u32, its_own: u32) -> Sample {
    Sample {
        packets: u64::from(ports) + 40,
        bytes: u64::from(ports + 40) * 60,
        opens: ports + its_own,
        refusals: ports,
        ports: ports + 1,
        port_bits: 1 | u64::MAX.checked_shl(ports).map_or(u64::MAX, |above| !above),
        ..proven(syn_flood(peer(), (ports + its_own).into()))
    }
}

/// A burst shorter than a second was remembered for a minute, and that blocked the peer.
#[test]
fn what_is_over_and_only_remembered_limits_and_blocks_nobody() {
    let calm = scan_in_its_name(1, 1);
    for of in [false, true] {
        let as_seen = |sample: Sample| Sample {
            proven: of,
            ..sample
        };
        let mut world = measured(web());
        world.ticks(30, &[as_seen(calm)]);
        world.tick(&[as_seen(scan_in_its_name(58, 1))]);
        world.ticks(120, &[as_seen(calm)]);
        assert_eq!(harshest(&world, peer()), Stage::RateSoft, "proven: {of}");
        let after = world.until(peer(), Stage::Observe, &[as_seen(scan_in_its_name(0, 1))]);
        assert!(after < 90, "proven: {of}: {after} s");
    }
}

/// What passes a limit says what there was use for: a night must not choke the morning.
#[test]
fn while_a_scan_is_remembered_the_limit_goes_by_what_succeeds() {
    let mut world = measured(web());
    world.tick(&[scan_in_its_name(58, 2)]);
    let mut pps = Vec::new();
    for its_own in [2, 20, 40, 80] {
        world.ticks(100, &[scan_in_its_name(1, its_own)]);
        let told = world.engine.explain(&peer(), Ktime::from_secs(world.secs));
        let Some(Hold::Limit { limit, .. }) = told.hold else {
            panic!("{its_own} openings per second");
        };
        pps.push(limit.pps.get());
    }
    assert_eq!(pps, [20, 40, 80, 160]);
}

#[test]
fn a_scan_in_a_peers_name_costs_it_no_opening_that_it_had_use_for() {
    let mut world = measured(web());
    world.ticks(30, &[scan_in_its_name(0, 40)]);
    let decisions = world.ticks(60, &[scan_in_its_name(1_000, 40)]);
    let Some(Hold::Limit { limit, scope }) = decisions[0].hold else {
        panic!("{decisions:?}");
    };
    assert_eq!((limit.pps.get(), scope), (80, LimitScope::New));
    assert_eq!(harshest(&world, peer()), Stage::RateSoft);
}

/// What is remembered does not hide what goes on beside it.
#[test]
fn a_slow_scanner_that_floods_is_held_for_the_flood() {
    let mut world = measured(web());
    for n in 0..64 {
        let slow = Sample {
            port_bits: 1 << n,
            proven: false,
            ..scan_in_its_name(2, 0)
        };
        world.tick(&[slow]);
    }
    assert_eq!(world.stage(peer()), Stage::RateSoft);
    let flood = Sample {
        opens: 0,
        ..udp_flood(peer(), 3_600)
    };
    // It goes on to probe, so that what is remembered counts.
    let both = Sample {
        port_bits: 1,
        ..flood
    };
    world.ticks(5, &[both]);
    let of = |decision: &&Decision| decision.kind == Kind::Escalate;
    let last = world.log.iter().map(|(_, decision)| decision).rfind(of);
    assert_eq!(
        last.map(|decision| decision.why.signal),
        Some(Signal::Packets)
    );
}
