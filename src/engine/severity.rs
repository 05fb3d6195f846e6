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
    /// What everyone together sent, of whatever kind: why known peers have a limit of their own.
    #[serde(rename = "everyone")]
    Everyone,
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
            Self::Everyone => "everyone",
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
            | Self::Silence
            | Self::Everyone => "/s",
        }
    }

    /// The same by the signal's name, as records keep it; per second for a name that is unknown.
    pub fn per_of(name: &str) -> &'static str {
        let name: StrDeserializer<'_, Unknown> = name.into_deserializer();
        Self::deserialize(name).map_or("/s", Self::per)
    }

    /// Whether it remembers more than a window: it may be over, and nobody knows who sent it.
    pub(super) const fn is_memory(self) -> bool {
        matches!(
            self,
            Self::PortsMinute | Self::PortsHour | Self::PortsDay | Self::Sustained
        )
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
    /// Openings per second that did not fail, at most within a minute; 0 if it is not proven.
    pub(super) succeeds: u32,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            hosts: 1,
            pressure: 1.0,
            slow: None,
            succeeds: 0,
        }
    }
}

/// One window of one source, scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) severity: f64,
    /// Severity by packets and bytes alone.
    pub(super) volume: f64,
    /// The same by what a limit of what is new would let through.
    pub(super) under_way: f64,
    pub(super) packets: f64,
    /// Dropped packets per second.
    pub(super) drops: f64,
    /// Packets per second, dropped ones included, that a limit of what is new holds.
    pub(super) opens: f64,
    /// The signal farthest above its trigger, its rate and its trigger, both per second, or over
    /// the time that the signal names.
    pub(super) signal: Signal,
    pub(super) rate: f64,
    pub(super) trigger: f64,
    /// `rate / trigger` of the window's worst signal, not capped.
    pub(super) ratio: f64,
    /// Something has gone on for longer than a window, and for too long.
    pub(super) lasted: bool,
    pub(super) hosts: u32,
    pub(super) pressure: f64,
    /// See [`Standing::succeeds`].
    pub(super) succeeds: u32,
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
        under_way: 0.0,
        packets: 0.0,
        drops: 0.0,
        opens: 0.0,
        signal: Signal::Silence,
        rate: 0.0,
        trigger: 0.0,
        ratio: 0.0,
        lasted: false,
        hosts: 1,
        pressure: 1.0,
        succeeds: 0,
        proven: false,
        answers: false,
        spoofable: false,
        strays: false,
    };

    /// What a reader is told of it.
    pub(super) const fn reading(&self) -> Reading {
        Reading {
            severity: self.severity,
            signal: self.signal,
            rate: self.rate,
            trigger: self.trigger,
        }
    }

    /// Severity by what goes on now.
    pub(super) fn present(&self) -> f64 {
        if self.signal.is_memory() {
            0.0
        } else {
            self.severity
        }
    }

    /// Whether one signal alone is loud enough to act on at once.
    pub(super) fn flashes(&self, config: &Config) -> bool {
        config.flash > 0.0 && self.ratio >= config.flash
    }
}

/// What is the same for all samples of one window.
pub(super) struct Scale<'a> {
    config: &'a Config,
    coverage: Coverage,
    per_second: f64,
    half_open: f64,
    refusals: f64,
}

/// A score, and the rates that it was made of, as seen by one host: what a trigger learns from.
pub(super) struct Scored {
    pub(super) score: Score,
    pub(super) alone: Triggers,
}

impl<'a> Scale<'a> {
    pub(super) fn new(config: &'a Config, length: Duration, coverage: Coverage) -> Self {
        Self {
            config,
            coverage,
            per_second: 1.0 / length.max(SHORTEST_WINDOW).as_secs_f64(),
            half_open: config.half_open_trigger(),
            refusals: config.refusals_trigger(),
        }
    }

