use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant of civil time: seconds since 1970-01-01T00:00:00Z. For what must survive a reboot.
/// Serialised as the seconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
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
        ((self.0 / 3_600 + 3 * 24) % 168) as u8
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

/// Days since the epoch of a proleptic Gregorian date (Hinnant, days_from_civil); `None` for a date
/// that is in no calendar or before 1970.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let shifted = if month > 2 {
        year
    } else {
        year.checked_sub(1)?
    };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = (era * 146_097 + of_era).checked_sub(719_468)?;
    (civil(days) == (year, month, day)).then_some(days)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an instant; write it like 2026-11-23T12:00:00Z or 2026-11-23T13:00:00+01:00")]
pub struct ParseWallError(String);

impl FromStr for Wall {
    type Err = ParseWallError;

    /// Reads an RFC 3339 instant from 1970 on; fractions of a second are dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseWallError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Wall> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separators = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    let marked = |(at, mark): &(usize, char)| {
        text.get(*at..at + 1)
            .is_some_and(|found| found.eq_ignore_ascii_case(&mark.to_string()))
    };
    if !separators.iter().all(marked) {
        return None;
    }
    let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // 60 is a leap second; it counts as the next second.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit())?;
        zone = fraction.get(end..).filter(|_| end > 0)?;
    }
    let local = day * DAY + hour * 3_600 + minute * 60 + second;
    if zone.eq_ignore_ascii_case("z") {
        return Some(Wall(local));
    }
    let at = text.len() - zone.len();
    let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
    if zone.len() != 6 || !zone[3..].starts_with(':') || hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * 3_600 + minutes * 60;
    match zone.as_bytes().first()? {
        b'+' => local.checked_sub(offset).map(Wall),
        b'-' => Some(Wall(local + offset)),
        _ => None,
    }
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
            assert_eq!(text.parse(), Ok(Wall::from_secs(secs)));
        }
    }

    #[test]
    fn offsets_and_fractions_are_read_and_nonsense_is_not() {
        for text in [
            "2026-11-23T13:25:57+01:00",
            "2026-11-23t07:25:57.125-05:00",
            "2026-11-23T12:25:57.9z",
        ] {
            assert_eq!(text.parse(), Ok(Wall::from_secs(1_795_436_757)), "{text}");
        }
        for text in [
            "",
            "2026-11-23",
            "2026-02-29T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T12:00:00",
            "2026-11-23T12:00:00+1:00",
            "2026-11-23T12:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23T12:00:00+01:00x",
            "2026-11-23T12:00:0\u{e9}",
        ] {
            assert!(text.parse::<Wall>().is_err(), "{text}");
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
