//! What the data plane tells between ticks, and sources that are let go.

use super::*;

fn attacker() -> Source {
    source("198.51.100.7")
}

fn moves(decisions: &[Decision]) -> Vec<(Kind, Stage)> {
    decisions.iter().map(|d| (d.kind, d.to)).collect()
}

#[test]
fn an_alert_limits_between_ticks_and_the_tick_counts_the_window_once() {
    let mut world = World::new(web());
    world.tick(&[]);
    let now = Ktime::from_nanos(1_001_050_000_000);
    let seen = port_scan(attacker(), 200);
    let decision = world.engine.alert(now, &seen, &|_| false).unwrap();
    assert_eq!(
        (decision.kind, decision.to),
        (Kind::Escalate, Stage::RateSoft)
    );
    assert_eq!(decision.why.rate, 200.0, "counts are not extrapolated");
    assert_eq!(world.engine.alert(now, &seen, &|_| false), None);
    assert_eq!(world.tick(&[port_scan(attacker(), 250)]), []);
    assert_eq!(world.strikes(attacker()), 3);
}

#[test]
fn who_asks_right_after_an_alert_is_told_its_ports_and_later_what_the_tick_saw() {
    let mut world = World::new(web());
    world.tick(&[]);
    let ports = |world: &World, secs| {
        let explanation = world.engine.explain(&attacker(), Ktime::from_secs(secs));
        explanation.ports
    };
    let now = Ktime::from_secs(world.secs);
    let scan = port_scan(attacker(), 222);
    world.engine.alert(now, &scan, &|_| false).unwrap();
    assert_eq!(ports(&world, world.secs), [222; 3]);
    world.engine.forget(&[attacker()]);
    assert_eq!(ports(&world, world.secs), [0; 3]);
    world.engine.alert(now, &scan, &|_| false).unwrap();
    let seen = Sample {
        port_bits: u64::MAX >> 1,
        ports: 266,
        ..port_scan(attacker(), 266)
    };
    world.tick(&[seen]);
    assert_eq!(ports(&world, world.secs), [266; 3]);
    assert_eq!(ports(&world, world.secs + 100), [0, 266, 266]);
}

/// It was held as one host: of many behind one address, one that scanned had all of them limited.
#[test]
fn a_proven_peer_is_left_to_the_tick() {
    let mut world = World::new(web());
    world.tick(&[]);
    let now = Ktime::from_nanos(1_001_050_000_000);
    let seen = Sample {
        proven: true,
        ..port_scan(attacker(), 200)
    };
    assert_eq!(world.engine.alert(now, &seen, &|_| false), None);
    assert_eq!(
        moves(&world.tick(&[seen])),
        [(Kind::Escalate, Stage::RateSoft)]
    );
}

#[test]
fn an_alert_below_flash_or_of_an_exempt_source_does_nothing() {
    let mut world = World::new(web());
    let now = Ktime::from_secs(1000);
    let below = port_scan(attacker(), 199);
    assert_eq!(world.engine.alert(now, &below, &|_| false), None);
    let scan = port_scan(attacker(), 300);
    assert_eq!(world.engine.alert(now, &scan, &|_| true), None);
    assert!(world.engine.is_empty());
}

#[test]
fn the_port_alert_is_where_flash_begins() {
    assert_eq!(Engine::new(web()).port_alert(), 200);
    let mut config = web();
    config.flash = 0.0;
    assert_eq!(config.port_alert(), u32::MAX);
    let mut config = web();
    config.weights.ports = 0.0;
    assert_eq!(config.port_alert(), u32::MAX);
}

#[test]
fn an_exempt_source_is_never_held() {
    let mut world = World::new(web());
    world.exempt.push(attacker());
    assert_eq!(world.ticks(600, &[syn_flood(attacker(), 50_000)]), []);
}

#[test]
fn a_held_source_that_becomes_exempt_is_let_go_at_once() {
    for traffic in [vec![syn_flood(attacker(), 50_000)], vec![]] {
        let mut world = World::new(web());
        world.until(attacker(), Stage::Block, &[syn_flood(attacker(), 50_000)]);
        world.exempt.push(attacker());
        let decisions = world.tick(&traffic);
        assert_eq!(moves(&decisions), [(Kind::Release, Stage::Observe)]);
        assert_eq!(decisions[0].from, Stage::Block);
        assert!(decisions[0].why.to_string().ends_with(" exempt"));
        assert_eq!((decisions[0].hold, decisions[0].until), (None, None));
        assert!(world.engine.is_empty());
    }
}

#[test]
fn what_is_forgotten_starts_anew() {
    let other = source("2001:db8::/64");
    let floods = [syn_flood(attacker(), 50_000), syn_flood(other, 50_000)];
    let mut world = World::new(web());
    world.ticks(2, &floods);
    world.engine.forget(&[attacker()]);
    let held: Vec<_> = world
        .engine
        .held()
        .map(|(s, stage, _)| (*s, stage))
        .collect();
    assert_eq!(held, [(other, Stage::RateHard)]);
    world.engine.reset();
    assert!(world.engine.is_empty());
    let decisions = world.tick(&floods);
    assert_eq!(moves(&decisions), [(Kind::Escalate, Stage::RateSoft); 2]);
}

#[test]
fn an_alerted_source_is_held_and_forgotten_like_any_other() {
    let mut world = World::new(web());
    let scans: Vec<_> = (1..=9)
        .rev()
        .map(|n| port_scan(source(&format!("192.0.2.{n}")), 300))
        .collect();
    let now = Ktime::from_secs(world.secs);
    for scan in &scans {
        assert!(world.engine.alert(now, scan, &|_| false).is_some());
    }
    assert_eq!((world.engine.len(), world.engine.held().count()), (9, 9));
    world.engine.forget(&[source("192.0.2.5")]);
    assert_eq!(world.engine.len(), 8);
    assert_eq!(
        world.tick(&scans).len(),
        1,
        "only the forgotten one is news"
    );
    assert!(
        world
            .engine
            .sources
            .ladders
            .iter()
            .is_sorted_by_key(|(source, _)| *source)
    );
}

#[test]
fn an_alerted_source_is_found_again_among_known_ones() {
    let (low, high) = (source("192.0.2.1"), source("192.0.2.9"));
    let mut world = World::new(web());
    world.tick(&[port_scan(high, 300)]);
    let now = Ktime::from_secs(world.secs);
    world
        .engine
        .alert(now, &port_scan(low, 300), &|_| false)
        .unwrap();
    world.tick(&[port_scan(low, 300), port_scan(high, 300)]);
    assert_eq!((world.strikes(low), world.strikes(high)), (3, 6));
    assert_eq!(world.engine.len(), 2);
}
