//! What an operator says about decisions: a JSON array of
//! `{"target": "192.0.2.7", "action": "forgive", "ttl": "24h", "notes": "..."}`.
//!
//! `forgive` lets go of a source once; it may be judged anew. `whitelist` exempts it until `until`
//! (RFC 3339), or for `ttl` from when the entry was first seen: reading the file again, or starting
//! again, does not lengthen it.

use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::model::{Source, Wall, parse_duration};

/// How long a whitelisting lasts that says neither `ttl` nor `until`.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    #[serde(alias = "")]
    Forgive,
    Whitelist,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    #[serde(deserialize_with = "source")]
    pub target: Source,
    #[serde(default)]
    pub action: Action,
    #[serde(default, deserialize_with = "span")]
    ttl: Option<Duration>,
    #[serde(default, deserialize_with = "instant")]
    until: Option<Wall>,
    #[serde(default)]
    pub notes: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Feedback {
    pub entries: Vec<Entry>,
}

impl Feedback {
    /// All of the file or none of it.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_str(text) {
            Ok(entries) => Ok(Self { entries }),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let text = error.to_string().replace('`', "'");
                let place = format!(" at line {line} column {column}");
                let what = text.strip_suffix(&place).unwrap_or(&text);
                Err(format!("{line}:{column}: {what}"))
            }
        }
    }
}

impl Entry {
    /// What tells this entry from another, across restarts: what it says, notes included.
    pub fn key(&self) -> String {
        let Self {
            target,
            action,
            ttl,
            until,
            notes,
        } = self;
        let ttl = ttl.map_or(0, |ttl| ttl.as_secs());
        let until = until.map_or(0, Wall::as_secs);
        format!("{target} {action:?} {ttl} {until} {notes}")
    }

    /// When it ends, if it was first seen at `first`.
    pub fn ends(&self, first: Wall) -> Wall {
        self.until
            .unwrap_or_else(|| first + self.ttl.unwrap_or(DEFAULT_TTL))
    }
}

fn source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => parse_duration(text).map(Some).map_err(D::Error::custom),
    }
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Wall>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(D::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Entry {
        let mut entries = Feedback::parse(text).unwrap().entries;
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    #[test]
    fn what_operators_wrote_before_is_read() {
        let entry = only(
            r#"[{"target": "192.0.2.0/24", "action": "whitelist", "ttl": "2h", "until": "",
                 "notes": "backup window"}]"#,
        );
        assert_eq!(entry.target.to_string(), "192.0.2.0/24");
        assert_eq!(entry.action, Action::Whitelist);
        assert_eq!(
            only(r#"[{"target": "192.0.2.7", "action": ""}]"#).action,
            Action::Forgive
        );
        assert_eq!(Feedback::parse("[]\n").unwrap(), Feedback::default());
    }

    #[test]
    fn w49_a_ttl_counts_from_when_the_entry_was_first_seen_and_until_goes_before_it() {
        let first = Wall::from_secs(1_000);
        let relative = only(r#"[{"target": "192.0.2.7", "action": "whitelist", "ttl": "10m"}]"#);
        assert_eq!(relative.ends(first), Wall::from_secs(1_600));
        let both =
            only(r#"[{"target": "192.0.2.7", "ttl": "10m", "until": "1970-01-01T02:00:00Z"}]"#);
        assert_eq!(both.ends(first), Wall::from_secs(7_200));
        let neither = only(r#"[{"target": "192.0.2.7"}]"#);
        assert_eq!(neither.ends(first), Wall::from_secs(87_400));
    }

    #[test]
    fn w49_what_cannot_be_read_is_refused_whole_and_shown_where_it_stands() {
        for (text, expected) in [
            (
                "[{\"target\": \"192.0.2.7\"},\n {\"target\": \"nobody\"}]",
                "2:21: 'nobody' is not an address or prefix; write it like 192.0.2.7, \
                 192.0.2.0/24 or 2001:db8::/48",
            ),
            (
                r#"[{"target": "192.0.2.7", "action": "pardon"}]"#,
                "1:43: unknown variant 'pardon', expected one of '', 'forgive', 'whitelist'",
            ),
            (
                r#"[{"target": "192.0.2.7", "tll": "1h"}]"#,
                "1:30: unknown field 'tll', expected one of 'target', 'action', 'ttl', 'until', \
                 'notes'",
            ),
            ("[{", "1:2: EOF while parsing an object"),
        ] {
            assert_eq!(Feedback::parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
