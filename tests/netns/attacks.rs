//! Attacks that take patience or many addresses, with clients beside them: when they are held, and
//! what is lost.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernloom::engine::Decision;
use kernloom::model::Source;
use kernloom::record::{Frame, Reader};
use kernloom::telemetry::Sample;
use serde_json::Value;

use super::benign::{LOST, answer, ask_resolver, asked, resolver};
use super::binary;
use super::iq::{SOON, ask, dropped};
use crate::lab::{
    Family, Kernloom, Lab, Load, LoadPlan, NAT, Plan, Process, Stage, WebServer, wait_until,
};

/// Sources of the crowd, each in a network of its own.
const CROWD: u32 = 300;

/// Entries of the table.
const SOURCES: usize = 131_072;

/// Sources, and prefixes, that may be held at the same time; a quarter is for who proved itself.
const ROOM: u64 = 16_384;

/// Windows of flood rate after which an attack is held at the latest.
pub(super) const WINDOWS: usize = 2;

fn recording(lab: &Lab) -> PathBuf {
    lab.dir().join("attack.klrec")
}

/// The web server's judgement with these changes, recorded.
fn start(lab: &Lab, changes: &[&str]) -> Kernloom {
    let record = format!("--record={}", recording(lab).display());
    let changes = changes.iter().flat_map(|change| ["--set", *change]);
    let args = ["--profile=web-server", "--dry-run=false", &record];
    let args: Vec<&str> = args.into_iter().chain(changes).collect();
    Kernloom::iq(lab, binary(), &args).unwrap()
}

fn spawn(lab: &Lab, client: &str, line: &str) -> Process {
    let words: Vec<&str> = line.split(' ').collect();
    let (program, args) = words.split_first().unwrap();
    lab.client(client)
        .unwrap()
        .net
        .spawn(program, args)
        .unwrap()
}

/// SYNs to port 80, this many microseconds apart, from the client or in other names.
fn syns(lab: &Lab, client: &str, gap: u32, packets: u32, named: &str) -> Process {
    let line = format!(
        "hping3 -q -S -p 80 -i u{gap} -c {packets}{named} {}",
        lab.server().v4
    );
    spawn(lab, client, &line)
}

/// Clients of both families behind one address, once the first is answered.
fn browse(lab: &Lab, seconds: u32) -> Load {
    let plan = LoadPlan {
        first: 0,
        clients: 4,
        families: &[Family::V4, Family::V6],
        requests: 4 * seconds,
        per_minute: 240,
    };
    let mut load = Load::start(lab, plan).unwrap();
    wait_until(SOON, "the first answer", || {
        Ok(load.tally(None).answered > 0)
    })
    .unwrap();
    load
}

fn assert_nothing_lost(load: &mut Load) {
    let tally = load.finish(SOON * 2).unwrap();
    assert!(tally.lost as f64 <= tally.sent as f64 * LOST, "{tally:?}");
}

/// None of these ever left OBSERVE, nor was anything blocked whole.
fn assert_spared(lab: &Lab, iq: &mut Kernloom, clients: &[&str]) {
    let families = [Family::V4, Family::V6];
    let names = clients
        .iter()
        .flat_map(|client| families.map(|family| lab.source(client, family).unwrap()));
    let names: Vec<String> = names.collect();
    for step in iq.transitions() {
        assert!(!names.contains(&step.source), "{step:#?}");
        let many = step.source.contains('/') && !step.source.ends_with("/64");
        assert!(!many || step.to <= Stage::RateSoft, "{step:#?}");
    }
}

/// What the IQ that ended was given, and what it decided.
fn frames(recording: &Path) -> Vec<Frame> {
    let mut reader = Reader::open(recording).unwrap();
    std::iter::from_fn(|| reader.frame().unwrap()).collect()
}

