use serde::Serialize;

use super::decision::whole_seconds;
use super::json::document;
use super::table::Table;
use crate::dataplane::{Action, Entry, Notes, Owner, Rule};
use crate::model::Ktime;

/// `allow`, `deny` or `limit-SCOPE:RATE/BURST`
pub fn action_text(action: &Action) -> String {
    match action {
        Action::Allow => "allow".to_owned(),
        Action::Deny => "deny".to_owned(),
        Action::Limit { limit, scope } => format!("limit-{scope}:{limit}"),
        Action::LimitBytes { limit, scope } => format!("limit-{scope}:{limit}"),
    }
}

fn ends(entry: &Entry, now: Ktime) -> String {
    match entry.rule.expires {
        None => "never".to_owned(),
        Some(end) if end <= now => "ended".to_owned(),
        Some(end) => format!("in {}", whole_seconds(end.since(now))),
    }
}

/// Who made an entry; what IQ allows comes from its lists.
pub fn owner_text(rule: &Rule) -> String {
    match (rule.owner, &rule.action) {
        (Owner::Iq, Action::Allow) => "iq/whitelist".to_owned(),
        (owner, _) => owner.to_string(),
    }
}

/// `192.0.2.7 deny, by operator, ends never, because scanner`
pub fn entry_line(entry: &Entry, why: &str, now: Ktime) -> String {
    let Entry { source, rule, .. } = entry;
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(", because {why}")
    };
    format!(
        "{source} {}, by {}, ends {}{why}",
        action_text(&rule.action),
        owner_text(rule),
        ends(entry, now)
    )
}

pub fn entry_table(entries: &[Entry], notes: &Notes, now: Ktime) -> String {
    let mut table = Table::new(["SOURCE", "ACTION", "OWNER", "ENDS", "REASON"]);
    for entry in entries {
        let Entry { source, rule, note } = entry;
        table.row([
            source.to_string(),
            action_text(&rule.action),
            owner_text(rule),
            ends(entry, now),
            notes.text(*note).to_owned(),
        ]);
    }
    table.render()
}

#[derive(Serialize)]
pub(super) struct LimitJson {
    /// What is limited: `all` or `new`.
    scope: String,
    /// What is counted: `packets` or `bytes`.
    unit: &'static str,
    /// Per second.
    rate: u32,
    burst: u32,
}

pub(super) fn limit_json(action: &Action) -> Option<LimitJson> {
    match action {
        Action::Allow | Action::Deny => None,
        Action::Limit { limit, scope } => Some(LimitJson {
            scope: scope.to_string(),
            unit: "packets",
            rate: limit.pps.get(),
            burst: limit.burst.get(),
        }),
        Action::LimitBytes { limit, scope } => Some(LimitJson {
            scope: scope.to_string(),
            unit: "bytes",
            rate: limit.bytes.get(),
            burst: limit.burst.get(),
        }),
    }
}

/// One entry of policy, as every command prints it.
#[derive(Serialize)]
pub(super) struct EntryJson {
    /// Address or prefix.
    source: String,
    /// `allow`, `deny` or `limit`.
    action: &'static str,
    /// Null but for a limit.
    limit: Option<LimitJson>,
    /// `operator`, `iq`, `feed`, `ceiling` or `management`.
    owner: String,
    /// Null: never; 0: it has ended.
    ends_in_seconds: Option<u64>,
    /// Empty where none was given.
    reason: String,
}

pub(super) fn entry_json(entry: &Entry, notes: &Notes, now: Ktime) -> EntryJson {
    let Entry { source, rule, note } = entry;
    let left = |end: Ktime| end.since(now).as_millis().div_ceil(1_000);
    EntryJson {
        source: source.to_string(),
        action: match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Limit { .. } | Action::LimitBytes { .. } => "limit",
        },
        limit: limit_json(&rule.action),
        owner: rule.owner.to_string(),
        ends_in_seconds: rule
            .expires
            .map(|end| u64::try_from(left(end)).unwrap_or(u64::MAX)),
        reason: notes.text(*note).to_owned(),
    }
}

/// In order of source.
pub fn entries_json(entries: &[Entry], notes: &Notes, now: Ktime) -> String {
    #[derive(Serialize)]
    struct Entries {
        entries: Vec<EntryJson>,
    }
    document(
        "entries",
        &Entries {
            entries: entries
                .iter()
                .map(|entry| entry_json(entry, notes, now))
                .collect(),
        },
    )
}
