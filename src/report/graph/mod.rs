//! The graph for people: lines, trees and pictures.

mod html;
mod text;
mod view;

pub use text::{drift_text, edge_lines, graph_does, graph_tree, readiness_lines, violation_lines};
pub use view::{
    EdgeView, GraphView, ReadinessView, ViolationView, readiness_json, violations_json,
};