/// In how many windows the attack was `loud` until it was held, that one included.
pub(super) fn windows(
    recording: &Path,
    loud: impl Fn(&[Sample], Duration) -> bool,
    held: impl Fn(&Decision) -> bool,
) -> usize {
    let mut windows = 0;
    for frame in frames(recording) {
        let decisions = match frame {
            Frame::Tick {
                samples,
                length,
                decisions,
                ..
            } => {
                windows += usize::from(loud(&samples, length));
                decisions
            }
            Frame::Alert { decision, .. } => decision.into_iter().collect(),
            Frame::Start(_) | Frame::Exempt { .. } | Frame::Forget(_) | Frame::Reset => continue,
        };
        if decisions.iter().any(&held) {
            return windows;
        }
    }
    panic!("never held in {windows} loud windows");
}

/// Everyone's SYNs, whose floods are told by more than so many per second.
fn floods(rate: f64) -> impl Fn(&[Sample], Duration) -> bool {
    move |samples, length| {
        let syns: u32 = samples.iter().map(|sample| sample.syns).sum();
        f64::from(syns) > rate * length.as_secs_f64()
    }
}

fn stop(mut iq: Kernloom, lab: &Lab) {
    let end = iq.process().stop().unwrap();
    assert!(end.success(), "{end}: {}", iq.text());
    let reset = ask(lab, "reset");
    assert_eq!(reset.code, Some(0), "{reset:?}");
}

/// Bursts with pauses in which a limit of six seconds must not end.
fn pulses(lab: &Lab, iq: &mut Kernloom) {
    let source = lab.source("pulse", Family::V4).unwrap();
    let server = lab.server().v4.to_string();
    for pulse in 0..5 {
        let mut burst = syns(lab, "pulse", 300, 3_000, "");
        burst.wait(SOON).unwrap();
        if pulse == 0 {
            iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)
                .unwrap();
        }
        let net = &lab.client("slow").unwrap().net;
        net.run("ping", &["-n", "-q", "-c3", "-i1", &server])
            .unwrap();
    }
    let steps = iq.transitions().iter();
    let steps: Vec<_> = steps.filter(|step| step.source == source).collect();
    assert!(
        steps.iter().any(|step| step.to >= Stage::RateHard),
        "{steps:#?}"
    );
    assert!(
        steps.iter().all(|step| step.to > Stage::Observe),
        "{steps:#?}"
    );
}

#[test]
fn patient_attacks_are_held_when_they_show_and_who_browses_is_not() {
    let plan = Plan {
        clients: &["pulse", "abuser", "slow"],
        office_hosts: 4,
    };
    let Some(lab) = Lab::for_test("patient", &plan) else {
        return;
    };
    let _web = WebServer::start(&lab).unwrap();
    // What takes an hour takes half a minute: a 200th of the trigger is too much for so long.
    let mut iq = start(
        &lab,
        &[
            "signal_engine.syn_trigger=100",
            "evidence.sustained=0.005",
            "progressive_enforcement.min_hold_soft=2s",
            "progressive_enforcement.min_hold_hard=2s",
            "progressive_enforcement.soft_ttl=6s",
            "progressive_enforcement.hard_ttl=6s",
        ],
    );
    let mut load = browse(&lab, 35);
    let (v4, server) = (Family::V4, lab.server().v4);
    let _abuse = spawn(
        &lab,
        "abuser",
        &format!(
            "curl -s --noproxy * --rate 80/s -H Connection:close --max-time 1 -o /dev/null \
             http://{server}/[1-9000]"
        ),
    );
    let _scan = spawn(
        &lab,
        "slow",
        &format!(
            "nmap -n -Pn -sS -T1 --scan-delay 300ms --max-scan-delay 300ms --max-retries 0 \
             -p 100-300 {server}"
        ),
    );
    pulses(&lab, &mut iq);
    for (client, signals) in [("slow", "ports-1"), ("abuser", "syn-1h")] {
        let source = lab.source(client, v4).unwrap();
        let held = iq
            .wait_transition(SOON * 2, &source, |step| step.to > Stage::Observe)
            .unwrap_or_else(|error| panic!("{error}\n{}", iq.text()));
        let signal = held.field("signal").unwrap_or_default();
        assert!(signal.starts_with(signals), "{held:?}");
    }
    assert_nothing_lost(&mut load);
    assert_spared(&lab, &mut iq, &[NAT]);
    stop(iq, &lab);
    let pulse: Source = lab.source("pulse", v4).unwrap().parse().unwrap();
    let loud = |samples: &[Sample], length: Duration| {
        let of = samples.iter().filter(|sample| sample.source == pulse);
        f64::from(of.map(|sample| sample.syns).sum::<u32>()) > 200.0 * length.as_secs_f64()
    };
    let waited = windows(&recording(&lab), loud, |decision| decision.source == pulse);
    assert!(waited <= WINDOWS, "{waited}");
}

