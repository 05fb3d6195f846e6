//! How bad one window of one source was: 1.0 is at the threshold.
//!
//! `weighted = sum(w_i * min(rate_i / trigger_i, cap))` sees a source that is somewhat loud in
//! every respect. It cannot see one that is very loud in a single respect, because a weight below
//! 1 bounds that term; `dominant = max(rate_i / (dominance * trigger_i))`, capped, does. What took
//! long to gather (`slow`) counts by its own trigger. Severity is the largest of the three.
//!
//! Triggers are multiplied by the hosts behind an address, and divided by the pressure that
//! everybody together puts on this host. Packets that this host asked for count less.

use std::fmt;
use std::time::Duration;

use serde::de::IntoDeserializer;
use serde::de::value::{Error as Unknown, StrDeserializer};
use serde::{Deserialize, Serialize};

use super::config::{Config, Triggers};
use super::explain::Reading;
use super::ladder::HIGH;
use crate::telemetry::{Coverage, Sample};

/// What was measured of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Signal {
    #[serde(rename = "pps")]
    Packets,
    #[serde(rename = "bps")]
    Bytes,
    #[serde(rename = "syn")]
    Syns,
    #[serde(rename = "ports")]
    Ports,
    /// Connections begun and not completed.
    #[serde(rename = "half-open")]
    HalfOpen,
    /// Packets that this host answered with a refusal.
    #[serde(rename = "refusals")]
    Refusals,
    #[serde(rename = "ports-1m")]
    PortsMinute,
    #[serde(rename = "ports-1h")]
    PortsHour,
    #[serde(rename = "ports-24h")]
    PortsDay,
    /// SYNs per second, kept up for an hour.
    #[serde(rename = "syn-1h")]
    Sustained,
    /// Packets beyond a limit that is already in place.
    #[serde(rename = "drops")]
    Drops,
    /// Nothing was received.
    #[serde(rename = "silence")]
    Silence,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Packets => "pps",
            Self::Bytes => "bps",
            Self::Syns => "syn",
            Self::Ports => "ports",
            Self::HalfOpen => "half-open",
            Self::Refusals => "refusals",
            Self::PortsMinute => "ports-1m",
            Self::PortsHour => "ports-1h",
            Self::PortsDay => "ports-24h",
            Self::Sustained => "syn-1h",
            Self::Drops => "drops",
            Self::Silence => "silence",
        })
    }
}

impl Signal {
    /// The time that rate and trigger of this signal are counted over.
    pub const fn per(self) -> &'static str {
        match self {
            Self::PortsMinute => "/m",
            Self::PortsHour => "/h",
            Self::PortsDay => "/d",
            Self::Packets
            | Self::Bytes
            | Self::Syns
            | Self::Ports
            | Self::HalfOpen
            | Self::Refusals
            | Self::Sustained
            | Self::Drops
            | Self::Silence => "/s",
        }
    }

    /// The same by the signal's name, as records keep it; per second for a name that is unknown.
    pub fn per_of(name: &str) -> &'static str {
        let name: StrDeserializer<'_, Unknown> = name.into_deserializer();
        Self::deserialize(name).map_or("/s", Self::per)
    }

    /// Whether the number of packets is itself the harm.
    pub(super) const fn is_volume(self) -> bool {
        matches!(self, Self::Packets | Self::Bytes | Self::Drops)
    }
}

/// Shorter windows are counted as this long: one packet in a millisecond is not 1000 per second.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// Weights that make 1 are to reach the cap, and a gate set at it, in spite of rounding errors.
const ROUNDING: f64 = 1.0 + 1e-9;

/// What is known of a source beyond its window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standing {
    /// Hosts behind the address, 1 to `Evidence::nat`.
    pub(super) hosts: u32,
    /// What its triggers are divided by, 1 or more.
    pub(super) pressure: f64,
    /// The worst of what took longer than a window: signal, rate or count, and trigger.
    pub(super) slow: Option<(Signal, f64, f64)>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            hosts: 1,
            pressure: 1.0,
            slow: None,
        }
    }
}

