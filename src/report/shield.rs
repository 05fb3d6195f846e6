use std::time::Duration;

use serde::Serialize;

use super::json::to_line;
use super::policy::{LimitJson, action_text, limit_json};
use super::table::Table;
use crate::dataplane::{Action, AllowOnly, AttachMode, Attached, Counters, Entry};
use crate::model::{Ktime, format_duration};
use crate::telemetry::Sample;

fn mode_text(mode: Option<AttachMode>) -> String {
    mode.map_or_else(|| "unknown".to_owned(), |mode| mode.to_string())
}

/// `eth0: attached in generic mode (driver mode refused: ...)`
pub fn attached_line(attached: &Attached) -> String {
    let state = if attached.already {
        "already attached"
    } else {
        "attached"
    };
    let why = attached
        .fallback
        .as_deref()
        .map(|why| format!(" ({why})"))
        .unwrap_or_default();
    format!(
        "{}: {state} in {} mode{why}",
        attached.interface,
        mode_text(attached.mode)
    )
}

/// Where an instance is attached, what it enforces and how full its tables are.
pub struct Status {
    pub attached: Vec<Attached>,
    pub entries: Vec<Entry>,
    pub max_deny: u32,
    pub counters: Counters,
    pub capacity: usize,
    pub allow_only: AllowOnly,
    pub ceiling: Option<Action>,
    /// Bytes of kernel memory.
    pub memory: u64,
    /// Another build of the program runs than this binary holds.
    pub outdated: bool,
}

#[derive(Serialize)]
struct InterfaceJson {
    interface: String,
    ifindex: u32,
    /// `driver`, `generic`, `tc` or `unknown`.
    mode: String,
}

#[derive(Serialize)]
struct AllowOnlyJson {
    /// `off`, `on`, `leased` or `lapsed`.
    state: &'static str,
    /// Null but while a lease is pending.
    falls_back_in_seconds: Option<u64>,
}

#[derive(Serialize)]
struct FillJson {
    used: u64,
    capacity: u64,
}

#[derive(Serialize)]
struct StatusJson {
    interfaces: Vec<InterfaceJson>,
    enforce_allow: AllowOnlyJson,
    /// Null where there is none.
    default_limit: Option<LimitJson>,
    policy: FillJson,
    sources: FillJson,
    sources_replaced: u64,
    packets: u64,
    dropped: u64,
    memory_bytes: u64,
    /// Another build of the program runs than this binary holds.
    upgrade_waits: bool,
}

impl Status {
    /// One line per interface, then one per subject.
    pub fn text(&self, now: Ktime) -> String {
        let mut text: String = self
            .attached
            .iter()
            .map(|attached| {
                let mode = mode_text(attached.mode);
                format!("{}: attached in {mode} mode\n", attached.interface)
            })
            .collect();
        if self.attached.is_empty() {
            text.push_str("attached to no interface; policy and counters are kept\n");
        }
        let allow_only = match self.allow_only {
            AllowOnly::Off => None,
            AllowOnly::On => Some("only allowed sources pass".to_owned()),
            AllowOnly::Leased(end) => Some(format!(
                "only allowed sources pass; falls back in {} unless confirmed",
                format_duration(Duration::from_secs(end.since(now).as_secs() + 1))
            )),
            AllowOnly::Lapsed => {
                Some("the lease ran out: every source passes that nothing denies".to_owned())
            }
        };
        text.extend(allow_only.map(|line| format!("enforce-allow: {line}\n")));
        text.extend(
            self.ceiling
                .map(|action| format!("default limit: {}\n", action_text(&action))),
        );
        text.push_str(&format!(
            "policy: {} of {} entries\n",
            self.entries.len(),
            self.max_deny
        ));
        text.push_str(&format!(
            "sources: {} of {} entries, {} replaced\n",
            self.counters.sources, self.capacity, self.counters.replaced
        ));
        text.push_str(&format!(
            "packets: {}, dropped {}\n",
            self.counters.packets(),
            self.counters.dropped()
        ));
        text.push_str(&format!("memory: {} KiB\n", self.memory / 1_024));
        if self.outdated {
            text.push_str("another build runs than this binary holds: 'kernloom shield upgrade'\n");
        }
        text
    }

