//! One state in two files: `state.json`, and `state.json.previous`, which was it before.
//!
//! ```text
//! {"version":1,"crc32":"9ae0daaf","body":{...}}
//! ```
//!
//! Writing: a new file beside it, fsync; the newest linked as previous; the new one renamed over
//! it; fsync of the directory. At every instant one of the two is whole, also when the disk is
//! full, and `state.json` exists from the first write on. The checksum finds damage, not malice:
//! against that stand mode, owner and directory.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::State;
use crate::error::{Doing, Error, Result};
use crate::trust;

/// Of the envelope and the body. A newer one is refused, an older one is read.
const VERSION: u32 = 1;

const NEWEST: &str = "state.json";
const PREVIOUS: &str = "state.json.previous";
const NEXT: &str = "state.json.next";
const DAMAGED: &str = "state.json.damaged";
const DAMAGED_PREVIOUS: &str = "state.json.previous.damaged";

#[derive(Deserialize)]
struct Envelope<B> {
    version: u32,
    crc32: String,
    body: B,
}

/// What was found on disk.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// No state yet.
    Nothing,
    Newest(State),
    /// The newest is damaged, for the given reason.
    Previous(State, String),
    /// Neither can be used and the operator asked to start over.
    Refused(String),
}

/// The two files, and whether the newest may become the previous.
#[derive(Debug)]
pub struct StateFile {
    dir: PathBuf,
    newest_is_good: bool,
}

impl StateFile {
    /// Reads the state in `dir`, making the directory if there is none.
    ///
    /// # Errors
    /// Operator's, if there are files and none of them can be used, unless `fresh`; World's if the
    /// directory cannot be read.
    pub fn open(dir: &Path, fresh: bool) -> Result<(Self, Found)> {
        trust::private_dir(dir)?;
        let newest = read(&dir.join(NEWEST))?;
        let file = Self {
            dir: dir.to_owned(),
            newest_is_good: matches!(newest, Some(Ok(_))),
        };
        let found = match (newest, read(&dir.join(PREVIOUS))?) {
            (Some(Ok(state)), _) => Found::Newest(state),
            (None, None) => Found::Nothing,
            (None, Some(Ok(state))) => {
                Found::Previous(state, format!("{}: it is gone", dir.join(NEWEST).display()))
            }
            (Some(Err(why)), Some(Ok(state))) => Found::Previous(state, why),
            (newest, previous) => {
                let why: Vec<String> = [newest, previous]
                    .into_iter()
                    .flatten()
                    .filter_map(Result::err)
                    .collect();
                let why = why.join("; ");
                if !fresh {
                    return Err(Error::operator(format!(
                        "no usable state: {why}. Put a good copy there, or give --fresh-state to \
                         start over: thresholds are learned anew and exemptions of 'iq exempt' are \
                         gone"
                    )));
                }
                // Else whoever starts before the first state is written is refused again.
                file.set_aside(PREVIOUS, DAMAGED_PREVIOUS)?;
                Found::Refused(why)
            }
        };
        if !file.newest_is_good {
            file.set_aside(NEWEST, DAMAGED)?;
        }
        Ok((file, found))
    }

    /// The state in `dir`, without making or moving anything.
    pub fn peek(dir: &Path) -> Result<Option<State>> {
        Ok(read(&dir.join(NEWEST))?.and_then(Result::ok))
    }

    /// Replaces the newest state; what was newest becomes previous.
    ///
    /// # Errors
    /// World's; the files on disk then are what they were.
    pub fn write(&mut self, state: &State) -> Result<()> {
        let (newest, next) = (self.dir.join(NEWEST), self.dir.join(NEXT));
        let doing = || format!("writing {}", newest.display());
        let written = write_whole(&next, state);
        if let Err(error) = written {
            // Frees what a full disk needs; the error that counts is the first one.
            let _ = fs::remove_file(&next);
            return Err(error).doing(doing);
        }
        if self.newest_is_good {
            self.keep_as_previous(&newest).doing(doing)?;
        }
        fs::rename(&next, &newest).doing(doing)?;
        self.newest_is_good = true;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .doing(doing)
    }

    /// Gives the newest its second name, so that it has one at every instant.
    fn keep_as_previous(&self, newest: &Path) -> std::io::Result<()> {
        let spare = self.dir.join("state.json.spare");
        match fs::remove_file(&spare) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(newest, &spare)?;
        fs::rename(&spare, self.dir.join(PREVIOUS))
    }

    /// Keeps a damaged file for whoever wants to look at it.
    fn set_aside(&self, name: &str, aside: &str) -> Result<()> {
        let damaged = self.dir.join(name);
        match fs::rename(&damaged, self.dir.join(aside)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).doing(|| format!("setting {} aside", damaged.display()))
            }
            _ => Ok(()),
        }
    }
}

fn write_whole(path: &Path, state: &State) -> std::io::Result<()> {
    // A leftover of an interrupted write may have another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut out = BufWriter::new(file);
    encode(state, &mut out)?;
    out.into_inner()?.sync_all()
}

/// Writes the envelope. The body is made twice, once for its checksum: as a whole it would need
/// more memory than all that it tells of.
fn encode(state: &State, out: &mut impl Write) -> std::io::Result<()> {
    let mut check = Check::default();
    serde_json::to_writer(&mut check, state)?;
    let check = check.text();
    write!(out, r#"{{"version":{VERSION},"crc32":"{check}","body":"#)?;
    serde_json::to_writer(&mut *out, state)?;
    out.write_all(b"}")
}

/// The checksum of what is written to it.
#[derive(Default)]
struct Check(crc32fast::Hasher);

impl Check {
    fn text(self) -> String {
        format!("{:08x}", self.0.finalize())
    }
}

impl Write for Check {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `None` if there is no such file; `Some(Err)` with the reason if it cannot be used.
fn read(path: &Path) -> Result<Option<Result<State, String>>> {
    let doing = || format!("reading {}", path.display());
    let unusable = |why: &str| Ok(Some(Err(format!("{}: {why}", path.display()))));
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        meta => meta.doing(doing)?,
    };
    // Reading a pipe would wait for whoever writes it, and a device may never end.
    if !meta.is_file() {
        return unusable("it is not a regular file");
    }
    let own = nix::unistd::geteuid().as_raw();
    let read = if meta.uid() != own && meta.uid() != 0 {
        Err(format!("it belongs to user {}", meta.uid()))
    } else if meta.mode() & 0o022 != 0 {
        Err("others may write it; 'chmod 600' it if it is yours".to_owned())
    } else {
        decode(&fs::read(path).doing(doing)?)
    };
    match read {
        Ok(state) => Ok(Some(Ok(state))),
        Err(why) => unusable(&why),
    }
}

fn decode(bytes: &[u8]) -> Result<State, String> {
    let damaged = |error: serde_json::Error| format!("it is damaged ({error})");
    let envelope: Envelope<Box<RawValue>> = serde_json::from_slice(bytes).map_err(damaged)?;
    if !(1..=VERSION).contains(&envelope.version) {
        return Err(format!(
            "it has version {}, this binary reads up to {VERSION}",
            envelope.version
        ));
    }
    let mut check = Check::default();
    check.0.update(envelope.body.get().as_bytes());
    if envelope.crc32 != check.text() {
        return Err("it is damaged (its checksum does not match)".to_owned());
    }
    serde_json::from_str(envelope.body.get()).map_err(damaged)
}
