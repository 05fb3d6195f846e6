//! Restart, reset and another configuration while running.

use super::*;
use crate::model::{Hold, LimitScope, Moment, RateLimit};

fn attacker() -> Source {
    source("198.51.100.7")
}

fn moment(secs: u64, unix: u64) -> Moment {
    Moment {
        ktime: Ktime::from_secs(secs),
        unix: Duration::from_secs(unix),
    }
}

fn blocked() -> World {
    let mut world = World::new(web());
    world.until(attacker(), Stage::Block, &[syn_flood(attacker(), 2_500)]);
    world
}

#[test]
fn w18_a_restart_goes_on_where_it_was() {
    let old = blocked();
    let state = old.engine.state(moment(old.secs, 1_800_000_000));
    let held = &state.held[0];
    assert_eq!(held.ends_ms, 1_800_000_600_000, "600 s from now");
    // 200 s later, after a reboot.
    let mut new = Engine::new(web());
    let decisions = new.restore(&state, moment(30, 1_800_000_200));
    assert_eq!(decisions.len(), 1);
    assert_eq!(
        (decisions[0].kind, decisions[0].hold),
        (Kind::Renew, Some(Hold::Deny))
    );
    assert_eq!(decisions[0].until, Some(Ktime::from_secs(30 + 400 + 8 + 3)));
    assert_eq!(decisions[0].why.signal, Signal::Syns);
    let explained = new.explain(&attacker(), Ktime::from_secs(30));
    assert_eq!((explained.stage, explained.strikes), (Stage::Block, 15));
    assert_eq!(explained.ends, Ktime::from_secs(430));
    assert_eq!(new.restore(&state, moment(30, 1_800_000_200)), [], "once");
}

#[test]
fn w18_what_ended_meanwhile_is_not_taken_up() {
    let old = blocked();
    let state = old.engine.state(moment(old.secs, 1_800_000_000));
    let mut new = Engine::new(web());
    assert_eq!(new.restore(&state, moment(30, 1_800_000_611)), []);
    assert!(new.is_empty());
}

#[test]
fn a_state_that_contradicts_itself_is_passed_over() {
    let old = blocked();
    let mut state = old.engine.state(moment(old.secs, 1_800_000_000));
    state.held[0].stage = Stage::RateHard;
    let mut new = Engine::new(web());
    assert_eq!(new.restore(&state, moment(30, 1_800_000_000)), []);
    state.held[0].stage = Stage::Block;
    state.held[0].strikes = 1_000_000;
    new.restore(&state, moment(30, 1_800_000_000));
    assert_eq!(new.explain(&attacker(), Ktime::from_secs(30)).strikes, 15);
    let json = serde_json::to_string(&state).unwrap();
    let wrong = json.replace("\"BLOCK\"", "\"BLOK\"");
    assert!(serde_json::from_str::<EngineState>(&wrong).is_err());
}

#[test]
fn w18_an_entry_of_the_kernel_that_no_state_tells_of_is_taken_up_until_it_ends() {
    let nonzero = |n| std::num::NonZeroU32::new(n).unwrap();
    let limit = RateLimit {
        pps: nonzero(100),
        burst: nonzero(200),
    };
    let scope = LimitScope::All;
    let mut engine = Engine::new(web());
    let (now, until) = (Ktime::from_secs(50), Ktime::from_secs(90));
    engine.adopt(attacker(), Hold::Limit { limit, scope }, until, now);
    engine.adopt(source("192.0.2.1"), Hold::Deny, Ktime::from_secs(50), now);
    let held: Vec<_> = engine
        .held()
        .map(|(s, stage, until)| (*s, stage, until))
        .collect();
    assert_eq!(held, [(attacker(), Stage::RateHard, until)]);
    let mut world = World {
        engine,
        secs: 50,
        ..World::new(web())
    };
    let decisions = world.ticks(39, &[]);
    assert_eq!(decisions, []);
    let release = &world.tick(&[])[0];
    assert_eq!((release.kind, release.to), (Kind::Release, Stage::RateSoft));
}

#[test]
fn w17_after_a_reset_an_attacker_is_held_again_at_once() {
    let mut world = blocked();
    world.engine.reset();
    assert_eq!(world.stage(attacker()), Stage::Observe);
    let decisions = world.tick(&[syn_flood(attacker(), 2_500)]);
    assert_eq!(
        (decisions[0].from, decisions[0].to),
        (Stage::Observe, Stage::RateSoft)
    );
}

#[test]
fn another_configuration_judges_the_next_window_and_frees_nobody() {
    let mut world = blocked();
    let mut lenient = web();
    lenient.triggers.syn = 50_000.0;
    lenient.triggers.pps = 50_000.0;
    world.engine.reconfigure(lenient);
    assert_eq!(world.stage(attacker()), Stage::Block);
    let took = world.until(attacker(), Stage::RateHard, &[syn_flood(attacker(), 2_500)]);
    assert_eq!(took, 600, "the stay that was decided");
    let other = source("192.0.2.1");
    assert_eq!(world.ticks(60, &[syn_flood(other, 2_500)]), []);
    let mut strict = web();
    (strict.soft_at, strict.hard_at, strict.block_at) = (1, Some(2), Some(3));
    world.engine.reconfigure(strict);
    world.tick(&[syn_flood(attacker(), 2_500)]);
    assert!(
        world.strikes(attacker()) <= 6,
        "never beyond the new ceiling"
    );
}

#[test]
fn w48_a_lasting_attack_is_told_once_and_renewed_rarely() {
    let mut world = World::new(web());
    let flood = Sample {
        drops: 50_000,
        ..syn_flood(attacker(), 50_000)
    };
    world.ticks(3_600, &[flood]);
    let transitions = world.log.iter().filter(|(_, d)| d.from != d.to).count();
    assert_eq!(transitions, 3, "soft, hard, block");
    assert!(
        world.log.len() < 20,
        "{} decisions in an hour",
        world.log.len()
    );
}
