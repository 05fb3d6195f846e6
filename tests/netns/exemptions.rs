//! `kernloom iq` and its lists where the data plane, or an operator, has another say.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use kernloom::state::{Found, StateFile};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use super::daemon::json;
use super::iq::{SOON, ask, flood, lab, start};
use crate::lab::{Family, Flood, Lab, wait_until};

/// Writes the whitelist as one file in the place of another.
fn whitelist(lab: &Lab, text: &str) {
    fs::create_dir_all(lab.state_dir()).unwrap();
    fs::set_permissions(lab.state_dir(), PermissionsExt::from_mode(0o700)).unwrap();
    let new = lab.state_dir().join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, lab.state_dir().join("whitelist.txt")).unwrap();
}

fn owner(lab: &Lab, source: &str) -> Value {
    let told = ask(lab, &format!("shield verdict {source} --json")).out;
    let told: Value = serde_json::from_str(&told).unwrap();
    told["entry"]["owner"].clone()
}

fn wait_exempt(lab: &Lab, source: &str) {
    wait_until(SOON, &format!("the exemption of {source}"), || {
        Ok(owner(lab, source) == "iq")
    })
    .unwrap();
}

/// It ended IQ, at every start again.
#[test]
fn lists_longer_than_the_policy_table_are_told_once_and_iq_goes_on() {
    let Some(lab) = lab("room", 0) else { return };
    let many: String = (1..=70)
        .map(|host| format!("{}\n", Ipv4Addr::new(192, 0, 2, host)))
        .collect();
    whitelist(&lab, &many);
    let mut iq = start(&lab, &["--dry-run=false", "--max-deny=64"]);
    let told = "22 exemptions are not in the data plane, 22 of ";
    let line = iq.wait_line(SOON, told).unwrap().text;
    assert!(
        line.contains("whitelist.txt: ")
            && line.contains("(exemptions have 48 of 64 policy entries, ")
            && line.ends_with("'kernloom shield upgrade --max-deny 108' makes room"),
        "{line}"
    );
    let status = ask(&lab, "iq status").out;
    assert!(
        status.contains("exempt entries: 70, 22 of them without room in the data plane\n"),
        "{status}"
    );
    assert_eq!(
        json(&lab, &["iq", "status", "--json"])["exempt_no_room"],
        22
    );
    // The rest of the table is for who is to be held, and whom a command exempts.
    let source = lab.source("evil", Family::V4).unwrap();
    let attack = flood(&lab, Flood::Udp4, 20_000);
    iq.wait_line(SOON, &format!("iq] source={source} OBSERVE -> RATE_SOFT "))
        .unwrap();
    drop(attack);
    let said = ask(&lab, "iq exempt 198.51.100.8 --ttl 1h");
    assert_eq!(said.code, Some(0), "{said:?}");
    let rest: String = (1..=64).map(|host| format!("203.0.113.{host}\n")).collect();
    for line in rest.lines() {
        if ask(&lab, &format!("shield deny add {line}")).code != Some(0) {
            break;
        }
    }
    let said = ask(&lab, "iq exempt 198.51.100.9 --ttl 1h");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err
            .contains("198.51.100.9 is not exempt: the policy table has no room for it"),
        "{said:?}"
    );
    let why = ask(&lab, "iq why 198.51.100.9 --json").out;
    let why: Value = serde_json::from_str(&why).unwrap();
    assert_eq!(why["exempt"], Value::Null, "{why}");
    iq.check_running().unwrap();
    assert_eq!(iq.text().matches(told).count(), 1, "{}", iq.text());
    // Room is used.
    whitelist(&lab, "192.0.2.70\n");
    wait_exempt(&lab, "192.0.2.70");
    let said = ask(&lab, "iq exempt 198.51.100.9 --ttl 1h");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(owner(&lab, "198.51.100.9"), "iq");
}

