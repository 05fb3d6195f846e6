//! What a person at the terminal sees: help, versions, and errors with their exit codes. Nothing
//! here touches the kernel.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn kernloom(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kernloom"))
        .args(words)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every command there is, found by walking the help, so that a new one cannot be forgotten.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut next = 0;
    while next < found.len() {
        let words: Vec<String> = found[next].clone();
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.push("--help");
        let help = stdout(&kernloom(&args));
        let listed = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty());
        for line in listed {
            // Continuation lines of a wrapped description are indented further.
            if let Some(name) = line
                .strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
            {
                let name = name.split(' ').next().unwrap();
                if name != "help" {
                    let mut deeper = words.clone();
                    deeper.push(name.to_owned());
                    found.push(deeper);
                }
            }
        }
        next += 1;
    }
    found
}

#[test]
fn every_command_has_help_and_every_top_level_one_an_example() {
    let all = commands();
    assert!(all.len() > 12, "{all:?}");
    for words in all {
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.push("--help");
        let output = kernloom(&args);
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(help.contains("Usage: kernloom"), "{words:?}: {help}");
        if words.len() <= 2 {
            assert!(help.contains("Example"), "{words:?}: {help}");
        }
    }
}

#[test]
fn a_mistake_of_the_operator_exits_with_2_and_names_the_mend() {
    let cases: [(&[&str], &str); 9] = [
        (&["iq"], "--profile"),
        (&["iq", "--profile=web-sever"], "web-server"),
        (
            &["iq", "--profile=idp", "--iface", "nosuch0"],
            "no interface 'nosuch0'; this host has: lo",
        ),
        (
            &["iq", "--profile=idp", "--interval", "3 parsecs"],
            "3 parsecs",
        ),
        (&["iq", "--profile=idp", "--dry-run=flase"], "flase"),
        (
            &["iq", "--pdp-config", "/nonexistent.yaml"],
            "/nonexistent.yaml",
        ),
        (&["shield", "deny", "add", "10.0.0.300"], "10.0.0.300"),
        (
            &["shield", "verdict", "10.0.0.0/8"],
            "'10.0.0.0/8' is not one address; write it like 192.0.2.7 or 2001:db8::7",
        ),
        (&["reset", "--everything"], "--everything"),
    ];
    for (words, mend) in cases {
        let output = kernloom(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert!(
            stderr(&output).contains(mend),
            "{words:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{words:?}");
    }
}

#[test]
fn the_settings_that_are_gone_by_are_those_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ours.toml");
    std::fs::write(&file, "pdp-config = '/nowhere/ours.yaml'\n").unwrap();
    let file = file.to_str().unwrap();
    let output = kernloom(&["--config", file, "iq", "--print-config", "--profile=idp"]);
    let told =
        format!("pdp-config (/nowhere/ours.yaml) in {file} is not used: --profile was given");
    assert!(stderr(&output).contains(&told), "{output:?}");
    std::fs::write(file, "").unwrap();
    let output = kernloom(&["--config", file, "iq"]);
    assert!(
        stderr(&output).contains(&format!("or set 'profile' in {file}; ")),
        "{output:?}"
    );
}

#[test]
fn a_value_out_of_bounds_is_told_with_its_flag_and_the_bounds() {
    let count = "give a whole number, 1 to 4294967295";
    let limit = ["shield", "limit", "set", "192.0.2.7", "--rate=5pps"];
    let deny = ["shield", "deny", "add", "192.0.2.7"];
    let exempt = ["iq", "exempt", "192.0.2.7"];
    let cases: [(&[&str], [&str; 2], &str, &str); 10] = [
        (
            &limit[..4],
            ["--rate", "-5"],
            "RATE",
            "'-5' is not a rate; write it like 5000pps, 10mbit or 2MB/s",
        ),
        (&limit[..4], ["--pps", "0"], "N", count),
        (&limit[..4], ["--pps", "-5"], "N", count),
        (&limit, ["--burst", "0"], "N", count),
        (&limit, ["--burst", "-1"], "N", count),
        (&limit, ["--burst", "99999999999"], "N", count),
        (
            &limit,
            ["--ttl", "36501d"],
            "TIME",
            "'36501d' is too long; give at most 36500d",
        ),
        (
            &deny,
            ["--ttl", "0s"],
            "TIME",
            "'0s' is no time at all; give more than 0",
        ),
        (
            &deny,
            ["--ttl", "-5s"],
            "TIME",
            "'-5s' is not a duration; write it like 500ms, 30s, 10m, 1h30m or 14d",
        ),
        (
            &exempt,
            ["--ttl", "-5s"],
            "TIME",
            "'-5s' is not a duration; write it like 500ms, 30s, 10m, 1h30m or 14d",
        ),
    ];
    for (words, flag, shape, mend) in cases {
        assert_refused(words, flag, shape, mend);
    }
}

