use super::table::Table;
use crate::dataplane::{Attached, Counters, Entry};

/// `eth0: attached in generic mode (driver mode refused: ...)`
pub fn attached_line(attached: &Attached) -> String {
    let mode = attached
        .mode
        .map_or_else(|| "unknown".to_owned(), |mode| mode.to_string());
    let state = if attached.already {
        "already attached"
    } else {
        "attached"
    };
    let why = attached
        .fallback
        .as_deref()
        .map(|why| format!(" ({why})"))
        .unwrap_or_default();
    format!("{}: {state} in {mode} mode{why}", attached.interface)
}

/// One line per interface, then what is enforced and how full the tables are.
pub fn status_text(
    attached: &[Attached],
    entries: &[Entry],
    most: u32,
    counters: &Counters,
    capacity: usize,
) -> String {
    let mut text = String::new();
    for attached in attached {
        let mode = attached
            .mode
            .map_or_else(|| "unknown".to_owned(), |mode| mode.to_string());
        text.push_str(&format!(
            "{}: attached in {mode} mode\n",
            attached.interface
        ));
    }
    if attached.is_empty() {
        text.push_str("attached to no interface; policy and counters are kept\n");
    }
    text.push_str(&format!("policy: {} of {most} entries\n", entries.len()));
    text.push_str(&format!(
        "sources: {} of {capacity} entries, {} replaced\n",
        counters.sources, counters.replaced
    ));
    text.push_str(&format!(
        "packets: {}, dropped {}\n",
        counters.packets(),
        counters.dropped()
    ));
    text
}

pub fn stats_table(counters: &Counters) -> String {
    let mut table = Table::new(["REASON", "VERDICT", "PACKETS", "BYTES"]);
    for count in &counters.reasons {
        let verdict = if count.reason.drops() { "drop" } else { "pass" };
        table.row([
            count.reason.to_string(),
            verdict.to_owned(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]);
    }
    let tail = [
        ("sources", counters.sources),
        ("replaced", counters.replaced),
        ("events-lost", counters.events_lost),
    ];
    let mut text = table.render();
    for (name, value) in tail {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}
