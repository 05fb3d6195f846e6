//! A running IQ as its operator sees it: the live screen, events for a SIEM, a recording.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::binary;
use super::iq::{ask, flood, lab, start};
use crate::lab::{Family, Flood, Lab, Stage, private, wait_until};
use crate::seat::valid;

const SOON: Duration = Duration::from_secs(30);

/// What a SYN flood is held for; which of them comes first is up to how fast it is sent.
const FLOODED: [&str; 4] = ["half-open", "refusals", "syn", "pps"];

/// Terminals opened by this process.
static OPENED: AtomicU32 = AtomicU32::new(0);

/// A terminal of 80 by 24 that `shield top` runs in; ends on drop.
struct Terminal<'a> {
    lab: &'a Lab,
    name: String,
}

impl<'a> Terminal<'a> {
    /// `None`, said aloud, where there is no tmux.
    fn open(lab: &'a Lab, settings: &str) -> Option<Self> {
        Self::open_with(lab, settings, "", "")
    }

    /// The same, started by `wrapper`, with `after` to be done when it has ended.
    fn open_with(lab: &'a Lab, settings: &str, wrapper: &str, after: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            assert!(
                std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none(),
                "tmux is missing; scripts/deps.sh lab installs it"
            );
            eprintln!("SKIPPED top: no tmux");
            return None;
        }
        let mut top = Command::new(binary());
        top.args(["shield", "top"]);
        private(&mut top, lab);
        let words = std::iter::once(top.get_program()).chain(top.get_args());
        let words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let line = format!(
            "{wrapper} sh -c 'echo $$ > {}; exec env {settings} {}'{after}",
            lab.dir().join("top.pid").display(),
            words.join(" ")
        );
        let terminal = Self {
            lab,
            // A server of its own each time: the last one may still be ending.
            name: format!(
                "kernloom-{}-{}",
                std::process::id(),
                OPENED.fetch_add(1, Ordering::Relaxed)
            ),
        };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            &line,
        ]);
        Some(terminal)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let all = [&["-L", &self.name], words].concat();
        self.lab.server().net.run("tmux", &all).unwrap()
    }

    /// Of `shield top` itself.
    fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.lab.dir().join("top.pid")).unwrap();
        text.trim().parse().unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows `text`; returns the screen.
    fn shows(&self, text: &str) -> String {
        let mut screen = String::new();
        let result = wait_until(SOON, &format!("'{text}' on the screen"), || {
            screen = self.screen();
            Ok(screen.contains(text))
        });
        assert!(result.is_ok(), "{result:?}\n{screen}");
        screen
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It may have ended by itself: then there is no server to ask.
        let _ended = self
            .lab
            .server()
            .net
            .run("tmux", &["-L", &self.name, "kill-server"]);
    }
}

/// The selections of graphic rendition (ECMA-48, 8.3.117) that choose a colour.
fn colours(screen: &str) -> Vec<&str> {
    let sequences = screen.split("\u{1b}[").skip(1);
    let numbers = sequences
        .filter_map(|text| text.split_once('m'))
        .flat_map(|(codes, _)| codes.split(';'));
    let colour = |code: &&str| {
        let code = code.parse().unwrap_or(0);
        matches!(code, 30..=38 | 40..=48 | 90..=107)
    };
    numbers.filter(colour).collect()
}

