use super::*;
use crate::model::{Hold, LimitScope};

const ATTACKER: &str = "198.51.100.7";

fn attacker() -> Source {
    source(ATTACKER)
}

fn moves(decisions: &[Decision]) -> Vec<(Kind, Stage)> {
    decisions.iter().map(|d| (d.kind, d.to)).collect()
}

/// The stages in the order first reached, and the seconds until then.
fn climb(config: Config, sample: Sample) -> Vec<(u64, Stage)> {
    let mut world = World::new(config);
    world.ticks(120, &[sample]);
    world
        .log
        .iter()
        .filter(|(_, decision)| decision.kind == Kind::Escalate)
        .map(|(at, decision)| (at - 1000, decision.to))
        .collect()
}

#[test]
fn w24_each_pure_signal_climbs_one_stage_at_a_time_up_to_block() {
    let every_stage = [
        (1, Stage::RateSoft),
        (2, Stage::RateHard),
        (31, Stage::Block),
    ];
    for sample in [
        syn_flood(attacker(), 2_500),
        udp_flood(attacker(), 12_000),
        port_scan(attacker(), 200),
    ] {
        assert_eq!(climb(web(), sample), every_stage, "{sample:?}");
    }
}

#[test]
fn a_flood_below_flash_needs_its_high_ticks_first() {
    let stages = [
        (2, Stage::RateSoft),
        (3, Stage::RateHard),
        (31, Stage::Block),
    ];
    assert_eq!(climb(web(), syn_flood(attacker(), 1_500)), stages);
}

#[test]
fn bytes_alone_reach_block_where_they_are_scored() {
    let mut config = web();
    config.triggers.bps = 1e6;
    config.weights.bps = 0.2;
    let sample = Sample {
        packets: 100,
        bytes: 6_000_000,
        ..quiet(attacker())
    };
    assert_eq!(climb(config, sample).last(), Some(&(31, Stage::Block)));
}

#[test]
fn severity_just_below_the_gate_is_limited_but_never_blocked() {
    let mut world = World::new(web());
    world.ticks(3_600, &[syn_flood(attacker(), 1_300)]);
    assert_eq!(world.stage(attacker()), Stage::RateHard);
}

#[test]
fn a_gate_set_at_the_cap_opens_when_all_signals_are_at_their_cap() {
    let mut config = web();
    config.dominance = 0.0;
    // In floating point 3 * (0.7 + 0.1 + 0.2) is a little less than 3.
    config.weights.syn = 0.7;
    config.weights.ports = 0.1;
    config.weights.pps = 0.2;
    config.gate = Some(BlockGate {
        severity: 3.0,
        lasting: Duration::ZERO,
    });
    let sample = Sample {
        packets: 3_600,
        syns: 750,
        ports: 60,
        ..quiet(attacker())
    };
    let mut world = World::new(config);
    world.ticks(20, &[sample]);
    assert_eq!(world.stage(attacker()), Stage::Block);
}

#[test]
fn the_block_gate_starts_over_after_one_milder_tick() {
    let mut world = World::new(web());
    for _ in 0..20 {
        world.ticks(29, &[syn_flood(attacker(), 2_500)]);
        world.tick(&[syn_flood(attacker(), 600)]);
    }
    assert_eq!(world.stage(attacker()), Stage::RateHard);
}

#[test]
fn block_at_never_means_never_even_without_compliance() {
    let mut config = web();
    config.block_at = None;
    let mut world = World::new(config);
    let flood = Sample {
        drops: 50_000,
        ..syn_flood(attacker(), 60_000)
    };
    world.ticks(600, &[flood]);
    assert_eq!(world.stage(attacker()), Stage::RateHard);
    assert_eq!(world.strikes(attacker()), 8, "bounded by hard_at + 3");
}

#[test]
fn ignoring_the_hard_limit_blocks_without_the_strikes_for_it() {
    let mut config = web();
    config.gate = None;
    config.block_at = Some(900);
    let mut world = World::new(config);
    world.until(attacker(), Stage::RateHard, &[syn_flood(attacker(), 600)]);
    let pushing = Sample {
        drops: 40,
        ..syn_flood(attacker(), 140)
    };
    let took = world.until(attacker(), Stage::Block, &[pushing]);
    assert_eq!(took, 15);
    let (_, decision) = world.log.last().unwrap();
    assert_eq!(decision.why.signal, Signal::Drops);
    assert_eq!((decision.why.rate, decision.why.trigger), (40.0, 10.0));
}

