//! Captures that others labelled, replayed, against what they say is in them.
//!
//! A capture does not hold this host's refusals, and handshakes only if it has both directions: what
//! only those give away (Maimon and ACK scans, spoofed floods) is not expected to be held.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::replay::kernloom;
use super::valid;

/// Captures whose attacker is held; in all others nobody is.
const HELD: [&str; 16] = [
    "derived/iot-http-get-flood",
    "original/ddos/ipv6-exthdr-flood-denial6-6",
    "original/ics/s4x15-modicon",
    "original/infected/slips-test7-bot-scan",
    "original/scan/masscan-tcp-0-1000-100pps",
    "original/scan/nmap-b-ftp-bounce",
    "original/scan/nmap-sN-null",
    "original/scan/nmap-sR-rpc",
    "original/scan/nmap-sS-syn",
    "original/scan/nmap-sS-three-hosts-2023",
    "original/scan/nmap-sT-connect",
    "original/scan/nmap-sU-udp",
    "original/scan/nmap-sV-version",
    "original/scan/nmap-sX-xmas",
    "original/scan/ports-1-10000",
    "original/scan/whitehat-os-fingerprint",
];

/// Longer captures are many ticks of silence.
const LONGEST_SECONDS: f64 = 3_600.0;

struct Labelled {
    path: PathBuf,
    name: String,
    kind: String,
    protected: String,
    attackers: Vec<String>,
}

fn labelled(dir: &Path) -> Vec<Labelled> {
    let truth = std::fs::read_to_string(dir.join("truth/truth.tsv")).unwrap();
    let rows = truth.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let seconds: f64 = fields.last()?.parse().ok()?;
        let name = fields[0].strip_suffix(".pcap")?;
        (seconds <= LONGEST_SECONDS).then(|| Labelled {
            path: dir.join(fields[0]),
            name: name.to_owned(),
            kind: fields[1].to_owned(),
            protected: fields[2].to_owned(),
            attackers: fields[3].split(',').map(str::to_owned).collect(),
        })
    })
    .collect()
}

/// Who was held, and when the first was.
fn held(capture: &Labelled) -> (BTreeSet<String>, f64) {
    let path = capture.path.to_str().unwrap();
    let mut words = vec!["iq", "replay", path, "--profile", "web-server", "--json"];
    if capture.protected != "-" {
        words.extend(["--to", &capture.protected]);
    }
    let output = kernloom(&words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path}: {errors}");
    let told = valid("replay", &String::from_utf8_lossy(&output.stdout));
    let decisions = told["decisions"].as_array().unwrap();
    let sources = decisions.iter().map(|one| one["source"].as_str().unwrap());
    let first = decisions
        .first()
        .map_or(0.0, |one| one["at_seconds"].as_f64().unwrap_or_default());
    (sources.map(str::to_owned).collect(), first)
}

#[test]
fn labelled_captures_get_what_their_labels_say() {
    let dir = std::env::var_os("KERNLOOM_LABELLED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/detect"),
        PathBuf::from,
    );
    if !dir.is_dir() {
        eprintln!("skipped: no captures; KERNLOOM_LABELLED names a directory of them");
        return;
    }
    let mut found = Vec::new();
    for capture in labelled(&dir) {
        let (sources, first) = held(&capture);
        let is_attacker = |source: &String| {
            let address = source.split('/').next().unwrap_or_default();
            let network = address.trim_end_matches("::");
            capture
                .attackers
                .iter()
                .any(|one| one == address || (source.contains('/') && one.starts_with(network)))
        };
        let (guilty, others): (Vec<_>, Vec<_>) = sources.iter().partition(|one| is_attacker(one));
        eprintln!(
            "{:48} {:16} held {:3} after {first:7.2} s, others {others:?}",
            capture.name,
            capture.kind,
            guilty.len()
        );
        assert_eq!(others, Vec::<&String>::new(), "{}", capture.name);
        if !guilty.is_empty() {
            found.push(capture.name);
        }
    }
    found.sort();
    assert_eq!(found, HELD);
}
