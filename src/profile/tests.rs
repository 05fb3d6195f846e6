use std::path::Path;
use std::time::Duration;

use super::*;
use crate::engine::{BlockGate, Config, NonCompliance, PerStage, Triggers, Weights};

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

struct Shipped {
    name: &'static str,
    triggers: (f64, f64, f64),
    weights: (f64, f64, f64),
    steps: (u32, u32, u32),
    down_need: u32,
    gate: Option<BlockGate>,
    ttl: PerStage<Duration>,
    hold: PerStage<Duration>,
    noncompliance: (u32, f64, f64),
    limits: (&'static str, &'static str),
}

fn shipped() -> [Shipped; 4] {
    [
        Shipped {
            name: "idp",
            triggers: (350.0, 180.0, 10.0),
            weights: (0.30, 0.55, 0.15),
            steps: (1, 3, 8),
            down_need: 8,
            gate: gate(2.5, 30),
            ttl: stages(120, 900, 1800),
            hold: stages(30, 60, 60),
            noncompliance: (10, 1.0, 1.8),
            limits: ("80pps/200", "15pps/30"),
        },
        Shipped {
            name: "web-server",
            triggers: (1200.0, 250.0, 20.0),
            weights: (0.55, 0.30, 0.15),
            steps: (2, 5, 12),
            down_need: 8,
            gate: gate(2.8, 30),
            ttl: stages(60, 600, 600),
            hold: stages(20, 45, 45),
            noncompliance: (15, 10.0, 2.0),
            limits: ("400pps/1000", "100pps/200"),
        },
        Shipped {
            name: "ziti-controller",
            triggers: (80.0, 20.0, 5.0),
            weights: (0.35, 0.40, 0.25),
            steps: (1, 3, 9),
            down_need: 6,
            gate: gate(2.0, 15),
            ttl: stages(60, 600, 1800),
            hold: stages(15, 30, 30),
            noncompliance: (8, 1.0, 1.5),
            limits: ("20pps/40", "5pps/10"),
        },
        Shipped {
            name: "ziti-router",
            triggers: (8000.0, 200.0, 30.0),
            weights: (0.60, 0.25, 0.15),
            steps: (2, 5, 12),
            down_need: 8,
            gate: gate(3.0, 60),
            ttl: stages(30, 120, 600),
            hold: stages(20, 45, 45),
            noncompliance: (20, 20.0, 2.5),
            limits: ("3000pps/6000", "800pps/1600"),
        },
    ]
}

#[test]
fn every_shipped_profile_resolves_to_its_documented_values() {
    assert!(Profile::names().eq(shipped().iter().map(|one| one.name)));
    for one in shipped() {
        let profile = Profile::named(one.name).unwrap();
        assert_eq!(profile.name(), one.name);
        assert!(!profile.document().metadata.description.is_empty());
        let config = profile.resolve(&Overrides::default()).unwrap();
        let expected = Config {
            triggers: Triggers {
                pps: one.triggers.0,
                bps: 0.0,
                syn: one.triggers.1,
                ports: one.triggers.2,
            },
            weights: Weights {
                pps: one.weights.0,
                bps: 0.0,
                syn: one.weights.1,
                ports: one.weights.2,
            },
            cap: 3.0,
            dominance: 2.0,
            flash: 10.0,
            soft_at: one.steps.0,
            hard_at: Some(one.steps.1),
            block_at: Some(one.steps.2),
            up_need: 2,
            down_need: one.down_need,
            ttl: one.ttl,
            hold: one.hold,
            gate: one.gate,
            noncompliance: Some(NonCompliance {
                at: one.noncompliance.0,
                drops: one.noncompliance.1,
                severity: one.noncompliance.2,
                reset: 0.3,
            }),
            soft: config.soft,
            hard: config.hard,
        };
        assert_eq!(config, expected, "{}", one.name);
        let limits = (
            config.soft_limit().to_string(),
            config.hard_limit().to_string(),
        );
        assert_eq!(
            (limits.0.as_str(), limits.1.as_str()),
            one.limits,
            "{}",
            one.name
        );
    }
}

#[test]
fn every_shipped_profile_has_floors_to_start_from() {
    let floors = |name| {
        Profile::named(name)
            .unwrap()
            .document()
            .spec
            .autotune
            .floors
            .clone()
    };
    let figures = |name| {
        let floors = floors(name);
        (floors.pps.get(), floors.syn.get(), floors.scan.get())
    };
    assert_eq!(figures("idp"), (100.0, 50.0, 8.0));
    assert_eq!(figures("web-server"), (300.0, 60.0, 10.0));
    assert_eq!(figures("ziti-controller"), (80.0, 20.0, 5.0));
    assert_eq!(figures("ziti-router"), (2000.0, 100.0, 20.0));
}

