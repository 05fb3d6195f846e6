//! What people see: tables, and one line per decision.

mod decision;
mod doctor;
mod json;
mod policy;
mod print;
mod shield;
mod table;
mod verdict;

pub use decision::decision_line;
pub use doctor::{Finding, Level, doctor_json, doctor_text};
pub use policy::{action_text, entries_json, entry_line, entry_table};
pub use print::print;
pub use shield::{Status, attached_line, stats_json, stats_table, top_json, top_table};
pub use table::Table;
pub use verdict::VerdictReport;
