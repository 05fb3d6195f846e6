//! The event loop's eye: descriptors in, tokens out.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::error::{Doing, Result};

/// Why the loop woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    Shutdown,
    Events,
    Tick,
    /// A file the operator writes may have changed.
    Files,
    /// Someone connects to the control socket.
    Control,
    /// The service manager waits for a sign of life.
    Watchdog,
    /// A connection of the control socket, by its number, is ready.
    Client(u32),
    /// A client asks for metrics.
    Metrics,
}

/// Tokens below are the plain reasons, from here on the clients.
const CLIENTS: u64 = 1 << 32;

impl Wake {
    const PLAIN: [Self; 7] = [
        Self::Shutdown,
        Self::Events,
        Self::Tick,
        Self::Files,
        Self::Control,
        Self::Watchdog,
        Self::Metrics,
    ];

    fn token(self) -> u64 {
        match self {
            Self::Shutdown => 0,
            Self::Events => 1,
            Self::Tick => 2,
            Self::Files => 3,
            Self::Control => 4,
            Self::Watchdog => 5,
            Self::Metrics => 6,
            Self::Client(number) => CLIENTS + u64::from(number),
        }
    }

    fn of(token: u64) -> Option<Self> {
        match token.checked_sub(CLIENTS) {
            Some(number) => u32::try_from(number).ok().map(Self::Client),
            None => Self::PLAIN.into_iter().find(|wake| wake.token() == token),
        }
    }
}

/// What a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    /// Nothing for now; it stays known.
    Nothing,
}

pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    pub fn new() -> Result<Self> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(|| "creating the event loop")?;
        Ok(Self { epoll })
    }

    /// Closing the descriptor ends the watch.
    pub fn watch(&self, what: impl AsFd, wake: Wake) -> Result<()> {
        self.watch_for(what, wake, Interest::Read)
    }

    pub fn watch_for(&self, what: impl AsFd, wake: Wake, interest: Interest) -> Result<()> {
        let event = EpollEvent::new(flags(interest), wake.token());
        self.epoll
            .add(what, event)
            .doing(|| "watching a descriptor")
    }

    pub fn change(&self, what: impl AsFd, wake: Wake, interest: Interest) -> Result<()> {
        let mut event = EpollEvent::new(flags(interest), wake.token());
        self.epoll
            .modify(what, &mut event)
            .doing(|| "watching a descriptor")
    }

    /// Blocks until something is ready; what is most urgent comes first. A signal without a
    /// handler of ours is no reason to wake.
    pub fn wait(&self) -> Result<Vec<Wake>> {
        let mut ready = [EpollEvent::empty(); 32];
        loop {
            match self.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).doing(|| "waiting for events"),
                Ok(count) => {
                    let woken = ready.iter().take(count);
                    let mut woken: Vec<Wake> =
                        woken.filter_map(|event| Wake::of(event.data())).collect();
                    woken.sort_unstable();
                    return Ok(woken);
                }
            }
        }
    }
}

fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::Write => EpollFlags::EPOLLOUT,
        Interest::Nothing => EpollFlags::empty(),
    }
}

/// Fires once per interval; late wake-ups are not made up for.
pub struct Ticker {
    timer: TimerFd,
}

impl Ticker {
    pub fn every(interval: Duration) -> Result<Self> {
        let doing = || "setting the tick timer";
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).doing(doing)?;
        timer
            .set(
                Expiration::Interval(interval.into()),
                TimerSetTimeFlags::empty(),
            )
            .doing(doing)?;
        Ok(Self { timer })
    }

    pub fn acknowledge(&self) -> Result<()> {
        self.timer.wait().doing(|| "acknowledging the tick")
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Becomes readable on SIGINT, SIGTERM or SIGHUP. No thread: it would keep its capabilities.
pub fn shutdown_on_signal() -> Result<SignalFd> {
    let doing = || "preparing for signals";
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().doing(doing)?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).doing(doing)
}

/// Takes the signals that came; whether one of them is to end a service. Nothing is to be read anew
/// on SIGHUP, which a terminal sends when it goes: files are, when they change.
pub fn told_to_stop(signals: &SignalFd) -> Result<bool> {
    let mut stop = false;
    while let Some(signal) = signals.read_signal().doing(|| "reading a signal")? {
        stop |= i32::try_from(signal.ssi_signo) != Ok(Signal::SIGHUP as i32);
    }
    Ok(stop)
}
