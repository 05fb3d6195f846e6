use std::fmt;

use crate::model::{ParseSourceError, Source};

/// One address or prefix per line; `#` starts a comment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whitelist {
    pub sources: Vec<Source>,
    /// Lines that are neither; the rest is used.
    pub bad: Vec<BadLine>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    pub why: Spoilt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoilt {
    Source(ParseSourceError),
    NotUtf8,
}

impl fmt::Display for Spoilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::NotUtf8 => f.write_str("not UTF-8; save the file as that"),
        }
    }
}

/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.why)
    }
}

impl Whitelist {
    /// Bytes that are no UTF-8 spoil their line alone.
    pub fn parse(text: &[u8]) -> Self {
        let mut whitelist = Self::default();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let read = match std::str::from_utf8(line) {
                Ok(line) => {
                    let content = line.split('#').next().unwrap_or_default().trim();
                    if content.is_empty() {
                        continue;
                    }
                    content.parse().map_err(Spoilt::Source)
                }
                Err(_) => Err(Spoilt::NotUtf8),
            };
            match read {
                Ok(source) => whitelist.sources.push(source),
                Err(why) => whitelist.bad.push(BadLine {
                    line: number + 1,
                    why,
                }),
            }
        }
        whitelist
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_reported_by_number_and_the_rest_is_used() {
        let text = "# office\n192.0.2.0/24  # and guests\n\n10.0.0.5/8\n2001:db8::/48\r\nhost\n";
        let whitelist = Whitelist::parse(text.as_bytes());
        let read: Vec<String> = whitelist.sources.iter().map(Source::to_string).collect();
        assert_eq!(read, ["192.0.2.0/24", "2001:db8::/48"]);
        let bad: Vec<String> = whitelist.bad.iter().map(BadLine::to_string).collect();
        assert_eq!(
            bad,
            [
                "4: '10.0.0.5/8' has bits set after the prefix; did you mean 10.0.0.0/8?",
                "6: 'host' is not an address or prefix; write it like 192.0.2.7, 192.0.2.0/24 or \
                 2001:db8::/48",
            ]
        );
    }

    #[test]
    fn a_byte_that_is_no_utf8_spoils_its_line_and_a_mark_in_front_none() {
        let text = b"\xef\xbb\xbf192.0.2.7\n# caf\xe9\n10.0.0.5 # b\xfcro\n2001:db8::/48\n";
        let whitelist = Whitelist::parse(text);
        let read: Vec<String> = whitelist.sources.iter().map(Source::to_string).collect();
        assert_eq!(read, ["192.0.2.7", "2001:db8::/48"]);
        let bad: Vec<String> = whitelist.bad.iter().map(BadLine::to_string).collect();
        assert_eq!(
            bad,
            [
                "2: not UTF-8; save the file as that",
                "3: not UTF-8; save the file as that"
            ]
        );
    }
}