#[test]
fn top_shows_a_flood_live_at_80_by_24_and_without_colour_where_there_shall_be_none() {
    let Some(lab) = lab("top", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=60s"]);
    let source = lab.source("evil", Family::V6).unwrap();
    let _attack = flood(&lab, Flood::Syn6, 20_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    let Some(top) = Terminal::open(&lab, "NO_COLOR=1 LC_ALL=C.UTF-8") else {
        return;
    };
    top.shows(&source);
    let screen = top.shows("RATE_");
    assert!(
        screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    let row = screen
        .lines()
        .find(|line| line.starts_with(&source))
        .unwrap();
    assert!(
        row.contains("limit") && FLOODED.iter().any(|signal| row.contains(signal)),
        "{screen}"
    );
    let drawn = top.tmux(&["capture-pane", "-p", "-e"]);
    assert!(drawn.contains("\u{1b}["), "{drawn:?}");
    assert_eq!(colours(&drawn), Vec::<&str>::new(), "{drawn:?}");
    drop(top);
    let Some(top) = Terminal::open(&lab, "-u NO_COLOR TERM=xterm-256color") else {
        return;
    };
    top.shows("RATE_");
    assert!(!colours(&top.tmux(&["capture-pane", "-p", "-e"])).is_empty());
    scripts_are_told_the_same(&lab, &source);
    iq.check_running().unwrap();
}

/// The JSON knows what the screen shows, and the prefix that policy names.
fn scripts_are_told_the_same(lab: &Lab, source: &str) {
    let told = |wanted: &str| {
        let value = valid("top", &ask(lab, "shield top --json").out);
        let rows = value["sources"].as_array().unwrap();
        let row = rows.iter().find(|row| row["source"] == wanted);
        row.cloned().unwrap_or_else(|| panic!("{wanted}: {value}"))
    };
    let one = told(source);
    assert_eq!(one["verdict"], "limit");
    assert!(FLOODED.contains(&one["reason"].as_str().unwrap()), "{one}");
    let prefix = "fd77:2::/48";
    let limit = format!("shield limit set {prefix} --rate 1000000pps");
    assert_eq!(ask(lab, &limit).code, Some(0));
    // IQ leaves the source to the operator from here on.
    let whole = told(prefix);
    assert_eq!(whole["entry"]["owner"], "operator");
    assert!(whole["packets_per_second"].as_f64() > Some(0.0), "{whole}");
}

/// Denies, takes that back and allows, on the open page of `source`.
fn acts_after_a_yes(top: &Terminal<'_>, source: &str) {
    // IQ may deny the source itself in the end.
    let denied = || -> String {
        let list = ask(top.lab, "shield deny list").out;
        let ours = list.lines().filter(|line| line.contains("operator"));
        ours.collect()
    };
    top.keys(&["d"]);
    top.shows(&format!("kernloom shield deny add {source} --ttl 1h"));
    top.keys(&["n"]);
    top.shows("nothing was changed");
    assert!(!denied().contains(source));
    top.keys(&["d"]);
    top.shows("Do this? y / n");
    top.keys(&["y"]);
    top.shows("deny by operator");
    assert!(denied().contains(source));
    top.keys(&["x"]);
    top.shows("Do this? y / n");
    top.keys(&["y"]);
    top.shows("done: your entry");
    assert!(!denied().contains(source));
    top.keys(&["a"]);
    top.shows(&format!("kernloom shield allow add {source} --ttl 1h"));
    top.keys(&["y"]);
    top.shows("allow by operator");
    assert!(ask(top.lab, "shield allow list").out.contains(source));
}

#[test]
fn top_finds_a_source_tells_why_and_acts_only_after_a_yes() {
    let Some(lab) = lab("top-acts", 0) else {
        return;
    };
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=60s"]);
    let source = lab.source("evil", Family::V4).unwrap();
    let _attack = flood(&lab, Flood::Syn4, 200_000);
    iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
        .unwrap();
    let Some(top) = Terminal::open(&lab, "LC_ALL=C") else {
        return;
    };
    top.shows(&source);
    top.keys(&["/"]);
    top.keys(&["-l", "nobody"]);
    top.keys(&["Enter"]);
    top.shows("/nobody   esc clears it");
    assert!(!top.screen().contains(&source));
    top.keys(&["Escape"]);
    top.shows("? keys  enter page");
    top.keys(&["/"]);
    top.keys(&["-l", &source]);
    top.keys(&["Enter"]);
    top.shows(&format!("/{source}   esc clears it"));
    top.keys(&["Enter"]);
    top.shows("esc back");
    top.shows("cause: ");
    acts_after_a_yes(&top, &source);
    top.keys(&["Escape"]);
    // An s right behind the escape would be read as one key.
    top.shows("PKT/S");
    top.keys(&["s"]);
    top.shows("sort bytes");
    top.keys(&["p"]);
    top.shows("PAUSED");
    top.keys(&["q"]);
    wait_until(SOON, "top to give the terminal back", || {
        let words = ["-L", &top.name, "has-session"];
        Ok(lab.server().net.run("tmux", &words).is_err())
    })
    .unwrap();
}

/// Whether a process is there and no zombie (proc_pid_stat(5), field 3).
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn a_vanished_terminal_ends_top_though_no_signal_tells_it() {
    let Some(lab) = lab("top-cut", 0) else {
        return;
    };
    assert_eq!(ask(&lab, "shield attach eth0 --no-guard").code, Some(0));
    // As the session's leader, which SIGHUP reaches; and apart from it, which none does.
    for wrapper in ["exec", "exec setsid --wait"] {
        let Some(top) = Terminal::open_with(&lab, "LC_ALL=C", wrapper, "") else {
            return;
        };
        top.shows("kernloom top");
        let pid = top.pid();
        assert!(runs(pid));
        top.tmux(&["kill-server"]);
        wait_until(SOON, "top to end with its terminal", || Ok(!runs(pid))).unwrap();
    }
}

#[test]
fn a_signal_ends_top_and_the_terminal_is_as_it_was() {
    let Some(lab) = lab("top-hup", 0) else {
        return;
    };
    assert_eq!(ask(&lab, "shield attach eth0 --no-guard").code, Some(0));
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let after = "; echo ended with $?; exec cat";
        let Some(top) = Terminal::open_with(&lab, "LC_ALL=C", "", after) else {
            return;
        };
        top.shows("kernloom top");
        let state = || {
            let told = "#{alternate_on} #{cursor_flag}";
            top.tmux(&["display-message", "-p", told]).trim().to_owned()
        };
        assert_eq!(state(), "1 0");
        kill(Pid::from_raw(top.pid()), signal).unwrap();
        top.shows("ended with 0");
        assert_eq!(state(), "0 1");
    }
}

#[test]
fn a_job_in_the_background_leaves_the_terminal_alone() {
    let Some(lab) = lab("top-job", 0) else {
        return;
    };
    assert_eq!(ask(&lab, "shield attach eth0 --no-guard").code, Some(0));
    let over = |ended: &str| format!("{ended}; echo ended with $?; exec cat");
    let told = "#{alternate_on} #{cursor_flag}";
    let Some(top) = Terminal::open_with(&lab, "LC_ALL=C", "set -m;", &over(" & wait $!")) else {
        return;
    };
    let screen = top.shows("ended with 2").replace('\n', "");
    assert!(
        screen.contains(
            "kernloom: only a job in the foreground has the terminal; start it without '&', or with --once or --json"
        ),
        "{screen}"
    );
    drop(top);
    // The same of one that is sent there later.
    let Some(top) = Terminal::open_with(&lab, "LC_ALL=C", "set -m;", &over("; bg; wait %1")) else {
        return;
    };
    top.shows("kernloom top");
    kill(Pid::from_raw(top.pid()), Signal::SIGSTOP).unwrap();
    top.shows("ended with 0");
    assert_eq!(top.tmux(&["display-message", "-p", told]).trim(), "0 1");
}

#[test]
fn decisions_are_events_that_the_schema_allows() {
    let Some(lab) = lab("events", 0) else {
        return;
    };
    let iq = start(&lab, &["--soft-ttl=3s", "--log-format=json"]);
    let source = lab.source("evil", Family::V4).unwrap();
    let mut attack = flood(&lab, Flood::Syn4, 12_000);
    wait_until(SOON, "a decision", || {
        Ok(iq.text().contains("\"event.action\":\"escalate\""))
    })
    .unwrap();
    attack.finish(SOON).unwrap();
    let text = iq.text();
    let events: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("event.action"))
        .collect();
    for event in &events {
        let event = valid("decision-event", event);
        assert_eq!(event["source.ip"], source.as_str());
        assert!(FLOODED.contains(&event["rule.name"].as_str().unwrap()));
        assert_eq!(event["kernloom.dry_run"], true);
    }
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            line["@timestamp"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn a_recording_decides_again_exactly_as_it_did_live_and_otherwise_under_other_settings() {
    let Some(lab) = lab("record", 0) else {
        return;
    };
    let file = lab.dir().join("run.klrec");
    let record = format!("--record={}", file.display());
    let mut iq = start(&lab, &["--dry-run=false", "--soft-ttl=3s", &record]);
    for (kind, family) in [(Flood::Syn4, Family::V4), (Flood::Syn6, Family::V6)] {
        let source = lab.source("evil", family).unwrap();
        let mut attack = flood(&lab, kind, 10_000);
        iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
            .unwrap();
        attack.finish(SOON).unwrap();
        iq.wait_transition(SOON, &source, |step| step.to == Stage::Observe)
            .unwrap();
    }
    let told = |more: &str| {
        let words = format!("iq simulate {} --json{more}", file.display());
        let said = ask(&lab, &words);
        assert_eq!(said.code, Some(0), "{said:?}");
        valid("simulate", &said.out)
    };
    let same = told("");
    assert_eq!(same["identical"], true, "{same}");
    assert_eq!(same["differences"].as_array().unwrap().len(), 0);
    assert!(same["live_decisions"].as_u64() >= Some(4), "{same}");
    assert_eq!(same["live_decisions"], same["simulated_decisions"]);
    let deaf = told(
        " --set signal_engine.pps_trigger=1000000 --set signal_engine.syn_trigger=1000000 \
         --set signal_engine.weights.scan=0",
    );
    assert_eq!(deaf["identical"], false);
    let syn = lab.source("evil", Family::V4).unwrap();
    let differs =
        |row: &serde_json::Value| row["source"] == syn.as_str() && row["simulated"].is_null();
    assert!(
        deaf["differences"].as_array().unwrap().iter().any(differs),
        "{deaf}"
    );
    // The journal and the recording make a page.
    let page = lab.dir().join("report.html");
    let words = format!(
        "report -o {} --last 1h --recording {}",
        page.display(),
        file.display()
    );
    let said = ask(&lab, &words);
    assert_eq!(said.code, Some(0), "{said:?}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&syn) && page.contains("id=\"threshold-syn\""));
    assert!(page.contains("class=\"traffic\""));
}