#[test]
fn ignoring_the_hard_limit_does_not_get_past_a_closed_gate() {
    let mut world = World::new(web());
    world.until(attacker(), Stage::RateHard, &[syn_flood(attacker(), 600)]);
    let pushing = Sample {
        drops: 40,
        ..syn_flood(attacker(), 140)
    };
    world.ticks(900, &[pushing]);
    assert_eq!(world.stage(attacker()), Stage::RateHard);
}

#[test]
fn w08_a_source_unknown_before_is_scored_in_its_first_tick() {
    let mut world = World::new(web());
    let decisions = world.tick(&[udp_flood(attacker(), 100_000)]);
    assert_eq!(moves(&decisions), [(Kind::Escalate, Stage::RateSoft)]);
    assert_eq!(
        decisions[0].why.to_string(),
        "severity=3.00 signal=pps rate=100000/s trigger=1200/s strikes=3 nat=1"
    );
}

#[test]
fn soft_limits_what_does_the_harm() {
    let scope = |sample: Sample| {
        let decisions = World::new(web()).tick(&[sample]);
        match decisions[0].hold {
            Some(Hold::Limit { limit, scope }) => (limit.to_string(), scope),
            other => panic!("{other:?}"),
        }
    };
    let new = ("400pps/800".to_owned(), LimitScope::New);
    assert_eq!(scope(syn_flood(attacker(), 5_000)), new);
    let twenty_ports = ("20pps/40".to_owned(), LimitScope::New);
    assert_eq!(scope(port_scan(attacker(), 300)), twenty_ports);
    assert_eq!(scope(udp_flood(attacker(), 50_000)).1, LimitScope::All);
}

#[test]
fn soft_widens_at_once_when_the_attack_turns_to_volume() {
    let mut config = web();
    config.hard_at = None;
    config.block_at = None;
    let mut world = World::new(config);
    world.tick(&[syn_flood(attacker(), 5_000)]);
    let decisions = world.tick(&[udp_flood(attacker(), 50_000)]);
    assert_eq!(moves(&decisions), [(Kind::Renew, Stage::RateSoft)]);
    assert!(matches!(
        decisions[0].hold,
        Some(Hold::Limit {
            scope: LimitScope::All,
            ..
        })
    ));
    assert_eq!(
        world.tick(&[syn_flood(attacker(), 5_000)]),
        [],
        "and stays wide"
    );
}

#[test]
fn limits_follow_the_trigger_where_that_gives_more() {
    let mut config = web();
    config.soft.factor = Some(0.5);
    config.hard.factor = Some(0.05);
    assert_eq!(config.soft_limit().to_string(), "600pps/1200");
    assert_eq!(config.hard_limit().to_string(), "100pps/200");
}

#[test]
fn many_users_behind_one_address_are_never_touched() {
    let mut world = World::new(web());
    world.coverage = ALL;
    // More than three times what one host may open, for a day.
    let nat = Sample {
        packets: 9_600,
        bytes: 9_000_000,
        syns: 900,
        opens: 900,
        ports: 3,
        port_bits: 0b111,
        stack_bits: 0xfff,
        stacks: 13,
        proven: true,
        ..quiet(source("203.0.113.9"))
    };
    assert_eq!(world.ticks(86_400, &[nat]), []);
    assert!(world.engine.is_empty(), "and cost no memory");
    let explained = world
        .engine
        .explain(&nat.source, Ktime::from_secs(world.secs));
    assert_eq!((explained.nat, explained.stage), (8, Stage::Observe));
}

#[test]
fn a_limit_ends_after_ttl_and_hold_and_not_before() {
    for (ttl, hold) in [(60, 20), (20, 60)] {
        let mut config = web();
        config.ttl.soft = Duration::from_secs(ttl);
        config.hold.soft = Duration::from_secs(hold);
        let mut world = World::new(config);
        // One flash, so that strikes are gone long before the limit is.
        world.tick(&[syn_flood(attacker(), 2_500)]);
        assert_eq!(world.ticks(59, &[]), []);
        assert_eq!(world.strikes(attacker()), 0);
        assert_eq!(moves(&world.tick(&[])), [(Kind::Release, Stage::Observe)]);
        assert!(world.engine.is_empty());
    }
}

