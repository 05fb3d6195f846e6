//! Every transition, one JSON object per line, in a file that cannot grow without bound.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::Signal;
use crate::error::{Doing, Error, Result};
use crate::model::Wall;
use crate::trust;

/// At this size the file becomes `FILE.1`, replacing the one before.
const MOST_BYTES: u64 = 4 << 20;

/// One transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339, UTC.
    pub time: String,
    pub source: String,
    pub from: String,
    pub to: String,
    /// `escalate` or `release`.
    pub kind: String,
    pub severity: f64,
    pub signal: String,
    /// Over the time that the signal is of, like `trigger`.
    pub rate: f64,
    pub trigger: f64,
    pub strikes: u32,
    /// What the data plane was asked to do, as in the log.
    pub hold: String,
    /// RFC 3339; empty if nothing is held.
    pub until: String,
    pub dry_run: bool,
}

impl Record {
    /// The time that rate and trigger are counted over: `/s`.
    pub fn per(&self) -> &'static str {
        Signal::per_of(&self.signal)
    }
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Journal {
    /// Opens it for appending, mode 0600, making its directory if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("opening the journal {}", path.display());
        if let Some(dir) = path.parent() {
            trust::make_dir(dir).doing(doing)?;
        }
        let file = open(path).doing(doing)?;
        let bytes = file.metadata().doing(doing)?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    /// Appends one line.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let doing = || format!("writing the journal {}", self.path.display());
        let mut line = serde_json::to_vec(record)
            .map_err(|error| Error::world(format!("writing the journal: {error}")))?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.bytes + length > MOST_BYTES && self.bytes > 0 {
            fs::rename(&self.path, older(&self.path)).doing(doing)?;
            self.file = open(&self.path).doing(doing)?;
            self.bytes = 0;
        }
        self.file.write_all(&line).doing(doing)?;
        self.bytes += length;
        Ok(())
    }

    /// Whether there is one, or the part before it. Where that cannot be told, reading it will tell.
    pub fn is_there(path: &Path) -> bool {
        [path, &older(path)]
            .into_iter()
            .any(|path| fs::exists(path).unwrap_or(true))
    }

    /// All records from `start` on, oldest first. Lines that are cut off are skipped.
    pub fn since(path: &Path, start: Wall) -> Result<Vec<Record>> {
        let mut found = Vec::new();
        Self::each(
            path,
            |_| true,
            |record| {
                if record.time.parse::<Wall>().is_ok_and(|time| time >= start) {
                    found.push(record);
                }
            },
        )?;
        Ok(found)
    }

    /// Shows the records of the lines that may matter, oldest first.
    fn each(
        path: &Path,
        may_matter: impl Fn(&str) -> bool,
        mut show: impl FnMut(Record),
    ) -> Result<()> {
        // Read last and asked first: what stands in the way of both is told of this one.
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            file => drop(file.doing(|| format!("reading the journal {}", path.display()))?),
        }
        for path in [older(path), path.to_owned()] {
            let doing = || format!("reading the journal {}", path.display());
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.doing(doing)?,
            };
            for line in BufReader::new(file).lines() {
                let line = line.doing(doing)?;
                if may_matter(&line)
                    && let Ok(record) = serde_json::from_str::<Record>(&line)
                {
                    show(record);
                }
            }
        }
        Ok(())
    }

    /// The last `most` records of a source, oldest first. Lines that are cut off are skipped.
    pub fn of_source(path: &Path, source: &str, most: usize) -> Result<Vec<Record>> {
        let mut found = std::collections::VecDeque::new();
        Self::each(
            path,
            |line| line.contains(source),
            |record| {
                if record.source == source {
                    found.push_back(record);
                    if found.len() > most {
                        found.pop_front();
                    }
                }
            },
        )?;
        Ok(found.into())
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}
