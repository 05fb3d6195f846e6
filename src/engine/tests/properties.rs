use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::engine::config::whole;
use crate::model::Moment;

const SOURCES: [&str; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8::/64"];

/// Multiples of the triggers that lie around every bound.
fn level() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![
        0, 0, 1, 24, 26, 60, 99, 101, 199, 205, 450, 601, 999, 1_001, 9_000,
    ])
}

prop_compose! {
    fn sample()(
        at in 0..3usize,
        counts in (level(), level(), level()),
        drops in prop::sample::select(vec![0u32, 0, 0, 1, 9, 10, 500]),
        failing in prop::sample::select(vec![0u32, 0, 1, 60, 2_000]),
        asked in prop::sample::select(vec![0u32, 0, 0, 700]),
        bits in (any::<u64>(), any::<u32>()),
        known in (any::<bool>(), any::<bool>()),
    ) -> Sample {
        let (packets, syns, ports) = counts;
        Sample {
            packets: packets * 12,
            bytes: packets * 700,
            syns: u32::try_from(syns * 5 / 2).unwrap(),
            opens: u32::try_from(syns * 5 / 2).unwrap(),
            drops,
            ports: u32::try_from(ports / 5).unwrap(),
            port_bits: if ports > 60 { bits.0 } else { ports & 3 },
            stack_bits: bits.1 & 0xff,
            half_open: failing,
            refusals: failing / 2,
            answers: asked,
            proven: known.0,
            fresh: known.1,
            ..quiet(source(SOURCES[at]))
        }
    }
}

fn coverage() -> impl Strategy<Value = Coverage> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(proof, refusals, consent)| Coverage {
        proof,
        refusals,
        consent,
    })
}

fn world(config: Config, coverage: Coverage) -> World {
    World {
        coverage,
        ..World::new(config)
    }
}

/// Windows that last for a while each, so that every stage is reached and left.
fn story() -> impl Strategy<Value = Vec<(u64, Vec<Sample>)>> {
    let window = prop::collection::vec(sample(), 0..4).prop_map(|mut samples| {
        samples.sort_by_key(|sample| sample.source);
        samples.dedup_by_key(|sample| sample.source);
        samples
    });
    prop::collection::vec((1..40u64, window), 1..20)
}

prop_compose! {
    fn config()(
        steps in (1..4u32, 1..4u32, 1..8u32),
        need in (0..4u32, 0..10u32),
        ttl in (1..50u64, 1..80u64, 1..120u64),
        hold in (0..60u64, 0..60u64),
        gate in prop::option::of((0.5..3.0f64, 0..40u64)),
        nevers in (any::<bool>(), any::<bool>()),
        noncompliance in prop::option::of((1..20u32, 0.0..12.0f64, 0.0..3.0f64, 0.0..0.5f64)),
    ) -> Config {
        let secs = Duration::from_secs;
        let hard_at = (!nevers.0).then_some(steps.0 + steps.1);
        Config {
            soft_at: steps.0,
            hard_at,
            block_at: hard_at.filter(|_| !nevers.1).map(|at| at + steps.2),
            up_need: need.0,
            down_need: need.1,
            ttl: PerStage { soft: secs(ttl.0), hard: secs(ttl.1), block: secs(ttl.2) },
            hold: PerStage { soft: secs(hold.0), hard: secs(hold.1), block: secs(hold.1) },
            gate: gate.map(|(severity, lasting)| BlockGate { severity, lasting: secs(lasting) }),
            noncompliance: noncompliance.map(|(at, drops, severity, reset)| NonCompliance {
                at, drops, severity, reset,
            }),
            ..web()
        }
    }
}

prop_compose! {
    /// Around every bound of `config`.
    fn score()(
        severity in prop_oneof![0.0..3.5f64, prop::sample::select(vec![0.0, 0.5, 1.0, 2.8, 3.0])],
        drops in prop_oneof![Just(0.0), 0.0..13.0f64],
        ratio in prop_oneof![0.0..2.0f64, 9.0..11.0f64],
        lasted in any::<bool>(),
    ) -> Score {
        Score { severity, drops, ratio, lasted, signal: Signal::Packets, ..Score::SILENT }
    }
}