/// Each tick said so again, as if it had limited anybody.
#[test]
fn whom_a_full_table_keeps_from_being_held_is_told_once_and_held_once_there_is_room() {
    let Some(lab) = lab("full", 0) else { return };
    let attach = ask(&lab, "shield attach eth0 --max-deny 64 --no-guard");
    assert_eq!(attach.code, Some(0), "{attach:?}");
    let many: String = (1..=64).map(|host| format!("192.0.2.{host}\n")).collect();
    let list = lab.dir().join("many.txt");
    fs::write(&list, many).unwrap();
    let said = ask(&lab, &format!("shield deny import {}", list.display()));
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut iq = start(&lab, &["--dry-run=false", "--interval=200ms"]);
    let source = lab.source("evil", Family::V4).unwrap();
    let _attack = flood(&lab, Flood::Udp4, 200_000);
    let told = format!("not in force: source={source} OBSERVE -> RATE_SOFT ");
    let line = iq.wait_line(SOON, &told).unwrap().text;
    assert!(line.contains(": no room for "), "{line}");
    let ticks = || json(&lab, &["iq", "status", "--json"])["ticks"].as_u64();
    let then = ticks();
    wait_until(SOON, "ten more ticks", || {
        Ok(ticks() >= then.map(|ticks| ticks + 10))
    })
    .unwrap();
    assert_eq!(iq.text().matches(&told).count(), 1, "{}", iq.text());
    let said = ask(&lab, "shield deny del 192.0.2.1");
    assert_eq!(said.code, Some(0), "{said:?}");
    let held = format!("iq] source={source} OBSERVE -> RATE_SOFT ");
    iq.wait_line(SOON, &held).unwrap();
}

#[test]
fn an_exemption_comes_back_when_the_operators_entry_in_its_place_has_ended() {
    let Some(lab) = lab("ended", 0) else { return };
    whitelist(&lab, "192.0.2.7\n");
    let mut iq = start(&lab, &["--dry-run=false"]);
    wait_exempt(&lab, "192.0.2.7");
    let said = ask(&lab, "shield allow add 192.0.2.7 --ttl 2s");
    assert_eq!(said.code, Some(0), "{said:?}");
    iq.wait_line(
        SOON,
        "192.0.2.7 is exempt, but the operator's allow of it stands",
    )
    .unwrap();
    wait_exempt(&lab, "192.0.2.7");
}

