use std::time::Duration;

use serde::Serialize;

use super::json::document;
use super::policy::{LimitJson, action_text, limit_json};
use super::table::Table;
use crate::dataplane::{Action, AllowOnly, AttachMode, Attached, Counters, Entry, PortCount};
use crate::model::{Ktime, counted, format_duration};

fn mode_text(mode: Option<AttachMode>) -> String {
    mode.map_or_else(|| "unknown".to_owned(), |mode| mode.to_string())
}

/// `attached in generic mode`
pub fn attached_in(attached: &Attached) -> String {
    format!("attached in {} mode", mode_text(attached.mode))
}

/// `eth0: attached in generic mode (driver mode refused: ...)`
pub fn attached_line(attached: &Attached) -> String {
    let already = if attached.already { "already " } else { "" };
    let why = attached
        .fallback
        .as_deref()
        .map(|why| format!(" ({why})"))
        .unwrap_or_default();
    format!(
        "{}: {already}{}{why}",
        attached.interface,
        attached_in(attached)
    )
}

/// Where an instance is attached, what it enforces and how full its tables are.
pub struct Status {
    pub attached: Vec<Attached>,
    /// Interfaces that it was attached to and that are gone.
    pub lost: usize,
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
    /// Interfaces it was attached to that are gone; one that is back is not protected.
    interfaces_gone: u64,
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
            .map(|attached| format!("{}: {}\n", attached.interface, attached_in(attached)))
            .collect();
        if self.lost > 0 {
            text.push_str(&format!(
                "{} gone that it was attached to; one that is back is not protected before 'kernloom shield attach'\n",
                counted(self.lost, "interface is", "interfaces are")
            ));
        }
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
        document(
            "status",
            &StatusJson {
                interfaces: self.attached.iter().map(interface).collect(),
                interfaces_gone: self.lost as u64,
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
            },
        )
    }
}

pub fn stats_table(counters: &Counters) -> String {
    let mut table = Table::new(["REASON", "VERDICT", "PACKETS", "BYTES"]);
    for count in &counters.reasons {
        table.row([
            count.reason.to_string(),
            count.reason.verdict().to_owned(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]);
    }
    let tail = [
        ("sources", counters.sources),
        ("replaced", counters.replaced),
        ("crowded", counters.crowded),
        ("events-lost", counters.events_lost),
    ];
    let mut text = table.render();
    for (name, value) in tail {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

/// The same figures, and the
/// histograms: frames by length, openings by port. `ports` is null where the program counts none.
pub fn stats_json(counters: &Counters, ports: Option<&[PortCount]>) -> String {
    #[derive(Serialize)]
    struct LengthJson {
        /// The bin's least length in bytes; it ends where the next begins.
        from: u32,
        frames: u64,
    }
    #[derive(Serialize)]
    struct PortJson {
        port: u16,
        syns: u64,
        udp: u64,
    }
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
        sources_crowded: u64,
        events_lost: u64,
        lengths: Vec<LengthJson>,
        ports: Option<Vec<PortJson>>,
    }
    let lengths = (0u32..)
        .zip(&counters.lengths)
        .map(|(bin, frames)| LengthJson {
            from: bin * Counters::LENGTH_BIN,
            frames: *frames,
        });
    let port = |count: &PortCount| PortJson {
        port: count.port,
        syns: count.syns,
        udp: count.udp,
    };
    let reasons = counters.reasons.iter().map(|count| ReasonJson {
        reason: count.reason.to_string(),
        verdict: count.reason.verdict(),
        packets: count.packets,
        bytes: count.bytes,
    });
    document(
        "stats",
        &Stats {
            reasons: reasons.collect(),
            sources: counters.sources,
            sources_replaced: counters.replaced,
            sources_crowded: counters.crowded,
            events_lost: counters.events_lost,
            lengths: lengths.collect(),
            ports: ports.map(|ports| ports.iter().map(port).collect()),
        },
    )
}
