//! What people see: tables, and one line per decision.

mod answers;
mod decision;
mod decisions;
mod doctor;
mod event;
mod events;
mod graph;
mod json;
mod log;
mod policy;
mod print;
mod progress;
mod settings;
mod shield;
mod table;
mod verdict;

pub use answers::{
    Answer, HeldCount, HeldLine, LiveVerdict, Note, Policy, RevisionLine, Status as IqStatus,
    Threshold, Why, status_lines, why_lines,
};
pub use decision::{decision_line, whole_seconds};
pub use decisions::{decisions_json, decisions_table};
pub use doctor::{Finding, Level, doctor_json, doctor_text};
pub use event::log_decision;
pub use events::{EventLine, event_headings, event_json_lines, event_lines, events_json};
pub use graph::{
    EdgeView, GraphView, ReadinessView, ViolationView, drift_text, edge_lines, graph_does,
    graph_tree, readiness_json, readiness_lines, violation_lines, violations_json,
};
pub use json::document;
pub use log::log_as;
pub use policy::{action_text, entries_json, entry_line, entry_table, owner_text};
pub use print::{print, write_out};
pub use progress::{progress, spinner};
pub use settings::settings_yaml;
pub use shield::{MERGED, Status, attached_in, attached_line, stats_json, stats_table};
pub use table::Table;
pub use verdict::{GraphVerdict, VerdictReport};
