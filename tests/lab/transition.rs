//! The line kernloom writes for each move of a source, read back.
//!
//! ```text
//! [2026-11-23T09:20:01.123Z INFO  iq] source=10.77.3.2 OBSERVE -> RATE_SOFT severity=3.00
//!     signal=syn rate=5012/s trigger=250/s strikes=3 hold=limit-new:400pps/800 until=6s
//! ```

use std::fmt;
use std::time::Instant;

use super::process::Line;

/// A rung of the ladder. The order is the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Observe,
    RateSoft,
    RateHard,
    Block,
}

impl Stage {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "OBSERVE" => Self::Observe,
            "RATE_SOFT" => Self::RateSoft,
            "RATE_HARD" => Self::RateHard,
            "BLOCK" => Self::Block,
            _ => return None,
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observe => "OBSERVE",
            Self::RateSoft => "RATE_SOFT",
            Self::RateHard => "RATE_HARD",
            Self::Block => "BLOCK",
        })
    }
}

/// One move of one source, and when its line arrived.
#[derive(Clone, Debug)]
pub(crate) struct Transition {
    pub(crate) at: Instant,
    /// As kernloom prints it: `10.77.3.2`, or `fd77:3::/64`.
    pub(crate) source: String,
    pub(crate) from: Stage,
    pub(crate) to: Stage,
    /// The rest of the line: `severity=3.00 signal=syn ...`.
    pub(crate) reason: String,
}

impl Transition {
    /// Reads a line; `None` if it is not about a move.
    pub(crate) fn read(line: &Line) -> Option<Self> {
        let (_, rest) = line.text.split_once(" source=").or_else(|| {
            // Without a log prefix, should the format be bare.
            line.text.strip_prefix("source=").map(|rest| ("", rest))
        })?;
        let mut words = rest.splitn(5, ' ');
        let source = words.next()?.to_owned();
        let from = Stage::parse(words.next()?)?;
        let arrow = words.next()?;
        let to = Stage::parse(words.next()?)?;
        let reason = words.next().unwrap_or_default().to_owned();
        (arrow == "->").then_some(Self {
            at: line.at,
            source,
            from,
            to,
            reason,
        })
    }

    /// A field of the reason, e.g. `signal`.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self
            .reason
            .split(' ')
            .filter_map(|word| word.split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether nothing holds the source any more.
    pub(crate) fn releases(&self) -> bool {
        self.field("hold") == Some("none")
    }

    /// Whether it takes the source up the ladder.
    pub(crate) fn tightens(&self) -> bool {
        self.to > self.from
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::Stream;
    use super::super::wait::now;
    use super::*;

    fn read(text: &str) -> Option<Transition> {
        Transition::read(&Line {
            at: now(),
            stream: Stream::Stderr,
            text: text.to_owned(),
        })
    }

    #[test]
    fn a_move_up_names_source_stages_and_reason() {
        let step = read(
            "[2026-11-23T09:20:01.123Z INFO  iq] source=10.77.3.2 OBSERVE -> RATE_SOFT \
             severity=3.00 signal=syn rate=5012/s trigger=250/s strikes=3 \
             hold=limit-new:400pps/800 until=6s",
        )
        .unwrap();
        assert_eq!(step.source, "10.77.3.2");
        assert_eq!((step.from, step.to), (Stage::Observe, Stage::RateSoft));
        assert_eq!(step.field("signal"), Some("syn"));
        assert_eq!(step.field("hold"), Some("limit-new:400pps/800"));
        assert!(step.tightens() && !step.releases());
    }

    #[test]
    fn a_release_of_an_ipv6_source_holds_nothing() {
        let step = read("[t INFO  iq] source=fd77:3::/64 RATE_SOFT -> OBSERVE hold=none").unwrap();
        assert_eq!(step.source, "fd77:3::/64");
        assert!(step.releases() && !step.tightens());
    }

    #[test]
    fn other_lines_are_no_moves() {
        for text in [
            "",
            "attached to eth0",
            "[t INFO  iq] source=10.77.3.2 crossed 40 ports",
            "[t INFO  iq] source=10.77.3.2 OBSERVE -> ELSEWHERE severity=1.00",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
