use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;

use super::{Bench, SOON, json, said};
use crate::lab::{Family, wait_until};

#[test]
fn lists_go_in_and_out_whole() {
    let Some(bench) = Bench::new("lists") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let client = bench.v4("one");
    let good = bench.file(
        "drop.txt",
        &format!(
            "# drop list\n{client} reason=probe\n198.51.100.0/24 ttl=1h owner=feed\n{client}\n"
        ),
    );
    let said = bench.ok(&["shield", "deny", "import", &good]);
    assert_eq!(
        said,
        format!(
            "{good}: line 4 repeats line 2\n2 added, 0 changed, 0 kept as the operator has them, 1 repeated\n"
        )
    );
    assert!(!bench.pings("one", Family::V4));
    assert!(bench.pings("two", Family::V4));
    let mut list = json(&bench.ok(&["shield", "deny", "list", "--json"]));
    let left = list["entries"][1]["ends_in_seconds"].as_u64().unwrap();
    assert!((3_000..=3_600).contains(&left), "{left}");
    list["entries"][1]["ends_in_seconds"] = 3_600.into();
    assert_eq!(
        list,
        serde_json::json!({"schema": "kernloom.entries/1", "entries": [
            {"source": client, "action": "deny", "limit": null, "owner": "operator",
             "ends_in_seconds": null, "reason": "probe"},
            {"source": "198.51.100.0/24", "action": "deny", "limit": null, "owner": "feed",
             "ends_in_seconds": 3600, "reason": ""},
        ]})
    );
    let exported = bench.ok(&["shield", "deny", "export"]);
    let lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines.len(), 2, "{exported}");
    assert_eq!(lines[0], format!("{client} reason=probe"));
    assert!(lines[1].starts_with("198.51.100.0/24 ttl="), "{exported}");
    assert!(lines[1].ends_with(" owner=feed"), "{exported}");
    bench.ok(&["shield", "deny", "del", &client, "198.51.100.0/24"]);
    assert!(bench.pings("one", Family::V4));

    let bad = format!("{client}\n10.0.0.300\n");
    let said = bench.feed(&["shield", "deny", "import", "-"], &bad);
    assert_eq!(said.code, 2);
    assert_eq!(
        said.err,
        "kernloom: -: 1 bad line, nothing was changed\n  line 2: '10.0.0.300' is not an address or prefix; \
         write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48\n"
    );
    assert!(bench.pings("one", Family::V4));
    let said = bench.feed(
        &["shield", "deny", "import", "-", "--owner", "feed"],
        &exported,
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(!bench.pings("one", Family::V4));
}

#[test]
fn w29_default_deny_lets_only_the_allowed_in_and_falls_back_without_a_confirmation() {
    let Some(bench) = Bench::new("lease") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    for family in [Family::V4, Family::V6] {
        let source = bench.lab.source("two", family).unwrap();
        bench.ok(&["shield", "allow", "add", &source]);
    }
    let on = ["shield", "enforce-allow", "on", "--no-guard"];
    bench.ok(&[&on[..], &["--lease", "2s"]].concat());
    for family in [Family::V4, Family::V6] {
        assert!(bench.pings("two", family), "{family:?}: the allowed one");
    }
    // Nobody confirms and nothing runs: the program alone lets go.
    wait_until(SOON, "the lease to run out", || {
        Ok(bench.pings("one", Family::V4))
    })
    .unwrap();
    let status = json(&bench.ok(&["shield", "status", "--json"]));
    assert_eq!(
        status["enforce_allow"],
        serde_json::json!({"state": "lapsed", "falls_back_in_seconds": null})
    );
    let said = bench.refused(&["shield", "confirm"], 2);
    assert!(said.contains("the lease has run out"), "{said}");
    bench.ok(&[&on[..], &["--lease", "1h"]].concat());
    bench.ok(&["shield", "confirm"]);
    for family in [Family::V4, Family::V6] {
        assert!(!bench.pings("one", family), "{family:?}: a stranger");
        assert!(bench.pings("two", family), "{family:?}: the allowed one");
    }
    bench.ok(&["shield", "enforce-allow", "off"]);
    assert!(bench.pings("one", Family::V6));
}

