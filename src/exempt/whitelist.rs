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
    pub error: ParseSourceError,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.error)
    }
}

impl Whitelist {
    pub fn parse(text: &str) -> Self {
        let mut whitelist = Self::default();
        for (number, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            match content.parse() {
                Ok(source) => whitelist.sources.push(source),
                Err(error) => whitelist.bad.push(BadLine {
                    line: number + 1,
                    error,
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
        let whitelist = Whitelist::parse(text);
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
}
