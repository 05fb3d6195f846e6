//! The page itself: every family, its unit and its help. Names are public and only ever added to.

use super::text::{Kind, Page, number};
use super::{BUCKETS, Metrics};
use crate::dataplane::{Action, Entry, Owner};
use crate::engine::Triggers;
use crate::graph::{Mode, State};
use crate::model::{Ktime, Stage};

/// What is true at the end of a tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauges {
    pub dry_run: bool,
    /// Sources by stage, in the order of [`Stage::ALL`].
    pub sources: [u64; Stage::ALL.len()],
    /// Entries of the source table, over all CPUs.
    pub table_capacity: u64,
    /// Most policy entries.
    pub policy_capacity: u64,
    /// Filled in from [`Metrics::policy`].
    pub policy: Policy,
    pub triggers: Triggers,
    /// The largest rate of any one source in the last window, per signal.
    pub peaks: Triggers,
    /// `None` where no graph is kept.
    pub graph: Option<GraphGauges>,
    /// Seconds since 1970 at the end of the tick.
    pub time: f64,
}

/// The graph at the end of a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GraphGauges {
    pub mode: Mode,
    /// Seconds left of a lease that nobody confirmed; 0 where there is none.
    pub lease: f64,
    /// Edges by state, in the order of [`State::ALL`].
    pub edges: [u64; State::ALL.len()],
    /// Entries of the kernel's edge table in use.
    pub table_used: u64,
    /// Entries of the kernel's edge table.
    pub table_capacity: u64,
    /// Edges that the frozen graph lacks and that were tried, since the graph was reset.
    pub violating: u64,
    /// Packets of such edges since this IQ started.
    pub violation_packets: u64,
    /// Edges that were turned away since this IQ started, because the graph was full.
    pub turned_away: u64,
}

/// Live policy entries, by owner and action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy([[u64; 3]; Owner::ALL.len()]);

const ACTIONS: [&str; 3] = ["allow", "limit", "deny"];

impl Policy {
    pub(super) fn of(entries: &[Entry], now: Ktime) -> Self {
        let mut counts = Self::default();
        for entry in entries.iter().filter(|entry| entry.is_live(now)) {
            let owner = Owner::ALL
                .iter()
                .position(|owner| *owner == entry.rule.owner);
            let action = match entry.rule.action {
                Action::Allow => 0,
                Action::Limit { .. } | Action::LimitBytes { .. } => 1,
                Action::Deny => 2,
            };
            if let Some(owner) = owner {
                counts.0[owner][action] += 1;
            }
        }
        counts
    }
}

impl Default for Gauges {
    fn default() -> Self {
        let none = Triggers {
            pps: 0.0,
            bps: 0.0,
            syn: 0.0,
            ports: 0.0,
        };
        Self {
            dry_run: true,
            sources: [0; Stage::ALL.len()],
            table_capacity: 0,
            policy_capacity: 0,
            policy: Policy::default(),
            triggers: none,
            peaks: none,
            graph: None,
            time: 0.0,
        }
    }
}

/// Exact below 2^53, which no count here reaches in a lifetime.
#[expect(clippy::cast_precision_loss, reason = "see above")]
const fn real(count: u64) -> f64 {
    count as f64
}

