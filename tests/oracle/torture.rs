//! Captures of malformed and unusual traffic, through the program and the oracle.

use std::fs;
use std::path::{Path, PathBuf};

use kernloom::dataplane::{LoadOptions, Reason};
use kernloom::model::Ktime;

use super::variant::Variant;
use super::{Counted, Model, Rig, compare_counts};

/// Where captures are looked for; every `.pcap` with Ethernet frames below it.
fn corpus() -> Option<PathBuf> {
    let dir = std::env::var_os("KERNLOOM_TORTURE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/torture"),
        PathBuf::from,
    );
    dir.is_dir().then_some(dir)
}

fn captures(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            captures(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "pcap") {
            found.push(path);
        }
    }
}

/// The Ethernet frames of a capture (the classic format, either byte order); empty for others.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let Some((header, mut rest)) = bytes.split_at_checked(24) else {
        return Vec::new();
    };
    let word = |bytes: &[u8], at: usize| {
        let word: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        match header[..4] {
            [0xa1, 0xb2, ..] => u32::from_be_bytes(word),
            _ => u32::from_le_bytes(word),
        }
    };
    let known = matches!(
        header[..4],
        [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1] | [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d]
    );
    let mut frames = Vec::new();
    while known && word(header, 20) & 0xffff == 1 {
        let Some((record, tail)) = rest.split_at_checked(16) else {
            break;
        };
        let Some((frame, tail)) = tail.split_at_checked(word(record, 8) as usize) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = tail;
    }
    frames
}

/// What passes where nothing is allowed.
fn always_passes(reason: Reason) -> bool {
    matches!(reason, Reason::NotIp | Reason::Essential)
}

#[test]
fn every_torture_capture_agrees_with_the_oracle() {
    let Some(dir) = corpus() else {
        eprintln!("skipped: no captures; KERNLOOM_TORTURE names a directory of them");
        return;
    };
    let mut files = Vec::new();
    captures(&dir, &mut files);
    files.sort();
    // 10 403 sources: in a smaller table five of them share a set too often.
    let options = LoadOptions {
        sources: 1 << 21,
        ..LoadOptions::default()
    };
    let mut rig = Rig::new("torture", options);
    // Frames of up to 64 KiB need the program for frames that span buffers.
    let frags = Variant::load(&rig.pins, "kernloom_frags", None);
    let mut fed = 0;
    for only_allowed in [false, true] {
        let before = Counted::read(&rig.shield);
        let mut model = Model::default();
        rig.only_allowed(&mut model, only_allowed);
        rig.at(&mut model, Ktime::from_secs(2_000));
        for path in &files {
            // The kernel runs no frame shorter than its Ethernet header, nor one beyond 64 KiB.
            for frame in frames(path)
                .iter()
                .filter(|frame| (14..65_000).contains(&frame.len()))
            {
                let seen = rig.compare(&mut model, &|frame| frags.run(frame), frame);
                seen.unwrap_or_else(|text| panic!("{}: {text}", path.display()));
                fed += 1;
            }
        }
        let now = Counted::read(&rig.shield);
        compare_counts(&model, &before, &now).unwrap();
        if only_allowed {
            for (reason, (packets, _)) in &model.reasons {
                assert!(
                    reason.drops() || always_passes(*reason),
                    "{packets} {reason}"
                );
            }
        }
    }
    eprintln!("{fed} frames of {} captures", files.len());
    assert!(fed > 0, "no Ethernet frame in {}", dir.display());
}
