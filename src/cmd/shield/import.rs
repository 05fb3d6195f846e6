//! Lists in and out of files: all of a list, or nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::fstat;

use super::super::{changing, opened};
use super::Instance;
use super::guard::Guard;
use super::policy::List;
use crate::cli::{EntryArgs, OwnerArg, positive_duration};
use crate::dataplane::{Action, NoteId, Owner, PinDir, Rule, reason_text};
use crate::error::{Doing, Error, Result};
use crate::model::{Source, counted, format_duration, shown};
use crate::report::{print, progress, write_out};
use crate::runtime::now;
use crate::trust;

/// Lines named in one message; the rest are counted.
const NAMED: usize = 20;

/// Of one line with its end, bytes: what has none (a device, a disk image) is no list.
const LONGEST_LINE: usize = 4_096;

/// What some editors begin a file with (Unicode 23.8, U+FEFF in UTF-8).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One entry as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    number: usize,
    source: Source,
    ttl: Option<Duration>,
    owner: Option<OwnerArg>,
    reason: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    lines: Vec<Line>,
    /// Number and what is wrong.
    bad: Vec<(usize, String)>,
    /// Number, and the number of the line it repeats.
    repeated: Vec<(usize, usize)>,
}

pub(super) fn import(place: Instance<'_>, file: &Path, how: &EntryArgs, list: List) -> Result<()> {
    let name = file.display().to_string();
    place.pins.must_be_loaded()?;
    let mut read = read_list(&name, file)?;
    let (lock, shield) = changing(place.pins)?;
    let at = now()?;
    let mut edit = shield.edit(&lock);
    let mut text = String::new();
    if list.action == Action::Deny {
        let guard = Guard::new(&edit.list()?, place.management, at, how.no_guard);
        let owner = |line: &Line| list.owner(line.owner.unwrap_or(how.owner));
        for line in read.lines.iter().filter(|line| !owner(line).is_automatic()) {
            read.bad
                .extend(guard.objection(&line.source).map(|why| (line.number, why)));
        }
        refuse_bad(&name, &read.bad)?;
        let reached = |peer: &Source| read.lines.iter().any(|line| line.source.contains(peer));
        text.push_str(&guard.protect(&mut edit, at, reached)?);
    }
    refuse_bad(&name, &read.bad)?;
    let mut notes: HashMap<&str, NoteId> = HashMap::new();
    let mut rules = Vec::with_capacity(read.lines.len());
    for line in &read.lines {
        let reason = line.reason.as_deref().unwrap_or(&how.reason);
        let note = match notes.get(reason) {
            Some(note) => *note,
            None => {
                let note = edit.note(reason)?;
                notes.insert(reason, note);
                note
            }
        };
        let rule = Rule {
            action: list.action,
            owner: list.owner(line.owner.unwrap_or(how.owner)),
            expires: line.ttl.or(how.ttl).map(|ttl| at + ttl),
        };
        rules.push((line.source, rule, note));
    }
    let bar = progress("importing", rules.len() as u64);
    let done = uninterrupted(|| edit.import(&rules, |written| bar.set_position(written as u64)))?;
    bar.finish_and_clear();
    drop(edit);
    for (number, first) in read.repeated.iter().take(NAMED) {
        text.push_str(&format!("{name}: line {number} repeats line {first}\n"));
    }
    let more = read.repeated.len().saturating_sub(NAMED);
    if more > 0 {
        text.push_str(&format!("{name}: and {more} more\n"));
    }
    text.push_str(&format!(
        "{} added, {} changed, {} kept as the operator has them, {} repeated\n",
        done.added,
        done.changed,
        done.kept,
        read.repeated.len()
    ));
    drop(lock);
    print(&text)
}

/// Ctrl-C in the middle would leave half a list.
fn uninterrupted<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().doing(|| "holding signals back")?;
    let done = work();
    signals.thread_unblock().doing(|| "letting signals in")?;
    done
}

fn read_list(name: &str, file: &Path) -> Result<Read> {
    if file == Path::new("-") {
        return parse(io::stdin().lock()).doing(|| "reading standard input");
    }
    let open =
        File::open(file).map_err(|error| Error::operator(format!("opening {name}: {error}")))?;
    refuse_device(name, &open)?;
    let about = open.metadata().doing(|| format!("reading {name}"))?;
    // Pipes are whoever's this command was given by; a directory says so when it is read.
    if about.is_file() {
        trust::refuse_changeable(&about, file)
            .map_err(|error| Error::operator(format!("not going by {name}: {error}")))?;
    }
    parse(BufReader::new(open)).doing(|| format!("reading {name}"))
}