#[test]
fn every_shipped_profile_says_whom_it_is_for() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# For "), "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            Profile::names().any(|own| own == name),
            "{name} is not embedded"
        );
        let read = Profile::read(&path).unwrap();
        assert_eq!(read.document(), Profile::named(name).unwrap().document());
    }
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
    let spec = &profile.document().spec;
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
        spec.autotune.bootstrap.phase2.interval.unwrap().get(),
        SECS(6 * 3600)
    );
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
    assert!(!parse(LEAST).document().spec.autotune.enabled);
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
fn a_flag_that_makes_no_sense_is_named() {
    let refuse =
        |overrides: Overrides, text: &str| parse(text).resolve(&overrides).unwrap_err().to_string();
    let none = Overrides::default();
    let zero = Some(Duration::ZERO);
    assert_eq!(
        refuse(
            Overrides {
                hard_ttl: zero,
                ..none
            },
            LEAST
        ),
        "command line: --hard-ttl: 0 would end the stage as it begins"
    );
    assert_eq!(
        refuse(
            Overrides {
                block_min_sev: Some(f64::NAN),
                ..none
            },
            LEAST
        ),
        "command line: --block-min-sev: NaN is not a severity; use 0 or more"
    );
    assert_eq!(
        refuse(
            Overrides {
                block_min_dur: Some(SECS(5)),
                ..none
            },
            LEAST
        ),
        "command line: --block-min-dur: without a severity to last there is no gate; \
         set --block-min-sev too"
    );
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let error = |name| Profile::named(name).unwrap_err().to_string();
    assert_eq!(
        error("web-sever"),
        "no profile is named 'web-sever'; did you mean 'web-server'? \
         there are idp, web-server, ziti-controller, ziti-router"
    );
    assert_eq!(
        error("nas"),
        "no profile is named 'nas'; there are idp, web-server, ziti-controller, ziti-router"
    );
}

#[test]
fn an_unknown_key_is_shown_where_it_stands_with_the_nearest() {
    assert_eq!(
        error(&least("pps_trigger", "pps_triger")),
        "test.yaml:7:5: unknown key 'pps_triger' in spec.signal_engine; \
         did you mean 'pps_trigger'?"
    );
    assert_eq!(
        error(&least("name: least", "nothing: least")),
        "test.yaml:4:3: unknown key 'nothing' in metadata; there are name, description"
    );
    assert_eq!(
        error(&format!("{LEAST}extra: 1\n")),
        "test.yaml:14:1: unknown key 'extra'; there are apiVersion, kind, metadata, spec"
    );
    assert_eq!(
        error(&MOST.replace("max_up: 0.15", "maxup: 0.15")),
        "test.yaml:56:32: unknown key 'maxup' in spec.autotune.bootstrap.phase1; \
         did you mean 'max_up'?"
    );
}

/// Each row: a piece of `LEAST`, what stands there instead, and what is said about it.
fn refused(rows: &[(&str, &str, &str)]) {
    for (piece, by, expected) in rows {
        assert_eq!(
            error(&least(piece, by)),
            format!("test.yaml{expected}"),
            "{by}"
        );
    }
}

#[test]
fn a_bad_number_is_shown_where_it_stands() {
    let trigger = "pps_trigger: 100";
    refused(&[
        (
            trigger,
            "pps_trigger: -1",
            ":7:18: spec.signal_engine.pps_trigger: -1 must not be negative",
        ),
        (
            trigger,
            "pps_trigger: .nan",
            ":7:18: spec.signal_engine.pps_trigger: the number must be finite",
        ),
        (
            trigger,
            "pps_trigger: many",
            ":7:18: spec.signal_engine.pps_trigger: invalid type: \
             string \"many\", expected a number",
        ),
        (
            "soft_at: 1",
            "soft_at: -1",
            ":11:14: spec.progressive_enforcement.soft_at: invalid type: \
             integer '-1', expected u32",
        ),
    ]);
}

#[test]
fn a_bad_duration_is_shown_where_it_stands() {
    for given in ["5", "5 minutes", "-5s"] {
        let by = format!("soft_at: 1\n    min_hold_soft: {given}");
        let expected = format!(
            ":12:20: spec.progressive_enforcement.min_hold_soft: '{given}' is not a duration; \
             write it like 500ms, 30s, 10m, 1h30m or 14d"
        );
        refused(&[("soft_at: 1", &by, &expected)]);
    }
}

#[test]
fn a_key_that_is_missing_or_given_twice_is_named() {
    refused(&[
        (
            "    pps_trigger: 100\n",
            "",
            ":7:5: spec.signal_engine: missing key 'pps_trigger'",
        ),
        (
            "    pps_trigger: 100\n",
            "    pps_trigger: 100\n    pps_trigger: 100\n",
            ":7:5: spec.signal_engine: duplicate key 'pps_trigger'",
        ),
    ]);
}

