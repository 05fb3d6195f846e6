//! The graph as a picture: who opens what here on the left, what this host opens on the right.

use std::collections::BTreeMap;

use super::html::escaped;
use crate::model::counted;

/// The graph at the time of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// What it does to packets.
    pub mode: String,
    pub edges: Vec<GraphEdge>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphEdge {
    /// Whether this host opens it.
    pub out: bool,
    pub peer: String,
    pub service: String,
    /// As `graph edges` names it, or `violation`.
    pub state: String,
}

/// What a reader must not miss first.
const STATES: [&str; 8] = [
    "violation",
    "denied",
    "removed",
    "frozen",
    "approved",
    "learned",
    "candidate",
    "expired",
];

/// Peers drawn on each side.
const MOST: usize = 24;

/// Services named of one peer and state.
const SERVICES: usize = 6;

const WIDTH: f64 = 960.0;
const LINE: f64 = 22.0;
const BOX: f64 = 90.0;

fn rank(state: &str) -> usize {
    let known = STATES.iter().position(|one| *one == state);
    known.unwrap_or(STATES.len())
}

impl Graph {
    pub(super) fn draw(&self, text: &mut String) {
        text.push_str(&format!(
            "<h2>Graph</h2>\n<p>{}; {}</p>\n",
            escaped(&self.mode),
            counted(self.edges.len(), "edge", "edges")
        ));
        if self.edges.is_empty() {
            return;
        }
        let (left, right) = (self.side(false), self.side(true));
        let rows = left.len().max(right.len()).clamp(1, MOST);
        let height = LINE * lines(rows) + 30.0;
        text.push_str(&format!(
            "<svg id=\"graph\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-label=\"Who talks to this host\">"
        ));
        half(&left, height, false, text);
        half(&right, height, true, text);
        let (x, y) = (WIDTH / 2.0 - BOX / 2.0, height / 2.0 - 16.0);
        text.push_str(&format!(
            "<rect class=\"host\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{BOX}\" height=\"32\" rx=\"6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">this host</text></svg>\n",
            WIDTH / 2.0,
            height / 2.0 + 4.0
        ));
        let hidden = left.len().saturating_sub(MOST) + right.len().saturating_sub(MOST);
        if hidden > 0 {
            text.push_str(&format!(
                "<p>{} in 'kernloom graph export --format html'</p>\n",
                counted(hidden, "more is", "more are")
            ));
        }
    }

    /// Peers of one side with a state each and its services, most urgent first.
    fn side(&self, out: bool) -> Vec<((usize, &str), Vec<&str>)> {
        let mut peers: BTreeMap<(usize, &str), Vec<&str>> = BTreeMap::new();
        for edge in self.edges.iter().filter(|edge| edge.out == out) {
            let key = (rank(&edge.state), edge.peer.as_str());
            peers.entry(key).or_default().push(&edge.service);
        }
        peers.into_iter().collect()
    }
}

fn lines(rows: usize) -> f64 {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}

fn half(peers: &[((usize, &str), Vec<&str>)], height: f64, out: bool, svg: &mut String) {
    let shown = &peers[..peers.len().min(MOST)];
    let top = (height - LINE * lines(shown.len())) / 2.0 + LINE / 2.0;
    let (edge, anchor, end) = if out {
        (WIDTH / 2.0 + BOX / 2.0, "start", WIDTH * 0.68)
    } else {
        (WIDTH / 2.0 - BOX / 2.0, "end", WIDTH * 0.32)
    };
    for (row, ((state, peer), services)) in shown.iter().enumerate() {
        let y = top + LINE * lines(row);
        let state = STATES.get(*state).copied().unwrap_or("candidate");
        let mut named = services[..services.len().min(SERVICES)].join(" ");
        if services.len() > SERVICES {
            named.push_str(&format!(" +{}", services.len() - SERVICES));
        }
        let away = if out { end - 8.0 } else { end + 8.0 };
        svg.push_str(&format!(
            "<path class=\"edge {state}\" d=\"M{edge:.1},{:.1} C{:.1},{:.1} {:.1},{y:.1} {away:.1},{y:.1}\">\
             <title>{state}</title></path>\
             <text x=\"{end:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{} {}</text>",
            height / 2.0,
            (edge + away) / 2.0,
            height / 2.0,
            (edge + away) / 2.0,
            y + 4.0,
            escaped(peer),
            escaped(&named)
        ));
    }
}
