use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

use crate::error::{Doing, Error, Result};
use crate::model::{Ktime, Moment, format_duration};

/// CLOCK_MONOTONIC, which `bpf_ktime_get_ns()` also counts.
pub fn now() -> Result<Ktime> {
    let time = clock_gettime(Clock::CLOCK_MONOTONIC).doing(|| "reading the monotonic clock")?;
    let odd = |_| Error::world("reading the monotonic clock: it is negative");
    let secs = u64::try_from(time.tv_sec()).map_err(odd)?;
    let nanos = u64::try_from(time.tv_nsec()).map_err(odd)?;
    Ok(Ktime::from_nanos(secs * 1_000_000_000 + nanos))
}

/// Both clocks at one instant.
pub fn moment() -> Result<Moment> {
    let time = clock_gettime(Clock::CLOCK_REALTIME).doing(|| "reading the time of day")?;
    let secs = u64::try_from(time.tv_sec())
        .map_err(|_| Error::world("reading the time of day: it is before 1970"))?;
    let nanos = u32::try_from(time.tv_nsec()).unwrap_or(0);
    Ok(Moment {
        ktime: now()?,
        unix: Duration::new(secs, nanos),
    })
}

/// Tells one boot from another.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

/// Tries until it succeeds or `patience` is over.
///
/// # Errors
/// The last one, as the world's: what is not there in time is nobody's mistake.
pub fn patiently<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(200);
    let end = now()? + patience;
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(error) if now()? >= end => {
                let waited = format_duration(patience);
                return Err(Error::world(format!("{error} (waited {waited})")));
            }
            Err(_) => wait(PAUSE)?,
        }
    }
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