/// The log said that they stayed, and they were gone.
#[test]
fn a_list_that_cannot_be_read_exempts_over_a_restart_whom_it_exempted_before() {
    let Some(lab) = lab("unread", 0) else { return };
    whitelist(&lab, "192.0.2.1\n");
    let files = ["whitelist.txt", "feedback.json"].map(|name| lab.state_dir().join(name));
    let [listed, said] = &files;
    let feedback = |source: &str, end: &str| {
        format!(r#"{{"target": "{source}", "action": "whitelist", {end}}}"#)
    };
    let entries = [
        feedback("192.0.2.2", r#""ttl": "24h""#),
        feedback("192.0.2.3", r#""until": "2026-01-01T00:00:00Z""#),
    ];
    fs::write(said, format!("[{}]", entries.join(","))).unwrap();
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(
        SOON,
        "feedback.json: 2 entries, by which 1 source is exempt; 1 entry is over",
    )
    .unwrap();
    for source in ["192.0.2.1", "192.0.2.2"] {
        wait_exempt(&lab, source);
    }
    let status = json(&lab, &["iq", "status", "--json"]);
    assert_eq!(status["exempt"], 2, "{status}");
    iq.process().stop().unwrap();
    fs::set_permissions(listed, PermissionsExt::from_mode(0o664)).unwrap();
    fs::write(said, "[").unwrap();
    let mut iq = start(&lab, &["--dry-run=false"]);
    for what in ["(mode 0664)", "feedback.json:1:1: "] {
        let line = iq.wait_line(SOON, what).unwrap().text;
        assert!(
            line.ends_with("; what was read before stays in force"),
            "{line}"
        );
    }
    for (source, by) in [("192.0.2.1", "whitelist"), ("192.0.2.2", "feedback")] {
        assert_eq!(owner(&lab, source), "iq");
        let why = ask(&lab, &format!("iq why {source}")).out;
        assert!(why.contains(&format!("{source} by {by}")), "{why}");
    }
    iq.process().stop().unwrap();
    for path in &files {
        fs::remove_file(path).unwrap();
    }
    let mut iq = start(&lab, &["--dry-run=false"]);
    for path in &files {
        let told = format!(
            "there is no {} any more: 1 source is not exempt that it exempted before this start",
            path.display()
        );
        iq.wait_line(SOON, &told).unwrap();
    }
    for source in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(owner(&lab, source), Value::Null);
    }
    // Nor is there anything to go by after that.
    iq.process().stop().unwrap();
    fs::write(said, "[").unwrap();
    let mut iq = start(&lab, &["--dry-run=false"]);
    let line = iq.wait_line(SOON, "feedback.json:1:1: ").unwrap().text;
    assert!(line.ends_with("; nobody is exempt by it"), "{line}");
}

#[test]
fn a_list_is_read_again_however_it_came_into_its_place() {
    let Some(lab) = lab("placed", 0) else { return };
    whitelist(&lab, "192.0.2.1\n");
    let path = lab.state_dir().join("whitelist.txt");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "others than its owner may write it")
        .unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    wait_exempt(&lab, "192.0.2.1");
    let target = lab.dir().join("target");
    fs::write(&target, "192.0.2.2\n").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    wait_exempt(&lab, "192.0.2.2");
    fs::write(&target, "192.0.2.33\n").unwrap();
    wait_exempt(&lab, "192.0.2.33");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    iq.wait_line(SOON, "whitelist.txt: is not a regular file")
        .unwrap();
    assert_eq!(owner(&lab, "192.0.2.33"), "iq");
}

/// It attached to what the operator had let go of, because something else was attached.
#[test]
fn told_to_attach_nothing_it_attaches_nothing_and_says_what_is_missing() {
    let Some(lab) = lab("noattach", 0) else {
        return;
    };
    let net = &lab.server().net;
    net.ip("link add eth1 type veth peer name eth1p\nlink set eth1 up")
        .unwrap();
    let said = ask(&lab, "shield attach eth0 --no-guard");
    assert_eq!(said.code, Some(0), "{said:?}");
    for (more, waited) in [("", ""), (" --wait=300ms", " (waited 300ms)")] {
        let words = format!("iq --profile=idp --iface=eth0,eth1 --no-attach{more}");
        let said = ask(&lab, &words);
        assert_eq!(said.code, Some(1), "{said:?}");
        let told = format!(
            "not attached to eth1, and --no-attach attaches nothing; start with 'kernloom shield attach \
             eth1'{waited}"
        );
        assert!(said.err.contains(&told), "{said:?}");
    }
    let status = ask(&lab, "shield status").out;
    assert!(!status.contains("eth1"), "{status}");
}

/// The next IQ read from the state what the reset said was removed.
#[test]
fn a_reset_of_all_ends_exemptions_without_an_iq_too_and_counts_what_it_would_remove() {
    let Some(lab) = lab("alone", 0) else { return };
    whitelist(&lab, "192.0.2.7\n");
    let mut iq = start(&lab, &["--dry-run=false"]);
    wait_exempt(&lab, "192.0.2.7");
    let said = ask(&lab, "iq exempt 198.51.100.9 --ttl 1h");
    assert_eq!(said.code, Some(0), "{said:?}");
    let reset = ask(&lab, "reset").out;
    assert_eq!(
        reset,
        "0 removed, 2 kept; 'kernloom reset --all' removes 1 of these too\n"
    );
    iq.process().stop().unwrap();
    let reset = ask(&lab, "reset --all").out;
    assert!(
        reset.ends_with("an iq that starts exempts again whom its lists name\n2 removed, 0 kept\n"),
        "{reset}"
    );
    let _iq = start(&lab, &["--dry-run=false"]);
    wait_exempt(&lab, "192.0.2.7");
    assert_eq!(owner(&lab, "198.51.100.9"), Value::Null);
}

/// It left nobody an allow, and the rule that only those pass.
#[test]
fn a_reset_of_what_operators_allowed_ends_enforce_allow_and_says_so() {
    let Some(lab) = lab("lockout", 0) else { return };
    for (scope, lease) in [("--operator", ""), ("--all", " --lease 1h")] {
        for words in [
            "shield attach eth0 --no-guard",
            "shield allow add 192.0.2.7",
            &format!("shield enforce-allow on --no-guard{lease}"),
        ] {
            let said = ask(&lab, words);
            assert_eq!(said.code, Some(0), "{said:?}");
        }
        let reset = ask(&lab, &format!("reset {scope}"));
        assert!(
            reset.out.starts_with("enforce-allow is off: ")
                && reset.out.ends_with("1 removed, 0 kept\n"),
            "{reset:?}"
        );
        let status: Value = serde_json::from_str(&ask(&lab, "shield status --json").out).unwrap();
        assert_eq!(status["enforce_allow"]["state"], "off");
    }
}

#[test]
fn what_the_kernel_still_exempts_and_an_older_state_does_not_know_stays_and_is_told() {
    let Some(lab) = lab("older", 0) else { return };
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "a tick every").unwrap();
    let said = ask(&lab, "iq exempt 198.51.100.9 --ttl 1h");
    assert_eq!(said.code, Some(0), "{said:?}");
    iq.process().stop().unwrap();
    // The state from before that, and a newer one that is damaged.
    let (mut file, found) = StateFile::open(&lab.state_dir(), false).unwrap();
    let Found::Newest(mut state) = found else {
        panic!("{found:?}")
    };
    assert_eq!(state.exemptions.len(), 1);
    state.exemptions.clear();
    for _ in 0..2 {
        file.write(&state).unwrap();
    }
    fs::write(lab.state_dir().join("state.json"), "{").unwrap();
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "198.51.100.9 stays exempt until ")
        .unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    assert_eq!(owner(&lab, "198.51.100.9"), "iq");
    let why = ask(&lab, "iq why 198.51.100.9").out;
    assert!(why.contains("by iq exempt"), "{why}");
}

