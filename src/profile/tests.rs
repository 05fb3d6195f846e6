mod evidence;
mod refused;
mod shipped;

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::engine::{BlockGate, Config, NonCompliance, PerStage, Triggers};

const SECS: fn(u64) -> Duration = Duration::from_secs;

/// The smallest profile there is.
const LEAST: &str = "\
apiVersion: kernloom.io/v1alpha1
kind: PDPConfig
metadata:
  name: least
spec:
  signal_engine:
    pps_trigger: 100
    weights:
      pps: 1.0
  progressive_enforcement:
    soft_at: 1
    hard_at: 2
    block_at: 3
";

/// Every key of the documented schema and of ours.
const MOST: &str = r#"
apiVersion: kernloom.io/v1alpha1
kind: PDPConfig
metadata: {name: most, description: "every key"}
spec:
  signal_engine:
    pps_trigger: 0.0
    syn_trigger: 0.0
    scan_trigger: 7
    bps_trigger: 0
    weights: {pps: 0.2, syn: 0.3, scan: 0.3, bps: 0.2, cap: 2.5}
    dominance: 1.5
    flash: 0
  progressive_enforcement:
    soft_at: 1
    hard_at: 4
    block_at: 999
    up_need: 2
    down_need: 6
    block_min_sev: 2.2
    block_min_dur: "20s"
    min_hold_soft: "20s"
    min_hold_hard: "1m"
    soft_ttl: 45s
    hard_ttl: 1h30m
    block_ttl: 24h
  non_compliance: {at: 999, drop: 3.0, sev: 1.8, reset: 0.25}
  graph:
    enabled: true
    mode: frozen-enforce
    store: /var/lib/kernloom/iq/kliq.db
    promotion: {min_seen_count: 5, min_windows: 3, min_age: "10m", expire_ttl: "720h"}
    freeze: {max_action: rate_limit, allow_block: false, min_severity_for_block: 70}
    exclude: {source_cidrs: ["192.0.2.0/24", "2001:db8::/48"], broadcast: true, loopback: true}
  baseline:
    min_observations: 30
    alpha: 0.02
    alpha_bootstrap: 0.10
    min_obs_time_based: 5
    min_age_time_based: "168h"
    deviation_threshold: 5.0
    min_update_pps: 5.0
    min_update_bps: 100
    peak_tolerance: 1.5
    peak_decay_half_life: "336h"
  autotune:
    enabled: true
    min_samples: 500
    floors: {pps: 500.0, syn: 100.0, scan: 15.0, bps: 10e6}
    bootstrap:
      window: "336h"
      k_start: 4.0
      k_final: 3.5
      phase1_end: "48h"
      phase2_end: "120h"
      phase1: {interval: "1h", max_up: 0.15, max_down: 0.10, alpha: 0.10}
      phase2: {interval: "6h", max_up: 0.10, max_down: 0.08, alpha: 0.15}
      phase3: {interval: "24h", max_up: 0.05, max_down: 0.05, alpha: 0.20}
      steady: {interval: "84h", max_up: 0.05, max_down: 0.05, alpha: 0.20}
  adapters:
    shield_pep:
      soft_rate_pps: 200
      soft_burst: 500
      hard_rate_pps: 50
      hard_burst: 100
      soft_rate_factor: 0.5
      hard_rate_factor: 0.05
      cooldown: "5s"
    netfilter: {chain: input}
"#;

fn parse(text: &str) -> Profile {
    Profile::parse("test.yaml", text).unwrap()
}

fn resolve(text: &str) -> Config {
    parse(text).resolve(&Overrides::default()).unwrap()
}

/// What is said about `text`, by the reading or the resolving.
fn error(text: &str) -> String {
    let error = Profile::parse("test.yaml", text)
        .and_then(|profile| profile.resolve(&Overrides::default()))
        .unwrap_err();
    assert!(error.is_operator_mistake());
    error.to_string()
}

/// `LEAST` with one piece of text replaced.
fn least(piece: &str, by: &str) -> String {
    assert!(LEAST.contains(piece));
    LEAST.replace(piece, by)
}

fn gate(severity: f64, secs: u64) -> Option<BlockGate> {
    Some(BlockGate {
        severity,
        lasting: SECS(secs),
    })
}

