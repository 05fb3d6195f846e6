//! A running IQ as scripts see it: JSON by published schemas, recordings, exit codes, full disks.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::binary;
use super::disk::Small;
use super::iq::{ask, flood, lab, start};
use crate::lab::{Assault, Attack, Family, Flood, Kernloom, Lab, Stage, wait_until};
use crate::seat::documented;

const SOON: Duration = Duration::from_secs(60);

/// The JSON of a command that must succeed, by the schema it names.
fn json(lab: &Lab, words: &str) -> serde_json::Value {
    let said = ask(lab, words);
    assert_eq!(said.code, Some(0), "{words}: {said:?}");
    let value = documented(&said.out);
    assert_eq!(said.err, "", "{words}");
    value
}

/// What a command that must succeed says to people.
fn text(lab: &Lab, words: &str) -> String {
    let said = ask(lab, words);
    assert_eq!(said.code, Some(0), "{words}: {said:?}");
    assert!(!said.out.contains('\u{1b}'), "{words}: {}", said.out);
    assert_eq!(said.err, "", "{words}: no bar where nobody watches");
    said.out
}

/// A terminal is shown `bar` before the answer, and the answer's screen has no trace of it left.
fn shows(lab: &Lab, words: &str, bar: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let shown = Kernloom::watch(lab, binary(), &words).unwrap();
    let (before, after) = shown.rsplit_once("\u{1b}[2K").unwrap_or_else(|| {
        panic!("{words:?}: nothing was drawn and wiped: {shown:?}");
    });
    assert!(before.contains(bar), "{words:?}: {shown:?}");
    assert!(
        !after.contains(bar) && !after.trim().is_empty(),
        "{words:?}: {shown:?}"
    );
}

fn scan(lab: &Lab) {
    let assault = Assault::Scan {
        technique: "-sS",
        family: Family::V4,
        ports: 2_000,
    };
    let mut scan = Attack::launch(lab, "evil", assault).unwrap();
    scan.finish(SOON).unwrap();
}

#[test]
fn every_answer_of_a_running_iq_is_a_table_for_people_and_json_by_its_schema() {
    let Some(lab) = lab("answers", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=60s", "--graph"]);
    let evil = lab.source("evil", Family::V4).unwrap();
    assert!(text(&lab, "shield events").contains("nothing"));
    assert!(text(&lab, "iq decisions").contains("no decisions in the last 1d"));
    scan(&lab);
    iq.wait_transition(SOON, &evil, |step| step.to > Stage::Observe)
        .unwrap();

    let events = json(&lab, "shield events --json");
    let event = &events["events"][0];
    assert_eq!(
        (&event["kind"], &event["source"]),
        (&"ports".into(), &evil.as_str().into())
    );
    assert!(text(&lab, "shield events").contains("many ports at once"));

    let decisions = json(&lab, "iq decisions --json --last 1h");
    assert_eq!(decisions["decisions"][0]["source"], evil.as_str());
    let elsewhere = json(&lab, "iq decisions --json --source 203.0.113.0/24");
    assert_eq!(elsewhere["decisions"].as_array().unwrap().len(), 0);
    let table = text(&lab, "iq decisions -n 1");
    assert!(
        table.starts_with("TIME ") && table.contains(&evil),
        "{table}"
    );

    let top = json(&lab, "iq top --json --interval 200ms");
    assert_eq!(top["sources"][0]["source"], evil.as_str(), "{top}");
    assert_eq!(top["sources"][0]["verdict"], "limit", "{top}");
    assert!(text(&lab, "iq top --once --interval 200ms").contains("RATE_"));

    let why = json(&lab, &format!("iq why {evil} --json"));
    assert_eq!(why["source"], evil.as_str());
    assert!(text(&lab, &format!("iq why {evil}")).contains("cause: "));
    assert_eq!(json(&lab, "iq status --json")["dry_run"], false);
    text(&lab, "iq status");

    for words in ["shield status", "shield stats", "shield limit list"] {
        json(&lab, &format!("{words} --json"));
        text(&lab, words);
    }
    json(&lab, &format!("shield verdict {evil} --json"));
    iq.check_running().unwrap();
}

#[test]
fn the_graph_answers_scripts_with_and_without_iq() {
    let Some(lab) = lab("graph-json", 0) else {
        return;
    };
    let said = ask(&lab, "graph show");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("no graph is kept in"), "{said:?}");
    let mut iq = start(&lab, &["--graph"]);
    iq.wait_line(SOON, "a tick every").unwrap();
    let server = lab.server().v4.to_string();
    let client = &lab.client("evil").unwrap().net;
    client
        .run("ping", &["-n", "-q", "-c1", "-W5", &server])
        .unwrap();
    let mut graph = serde_json::Value::Null;
    wait_until(SOON, "the ping in the graph", || {
        graph = json(&lab, "graph show --json");
        Ok(graph["edges"]
            .as_array()
            .is_some_and(|edges| !edges.is_empty()))
    })
    .unwrap();
    assert_eq!(graph["mode"], "learn");
    let readiness = json(&lab, "graph readiness --json");
    assert_eq!(
        (&readiness["days"], &readiness["ready"]),
        (&1.into(), &false.into())
    );
    assert_eq!(text(&lab, "graph violations"), "no violations\n");
    assert_eq!(ask(&lab, "graph freeze --accept-risk").code, Some(0));
    assert_eq!(ask(&lab, "graph observe").code, Some(0));
    client
        .run("ping", &["-n", "-q", "-c1", "-W5", &server])
        .unwrap();
    wait_until(SOON, "the second ping among the violations", || {
        let told = json(&lab, "graph violations --json");
        let edges = told["violations"].as_array().unwrap().clone();
        Ok(edges.iter().any(|edge| edge["direction"] == "in"))
    })
    .unwrap();
    assert!(text(&lab, "graph violations").starts_with("DIR "));
    assert!(text(&lab, "shield events").contains("is not in the frozen graph"));
    let page = lab.dir().join("report.html");
    let drawn = |page: &Path| {
        let words = format!("report -o {}", page.display());
        assert_eq!(ask(&lab, &words).code, Some(0));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains("id=\"graph\"") && page.contains("edge violation"),
            "{page}"
        );
    };
    drawn(&page);
    iq.process().stop().unwrap();
    assert_eq!(json(&lab, "graph show --json")["mode"], "frozen-observe");
    json(&lab, "graph readiness --json");
    json(&lab, "graph violations --json");
    drawn(&page);
    shows(&lab, "graph freeze --accept-risk", "freezing the graph ");
}