    pub fn json(&self, now: Ktime) -> String {
        let (state, left) = match self.allow_only {
            AllowOnly::Off => ("off", None),
            AllowOnly::On => ("on", None),
            AllowOnly::Leased(end) => ("leased", Some(end.since(now).as_secs() + 1)),
            AllowOnly::Lapsed => ("lapsed", None),
        };
        let interface = |attached: &Attached| InterfaceJson {
            interface: attached.interface.clone(),
            ifindex: attached.ifindex,
            mode: mode_text(attached.mode),
        };
        to_line(&StatusJson {
            interfaces: self.attached.iter().map(interface).collect(),
            enforce_allow: AllowOnlyJson {
                state,
                falls_back_in_seconds: left,
            },
            default_limit: self.ceiling.as_ref().and_then(limit_json),
            policy: FillJson {
                used: self.entries.len() as u64,
                capacity: self.max_deny.into(),
            },
            sources: FillJson {
                used: self.counters.sources,
                capacity: self.capacity as u64,
            },
            sources_replaced: self.counters.replaced,
            packets: self.counters.packets(),
            dropped: self.counters.dropped(),
            memory_bytes: self.memory,
            upgrade_waits: self.outdated,
        })
    }
}

pub fn stats_table(counters: &Counters) -> String {
    let mut table = Table::new(["REASON", "VERDICT", "PACKETS", "BYTES"]);
    for count in &counters.reasons {
        table.row([
            count.reason.to_string(),
            verdict(count.reason).to_owned(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]);
    }
    let tail = [
        ("sources", counters.sources),
        ("replaced", counters.replaced),
        ("events-lost", counters.events_lost),
    ];
    let mut text = table.render();
    for (name, value) in tail {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

const fn verdict(reason: crate::dataplane::Reason) -> &'static str {
    if reason.drops() { "drop" } else { "pass" }
}

/// The same figures: `{"reasons":[{"reason":..,"verdict":..,"packets":..,"bytes":..}],..}`.
pub fn stats_json(counters: &Counters) -> String {
    #[derive(Serialize)]
    struct ReasonJson {
        reason: String,
        /// `pass` or `drop`.
        verdict: &'static str,
        packets: u64,
        bytes: u64,
    }
    #[derive(Serialize)]
    struct Stats {
        reasons: Vec<ReasonJson>,
        sources: u64,
        sources_replaced: u64,
        events_lost: u64,
    }
    let reasons = counters.reasons.iter().map(|count| ReasonJson {
        reason: count.reason.to_string(),
        verdict: verdict(count.reason),
        packets: count.packets,
        bytes: count.bytes,
    });
    to_line(&Stats {
        reasons: reasons.collect(),
        sources: counters.sources,
        sources_replaced: counters.replaced,
        events_lost: counters.events_lost,
    })
}

pub fn top_table(samples: &[Sample], window: Duration) -> String {
    let seconds = window.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "rates to one decimal")]
    let rate = |count: u64| format!("{:.1}", count as f64 / seconds);
    let mut text = Table::new([
        "SOURCE",
        "PACKETS/S",
        "BYTES/S",
        "SYN/S",
        "DROPS/S",
        "PORTS",
        "STACKS",
    ]);
    for sample in samples {
        text.row([
            sample.source.to_string(),
            rate(sample.packets),
            rate(sample.bytes),
            rate(sample.syns),
            rate(sample.drops),
            sample.ports.to_string(),
            sample.stacks.to_string(),
        ]);
    }
    text.render()
}

/// Counts of one window, not rates: `{"window_seconds":..,"sources":[{"source":..,..}]}`.
pub fn top_json(samples: &[Sample], window: Duration) -> String {
    #[derive(Serialize)]
    struct SampleJson {
        source: String,
        packets: u64,
        bytes: u64,
        syns: u64,
        drops: u64,
        ports: u64,
        stacks: u64,
    }
    #[derive(Serialize)]
    struct Top {
        window_seconds: f64,
        sources: Vec<SampleJson>,
    }
    let sources = samples.iter().map(|sample| SampleJson {
        source: sample.source.to_string(),
        packets: sample.packets,
        bytes: sample.bytes,
        syns: sample.syns,
        drops: sample.drops,
        ports: sample.ports.into(),
        stacks: sample.stacks.into(),
    });
    to_line(&Top {
        window_seconds: window.as_secs_f64(),
        sources: sources.collect(),
    })
}
