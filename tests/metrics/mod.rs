//! The metrics page as Prometheus reads it, and that the board and the alerts name what there is.

mod exposition;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kernloom::dataplane::{Action, Counters, Entry, Owner, Reason, ReasonCount, Rule};
use kernloom::engine::{Decision, Kind, Signal, Triggers, Why};
use kernloom::graph::Mode;
use kernloom::metrics::{Gauges, GraphGauges, Metrics};
use kernloom::model::{Ktime, Stage};

pub use exposition::Exposition;

/// What promtool says of a page; `None`, said aloud, where it is not installed.
pub fn promtool(page: &str) -> Option<String> {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        assert!(
            std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none(),
            "promtool is missing; scripts/deps.sh lab installs it"
        );
        eprintln!("SKIPPED promtool: not installed");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    Some(said)
}

fn triggers(pps: f64) -> Triggers {
    Triggers {
        pps,
        bps: 1000.0 * pps,
        syn: pps / 2.0,
        ports: 0.25,
    }
}

fn decision(kind: Kind, from: Stage, to: Stage) -> Decision {
    Decision {
        source: "192.0.2.7".parse().unwrap(),
        from,
        to,
        kind,
        hold: None,
        until: None,
        why: Why {
            severity: 3.0,
            signal: Signal::Syns,
            rate: 5012.0,
            trigger: 250.0,
            strikes: 3,
            nat: 1,
            proven: false,
            exempt: false,
        },
    }
}

fn entry(source: &str, action: Action, owner: Owner, expires: Option<u64>) -> Entry {
    Entry {
        source: source.parse().unwrap(),
        rule: Rule {
            action,
            owner,
            expires: expires.map(Ktime::from_secs),
        },
        note: kernloom::dataplane::NoteId::default(),
    }
}

/// Two ticks' worth of everything there is.
fn metrics() -> Metrics {
    let mut metrics = Metrics::default();
    metrics.decided(&decision(Kind::Escalate, Stage::Observe, Stage::RateSoft));
    metrics.decided(&decision(Kind::Escalate, Stage::Observe, Stage::RateSoft));
    metrics.decided(&decision(Kind::Release, Stage::RateSoft, Stage::Observe));
    metrics.overruled();
    metrics.failed(2);
    let entries = [
        entry("192.0.2.1", Action::Allow, Owner::Operator, None),
        entry("192.0.2.2", Action::Deny, Owner::Iq, Some(10)),
        entry("192.0.2.3", Action::Deny, Owner::Iq, Some(20)),
        entry("192.0.2.4", Action::Deny, Owner::Feed, None),
        entry("192.0.2.5", Action::Allow, Owner::Management, None),
    ];
    metrics.policy(&entries, Ktime::from_secs(1));
    let reasons = [Reason::Pass, Reason::Limit].into_iter().zip(1..);
    let reasons = reasons.map(|(reason, n)| ReasonCount {
        reason,
        packets: n,
        bytes: 60 * n,
    });
    let counters = Counters {
        reasons: reasons.collect(),
        sources: 7,
        replaced: 3,
        crowded: 0,
        events_lost: 1,
        lengths: Vec::new(),
    };
    let gauges = Gauges {
        dry_run: false,
        sources: [5, 2, 0, 0],
        table_capacity: 131_072,
        policy_capacity: 1024,
        triggers: triggers(500.0),
        peaks: triggers(4.0),
        graph: Some(GraphGauges {
            mode: Mode::Enforce,
            lease: 299.5,
            edges: [6, 5, 4, 3, 2, 1, 7],
            table_used: 21,
            table_capacity: 65_536,
            violating: 8,
            violation_packets: 900,
            turned_away: 7,
        }),
        time: 1_795_436_757.5,
        ..Gauges::default()
    };
    metrics.ticked(Duration::from_millis(2), counters.clone(), gauges.clone());
    metrics.count_ended(Ktime::from_secs(10));
    metrics.ticked(Duration::from_secs(2), counters, gauges);
    metrics
}