/// It was taken for one of a feedback file that is gone, and ended.
#[test]
fn what_a_command_exempted_stays_so_though_no_state_was_ever_stored() {
    let Some(lab) = lab("unstored", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "a tick every").unwrap();
    let said = ask(&lab, "iq exempt 198.51.100.9 --ttl 1h");
    assert_eq!(said.code, Some(0), "{said:?}");
    iq.process().signal(Signal::SIGKILL).unwrap();
    iq.process().wait(SOON).unwrap();
    for file in ["state.json", "state.json.previous"] {
        let removed = fs::remove_file(lab.state_dir().join(file));
        assert!(removed.is_ok() || file.ends_with("previous"), "{removed:?}");
    }
    let mut iq = start(&lab, &["--dry-run=false"]);
    let line = iq
        .wait_line(SOON, "198.51.100.9 stays exempt until ")
        .unwrap();
    assert!(
        line.text
            .contains("though no state says so: none was stored"),
        "{line:?}"
    );
    iq.wait_line(SOON, "a tick every").unwrap();
    assert_eq!(owner(&lab, "198.51.100.9"), "iq");
}

#[test]
fn lists_that_exempt_everyone_are_warned_of() {
    let Some(lab) = lab("everyone", 0) else {
        return;
    };
    whitelist(&lab, "0.0.0.0/0\n");
    let mut iq = start(&lab, &[]);
    iq.wait_line(
        SOON,
        "whitelist.txt exempts everyone (0.0.0.0/0): iq limits and blocks none of them",
    )
    .unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    let said = ask(&lab, "iq exempt ::/0 --ttl 1h");
    assert_eq!(said.code, Some(0), "{said:?}");
    iq.wait_line(SOON, "'iq exempt' exempts everyone (::/0)")
        .unwrap();
}

/// IPv4 is carried inside ::/0: with IPv6 exempt, nobody was held.
#[test]
fn who_exempts_all_of_ipv6_says_nothing_of_ipv4() {
    let Some(lab) = lab("ipv6", 0) else { return };
    let mut iq = start(&lab, &["--dry-run=false"]);
    iq.wait_line(SOON, "a tick every").unwrap();
    for wide in ["::/0", "::/1"] {
        let said = ask(&lab, &format!("iq exempt {wide} --ttl 1h"));
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let source = lab.source("evil", Family::V4).unwrap();
    let _attack = flood(&lab, Flood::Udp4, 20_000);
    iq.wait_line(SOON, &format!("iq] source={source} OBSERVE -> RATE_SOFT "))
        .unwrap();
}
