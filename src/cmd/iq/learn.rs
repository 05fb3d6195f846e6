//! Autotune: from a profile to a plan, and from what was learned back to the engine.

use std::time::Duration;

use crate::autotune::{Phase, Plan, Revision, Step, Tuner, TunerState};
use crate::engine::{Config, Overview, Triggers};
use crate::profile::Effective;
use crate::profile::schema;
use crate::report::Threshold;

/// The profile's figures, and what became of them.
pub(super) struct Learner {
    /// What the profile says.
    base: Config,
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
        let start = start(effective, base.triggers, state.as_ref());
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

    pub(super) fn learn(&mut self, rates: &Triggers) {
        if let Some(tuner) = &mut self.tuner {
            tuner.learn(rates);
        }
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
        let now = self.config().triggers;
        let base = self.base.triggers;
        let revision = self.tuner.as_ref().and_then(|tuner| tuner.history().last());
        let one = |signal: &str, key: &str, value: f64, written: f64| {
            let key = format!("signal_engine.{key}");
            let by = effective.origin(&key).to_owned();
            let learned = revision.filter(|_| (value - written).abs() > f64::EPSILON);
            Threshold {
                signal: signal.to_owned(),
                value,
                origin: learned.map_or(by.clone(), |revision| {
                    format!("learned, revision {}, from {by}", revision.revision)
                }),
                key,
            }
        };
        vec![
            one("pps", "pps_trigger", now.pps, base.pps),
            one("bps", "bps_trigger", now.bps, base.bps),
            one("syn", "syn_trigger", now.syn, base.syn),
            one("ports", "scan_trigger", now.ports, base.ports),
        ]
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
