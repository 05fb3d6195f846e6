use super::*;

fn overview() -> Overview {
    Overview {
        sources: 2,
        learned: 1,
        ..Overview::default()
    }
}

/// A tuner that saw `rate` in 600 samples of pps, an hour old but for a second.
fn tuner(start: f64, floor: f64, rate: f64) -> Tuner {
    let triggers = |pps| Triggers {
        pps,
        ..Triggers::default()
    };
    let plan = Plan {
        floors: triggers(floor),
        ..Plan::default()
    };
    let mut tuner = Tuner::new(plan, "test", triggers(start));
    for _ in 0..600 {
        tuner.learn(&triggers(rate));
    }
    for _ in 0..3_599 {
        assert_eq!(tuner.tick(Duration::from_secs(1), &overview(), 0), None);
    }
    tuner
}

fn tune(tuner: &mut Tuner) -> f64 {
    let revision = tuner.tick(Duration::from_secs(1), &overview(), 77).unwrap();
    assert_eq!((revision.at_ms, revision.clean_share), (77, 0.5));
    // To a thousandth, for a reader.
    (revision.triggers.pps * 1e3).round() / 1e3
}

#[test]
fn a_step_goes_no_further_than_its_phase_allows() {
    assert_eq!(tune(&mut tuner(100.0, 10.0, 1_000.0)), 110.0);
    assert_eq!(tune(&mut tuner(100.0, 10.0, 1.0)), 90.0);
}

#[test]
fn no_threshold_falls_below_its_floor_nor_rises_above_its_ceiling() {
    assert_eq!(tune(&mut tuner(100.0, 95.0, 1.0)), 95.0);
    let mut at_floor = tuner(100.0, 100.0, 1.0);
    assert_eq!(tune(&mut at_floor), 100.0);
    let mut loud = tuner(100.0, 10.0, 1e6);
    for _ in 0..100_000 {
        loud.tick(Duration::from_secs(60), &overview(), 0);
    }
    assert_eq!(loud.triggers().pps, 2_000.0);
}

#[test]
fn a_profile_more_sensitive_than_its_floor_is_raised_in_steps() {
    assert_eq!(tune(&mut tuner(25.0, 50.0, 1.0)), 27.5);
}

#[test]
fn a_signal_without_floor_or_without_trigger_is_left_alone() {
    assert_eq!(tune(&mut tuner(100.0, 0.0, 1_000.0)), 100.0);
    assert_eq!(tune(&mut tuner(0.0, 50.0, 1_000.0)), 0.0);
}

#[test]
fn too_few_samples_change_nothing_and_wait_for_the_next_time() {
    let start = Triggers {
        pps: 100.0,
        ..Triggers::default()
    };
    let plan = Plan {
        floors: start,
        ..Plan::default()
    };
    let mut tuner: Tuner = Tuner::new(plan, "test", start);
    for _ in 0..499 {
        tuner.learn(&start);
    }
    for _ in 0..60 {
        assert_eq!(tuner.tick(Duration::from_secs(60), &overview(), 0), None);
    }
    assert_eq!(tuner.due_in(), Duration::from_secs(3_600));
    assert_eq!(tuner.history().count(), 0);
}

#[test]
fn a_stall_counts_for_a_minute_at_most() {
    let mut tuner = tuner(100.0, 10.0, 50.0);
    tune(&mut tuner);
    tuner.tick(Duration::from_secs(14 * DAY), &overview(), 0);
    assert_eq!(tuner.phase(), Phase::Bootstrap1);
    assert_eq!(tuner.observed(), Duration::from_secs(3_660));
}

#[test]
fn w18_a_restart_loses_no_sample_and_no_time() {
    let mut through = tuner(100.0, 10.0, 1_000.0);
    let mut before = through.clone();
    let json = serde_json::to_string(before.state()).unwrap();
    let state: TunerState = serde_json::from_str(&json).unwrap();
    before = Tuner::restore(before.plan().clone(), "test", before.triggers(), state);
    assert_eq!(before, through);
    assert_eq!(tune(&mut before), tune(&mut through));
    assert_eq!(before.state(), through.state());
}

#[test]
fn w31_another_configuration_does_not_start_the_bootstrap_over() {
    let mut old = tuner(100.0, 10.0, 1_000.0);
    tune(&mut old);
    let plan = Plan {
        floors: Triggers {
            pps: 30.0,
            ..Triggers::default()
        },
        ..Plan::default()
    };
    let start = old.triggers();
    let new = Tuner::restore(plan, "test", start, old.state().clone());
    assert_eq!(
        (new.observed(), new.triggers()),
        (old.observed(), old.triggers())
    );
}

#[test]
fn w33_another_profile_keeps_the_samples_and_not_the_thresholds() {
    let mut router = tuner(5_000.0, 10.0, 1_000.0);
    tune(&mut router);
    let start = Triggers {
        pps: 350.0,
        ..Triggers::default()
    };
    let idp = Tuner::restore(Plan::default(), "idp", start, router.state().clone());
    assert_eq!(idp.triggers().pps, 350.0);
    assert_eq!(idp.observed(), router.observed());
    assert_eq!(idp.state().estimator, router.state().estimator);
}

/// Thresholds went on from what they had started from: an operator's edit of it counted for nothing.
#[test]
fn a_trigger_that_is_written_anew_counts_and_what_was_learned_from_the_old_one_does_not() {
    let mut tuner = tuner(100.0, 10.0, 1_000.0);
    let learned = tune(&mut tuner);
    let restored = |pps: f64, state: &TunerState| {
        let start = Triggers {
            pps,
            ..Triggers::default()
        };
        Tuner::restore(tuner.plan().clone(), "test", start, state.clone())
    };
    let same = restored(100.0, tuner.state());
    assert_eq!((same.triggers().pps * 1_000.0).round() / 1_000.0, learned);
    let anew = restored(42.0, same.state());
    assert_eq!(anew.triggers().pps, 42.0);
    assert_eq!(anew.observed(), tuner.observed());
    // Of a state from before this was kept nobody knows.
    let old = TunerState {
        start: None,
        ..tuner.state().clone()
    };
    assert_eq!(restored(42.0, &old).triggers(), tuner.triggers());
}

#[test]
fn a_damaged_state_is_refused_or_harmless() {
    let tuner = tuner(100.0, 10.0, 1_000.0);
    let json = serde_json::to_string(tuner.state()).unwrap();
    let bad = json.replace("\"observed\"", "\"observd\"");
    assert!(serde_json::from_str::<TunerState>(&bad).is_err());
    let mut state = tuner.state().clone();
    state.observed = -5.0;
    state.since_tuning = f64::NAN;
    state.triggers.pps = -1.0;
    let restored = Tuner::restore(tuner.plan().clone(), "test", tuner.triggers(), state);
    assert_eq!(restored.triggers().pps, 100.0);
    assert_eq!(restored.observed(), Duration::ZERO);
}
