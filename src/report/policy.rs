use super::decision::whole_seconds;
use super::table::Table;
use crate::dataplane::{Action, Entry, Owner, Rule};
use crate::model::Ktime;

/// `allow`, `deny` or `limit-SCOPE:RATE/BURST`
pub fn action_text(action: &Action) -> String {
    match action {
        Action::Allow => "allow".to_owned(),
        Action::Deny => "deny".to_owned(),
        Action::Limit { limit, scope } => format!("limit-{scope}:{limit}"),
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

/// `192.0.2.7 deny, by operator, ends never`
pub fn entry_line(entry: &Entry, now: Ktime) -> String {
    let Entry { source, rule } = entry;
    format!(
        "{source} {}, by {}, ends {}",
        action_text(&rule.action),
        owner_text(rule),
        ends(entry, now)
    )
}

pub fn entry_table(entries: &[Entry], now: Ktime) -> String {
    let mut table = Table::new(["SOURCE", "ACTION", "OWNER", "ENDS"]);
    for entry in entries {
        let Entry { source, rule } = entry;
        table.row([
            source.to_string(),
            action_text(&rule.action),
            owner_text(rule),
            ends(entry, now),
        ]);
    }
    table.render()
}
