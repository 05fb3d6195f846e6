use std::collections::BTreeMap;
use std::fmt::Write;

use super::GraphView;
use crate::graph::{Drift, Edge, HOURS_OF_WEEK, MOST_RISK, Mode, Readiness, Record, State};
use crate::model::counted;
use crate::report::Table;
use crate::store::Violation;

/// Singletons that `readiness` names.
const MOST_SINGLETONS: usize = 20;

/// What the data plane drops by the graph, as the end of a line about IQ; empty if nothing.
pub fn graph_does(mode: Mode, leased: bool) -> String {
    let drops = match mode {
        Mode::Off => return String::new(),
        Mode::Learn | Mode::Observe => "drops what was denied",
        Mode::Enforce => "drops what it lacks",
    };
    let lease = if leased { ", until its lease ends" } else { "" };
    format!("; the graph is in {mode} and {drops}{lease}")
}

pub fn readiness_lines(readiness: &Readiness) -> String {
    let verdict = if readiness.is_ready() {
        "ready"
    } else {
        "not ready"
    };
    let mut text = format!(
        "risk {:.1} % that the next legitimate edge seen in a day is one that would not be frozen: {verdict} (bound {:.0} %)\n\
         {} would be frozen, {}\n\
         learned on {}, in {} of {HOURS_OF_WEEK} hours of the week; {}\n",
        readiness.risk * 100.0,
        MOST_RISK * 100.0,
        counted(readiness.accepted, "edge", "edges"),
        counted(
            readiness.candidates,
            "is still a candidate",
            "are still candidates"
        ),
        counted(readiness.days, "day", "days"),
        readiness.hours_of_week,
        counted(readiness.edge_days, "edge-day", "edge-days")
    );
    let count = readiness.singletons.len();
    if count > 0 {
        push(
            &mut text,
            format_args!(
                "{} seen on one day only:\n",
                counted(count, "edge was", "edges were")
            ),
        );
        for edge in readiness.singletons.iter().take(MOST_SINGLETONS) {
            push(&mut text, format_args!("  {edge}\n"));
        }
        if count > MOST_SINGLETONS {
            push(
                &mut text,
                format_args!("  and {} more\n", count - MOST_SINGLETONS),
            );
        }
    }
    if readiness.scanners > 0 {
        let scanners = counted(readiness.scanners, "source", "sources");
        push(
            &mut text,
            format_args!(
                "new edges of {scanners} teach nothing now, for many services were tried in vain from there\n"
            ),
        );
    }
    text
}

/// Every edge with its evidence, or those in one state.
pub fn edge_lines(records: &BTreeMap<Edge, Record>, state: Option<State>) -> String {
    let mut table = Table::new([
        "DIR",
        "PEER",
        "SERVICE",
        "STATE",
        "DAYS",
        "WINDOWS",
        "CONNECTIONS",
        "HANDSHAKES",
        "PACKETS",
        "PPS",
        "LAST SEEN",
    ]);
    for (edge, record) in records {
        if state.is_some_and(|state| record.state != state) {
            continue;
        }
        table.row([
            edge.direction.to_string(),
            edge.peer.to_string(),
            edge.service.to_string(),
            record.state.to_string(),
            record.days.to_string(),
            record.windows.to_string(),
            record.seen.connections.to_string(),
            record.seen.handshakes.to_string(),
            record.seen.packets.to_string(),
            format!("{:.1}", record.rate.mean_pps),
            // An edge that was decided and never used has only the time of that.
            if record.seen.packets == 0 {
                "never".to_owned()
            } else {
                record.last_seen.to_string()
            },
        ]);
    }
    table.render()
}