fn assert_refused(words: &[&str], [flag, value]: [&str; 2], shape: &str, mend: &str) {
    let output = kernloom(&[words, &[flag, value]].concat());
    assert_eq!(output.status.code(), Some(2), "{flag} {value}: {output:?}");
    assert_eq!(
        stderr(&output),
        format!(
            "error: invalid value '{value}' for '{flag} <{shape}>': {mend}\n\nFor more information, try '--help'.\n"
        )
    );
}

/// Also where nothing is started.
#[test]
fn what_can_be_no_interface_or_address_is_told_at_once() {
    let print = [
        "--config=/dev/null",
        "iq",
        "--profile=idp",
        "--print-config",
    ];
    for name in ["", "eth0/1", "sixteen-letters-"] {
        let mend = format!("'{name}' can be no interface; 'ip link' names them");
        assert_refused(&print, ["--iface", name], "IFACE", &mend);
    }
    let mend =
        "'localhost' is no address to listen on; write it like 127.0.0.1:9798, [::1]:9798 or 9798";
    assert_refused(&print, ["--metrics-listen", "localhost"], "ADDR:PORT", mend);
}

#[test]
fn the_help_tells_what_a_limit_counts_and_forgives() {
    let whole = |words: &[&str]| {
        let help = stdout(&kernloom(&[words, &["--help"]].concat()));
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let burst = "at least some milliseconds' worth, because a burst of 1 forgives no jitter and holds even evenly \
                 spaced traffic to less than the rate";
    for limit in ["set", "default"] {
        assert!(whole(&["shield", "limit", limit]).contains(burst));
    }
    let merged = "packets that GRO merged count as one";
    for command in ["attach", "doctor"] {
        assert!(whole(&["shield", command]).contains(merged));
    }
}

/// Some words come out of files that strangers write.
#[test]
fn what_is_refused_moves_no_terminal() {
    for (words, left) in [
        (
            &["shield", "deny", "add", "\u{1b}]0;owned\u{7}x"][..],
            "'x'",
        ),
        (&["shield", "\u{1b}[2Jx"], "'x'"),
        (
            &["--config", "/nonexistent/\u{1b}[2J", "shield", "status"],
            "\\u{1b}[2J",
        ),
        (
            &["--bpffs", "/dev/null/\u{202e}\u{9b}2J", "shield", "status"],
            "\\u{202e}\\u{9b}2J",
        ),
    ] {
        // As on a terminal, where colours are kept and other escapes with them.
        let output = Command::new(env!("CARGO_BIN_EXE_kernloom"))
            .env("CLICOLOR_FORCE", "1")
            .args(words)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        let said = stderr(&output);
        let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!said.contains(acts) && said.contains(left), "{said:?}");
    }
}

#[test]
fn what_is_one_is_told_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (page, journal, state) = (named("page.html"), named("journal.jsonl"), named("state"));
    let record = r#"{"time":"2100-01-01T00:00:00Z","source":"192.0.2.7","from":"OBSERVE","to":"RATE_SOFT",
        "kind":"escalate","severity":3.0,"signal":"syn","rate":5012.0,"trigger":250.0,"strikes":3,
        "hold":"none","until":"","dry_run":true}"#;
    let record = record.replace('\n', "");
    let words = [
        "--run-dir",
        &named("run"),
        "--state-dir",
        &state,
        "report",
        "-o",
        &page,
        "--journal",
        &journal,
    ];
    for (records, told) in [(0, "0 decisions"), (1, "1 decision"), (2, "2 decisions")] {
        std::fs::write(&journal, format!("{record}\n").repeat(records)).unwrap();
        let output = kernloom(&words);
        let said = stdout(&output);
        assert!(
            said.starts_with(&format!("{page}: {told} since ")),
            "{said}{}",
            stderr(&output)
        );
    }
}

