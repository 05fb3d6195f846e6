//! Child processes that cannot outlive the lab, with their output stamped line by line.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{now, poll, wait_until};
use super::{LabError, Result};

/// How long a process gets to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One line of output, and when it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) stream: Stream,
    pub(crate) text: String,
}

/// A running child. Dropping it ends it: SIGTERM, three seconds, SIGKILL.
///
/// Keep it in the thread that spawned it, or in one that thread outlives: the kernel kills the child
/// when its spawning thread ends, which is what makes `kill -9` of the lab leave nothing running.
pub(crate) struct Process {
    what: String,
    child: Child,
    status: Option<ExitStatus>,
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with its output captured. Commands come from [`super::Namespace::command`].
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let what = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| LabError::new(format!("starting {what}"), e))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(follow(pipe, Stream::Stdout, Arc::clone(&lines)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(follow(pipe, Stream::Stderr, Arc::clone(&lines)));
        }
        Ok(Self {
            what,
            child,
            status: None,
            lines,
            readers,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far, from the one at `start`: keep the count to read only what is new.
    pub(crate) fn lines_from(&self, start: usize) -> Vec<Line> {
        hold(&self.lines)
            .get(start..)
            .map(<[Line]>::to_vec)
            .unwrap_or_default()
    }

    /// Everything written so far, both streams in order of arrival.
    pub(crate) fn text(&self) -> String {
        hold(&self.lines)
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect()
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .map_err(|e| self.error("asking for", e))?;
        }
        Ok(self.status)
    }

    /// Waits until a line satisfies `wanted`. A process that ends first is an error with its output.
    pub(crate) fn wait_line(
        &mut self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Line> {
        let mut seen = 0;
        let mut found = None;
        wait_until(limit, what, || {
            let ended = self.ended()?;
            let fresh = self.lines_from(seen);
            seen += fresh.len();
            found = fresh.into_iter().find(|line| wanted(&line.text));
            match ended {
                Some(status) if found.is_none() => {
                    self.join_readers();
                    let late = self
                        .lines_from(seen)
                        .into_iter()
                        .find(|line| wanted(&line.text));
                    found = late;
                    let why = format!("{status}, after saying:\n{}", self.text());
                    if found.is_some() {
                        Ok(true)
                    } else {
                        Err(self.error("running", why))
                    }
                }
                _ => Ok(found.is_some()),
            }
        })?;
        found.ok_or_else(|| self.error("reading", "no such line"))
    }

    /// Waits for it to end by itself and for its last line.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        wait_until(limit, &what, || Ok(self.ended()?.is_some()))?;
        self.join_readers();
        self.ended()?
            .ok_or_else(|| self.error("waiting for", "still running"))
    }

    /// Ends it: SIGTERM, three seconds, SIGKILL. Returns how it ended; no error if it was over.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            self.join_readers();
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if !poll(GRACE, || Ok(self.ended()?.is_some()))? {
            self.child.kill().map_err(|e| self.error("killing", e))?;
        }
        let status = self
            .child
            .wait()
            .map_err(|e| self.error("waiting for", e))?;
        self.status = Some(status);
        self.join_readers();
        Ok(status)
    }

    /// Sends a signal, e.g. SIGHUP for a reload or SIGKILL for a crash.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).map_err(|e| self.error("naming", e))?;
        kill(Pid::from_raw(pid), signal).map_err(|e| self.error("signalling", e))
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader only reads and pushes; if it panicked the lines it had are still there.
            let _lost = reader.join();
        }
    }

    fn error(&self, doing: &str, why: impl std::fmt::Display) -> LabError {
        LabError::new(format!("{doing} {}", self.what), why)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("lab: {error}");
        }
    }
}

/// Whether `status` is success or the end that [`Process::stop`] asks for.
pub(crate) fn ended_well(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(Signal::SIGTERM as i32)
}

fn hold(lines: &Mutex<Vec<Line>>) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

fn follow(
    pipe: impl Read + Send + 'static,
    stream: Stream,
    lines: Arc<Mutex<Vec<Line>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for text in BufReader::new(pipe).lines().map_while(std::io::Result::ok) {
            hold(&lines).push(Line {
                at: now(),
                stream,
                text,
            });
        }
    })
}
