//! `kernloom iq` end to end: what survives a kill, what a dry run writes, what is read again, and
//! what it answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kernloom::state::{Found, StateFile};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::binary;
use crate::lab::{Assault, Attack, Family, Flood, Kernloom, Lab, Plan, Stage, wait_until};
use crate::seat::documented;

/// Generous: a busy machine sends a flood in a quarter of a minute instead of two seconds.
const SOON: Duration = Duration::from_secs(60);
const ENFORCE: [&str; 2] = ["--profile=web-server", "--dry-run=false"];

fn lab(name: &str) -> Option<Lab> {
    Lab::for_test(
        name,
        &Plan {
            clients: &["evil", "good"],
            office_hosts: 0,
        },
    )
}

fn start(lab: &Lab, args: &[&str]) -> Kernloom {
    let mut iq = Kernloom::iq(lab, binary(), args).unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    iq
}

fn run(lab: &Lab, args: &[&str]) -> String {
    Kernloom::run(lab, binary(), args).unwrap()
}

pub(super) fn json(lab: &Lab, args: &[&str]) -> Value {
    documented(&run(lab, args))
}

/// Exit code and standard error of a command that is to fail.
fn refused(lab: &Lab, args: &[&str]) -> (i32, String) {
    let said = Kernloom::ask(lab, binary(), args).unwrap();
    (said.code.unwrap(), said.err)
}

/// About two seconds of SYNs, far above every profile's trigger.
fn flood(lab: &Lab) -> Attack {
    let assault = Assault::Flood {
        flood: Flood::Syn4,
        packets: 9_000,
        gap: Duration::from_micros(200),
    };
    Attack::launch(lab, "evil", assault).unwrap()
}

/// A running IQ that holds the evil client, and that client's address.
fn holding(lab: &Lab, args: &[&str]) -> (Kernloom, String) {
    let mut iq = start(lab, args);
    let evil = lab.source("evil", Family::V4).unwrap();
    let mut attack = flood(lab);
    iq.wait_transition(SOON, &evil, |step| step.to > Stage::Observe)
        .unwrap();
    attack.finish(SOON).unwrap();
    (iq, evil)
}

fn kill(mut iq: Kernloom) {
    iq.process().signal(Signal::SIGKILL).unwrap();
    iq.process().wait(SOON).unwrap();
}

fn stop(mut iq: Kernloom) -> String {
    iq.process().stop().unwrap();
    iq.text()
}

fn why(lab: &Lab, source: &str) -> Value {
    json(lab, &["iq", "why", source, "--json"])
}

#[test]
fn w18_killed_and_started_again_it_keeps_attackers_held_and_frees_nothing() {
    let Some(lab) = lab("restart") else { return };
    let (iq, evil) = holding(&lab, &ENFORCE);
    run(
        &lab,
        &["shield", "deny", "add", "203.0.113.9", "--ttl", "1h"],
    );
    kill(iq);
    assert!(
        run(&lab, &["shield", "limit", "list"]).contains(&evil),
        "the kernel went on alone"
    );

    let mut iq = start(&lab, &ENFORCE);
    iq.wait_line(SOON, "1 more was found in the kernel")
        .unwrap();
    let told = why(&lab, &evil);
    assert_ne!(told["stage"], "OBSERVE", "{told}");
    assert_eq!(told["policy"]["owner"], "iq", "{told}");
    assert!(run(&lab, &["shield", "deny", "list"]).contains("203.0.113.9"));

    // An orderly end writes the state: the stage and its cause come back from there.
    assert!(stop(iq).contains("1 source stays enforced until it expires"));
    let mut iq = start(&lab, &ENFORCE);
    iq.wait_line(SOON, "1 source stays held as before").unwrap();
    assert_eq!(why(&lab, &evil)["stage"], told["stage"]);

    // What was reset while nobody ran is not brought back from the state.
    stop(iq);
    run(&lab, &["reset"]);
    let iq = start(&lab, &ENFORCE);
    assert_eq!(why(&lab, &evil)["stage"], "OBSERVE");
    assert_eq!(why(&lab, &evil)["policy"], Value::Null);
    drop(iq);
}

