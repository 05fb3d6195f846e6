use super::*;
use crate::engine::{Aggregates, Collateral, Evidence, SlowPorts};

#[test]
fn evidence_aggregates_and_collateral_are_the_profile_s_to_say() {
    let file = "apiVersion: kernloom.io/v1alpha1
kind: PDPConfig
metadata: {name: ours}
spec:
  evidence: {half_open: 0.25, ports_day: 40, nat_max: 1}
  aggregates: {prefix: 0, overall: 50}
  collateral: {share: 0.02}
";
    let profile = Profile::parse("ours.yaml", file)
        .unwrap()
        .over(Profile::named("web-server").unwrap());
    let overrides = Overrides {
        set: vec!["evidence.consent=16".to_owned()],
        ..Overrides::default()
    };
    let effective = profile.effective(&overrides).unwrap();
    for (key, origin) in [
        ("evidence.half_open", "ours.yaml"),
        ("evidence.consent", "command line (--set)"),
        ("evidence.sustained", "default"),
        ("aggregates.prefix", "ours.yaml"),
        ("aggregates.pressure", "default"),
        ("collateral.sources", "default"),
    ] {
        assert_eq!(effective.origin(key), origin, "{key}");
    }
    let config = effective.config().unwrap();
    assert_eq!(
        config.evidence,
        Evidence {
            half_open: 0.25,
            refusals: 1.0,
            slow_ports: SlowPorts {
                minute: 20,
                hour: 20,
                day: 40,
            },
            sustained: 0.5,
            consent: 16.0,
            nat: 1,
        }
    );
    assert_eq!(
        config.aggregates,
        Aggregates {
            prefix: 0.0,
            overall: 50.0,
            pressure: 8.0,
        }
    );
    assert_eq!(
        config.collateral,
        Collateral {
            share: 0.02,
            sources: 3,
        }
    );
}

#[test]
fn the_defaults_say_what_the_engine_s_own_tests_go_by() {
    let plain = Profile::named("web-server").unwrap();
    let plain = plain.resolve(&Overrides::default()).unwrap();
    assert_eq!(
        (plain.evidence, plain.aggregates, plain.collateral),
        Default::default()
    );
}

#[test]
fn evidence_that_cannot_be_meant_is_refused_by_its_key() {
    for (set, problem) in [
        (
            "evidence.ports_hour=267",
            "267 is more than can be told apart; use at most 266, or 0 for off",
        ),
        (
            "evidence.nat_max=0",
            "0 is out of range; use 1 (no room for others) to 255",
        ),
        (
            "aggregates.overall=0.5",
            "0.5 holds many to less than one; use 1 or more, or 0 for off",
        ),
        (
            "collateral.share=10",
            "10 is more than all of it; use 0 to 1",
        ),
    ] {
        let overrides = Overrides {
            set: vec![set.to_owned()],
            ..Overrides::default()
        };
        let profile = Profile::named("web-server").unwrap();
        let error = profile.resolve(&overrides).unwrap_err().to_string();
        let (key, _) = set.split_once('=').unwrap();
        assert!(error.contains(key) && error.contains(problem), "{error}");
    }
}