/// Has the client's packets leave in the names of a crowd, whose answers come back to it.
fn gather(lab: &Lab) {
    let mut names = String::new();
    for n in 0..CROWD {
        let comma = if n == 0 { "" } else { ", " };
        write!(names, "{comma}{n} : 10.{}.{}.1", 80 + n / 256, n % 256).unwrap();
    }
    let crowd = lab.client("crowd").unwrap();
    crowd
        .net
        .nft(&format!(
            "add table ip crowd\n\
             add chain ip crowd out {{ type nat hook postrouting priority srcnat; }}\n\
             add rule ip crowd out tcp flags syn snat to numgen inc mod {CROWD} map {{ {names} }}"
        ))
        .unwrap();
    let route = format!("route add 10.80.0.0/15 via {}", crowd.v4);
    // What is answered to names that nobody has goes nowhere.
    let nowhere = "route add blackhole default";
    lab.router().ip(&format!("{route}\n{nowhere}")).unwrap();
}

fn crowded(samples: &[Sample]) -> usize {
    let of_crowd = |sample: &&Sample| {
        let source = sample.source.to_string();
        source.starts_with("10.80.") || source.starts_with("10.81.")
    };
    samples.iter().filter(of_crowd).count()
}

/// The lab of a flood from many addresses. 1 000 SYNs per second of everyone are too many for it,
/// and half of that if nobody follows them up.
fn flooded(name: &str) -> Option<(Lab, WebServer, Kernloom)> {
    let plan = Plan {
        clients: &["crowd", "spoofer", "resolver"],
        office_hosts: 4,
    };
    let lab = Lab::for_test(name, &plan)?;
    let web = WebServer::start(&lab).unwrap();
    gather(&lab);
    let iq = start(&lab, &["signal_engine.syn_trigger=50"]);
    Some((lab, web, iq))
}

/// Waits until everyone is limited.
fn wait_for_everyone(iq: &mut Kernloom) {
    iq.wait_transition(SOON, "::/0", |step| step.to > Stage::Observe)
        .unwrap_or_else(|error| panic!("{error}\n{}", iq.text()));
}

fn assert_everyone_held_in_time(lab: &Lab) {
    let everyone: Source = "::/0".parse().unwrap();
    let waited = windows(&recording(lab), floods(1_000.0), |decision| {
        decision.source == everyone
    });
    assert!(waited <= WINDOWS, "{waited}");
}

#[test]
fn a_flood_of_300_sources_is_held_and_clients_lose_nothing() {
    let Some((lab, _web, mut iq)) = flooded("crowd") else {
        return;
    };
    let mut load = browse(&lab, 10);
    let mut flood = syns(&lab, "crowd", 300, 15_000, "");
    wait_for_everyone(&mut iq);
    flood.wait(SOON * 2).unwrap();
    assert!(dropped(&lab) > 1_000);
    assert_nothing_lost(&mut load);
    assert_spared(&lab, &mut iq, &[NAT, "resolver", "spoofer"]);
    stop(iq, &lab);
    assert_everyone_held_in_time(&lab);
    let sizes = frames(&recording(&lab))
        .into_iter()
        .filter_map(|frame| match frame {
            Frame::Tick { samples, .. } => Some(crowded(&samples)),
            Frame::Start(_)
            | Frame::Exempt { .. }
            | Frame::Alert { .. }
            | Frame::Forget(_)
            | Frame::Reset => None,
        });
    assert_eq!(sizes.max(), Some(CROWD as usize));
}