/// One window of one source, scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) severity: f64,
    /// Severity by packets and bytes alone.
    pub(super) volume: f64,
    pub(super) packets: f64,
    /// Dropped packets per second.
    pub(super) drops: f64,
    /// The signal farthest above its trigger, its rate and its trigger, both per second, or over
    /// the time that the signal names.
    pub(super) signal: Signal,
    pub(super) rate: f64,
    pub(super) trigger: f64,
    /// `rate / trigger` of the window's worst signal, not capped.
    pub(super) ratio: f64,
    /// Something has gone on for longer than a window, and for too long.
    pub(super) lasted: bool,
    /// Severity comes from that, and nobody looks whether what counts against it failed.
    pub(super) tentative: bool,
    pub(super) hosts: u32,
    pub(super) pressure: f64,
    pub(super) proven: bool,
    /// It answered something that this host asked.
    pub(super) answers: bool,
    /// Somebody else could have sent all of it in this source's name.
    pub(super) spoofable: bool,
    /// Most of what was refused had not tried to open a connection.
    pub(super) strays: bool,
}

impl Score {
    pub(super) const SILENT: Self = Self {
        severity: 0.0,
        volume: 0.0,
        packets: 0.0,
        drops: 0.0,
        signal: Signal::Silence,
        rate: 0.0,
        trigger: 0.0,
        ratio: 0.0,
        lasted: false,
        tentative: false,
        hosts: 1,
        pressure: 1.0,
        proven: false,
        answers: false,
        spoofable: false,
        strays: false,
    };

    /// The score of `sample`, counted in a window of `length`, and the rates that it was scored
    /// by, as seen by one host: what a trigger learns from.
    pub(super) fn of(
        config: &Config,
        sample: &Sample,
        length: Duration,
        coverage: Coverage,
        standing: &Standing,
    ) -> (Self, Triggers) {
        let per_second = 1.0 / length.max(SHORTEST_WINDOW).as_secs_f64();
        let hosts = f64::from(standing.hosts);
        let unasked = unasked_share(sample, coverage, config.evidence.consent);
        let rates = Triggers {
            pps: sample.packets as f64 * unasked * per_second,
            bps: sample.bytes as f64 * unasked * per_second,
            syn: sample.syns as f64 * per_second,
            ports: f64::from(scanned_ports(sample, coverage)) * per_second,
        };
        let terms = terms(config, sample, &rates, per_second, standing);
        let mut score = Self {
            packets: sample.packets as f64 * per_second,
            drops: sample.drops as f64 * per_second,
            hosts: standing.hosts,
            pressure: standing.pressure,
            proven: sample.proven,
            answers: sample.answers > 0,
            spoofable: is_spoofable(sample, coverage),
            strays: u64::from(sample.refusals) > 2 * u64::from(sample.syns),
            ..Self::SILENT
        };
        score.weigh(config, &terms);
        if let Some((signal, value, trigger)) = standing.slow {
            let severity = (value / trigger).min(config.cap);
            score.lasted = severity >= HIGH;
            if severity > score.severity {
                score.tentative = !coverage.refusals;
                (score.severity, score.signal) = (severity, signal);
                (score.rate, score.trigger) = (value, trigger);
            }
        }
        let alone = Triggers {
            pps: rates.pps / hosts,
            bps: rates.bps / hosts,
            syn: rates.syn / hosts,
            ports: rates.ports,
        };
        (score, alone)
    }