#[test]
fn the_help_and_the_readme_tell_the_same_exit_codes() {
    let told = "2 the command or a file is wrong, or rights are missing";
    let whole = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(whole(&stdout(&kernloom(&["--help"]))).contains(told));
    assert!(whole(include_str!("../../README.md")).contains(told));
}

#[test]
fn a_path_to_the_wrong_kind_of_thing_is_the_operators_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (file, profile) = (named("file"), named("profile.yaml"));
    std::fs::write(&file, "").unwrap();
    std::fs::write(&profile, b"kind: \xff").unwrap();
    let misplaced = "a file stands in the place of a directory; give another path";
    let iq = ["iq", "--profile=idp", "--iface", "lo"];
    let run_dir = ["--run-dir", &file];
    let state_dir = ["--run-dir", &named("run"), "--state-dir", &file];
    let place = dir.path().to_str().unwrap();
    let directory = format!("cannot read {place}: it is a directory; give a file");
    let cases = [
        (
            vec!["iq", "replay", place, "--profile=idp"],
            directory.clone(),
        ),
        (vec!["iq", "simulate", place], directory),
        (
            vec!["iq", "--print-config", "--pdp-config", &profile],
            format!("cannot read profile {profile}: stream did not contain valid UTF-8"),
        ),
        (
            [&run_dir[..], &iq].concat(),
            format!("making {file}: {misplaced}"),
        ),
        (
            [&run_dir[..], &["iq", "status"]].concat(),
            format!("asking the IQ at {file}/iq.sock: {misplaced}"),
        ),
        (
            [&state_dir[..], &iq].concat(),
            format!("making {file}: {misplaced}"),
        ),
        (
            [&state_dir[..], &["iq", "decisions"]].concat(),
            format!("reading the journal {file}/journal.jsonl: {misplaced}"),
        ),
        (
            vec!["--bpffs", &file, "shield", "status"],
            format!("looking for {file}/program: {misplaced}"),
        ),
    ];
    for (words, mend) in cases {
        let output = kernloom(&words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert_eq!(stderr(&output), format!("kernloom: {mend}\n"), "{words:?}");
    }
}

#[test]
fn without_rights_it_says_which_and_how_to_get_them() {
    if !nix::unistd::geteuid().is_root() {
        return; // the test becomes nobody, which only root can
    }
    // The binary may stand where nobody cannot look; a copy stands where everyone can.
    let dir = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/tmp")
        .unwrap();
    let copy = dir.path().join("kernloom");
    // By another process: what a sibling test forks must not hold it open for writing.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_kernloom"))
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    let closed = dir.path().join("state");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let journal = closed.join("journal.jsonl");
    let cases: [&[&str]; 15] = [
        &["shield", "events"],
        &["shield", "top", "--once"],
        &["iq", "top", "--json"],
        &["iq", "decisions"],
        &["report", "-o", "-"],
        &["report", "--journal", journal.to_str().unwrap()],
        &["graph", "show"],
        &["shield", "attach", "lo"],
        &["shield", "status"],
        &["shield", "detach"],
        &["shield", "detach", "--all", "--purge"],
        &["shield", "upgrade"],
        &["iq", "--profile=idp", "--iface", "lo"],
        &["reset"],
        &["shield", "deny", "add", "192.0.2.1"],
    ];
    for words in cases {
        let output = Command::new(&copy)
            .arg("--state-dir")
            .arg(&closed)
            .args(words)
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert!(
            stderr(&output).contains("run it with sudo"),
            "{words:?}: {}",
            stderr(&output)
        );
    }
}