#[test]
fn an_import_shows_a_bar_on_a_terminal() {
    let Some(lab) = lab("bar", 0) else { return };
    assert_eq!(ask(&lab, "shield attach eth0 --no-guard").code, Some(0));
    let list = lab.dir().join("drop.txt");
    std::fs::write(&list, "198.51.100.0/24\n203.0.113.7\n").unwrap();
    let import = format!("shield deny import {}", list.display());
    shows(&lab, &import, "importing ");
}

#[test]
fn a_recording_with_every_interference_decides_again_exactly_and_survives_a_kill() {
    let Some(lab) = lab("interfered", 0) else {
        return;
    };
    let file = lab.dir().join("run.klrec");
    let record = format!("--record={}", file.display());
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=60s", &record]);
    let source = lab.source("evil", Family::V4).unwrap();
    let mut moves = 0;
    let mut held_again = |iq: &mut Kernloom, kind: Flood, family: Family| {
        let source = lab.source("evil", family).unwrap();
        let before = iq.transitions().len();
        let mut attack = flood(&lab, kind, 10_000);
        wait_until(SOON, "an escalation", || {
            iq.check_running()?;
            let fresh = &iq.transitions()[before..];
            Ok(fresh
                .iter()
                .any(|step| step.source == source && step.to > Stage::Observe))
        })
        .unwrap();
        attack.finish(SOON).unwrap();
        moves += 1;
    };
    held_again(&mut iq, Flood::Syn4, Family::V4);
    assert_eq!(ask(&lab, &format!("iq forgive {source}")).code, Some(0));
    held_again(&mut iq, Flood::Syn4, Family::V4);
    assert_eq!(ask(&lab, "reset").code, Some(0));
    held_again(&mut iq, Flood::Syn4, Family::V4);
    held_again(&mut iq, Flood::Syn6, Family::V6);
    let said = ask(&lab, &format!("iq exempt {source} --ttl 1h"));
    assert_eq!(said.code, Some(0), "{said:?}");
    flood(&lab, Flood::Syn4, 5_000).finish(SOON).unwrap();
    assert_eq!(
        ask(&lab, "shield allow add fd00::/8 --ttl 1h").code,
        Some(0)
    );
    flood(&lab, Flood::Syn6, 5_000).finish(SOON).unwrap();
    // In the middle of it.
    iq.process().signal(Signal::SIGKILL).unwrap();
    iq.process().wait(SOON).unwrap();
    let same = json(&lab, &format!("iq simulate {} --json", file.display()));
    assert_eq!(same["identical"], true, "{same}");
    shows(
        &lab,
        &format!("iq simulate {}", file.display()),
        "simulating ",
    );
    assert!(same["live_decisions"].as_u64() >= Some(moves), "{same}");
    assert_eq!(same["live_decisions"], same["simulated_decisions"]);
}

