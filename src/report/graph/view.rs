use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::graph::{Direction, Edge, Mode, Peer, Readiness, Record};
use crate::model::{Wall, format_duration};
use crate::report::document;
use crate::store::Violation;

/// `kernloom graph show --json` and `graph export --format json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphView {
    pub node: String,
    pub mode: String,
    /// Left of a lease that is not confirmed.
    pub lease: Option<String>,
    pub made: String,
    pub readiness: ReadinessView,
    pub edges: Vec<EdgeView>,
    pub violations: Vec<ViolationView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadinessView {
    pub risk: f64,
    pub ready: bool,
    pub days: u64,
    pub hours_of_week: u32,
    pub accepted: usize,
    pub candidates: usize,
    pub singletons: usize,
    /// 0 where an older IQ answers.
    #[serde(default)]
    pub scanners: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeView {
    pub direction: String,
    pub peer: String,
    /// Whether the peer is a group.
    pub group: bool,
    pub service: String,
    pub state: String,
    pub first_seen: String,
    pub last_seen: String,
    pub days: u64,
    pub windows: u64,
    pub connections: u64,
    pub handshakes: u64,
    pub packets: u64,
    pub bytes: u64,
    pub mean_pps: f64,
    pub peak_pps: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViolationView {
    pub direction: String,
    pub peer: String,
    pub service: String,
    pub packets: u64,
    pub first_seen: String,
    pub last_seen: String,
}

impl GraphView {
    pub fn of(
        node: &str,
        mode: Mode,
        lease: Option<Duration>,
        made: Wall,
        readiness: &Readiness,
        records: &BTreeMap<Edge, Record>,
        violations: &BTreeMap<Edge, Violation>,
    ) -> Self {
        Self {
            node: node.to_owned(),
            mode: mode.to_string(),
            lease: lease.map(|left| format_duration(Duration::from_secs(left.as_secs()))),
            made: made.to_string(),
            readiness: ReadinessView::of(readiness),
            edges: records
                .iter()
                .map(|(edge, record)| EdgeView::of(edge, record))
                .collect(),
            violations: violation_views(violations),
        }
    }

    pub fn to_json(&self) -> String {
        document("graph", self)
    }

    /// For graphviz: `dot -Tsvg`.
    pub fn to_dot(&self) -> String {
        let mut text = String::from(
            "digraph kernloom {\n  rankdir=LR;\n  host [shape=box, label=\"this host\"];\n",
        );
        for edge in &self.edges {
            let peer = format!("\"{}\"", edge.peer);
            let style = match edge.state.as_str() {
                "denied" => ", color=red",
                _ if edge.is_accepted() => "",
                _ => ", style=dashed",
            };
            let label = format!(
                "[label=\"{}\", class=\"{}\"{style}]",
                edge.service, edge.state
            );
            let (from, to) = edge.ends(&peer, "host");
            text.push_str(&format!("  {from} -> {to} {label};\n"));
        }
        text.push_str("}\n");
        text
    }

    /// For Markdown: a mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        let peers: BTreeSet<&str> = self.edges.iter().map(|edge| edge.peer.as_str()).collect();
        let peers: BTreeMap<&str, usize> = peers.into_iter().zip(0..).collect();
        let number = |peer: &str| peers.get(peer).copied().unwrap_or_default();
        let mut text = String::from("flowchart LR\n  host[this host]\n");
        for (peer, number) in &peers {
            text.push_str(&format!("  p{number}[\"{peer}\"]\n"));
        }
        for edge in &self.edges {
            let peer = format!("p{}", number(&edge.peer));
            let (from, to) = edge.ends(&peer, "host");
            let line = match edge.state.as_str() {
                "denied" => "--x",
                _ if edge.is_accepted() => "-->",
                _ => "-.->",
            };
            text.push_str(&format!("  {from} {line}|{}| {to}\n", edge.service));
        }
        text
    }
}

/// `kernloom graph readiness --json`
pub fn readiness_json(readiness: &Readiness) -> String {
    document("graph-readiness", &ReadinessView::of(readiness))
}

/// `kernloom graph violations --json`
pub fn violations_json(violations: &BTreeMap<Edge, Violation>) -> String {
    #[derive(Serialize)]
    struct Violations {
        violations: Vec<ViolationView>,
    }
    let violations = violation_views(violations);
    document("graph-violations", &Violations { violations })
}

fn violation_views(violations: &BTreeMap<Edge, Violation>) -> Vec<ViolationView> {
    let view = |(edge, violation): (&Edge, &Violation)| ViolationView {
        direction: edge.direction.to_string(),
        peer: edge.peer.to_string(),
        service: edge.service.to_string(),
        packets: violation.packets,
        first_seen: violation.first_seen.to_string(),
        last_seen: violation.last_seen.to_string(),
    };
    violations.iter().map(view).collect()
}

impl ReadinessView {
    fn of(readiness: &Readiness) -> Self {
        Self {
            risk: readiness.risk,
            ready: readiness.is_ready(),
            days: readiness.days,
            hours_of_week: readiness.hours_of_week,
            accepted: readiness.accepted,
            candidates: readiness.candidates,
            singletons: readiness.singletons.len(),
            scanners: readiness.scanners,
        }
    }
}

impl EdgeView {
    fn of(edge: &Edge, record: &Record) -> Self {
        Self {
            direction: edge.direction.to_string(),
            peer: edge.peer.to_string(),
            group: matches!(edge.peer, Peer::Group(_)),
            service: edge.service.to_string(),
            state: record.state.to_string(),
            first_seen: record.first_seen.to_string(),
            last_seen: record.last_seen.to_string(),
            days: record.days,
            windows: record.windows,
            connections: record.seen.connections,
            handshakes: record.seen.handshakes,
            packets: record.seen.packets,
            bytes: record.seen.bytes,
            mean_pps: record.rate.mean_pps,
            peak_pps: record.rate.peak_pps,
        }
    }

    fn is_accepted(&self) -> bool {
        matches!(self.state.as_str(), "learned" | "approved" | "frozen")
    }

    fn ends<'a>(&self, peer: &'a str, host: &'a str) -> (&'a str, &'a str) {
        if self.direction == Direction::Out.name() {
            (host, peer)
        } else {
            (peer, host)
        }
    }
}
