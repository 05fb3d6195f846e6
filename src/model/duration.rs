use std::time::Duration;

use super::shown;

/// Units of a Go duration string (<https://pkg.go.dev/time#ParseDuration>), plus `d` for days.
const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
];

/// The longest duration that is read: beyond it the end of what is held would leave the clock's range.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    #[error("'{0}' is not a duration; write it like 500ms, 30s, 10m, 1h30m or 14d")]
    Syntax(String),
    #[error("'{0}' is too long; give at most {longest}", longest = format_duration(LONGEST))]
    Range(String),
}

/// Reads a duration such as `1h30m`, of at most 36500d; `0` alone needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError::Syntax(shown(text).into_owned());
    let range = || ParseDurationError::Range(shown(text).into_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(error)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let number: f64 = number.parse().map_err(|_| error())?;
        let (_, seconds) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(error)?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| range())?;
        total = total.checked_add(part).ok_or_else(range)?;
        rest = tail;
    }
    if text.is_empty() {
        Err(error())
    } else if total > LONGEST {
        Err(range())
    } else {
        Ok(total)
    }
}

/// The shortest form an operator would write: `1h30m`, `45s`, `1.5s`.
pub fn format_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    if span.subsec_nanos() != 0 && seconds < 60 {
        let millis = span.as_millis();
        return if seconds == 0 {
            format!("{millis}ms")
        } else {
            format!("{:.1}s", span.as_secs_f64())
        };
    }
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3_600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let text: String = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations_and_days() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("1h30m", 5400.0),
            ("1.5s", 1.5),
            ("14d", 1_209_600.0),
            ("0", 0.0),
        ] {
            assert_eq!(
                parse_duration(text).unwrap().as_secs_f64(),
                seconds,
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_could_be_misread() {
        for text in ["", "30", "s", "-5s", "5 s", "5y", "1h30", "1..5s", "1e400s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_beyond_the_bound_is_refused_and_never_cut() {
        assert_eq!(parse_duration("36500d"), Ok(LONGEST));
        for text in ["36500d1ns", "876001h", "99999999d", "999999999999999d"] {
            let told = parse_duration(text).unwrap_err().to_string();
            assert_eq!(told, format!("'{text}' is too long; give at most 36500d"));
        }
    }

    #[test]
    fn prints_what_it_would_read() {
        for text in ["30s", "1h30m", "10m", "14d", "250ms", "1.5s", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }
}