#[test]
fn a_spoofed_flood_is_held_and_clients_and_answers_of_a_resolver_pass() {
    let Some((lab, _web, mut iq)) = flooded("spoofed") else {
        return;
    };
    let mut load = browse(&lab, 25);
    let mut flood = syns(&lab, "spoofer", 200, 60_000, " --rand-source");
    wait_for_everyone(&mut iq);
    // From here on the resolver's network, too, may open less than it answers.
    let (socket, done) = (resolver(&lab).unwrap(), AtomicBool::new(false));
    let lost = std::thread::scope(|scope| {
        let answers = scope.spawn(|| answer(&socket, &done));
        let lost = ask_resolver(&lab);
        done.store(true, Ordering::Relaxed);
        answers.join().unwrap().unwrap();
        lost.unwrap()
    });
    let held = ask(&lab, "shield limit list").out;
    for part in ["::/0 ", "0.0.0.0/0 ", "10.77.4.0/24 "] {
        let there = held.lines().any(|line| line.starts_with(part));
        assert!(there, "{part}: {held}");
    }
    for (source, says) in [
        ("::/0", " (everyone: IPv4 and IPv6)"),
        ("10.77.4.0/24", " signal=everyone "),
    ] {
        let told = format!("source={source} OBSERVE -> RATE_SOFT ");
        let log = iq.text();
        let line = log.lines().find(|line| line.contains(&told));
        assert!(line.is_some_and(|line| line.contains(says)), "{log}");
    }
    assert!(
        f64::from(lost) <= asked() * LOST,
        "{lost} answers were lost"
    );
    flood.wait(SOON * 2).unwrap();
    assert!(dropped(&lab) > 5_000);
    assert_nothing_lost(&mut load);
    assert_spared(&lab, &mut iq, &[NAT, "resolver", "crowd"]);
    stop(iq, &lab);
    assert_everyone_held_in_time(&lab);
}

/// Of sources that made room for others nothing is in the table: the faster such a flood was, the less
/// was seen of it.
#[test]
fn a_flood_of_more_sources_than_the_table_holds_is_held_whatever_it_is_made_of() {
    for (name, kind) in [
        ("manysyn", "-S -p 80"),
        ("manyudp", "--udp -p 9999"),
        ("manyack", "-A -p 80"),
    ] {
        let plan = Plan {
            clients: &["spoofer"],
            office_hosts: 4,
        };
        let Some(lab) = Lab::for_test(name, &plan) else {
            return;
        };
        let _web = WebServer::start(&lab).unwrap();
        lab.router().ip("route add blackhole default").unwrap();
        // Everyone's trigger is 1 200 packets per second, and half of 500 SYNs; 64 sources show at most.
        let changes = [
            "signal_engine.pps_trigger=60",
            "signal_engine.syn_trigger=25",
        ];
        let changes = changes.iter().flat_map(|change| ["--set", *change]);
        let args = ["--profile=web-server", "--dry-run=false", "--sources=64"];
        let args: Vec<&str> = args.into_iter().chain(changes).collect();
        let mut iq = Kernloom::iq(&lab, binary(), &args).unwrap();
        let mut load = browse(&lab, 10);
        let line = format!(
            "hping3 -q {kind} -i u100 -c 60000 --rand-source {}",
            lab.server().v4
        );
        let mut flood = spawn(&lab, "spoofer", &line);
        wait_for_everyone(&mut iq);
        flood.wait(SOON * 2).unwrap();
        assert_nothing_lost(&mut load);
        stop(iq, &lab);
    }
}