#[test]
fn a_full_disk_costs_the_file_and_never_the_protection() {
    let Some(lab) = lab("full-disk", 0) else {
        return;
    };
    // A recording that cannot be is known before anything is attached.
    let said = ask(
        &lab,
        "iq --profile=idp --iface eth0 --record /nonexistent/x",
    );
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.err.contains("cannot record to /nonexistent/x"),
        "{said:?}"
    );
    assert_eq!(ask(&lab, "shield status").code, Some(2));
    let small = Small::at(&lab.dir().join("small"), 64);
    let inside = |name: &str| small.path().join(name);
    let prom = inside("kernloom.prom");
    let recording = inside("run.klrec");
    let mut iq = start(
        &lab,
        &[
            "--dry-run=false",
            "--soft-ttl=60s",
            "--interval=100ms",
            &format!("--metrics-textfile={}", prom.display()),
            &format!("--record={}", recording.display()),
        ],
    );
    wait_until(SOON, "the first page", || Ok(prom.exists())).unwrap();
    let _filler = small.fill();
    let source = lab.source("evil", Family::V4).unwrap();
    let _attack = flood(&lab, Flood::Syn4, 50_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    iq.wait_line(SOON, "the recording ends here").unwrap();
    iq.wait_line(SOON, &format!("writing {}: No space left", prom.display()))
        .unwrap();
    // The old page is still whole.
    let page = std::fs::read_to_string(&prom).unwrap();
    assert!(
        page.contains("kernloom_last_tick_timestamp_seconds "),
        "{page}"
    );
    let words = format!("report -o {}", inside("report.html").display());
    let said = ask(&lab, &words);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("report.html: No space left"), "{said:?}");
    assert!(!inside("report.html").exists());
    assert_eq!(
        ask(&lab, &format!("iq simulate {} --json", recording.display())).code,
        Some(0)
    );
    assert_eq!(
        Kernloom::ask(&lab, binary(), &["iq", "status"])
            .unwrap()
            .code,
        Some(0)
    );
}

/// An operator is told, and told the truth, where an exemption would not outlive a restart.
#[test]
fn an_exemption_that_the_disk_refuses_is_in_force_and_said_not_to_be_stored() {
    let Some(lab) = lab("exempt-disk", 0) else {
        return;
    };
    let small = Small::at(&lab.state_dir(), 1_024);
    let begin = || {
        let mut iq = start(&lab, &["--dry-run=false"]);
        iq.wait_line(SOON, "a tick every").unwrap();
        iq
    };
    let mut iq = begin();
    assert_eq!(
        text(&lab, "iq exempt 198.51.100.7 --ttl 1h")
            .split_once("; ")
            .unwrap()
            .1,
        "let go of 0 sources\n"
    );
    let filler = small.fill();
    let said = text(&lab, "iq exempt 198.51.100.8 --ttl 1h");
    assert!(
        said.ends_with("let go of 0 sources; in force, but not stored yet: the log says why\n"),
        "{said}"
    );
    iq.wait_line(SOON, "the state before it stays on disk, trying again")
        .unwrap();
    let why = text(&lab, "iq why 198.51.100.8");
    assert!(why.contains("exempt: "), "{why}");
    assert!(!why.contains("to exempt it"), "{why}");
    std::fs::remove_file(filler).unwrap();
    let said = text(&lab, "iq exempt 198.51.100.8 --ttl 1h");
    assert!(said.ends_with("let go of 0 sources\n"), "{said}");
    iq.process().signal(Signal::SIGKILL).unwrap();
    iq.process().wait(SOON).unwrap();
    let mut again = begin();
    let why = text(&lab, "iq why 198.51.100.8");
    assert!(why.contains("exempt: "), "{why}");
    // An end whose state is lost is no success.
    let _filler = small.fill();
    again.process().signal(Signal::SIGTERM).unwrap();
    let end = again.process().wait(SOON).unwrap();
    assert_eq!(end.code(), Some(1), "{}", again.text());
    assert!(
        again
            .text()
            .contains("kernloom: the state could not be stored, see above"),
        "{}",
        again.text()
    );
}

#[test]
fn commands_refuse_what_they_would_have_to_ignore() {
    let Some(lab) = lab("refuse", 0) else { return };
    let file = lab.dir().join("day.klrec");
    let words = format!("iq record {} --profile=idp --dry-run=false", file.display());
    let said = ask(&lab, &words);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.err.contains(&format!(
            "'kernloom iq --dry-run=false --record {}'",
            file.display()
        )),
        "{said:?}"
    );
    assert!(!file.exists());
    assert_eq!(ask(&lab, "iq decisions -n 0").code, Some(2));
}
