use std::net::IpAddr;

use serde::Serialize;

use super::json::document;
use super::policy::{EntryJson, action_text, entry_json, entry_line};
use crate::dataplane::{Action, Entry, Notes, Reason};
use crate::graph::{Edge, Mode, Service};
use crate::model::Ktime;

/// What the running program would do with a packet, and because of which entry.
pub struct VerdictReport {
    pub source: IpAddr,
    pub reason: Reason,
    pub entry: Option<Entry>,
    pub ceiling: Option<Action>,
    /// `None` without an edge stage.
    pub graph: Option<GraphVerdict>,
}

/// What the graph says of a packet that would open something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphVerdict {
    /// The packet is dropped before.
    NotAsked(Mode),
    /// The graph lacks this edge.
    Unknown(Mode, Edge),
    /// The graph lacks this edge, and the source is exempt.
    Exempt(Mode, Edge),
    /// The graph does not speak about this service.
    OutOfScope(Mode, Service),
    Decided {
        mode: Mode,
        denied: bool,
        /// `None`: one of a group that only the running IQ knows by name.
        edge: Option<Edge>,
    },
}

impl GraphVerdict {
    const fn mode(&self) -> Mode {
        match self {
            Self::NotAsked(mode)
            | Self::Unknown(mode, _)
            | Self::Exempt(mode, _)
            | Self::OutOfScope(mode, _)
            | Self::Decided { mode, .. } => *mode,
        }
    }

    const fn answer(&self) -> &'static str {
        match self {
            Self::NotAsked(_) => "not-asked",
            Self::Unknown(..) => "unknown",
            Self::Exempt(..) => "exempt",
            Self::OutOfScope(..) => "out-of-scope",
            Self::Decided { denied: true, .. } => "denied",
            Self::Decided { denied: false, .. } => "allowed",
        }
    }

    const fn edge(&self) -> Option<&Edge> {
        match self {
            Self::Unknown(_, edge) | Self::Exempt(_, edge) => Some(edge),
            Self::Decided { edge, .. } => edge.as_ref(),
            Self::NotAsked(_) | Self::OutOfScope(..) => None,
        }
    }

    /// `graph: frozen-enforce, allowed by 10.0.0.5 -> tcp/443`
    fn line(&self) -> String {
        let mode = self.mode();
        let edge = self
            .edge()
            .map_or_else(|| "an edge of its group".to_owned(), Edge::to_string);
        match self {
            Self::NotAsked(_) => format!("graph: {mode}, not asked: dropped before"),
            Self::Unknown(Mode::Learn, _) => format!("graph: {mode}, nothing denies {edge}"),
            Self::Unknown(..) => format!("graph: {mode}, there is no {edge}"),
            Self::Exempt(..) => format!("graph: {mode}, there is no {edge}; its source is exempt"),
            Self::OutOfScope(_, service) => {
                format!("graph: {mode}, but not of {service}: that stays open")
            }
            Self::Decided { .. } => format!("graph: {mode}, {} by {edge}", self.answer()),
        }
    }
}

impl VerdictReport {
    /// `192.0.2.7: drop (deny)` and the entry that decided.
    pub fn text(&self, notes: &Notes, now: Ktime) -> String {
        let why = match (&self.entry, &self.ceiling) {
            (Some(entry), _) => {
                format!(
                    "decided by: {}",
                    entry_line(entry, notes.text(entry.note), now)
                )
            }
            (None, Some(ceiling)) if self.reason == Reason::Pass => {
                format!("no entry; the default limit: {}", action_text(ceiling))
            }
            (None, _) => "no entry decided".to_owned(),
        };
        let graph = self.graph.as_ref().map(|graph| graph.line() + "\n");
        format!(
            "{}: {} ({})\n{why}\n{}",
            self.source,
            self.reason.verdict(),
            self.reason,
            graph.unwrap_or_default()
        )
    }

    pub fn json(&self, notes: &Notes, now: Ktime) -> String {
        #[derive(Serialize)]
        struct Verdict {
            source: String,
            /// `pass` or `drop`.
            verdict: &'static str,
            /// A name `stats` shows too.
            reason: String,
            /// The entry that decided, or null.
            entry: Option<EntryJson>,
            /// Only where the edge stage runs.
            #[serde(skip_serializing_if = "Option::is_none")]
            graph: Option<GraphJson>,
        }
        #[derive(Serialize)]
        struct GraphJson {
            /// `learn`, `frozen-observe` or `frozen-enforce`.
            mode: &'static str,
            /// `allowed`, `denied`, `unknown`, `exempt`, `out-of-scope` or `not-asked`.
            answer: &'static str,
            /// The edge that decided or is lacking, as `graph edges` shows it, or null.
            edge: Option<String>,
        }
        document(
            "verdict",
            &Verdict {
                source: self.source.to_string(),
                verdict: self.reason.verdict(),
                reason: self.reason.to_string(),
                entry: self
                    .entry
                    .as_ref()
                    .map(|entry| entry_json(entry, notes, now)),
                graph: self.graph.as_ref().map(|graph| GraphJson {
                    mode: graph.mode().name(),
                    answer: graph.answer(),
                    edge: graph.edge().map(Edge::to_string),
                }),
            },
        )
    }
}
