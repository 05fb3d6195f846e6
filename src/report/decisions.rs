//! The journal's decisions as `iq decisions` shows them.

use serde::Serialize;

use super::json::document;
use super::table::Table;
use crate::state::Record;

pub fn decisions_table(records: &[Record]) -> String {
    let mut table = Table::new([
        "TIME", "SOURCE", "FROM", "TO", "SIGNAL", "RATE", "TRIGGER", "STRIKES", "HOLD",
    ]);
    for record in records {
        let dry_run = if record.dry_run { " (dry run)" } else { "" };
        table.row([
            record.time.clone(),
            record.source.clone(),
            record.from.clone(),
            record.to.clone(),
            record.signal.clone(),
            format!("{:.1}", record.rate),
            format!("{:.1}", record.trigger),
            record.strikes.to_string(),
            format!("{}{dry_run}", record.hold),
        ]);
    }
    table.render()
}

pub fn decisions_json(records: &[Record]) -> String {
    #[derive(Serialize)]
    struct Decisions<'a> {
        decisions: &'a [Record],
    }
    document("decisions", &Decisions { decisions: records })
}
