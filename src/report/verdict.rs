use std::net::IpAddr;

use serde::Serialize;

use super::json::document;
use super::policy::{EntryJson, action_text, entry_json, entry_line};
use crate::dataplane::{Action, Entry, Notes, Reason};
use crate::model::Ktime;

/// What the running program would do with a packet, and because of which entry.
pub struct VerdictReport {
    pub source: IpAddr,
    pub dropped: bool,
    pub reason: Reason,
    pub entry: Option<Entry>,
    pub ceiling: Option<Action>,
}

impl VerdictReport {
    const fn verdict(&self) -> &'static str {
        if self.dropped { "drop" } else { "pass" }
    }

    /// `192.0.2.7: drop (deny)` and the entry that decided.
    pub fn text(&self, notes: &Notes, now: Ktime) -> String {
        let why = match (&self.entry, &self.ceiling) {
            (Some(entry), _) => {
                format!(
                    "decided by: {}",
                    entry_line(entry, notes.text(entry.note), now)
                )
            }
            (None, Some(ceiling)) if self.reason == Reason::Pass => {
                format!("no entry; the default limit: {}", action_text(ceiling))
            }
            (None, _) => "no entry decided".to_owned(),
        };
        format!(
            "{}: {} ({})\n{why}\n",
            self.source,
            self.verdict(),
            self.reason
        )
    }

    pub fn json(&self, notes: &Notes, now: Ktime) -> String {
        #[derive(Serialize)]
        struct Verdict {
            source: String,
            /// `pass` or `drop`.
            verdict: &'static str,
            /// A name `stats` shows too.
            reason: String,
            /// The entry that decided, or null.
            entry: Option<EntryJson>,
        }
        document(
            "verdict",
            &Verdict {
                source: self.source.to_string(),
                verdict: self.verdict(),
                reason: self.reason.to_string(),
                entry: self
                    .entry
                    .as_ref()
                    .map(|entry| entry_json(entry, notes, now)),
            },
        )
    }
}
