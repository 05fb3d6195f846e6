//! What people see: tables, and one line per decision.

mod answers;
mod decision;
mod doctor;
mod event;
mod graph;
mod json;
mod log;
mod policy;
mod print;
mod settings;
mod shield;
mod table;
mod verdict;

pub use answers::{
    Answer, HeldCount, HeldLine, Note, Policy, RevisionLine, Status as IqStatus, Threshold, Why,
    status_lines, why_lines,
};
pub use decision::{decision_line, whole_seconds};
pub use doctor::{Finding, Level, doctor_json, doctor_text};
pub use event::log_decision;
pub use graph::{
    EdgeView, GraphView, drift_text, edge_lines, graph_tree, readiness_lines, violation_lines,
};
pub use log::log_as;
pub use policy::{action_text, entries_json, entry_line, entry_table, owner_text};
pub use print::print;
pub use settings::settings_yaml;
pub use shield::{Status, attached_line, stats_json, stats_table, top_json, top_table};
pub use table::Table;
pub use verdict::{GraphVerdict, VerdictReport};