/// Devices have no end, but for the one that standard input may be.
fn refuse_device(name: &str, open: &File) -> Result<()> {
    let about = open.metadata().doing(|| format!("reading {name}"))?;
    let kind = about.file_type();
    let is_stdin = || fstat(io::stdin()).is_ok_and(|stdin| stdin.st_rdev == about.rdev());
    if kind.is_block_device() || kind.is_char_device() && !is_stdin() {
        return Err(Error::operator(format!(
            "reading {name}: it is a device; give a file, or - for standard input"
        )));
    }
    Ok(())
}

fn refuse_bad(name: &str, bad: &[(usize, String)]) -> Result<()> {
    if bad.is_empty() {
        return Ok(());
    }
    let lines = counted(bad.len(), "bad line", "bad lines");
    let mut text = format!("{name}: {lines}, nothing was changed");
    for (number, why) in bad.iter().take(NAMED) {
        text.push_str(&format!("\n  line {number}: {why}"));
    }
    let more = bad.len().saturating_sub(NAMED);
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    Err(Error::operator(text))
}

fn parse(mut input: impl BufRead) -> io::Result<Read> {
    let mut read = Read::default();
    let mut first: HashMap<Source, usize> = HashMap::new();
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let most = (LONGEST_LINE + 1) as u64;
        if input.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        if bytes.len() > LONGEST_LINE {
            let why = format!("it is longer than {LONGEST_LINE} bytes; no more was read");
            read.bad.push((number, why));
            break;
        }
        let line = match number {
            1 => bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes),
            _ => &bytes,
        };
        let parsed = match std::str::from_utf8(line) {
            Ok(text) => parse_line(number, text),
            Err(_) => Err("it is not text (UTF-8)".to_owned()),
        };
        match parsed {
            Ok(None) => {}
            Ok(Some(line)) => match first.get(&line.source) {
                Some(earlier) => read.repeated.push((number, *earlier)),
                None => {
                    first.insert(line.source, number);
                    read.lines.push(line);
                }
            },
            Err(why) => read.bad.push((number, why)),
        }
    }
    Ok(read)
}

/// `None` for a line that says nothing.
fn parse_line(number: usize, text: &str) -> Result<Option<Line>, String> {
    // A reason runs to the end of the line, whatever is in it.
    let before = text.find("reason=").unwrap_or(text.len());
    let said = match text[..before].find(['#', ';']) {
        Some(comment) => text[..comment].trim(),
        None => text.trim(),
    };
    let Some(source) = said.split_whitespace().next() else {
        return Ok(None);
    };
    let mut line = Line {
        number,
        source: source.parse().map_err(|error| format!("{error}"))?,
        ttl: None,
        owner: None,
        reason: None,
    };
    let mut rest = said[source.len()..].trim_start();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').ok_or_else(|| {
            format!(
                "'{}' is none of ttl=TIME, owner=OWNER, reason=TEXT",
                shown(rest)
            )
        })?;
        if key == "reason" {
            line.reason = Some(reason_text(value)?.to_owned());
            break;
        }
        let (value, after) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        match key {
            "ttl" => line.ttl = Some(positive_duration(value)?),
            "owner" => line.owner = Some(owner_of(value)?),
            _ => return Err(format!("'{}' is none of ttl, owner, reason", shown(key))),
        }
        rest = after.trim_start();
    }
    Ok(Some(line))
}

fn owner_of(text: &str) -> Result<OwnerArg, String> {
    clap::ValueEnum::from_str(text, false)
        .map_err(|_| format!("'{}' is no owner; give operator, iq or feed", shown(text)))
}

