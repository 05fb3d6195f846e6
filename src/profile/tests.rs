mod evidence;

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

struct Shipped {
    name: &'static str,
    triggers: [f64; 4],
    weights: [f64; 4],
    steps: [u32; 3],
    needs: [u32; 2],
    gate: Option<BlockGate>,
    ttl: PerStage<Duration>,
    hold: [u64; 2],
    noncompliance: Option<(u32, f64, f64, f64)>,
    limits: [&'static str; 2],
    floors: [f64; 4],
}

/// Names, triggers, weights, strikes, ticks up and down, gate, TTLs, holds, non-compliance, limits
/// and floors as documented. Order of signals: packets, SYN, ports, bytes.
#[rustfmt::skip]
fn shipped() -> Vec<Shipped> {
    let one = |name, triggers, weights, steps, needs, gate, ttl, hold, noncompliance, limits, floors| Shipped {
        name, triggers, weights, steps, needs, gate, ttl, hold, noncompliance, limits, floors,
    };
    vec![
        one("api-server", [2500., 500., 30., 0.], [0.55, 0.30, 0.15, 0.], [2, 4, 10], [2, 8], gate(2.8, 25), stages(60, 600, 900), [20, 45], Some((12, 15., 2.0, 0.3)), ["800pps/1600", "200pps/400"], [500., 100., 20., 0.]),
        one("api-server-bootstrap", [10_000., 2000., 200., 0.], [0.55, 0.30, 0.15, 0.], [3, 7, 999], [2, 8], None, stages(60, 600, 900), [20, 45], None, ["3000pps/6000", "800pps/1600"], [1000., 200., 30., 0.]),
        one("database", [300., 50., 8., 0.], [0.25, 0.25, 0.50, 0.], [2, 4, 10], [2, 8], gate(2.5, 20), stages(120, 900, 1800), [30, 180], Some((8, 1., 1.5, 0.3)), ["100pps/200", "20pps/40"], [50., 20., 5., 0.]),
        one("database-bootstrap", [2000., 300., 50., 0.], [0.25, 0.25, 0.50, 0.], [3, 7, 999], [2, 8], None, stages(120, 900, 1800), [30, 180], None, ["500pps/1000", "150pps/300"], [100., 40., 10., 0.]),
        one("idp", [350., 180., 10., 0.], [0.30, 0.55, 0.15, 0.], [1, 3, 8], [2, 8], gate(2.5, 30), stages(120, 900, 1800), [30, 60], Some((10, 1., 1.8, 0.3)), ["80pps/200", "15pps/30"], [100., 50., 8., 0.]),
        one("idp-bootstrap", [2000., 1000., 80., 0.], [0.30, 0.55, 0.15, 0.], [2, 5, 999], [2, 8], None, stages(120, 900, 1800), [30, 60], None, ["300pps/750", "80pps/160"], [200., 100., 15., 0.]),
        one("internal-app", [800., 150., 8., 0.], [0.25, 0.20, 0.55, 0.], [3, 6, 999], [2, 10], None, stages(180, 900, 600), [45, 120], None, ["500pps/1000", "100pps/200"], [200., 50., 5., 0.]),
        one("internal-app-bootstrap", [3200., 600., 32., 0.], [0.25, 0.20, 0.55, 0.], [4, 8, 999], [2, 10], None, stages(180, 900, 600), [45, 120], None, ["2000pps/4000", "400pps/800"], [200., 50., 5., 0.]),
        one("nas", [1500., 30., 8., 80e6], [0.25, 0.30, 0.25, 0.20], [2, 5, 14], [2, 8], gate(2.5, 30), stages(120, 900, 86_400), [60, 300], Some((10, 2., 1.8, 0.3)), ["600pps/1500", "150pps/300"], [200., 30., 8., 10e6]),
        one("nas-bootstrap", [4000., 100., 30., 200e6], [0.25, 0.30, 0.25, 0.20], [3, 7, 999], [3, 10], None, stages(180, 1200, 86_400), [120, 600], None, ["1500pps/3750", "500pps/1000"], [500., 50., 15., 5e6]),
        one("reverse-proxy", [3000., 600., 25., 0.], [0.50, 0.35, 0.15, 0.], [2, 6, 12], [2, 8], gate(2.8, 30), stages(60, 600, 600), [30, 180], Some((12, 5., 2.0, 0.2)), ["1000pps/2000", "250pps/500"], [800., 150., 15., 0.]),
        one("reverse-proxy-bootstrap", [15_000., 3000., 200., 0.], [0.50, 0.35, 0.15, 0.], [3, 7, 999], [2, 8], None, stages(60, 600, 600), [30, 180], None, ["4000pps/8000", "1000pps/2000"], [1500., 300., 20., 0.]),
        one("ssh-bastion", [60., 25., 5., 0.], [0.30, 0.55, 0.15, 0.], [1, 2, 6], [2, 10], gate(2.0, 30), stages(300, 1800, 3600), [60, 300], Some((6, 0.5, 1.5, 0.3)), ["20pps/40", "5pps/10"], [60., 25., 5., 0.]),
        one("ssh-bastion-bootstrap", [240., 100., 20., 0.], [0.30, 0.55, 0.15, 0.], [2, 5, 999], [2, 10], None, stages(300, 1800, 3600), [60, 300], None, ["80pps/160", "20pps/40"], [60., 25., 5., 0.]),
        one("web-server", [1200., 250., 20., 0.], [0.55, 0.30, 0.15, 0.], [2, 5, 12], [2, 8], gate(2.8, 30), stages(60, 600, 600), [20, 45], Some((15, 10., 2.0, 0.3)), ["400pps/1000", "100pps/200"], [300., 60., 10., 0.]),
        one("web-server-bootstrap", [8000., 2000., 200., 0.], [0.55, 0.30, 0.15, 0.], [3, 7, 999], [2, 8], None, stages(60, 600, 600), [20, 45], None, ["2000pps/5000", "500pps/1000"], [600., 120., 15., 0.]),
        one("ziti-controller", [80., 20., 5., 0.], [0.35, 0.40, 0.25, 0.], [1, 3, 9], [2, 6], gate(2.0, 15), stages(60, 600, 1800), [15, 30], Some((8, 1., 1.5, 0.3)), ["20pps/40", "5pps/10"], [80., 20., 5., 0.]),
        one("ziti-controller-bootstrap", [400., 120., 30., 0.], [0.35, 0.45, 0.20, 0.], [2, 6, 999], [3, 8], None, stages(90, 600, 1800), [30, 60], Some((12, 2., 1.5, 0.3)), ["80pps/160", "30pps/60"], [100., 30., 10., 0.]),
        one("ziti-router", [8000., 200., 30., 0.], [0.60, 0.25, 0.15, 0.], [2, 5, 12], [2, 8], gate(3.0, 60), stages(30, 120, 600), [20, 45], Some((20, 20., 2.5, 0.3)), ["3000pps/6000", "800pps/1600"], [2000., 100., 20., 0.]),
        one("ziti-router-bootstrap", [25_000., 600., 120., 0.], [0.60, 0.25, 0.15, 0.], [3, 8, 999], [3, 10], None, stages(45, 180, 600), [30, 60], Some((40, 50., 2.5, 0.3)), ["10000pps/20000", "3000pps/6000"], [5000., 200., 40., 0.]),
    ]
}

#[test]
fn every_shipped_profile_resolves_to_its_documented_values() {
    assert!(Profile::names().eq(shipped().iter().map(|one| one.name)));
    for one in shipped() {
        let profile = Profile::named(one.name).unwrap();
        assert_eq!(profile.name(), one.name);
        assert!(!profile.description().is_empty());
        let effective = profile.effective(&Overrides::default()).unwrap();
        let config = effective.config().unwrap();
        let (triggers, weights) = (config.triggers, config.weights);
        let signals = [triggers.pps, triggers.syn, triggers.ports, triggers.bps];
        assert_eq!(signals, one.triggers, "{}", one.name);
        let shares = [weights.pps, weights.syn, weights.ports, weights.bps];
        assert_eq!(shares, one.weights, "{}", one.name);
        assert_eq!(
            (config.cap, config.dominance, config.flash),
            (3.0, 2.0, 10.0)
        );
        let at = |steps: Option<u32>| steps.unwrap_or(999);
        let steps = [config.soft_at, at(config.hard_at), at(config.block_at)];
        assert_eq!(steps, one.steps, "{}", one.name);
        assert_eq!(
            [config.up_need, config.down_need],
            one.needs,
            "{}",
            one.name
        );
        assert_eq!(config.gate, one.gate, "{}", one.name);
        assert_eq!(config.ttl, one.ttl, "{}", one.name);
        let [soft, hard] = one.hold;
        assert_eq!(config.hold, stages(soft, hard, hard), "{}", one.name);
        let noncompliance = one
            .noncompliance
            .map(|(at, drops, severity, reset)| NonCompliance {
                at,
                drops,
                severity,
                reset,
            });
        assert_eq!(config.noncompliance, noncompliance, "{}", one.name);
        let limits = [config.soft_limit(), config.hard_limit()].map(|limit| limit.to_string());
        assert_eq!(limits, one.limits, "{}", one.name);
        let floors = &effective.spec().autotune.floors;
        let floors = [floors.pps, floors.syn, floors.scan, floors.bps].map(Amount::get);
        assert_eq!(floors, one.floors, "{}", one.name);
        let allow_block = effective.spec().autotune.bootstrap.allow_block;
        assert_eq!(
            allow_block,
            !one.name.ends_with("-bootstrap"),
            "{}",
            one.name
        );
    }
}

#[test]
fn w23_no_floor_raises_a_shipped_trigger() {
    for one in shipped() {
        for (floor, trigger) in one.floors.iter().zip(one.triggers) {
            assert!(*floor <= trigger, "{}: {floor} above {trigger}", one.name);
        }
    }
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
        assert_eq!(Profile::text(name).unwrap(), text);
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
fn a_flag_that_makes_no_sense_is_named() {
    let refuse =
        |overrides: Overrides, text: &str| parse(text).resolve(&overrides).unwrap_err().to_string();
    let none = Overrides::default();
    let zero = Some(Duration::ZERO);
    assert_eq!(
        refuse(
            Overrides {
                hard_ttl: zero,
                ..none.clone()
            },
            LEAST
        ),
        "command line (--hard-ttl): spec.progressive_enforcement.hard_ttl: 0 would end the stage \
         as it begins"
    );
    assert_eq!(
        refuse(
            Overrides {
                block_min_sev: Some(f64::NAN),
                ..none.clone()
            },
            LEAST
        ),
        "command line: --block-min-sev: NaN is not a severity; use 0 or more"
    );
    assert_eq!(
        refuse(
            Overrides {
                block_min_dur: Some(SECS(5)),
                ..none.clone()
            },
            LEAST
        ),
        "command line (--block-min-dur): spec.progressive_enforcement.block_min_dur: without a \
         severity to last there is no gate; set --block-min-sev too"
    );
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let error = |name| Profile::named(name).unwrap_err().to_string();
    let all = Profile::names().collect::<Vec<_>>().join(", ");
    assert_eq!(
        error("web-sever"),
        format!("no profile is named 'web-sever'; did you mean 'web-server'? there are {all}")
    );
    assert_eq!(
        error("mail"),
        format!("no profile is named 'mail'; there are {all}")
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
        "test.yaml:4:3: unknown key 'nothing' in metadata; there are name, extends, description"
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
            ": spec.signal_engine.pps_trigger: missing, and it has no default; set it, or give a \
             profile to start from",
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
fn a_key_set_on_the_command_line_is_checked_like_one_in_a_file() {
    let refuse = |set: &str| {
        let overrides = Overrides {
            set: vec![set.to_owned()],
            ..Overrides::default()
        };
        parse(LEAST).resolve(&overrides).unwrap_err().to_string()
    };
    for (set, problem) in [
        (
            "signal_engine.pps_triger=5",
            "there is no such key; did you mean 'signal_engine.pps_trigger'?",
        ),
        (
            "pps_trigger=5",
            "there is no such key; did you mean 'signal_engine.pps_trigger'?",
        ),
        (
            "colour=red",
            "there is no such key; --print-config lists them",
        ),
        (
            "signal_engine.flash",
            "write KEY=VALUE, as signal_engine.pps_trigger=500",
        ),
        (
            "signal_engine.flash=many",
            "invalid type: string \"many\", expected a number",
        ),
        (
            "progressive_enforcement.soft_ttl=5",
            "'5' is not a duration; write it like 500ms, 30s, 10m, 1h30m or 14d",
        ),
    ] {
        assert_eq!(refuse(set), format!("command line: --set {set}: {problem}"));
    }
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
fn a_schedule_that_contradicts_itself_is_refused() {
    for (plan, problem) in [
        (
            "phase1_end: 200h",
            "phase2_end: 5d is before phase1_end (8d8h)",
        ),
        ("window: 24h", "window: 1d is before phase2_end (5d)"),
        (
            "steady: {max_down: 1}",
            "steady.max_down: a step of 1 or more down leaves no threshold; use less than 1",
        ),
    ] {
        let text = format!("{LEAST}  autotune: {{bootstrap: {{{plan}}}}}\n");
        let expected = format!("test.yaml: spec.autotune.bootstrap.{problem}");
        assert_eq!(error(&text), expected);
    }
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