prop_compose! {
    /// What severity is made of, and any gate.
    fn gauged()(
        config in config(),
        triggers in prop::array::uniform4(prop_oneof![Just(0.0), Just(5e-324), 0.5..5_000.0f64]),
        weights in prop::array::uniform4(prop_oneof![Just(0.0), 0.0..2.0f64]),
        dominance in prop::sample::select(vec![0.0, 5e-324, 0.7, 2.0, 49.0]),
        flash in prop::sample::select(vec![0.0, 0.2, 10.0]),
        cap in 0.2..6.0f64,
        gate in prop::option::of(0.1..3.0f64),
    ) -> Config {
        let ([pps, bps, syn, ports], lasting) = (triggers, Duration::ZERO);
        let triggers = Triggers { pps, bps, syn, ports };
        let [pps, bps, syn, ports] = weights;
        Config {
            triggers,
            weights: Weights { pps, bps, syn, ports },
            dominance,
            flash,
            cap,
            gate: gate.map(|severity| BlockGate { severity, lasting }),
            ..config
        }
    }
}

prop_compose! {
    /// A window's length, pressure, and what of each count that is calm there is of it.
    fn scene()(
        millis in 50..5_000u64,
        pressure in prop_oneof![Just(1.0), 1.0..8.0f64],
        shares in prop::array::uniform6(prop::sample::select(vec![0.0, 0.5, 1.0, 1.0])),
    ) -> (Duration, f64, [f64; 6]) {
        (Duration::from_millis(millis), pressure, shares)
    }
}

/// What the kernel would hold: stage, since when, until when.
#[derive(Default)]
struct Kernel(BTreeMap<Source, (Stage, u64, Ktime)>);

impl Kernel {
    fn stage(&self, of: &Source) -> Stage {
        self.0.get(of).map_or(Stage::Observe, |entry| entry.0)
    }

    fn apply(&mut self, config: &Config, secs: u64, decision: &Decision) {
        let Decision {
            source,
            from,
            to,
            kind,
            ..
        } = decision;
        assert_eq!(*from, self.stage(source), "{decision:?}");
        match kind {
            Kind::Escalate => assert_eq!(to.milder(), *from, "one stage up"),
            Kind::Renew => assert_eq!(to, from),
            Kind::Release => {
                assert_eq!(*to, from.milder(), "one stage down");
                assert!(*to < *from);
                let stayed = Duration::from_secs(secs - self.0[source].1);
                assert!(stayed >= config.stay(*from), "left {from} after {stayed:?}");
            }
        }
        assert_eq!(decision.hold.is_some(), *to > Stage::Observe);
        assert_eq!(decision.until.is_some(), *to > Stage::Observe);
        match decision.until {
            Some(until) => {
                let least = Ktime::from_secs(secs) + config.stay(*to);
                assert!(until > least, "outlives the stay");
                self.0.insert(*source, (*to, secs, until));
            }
            None => {
                self.0.remove(source);
            }
        }
    }
}

fn play(world: &mut World, kernel: &mut Kernel, samples: &[Sample]) -> Vec<Decision> {
    let config = world.engine.config.clone();
    let decisions = world.tick(samples);
    let sources: BTreeSet<_> = decisions.iter().map(|d| d.source).collect();
    assert_eq!(sources.len(), decisions.len(), "one per source");
    for decision in &decisions {
        kernel.apply(&config, world.secs, decision);
    }
    let held: BTreeMap<_, _> = world
        .engine
        .held()
        .map(|(s, stage, until)| (*s, (stage, until)))
        .collect();
    let kept: BTreeMap<_, _> = kernel
        .0
        .iter()
        .map(|(s, (stage, _, until))| (*s, (*stage, *until)))
        .collect();
    assert_eq!(held, kept, "engine and kernel agree");
    for (_, until) in held.values() {
        assert!(
            *until > Ktime::from_secs(world.secs),
            "no entry ends before its release"
        );
    }
    for (_, ladder) in world.engine.sources.ladders.iter() {
        assert!(ladder.strikes <= config.strike_ceiling());
        assert!(!ladder.is_blank());
    }
    decisions
}

