//! The main job: a real flood against the built program, and what is left when it ends.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::binary;
use crate::lab::{
    Assault, Attack, Family, Flood, Kernloom, Lab, Load, LoadPlan, Plan, Said, Stage, WebServer,
    wait_until,
};

pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) fn lab(name: &str, office_hosts: u8) -> Option<Lab> {
    Lab::for_test(
        name,
        &Plan {
            clients: &["evil"],
            office_hosts,
        },
    )
}

pub(super) fn ask(lab: &Lab, words: &str) -> Said {
    Kernloom::ask(lab, binary(), &words.split(' ').collect::<Vec<_>>()).unwrap()
}

/// The web server's judgement with holds short enough to watch them end.
fn hasty(lab: &Lab) -> String {
    let text = include_str!("../../profiles/web-server.yaml")
        .replace("min_hold_soft: \"20s\"", "min_hold_soft: \"2s\"")
        .replace("min_hold_hard: \"45s\"", "min_hold_hard: \"2s\"");
    let path: PathBuf = lab.dir().join("hasty.yaml");
    std::fs::write(&path, text).unwrap();
    format!("--pdp-config={}", path.display())
}

pub(super) fn start(lab: &Lab, more: &[&str]) -> Kernloom {
    let judge = hasty(lab);
    let args: Vec<&str> = [&judge, "--hard-ttl=3s"]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    Kernloom::iq(lab, binary(), &args).unwrap()
}

/// A flood of some seconds: 5 000 packets per second at most.
pub(super) fn flood(lab: &Lab, flood: Flood, packets: u32) -> Attack {
    let gap = match flood {
        Flood::Syn4 | Flood::Udp4 => Duration::from_micros(200),
        Flood::Syn6 | Flood::Udp6 => Duration::from_micros(400),
    };
    let assault = Assault::Flood {
        flood,
        packets,
        gap,
    };
    Attack::launch(lab, "evil", assault).unwrap()
}

