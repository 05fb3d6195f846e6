use std::time::{Duration, SystemTime};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

use crate::error::{Doing, Error, Result};
use crate::model::Ktime;

/// CLOCK_MONOTONIC, which `bpf_ktime_get_ns()` also counts.
pub fn now() -> Result<Ktime> {
    let time = clock_gettime(Clock::CLOCK_MONOTONIC).doing(|| "reading the monotonic clock")?;
    let odd = |_| Error::world("reading the monotonic clock: it is negative");
    let secs = u64::try_from(time.tv_sec()).map_err(odd)?;
    let nanos = u64::try_from(time.tv_nsec()).map_err(odd)?;
    Ok(Ktime::from_nanos(secs * 1_000_000_000 + nanos))
}

/// Time since 1970-01-01T00:00:00Z; zero on a host whose clock is older.
pub fn since_1970() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// Blocks for the length of one measuring window.
pub fn wait(span: Duration) -> Result<()> {
    let doing = || "waiting for the measuring window";
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).doing(doing)?;
    timer
        .set(Expiration::OneShot(span.into()), TimerSetTimeFlags::empty())
        .doing(doing)?;
    timer.wait().doing(doing)
}
