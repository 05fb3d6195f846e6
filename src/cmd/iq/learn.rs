//! Autotune: from a profile to a plan, and from what was learned back to the engine.

use std::time::Duration;

use crate::autotune::{Phase, Plan, Revision, Step, Tuner, TunerState};
use crate::engine::{Config, Overview, REFUSALS_MOST, Triggers};
use crate::exempt::Walk;
use crate::model::Source;
use crate::profile::schema;
use crate::profile::{Amount, Effective};
use crate::report::Threshold;
use crate::telemetry::Order;

/// Whose rates thresholds are learned from, in one window: who is exempt is not normal traffic,
/// unless an operator says so of the whitelist.
#[derive(Default)]
pub(super) struct Pupils {
    vouched: Walk,
    excluded: Walk,
}

impl Pupils {
    /// `whitelisted` sources, and who else is exempt, for samples in `order`.
    pub(super) fn new(
        whitelist_learn: bool,
        whitelisted: impl IntoIterator<Item = Source>,
        others: impl IntoIterator<Item = Source>,
        order: Order,
    ) -> Self {
        if whitelist_learn {
            Self {
                vouched: Walk::new(whitelisted, order),
                excluded: Walk::new(others, order),
            }
        } else {
            Self {
                vouched: Walk::default(),
                excluded: Walk::new(whitelisted.into_iter().chain(others), order),
            }
        }
    }

    fn include(&mut self, source: &Source, fit: bool) -> bool {
        self.vouched.covers(source) || (fit && !self.excluded.covers(source))
    }
}

/// The profile's figures, and what became of them.
pub(super) struct Learner {
    /// What the profile says, and from where thresholds start.
    base: Config,
    /// The profile's own triggers.
    written: Triggers,
    /// `None`: thresholds stay as written.
    tuner: Option<Tuner>,
    allow_block: bool,
    bootstrap: bool,
}

impl Learner {
    /// Goes on from `state`, which may come from another profile.
    pub(super) fn new(
        effective: &Effective,
        base: Config,
        profile: &str,
        state: Option<TunerState>,
    ) -> Self {
        let autotune = &effective.spec().autotune;
        let written = base.triggers;
        let start = start(effective, written, state.as_ref());
        let plan = plan(autotune);
        let tuner = autotune.enabled.then(|| match state {
            Some(state) => Tuner::restore(plan, profile, start, state),
            None => Tuner::new(plan, profile, start),
        });
        let base = Config {
            triggers: start,
            ..base
        };
        Self {
            base,
            written,
            tuner,
            allow_block: autotune.bootstrap.allow_block,
            bootstrap: autotune.bootstrap.enabled,
        }
    }

    /// What the engine is to go by now.
    pub(super) fn config(&self) -> Config {
        let mut config = self.base.clone();
        if let Some(tuner) = &self.tuner {
            config.triggers = tuner.triggers();
        }
        if !self.may_block() {
            config.block_at = None;
        }
        config
    }

    /// Nobody is blocked by thresholds that are still being found, unless that is asked for.
    pub(super) fn may_block(&self) -> bool {
        let learning = self.bootstrap
            && self
                .tuner
                .as_ref()
                .is_some_and(|tuner| tuner.phase() != Phase::Steady);
        self.base.block_at.is_some() && (self.allow_block || !learning)
    }

    /// Learns from a source of one window if it is one to learn from, `fit` by itself or not, and
    /// answers whether it is. Sources come in order.
    pub(super) fn learn_from(
        &mut self,
        pupils: &mut Pupils,
        source: &Source,
        rates: &Triggers,
        fit: bool,
    ) -> bool {
        let learns = pupils.include(source, fit);
        if learns && let Some(tuner) = &mut self.tuner {
            tuner.learn(rates);
        }
        learns
    }

    /// Ends a tick. Whether `config` may have changed, and the revision if there is one.
    pub(super) fn tick(
        &mut self,
        length: Duration,
        overview: &Overview,
        at_ms: u64,
    ) -> (bool, Option<Revision>) {
        let before = self.may_block();
        let revision = self
            .tuner
            .as_mut()
            .and_then(|tuner| tuner.tick(length, overview, at_ms));
        (revision.is_some() || before != self.may_block(), revision)
    }

