//! What a running IQ was given and what it decided, tick by tick, in one bounded file: enough to
//! decide it all again, under the same settings or under others.
//!
//! The file is the magic, then frames: length and CRC-32 of the payload, both little-endian, then
//! the payload in postcard (<https://postcard.jamesmunns.com/wire-format>). The layout of
//! [`Frame`] is the format; [`MAGIC`] ends in its version.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::Decision;
use crate::error::{CONFINED, Doing, Error, Result};
use crate::model::{Ktime, Source};
use crate::telemetry::{Coverage, Sample, Traffic};

/// The last byte is the version.
pub const MAGIC: [u8; 8] = *b"KLREC\0\0\x02";

/// No frame is longer: some three million sources in one tick.
const LONGEST_FRAME: u32 = 256 << 20;

/// One step of a run, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// What the run began with.
    Start(Box<Start>),
    /// Who was exempt from here on: by the whitelist, and otherwise.
    Exempt {
        whitelisted: Vec<Source>,
        others: Vec<Source>,
    },
    /// The end of a window.
    Tick {
        now: Ktime,
        /// Milliseconds since 1970.
        unix_ms: u64,
        length: Duration,
        coverage: Coverage,
        all: Option<Traffic>,
        samples: Vec<Sample>,
        decisions: Vec<Decision>,
    },
    /// A source between ticks.
    Alert {
        now: Ktime,
        sample: Sample,
        decision: Option<Decision>,
    },
    /// Sources that were forgotten, because someone said so or the kernel refused.
    Forget(Vec<Source>),
    /// Every source was forgotten.
    Reset,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub version: String,
    /// Name of the profile.
    pub profile: String,
    /// All that was gone by; reads back as a profile.
    pub settings: String,
    /// Whether thresholds are learned from whitelisted sources too.
    pub whitelist_learn: bool,
    pub dry_run: bool,
    pub now: Ktime,
    pub unix: Duration,
    /// Who was held, and what was learned, each in postcard.
    pub engine: Vec<u8>,
    pub autotune: Option<Vec<u8>>,
}

/// Appends frames until the file is full.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    written: u64,
    most: u64,
}

impl Writer {
    /// Starts a new file of at most `most` bytes, mode 0600.
    ///
    /// # Errors
    /// Operator's, if there is such a file already.
    pub fn create(path: &Path, most: u64) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::operator(format!(
                    "{} is there already; give another name, or remove it",
                    path.display()
                )));
            }
            Err(error) => {
                let mut why = format!("cannot record to {}: {error}", path.display());
                if error.kind() == ErrorKind::ReadOnlyFilesystem {
                    why.push_str(&format!("; {CONFINED}"));
                }
                return Err(Error::operator(why));
            }
            Ok(file) => file,
        };
        let mut writer = Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
            written: MAGIC.len() as u64,
            most,
        };
        writer.out.write_all(&MAGIC).doing(|| writer.doing())?;
        Ok(writer)
    }

    fn doing(&self) -> String {
        format!("recording to {}", self.path.display())
    }

    /// Appends a frame, on disk when this returns. False, and nothing written, if it does not fit.
    pub fn write(&mut self, frame: &Frame) -> Result<bool> {
        let payload = postcard::to_stdvec(frame)
            .map_err(|error| Error::world(format!("{}: {error}", self.doing())))?;
        let length = payload.len() as u64 + 8;
        let Ok(size) = u32::try_from(payload.len()) else {
            return Ok(false);
        };
        if self.written + length > self.most || size > LONGEST_FRAME {
            return Ok(false);
        }
        let check = crc32fast::hash(&payload);
        let result = self
            .out
            .write_all(&size.to_le_bytes())
            .and_then(|()| self.out.write_all(&check.to_le_bytes()))
            .and_then(|()| self.out.write_all(&payload))
            .and_then(|()| self.out.flush());
        result.doing(|| self.doing())?;
        self.written += length;
        Ok(true)
    }
}

/// Reads frames from the start to the last whole one.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    pub read: u64,
    pub size: u64,
    /// Whether it ended in the middle of a frame.
    pub cut: bool,
}