/// It said that it enforced nothing and held nobody, while the data plane dropped.
#[test]
fn a_dry_run_tells_of_what_an_iq_before_it_still_enforces() {
    let Some(lab) = lab("leftover") else { return };
    let (iq, evil) = holding(&lab, &ENFORCE);
    kill(iq);
    let mut iq = start(&lab, &["--profile=web-server"]);
    let told = "is still in force, though this is a dry run: ";
    let line = iq.wait_line(SOON, told).unwrap().text;
    let ends = format!("{told}{evil}; 'kernloom reset' ends that, else it expires");
    assert!(line.ends_with(&ends), "{line}");
    run(&lab, &["reset"]);
    stop(iq);
    assert!(!stop(start(&lab, &["--profile=web-server"])).contains(told));
}

#[test]
fn state_alone_holds_attackers_again_when_the_kernels_tables_are_gone() {
    let Some(lab) = lab("reload") else { return };
    let (iq, evil) = holding(&lab, &ENFORCE);
    stop(iq);
    run(&lab, &["shield", "detach", "--all", "--purge"]);
    let iq = start(&lab, &ENFORCE);
    let told = why(&lab, &evil);
    assert_ne!(told["stage"], "OBSERVE", "{told}");
    assert_eq!(told["policy"]["source"], evil.as_str(), "{told}");
    drop(iq);
}

#[test]
fn what_was_sent_while_nobody_ran_is_told_and_not_judged() {
    let Some(lab) = lab("before") else { return };
    // The program raises alerts from here on, whether or not somebody reads them.
    stop(start(&lab, &ENFORCE));
    let evil = lab.source("evil", Family::V4).unwrap();
    let scan = Assault::Scan {
        family: Family::V4,
        technique: "-sS",
        ports: 800,
    };
    Attack::launch(&lab, "evil", scan)
        .unwrap()
        .finish(SOON)
        .unwrap();
    let mut iq = start(&lab, &ENFORCE);
    wait_until(SOON, "the alert of before", || {
        let told = json(&lab, &["shield", "events", "--json"]);
        Ok(told["events"].to_string().contains(&evil))
    })
    .unwrap();
    assert_eq!(why(&lab, &evil)["stage"], "OBSERVE");
    assert!(iq.transitions().is_empty(), "{}", iq.text());
    // What comes from here on is.
    let _scan = Attack::launch(&lab, "evil", scan).unwrap();
    iq.wait_transition(SOON, &evil, |step| step.to > Stage::Observe)
        .unwrap();
}

#[test]
fn a_dry_run_decides_and_writes_nothing_to_the_data_plane() {
    let Some(lab) = lab("dry") else { return };
    fs::create_dir_all(lab.state_dir()).unwrap();
    fs::set_permissions(lab.state_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(lab.state_dir().join("whitelist.txt"), "192.0.2.0/24\n").unwrap();
    let (iq, evil) = holding(&lab, &["--profile=web-server"]);
    for list in ["limit", "deny", "allow"] {
        let listed = run(&lab, &["shield", list, "list"]);
        assert_eq!(
            listed.lines().count(),
            1,
            "{list}: only headings in\n{listed}"
        );
    }
    let told = why(&lab, &evil);
    assert_eq!(
        (&told["dry_run"], &told["policy"]),
        (&Value::Bool(true), &Value::Null),
        "{told}"
    );
    assert_ne!(told["stage"], "OBSERVE", "{told}");
    let journal = fs::read_to_string(lab.state_dir().join("journal.jsonl")).unwrap();
    let first: Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["source"], &first["dry_run"]),
        (&evil.as_str().into(), &Value::Bool(true))
    );
    drop(iq);
}

/// Whether state.json has learned from a source of 256 packets per second or more.
fn learned_loud(lab: &Lab) -> bool {
    let state = StateFile::peek(&lab.state_dir()).unwrap().unwrap();
    let learned = serde_json::to_value(state.autotune.unwrap().estimator).unwrap();
    // Nothing at all, where nobody taught.
    let pps = learned["days"][0][0].as_array();
    // Sixteen buckets to an octave, the first of them from 2^-4 on.
    let loud = |bucket: &Value| bucket[0].as_u64().unwrap() >= (4 + 8) * 16;
    pps.into_iter().flatten().any(loud)
}

