//! The terminal that keys come from, as one more thing to wait for.

use std::fs::File;
use std::io::{IsTerminal, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::error::{Doing, Error, Result};

/// Why waiting for a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stir {
    /// Something can be read, or the window changed its size.
    Input,
    /// A signal to end, or nobody is at the other end of the terminal any more, or another job has it.
    Over,
    /// The time is up.
    Nothing,
}

/// Where keys are read: standard input, or the controlling terminal where that is something else.
pub struct Keyboard(Option<File>);

impl Keyboard {
    /// # Errors
    /// Operator's, if there is no terminal, or it is another job's.
    pub fn open() -> Result<Self> {
        let tty = if stdin().is_terminal() {
            None
        } else {
            let tty = File::open("/dev/tty").map_err(|error| {
                Error::operator(format!(
                    "no terminal to read keys from (/dev/tty: {error}); --once and --json need none"
                ))
            })?;
            Some(tty)
        };
        // Else giving the terminal back would stop a job that was sent to the background meanwhile.
        SigSet::from(Signal::SIGTTOU)
            .thread_block()
            .doing(|| "preparing for signals")?;
        let keyboard = Self(tty);
        if keyboard.is_lent() {
            return Err(Error::operator(
                "only a job in the foreground has the terminal; start it without '&', or with --once or --json",
            ));
        }
        Ok(keyboard)
    }

    /// Whether another job has the terminal (POSIX.1-2017, 11.1.4); none has one that does not
    /// control us.
    fn is_lent(&self) -> bool {
        let group = match &self.0 {
            Some(tty) => tcgetpgrp(tty),
            None => tcgetpgrp(stdin()),
        };
        group.is_ok_and(|group| group != getpgrp())
    }

    /// Waits for a key, a signal or the terminal's end, at most `limit`. Unless `listening`, keys
    /// do not end the wait.
    pub fn wait(&self, shutdown: &SignalFd, limit: Duration, listening: bool) -> Result<Stir> {
        if self.is_lent() {
            return Ok(Stir::Over);
        }
        let standard = stdin();
        let keys = match &self.0 {
            Some(tty) => tty.as_fd(),
            None => standard.as_fd(),
        };
        stirred(keys, shutdown.as_fd(), limit, listening)
    }
}

fn stirred(
    keys: BorrowedFd<'_>,
    shutdown: BorrowedFd<'_>,
    limit: Duration,
    listening: bool,
) -> Result<Stir> {
    let wanted = if listening {
        PollFlags::POLLIN
    } else {
        PollFlags::empty()
    };
    let mut both = [
        PollFd::new(keys, wanted),
        PollFd::new(shutdown, PollFlags::POLLIN),
    ];
    // Rounded up, so that the last fraction of a millisecond is not polled away.
    let millis = u16::try_from(limit.as_micros().div_ceil(1_000)).unwrap_or(u16::MAX);
    match poll(&mut both, PollTimeout::from(millis)) {
        Err(Errno::EINTR) => return Ok(Stir::Input),
        Err(errno) => return Err(Error::world(format!("waiting for a key: {errno}"))),
        Ok(_) => {}
    }
    let [keys, shutdown] = both.map(|one| one.revents().unwrap_or(PollFlags::empty()));
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    if keys.intersects(gone) || shutdown.contains(PollFlags::POLLIN) {
        Ok(Stir::Over)
    } else if keys.contains(PollFlags::POLLIN) {
        Ok(Stir::Input)
    } else {
        Ok(Stir::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn keys_signals_and_the_end_of_the_line_each_end_the_wait() {
        let (keys, mut typist) = UnixStream::pair().unwrap();
        let (signals, mut sender) = UnixStream::pair().unwrap();
        let wait =
            |limit, listening| stirred(keys.as_fd(), signals.as_fd(), limit, listening).unwrap();
        assert_eq!(wait(SOON, true), Stir::Nothing);
        typist.write_all(b"q").unwrap();
        assert_eq!(wait(LONG, true), Stir::Input);
        assert_eq!(wait(SOON, false), Stir::Nothing);
        drop(typist);
        assert_eq!(wait(LONG, true), Stir::Over);
        assert_eq!(wait(LONG, false), Stir::Over);
        let (keys, _typist) = UnixStream::pair().unwrap();
        sender.write_all(b"!").unwrap();
        let over = stirred(keys.as_fd(), signals.as_fd(), LONG, true).unwrap();
        assert_eq!(over, Stir::Over);
    }
}