fn signals(rates: &Triggers) -> [(&'static str, f64); 4] {
    [
        ("packets", rates.pps),
        ("bytes", rates.bps),
        ("syns", rates.syn),
        ("ports", rates.ports),
    ]
}

impl Metrics {
    /// The page, as of the last tick.
    pub fn page(&self) -> String {
        let mut page = Page::default();
        self.about(&mut page);
        self.traffic(&mut page);
        self.tables(&mut page);
        self.judgement(&mut page);
        self.graph(&mut page);
        self.ticks(&mut page);
        page.finish()
    }

    fn about(&self, page: &mut Page) {
        page.family(
            "kernloom_build_info",
            Kind::Gauge,
            "Always 1; the labels say what runs.",
        )
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        page.single(
            "kernloom_dry_run",
            Kind::Gauge,
            "Whether decisions are only told, not enforced.",
            f64::from(u8::from(self.gauges.dry_run)),
        );
    }

    fn traffic(&self, page: &mut Page) {
        let Some(counters) = &self.counters else {
            return;
        };
        let mut family = page.family(
            "kernloom_received_packets_total",
            Kind::Counter,
            "Packets that arrived, by why they left the way they did.",
        );
        for count in &counters.reasons {
            let reason = count.reason.to_string();
            let labels = [
                ("reason", reason.as_str()),
                ("verdict", count.reason.verdict()),
            ];
            family.sample(&labels, real(count.packets));
        }
        let mut family = page.family(
            "kernloom_received_bytes_total",
            Kind::Counter,
            "Frame bytes that arrived, by why they left the way they did.",
        );
        for count in &counters.reasons {
            let reason = count.reason.to_string();
            let labels = [
                ("reason", reason.as_str()),
                ("verdict", count.reason.verdict()),
            ];
            family.sample(&labels, real(count.bytes));
        }
        page.single(
            "kernloom_events_lost_total",
            Kind::Counter,
            "Alerts of the data plane that found the ring buffer full; the next tick sees their sources.",
            real(counters.events_lost),
        );
    }

    fn tables(&self, page: &mut Page) {
        if let Some(counters) = &self.counters {
            page.single(
                "kernloom_source_table_entries",
                Kind::Gauge,
                "Entries of the source table in use, over all CPUs.",
                real(counters.sources),
            );
            page.single(
                "kernloom_source_table_replacements_total",
                Kind::Counter,
                "Entries of the source table taken from one source for another.",
                real(counters.replaced),
            );
        }
        page.single(
            "kernloom_source_table_capacity_entries",
            Kind::Gauge,
            "Entries the source table has, over all CPUs.",
            real(self.gauges.table_capacity),
        );
        let mut family = page.family(
            "kernloom_policy_entries",
            Kind::Gauge,
            "Live policy entries, by owner and action.",
        );
        for (owner, actions) in Owner::ALL.iter().zip(self.gauges.policy.0) {
            for (action, count) in ACTIONS.iter().zip(actions) {
                family.sample(
                    &[("owner", &owner.to_string()), ("action", action)],
                    real(count),
                );
            }
        }
        page.single(
            "kernloom_policy_capacity_entries",
            Kind::Gauge,
            "Most policy entries.",
            real(self.gauges.policy_capacity),
        );
        page.single(
            "kernloom_policy_expirations_total",
            Kind::Counter,
            "Policy entries that ended because their time was over.",
            real(self.expirations),
        );
    }

    fn judgement(&self, page: &mut Page) {
        let mut family = page.family(
            "kernloom_sources",
            Kind::Gauge,
            "Sources by stage: those that sent in the last window, and those held.",
        );
        for (stage, count) in Stage::ALL.iter().zip(self.gauges.sources) {
            family.sample(&[("stage", &stage.to_string())], real(count));
        }
        let mut family = page.family(
            "kernloom_decisions_total",
            Kind::Counter,
            "Decisions carried out, by kind and the stage they led to.",
        );
        for kind in ["escalate", "renew", "release"] {
            for stage in Stage::ALL {
                let possible = match kind {
                    "release" => stage < Stage::Block,
                    _ => stage > Stage::Observe,
                };
                if possible {
                    let count = self.decisions.get(&(kind, stage)).copied();
                    let labels = [("kind", kind), ("to", &stage.to_string())];
                    family.sample(&labels, real(count.unwrap_or(0)));
                }
            }
        }
        page.single(
            "kernloom_decisions_failed_total",
            Kind::Counter,
            "Decisions that the data plane did not take; they are made anew.",
            real(self.failures),
        );
        page.single(
            "kernloom_decisions_overruled_total",
            Kind::Counter,
            "Decisions that an operator's entry stood against.",
            real(self.overruled),
        );
        let mut family = page.family(
            "kernloom_trigger_per_second",
            Kind::Gauge,
            "The rate at which a source is at the threshold, by signal; 0 is never.",
        );
        for (signal, rate) in signals(&self.gauges.triggers) {
            family.sample(&[("signal", signal)], rate);
        }
        let mut family = page.family(
            "kernloom_peak_per_second",
            Kind::Gauge,
            "The largest rate of any one source in the last window, by signal.",
        );
        for (signal, rate) in signals(&self.gauges.peaks) {
            family.sample(&[("signal", signal)], rate);
        }
    }

    fn graph(&self, page: &mut Page) {
        let Some(graph) = &self.gauges.graph else {
            return;
        };
        let mut family = page.family(
            "kernloom_graph_mode",
            Kind::Gauge,
            "1 for what the graph does to packets now, 0 for the other modes.",
        );
        for mode in Mode::ALL {
            let is = f64::from(u8::from(mode == graph.mode));
            family.sample(&[("mode", mode.name())], is);
        }
        page.single(
            "kernloom_graph_lease_remaining_seconds",
            Kind::Gauge,
            "Time left until the graph goes back by itself unless confirmed; 0 where nothing is leased.",
            graph.lease,
        );
        let mut family = page.family(
            "kernloom_graph_edges",
            Kind::Gauge,
            "Edges of the graph, by state.",
        );
        for (state, count) in State::ALL.iter().zip(graph.edges) {
            family.sample(&[("state", state.name())], real(count));
        }
        page.single(
            "kernloom_graph_edge_table_entries",
            Kind::Gauge,
            "Entries of the kernel's edge table in use, over all CPUs.",
            real(graph.table_used),
        );
        page.single(
            "kernloom_graph_edge_table_capacity_entries",
            Kind::Gauge,
            "Entries the kernel's edge table has, over all CPUs.",
            real(graph.table_capacity),
        );
        page.single(
            "kernloom_graph_violating_edges",
            Kind::Gauge,
            "Edges that were tried and that the frozen graph lacks.",
            real(graph.violating),
        );
        page.single(
            "kernloom_graph_violation_packets_total",
            Kind::Counter,
            "Packets of edges that the frozen graph lacks, dropped or only observed.",
            real(graph.violation_packets),
        );
        page.single(
            "kernloom_graph_edges_turned_away_total",
            Kind::Counter,
            "New edges that were not learned because the graph was full.",
            real(graph.turned_away),
        );
    }

    fn ticks(&self, page: &mut Page) {
        let mut family = page.family(
            "kernloom_tick_duration_seconds",
            Kind::Histogram,
            "Time from waking for a tick to its decisions being enforced.",
        );
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            family.suffixed("_bucket", &[("le", &number(*bound))], real(count));
        }
        family.suffixed("_bucket", &[("le", "+Inf")], real(self.ticks));
        family.suffixed("_sum", &[], self.tick_seconds);
        family.suffixed("_count", &[], real(self.ticks));
        page.single(
            "kernloom_last_tick_timestamp_seconds",
            Kind::Gauge,
            "When the last tick ended, in seconds since 1970.",
            self.gauges.time,
        );
    }
}