fn stages(soft: u64, hard: u64, block: u64) -> PerStage<Duration> {
    PerStage {
        soft: SECS(soft),
        hard: SECS(hard),
        block: SECS(block),
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_key() {
    let marked = format!("\u{feff}{LEAST}");
    let read = Profile::parse("marked.yaml", &marked).unwrap();
    assert_eq!(read.name(), "least");
}

#[test]
fn every_documented_key_is_read() {
    let profile = parse(MOST);
    let config = profile.resolve(&Overrides::default()).unwrap();
    assert_eq!(
        config.triggers,
        Triggers {
            pps: 500.0,
            bps: 10e6,
            syn: 100.0,
            ports: 7.0
        },
        "what is left to learned state comes from the floors"
    );
    assert_eq!(
        (config.cap, config.dominance, config.flash),
        (2.5, 1.5, 0.0)
    );
    assert_eq!((config.hard_at, config.block_at), (Some(4), None));
    assert_eq!(config.noncompliance, None);
    assert_eq!(config.ttl, stages(45, 5400, 86_400));
    assert_eq!(config.hold, stages(20, 60, 60));
    assert_eq!(config.soft_limit().to_string(), "250pps/625");
    assert_eq!(config.hard_limit().to_string(), "50pps/100");
    let effective = profile.effective(&Overrides::default()).unwrap();
    let spec = effective.spec();
    assert_eq!(spec.graph.mode, schema::GraphMode::FrozenEnforce);
    assert_eq!(
        spec.graph.freeze.max_action,
        schema::FreezeAction::RateLimit
    );
    assert_eq!(
        spec.graph.exclude.source_cidrs[1].get().to_string(),
        "2001:db8::/48"
    );
    assert_eq!(spec.baseline.min_age_time_based.to_string(), "7d");
    assert_eq!(
        spec.autotune.bootstrap.phase2.interval.get(),
        SECS(6 * 3600)
    );
}

#[test]
fn a_number_may_be_written_in_any_base_of_yaml() {
    for (given, value) in [("0x10", 16.0), ("0o20", 16.0), ("1.6e1", 16.0)] {
        let config = resolve(&least("pps_trigger: 100", &format!("pps_trigger: {given}")));
        assert_eq!(config.triggers.pps, value, "{given}");
    }
}

#[test]
fn what_is_left_out_has_safe_defaults() {
    let config = resolve(LEAST);
    assert_eq!(config.ttl, stages(60, 600, 1800));
    assert_eq!(
        (config.cap, config.dominance, config.flash),
        (3.0, 2.0, 10.0)
    );
    assert_eq!((config.gate, config.noncompliance), (None, None));
    assert_eq!(config.soft_limit().to_string(), "20pps/40");
    assert_eq!(config.hard_limit().to_string(), "5pps/10");
}

#[test]
fn the_command_line_goes_before_the_profile() {
    let profile = Profile::named("web-server").unwrap();
    let config = profile
        .resolve(&Overrides {
            soft_ttl: Some(SECS(7)),
            block_ttl: Some(SECS(9)),
            block_min_sev: Some(1.5),
            ..Overrides::default()
        })
        .unwrap();
    assert_eq!(config.ttl, stages(7, 600, 9));
    assert_eq!(config.gate, gate(1.5, 30));
    let open = Overrides {
        block_min_sev: Some(0.0),
        ..Overrides::default()
    };
    assert_eq!(profile.resolve(&open).unwrap().gate, None);
}

#[test]
fn w12_a_trigger_left_to_learned_state_starts_from_its_floor() {
    let deferred = least("pps_trigger: 100", "pps_trigger: 0.0");
    assert_eq!(resolve(&deferred).triggers.pps, 100.0, "the default floor");
    let floored = format!("{deferred}  autotune:\n    floors: {{pps: 70, syn: 30}}\n");
    let triggers = resolve(&floored).triggers;
    assert_eq!(
        (triggers.pps, triggers.syn, triggers.ports),
        (70.0, 30.0, 20.0)
    );
}

#[test]
fn w13_a_file_without_ttls_has_the_default_ones_and_never_zero() {
    assert_eq!(resolve(LEAST).ttl, stages(60, 600, 1800));
    for ttl in ["0", "0s", "0h0m"] {
        assert!(
            error(&least(
                "block_at: 3",
                &format!("block_at: 3\n    hard_ttl: {ttl}")
            ))
            .contains("0 would end the stage as it begins"),
            "{ttl}"
        );
    }
}

#[test]
fn w35_what_a_file_leaves_out_is_the_default_and_excludes_can_be_switched_off() {
    let effective = parse(LEAST).effective(&Overrides::default()).unwrap();
    let spec = effective.spec();
    assert!(spec.autotune.enabled);
    assert_eq!(spec.autotune.min_samples, 500);
    assert!(spec.graph.exclude.broadcast && spec.graph.exclude.loopback);
    let off = format!("{LEAST}  graph:\n    exclude: {{broadcast: false}}\n");
    let exclude = parse(&off)
        .effective(&Overrides::default())
        .unwrap()
        .spec()
        .graph
        .exclude
        .clone();
    assert!(!exclude.broadcast && exclude.loopback);
    // Where 0 always meant "the default", it still does.
    let zero = format!(
        "{LEAST}  autotune: {{enabled: false, min_samples: 0, bootstrap: {{window: 0s}}}}\n"
    );
    let effective = parse(&zero).effective(&Overrides::default()).unwrap();
    assert!(!effective.spec().autotune.enabled);
    assert_eq!(effective.spec().autotune.min_samples, 500);
    assert_eq!(
        effective.spec().autotune.bootstrap.window.to_string(),
        "14d"
    );
}

#[test]
fn w34_every_value_has_one_precedence_and_says_who_set_it() {
    let file = "\
apiVersion: kernloom.io/v1alpha1
kind: PDPConfig
metadata: {name: ours}
spec:
  signal_engine: {pps_trigger: 900, syn_trigger: 70}
  graph: {mode: frozen-enforce}
";
    let profile = Profile::parse("ours.yaml", file)
        .unwrap()
        .over(Profile::named("idp-bootstrap").unwrap());
    let overrides = Overrides {
        soft_ttl: Some(SECS(7)),
        set: vec![
            "signal_engine.syn_trigger=60".to_owned(),
            "graph.mode=learn".to_owned(),
        ],
        ..Overrides::default()
    };
    let effective = profile.effective(&overrides).unwrap();
    let settings = effective.settings();
    let said = |key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key).unwrap();
        (setting.value.as_str(), setting.origin.as_str())
    };
    for (key, value, origin) in [
        ("signal_engine.pps_trigger", "900", "ours.yaml"),
        ("signal_engine.syn_trigger", "60", "command line (--set)"),
        ("signal_engine.scan_trigger", "80", "profile idp-bootstrap"),
        ("signal_engine.weights.syn", "0.55", "profile idp"),
        ("graph.mode", "learn", "command line (--set)"),
        (
            "progressive_enforcement.soft_ttl",
            "7s",
            "command line (--soft-ttl)",
        ),
        (
            "progressive_enforcement.block_at",
            "999",
            "profile idp-bootstrap",
        ),
        ("autotune.min_samples", "500", "profile idp"),
        ("autotune.bootstrap.window", "336h", "default"),
    ] {
        assert_eq!(said(key), (value, origin), "{key}");
    }
    let config = effective.config().unwrap();
    assert_eq!((config.triggers.pps, config.triggers.syn), (900.0, 60.0));
    assert_eq!(config.ttl.soft, SECS(7));
}

