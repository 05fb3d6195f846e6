//! What people see: tables, and one line per decision.

mod decision;
mod log;
mod policy;
mod print;
mod settings;
mod shield;
mod table;

pub use decision::decision_line;
pub use log::log_as;
pub use policy::{entry_line, entry_table};
pub use print::print;
pub use settings::settings_yaml;
pub use shield::{attached_line, stats_table, status_text};
pub use table::Table;