pub(super) fn dropped(lab: &Lab) -> u64 {
    let status = ask(lab, "shield status").out;
    let line = status.lines().find(|line| line.starts_with("packets: "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn floods_of_both_families_are_limited_and_released_and_no_client_notices() {
    let Some(lab) = lab("main-job", 4) else {
        return;
    };
    let _web = WebServer::start(&lab).unwrap();
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=3s"]);
    assert!(
        iq.attached().ends_with("eth0: attached in driver mode"),
        "{}",
        iq.attached()
    );
    let plan = LoadPlan {
        first: 0,
        clients: 4,
        families: &[Family::V4, Family::V6],
        requests: 60,
        per_minute: 300,
    };
    let mut load = Load::start(&lab, plan).unwrap();
    for (kind, family) in [(Flood::Syn4, Family::V4), (Flood::Syn6, Family::V6)] {
        let source = lab.source("evil", family).unwrap();
        let mut attack = flood(&lab, kind, 12_000);
        let limited = iq
            .wait_transition(SOON, &source, |step| step.to > Stage::Observe)
            .unwrap();
        assert_eq!(limited.from, Stage::Observe, "{limited:?}");
        // Whichever is louder of what one SYN is evidence for.
        assert!(
            matches!(
                limited.field("signal"),
                Some("syn" | "half-open" | "refusals")
            ),
            "{limited:?}"
        );
        let held = ask(&lab, "shield limit list").out;
        assert!(held.contains(&source) && held.contains(" iq "), "{held}");
        attack.finish(SOON).unwrap();
        iq.wait_transition(SOON, &source, |step| step.to == Stage::Observe)
            .unwrap();
    }
    assert!(dropped(&lab) > 0);
    let tally = load.finish(SOON).unwrap();
    assert_eq!((tally.sent, tally.lost), (480, 0), "{tally:?}");
}

#[test]
fn a_dry_run_tells_every_decision_and_writes_nothing() {
    let Some(lab) = lab("dry-run", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--soft-ttl=3s"]);
    let source = lab.source("evil", Family::V4).unwrap();
    let mut attack = flood(&lab, Flood::Udp4, 12_000);
    let told = iq
        .wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    assert!(
        told.reason.ends_with("(dry run: nothing written)"),
        "{told:?}"
    );
    attack.finish(SOON).unwrap();
    let status = ask(&lab, "shield status").out;
    assert!(status.contains("\npolicy: 0 of "), "{status}");
    assert_eq!(dropped(&lab), 0, "{status}");
}

#[test]
fn a_clean_end_keeps_what_is_enforced_until_it_expires() {
    let Some(lab) = lab("clean-end", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=20s"]);
    let source = lab.source("evil", Family::V6).unwrap();
    let attack = flood(&lab, Flood::Syn6, 12_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    drop(attack);
    iq.process().signal(Signal::SIGINT).unwrap();
    let status = iq.process().wait(SOON).unwrap();
    assert_eq!(status.code(), Some(0), "{}", iq.text());
    assert!(
        iq.text()
            .contains("stopping; 1 source stays enforced until it expires"),
        "{}",
        iq.text()
    );
    assert!(ask(&lab, "shield limit list").out.contains(&source));
    let reset = ask(&lab, "reset");
    assert_eq!(reset.code, Some(0), "{reset:?}");
    assert!(
        reset.out.starts_with(&format!("removed: {source} limit-"))
            && reset.out.ends_with("1 removed, 0 kept\n"),
        "{reset:?}"
    );
    assert!(!ask(&lab, "shield limit list").out.contains(&source));
}

#[test]
fn a_killed_iq_leaves_limits_that_end_by_themselves() {
    let Some(lab) = lab("killed", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=3s"]);
    let source = lab.source("evil", Family::V4).unwrap();
    let attack = flood(&lab, Flood::Udp4, 12_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    iq.process().signal(Signal::SIGKILL).unwrap();
    iq.process().wait(SOON).unwrap();
    drop(attack);
    assert!(ask(&lab, "shield limit list").out.contains(&source));
    wait_until(SOON, "the limit to end by itself", || {
        let held = ask(&lab, "shield limit list").out;
        Ok(held.contains("ended") || !held.contains(&source))
    })
    .unwrap();
    // Ended in the kernel, not only in the list: 200 pings at once pass a limit of none.
    let server = lab.server().v4.to_string();
    let before = dropped(&lab);
    lab.client("evil")
        .unwrap()
        .net
        .run("ping", &["-q", "-f", "-c", "2000", &server])
        .unwrap();
    assert_eq!(dropped(&lab), before);
}

#[test]
fn a_reset_tells_a_running_iq_which_then_starts_over() {
    let Some(lab) = lab("reset", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=60s"]);
    let source = lab.source("evil", Family::V4).unwrap();
    let attack = flood(&lab, Flood::Udp4, 8_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    drop(attack);
    let kept = ask(&lab, "shield deny add 192.0.2.9");
    assert_eq!(kept.code, Some(0), "{kept:?}");
    let reset = ask(&lab, "reset");
    assert!(
        reset.out.contains(&format!("removed: {source} limit-"))
            && reset
                .out
                .ends_with("1 removed, 1 kept; 'kernloom reset --all' removes these too\n"),
        "{reset:?}"
    );
    wait_until(SOON, "iq to hear of the reset", || {
        iq.check_running()?;
        Ok(iq.text().contains("reset by the operator"))
    })
    .unwrap();
    assert!(!ask(&lab, "shield limit list").out.contains(&source));
    // It starts over: the next flood is news again.
    let before = iq.transitions().len();
    let _attack = flood(&lab, Flood::Udp4, 8_000);
    wait_until(SOON, "the next decision", || {
        Ok(iq.transitions()[before..]
            .iter()
            .any(|step| step.source == source && step.from == Stage::Observe))
    })
    .unwrap();
}

#[test]
fn a_second_iq_is_refused_and_the_first_goes_on() {
    let Some(lab) = lab("second", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--soft-ttl=3s"]);
    let second = ask(&lab, "iq --profile=idp --iface eth0");
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.err.contains("iq"), "{second:?}");
    // Under another name it is the same instance still.
    let elsewhere = lab.dir().join("elsewhere");
    let mut command = lab.server().net.command(binary().to_str().unwrap());
    command
        .args(["--bpffs".as_ref(), lab.bpffs()])
        .args(["--run-dir".as_ref(), elsewhere.as_path()])
        .args(["--state-dir".as_ref(), elsewhere.as_path()])
        .args(["iq", "--profile=idp", "--iface", "eth0"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("under another --run-dir"), "{said}");
    iq.check_running().unwrap();
}

/// What a command exempted, a command ends: by itself, or with all the rest.
#[test]
fn an_exemption_by_command_ends_by_command() {
    let Some(lab) = lab("unexempt", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "a tick every").unwrap();
    let is_exempt = |source: &str| {
        let why = ask(&lab, &format!("iq why {source}")).out;
        let said = !why.contains("to exempt it");
        assert_eq!(said, why.contains("data plane: allow"), "{why}");
        said
    };
    for source in ["10.214.0.7", "10.214.0.8"] {
        ask(&lab, &format!("iq exempt {source} --ttl 1h"));
        assert!(is_exempt(source));
    }
    let ended = ask(&lab, "iq exempt 10.214.0.7 --end");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!is_exempt("10.214.0.7") && is_exempt("10.214.0.8"));
    let again = ask(&lab, "iq exempt 10.214.0.7 --end");
    assert_eq!(again.code, Some(2), "{again:?}");
    let reset = ask(&lab, "reset --all");
    assert!(!reset.out.contains("'kernloom reset --all'"), "{reset:?}");
    assert!(!is_exempt("10.214.0.8"));
    // Not after a restart either.
    drop(iq);
    let mut next = start(&lab, &["--dry-run=false"]);
    next.wait_line(SOON, "a tick every").unwrap();
    assert!(!is_exempt("10.214.0.8"));
}