#[test]
fn another_kind_of_file_is_called_that() {
    refused(&[
        (
            "kind: PDPConfig",
            "kind: LocalPolicyPack",
            ": kind 'LocalPolicyPack' is not a profile; it needs PDPConfig",
        ),
        (
            "v1alpha1",
            "v2",
            ": apiVersion 'kernloom.io/v2' is not a profile; it needs kernloom.io/v1alpha1",
        ),
    ]);
}

#[test]
fn an_excluded_prefix_is_checked_too() {
    assert!(
        error(&MOST.replace("192.0.2.0/24", "192.0.2.1/24"))
            .ends_with("'192.0.2.1/24' has bits set after the prefix; did you mean 192.0.2.0/24?")
    );
}

#[test]
fn strikes_must_rise() {
    let steps = |soft, hard, block| {
        least(
            "soft_at: 1\n    hard_at: 2\n    block_at: 3",
            &format!("soft_at: {soft}\n    hard_at: {hard}\n    block_at: {block}"),
        )
    };
    let key = "test.yaml: spec.progressive_enforcement";
    for (given, expected) in [
        ((0, 2, 3), "soft_at: 0 would limit everyone; use 1 or more"),
        (
            (999, 999, 999),
            "soft_at: 999 means never; use --dry-run to only observe",
        ),
        ((5, 3, 8), "hard_at: 3 is not above soft_at (5)"),
        ((1, 3, 3), "block_at: 3 is not above hard_at (3)"),
        ((1, 999, 8), "block_at: 8 is not above hard_at (never)"),
    ] {
        assert_eq!(
            error(&steps(given.0, given.1, given.2)),
            format!("{key}.{expected}")
        );
    }
    let config = resolve(&steps(3, 999, 999));
    assert_eq!((config.hard_at, config.block_at), (None, None));
}

#[test]
fn a_trigger_left_to_learned_state_needs_a_floor_without_it() {
    let deferred = least("pps_trigger: 100", "pps_trigger: 0");
    assert_eq!(
        error(&deferred),
        "test.yaml: spec.signal_engine.pps_trigger: 0 leaves it to learned state, and there is \
         none; set it, or set autotune.floors.pps to start from"
    );
    let floored = format!("{deferred}  autotune:\n    floors: {{pps: 70, syn: 30}}\n");
    let triggers = resolve(&floored).triggers;
    assert_eq!(
        (triggers.pps, triggers.syn, triggers.ports),
        (70.0, 30.0, 0.0)
    );
}

#[test]
fn a_zero_beside_a_packet_trigger_switches_the_signal_off() {
    let floored = format!("{LEAST}  autotune:\n    floors: {{pps: 70, syn: 30}}\n");
    assert_eq!(resolve(&floored).triggers.syn, 0.0);
}

#[test]
fn protection_in_name_only_is_refused() {
    assert_eq!(
        error(&least("pps: 1.0", "syn: 1.0")),
        "test.yaml: spec.signal_engine: no signal has both a trigger and a weight, \
         so nothing would ever be detected"
    );
    assert_eq!(
        error(&least("block_at: 3", "block_at: 3\n    block_min_sev: 3.5")),
        "test.yaml: spec.progressive_enforcement.block_min_sev: no traffic reaches 3.5, \
         so nothing would ever be blocked; the most is 3"
    );
    assert_eq!(
        error(&least("block_at: 3", "block_at: 3\n    soft_ttl: 0s")),
        "test.yaml: spec.progressive_enforcement.soft_ttl: 0 would end the stage as it begins"
    );
    assert_eq!(
        error(&format!(
            "{LEAST}  adapters:\n    shield_pep: {{hard_rate_pps: 30}}\n"
        )),
        "test.yaml: spec.adapters.shield_pep.hard_rate_pps: 30 is above soft_rate_pps (20)"
    );
}

#[test]
fn a_burst_that_is_left_out_is_two_seconds_worth() {
    let text = format!("{LEAST}  adapters:\n    shield_pep: {{soft_rate_pps: 300}}\n");
    assert_eq!(resolve(&text).soft_limit().to_string(), "300pps/600");
}

#[test]
fn a_path_to_nothing_is_the_operators_mistake() {
    let error = Profile::read(Path::new("/nonexistent/p.yaml")).unwrap_err();
    assert!(error.is_operator_mistake());
    assert_eq!(
        error.to_string(),
        "cannot read profile /nonexistent/p.yaml: No such file or directory (os error 2)"
    );
}

#[test]
fn text_that_is_no_yaml_is_an_error_and_never_a_panic() {
    for text in [
        "",
        "[",
        "\t",
        "a: b: c",
        "- 1",
        "--- 1\n--- 2",
        "\u{feff}",
        "spec: *none",
    ] {
        assert!(error(text).starts_with("test.yaml"), "{text:?}");
    }
}
