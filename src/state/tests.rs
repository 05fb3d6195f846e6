use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Ktime, Moment};
use crate::trust::private_tempdir;

fn state(profile: &str) -> State {
    State {
        profile: profile.to_owned(),
        ..State::default()
    }
}

fn open(dir: &Path) -> (StateFile, Found) {
    StateFile::open(dir, false).unwrap()
}

/// A directory that holds `second` as newest and `first` as previous.
fn two() -> tempfile::TempDir {
    let dir = private_tempdir();
    let (mut file, found) = open(dir.path());
    assert_eq!(found, Found::Nothing);
    file.write(&state("first")).unwrap();
    file.write(&state("second")).unwrap();
    dir
}

#[test]
fn what_was_written_is_read_and_nobody_else_may_read_it() {
    let dir = two();
    assert_eq!(open(dir.path()).1, Found::Newest(state("second")));
    assert_eq!(StateFile::peek(dir.path()).unwrap(), Some(state("second")));
    for name in ["state.json", "state.json.previous"] {
        let mode = fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn w53_the_previous_is_read_when_the_newest_is_damaged_in_any_way() {
    let whole = fs::read(two().path().join("state.json")).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let truncated = (0..whole.len()).map(|length| whole[..length].to_vec());
    for damaged in truncated.chain((0..whole.len()).map(flipped)) {
        let dir = two();
        fs::write(dir.path().join("state.json"), &damaged).unwrap();
        let (_, found) = open(dir.path());
        let Found::Previous(read, why) = found else {
            panic!("{found:?} from {}", String::from_utf8_lossy(&damaged));
        };
        assert_eq!(read, state("first"));
        assert!(why.contains("state.json: it"), "{why}");
    }
}

#[test]
fn w53_a_damaged_newest_never_becomes_the_previous() {
    let dir = two();
    fs::write(dir.path().join("state.json"), "{").unwrap();
    let (mut file, _) = open(dir.path());
    file.write(&state("third")).unwrap();
    assert_eq!(open(dir.path()).1, Found::Newest(state("third")));
    fs::write(dir.path().join("state.json"), "{").unwrap();
    assert!(matches!(open(dir.path()).1, Found::Previous(old, _) if old == state("first")));
    assert_eq!(
        fs::read_to_string(dir.path().join("state.json.damaged")).unwrap(),
        "{"
    );
}

/// Reading it waited for a writer, or never ended.
#[test]
fn what_is_no_regular_file_is_no_state() {
    let dir = two();
    let newest = dir.path().join("state.json");
    fs::remove_file(&newest).unwrap();
    nix::unistd::mkfifo(&newest, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let Found::Previous(read, why) = open(dir.path()).1 else {
        panic!("the previous one is whole");
    };
    assert_eq!(read, state("first"));
    assert!(
        why.ends_with("state.json: it is not a regular file"),
        "{why}"
    );
    std::os::unix::fs::symlink("/dev/zero", &newest).unwrap();
    assert!(matches!(open(dir.path()).1, Found::Previous(old, _) if old == state("first")));
}

#[test]
fn w53_a_crash_between_the_steps_of_a_write_loses_nothing() {
    // After the new file, before any rename.
    let dir = two();
    fs::write(dir.path().join("state.json.next"), "half").unwrap();
    let (mut file, found) = open(dir.path());
    assert_eq!(found, Found::Newest(state("second")));
    file.write(&state("third")).unwrap();
    // Without a newest at all, as other writers leave it.
    let dir = two();
    fs::remove_file(dir.path().join("state.json")).unwrap();
    assert!(matches!(open(dir.path()).1, Found::Previous(old, _) if old == state("first")));
}

#[test]
fn w53_two_damaged_files_are_refused_until_told_to_start_over() {
    let dir = two();
    for name in ["state.json", "state.json.previous"] {
        fs::write(dir.path().join(name), "{}").unwrap();
    }
    let error = StateFile::open(dir.path(), false).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("state.json: it is damaged"), "{text}");
    assert!(text.contains("--fresh-state"), "{text}");
    let (file, found) = StateFile::open(dir.path(), true).unwrap();
    assert!(matches!(found, Found::Refused(_)));
    // Whoever was told so and ended before anything was written is not refused again.
    drop(file);
    let (mut file, found) = open(dir.path());
    assert_eq!(found, Found::Nothing);
    for name in ["state.json.damaged", "state.json.previous.damaged"] {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "{}");
    }
    file.write(&state("anew")).unwrap();
    assert_eq!(open(dir.path()).1, Found::Newest(state("anew")));
}

#[test]
fn a_newer_version_and_a_file_others_may_write_are_refused_by_name() {
    let dir = two();
    let newest = dir.path().join("state.json");
    let text = fs::read_to_string(&newest).unwrap();
    fs::write(&newest, text.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
    let (_, found) = open(dir.path());
    assert!(
        matches!(&found, Found::Previous(_, why) if why.ends_with("it has version 2, this binary reads up to 1")),
        "{found:?}"
    );
    let dir = two();
    fs::set_permissions(
        dir.path().join("state.json"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let (_, found) = open(dir.path());
    assert!(
        matches!(&found, Found::Previous(_, why) if why.contains("others may write it")),
        "{found:?}"
    );
}

/// A file system of 256 KiB, unmounted on drop; `None` without root.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let dir = private_tempdir();
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=256k,mode=0700"),
        )
        .unwrap();
        Some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount(self.0.path()).unwrap();
    }
}

#[test]
fn a_full_disk_never_loses_the_old_state() {
    let Some(disk) = Small::mount() else {
        return; // Mounting needs root; the full run has it.
    };
    let dir = disk.0.path().join("iq");
    let (mut file, _) = open(&dir);
    file.write(&state("first")).unwrap();
    file.write(&state("second")).unwrap();
    let filler = disk.0.path().join("filler");
    let full = fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for _ in 0..3 {
        let error = file.write(&state(&"third".repeat(4_000))).unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(open(&dir).1, Found::Newest(state("second")));
    }
    fs::remove_file(filler).unwrap();
    file.write(&state("fourth")).unwrap();
    assert_eq!(open(&dir).1, Found::Newest(state("fourth")));
}

#[test]
fn within_a_boot_the_kernels_clock_tells_and_after_it_the_time_of_day() {
    let moment = |ktime, unix| Moment {
        ktime: Ktime::from_secs(ktime),
        unix: Duration::from_secs(unix),
    };
    let written = Written::at("a", moment(1_000, 50_000));
    let end = moment(1_000, 50_000).unix_ms(Ktime::from_secs(1_600));
    // The time of day was set back by an hour meanwhile.
    let now = moment(1_100, 46_500);
    assert_eq!(
        written.reading("a", now).ktime(end),
        Ktime::from_secs(1_600)
    );
    // A reboot later, 500 s after writing: 100 s are left.
    let now = moment(30, 50_500);
    assert_eq!(written.reading("b", now).ktime(end), Ktime::from_secs(130));
}

fn record(source: &str, strikes: u32) -> Record {
    Record {
        time: "2026-11-23T12:25:57Z".to_owned(),
        source: source.to_owned(),
        from: "OBSERVE".to_owned(),
        to: "RATE_SOFT".to_owned(),
        kind: "escalate".to_owned(),
        severity: 3.0,
        signal: "syn".to_owned(),
        rate: 5_012.0,
        trigger: 250.0,
        strikes,
        hold: "limit-new:400pps/800".to_owned(),
        until: "2026-11-23T12:26:57Z".to_owned(),
        dry_run: false,
    }
}

#[test]
fn the_journal_answers_for_one_source_and_survives_a_torn_line() {
    let dir = private_tempdir();
    let path = dir.path().join("deep/journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    for strikes in 1..=5 {
        journal.write(&record("192.0.2.7", strikes)).unwrap();
        journal.write(&record("192.0.2.77", strikes)).unwrap();
    }
    drop(journal);
    let mut torn = fs::read_to_string(&path).unwrap();
    torn.push_str("{\"time\":\"2026");
    fs::write(&path, torn).unwrap();
    let found = Journal::of_source(&path, "192.0.2.7", 3).unwrap();
    let strikes: Vec<u32> = found.iter().map(|record| record.strikes).collect();
    assert_eq!(strikes, [3, 4, 5]);
}

#[test]
fn the_journal_is_bounded() {
    let dir = private_tempdir();
    let path = dir.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let long = "x".repeat(100_000);
    for strikes in 0..200 {
        journal.write(&record(&long, strikes)).unwrap();
    }
    let sizes: Vec<u64> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().all(|size| *size <= 4 << 20), "{sizes:?}");
    let found = Journal::of_source(&path, &long, 1).unwrap();
    assert_eq!(found[0].strikes, 199);
}

proptest! {
    /// Whatever the bytes, reading them is a state or a reason, never a panic.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let dir = private_tempdir();
        fs::write(dir.path().join("state.json"), bytes).unwrap();
        prop_assert!(StateFile::open(dir.path(), false).is_err());
    }
}
