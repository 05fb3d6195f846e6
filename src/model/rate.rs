use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which packets of a source a limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitScope {
    /// Packets that open something: TCP SYN, and every UDP and ICMP packet.
    New,
    /// Every packet.
    All,
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::All => "all",
        })
    }
}

/// A packet limit: sustained rate in packets per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub pps: NonZeroU32,
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// Rate and burst of one in `parts`, at least 1; 0 counts as one.
    pub fn over(self, parts: u32) -> Self {
        let part = |whole: NonZeroU32| {
            NonZeroU32::new(whole.get() / parts.max(1)).unwrap_or(NonZeroU32::MIN)
        };
        Self {
            pps: part(self.pps),
            burst: part(self.burst),
        }
    }

    /// Rate and burst for `factor` senders; 0 counts as one.
    pub fn times(self, factor: u32) -> Self {
        let by = NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN);
        Self {
            pps: self.pps.saturating_mul(by),
            burst: self.burst.saturating_mul(by),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}pps/{}", self.pps, self.burst)
    }
}

/// A limit in bytes: how many a second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteLimit {
    pub bytes: NonZeroU32,
    pub burst: NonZeroU32,
}

impl fmt::Display for ByteLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B/s/{}B", self.bytes, self.burst)
    }
}

/// A rate as operators write it: `5000pps`, `10mbit`, `2MB/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Packets per second.
    Packets(NonZeroU32),
    /// Bytes per second.
    Bytes(NonZeroU32),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRateError {
    #[error("'{0}' is not a rate; write it like 5000pps, 10mbit or 2MB/s")]
    Syntax(String),
    #[error("'{0}' is out of range; a rate is 1pps to 4294967295pps, or 8bit to 34gbit")]
    Range(String),
}

/// What one unit counts: packets, or so many eighths of a byte.
const UNITS: [(&str, Option<u64>); 10] = [
    ("pps", None),
    ("kpps", None),
    ("bit", Some(1)),
    ("kbit", Some(1_000)),
    ("mbit", Some(1_000_000)),
    ("gbit", Some(1_000_000_000)),
    ("b/s", Some(8)),
    ("kb/s", Some(8_000)),
    ("mb/s", Some(8_000_000)),
    ("gb/s", Some(8_000_000_000)),
];

impl FromStr for Rate {
    type Err = ParseRateError;

    /// A whole number and its unit; decimal prefixes, bits as in `tc`, bytes with `B/s`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || ParseRateError::Syntax(text.to_owned());
        let range = || ParseRateError::Range(text.to_owned());
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .filter(|digits| *digits > 0)
            .ok_or_else(syntax)?;
        let (number, unit) = text.split_at(digits);
        let unit = unit.to_ascii_lowercase();
        let (name, bits) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(syntax)?;
        let number: u64 = number.parse().map_err(|_| range())?;
        let count = match bits {
            Some(bits) => number.checked_mul(*bits).map(|bits| bits / 8),
            None => number.checked_mul(if *name == "kpps" { 1_000 } else { 1 }),
        };
        let count = count
            .and_then(|count| u32::try_from(count).ok())
            .and_then(NonZeroU32::new)
            .ok_or_else(range)?;
        Ok(if bits.is_some() {
            Self::Bytes(count)
        } else {
            Self::Packets(count)
        })
    }
}

/// What a stage asks of the data plane for one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    Limit { limit: RateLimit, scope: LimitScope },
    Deny,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { limit, scope } => write!(f, "limit-{scope}:{limit}"),
            Self::Deny => f.write_str("deny"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_packets_bits_and_bytes() {
        let packets = |n| Ok(Rate::Packets(NonZeroU32::new(n).unwrap()));
        let bytes = |n| Ok(Rate::Bytes(NonZeroU32::new(n).unwrap()));
        assert_eq!("5000pps".parse(), packets(5_000));
        assert_eq!("5kpps".parse(), packets(5_000));
        assert_eq!("10mbit".parse(), bytes(1_250_000));
        assert_eq!("10Mbit".parse(), bytes(1_250_000));
        assert_eq!("2MB/s".parse(), bytes(2_000_000));
        assert_eq!("8bit".parse(), bytes(1));
    }

    #[test]
    fn a_rate_that_could_be_misread_is_refused() {
        for text in [
            "", "5000", "pps", "-5pps", "1.5mbit", "5 pps", "10mb", "10mib",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!(error, ParseRateError::Syntax(text.to_owned()));
        }
        for text in [
            "0pps",
            "7bit",
            "4294967296pps",
            "35gbit",
            "99999999999999999999pps",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!(error, ParseRateError::Range(text.to_owned()));
        }
    }
}