#[test]
fn a_release_walks_down_one_stage_at_a_time_each_for_its_ttl() {
    let mut world = World::new(web());
    world.until(attacker(), Stage::Block, &[syn_flood(attacker(), 2_500)]);
    let start = world.secs;
    world.log.clear();
    world.ticks(2_000, &[]);
    let steps: Vec<_> = world
        .log
        .iter()
        .map(|(at, d)| (at - start, d.kind, d.to))
        .collect();
    assert_eq!(
        steps,
        [
            (600, Kind::Release, Stage::RateHard),
            (1200, Kind::Release, Stage::RateSoft),
            (1260, Kind::Release, Stage::Observe),
        ]
    );
    assert!(world.engine.is_empty());
}

#[test]
fn a_limit_does_not_end_before_enough_calm_ticks() {
    let mut config = web();
    config.ttl.soft = Duration::from_secs(10);
    config.hold.soft = Duration::ZERO;
    let mut world = World::new(config);
    world.tick(&[syn_flood(attacker(), 2_500)]);
    world.ticks(4, &[syn_flood(attacker(), 160)]);
    assert_eq!(world.ticks(7, &[]), []);
    assert_eq!(moves(&world.tick(&[])), [(Kind::Release, Stage::Observe)]);
}

#[test]
fn w14_pulses_do_not_get_out_of_a_limit() {
    // Bursts with pauses just long enough for strikes to decay.
    let mut world = World::new(web());
    world.until(attacker(), Stage::RateHard, &[syn_flood(attacker(), 2_500)]);
    for _ in 0..60 {
        world.ticks(12, &[]);
        world.ticks(3, &[syn_flood(attacker(), 2_500)]);
        assert_eq!(world.stage(attacker()), Stage::RateHard);
    }
}

#[test]
fn w25_an_old_debt_does_not_lead_back_up() {
    // An hour of severity 3 and a walk down leave nothing to jump from.
    let mut world = World::new(web());
    world.ticks(3_600, &[syn_flood(attacker(), 2_500)]);
    assert_eq!(world.strikes(attacker()), 15);
    world.until(attacker(), Stage::Observe, &[]);
    assert_eq!(world.ticks(1, &[syn_flood(attacker(), 600)]), []);
    assert_eq!(world.stage(attacker()), Stage::Observe);
}

/// Leaves each stage as soon as one tick is calm.
fn hasty() -> Config {
    let soonest = PerStage {
        soft: Duration::from_secs(1),
        hard: Duration::from_secs(1),
        block: Duration::from_secs(1),
    };
    Config {
        ttl: soonest,
        hold: soonest,
        down_need: 1,
        gate: None,
        ..web()
    }
}

#[test]
fn stepping_down_forgives_the_strikes_of_the_stage_left() {
    let mut world = World::new(hasty());
    world.ticks(20, &[syn_flood(attacker(), 2_500)]);
    assert_eq!(
        (world.stage(attacker()), world.strikes(attacker())),
        (Stage::Block, 15)
    );
    for (stage, strikes) in [
        (Stage::RateHard, 11),
        (Stage::RateSoft, 4),
        (Stage::Observe, 1),
    ] {
        world.tick(&[]);
        assert_eq!(
            (world.stage(attacker()), world.strikes(attacker())),
            (stage, strikes)
        );
    }
}

#[test]
fn stepping_down_forgives_not_yielding() {
    let mut config = hasty();
    config.block_at = Some(900);
    config.noncompliance = config
        .noncompliance
        .map(|rule| NonCompliance { reset: 0.1, ..rule });
    let mut world = World::new(config);
    let pushing = Sample {
        drops: 400,
        ..syn_flood(attacker(), 600)
    };
    world.until(attacker(), Stage::Block, &[pushing]);
    // Calm enough to be let go, not calm enough for the count to start over.
    world.tick(&[syn_flood(attacker(), 100)]);
    assert_eq!(world.stage(attacker()), Stage::RateHard);
    assert_eq!(world.until(attacker(), Stage::Block, &[pushing]), 15);
}