proptest! {
    /// Who needs no ladder would have had one with nothing in it, and nobody else would.
    #[test]
    fn a_source_goes_without_a_ladder_exactly_where_it_would_stay_blank(
        config in config(), score in score(), flash in prop::sample::select(vec![0.0, 10.0]),
    ) {
        let config = Config { flash, ..config };
        let length = Duration::from_secs(1);
        let tick = Tick { config: &config, now: Ktime::from_secs(9), length, many: false };
        let mut ladder = Ladder::default();
        let step = ladder.advance(&tick, &score);
        let blank = step.is_none() && ladder.is_blank();
        prop_assert_eq!(tick.leaves_blank(&score), blank);
    }

    /// Who needs no score would have had one that is not loud, and no ladder with anything in it.
    #[test]
    fn who_is_calm_leaves_nothing_to_remember(
        config in gauged(), coverage in coverage(), scene in scene(), proven in any::<bool>(),
        hosts in 1..4u32, answers in 0..9u32,
    ) {
        let (length, pressure, shares) = scene;
        let scale = Scale::new(&config, length, coverage);
        let calm = scale.calm(pressure);
        let mut shares = shares.into_iter();
        let [syns, ports, half_open, refusals, packets, bytes] = calm.most.map(|most| {
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            whole(f64::from(most) * shares.next().unwrap()).min(most)
        });
        let sample = Sample {
            syns, ports, half_open, refusals, answers, proven,
            opens: syns,
            packets: packets.into(),
            bytes: bytes.into(),
            ..Sample::silent(source(SOURCES[0]))
        };
        let standing = Standing { hosts, pressure, ..Standing::default() };
        prop_assert!(calm.holds(&sample, &standing));
        let score = scale.score(&sample, &standing).score;
        let tick = Tick { config: &config, now: Ktime::from_secs(9), length, many: false };
        prop_assert!(scale.is_fit_to_learn(&score), "{score:?}");
        prop_assert!(tick.leaves_blank(&score), "{score:?}");
    }

    /// Decisions are well-formed, every stage is kept for its stay, and the kernel's entry never
    /// ends first, whatever the traffic.
    #[test]
    fn decisions_keep_their_promises(
        config in config(), coverage in coverage(), story in story(),
    ) {
        let mut world = world(config, coverage);
        let mut kernel = Kernel::default();
        for (seconds, samples) in &story {
            for _ in 0..*seconds {
                play(&mut world, &mut kernel, samples);
            }
        }
    }

    /// Once the traffic ends, so does every hold, after a walk down of known length; and nothing
    /// is remembered beyond it.
    #[test]
    fn silence_frees_everyone(config in config(), coverage in coverage(), story in story()) {
        let stays: Duration = Stage::ALL.iter().map(|stage| config.stay(*stage)).sum();
        let most = stays.as_secs() + u64::from(config.down_need) + 1;
        let strikes = u64::from(config.strike_ceiling());
        let mut world = world(config, coverage);
        let mut kernel = Kernel::default();
        for (seconds, samples) in &story {
            world.ticks(*seconds, samples);
        }
        for (source, stage, until) in world.engine.held() {
            kernel.0.insert(*source, (stage, 0, until));
        }
        for _ in 0..most {
            play(&mut world, &mut kernel, &[]);
        }
        prop_assert!(kernel.0.is_empty());
        world.ticks(strikes.saturating_sub(most), &[]);
        prop_assert!(world.engine.is_empty());
    }

    /// The order of a table dump does not matter, and neither does who is asked.
    #[test]
    fn equal_windows_give_equal_decisions(
        config in config(), coverage in coverage(), story in story(),
    ) {
        let mut forward = world(config.clone(), coverage);
        let mut backward = world(config, coverage);
        for (seconds, samples) in &story {
            let reversed: Vec<_> = samples.iter().rev().copied().collect();
            prop_assert_eq!(forward.ticks(*seconds, samples), backward.ticks(*seconds, &reversed));
        }
    }

    /// Neither does the order that samples come in, but for that of decisions.
    #[test]
    fn a_table_s_order_gives_the_decisions_that_that_of_sources_gives(
        config in config(), coverage in coverage(), story in story(), seed in any::<[u64; 5]>(),
        mask in 1..4u32,
    ) {
        let mut by_source = world(config.clone(), coverage);
        let mut by_place = world(config.clone(), coverage);
        by_place.engine = Engine::in_order(config, Order::of_table(seed, mask));
        for (seconds, samples) in &story {
            for _ in 0..*seconds {
                let expected = by_source.tick(samples);
                let mut decisions = by_place.tick(samples);
                let place = |one: &Decision| expected.iter().position(|other| one == other);
                decisions.sort_by_key(place);
                prop_assert_eq!(&decisions, &expected);
                for of in SOURCES.map(source) {
                    let now = Ktime::from_secs(by_source.secs);
                    let other = by_place.engine.explain(&of, now);
                    prop_assert_eq!(by_source.engine.explain(&of, now), other);
                }
            }
        }
    }

    /// Below a severity of 1 and without drops nobody is ever held.
    #[test]
    fn nobody_is_held_below_the_threshold(config in config(), story in story()) {
        let mut world = World::new(config);
        for (seconds, samples) in &story {
            let mild: Vec<_> = samples
                .iter()
                .map(|sample| Sample { drops: 0, port_bits: 0, half_open: 0, refusals: 0, ..*sample })
                .filter(|sample| severity(&world.engine.config, sample) < 1.0)
                .collect();
            prop_assert_eq!(world.ticks(*seconds, &mild), vec![]);
        }
    }

    /// An alert changes when a source is first limited, never how many strikes it has. Drops are
    /// left out: they count by the stage, which an alert brings a tick earlier.
    #[test]
    fn alerts_earn_no_strikes(story in story()) {
        let mut alerted = World::new(web());
        let mut plain = World::new(web());
        for (_, samples) in &story {
            let samples: Vec<_> =
                samples.iter().map(|sample| Sample { drops: 0, ..*sample }).collect();
            for sample in &samples {
                let now = Ktime::from_secs(alerted.secs);
                alerted.engine.alert(now, sample, &|_| false);
            }
            alerted.tick(&samples);
            plain.tick(&samples);
            for text in SOURCES {
                let of = source(text);
                prop_assert!(alerted.strikes(of) <= plain.strikes(of).max(2));
                prop_assert!(alerted.stage(of) >= plain.stage(of).min(Stage::RateSoft));
            }
        }
    }

    /// A restart between any two ticks, over a reboot that sets the kernel's clock back, changes
    /// nobody's stage and lengthens nobody's stay.
    #[test]
    fn a_restart_neither_frees_nor_keeps_anyone(
        config in config(), coverage in coverage(), story in story(),
    ) {
        let mut old = world(config.clone(), coverage);
        for (seconds, samples) in &story {
            old.ticks(*seconds, samples);
        }
        let before = Moment {
            ktime: Ktime::from_secs(old.secs),
            unix: Duration::from_secs(1_800_000_000),
        };
        let after = Moment {
            ktime: Ktime::from_secs(500_000),
            ..before
        };
        let written = old.engine.state(before);
        let json = serde_json::to_string(&written).unwrap();
        let state = serde_json::from_str(&json).unwrap();
        let mut new = world(config, coverage);
        new.secs = 500_000;
        new.engine.restore(&state, after);
        prop_assert_eq!(new.engine.state(after), written);
        let stages = |world: &World| -> BTreeMap<_, _> {
            world.engine.held().map(|(source, stage, _)| (*source, stage)).collect()
        };
        for _ in 0..400 {
            prop_assert_eq!(stages(&old), stages(&new));
            old.tick(&[]);
            new.tick(&[]);
        }
        prop_assert!(stages(&new).is_empty());
    }
}
