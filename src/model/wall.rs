use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// An instant of civil time: seconds since 1970-01-01T00:00:00Z. For what must survive a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(u64);

const DAY: u64 = 86_400;

impl Wall {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// Days since the epoch, UTC.
    pub const fn day(self) -> u64 {
        self.0 / DAY
    }

    /// Hour of the week, 0..168, from Monday 00:00 UTC.
    pub const fn hour_of_week(self) -> u8 {
        // 1970-01-01 was a Thursday.
        let hour = (self.0 / 3_600 + 3 * 24) % 168;
        #[expect(clippy::cast_possible_truncation, reason = "below 168")]
        let hour = hour as u8;
        hour
    }
}

impl Add<Duration> for Wall {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }
}

/// RFC 3339 in UTC, e.g. `2026-11-23T12:25:57Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.day());
        let second = self.0 % DAY;
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        f.pad(&format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
            second % 60
        ))
    }
}

/// Year, month and day of a day since the epoch, proleptic Gregorian (H. Hinnant,
/// "chrono-compatible low-level date algorithms", civil_from_days).
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_print_as_rfc_3339() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_436_757, "2026-11-23T12:25:57Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(Wall::from_secs(secs).to_string(), text);
        }
    }

    #[test]
    fn the_week_begins_on_monday() {
        assert_eq!(Wall::from_secs(0).hour_of_week(), 72);
        // 1970-01-05 was the first Monday.
        assert_eq!(Wall::from_secs(4 * DAY).hour_of_week(), 0);
        assert_eq!(Wall::from_secs(4 * DAY - 1).hour_of_week(), 167);
    }
}
