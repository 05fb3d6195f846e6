//! Running the binary under test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::{Doing, Result};

pub(crate) const KERNLOOM: &str = "/kernloom";

/// Runs `kernloom` to its end: what it printed, or what it complained about.
pub(crate) fn kernloom(args: &[&str]) -> Result<String> {
    run(Command::new(KERNLOOM).args(args))
}

pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .doing(&format!("starting {}", command.get_program().display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!(
            "{}: {}{}",
            output.status,
            text(&output.stderr),
            text(&output.stdout)
        ))
    }
}

/// A running `kernloom`, its log line by line; killed on drop.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let mut child = Command::new(KERNLOOM)
            .args(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .doing("starting kernloom")?;
        let stderr = child.stderr.take().ok_or("kernloom has no stderr")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr)
                .lines()
                .map_while(std::io::Result::ok)
            {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            said: Vec::new(),
        })
    }

    /// Waits for a line with `wanted` in it, calling `meanwhile` between looks.
    pub(crate) fn wait_for(
        &mut self,
        wanted: &str,
        limit: Duration,
        mut meanwhile: impl FnMut() -> Result<()>,
    ) -> Result<String> {
        let end = Deadline::after(limit);
        while !end.is_over() {
            match self.lines.recv_timeout(Duration::from_millis(5)) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(wanted) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => meanwhile()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(format!(
            "no line with '{wanted}' within {limit:?}; it said: {}",
            self.said.join("; ")
        ))
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) -> Result<String> {
        let pid = i32::try_from(self.child.id()).doing("naming kernloom")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        )
        .doing("stopping kernloom")?;
        let status = self.child.wait().doing("waiting for kernloom")?;
        if status.success() {
            Ok(format!("ended with {status}"))
        } else {
            Err(format!("ended with {status}"))
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Over already after stop(): then there is nobody to kill.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