#[test]
fn thresholds_are_learned_from_whitelisted_sources_only_where_that_is_asked_for() {
    let Some(lab) = lab("learn") else { return };
    let evil = lab.source("evil", Family::V4).unwrap();
    fs::create_dir_all(lab.state_dir()).unwrap();
    fs::set_permissions(lab.state_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(lab.state_dir().join("whitelist.txt"), &evil).unwrap();
    for (setting, learns) in [("", false), ("--whitelist-learn", true)] {
        let args = ["--profile=web-server", setting];
        let given = args.into_iter().filter(|arg| !arg.is_empty());
        let mut iq = start(&lab, &given.collect::<Vec<_>>());
        flood(&lab).finish(SOON).unwrap();
        let ticks = || json(&lab, &["iq", "status", "--json"])["ticks"].as_u64();
        let sent = ticks();
        wait_until(SOON, "the tick that saw the last of it", || {
            Ok(ticks() > sent)
        })
        .unwrap();
        assert!(iq.transitions().is_empty(), "{}", iq.text());
        stop(iq);
        assert_eq!(learned_loud(&lab), learns, "{setting}");
    }
}

#[test]
fn operators_entries_come_back_after_a_reboot_in_a_dry_run_too() {
    let Some(lab) = lab("reboot") else { return };
    let iq = start(&lab, &ENFORCE[..1]);
    let [denied, allowed] = ["203.0.113.9", "203.0.113.10"];
    run(&lab, &["shield", "deny", "add", denied]);
    run(&lab, &["shield", "allow", "add", allowed, "--ttl", "1h"]);
    let gone = "203.0.113.11";
    run(
        &lab,
        &["shield", "deny", "add", gone, "--reason", "scanner"],
    );
    run(&lab, &["shield", "limit", "default", "--rate", "5000pps"]);
    run(&lab, &["shield", "enforce-allow", "on", "--no-guard"]);
    let limited = json(&lab, &["shield", "status", "--json"])["default_limit"].clone();
    stop(iq);
    // A reboot is a new kernel with the old files: no maps, and another boot than the state's.
    run(&lab, &["shield", "detach", "--all", "--purge"]);
    let (mut file, found) = StateFile::open(&lab.state_dir(), false).unwrap();
    let Found::Newest(mut state) = found else {
        panic!("{found:?}")
    };
    state.written.boot = "the one before".to_owned();
    file.write(&state).unwrap();

    let mut iq = start(&lab, &ENFORCE[..1]);
    iq.wait_line(SOON, "put back 3 entries of operators after the reboot")
        .unwrap();
    let denies = run(&lab, &["shield", "deny", "list"]);
    assert!(denies.contains(denied), "{denies}");
    let reasoned = |line: &str| line.contains(gone) && line.contains("scanner");
    assert!(denies.lines().any(reasoned), "{denies}");
    assert!(run(&lab, &["shield", "allow", "list"]).contains(allowed));
    let status = json(&lab, &["shield", "status", "--json"]);
    assert_eq!(status["enforce_allow"]["state"], "on");
    assert_eq!(status["default_limit"], limited);
    // What nobody confirmed is no decision.
    run(&lab, &["shield", "enforce-allow", "off"]);
    run(
        &lab,
        &[
            "shield",
            "enforce-allow",
            "on",
            "--lease",
            "1h",
            "--no-guard",
        ],
    );
    stop(iq);
    let (_, found) = StateFile::open(&lab.state_dir(), false).unwrap();
    assert!(matches!(found, Found::Newest(state) if !state.allow_only));
}

/// A service manager starts again what failed, and IQ would attach again.
#[test]
fn what_the_operator_purges_ends_iq_without_a_failure() {
    let Some(lab) = lab("purged") else { return };
    let mut iq = start(&lab, &ENFORCE);
    // As with a package that is purged, the state has gone, too.
    fs::remove_dir_all(lab.state_dir()).unwrap();
    run(&lab, &["shield", "detach", "--all", "--purge"]);
    iq.wait_line(SOON, "stopping: the operator removed the data plane")
        .unwrap();
    assert!(iq.process().wait(SOON).unwrap().success());
    assert!(!lab.bpffs().exists());
}

#[test]
fn an_iq_that_may_wait_waits_for_its_interface() {
    let Some(lab) = lab("late") else { return };
    let net = &lab.server().net;
    let (code, said) = refused(
        &lab,
        &["iq", "--profile=idp", "--iface=late0", "--wait=300ms"],
    );
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no interface 'late0'"), "{said}");
    let (code, said) = refused(&lab, &["shield", "attach", "late0", "--wait=300ms"]);
    assert_eq!(code, 1, "{said}");
    let (code, _) = refused(&lab, &["shield", "attach", "late0"]);
    assert_eq!(code, 2, "without --wait it is a typing mistake");
    let (code, said) = refused(&lab, &["shield", "status", "--wait=300ms"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is attached nowhere"), "{said}");
    std::thread::scope(|scope| {
        let status = scope.spawn(|| run(&lab, &["shield", "status", "--wait=60s"]));
        let attach = scope.spawn(|| run(&lab, &["shield", "attach", "late0", "--wait=60s"]));
        net.ip("link add late0 type veth peer name late1").unwrap();
        assert!(attach.join().unwrap().contains("late0: attached"));
        assert!(status.join().unwrap().contains("late0"));
    });
    run(&lab, &["shield", "detach", "--all", "--purge"]);
}

#[test]
fn w27_lists_are_read_again_when_they_change_and_a_broken_one_changes_nothing() {
    let Some(lab) = lab("lists") else { return };
    let (mut iq, evil) = holding(&lab, &ENFORCE);
    let file = |name: &str| lab.state_dir().join(name);
    fs::write(
        file("whitelist.txt"),
        format!("not-an-address\n{evil} # ours\n"),
    )
    .unwrap();
    iq.wait_line(SOON, "whitelist.txt:1: 'not-an-address' is not an address")
        .unwrap();
    iq.wait_transition(SOON, &evil, |step| step.to == Stage::Observe)
        .unwrap();
    assert!(run(&lab, &["shield", "allow", "list"]).contains("iq/whitelist"));
    assert!(
        why(&lab, &evil)["exempt"]
            .as_str()
            .unwrap()
            .contains("by whitelist")
    );

    let mut attack = flood(&lab);
    attack.finish(SOON).unwrap();
    assert_eq!(why(&lab, &evil)["stage"], "OBSERVE", "exempt in the engine");
    let dropped = |list: &str| run(&lab, &["shield", list, "list"]).contains(&evil);
    assert!(
        !dropped("limit") && !dropped("deny"),
        "exempt in the data plane"
    );

    fs::write(
        file("feedback.json"),
        r#"[{"target": "192.0.2.7", "action": "whitelist"}]"#,
    )
    .unwrap();
    iq.wait_line(SOON, "feedback.json: 1 entry, by which 1 source is exempt")
        .unwrap();
    wait_until(SOON, "the feedback to be compiled", || {
        Ok(run(&lab, &["shield", "allow", "list"]).contains("192.0.2.7"))
    })
    .unwrap();
    fs::write(file("feedback.json"), "[{").unwrap();
    iq.wait_line(
        SOON,
        "feedback.json:1:2: EOF while parsing an object; what was read before stays in force",
    )
    .unwrap();
    assert!(run(&lab, &["shield", "allow", "list"]).contains("192.0.2.7"));

    fs::write(file("whitelist.txt"), "").unwrap();
    wait_until(SOON, "the exemption to end", || {
        Ok(!run(&lab, &["shield", "allow", "list"]).contains(&evil))
    })
    .unwrap();
}

#[test]
fn an_exemption_goes_before_a_feed_and_an_operators_entry_before_it_which_is_told() {
    let Some(lab) = lab("standing") else { return };
    let [fed, own] = ["192.0.2.7", "192.0.2.8"];
    let mut iq = start(&lab, &ENFORCE);
    run(&lab, &["shield", "deny", "add", fed, "--owner=feed"]);
    let whitelist = [fed, own].join("\n");
    fs::write(lab.state_dir().join("whitelist.txt"), whitelist).unwrap();
    let owner = |source: &str| {
        let told = json(&lab, &["shield", "verdict", source, "--json"]);
        told["entry"]["owner"].clone()
    };
    let back = |source: &str| {
        wait_until(SOON, "the exemption to be there", || {
            Ok(owner(source) == "iq")
        })
        .unwrap();
    };
    back(fed);
    back(own);
    let removed = run(&lab, &["shield", "allow", "del", fed]);
    assert!(
        removed.contains("an iq that runs writes it again while its lists say so"),
        "{removed}"
    );
    back(fed);

    for (list, effect) in [
        ("allow", "a default limit and an enforced graph hold for it"),
        ("deny", "it is blocked"),
    ] {
        run(&lab, &["shield", list, "add", own]);
        iq.wait_line(
            SOON,
            &format!(
                "{own} is exempt, but the operator's {list} of it stands, and {effect}: 'kernloom \
                 shield {list} del {own}' makes room for the exemption"
            ),
        )
        .unwrap();
        assert_eq!(owner(own), "operator");
        run(&lab, &["shield", list, "del", own]);
        back(own);
    }
    stop(iq);
}

#[test]
fn w17_a_reset_starts_the_running_iq_over_and_it_holds_the_next_attack() {
    let Some(lab) = lab("reset") else { return };
    let (mut iq, evil) = holding(&lab, &ENFORCE);
    let said = Kernloom::ask(&lab, binary(), &["reset"]).unwrap();
    assert!(
        said.out.contains(&evil) && said.err.contains("the running iq starts over"),
        "{said:?}"
    );
    assert_eq!(why(&lab, &evil)["stage"], "OBSERVE");
    let before = iq.transitions().len();
    let mut attack = flood(&lab);
    wait_until(SOON, "the next attack to be held", || {
        let fresh = &iq.transitions()[before..];
        Ok(fresh
            .iter()
            .any(|step| step.source == evil && step.tightens()))
    })
    .unwrap();
    attack.finish(SOON).unwrap();
    assert!(run(&lab, &["shield", "limit", "list"]).contains(&evil));
}

/// Whoever meant to have files read again, or lost the terminal, lost the protection.
#[test]
fn a_hangup_ends_nothing() {
    let Some(lab) = lab("hangup") else { return };
    let (mut iq, evil) = holding(&lab, &ENFORCE);
    iq.process().signal(Signal::SIGHUP).unwrap();
    iq.wait_line(SOON, "SIGHUP: going on").unwrap();
    let stage = why(&lab, &evil)["stage"].clone();
    assert_ne!(stage, "OBSERVE");
    assert!(stop(iq).contains("stopping"));
}

#[test]
fn it_says_why_with_numbers_and_origins() {
    let Some(lab) = lab("why") else { return };
    let (iq, evil) = holding(&lab, &ENFORCE);
    let told = why(&lab, &evil);
    assert!(
        ["syn", "half-open", "refusals"]
            .map(Into::into)
            .contains(&told["cause"]["signal"]),
        "{told}"
    );
    assert!(
        told["ticks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|tick| tick["severity"].as_f64() > Some(1.0))
    );
    let syn = &told["thresholds"][2];
    assert_eq!(
        (&syn["value"], &syn["origin"], &syn["key"]),
        (
            &250.0.into(),
            &"profile web-server".into(),
            &"signal_engine.syn_trigger".into()
        )
    );
    assert!(told["until"].as_str() > told["entered"].as_str(), "{told}");
    let text = run(&lab, &["iq", "why", &evil]);
    for part in [
        "data plane: limit-",
        "for a packet that opens tcp/443",
        "cause: ",
        "profile web-server (signal_engine.syn_trigger)",
        &format!("to exempt it: kernloom iq exempt {evil} --ttl 24h"),
    ] {
        assert!(text.contains(part), "'{part}' in\n{text}");
    }
    // The program is asked, not the engine: what an operator said in between is in its answer.
    run(&lab, &["shield", "deny", "add", &evil]);
    let live = &why(&lab, &evil)["verdict"];
    let asked = json(&lab, &["shield", "verdict", &evil, "--json"]);
    assert_eq!(
        (&live["verdict"], &live["reason"]),
        (&"drop".into(), &"deny".into())
    );
    assert_eq!(
        (&live["verdict"], &live["reason"]),
        (&asked["verdict"], &asked["reason"])
    );
    drop(iq);
}

#[test]
fn it_forgives_and_exempts_on_request_and_remembers() {
    let Some(lab) = lab("exempt") else { return };
    let (iq, evil) = holding(&lab, &ENFORCE);
    let status = json(&lab, &["iq", "status", "--json"]);
    assert_eq!(status["phase"], "bootstrap-1", "{status}");
    assert_eq!(
        status["held"]["rate_soft"].as_u64().unwrap()
            + status["held"]["rate_hard"].as_u64().unwrap(),
        1
    );
    assert!(run(&lab, &["iq", "status"]).contains("next tuning in "));

    assert_eq!(
        run(&lab, &["iq", "forgive", &evil]),
        format!("let go of 1 source inside {evil}\n")
    );
    assert_eq!(why(&lab, &evil)["policy"], Value::Null);
    run(&lab, &["iq", "exempt", &evil, "--ttl", "1h"]);
    let told = why(&lab, &evil);
    assert_eq!(told["policy"]["action"], "allow", "{told}");
    assert!(
        told["exempt"].as_str().unwrap().contains("by iq exempt"),
        "{told}"
    );

    // It outlives the process that was told.
    kill(iq);
    let iq = start(&lab, &ENFORCE);
    assert!(
        why(&lab, &evil)["exempt"]
            .as_str()
            .unwrap()
            .contains("by iq exempt")
    );
    drop(iq);
    let (code, said) = refused(&lab, &["iq", "status"]);
    assert_eq!(code, 2);
    assert!(said.contains("no iq runs for "), "{said}");
}

#[test]
fn w53_a_damaged_state_is_survived_and_two_are_refused_before_anything_is_attached() {
    let Some(lab) = lab("damaged") else { return };
    for _ in 0..2 {
        stop(start(&lab, &ENFORCE));
    }
    let newest = lab.state_dir().join("state.json");
    let previous = lab.state_dir().join("state.json.previous");
    fs::write(&newest, "{\"version\":1").unwrap();
    let mut iq = start(&lab, &ENFORCE);
    iq.wait_line(SOON, "going on from the state before it")
        .unwrap();
    stop(iq);
    run(&lab, &["shield", "detach", "--all", "--purge"]);
    for file in [&newest, &previous] {
        fs::write(file, "").unwrap();
    }
    let start_args = ["iq", "--iface", "eth0", "--profile=web-server"];
    let (code, said) = refused(&lab, &start_args);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("no usable state") && said.contains("--fresh-state"),
        "{said}"
    );
    let (code, said) = refused(&lab, &["shield", "status"]);
    assert_eq!(code, 2, "nothing was loaded: {said}");
    let mut iq = start(&lab, &[ENFORCE[0], ENFORCE[1], "--fresh-state"]);
    iq.wait_line(SOON, "starting over as told").unwrap();
}

#[test]
fn a_profile_file_is_read_again_and_a_broken_version_never_replaces_a_working_one() {
    let Some(lab) = lab("profile") else { return };
    let path = lab.dir().join("ours.yaml");
    let profile = |trigger: &str| {
        format!(
            "apiVersion: kernloom.io/v1alpha1\nkind: PDPConfig\nmetadata: {{name: ours, extends: nas}}\n\
             spec: {{signal_engine: {{pps_trigger: {trigger}}}}}\n"
        )
    };
    fs::write(&path, profile("900")).unwrap();
    let flag = format!("--pdp-config={}", path.display());
    let mut iq = start(&lab, &[&flag]);
    let trigger = || json(&lab, &["iq", "status", "--json"])["thresholds"][0]["value"].clone();
    assert_eq!(trigger(), 900.0);
    fs::write(&path, profile("many")).unwrap();
    iq.wait_line(SOON, "the profile read before stays in force")
        .unwrap();
    assert_eq!(trigger(), 900.0);
    fs::write(&path, profile("0.0")).unwrap();
    iq.wait_line(SOON, "profile ours read again").unwrap();
    assert_eq!(trigger(), 900.0, "left to what was learned so far");
    fs::write(&path, profile("700")).unwrap();
    wait_until(SOON, "what is written now", || Ok(trigger() == 700.0)).unwrap();
}
