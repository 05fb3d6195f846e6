//! What people see: tables, and one line per decision.

mod answers;
mod decision;
mod graph;
mod log;
mod policy;
mod print;
mod settings;
mod shield;
mod table;

pub use answers::{
    Answer, HeldCount, Note, Policy, RevisionLine, Status, Threshold, Why, status_lines, why_lines,
};
pub use decision::{decision_line, whole_seconds};
pub use graph::{
    EdgeView, GraphView, drift_text, edge_lines, graph_tree, readiness_lines, violation_lines,
};
pub use log::log_as;
pub use policy::{action_text, entry_line, entry_table, owner_text};
pub use print::print;
pub use settings::settings_yaml;
pub use shield::{attached_line, stats_table, status_text};
pub use table::Table;
