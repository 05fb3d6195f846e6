use super::table::Table;
use crate::dataplane::{Action, Entry};
use crate::model::{Ktime, format_duration};

fn action(action: &Action) -> String {
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
        Some(end) => {
            // Whole seconds, rounded up: "0s" would read as ended.
            let left = end.since(now).as_secs_f64().ceil();
            format!(
                "in {}",
                format_duration(std::time::Duration::from_secs_f64(left))
            )
        }
    }
}

/// `192.0.2.7 deny, by operator, ends never`
pub fn entry_line(entry: &Entry, now: Ktime) -> String {
    let Entry { source, rule } = entry;
    format!(
        "{source} {}, by {}, ends {}",
        action(&rule.action),
        rule.owner,
        ends(entry, now)
    )
}

pub fn entry_table(entries: &[Entry], now: Ktime) -> String {
    let mut table = Table::new(["SOURCE", "ACTION", "OWNER", "ENDS"]);
    for entry in entries {
        let Entry { source, rule } = entry;
        table.row([
            source.to_string(),
            action(&rule.action),
            rule.owner.to_string(),
            ends(entry, now),
        ]);
    }
    table.render()
}