#[test]
fn only_a_high_tick_leads_up() {
    let mut config = web();
    config.up_need = 1;
    config.hard_at = Some(4);
    let mut world = World::new(config);
    world.tick(&[syn_flood(attacker(), 510)]);
    world.tick(&[syn_flood(attacker(), 2_400)]);
    assert_eq!(
        (world.stage(attacker()), world.strikes(attacker())),
        (Stage::RateSoft, 4)
    );
    assert_eq!(world.tick(&[syn_flood(attacker(), 300)]), []);
}

#[test]
fn a_tick_that_is_neither_sets_both_streaks_back_by_one() {
    let mut config = web();
    config.ttl.soft = Duration::from_secs(16);
    config.hold.soft = Duration::ZERO;
    config.down_need = 20;
    let mut world = World::new(config);
    world.tick(&[syn_flood(attacker(), 2_500)]);
    world.ticks(6, &[]);
    world.tick(&[syn_flood(attacker(), 160)]);
    assert_eq!(world.until(attacker(), Stage::Observe, &[]), 15);
}

#[test]
fn a_flash_earns_the_strikes_of_the_stage_it_leads_to() {
    let mut config = web();
    config.soft_at = 4;
    let decisions = World::new(config).tick(&[syn_flood(attacker(), 2_500)]);
    assert_eq!(decisions[0].why.strikes, 4);
}

#[test]
fn a_wide_limit_stays_wide_until_it_ends() {
    let mut config = hasty();
    config.soft_at = 6;
    config.hard_at = None;
    config.block_at = None;
    config.ttl.soft = Duration::from_secs(3);
    let scope = |decision: &Decision| match decision.hold {
        Some(Hold::Limit { scope, .. }) => Some(scope),
        Some(Hold::Deny) | None => None,
    };
    let mut world = World::new(config);
    world.tick(&[udp_flood(attacker(), 50_000)]);
    let renewed = world.ticks(3, &[syn_flood(attacker(), 5_000)]);
    assert_eq!(
        renewed.iter().map(scope).collect::<Vec<_>>(),
        [Some(LimitScope::All)]
    );
    world.until(attacker(), Stage::Observe, &[]);
    assert_eq!(
        world.strikes(attacker()),
        5,
        "so the source is still remembered"
    );
    let anew = world.tick(&[syn_flood(attacker(), 5_000)]);
    assert_eq!(scope(&anew[0]), Some(LimitScope::New));
}

#[test]
fn a_gate_below_the_threshold_remembers_since_when() {
    let mut config = web();
    config.gate = Some(BlockGate {
        severity: 0.5,
        lasting: Duration::from_secs(30),
    });
    let mut world = World::new(config);
    world.ticks(40, &[syn_flood(attacker(), 300)]);
    assert_eq!(
        world.until(attacker(), Stage::Block, &[syn_flood(attacker(), 2_500)]),
        4
    );
}

#[test]
fn explanations_are_rounded_as_far_as_a_reader_cares() {
    let why = Why {
        severity: 1.256,
        signal: Signal::Ports,
        rate: 9.94,
        trigger: 5.0,
        strikes: 2,
        nat: 1,
        proven: false,
        exempt: false,
    };
    assert_eq!(
        why.to_string(),
        "severity=1.26 signal=ports rate=9.9/s trigger=5/s strikes=2 nat=1"
    );
}

#[test]
fn a_persisting_flood_is_renewed_before_the_kernel_entry_ends() {
    let mut world = World::new(web());
    let flood = Sample {
        drops: 60_000,
        ..syn_flood(attacker(), 60_000)
    };
    world.until(attacker(), Stage::Block, &[flood]);
    let mut until = world.log.last().unwrap().1.until.unwrap();
    let mut renewals = 0;
    for _ in 0..3_600 {
        for decision in world.tick(&[flood]) {
            assert_eq!((decision.kind, decision.to), (Kind::Renew, Stage::Block));
            assert!(decision.until.unwrap() > until);
            until = decision.until.unwrap();
            renewals += 1;
        }
        assert!(until > Ktime::from_secs(world.secs));
    }
    assert_eq!(renewals, 12, "one each half life, not one each tick");
}

#[test]
fn a_blocked_source_that_merely_retries_is_let_go() {
    let mut world = World::new(web());
    world.until(attacker(), Stage::Block, &[syn_flood(attacker(), 2_500)]);
    let retries = Sample {
        drops: 2,
        ..syn_flood(attacker(), 2)
    };
    assert_eq!(world.until(attacker(), Stage::RateHard, &[retries]), 600);
}