    pub(super) fn score(&self, sample: &Sample, standing: &Standing) -> Scored {
        let (per_second, coverage) = (self.per_second, self.coverage);
        let unasked = unasked_share(sample, coverage, self.config.evidence.consent);
        let rates = Triggers {
            pps: sample.packets as f64 * unasked * per_second,
            bps: sample.bytes as f64 * unasked * per_second,
            syn: sample.syns as f64 * per_second,
            ports: f64::from(scanned_ports(sample, coverage)) * per_second,
        };
        let mut score = Score {
            packets: sample.packets as f64 * per_second,
            drops: sample.drops as f64 * per_second,
            opens: f64::from(sample.opens.saturating_sub(sample.answers)) * per_second,
            hosts: standing.hosts,
            pressure: standing.pressure,
            succeeds: standing.succeeds,
            proven: sample.proven,
            answers: sample.answers > 0,
            spoofable: is_spoofable(sample, coverage),
            strays: u64::from(sample.strays) * 2 > sample.refusals.into(),
            ..Score::SILENT
        };
        self.weigh(sample, &rates, &mut score);
        if let Some((signal, value, trigger)) = standing.slow {
            let severity = (value / trigger).min(self.config.cap);
            score.lasted = severity >= HIGH;
            // What goes on now is not to hide behind it.
            if score.severity < severity.min(HIGH) {
                (score.severity, score.signal) = (severity, signal);
                (score.rate, score.trigger) = (value, trigger);
            }
        }
        let mut alone = rates;
        if standing.hosts > 1 {
            let hosts = f64::from(standing.hosts);
            alone.pps /= hosts;
            alone.bps /= hosts;
            alone.syn /= hosts;
        }
        Scored { score, alone }
    }

    /// Takes in everything that one window tells. A weight of 0 leaves the four signals of a profile
    /// out; the others have none.
    fn weigh(&self, sample: &Sample, rates: &Triggers, score: &mut Score) {
        let (config, triggers) = (self.config, &self.config.triggers);
        let weights = &config.weights;
        let hosts = f64::from(score.hosts);
        // Most of a tick is divisions; nobody presses in peace.
        let (many, ports) = if score.pressure > 1.0 {
            (hosts / score.pressure, triggers.ports / score.pressure)
        } else {
            (hosts, triggers.ports)
        };
        let (mut weighted, mut volume) = (0.0, 0.0_f64);
        let mut consider = |signal: Signal, rate: f64, trigger: f64, weight: Option<f64>| {
            if rate <= 0.0 || trigger <= 0.0 || weight.is_some_and(|weight| weight <= 0.0) {
                return;
            }
            let ratio = rate / trigger;
            weighted += weight.unwrap_or(0.0) * ratio.min(config.cap);
            if signal.is_volume() {
                volume = volume.max(ratio);
            }
            if ratio > score.ratio {
                (score.signal, score.rate, score.trigger) = (signal, rate, trigger);
                score.ratio = ratio;
            }
        };
        let per_second = |count: u32| f64::from(count) * self.per_second;
        let (half_open, refusals) = (per_second(sample.half_open), per_second(refused(sample)));
        consider(
            Signal::Syns,
            rates.syn,
            triggers.syn * many,
            Some(weights.syn),
        );
        consider(Signal::Ports, rates.ports, ports, Some(weights.ports));
        consider(Signal::HalfOpen, half_open, self.half_open * many, None);
        consider(Signal::Refusals, refusals, self.refusals * many, None);
        consider(
            Signal::Packets,
            rates.pps,
            triggers.pps * many,
            Some(weights.pps),
        );
        consider(
            Signal::Bytes,
            rates.bps,
            triggers.bps * many,
            Some(weights.bps),
        );
        let dominant = |ratio: f64| {
            if config.dominance > 0.0 && ratio > 0.0 {
                (ratio / config.dominance).min(config.cap)
            } else {
                0.0
            }
        };
        score.volume = dominant(volume);
        score.under_way =
            dominant(volume * share_under_way(sample, rates.pps * self.per_second.recip()));
        score.severity = dominant(score.ratio).max(weighted * ROUNDING);
    }
}

/// What was refused and counts: strays in a peer's name may be anybody's, and to hold them would be
/// to hold its connections. Their volume still counts.
fn refused(sample: &Sample) -> u32 {
    if sample.proven {
        sample.refusals.saturating_sub(sample.strays)
    } else {
        sample.refusals
    }
}

/// Openings that came to nothing.
pub(super) fn failures(sample: &Sample) -> u32 {
    sample.half_open.saturating_add(refused(sample))
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
    if asked <= 0.0 {
        return 1.0;
    }
    (packets - asked + asked / consent) / packets
}

/// Which share of `unasked` packets opens nothing.
fn share_under_way(sample: &Sample, unasked: f64) -> f64 {
    let opens = f64::from(sample.opens.saturating_sub(sample.answers));
    if unasked > opens {
        (unasked - opens) / unasked
    } else {
        0.0
    }
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

/// Without a completed handshake anybody could have sent it, and so could SYNs that are refused or
/// never followed up and what is no TCP, even if the address is also that of a peer.
fn is_spoofable(sample: &Sample, coverage: Coverage) -> bool {
    let loose = sample.opens.saturating_sub(sample.syns);
    let loose = u64::from(loose.saturating_sub(sample.answers));
    coverage.proof
        && (!sample.proven
            || u64::from(failures(sample)) * 2 > sample.syns.into()
            || loose * 2 > sample.packets)
}