#[test]
fn a_file_may_extend_a_profile_but_not_one_that_is_not() {
    let extending = |base: &str| {
        format!(
            "apiVersion: kernloom.io/v1alpha1\nkind: PDPConfig\n\
             metadata: {{name: x, extends: {base}}}\nspec: {{}}\n"
        )
    };
    let nas = Profile::named("nas").unwrap();
    let none = Overrides::default();
    assert_eq!(
        parse(&extending("nas")).resolve(&none).unwrap(),
        nas.resolve(&none).unwrap()
    );
    assert!(error(&extending("nass")).starts_with(
        "test.yaml: metadata.extends: no profile is named 'nass'; did you mean 'nas'?"
    ));
}

#[test]
fn a_zero_beside_a_packet_trigger_switches_the_signal_off() {
    let floored = format!("{LEAST}  autotune:\n    floors: {{pps: 70, syn: 30}}\n");
    assert_eq!(resolve(&floored).triggers.syn, 0.0);
}

#[test]
fn a_burst_that_is_left_out_is_two_seconds_worth() {
    let text = format!("{LEAST}  adapters:\n    shield_pep: {{soft_rate_pps: 300}}\n");
    assert_eq!(resolve(&text).soft_limit().to_string(), "300pps/600");
}

#[test]
fn a_boolean_may_be_written_as_yaml_1_1_did() {
    let enabled = |word: &str| {
        let file = format!("{LEAST}  autotune: {{enabled: {word}}}\n");
        let effective = parse(&file).effective(&Overrides::default()).unwrap();
        effective.spec().autotune.enabled
    };
    for word in ["true", "yes", "Yes", "on", "ON", "y"] {
        assert!(enabled(word), "{word}");
    }
    for word in ["false", "no", "NO", "off", "Off", "n"] {
        assert!(!enabled(word), "{word}");
    }
    let wrong = error(&format!("{LEAST}  autotune: {{enabled: maybe}}\n"));
    assert!(wrong.contains("expected a boolean"), "{wrong}");
}