    /// Takes in signal, rate, trigger and weight of each term. A weight of 0 leaves the four
    /// signals of a profile out; the others have none.
    fn weigh(&mut self, config: &Config, terms: &[(Signal, f64, f64, f64)]) {
        let mut weighted = 0.0;
        let dominant = |ratio: f64| {
            if config.dominance > 0.0 {
                (ratio / config.dominance).min(config.cap)
            } else {
                0.0
            }
        };
        for (signal, rate, trigger, weight) in terms.iter().copied() {
            let has_weight = !matches!(signal, Signal::HalfOpen | Signal::Refusals);
            if trigger <= 0.0 || (has_weight && weight <= 0.0) {
                continue;
            }
            let ratio = rate / trigger;
            weighted += weight * ratio.min(config.cap);
            if signal.is_volume() {
                self.volume = self.volume.max(dominant(ratio));
            }
            if ratio > self.ratio {
                (self.signal, self.rate, self.trigger) = (signal, rate, trigger);
                self.ratio = ratio;
            }
        }
        self.severity = dominant(self.ratio).max(weighted * ROUNDING);
    }

    /// What a reader is told of it.
    pub(super) const fn reading(&self) -> Reading {
        Reading {
            severity: self.severity,
            signal: self.signal,
            rate: self.rate,
            trigger: self.trigger,
        }
    }

    /// Whether one signal alone is loud enough to act on at once.
    pub(super) fn flashes(&self, config: &Config) -> bool {
        config.flash > 0.0 && self.ratio >= config.flash
    }
}

/// Signal, rate, trigger and weight of everything that one window tells.
fn terms(
    config: &Config,
    sample: &Sample,
    rates: &Triggers,
    per_second: f64,
    standing: &Standing,
) -> [(Signal, f64, f64, f64); 6] {
    let (triggers, weights) = (&config.triggers, &config.weights);
    let many = f64::from(standing.hosts) / standing.pressure;
    let ports = triggers.ports / standing.pressure;
    let half_open = config.half_open_trigger() * many;
    let refusals = config.refusals_trigger() * many;
    let per_second = |count: u32| f64::from(count) * per_second;
    [
        (Signal::Syns, rates.syn, triggers.syn * many, weights.syn),
        (Signal::Ports, rates.ports, ports, weights.ports),
        (
            Signal::HalfOpen,
            per_second(sample.half_open),
            half_open,
            0.0,
        ),
        (Signal::Refusals, per_second(sample.refusals), refusals, 0.0),
        (Signal::Packets, rates.pps, triggers.pps * many, weights.pps),
        (Signal::Bytes, rates.bps, triggers.bps * many, weights.bps),
    ]
}

fn failures(sample: &Sample) -> u32 {
    sample.half_open.saturating_add(sample.refusals)
}

/// How much a packet counts on average, up to 1: answers to this host, and what a proven peer
/// sends beyond openings and what is refused, count as one in `consent`. Where nobody sees
/// refusals, what a peer sends beyond openings may be no connection at all, and less is conceded.
fn unasked_share(sample: &Sample, coverage: Coverage, consent: f64) -> f64 {
    if !coverage.consent || consent <= 1.0 || sample.packets == 0 {
        return 1.0;
    }
    let packets = sample.packets as f64;
    let answers = f64::from(sample.answers);
    let established = packets - f64::from(sample.opens) - f64::from(sample.refusals) + answers;
    let (asked, consent) = match (coverage.proof && sample.proven, coverage.refusals) {
        (true, true) => (established, consent),
        (true, false) => (established, consent.sqrt()),
        (false, _) => (answers, consent),
    };
    let asked = asked.clamp(0.0, packets);
    (packets - asked + asked / consent) / packets
}

/// Ports opened, but of a proven peer only as many as openings failed: a client of many services
/// is no scanner.
fn scanned_ports(sample: &Sample, coverage: Coverage) -> u32 {
    if coverage.proof && coverage.refusals && sample.proven {
        sample.ports.min(failures(sample))
    } else {
        sample.ports
    }
}

/// Without a completed handshake anybody could have sent it, and so could SYNs that are never
/// followed up, even if the address is also that of a peer.
fn is_spoofable(sample: &Sample, coverage: Coverage) -> bool {
    coverage.proof && (!sample.proven || u64::from(sample.half_open) * 2 > sample.syns.into())
}