#[test]
fn the_kernel_entry_outlives_the_stay_by_the_calm_ticks_it_may_wait_for() {
    let mut world = World::new(web());
    let decisions = world.tick(&[syn_flood(attacker(), 2_500)]);
    assert_eq!(
        decisions[0].until,
        Some(Ktime::from_secs(1001 + 60 + 8 + 3))
    );
}

#[test]
fn a_late_tick_stretches_the_kernel_entry_by_a_minute_a_tick_at_most() {
    let mut engine = Engine::new(web());
    let hour = Window {
        length: Duration::from_secs(3_600),
        samples: &[syn_flood(attacker(), 2_500 * 3_600)],
        coverage: Coverage::default(),
        all: None,
    };
    let decisions = engine.tick(Ktime::from_secs(5_000), hour, &|_| false);
    let until = Ktime::from_secs(5_000 + 60 + (8 + 3) * 60);
    assert_eq!(decisions[0].until, Some(until));
}

#[test]
fn w04_every_source_of_a_large_attack_is_held() {
    let floods: Vec<_> = (0..5_000u32)
        .map(|n| syn_flood(Source::host(std::net::Ipv4Addr::from(n).into()), 2_500))
        .collect();
    let mut world = World::new(web());
    assert_eq!(world.tick(&floods).len(), 5_000);
    world.ticks(40, &floods);
    assert!(
        world
            .engine
            .held()
            .all(|(_, stage, _)| stage == Stage::Block)
    );
    assert_eq!(world.engine.len(), 5_000);
}

#[test]
fn the_memory_of_a_past_attack_is_given_back() {
    let mut world = World::new(web());
    let once: Vec<_> = (0..12_000u32)
        .map(|n| syn_flood(Source::host(std::net::Ipv4Addr::from(n).into()), 600))
        .collect();
    world.tick(&once);
    assert_eq!(world.engine.len(), 12_000);
    world.ticks(2, &[]);
    assert!(world.engine.is_empty());
    assert!(world.engine.sources.ladders.capacity() < 8 * sorted::LEAST_ROOM);
}

#[test]
fn a_source_given_twice_counts_once() {
    let mut world = World::new(web());
    let flood = syn_flood(attacker(), 600);
    world.tick(&[flood, flood, flood]);
    assert_eq!((world.strikes(attacker()), world.engine.len()), (1, 1));
    let prefixes = ["192.0.2.0", "192.0.2.0/24", "192.0.2.0/28"];
    let floods = prefixes.map(|prefix| syn_flood(source(prefix), 600));
    world.tick(&floods);
    let again: Vec<_> = floods.iter().rev().chain(&floods).copied().collect();
    world.tick(&again);
    for prefix in prefixes {
        assert_eq!(world.strikes(source(prefix)), 2, "{prefix}");
    }
}

#[test]
fn a_sample_out_of_order_is_passed_over() {
    let [first, second] = ["192.0.2.1", "192.0.2.2"].map(|one| syn_flood(source(one), 2_500));
    let mut engine = Engine::new(web());
    let window = Window {
        length: Duration::from_secs(1),
        samples: [second, first, second].into_iter(),
        coverage: Coverage::default(),
        all: None,
    };
    let decisions =
        engine.tick_learning(Ktime::from_secs(5), window, &|_| false, &mut |_, _, _| {
            false
        });
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(
        (decisions[0].source, engine.overview().sources),
        (second.source, 1)
    );
}

#[test]
fn a_release_names_the_little_that_was_received() {
    let mut world = World::new(web());
    world.tick(&[syn_flood(attacker(), 2_500)]);
    let released = world.ticks(60, &[syn_flood(attacker(), 25)]);
    assert_eq!(
        released[0].why.to_string(),
        "severity=0.05 signal=syn rate=25/s trigger=250/s strikes=0 nat=1"
    );
}

#[test]
fn one_packet_in_a_tiny_window_is_no_flood() {
    let mut engine = Engine::new(web());
    let window = Window {
        length: Duration::from_micros(10),
        samples: &[port_scan(attacker(), 1)],
        coverage: Coverage::default(),
        all: None,
    };
    assert_eq!(engine.tick(Ktime::from_secs(5), window, &|_| false), []);
}
