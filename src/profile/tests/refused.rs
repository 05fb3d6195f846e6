//! What is refused is shown where it stands, with the way out.

use super::*;

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
    let key = "adapters.shield_pep.hard_rate_pps";
    assert_eq!(
        refuse(&format!("{key}=0")),
        format!(
            "command line (--set): spec.{key}: 0 would let nothing pass; a stage that blocks is 'block_at'"
        )
    );
}

#[test]
fn protection_in_name_only_is_refused() {
    assert_eq!(
        error(&least("pps: 1.0", "syn: 1.0")),
        "test.yaml: spec.signal_engine: no signal has both a trigger and a weight, \
         so nothing would ever be detected"
    );
    assert_eq!(
        error(&least("pps: 1.0", "pps: 1.0\n      cap: 0.9")),
        "test.yaml: spec.signal_engine.weights.cap: 0.9 is below 1, \
         so no signal alone would ever limit anybody"
    );
    let few = "{pps: 0.3, syn: 0, scan: 0}\n    dominance: 0";
    assert_eq!(
        error(&least("\n      pps: 1.0", &format!(" {few}"))),
        "test.yaml: spec.signal_engine.weights: no traffic reaches a severity of 1, \
         so nobody would ever be limited; the most is 0.9"
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
