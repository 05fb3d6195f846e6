//! kernloom on the lab's server, with the lab's private pins, locks and log.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Line, Process};
use super::transition::Transition;
use super::wait::wait_until;
use super::{Lab, LabError, Result, namespace};

/// How long it gets to load, verify and attach.
const ATTACH: Duration = Duration::from_secs(20);

/// What a command answered. `code` is `None` after a signal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A running `kernloom iq`; ends on drop.
pub(crate) struct Kernloom {
    process: Process,
    attached: String,
    read: usize,
    moves: Vec<Transition>,
}

impl Kernloom {
    /// Starts `kernloom iq` on `eth0` with `args` and waits until it says `attached`.
    pub(crate) fn iq(lab: &Lab, binary: &Path, args: &[&str]) -> Result<Self> {
        let mut command = lab.server().net.command(&binary.to_string_lossy());
        command.args(["iq", "--iface", "eth0"]).args(args);
        private(&mut command, lab);
        let mut process = Process::spawn(command)?;
        let line = process.wait_line(ATTACH, "kernloom to attach", |l| l.contains("attached"))?;
        Ok(Self {
            process,
            attached: line.text,
            read: 0,
            moves: Vec::new(),
        })
    }

    /// Waits for a line that holds `wanted`, from the start of its output.
    pub(crate) fn wait_line(&mut self, limit: Duration, wanted: &str) -> Result<Line> {
        let what = format!("a line with '{wanted}'");
        self.process
            .wait_line(limit, &what, |line| line.contains(wanted))
    }

    /// Runs a command of kernloom on the server to its end: `&["shield", "stats"]`.
    pub(crate) fn run(lab: &Lab, binary: &Path, args: &[&str]) -> Result<String> {
        let mut command = lab.server().net.command(&binary.to_string_lossy());
        command.args(args);
        private(&mut command, lab);
        namespace::run(&mut command)
    }

    /// The same, whatever its exit code.
    pub(crate) fn ask(lab: &Lab, binary: &Path, args: &[&str]) -> Result<Said> {
        let mut command = lab.server().net.command(&binary.to_string_lossy());
        command.args(args);
        private(&mut command, lab);
        let output = command
            .output()
            .map_err(|e| LabError::new(format!("running kernloom {}", args.join(" ")), e))?;
        Ok(Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// What somebody at a terminal sees of a command that must succeed.
    pub(crate) fn watch(lab: &Lab, binary: &Path, args: &[&str]) -> Result<String> {
        let mut inner = Command::new(binary);
        inner.args(args);
        private(&mut inner, lab);
        let line: Vec<_> = inner.get_args().map(|arg| arg.to_string_lossy()).collect();
        let line = format!("{} {}", binary.display(), line.join(" "));
        let mut command = lab.server().net.command("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        command.env("TERM", "xterm");
        namespace::run(&mut command)
    }

    /// The line that said so; it names the mode, `driver` or `generic`.
    pub(crate) fn attached(&self) -> &str {
        &self.attached
    }

    /// All moves so far.
    pub(crate) fn transitions(&mut self) -> &[Transition] {
        self.fresh_lines();
        &self.moves
    }

    /// The lines since the last call of this or [`Self::transitions`].
    pub(crate) fn fresh_lines(&mut self) -> Vec<Line> {
        let fresh = self.process.lines_from(self.read);
        self.read += fresh.len();
        self.moves.extend(fresh.iter().filter_map(Transition::read));
        fresh
    }

    /// Waits for the first move of `source` that satisfies `wanted`.
    pub(crate) fn wait_transition(
        &mut self,
        limit: Duration,
        source: &str,
        wanted: impl Fn(&Transition) -> bool,
    ) -> Result<Transition> {
        let mut found = None;
        wait_until(limit, &format!("a move of {source}"), || {
            self.check_running()?;
            let mine = |step: &&Transition| step.source == source && wanted(step);
            found = self.transitions().iter().find(mine).cloned();
            Ok(found.is_some())
        })?;
        found.ok_or_else(|| LabError::new(format!("watching {source}"), "no move"))
    }

    /// An error with what it said, if it ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        match self.process.ended()? {
            None => Ok(()),
            Some(status) => Err(LabError::new(
                "running kernloom",
                format!("{status}:\n{}", self.text()),
            )),
        }
    }

    /// Everything it said.
    pub(crate) fn text(&self) -> String {
        self.process.text()
    }

    /// The process, to signal or to stop.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Adds the lab's directories, so that labs meet neither each other nor the host's own kernloom.
pub(crate) fn private(command: &mut Command, lab: &Lab) {
    let pair = |flag: &str, path: &Path| [PathBuf::from(flag), path.to_owned()];
    command
        .args(pair("--bpffs", lab.bpffs()))
        .args(pair("--run-dir", lab.run_dir()))
        .args(pair("--state-dir", &lab.state_dir()))
        .args(pair("--config", &lab.config()));
}