pub(super) fn export(pins: &PinDir, file: &Path, list: List) -> Result<()> {
    let shield = opened(pins)?;
    let (notes, at) = (shield.notes()?, now()?);
    let mut text = String::new();
    let ours = |owner: Owner| list.management || matches!(owner, Owner::Operator | Owner::Feed);
    for entry in shield.entries()? {
        if !list.holds(&entry) || !ours(entry.rule.owner) || !entry.is_live(at) {
            continue;
        }
        text.push_str(&entry.source.to_string());
        if let Some(end) = entry.rule.expires {
            // Whole seconds, rounded up: the entry must not end sooner where it is imported.
            let left = Duration::from_secs(end.since(at).as_secs() + 1);
            text.push_str(&format!(" ttl={}", format_duration(left)));
        }
        if entry.rule.owner == Owner::Feed {
            text.push_str(" owner=feed");
        }
        let reason = notes.text(entry.note);
        if !reason.is_empty() {
            text.push_str(&format!(" reason={reason}"));
        }
        text.push('\n');
    }
    write_out(file, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Read {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn lines_carry_sources_and_what_is_said_of_them() {
        let read = read_all(
            "# a list\n\n192.0.2.7\n2001:db8::/32 ttl=1h owner=feed reason=seen #1; twice = bad\n\
             198.51.100.0/24 ; SBL123456\r\n",
        );
        assert_eq!(read.bad, []);
        let sources: Vec<_> = read
            .lines
            .iter()
            .map(|line| (line.number, line.source.to_string()))
            .collect();
        assert_eq!(
            sources,
            [
                (3, "192.0.2.7".to_owned()),
                (4, "2001:db8::/32".to_owned()),
                (5, "198.51.100.0/24".to_owned())
            ]
        );
        assert_eq!(read.lines[1].ttl, Some(Duration::from_secs(3_600)));
        assert_eq!(read.lines[1].owner, Some(OwnerArg::Feed));
        assert_eq!(
            read.lines[1].reason.as_deref(),
            Some("seen #1; twice = bad")
        );
    }

    #[test]
    fn what_the_command_line_refuses_a_list_may_not_say() {
        let long = "x".repeat(65);
        let read = read_all(&format!(
            "10.0.0.1 ttl=0\n10.0.0.2 ttl=0s owner=feed\n10.0.0.3 reason={long}\n10.0.0.4 reason=a\tb\n\
             10.0.0.300\n"
        ));
        assert_eq!(read.lines, []);
        let told: Vec<_> = read
            .bad
            .iter()
            .map(|(number, why)| (*number, &why[..]))
            .collect();
        assert_eq!(
            told,
            [
                (1, "'0' is no time at all; give more than 0"),
                (2, "'0s' is no time at all; give more than 0"),
                (
                    3,
                    &format!("the reason '{long}' is no line of at most 64 bytes")[..]
                ),
                (4, "the reason 'a\\tb' is no line of at most 64 bytes"),
                (
                    5,
                    "'10.0.0.300' is not an address or prefix; write it like 192.0.2.7, 192.0.2.0/24 or \
                     2001:db8::/48"
                ),
            ]
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line_alone() {
        let read = read_all("\u{feff}10.0.0.1\n\u{feff}10.0.0.2\n");
        assert_eq!(read.lines.len(), 1);
        assert_eq!(read.bad.len(), 1);
        assert_eq!(read.bad[0].0, 2);
    }

    #[test]
    fn a_line_without_end_is_told_and_not_kept() {
        let endless = || io::repeat(0).take(1 << 20);
        let mut input = BufReader::new(endless());
        let read = parse(&mut input).unwrap();
        let told = "it is longer than 4096 bytes; no more was read".to_owned();
        assert_eq!(read.bad, [(1, told.clone())]);
        assert!(input.into_inner().limit() > (1 << 20) - 65_536, "read on");
        let long = format!("10.0.0.1 # {}", "x".repeat(4_096));
        let two = format!("10.0.0.300\n{long}\n10.0.0.301\n");
        let numbers: Vec<_> = read_all(&two)
            .bad
            .iter()
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(numbers, [1, 2]);
        let fits = format!("10.0.0.1 #{}\n", "x".repeat(4_096 - 11));
        assert_eq!((fits.len(), read_all(&fits).lines.len()), (4_096, 1));
    }

    #[test]
    fn what_is_wrong_is_shown_and_not_all_of_it() {
        let word = "y".repeat(3_000);
        for line in [
            word.clone(),
            format!("10.0.0.1 {word}"),
            format!("10.0.0.1 {word}=1"),
            format!("10.0.0.1 owner={word}"),
            format!("10.0.0.1 ttl={word}"),
            format!("10.0.0.1/{word}"),
        ] {
            let read = read_all(&line);
            let (_, why) = &read.bad[0];
            assert!(why.contains("yyy...'") && why.len() < 250, "{why}");
        }
    }

    #[test]
    fn bad_lines_and_repeated_ones_are_named_by_number() {
        let mut bytes = b"10.0.0.1\n10.0.0.300\n10.0.0.1\n10.0.0.5/8\n10.0.0.2 ttl=5\n".to_vec();
        bytes.extend(b"\xff\xfe\n10.0.0.3 color=red\n10.0.0.4 owner=ceiling\n10.0.0.6 scanner\n");
        let read = parse(bytes.as_slice()).unwrap();
        assert_eq!(read.lines.len(), 1);
        assert_eq!(read.repeated, [(3, 1)]);
        let error = refuse_bad("drop.txt", &read.bad).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(
            error.to_string(),
            "drop.txt: 7 bad lines, nothing was changed\n  \
             line 2: '10.0.0.300' is not an address or prefix; write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48\n  \
             line 4: '10.0.0.5/8' has bits set after the prefix; did you mean 10.0.0.0/8?\n  \
             line 5: '5' is not a duration; write it like 500ms, 30s, 10m, 1h30m or 14d\n  \
             line 6: it is not text (UTF-8)\n  \
             line 7: 'color' is none of ttl, owner, reason\n  \
             line 8: 'ceiling' is no owner; give operator, iq or feed\n  \
             line 9: 'scanner' is none of ttl=TIME, owner=OWNER, reason=TEXT"
        );
    }
}