#[test]
fn w29_the_way_in_survives_blanket_rules_and_is_given_up_only_on_demand() {
    let Some(bench) = Bench::new("guard") else {
        return;
    };
    let (one, two) = (bench.v4("one"), bench.v4("two"));
    bench.ok(&["shield", "attach", "eth0", "--management", &two]);
    let ssh = |args: &[&str]| {
        let mut command = bench.command(args);
        command.env("SSH_CONNECTION", format!("{one} 51000 10.77.0.2 22"));
        said(command.stdin(Stdio::null()).output().unwrap())
    };
    let refused = ssh(&["shield", "deny", "add", &one]);
    assert_eq!(
        (refused.code, refused.err),
        (
            2,
            format!(
                "kernloom: {one} is where your SSH session comes from; --no-guard does it all the same. \
                 Nothing was changed\n"
            )
        )
    );
    let refused = bench.refused(&["shield", "deny", "add", &two], 2);
    assert!(
        refused.contains("belongs to the management addresses"),
        "{refused}"
    );
    let done = ssh(&["shield", "deny", "add", "0.0.0.0/0"]);
    assert!(
        done.out
            .contains(&format!("guard: {one}, where your SSH session")),
        "{}",
        done.out
    );
    assert!(
        done.out.contains(&format!("guard: {two} is managed from")),
        "{}",
        done.out
    );
    assert!(bench.pings("one", Family::V4) && bench.pings("two", Family::V4));
    let done = ssh(&["shield", "enforce-allow", "on"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(bench.pings("one", Family::V4) && bench.pings("two", Family::V4));
    bench.ok(&["shield", "deny", "add", &two, "--no-guard"]);
    assert!(!bench.pings("two", Family::V4));
}

#[test]
fn a_directory_is_no_list() {
    let Some(bench) = Bench::new("no-list") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    assert_eq!(
        bench.refused(&["shield", "deny", "import", "/tmp"], 2),
        "kernloom: reading /tmp: it is a directory; give a file\n"
    );
}

#[test]
fn a_limit_that_everybody_shares_is_set_with_a_word_about_it() {
    let Some(bench) = Bench::new("shared") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    for (source, told) in [
        ("0.0.0.0/0", true),
        ("::/0", true),
        ("10.0.0.0/8", false),
        ("2001:db8::/32", false),
    ] {
        // `add`, as the other lists say it.
        let said = bench.say(&["shield", "limit", "add", source, "--rate", "1mbit"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(
            said.out,
            format!("{source} limit-all:125000B/s/125000B, by operator, ends never\n")
        );
        let word = format!(
            "] {source} is one limit that everybody shares; 'kernloom shield limit default' gives each source its own\n"
        );
        assert_eq!(said.err.ends_with(&word), told, "{}", said.err);
        assert_eq!(said.err.lines().count(), usize::from(told));
    }
}

#[test]
fn the_running_program_is_asked_for_its_verdict() {
    let Some(bench) = Bench::new("verdict") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&[
        "shield",
        "deny",
        "add",
        "192.0.2.0/24",
        "--reason",
        "scanner",
    ]);
    let said = bench.ok(&["shield", "verdict", "192.0.2.7", "--dport", "22"]);
    assert_eq!(
        said,
        "192.0.2.7: drop (deny)\ndecided by: 192.0.2.0/24 deny, by operator, ends never, because scanner\n"
    );
    assert_eq!(
        bench.ok(&["shield", "verdict", "192.0.2.7", "--proto", "udp", "--json"]),
        "{\"schema\":\"kernloom.verdict/1\",\"source\":\"192.0.2.7\",\"verdict\":\"drop\",\"reason\":\"deny\",\"entry\":{\"source\":\"192.0.2.0/24\",\
         \"action\":\"deny\",\"limit\":null,\"owner\":\"operator\",\"ends_in_seconds\":null,\"reason\":\"scanner\"}}\n"
    );
    assert_eq!(
        bench.ok(&["shield", "verdict", "2001:db8::7", "--json"]),
        "{\"schema\":\"kernloom.verdict/1\",\"source\":\"2001:db8::7\",\"verdict\":\"pass\",\"reason\":\"pass\",\"entry\":null}\n"
    );
    let stats = json(&bench.ok(&["shield", "stats", "--json"]));
    let reasons = stats["reasons"].as_array().unwrap();
    let denied = reasons.iter().find(|reason| reason["reason"] == "deny");
    assert_eq!(denied.unwrap()["packets"], 0, "asking counted");
}

#[test]
fn lists_and_settings_that_others_may_change_are_refused() {
    let Some(bench) = Bench::new("foreign-files") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    let path = bench.file("deny.list", "192.0.2.7\n");
    let import = ["shield", "deny", "import", &path];
    let chmod = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    let environment = ["--environment-file", &path, "shield", "deny", "list"];
    chmod(0o666);
    for words in [&import[..], &environment[..]] {
        let said = bench.refused(words, 2);
        assert!(
            said.contains("others than its owner may write it (mode 0666)"),
            "{said}"
        );
        assert!(said.contains(&format!("run 'chmod go-w {path}'")), "{said}");
    }
    chmod(0o600);
    chown(&path, Some(65_534), None).unwrap();
    let settings = ["--config", &path, "shield", "status"];
    for words in [&import[..], &environment[..], &settings[..]] {
        let said = bench.refused(words, 2);
        assert!(said.contains(&format!("run 'chown root {path}'")), "{said}");
    }
    assert_eq!(bench.ok(&["shield", "deny", "list"]).lines().count(), 1);
    chown(&path, Some(0), None).unwrap();
    bench.ok(&import);
    bench.ok(&[
        "--config",
        "/dev/null",
        "shield",
        "detach",
        "--all",
        "--purge",
    ]);
}

#[test]
fn a_place_that_somebody_else_made_beforehand_is_refused() {
    let Some(bench) = Bench::new("foreign-place") else {
        return;
    };
    let bpffs = bench.lab.bpffs();
    let attach = ["shield", "attach", "eth0", "--no-guard"];
    std::fs::create_dir(bpffs).unwrap();
    std::fs::set_permissions(bpffs, PermissionsExt::from_mode(0o777)).unwrap();
    let said = bench.refused(&attach, 2);
    assert!(
        said.contains("others may write into it (mode 0777)"),
        "{said}"
    );
    std::fs::set_permissions(bpffs, PermissionsExt::from_mode(0o700)).unwrap();
    chown(bpffs, Some(65_534), None).unwrap();
    for words in [&attach[..], &["shield", "detach", "--all", "--purge"]] {
        let said = bench.refused(words, 2);
        assert!(said.contains("it belongs to user 65534"), "{said}");
    }
    assert!(bpffs.exists(), "it is not ours to remove");
    std::fs::remove_dir(bpffs).unwrap();
    bench.ok(&attach);
}

#[test]
fn an_imported_management_address_replaces_the_operators_allow() {
    let Some(bench) = Bench::new("import-management") else {
        return;
    };
    bench.ok(&["shield", "attach", "eth0", "--no-guard"]);
    bench.ok(&["shield", "allow", "add", "192.0.2.7"]);
    let path = bench.file("management.list", "192.0.2.7\n");
    let said = bench.ok(&["shield", "management", "import", &path]);
    assert_eq!(
        said,
        "0 added, 1 changed, 0 kept as the operator has them, 0 repeated\n"
    );
    let listed = bench.ok(&["shield", "management", "list"]);
    assert!(listed.contains("192.0.2.7"), "{listed}");
}