#[test]
fn the_page_is_exactly_this() {
    let expected = include_str!("page.txt");
    let page = metrics().page();
    let page = page.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(page, expected, "{page}");
}

#[test]
fn the_page_is_clean_to_promtool_and_to_a_strict_reader() {
    let page = metrics().page();
    let read = Exposition::read(&page).unwrap();
    assert!(read.families().count() > 15);
    if let Some(said) = promtool(&page) {
        assert_eq!(said, "");
    }
}

#[test]
fn before_the_first_tick_there_is_a_page_too() {
    let page = Metrics::default().page();
    Exposition::read(&page).unwrap();
    if let Some(said) = promtool(&page) {
        assert_eq!(said, "");
    }
}

#[test]
fn an_entry_removed_before_its_end_did_not_expire() {
    let mut metrics = Metrics::default();
    let both = [
        entry("192.0.2.2", Action::Deny, Owner::Iq, Some(10)),
        entry("192.0.2.3", Action::Deny, Owner::Iq, Some(10)),
    ];
    metrics.policy(&both, Ktime::from_secs(1));
    metrics.policy(&both[..1], Ktime::from_secs(2));
    metrics.policy(&[], Ktime::from_secs(11));
    let read = |metrics: &Metrics| {
        let page = Exposition::read(&metrics.page()).unwrap();
        page.value("kernloom_policy_expirations_total", &[])
    };
    // The one still there at its last sight was not seen to be removed before its end.
    assert_eq!(read(&metrics), Some(1.0));
}

/// The words in a PromQL expression that are ours.
fn named(expression: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .split(|c: char| !word(c))
        .filter(|text| text.starts_with("kernloom_"))
        .map(str::to_owned)
        .collect()
}

fn packaged(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(path);
    std::fs::read_to_string(&path).unwrap()
}

fn check_all_exist(expressions: &[String]) -> BTreeSet<String> {
    let page = Exposition::read(&metrics().page()).unwrap();
    let there: BTreeSet<&str> = page.names().collect();
    let mut all = BTreeSet::new();
    for expression in expressions {
        let names = named(expression);
        assert!(!names.is_empty(), "{expression} names none of our metrics");
        for name in names {
            assert!(
                there.contains(name.as_str()),
                "{expression}: there is no {name}"
            );
            all.insert(name);
        }
    }
    all
}

#[test]
fn every_metric_on_the_board_exists_and_every_family_is_on_it() {
    let board: serde_json::Value =
        serde_json::from_str(&packaged("grafana/kernloom.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in panels {
        assert!(
            panel["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty())
        );
        let at = &panel["gridPos"];
        assert!(places.insert((at["x"].as_u64(), at["y"].as_u64())), "{at}");
        for target in panel["targets"].as_array().unwrap() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    let named = check_all_exist(&expressions);
    let page = metrics().page();
    for family in Exposition::read(&page).unwrap().families() {
        let shown = named.iter().any(|name| name.starts_with(family));
        assert!(shown, "the board does not show {family}");
    }
}

#[test]
fn every_metric_in_the_alerts_exists() {
    let text = packaged("prometheus/kernloom-alerts.yaml");
    let rules: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap().clone();
    assert!(rules.len() > 5);
    let expression = |rule: &serde_yaml::Value| rule["expr"].as_str().unwrap().to_owned();
    let named = check_all_exist(&rules.iter().map(expression).collect::<Vec<_>>());
    for graph in [
        "violation_packets_total",
        "lease_remaining_seconds",
        "edges_turned_away_total",
    ] {
        assert!(
            named.contains(&format!("kernloom_graph_{graph}")),
            "{graph}"
        );
    }
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/kernloom-alerts.yaml");
    if let Ok(checked) = Command::new("promtool")
        .args(["check", "rules"])
        .arg(path)
        .output()
    {
        assert!(checked.status.success(), "{checked:?}");
    }
    for rule in &rules {
        assert!(
            rule["annotations"]["summary"].as_str().is_some(),
            "{rule:?}"
        );
    }
}