impl Reader {
    /// # Errors
    /// Operator's, if the file is missing, is no recording, or is of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let cannot = |why: &dyn std::fmt::Display| {
            Error::operator(format!("cannot read {}: {why}", path.display()))
        };
        let file = File::open(path).map_err(|error| cannot(&error))?;
        let about = file.metadata().map_err(|error| cannot(&error))?;
        if about.is_dir() {
            return Err(cannot(&"it is a directory; give a file"));
        }
        let size = about.len();
        let mut input = BufReader::new(file);
        let mut magic = [0; 8];
        if input.read_exact(&mut magic).is_err() || magic[..5] != MAGIC[..5] {
            return Err(cannot(
                &"it is no recording; 'kernloom iq record FILE' makes one",
            ));
        }
        if magic != MAGIC {
            let (theirs, ours) = (magic[7], MAGIC[7]);
            return Err(cannot(&format!(
                "it has version {theirs}, this binary reads {ours}; use the binary that wrote it"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            input,
            read: MAGIC.len() as u64,
            size,
            cut: false,
        })
    }

    /// The next frame; `None` at the end. A last frame that was cut off ends the recording too.
    ///
    /// # Errors
    /// Operator's, if the file is damaged.
    pub fn frame(&mut self) -> Result<Option<Frame>> {
        let (path, at) = (self.path.display().to_string(), self.read);
        let damaged = || {
            Error::operator(format!(
                "{path}: damaged at byte {at}; what is before it can be had with 'head -c {at}'"
            ))
        };
        let mut head = [0; 8];
        if self.input.read_exact(&mut head).is_err() {
            self.cut = self.read < self.size;
            return Ok(None);
        }
        let word = |at: usize| {
            head.get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u32::from_le_bytes)
        };
        let (size, check) = (word(0), word(4));
        let left = self.size.saturating_sub(self.read + 8);
        if size > LONGEST_FRAME {
            return Err(damaged());
        }
        let mut payload = Vec::new();
        if u64::from(size) <= left {
            payload.resize(size as usize, 0);
        }
        if u64::from(size) > left || self.input.read_exact(&mut payload).is_err() {
            self.cut = true;
            return Ok(None);
        }
        if crc32fast::hash(&payload) != check {
            return Err(damaged());
        }
        let frame = postcard::from_bytes(&payload).map_err(|_| damaged())?;
        self.read += u64::from(size) + 8;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(secs: u64) -> Frame {
        let sample = Sample {
            packets: 5_012,
            port_bits: u64::MAX,
            ..Sample::silent("2001:db8::/64".parse().unwrap())
        };
        Frame::Tick {
            now: Ktime::from_secs(secs),
            unix_ms: secs,
            length: Duration::from_nanos(999_999_999),
            coverage: Coverage::default(),
            all: None,
            samples: vec![sample],
            decisions: Vec::new(),
        }
    }

    fn all(path: &Path) -> Result<Vec<Frame>> {
        let mut reader = Reader::open(path)?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_is_written_is_read_and_the_bound_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.klrec");
        let mut writer = Writer::create(&path, 300).unwrap();
        let mut written = Vec::new();
        while writer.write(&tick(written.len() as u64)).unwrap() {
            written.push(tick(written.len() as u64));
        }
        assert!(written.len() > 2);
        assert!(std::fs::metadata(&path).unwrap().len() <= 300);
        assert_eq!(all(&path).unwrap(), written);
        let again = Writer::create(&path, 300).unwrap_err();
        assert!(again.to_string().contains("is there already"), "{again}");
    }

    #[test]
    fn a_recording_cut_off_anywhere_gives_its_whole_frames() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.klrec");
        let mut writer = Writer::create(&path, 10_000).unwrap();
        for secs in 1..4 {
            writer.write(&tick(secs)).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        let frame = (bytes.len() - MAGIC.len()) / 3;
        for end in MAGIC.len()..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let whole = (end - MAGIC.len()) / frame;
            let mut reader = Reader::open(&path).unwrap();
            let mut frames = 0;
            while reader.frame().unwrap().is_some() {
                frames += 1;
            }
            assert_eq!(frames, whole, "{end}");
            assert_eq!(
                reader.cut,
                !(end - MAGIC.len()).is_multiple_of(frame),
                "{end}"
            );
        }
    }

    #[test]
    fn damage_and_strangers_are_the_operators_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.klrec");
        Writer::create(&path, 10_000)
            .unwrap()
            .write(&tick(1))
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        let mut newer = whole;
        newer[7] = 9;
        for (bytes, why) in [
            (flipped, "damaged at byte 8"),
            (newer, "it has version 9, this binary reads 2"),
            (b"hello".to_vec(), "it is no recording"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = all(&path).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