    pub(super) fn state(&self) -> Option<TunerState> {
        self.tuner.as_ref().map(|tuner| tuner.state().clone())
    }

    pub(super) fn tuner(&self) -> Option<&Tuner> {
        self.tuner.as_ref()
    }

    /// Each threshold with who set it.
    pub(super) fn thresholds(&self, effective: &Effective) -> Vec<Threshold> {
        let config = self.config();
        let signals = &effective.spec().signal_engine;
        let one = |signal: &str, name, of: fn(&Triggers) -> f64, amount: Amount| {
            let values = [&config.triggers, &self.base.triggers, &self.written].map(of);
            let (key, origin) = self.origin(effective, name, amount.get(), values);
            Threshold {
                signal: signal.to_owned(),
                value: of(&config.triggers),
                origin,
                key,
            }
        };
        let follows = |signal: &str, key: &str, value, how| {
            let key = format!("evidence.{key}");
            Threshold {
                signal: signal.to_owned(),
                value,
                origin: format!("{}, {how}", effective.origin(&key)),
                key,
            }
        };
        let (half_open, refusals) = (config.half_open_trigger(), config.refusals_trigger());
        let up_to = format!("times ports up to {REFUSALS_MOST}");
        vec![
            one("pps", "pps", |all| all.pps, signals.pps_trigger),
            one("bps", "bps", |all| all.bps, signals.bps_trigger),
            one("syn", "syn", |all| all.syn, signals.syn_trigger),
            one("ports", "scan", |all| all.ports, signals.scan_trigger),
            follows("half-open", "half_open", half_open, "times syn"),
            follows("refusals", "refusals", refusals, &up_to),
        ]
    }

    /// The key that a trigger comes from, or started from, and who set it. `values`: now, where it
    /// started, and what the profile says.
    fn origin(
        &self,
        effective: &Effective,
        name: &str,
        amount: f64,
        [value, start, written]: [f64; 3],
    ) -> (String, String) {
        let deferred = effective.spec().signal_engine.pps_trigger.get() <= 0.0 && amount <= 0.0;
        let key = if deferred {
            format!("autotune.floors.{name}")
        } else {
            format!("signal_engine.{name}_trigger")
        };
        let by = effective.origin(&key);
        let differ = |one: f64, other: f64| (one - other).abs() > f64::EPSILON;
        let tuner = self.tuner.as_ref();
        let revision = tuner.and_then(|tuner| tuner.history().last());
        let origin = match revision {
            Some(revision) if differ(value, start) || differ(start, written) => {
                format!("learned, revision {}, from {by}", revision.revision)
            }
            None if differ(start, written) => format!("learned, from {by}"),
            Some(_) | None => by.to_owned(),
        };
        (key, origin)
    }
}

/// Where thresholds start: as written, and what a profile leaves to learned state from there.
fn start(effective: &Effective, base: Triggers, state: Option<&TunerState>) -> Triggers {
    let signals = &effective.spec().signal_engine;
    let Some(learned) = state.map(|state| state.triggers) else {
        return base;
    };
    if signals.pps_trigger.get() > 0.0 {
        return base;
    }
    let pick = |written: f64, base: f64, learned: f64| {
        if written <= 0.0 && learned > 0.0 {
            learned
        } else {
            base
        }
    };
    Triggers {
        pps: pick(0.0, base.pps, learned.pps),
        bps: pick(signals.bps_trigger.get(), base.bps, learned.bps),
        syn: pick(signals.syn_trigger.get(), base.syn, learned.syn),
        ports: pick(signals.scan_trigger.get(), base.ports, learned.ports),
    }
}