/// The most of a process's memory that was ever resident, in MB of 10^6 bytes.
fn peak_memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn sources_of_last_tick(lab: &Lab) -> usize {
    let status = ask(lab, "iq status").out;
    let told = status
        .lines()
        .find_map(|line| line.strip_prefix("sources: "));
    // Nobody may answer yet, or in time.
    let number = told.and_then(|told| told.split(' ').next()?.parse().ok());
    number.unwrap_or_default()
}

/// Made-up sources on both CPUs, as fast as it goes. A flood does not count what it sends: it is
/// ended when that is `enough`, or by itself.
fn flood_table(lab: &Lab, what: &str, mut enough: impl FnMut() -> bool) {
    let line = format!(
        "hping3 -q -S -p 80 --flood --rand-source {}",
        lab.server().v4
    );
    let flood = |(client, cpu)| spawn(lab, client, &format!("timeout 30 taskset -c {cpu} {line}"));
    let _floods = [("left", 0), ("right", 1)].map(flood);
    wait_until(SOON, what, || Ok(enough())).unwrap();
}

fn full(name: &str) -> Option<Lab> {
    let plan = Plan {
        clients: &["left", "right"],
        office_hosts: 0,
    };
    Lab::for_test(name, &plan)
}

fn assert_fits(iq: &mut Kernloom) {
    let peak = peak_memory(iq.process().pid());
    println!("{peak:.1} MB");
    assert!(peak <= 48.0, "{peak} MB");
}

/// Under the shipped profile.
#[test]
fn a_table_full_of_spoofed_sources_fits_in_48_mb() {
    let Some(lab) = full("full") else { return };
    let args = ["--profile=web-server", "--dry-run=false"];
    let mut iq = Kernloom::iq(&lab, binary(), &args).unwrap();
    let (mut seen, mut last) = (0, 0);
    flood_table(&lab, "three times the table's sources", || {
        let now = sources_of_last_tick(&lab);
        // No two windows of a flood count alike; a window may be asked for twice.
        seen += if now == last { 0 } else { now };
        last = now;
        seen > 3 * SOURCES
    });
    assert_fits(&mut iq);
    stop(iq, &lab);
}

fn held_now(lab: &Lab) -> u64 {
    let status = ask(lab, "iq status --json").out;
    // Nobody may answer in time.
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let of_stage = |stage: &&str| status["held"][stage].as_u64();
    ["rate_soft", "rate_hard", "block"]
        .iter()
        .filter_map(of_stage)
        .sum()
}

/// Where a single packet is too much, and holding somebody for it lasts.
#[test]
fn a_table_full_of_sources_that_are_all_to_be_held_fits_in_48_mb_and_so_does_their_state() {
    let Some(lab) = full("held") else { return };
    let tiny = ["pps", "syn", "scan"].map(|signal| format!("signal_engine.{signal}_trigger=0.01"));
    let tiny = tiny.iter().flat_map(|set| ["--set", set]);
    for enforce in ["--dry-run=true", "--dry-run=false"] {
        let args: Vec<&str> = ["--profile=web-server", enforce]
            .into_iter()
            .chain(tiny.clone())
            .collect();
        let mut iq = Kernloom::iq(&lab, binary(), &args).unwrap();
        flood_table(&lab, "as many held sources as there may be", || {
            held_now(&lab) >= ROOM * 3 / 4
        });
        // Sources, prefixes, and everyone.
        assert!(held_now(&lab) <= 2 * ROOM + 1);
        // An answer waits until the state is on disk.
        let exempt = ask(&lab, "iq exempt 192.0.2.7 --ttl 1h");
        assert_eq!(exempt.code, Some(0), "{exempt:?}");
        assert_fits(&mut iq);
        let end = iq.process().stop().unwrap();
        assert!(end.success(), "{end}: {}", iq.text());
        let mut again = Kernloom::iq(&lab, binary(), &args).unwrap();
        again.wait_line(SOON, "a tick every").unwrap();
        assert_fits(&mut again);
        stop(again, &lab);
    }
}
