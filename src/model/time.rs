use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant on the kernel's monotonic clock, in nanoseconds, as `bpf_ktime_get_ns()` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ktime(u64);

impl Ktime {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Ktime {
    type Output = Self;

    /// Saturates at the end of time, about 584 years after boot.
    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Ktime {
    type Output = Self;

    /// Stops at the start of time.
    fn sub(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// One instant on both clocks. What outlives a boot is kept in the time of day, because the
/// kernel's clock starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub ktime: Ktime,
    /// Since 1970-01-01T00:00:00Z.
    pub unix: Duration,
}

impl Moment {
    /// The time of day at `instant`, in milliseconds since 1970; times before that are 0.
    pub fn unix_ms(self, instant: Ktime) -> u64 {
        let unix =
            (self.unix + instant.since(self.ktime)).saturating_sub(self.ktime.since(instant));
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
    }

    /// The inverse of `unix_ms`; what lies before the boot is the start of time.
    pub fn ktime(self, unix_ms: u64) -> Ktime {
        let then = Duration::from_millis(unix_ms);
        self.ktime + then.saturating_sub(self.unix) - self.unix.saturating_sub(then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_turns_one_clock_into_the_other() {
        let moment = Moment {
            ktime: Ktime::from_secs(100),
            unix: Duration::from_secs(1_700_000_000),
        };
        for secs in [40, 100, 4_000] {
            let instant = Ktime::from_secs(secs);
            assert_eq!(moment.unix_ms(instant), (1_699_999_900 + secs) * 1_000);
            assert_eq!(moment.ktime(moment.unix_ms(instant)), instant);
        }
        assert_eq!(moment.ktime(5), Ktime::default(), "long before the boot");
    }
}
