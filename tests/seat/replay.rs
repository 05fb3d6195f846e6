//! Captures through the real program and engine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::valid;
use crate::packet::{ACK, Frame, L4, RST, SYN};

/// A capture of microseconds since its start and frames, sorted by time.
fn pcap(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (at, frame) in packets {
        let length = u32::try_from(frame.len()).unwrap();
        let seconds = u32::try_from(1_700_000_000 + at / 1_000_000).unwrap();
        let micros = u32::try_from(at % 1_000_000).unwrap();
        for word in [seconds, micros, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

/// The same as pcapng, in microseconds, as `tcpdump` and Wireshark write it by default.
fn pcapng(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().copied().flat_map(u32::to_le_bytes).collect();
    let block = |kind: u32, body: Vec<u8>| {
        let length = u32::try_from(body.len() + 12).unwrap();
        let (head, tail): (Vec<u8>, Vec<u8>) = (words(&[kind, length]), words(&[length]));
        [head, body, tail].concat()
    };
    let mut bytes = block(0x0a0d_0d0a, words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    bytes.extend(block(1, words(&[1, 65_535])));
    for (at, frame) in packets {
        let at = 1_700_000_000_000_000 + at;
        let length = u32::try_from(frame.len()).unwrap();
        let (high, low) = (at >> 32, at & u64::from(u32::MAX));
        let mut body: Vec<u8> = words(&[
            0,
            u32::try_from(high).unwrap(),
            u32::try_from(low).unwrap(),
            length,
            length,
        ]);
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        bytes.extend(block(6, body));
    }
    bytes
}

pub(super) fn kernloom(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kernloom"))
        .args(words)
        .output()
        .unwrap()
}

fn replay(capture: &Path, more: &[&str]) -> serde_json::Value {
    let mut words = vec![
        "iq",
        "replay",
        capture.to_str().unwrap(),
        "--profile",
        "web-server",
    ];
    words.extend(["--json"]);
    words.extend(more);
    let output = kernloom(&words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    // No bar where nobody watches.
    assert!(!errors.contains("replaying"), "{errors}");
    valid("replay", &String::from_utf8_lossy(&output.stdout))
}

/// `SOURCE FROM TO SIGNAL` of each decision.
fn decisions(told: &serde_json::Value) -> Vec<String> {
    let word = |one: &serde_json::Value, key: &str| one[key].as_str().unwrap().to_owned();
    told["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            ["source", "from", "to", "signal"]
                .map(|key| word(one, key))
                .join(" ")
        })
        .collect()
}

/// Eight seconds: a SYN flood of 2 000 per second from one address of each family, beginning in
/// the third second, and a visitor throughout.
fn flood() -> (tempfile::TempDir, PathBuf) {
    written("flood.pcap", &pcap(&attacked()))
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn attacked() -> Vec<(u64, Vec<u8>)> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut packets = Vec::new();
    for at in (0..8_000_000).step_by(200_000) {
        packets.push((at, Frame::ack(ip("192.0.2.1"), 443).build()));
    }
    for at in (2_000_000..8_000_000).step_by(500) {
        packets.push((at, Frame::syn(ip("203.0.113.9"), 443).build()));
        packets.push((at, Frame::syn(ip("2001:db8:9::9"), 443).build()));
    }
    packets.sort_by_key(|(at, _)| *at);
    packets
}

#[test]
fn a_capture_decides_the_same_as_pcapng() {
    let (_dir, path) = flood();
    let (_other, next) = written("flood.pcapng", &pcapng(&attacked()));
    let (mut old, mut new) = (replay(&path, &[]), replay(&next, &[]));
    assert!(!decisions(&old).is_empty());
    for told in [&mut old, &mut new] {
        told["capture"].take();
    }
    assert_eq!(old, new);
}

#[test]
fn a_flood_is_limited_in_both_families_and_the_visitor_is_left_alone() {
    let (_dir, path) = flood();
    let told = replay(&path, &[]);
    let sources: Vec<&str> = told["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, ["203.0.113.9", "2001:db8:9::/64"]);
    assert_eq!(told["packets"], 24_040);
    assert_eq!(told["seen"], 3);
    let first: Vec<String> = decisions(&told).into_iter().take(2).collect();
    assert_eq!(
        first,
        [
            "203.0.113.9 OBSERVE RATE_SOFT half-open",
            "2001:db8:9::/64 OBSERVE RATE_SOFT half-open",
        ]
    );
    // Nobody completes a handshake: the flood's first whole tick decides.
    assert_eq!(told["decisions"][0]["at_seconds"], 3.0);
    assert!(told["dropped"].as_u64().unwrap() > 10_000, "{told}");
    assert_eq!(
        replay(&path, &[]),
        told,
        "the same capture, the same decisions"
    );
}

/// Seven seconds in both directions: a visitor that the host answers with these flags, and from the
/// third second on 12 000 SYNs per second, no two of one source.
fn spoofed(flags: u8) -> Vec<(u64, Vec<u8>)> {
    let visitor: IpAddr = "192.0.2.1".parse().unwrap();
    let accepts = L4::Tcp {
        sport: 443,
        dport: 40_000,
        flags,
    };
    let mut packets = vec![
        (0, Frame::syn(visitor, 443).number(4).build()),
        (
            100,
            Frame::new(visitor, accepts).number(5).leaving().build(),
        ),
    ];
    for at in (200_000..7_000_000).step_by(200_000) {
        packets.push((at, Frame::ack(visitor, 443).build()));
    }
    let times = (2_000_000..7_000_000).step_by(250);
    for (n, at) in (0..).zip(times.flat_map(|at| [at, at + 83, at + 166])) {
        let source = std::net::Ipv4Addr::from(2_654_435_761_u32.wrapping_mul(n));
        packets.push((at, Frame::syn(source.into(), 443).build()));
    }
    packets.sort_by_key(|(at, _)| *at);
    packets
}

#[test]
fn a_flood_of_made_up_sources_is_held_as_everyone_together() {
    let (_dir, path) = written("spoofed.pcap", &pcap(&spoofed(SYN | ACK)));
    let told = replay(&path, &["--to", "198.51.100.1"]);
    assert_eq!(
        [&told["packets"], &told["skipped"], &told["seen"]],
        [60_035, 1, 60_001]
    );
    assert_eq!(
        decisions(&told),
        [
            "192.0.2.0/24 OBSERVE RATE_SOFT everyone",
            "::/0 OBSERVE RATE_SOFT half-open",
        ],
        "everyone shares a limit, and whom the host knows has one of its own"
    );
    // 36 000 come after the decision; 5 000 of each second and a burst of 10 000 are let in.
    assert!(told["dropped"].as_u64().unwrap() > 10_000, "{told}");
}

/// Of a capture of one direction: what it does not show, and nothing else.
fn assert_only_no_answer_is_told(output: &Output, path: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    let expected = format!(
        " WARN  kernloom::cmd::iq::replay] {path} shows no answer to what is opened: who is made up is not known of \
         it, and what many sources do together is not judged; a capture of both directions tells\n"
    );
    assert!(told.ends_with(&expected), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn a_refusal_shows_both_directions_too_and_without_an_answer_that_is_told() {
    let (_dir, path) = written("refused.pcap", &pcap(&spoofed(RST | ACK)));
    let told = replay(&path, &["--to", "198.51.100.1"]);
    assert_eq!(
        decisions(&told),
        [
            "192.0.2.0/24 OBSERVE RATE_SOFT everyone",
            "::/0 OBSERVE RATE_SOFT half-open",
        ]
    );
    // Of another connection: nothing that was opened is answered.
    let (_dir, path) = written("unanswered.pcap", &pcap(&spoofed(ACK)));
    let path = path.to_str().unwrap();
    let output = kernloom(&["iq", "replay", path, "--profile=web-server"]);
    assert_only_no_answer_is_told(&output, path);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("0 of 60002 sources"), "{text}");
}

#[test]
fn settings_and_destinations_can_be_chosen() {
    let (_dir, path) = flood();
    let deaf = replay(
        &path,
        &[
            "--set",
            "signal_engine.syn_trigger=100000",
            "--set",
            "signal_engine.pps_trigger=100000",
        ],
    );
    assert_eq!(deaf["sources"].as_array().unwrap().len(), 0, "{deaf}");
    let elsewhere = replay(&path, &["--to", "192.0.2.200,2001:db8:ffff::1"]);
    assert_eq!(elsewhere["skipped"], 12_040, "{elsewhere}");
    assert_eq!(
        decisions(&elsewhere)[0],
        "2001:db8:9::/64 OBSERVE RATE_SOFT half-open"
    );
}

#[test]
fn the_table_names_who_when_and_why() {
    let (_dir, path) = flood();
    let words = [
        "iq",
        "replay",
        path.to_str().unwrap(),
        "--profile=web-server",
    ];
    let output = kernloom(&words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[..5],
        ["+3.0s", "203.0.113.9", "OBSERVE", "RATE_SOFT", "half-open"]
    );
    assert!(
        text.contains("2 of 3 sources would have been held"),
        "{text}"
    );
}

#[test]
fn long_work_shows_a_bar_on_a_terminal_and_none_in_a_pipe() {
    let (_dir, path) = flood();
    let words = [
        "iq",
        "replay",
        path.to_str().unwrap(),
        "--profile=web-server",
    ];
    let piped = kernloom(&words);
    assert_only_no_answer_is_told(&piped, path.to_str().unwrap());
    let line = format!("{} {}", env!("CARGO_BIN_EXE_kernloom"), words.join(" "));
    let shown = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("TERM", "xterm")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("replaying ") && shown.contains(" %, "),
        "{shown:?}"
    );
    assert!(
        shown.contains("2 of 3 sources would have been held"),
        "{shown:?}"
    );
}

#[test]
fn a_capture_or_profile_that_is_not_there_is_the_operators_mistake() {
    for (words, why) in [
        (
            &["iq", "replay", "/nonexistent.pcap", "--profile=idp"][..],
            "/nonexistent.pcap",
        ),
        (
            &["iq", "replay", "/etc/hostname", "--profile=idpp"],
            "/etc/hostname",
        ),
        (&["iq", "replay", "x.pcap"], "--profile"),
        (&["iq", "simulate", "/etc/hostname"], "it is no recording"),
        (
            &["report", "--journal", "/nonexistent.jsonl"],
            "/nonexistent.jsonl",
        ),
        (
            &["--state-dir", "/nonexistent", "report", "-o", "/dev/null"],
            "no 'kernloom iq' has decided anything here yet",
        ),
        (
            &["--state-dir", "/nonexistent", "iq", "decisions"],
            "kernloom iq --profile=web-server",
        ),
        (
            &["iq", "--profile=idp", "--record-max", "1 parsec"],
            "1 parsec",
        ),
    ] {
        let output = kernloom(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
        assert!(errors.contains(why), "{words:?}: {errors}");
    }
}

/// Captures that others published; `KERNLOOM_CAPTURES` says where they are.
fn published(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/detect");
    let dir = std::env::var_os("KERNLOOM_CAPTURES").map_or(beside, PathBuf::from);
    let path = dir.join(name);
    if path.exists() {
        Some(path)
    } else {
        eprintln!("SKIPPED {name}: not there");
        None
    }
}

#[test]
fn a_published_port_scan_is_limited_by_its_first_alert_and_nobody_else_is() {
    let Some(path) = published("original/scan/nmap-sS-syn.pcap") else {
        return;
    };
    let told = replay(&path, &[]);
    assert_eq!(
        decisions(&told),
        [
            "192.168.1.10 OBSERVE RATE_SOFT ports",
            "192.168.1.10 RATE_SOFT RATE_HARD ports",
        ]
    );
    assert_eq!(told["decisions"][1]["at_seconds"], 2.0);
    let one = &told["decisions"][0];
    assert_eq!(one["hold"], "limit-new:20pps/40");
    assert!(one["at_seconds"].as_f64().unwrap() < 0.2, "{one}");
    assert_eq!(
        (&told["packets"], &told["seen"]),
        (&2_020.into(), &5.into())
    );
}

#[test]
fn a_published_flood_behind_extension_headers_is_limited_step_by_step() {
    let Some(path) = published("original/ddos/ipv6-exthdr-flood-denial6-6.pcap") else {
        return;
    };
    let told = replay(&path, &[]);
    assert_eq!(
        decisions(&told),
        [
            "2001:db8:1::/64 OBSERVE RATE_SOFT pps",
            "2001:db8:1::/64 RATE_SOFT RATE_HARD pps",
        ]
    );
    let at = |index: usize| told["decisions"][index]["at_seconds"].as_f64();
    assert_eq!((at(0), at(1)), (Some(5.0), Some(6.0)));
    assert_eq!(told["decisions"][0]["hold"], "limit-all:400pps/1000");
}

#[test]
fn a_published_day_of_browsing_holds_nobody() {
    let Some(path) = published("original/benign/dual-stack-browsing.pcap") else {
        return;
    };
    let told = replay(&path, &[]);
    assert_eq!(decisions(&told), Vec::<String>::new());
    assert_eq!(
        (&told["packets"], &told["seen"]),
        (&7_451.into(), &145.into())
    );
}