fn plan(autotune: &schema::Autotune) -> Plan {
    let written = &autotune.bootstrap;
    let default = Plan::default();
    let step = |phase: &schema::Phase, like: &Step, alpha: f64| Step {
        interval: phase.interval.get(),
        max_up: phase.max_up.get(),
        max_down: phase.max_down.get().min(1.0),
        alpha,
        ..*like
    };
    let window = if written.enabled {
        written.window.get()
    } else {
        Duration::ZERO
    };
    let floors = &autotune.floors;
    Plan {
        phase1_end: written.phase1_end.get(),
        phase2_end: written.phase2_end.get(),
        window,
        // Smoothing is for steady state only: bootstrap is bounded by its steps.
        phase1: step(&written.phase1, &default.phase1, 1.0),
        phase2: step(&written.phase2, &default.phase2, 1.0),
        phase3: step(&written.phase3, &default.phase3, 1.0),
        steady: step(
            &written.steady,
            &default.steady,
            written.steady.alpha.get().min(1.0),
        ),
        k_start: written.k_start.get(),
        k_final: written.k_final.get(),
        min_samples: autotune.min_samples.into(),
        floors: Triggers {
            pps: floors.pps.get(),
            bps: floors.bps.get(),
            syn: floors.syn.get(),
            ports: floors.scan.get(),
        },
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Overrides, Profile};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn effective(name: &str, set: &[&str]) -> Effective {
        let overrides = Overrides {
            set: set.iter().map(|one| (*one).to_owned()).collect(),
            ..Overrides::default()
        };
        Profile::named(name).unwrap().effective(&overrides).unwrap()
    }

    fn learner(name: &str, set: &[&str], state: Option<TunerState>) -> Learner {
        let effective = effective(name, set);
        let base = effective.config().unwrap();
        Learner::new(&effective, base, name, state)
    }

    /// Hours of many sources at these rates; ticks are a minute long.
    fn run(learner: &mut Learner, hours: u32, rates: &Triggers) {
        let overview = Overview {
            sources: 20,
            learned: 20,
            ..Overview::default()
        };
        for minute in 0..60 * hours {
            for _ in 0..20 {
                learner.learn_from(&mut Pupils::default(), &Source::UNSPECIFIED, rates, true);
            }
            learner.tick(HOUR / 60, &overview, u64::from(minute) * 60_000);
        }
    }

    const BUSY: Triggers = Triggers {
        pps: 900.0,
        bps: 90_000.0,
        syn: 150.0,
        ports: 12.0,
    };

    #[test]
    fn nobody_is_blocked_while_thresholds_are_first_learned_unless_asked() {
        let block_at = |learner: &Learner| learner.config().block_at;
        assert_eq!(block_at(&learner("idp", &[], None)), Some(8));
        let asked = ["autotune.bootstrap.allow_block=false"];
        let mut waiting = learner("idp", &asked, None);
        assert_eq!(block_at(&waiting), None);
        run(&mut waiting, 337, &BUSY);
        assert_eq!(waiting.tuner().unwrap().phase(), Phase::Steady);
        assert_eq!(block_at(&waiting), Some(8), "the bootstrap is over");
        let off = [asked[0], "autotune.bootstrap.enabled=false"];
        assert_eq!(block_at(&learner("idp", &off, None)), Some(8));
    }

    #[test]
    fn w32_a_restart_loses_no_sample_and_w31_a_changed_profile_no_time() {
        let mut before = learner("web-server-bootstrap", &[], None);
        run(&mut before, 60, &BUSY);
        let state = before.state().unwrap();
        assert!(state.triggers.pps < 8_000.0, "{:?}", state.triggers);
        // As the state file has it.
        let text = serde_json::to_string(&state).unwrap();
        let read: TunerState = serde_json::from_str(&text).unwrap();
        let after = learner("web-server-bootstrap", &[], Some(read.clone()));
        assert!(after.state().unwrap() == state, "to the last bit");
        assert_eq!(after.config().triggers, before.config().triggers);
        let floors = ["autotune.floors.pps=350"];
        let changed = learner("web-server-bootstrap", &floors, Some(read.clone()));
        assert_eq!(changed.state().unwrap().observed, state.observed);
        let production = learner("web-server", &[], Some(read)).state().unwrap();
        assert_eq!(production.observed, state.observed);
        assert!(production.estimator == state.estimator);
    }

    #[test]
    fn w33_thresholds_of_another_profile_do_not_survive_a_switch_but_what_is_left_to_state_does() {
        let mut router = learner("ziti-router", &[], None);
        run(&mut router, 2, &BUSY);
        let state = router.state().unwrap();
        let idp = learner("idp", &[], Some(state.clone()));
        assert_eq!(idp.config().triggers.pps, 350.0);
        let deferred = ["signal_engine.pps_trigger=0", "signal_engine.syn_trigger=0"];
        let idp = learner("idp", &deferred, Some(state.clone()));
        let (now, learned) = (idp.config().triggers, state.triggers);
        assert_eq!(
            (now.pps, now.syn, now.ports),
            (learned.pps, learned.syn, 10.0)
        );
    }

    #[test]
    fn who_is_exempt_teaches_nothing_unless_an_operator_says_so_of_the_whitelist() {
        let [listed, other, stranger] = ["192.0.2.7", "192.0.2.9", "192.0.2.11"];
        let source = |text: &str| -> Source { text.parse().unwrap() };
        let taught = |whitelist_learn: bool, fit: bool| {
            let mut learner = learner("web-server", &[], None);
            let (white, rest) = ([source("192.0.2.0/29")], [source(other)]);
            let mut pupils = Pupils::new(whitelist_learn, white, rest, Order::BY_SOURCE);
            let learned = [listed, other, stranger]
                .map(|one| learner.learn_from(&mut pupils, &source(one), &BUSY, fit));
            let before = super::tests::learner("web-server", &[], None);
            let moved = learner.state() != before.state();
            assert_eq!(moved, learned.contains(&true));
            learned
        };
        // Quiet or loud.
        assert_eq!(taught(false, true), [false, false, true]);
        assert_eq!(taught(false, false), [false, false, false]);
        assert_eq!(taught(true, true), [true, false, true]);
        assert_eq!(taught(true, false), [true, false, false]);
    }

    #[test]
    fn each_threshold_says_who_set_it() {
        let mut learner = learner("web-server-bootstrap", &[], None);
        let effective = effective("web-server-bootstrap", &[]);
        let origin = |learner: &Learner| learner.thresholds(&effective)[0].origin.clone();
        assert_eq!(origin(&learner), "profile web-server-bootstrap");
        run(&mut learner, 2, &BUSY);
        assert_eq!(
            origin(&learner),
            "learned, revision 2, from profile web-server-bootstrap"
        );
        let thresholds = learner.thresholds(&effective);
        let of = |signal: &str| {
            let one = thresholds.iter().find(|one| one.signal == signal).unwrap();
            (one.value, one.origin.as_str(), one.key.as_str())
        };
        let config = learner.config();
        assert_eq!(
            of("half-open"),
            (
                config.triggers.syn / 2.0,
                "default, times syn",
                "evidence.half_open"
            )
        );
        assert_eq!(
            of("refusals"),
            (50.0, "default, times ports up to 50", "evidence.refusals")
        );
    }

    /// A file that says 0 set nothing: the floor did, or what was learned.
    #[test]
    fn a_trigger_that_is_left_to_learned_state_says_where_it_is_from() {
        let deferred = [
            "signal_engine.pps_trigger=0",
            "signal_engine.syn_trigger=0",
            "autotune.floors.pps=70",
        ];
        let effective = effective("web-server", &deferred);
        let said = |learner: &Learner| {
            let pps = &learner.thresholds(&effective)[0];
            (pps.origin.clone(), pps.key.clone())
        };
        let floor = "autotune.floors.pps".to_owned();
        let by = "command line (--set)".to_owned();
        let mut learner = learner("web-server", &deferred, None);
        assert_eq!(said(&learner), (by.clone(), floor.clone()));
        run(&mut learner, 2, &BUSY);
        let revision = learner.tuner().unwrap().history().last().unwrap().revision;
        let learned = format!("learned, revision {revision}, from {by}");
        assert_eq!(said(&learner), (learned, floor.clone()));
        let again = super::tests::learner("web-server", &deferred, learner.state());
        assert!(
            said(&again).0.starts_with("learned, "),
            "{:?}",
            said(&again)
        );
    }
}