pub fn violation_lines(violations: &BTreeMap<Edge, Violation>) -> String {
    if violations.is_empty() {
        return "no violations\n".to_owned();
    }
    let mut table = Table::new([
        "DIR",
        "PEER",
        "SERVICE",
        "PACKETS",
        "FIRST SEEN",
        "LAST SEEN",
    ]);
    for (edge, violation) in violations {
        table.row([
            edge.direction.to_string(),
            edge.peer.to_string(),
            edge.service.to_string(),
            violation.packets.to_string(),
            violation.first_seen.to_string(),
            violation.last_seen.to_string(),
        ]);
    }
    let accept = "accept one with 'kernloom graph allow PEER SERVICE', refuse it with 'kernloom graph deny'\n";
    table.render() + accept
}

pub fn drift_text(drift: &Drift) -> String {
    let mut text = String::new();
    for (edge, change) in &drift.changes {
        push(&mut text, format_args!("{} {edge}\n", change.sign()));
    }
    text.push_str(match drift.changes.is_empty() {
        true => "what is learned is what is frozen\n",
        false => "+ learned since; - denied since; ? frozen, and not seen for 30 days or never\n",
    });
    if drift.candidates > 0 {
        let candidates = counted(drift.candidates, "edge more is", "edges more are");
        push(
            &mut text,
            format_args!(
                "{candidates} not learned yet: 'kernloom graph edges --state candidate'\n"
            ),
        );
    }
    text
}

/// Peers and, below each, what they use.
pub fn graph_tree(view: &GraphView) -> String {
    let mut text = format!("this host ({}), {}\n", view.node, view.mode);
    let mut last = None;
    let shown: Vec<_> = view
        .edges
        .iter()
        .filter(|edge| edge.state != "expired")
        .collect();
    for (index, edge) in shown.iter().enumerate() {
        let group = (&edge.direction, &edge.peer);
        let is_last_peer = !shown
            .iter()
            .skip(index)
            .any(|other| (&other.direction, &other.peer) != group);
        if last != Some(group) {
            let way = match edge.direction.as_str() {
                "in" => "from",
                "out" => "to",
                _ => "multicast from",
            };
            let branch = if is_last_peer { '└' } else { '├' };
            push(&mut text, format_args!("{branch}─ {way} {}\n", edge.peer));
            last = Some(group);
        }
        let next_same = shown
            .get(index + 1)
            .is_some_and(|next| (&next.direction, &next.peer) == group);
        let stem = if is_last_peer { ' ' } else { '│' };
        let branch = if next_same { '├' } else { '└' };
        push(
            &mut text,
            format_args!("{stem}  {branch}─ {:<12} {}\n", edge.service, edge.state),
        );
    }
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Coverage;
    use crate::report::readiness_json;

    #[test]
    fn what_the_graph_drops_is_said_by_mode() {
        assert_eq!(graph_does(Mode::Off, false), "");
        assert_eq!(
            graph_does(Mode::Observe, false),
            "; the graph is in frozen-observe and drops what was denied"
        );
        assert_eq!(
            graph_does(Mode::Enforce, true),
            "; the graph is in frozen-enforce and drops what it lacks, until its lease ends"
        );
    }

    #[test]
    fn readiness_tells_how_many_sources_teach_nothing_now() {
        let of = |scanners| Readiness::of(&BTreeMap::new(), &Coverage::default(), scanners);
        let nobody = "risk 100.0 % that the next legitimate edge seen in a day is one that would not be frozen: \
                      not ready (bound 5 %)\n\
                      0 edges would be frozen, 0 are still candidates\n\
                      learned on 0 days, in 0 of 168 hours of the week; 0 edge-days\n";
        assert_eq!(readiness_lines(&of(0)), nobody);
        let told = "new edges of 2 sources teach nothing now, for many services were tried in vain from there\n";
        assert_eq!(readiness_lines(&of(2)), format!("{nobody}{told}"));
        let json: serde_json::Value = serde_json::from_str(&readiness_json(&of(2))).unwrap();
        let expected = serde_json::json!({
            "schema": "kernloom.graph-readiness/1",
            "risk": 1.0,
            "ready": false,
            "days": 0,
            "hours_of_week": 0,
            "accepted": 0,
            "candidates": 0,
            "singletons": 0,
            "scanners": 2,
        });
        assert_eq!(json, expected);
    }
}
