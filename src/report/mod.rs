//! What people see: tables, and one line per decision.

mod decision;
mod policy;
mod print;
mod shield;
mod table;

pub use decision::decision_line;
pub use policy::{entry_line, entry_table};
pub use print::print;
pub use shield::{attached_line, stats_table, status_text};
pub use table::Table;
