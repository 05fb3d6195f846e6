//! How bad one window of one source was: 1.0 is at the threshold.
//!
//! `weighted = sum(w_i * min(rate_i / trigger_i, cap))` sees a source that is somewhat loud in
//! every respect. It cannot see one that is very loud in a single respect, because a weight below
//! 1 bounds that term; `dominant = max(rate_i / (dominance * trigger_i))`, capped, does. What took
//! long to gather (`slow`) counts by its own trigger. Severity is the largest of the three.
//!
//! Triggers are multiplied by the hosts behind an address, and divided by the pressure that
//! everybody together puts on this host. Packets that this host asked for count less.

use std::array;
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
}

/// Shorter windows are counted as this long: one packet in a millisecond is not 1000 per second.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// Weights that make 1 are to reach the cap, and a gate set at it, in spite of rounding errors.
const ROUNDING: f64 = 1.0 + 1e-9;

/// From this severity on an unproven source teaches nothing.
const LOUD: f64 = 0.5;

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

/// What a window is judged by; the first of equals is named.
const GAUGES: [Signal; 6] = [
    Signal::Syns,
    Signal::Ports,
    Signal::HalfOpen,
    Signal::Refusals,
    Signal::Packets,
    Signal::Bytes,
];

const PORTS: usize = 1;

/// What is the same for all samples of one window. Figures are by [`GAUGES`].
pub(super) struct Scale<'a> {
    config: &'a Config,
    coverage: Coverage,
    seconds: f64,
    per_second: f64,
    triggers: [f64; 6],
    /// Of the triggers, because most of a tick would be divisions; 0 of what does not count.
    inverses: [f64; 6],
    weights: [f64; 6],
    /// 0 where no signal counts alone.
    per_dominance: f64,
}

/// Counts of a window, by [`GAUGES`], up to which nobody is [`LOUD`], or leaves anything to be
/// remembered of whom nothing is: nearly everybody, who needs no score.
pub(super) struct Calm {
    pub(super) most: [u64; 6],
}

impl Calm {
    #[inline]
    pub(super) fn holds(&self, sample: &Sample, standing: &Standing) -> bool {
        let [syns, ports, half_open, refusals, packets, bytes] = self.most;
        let calm = (u64::from(sample.syns) <= syns)
            & (u64::from(sample.ports) <= ports)
            & (u64::from(sample.half_open) <= half_open)
            & (u64::from(sample.refusals) <= refusals)
            & (sample.packets <= packets)
            & (sample.bytes <= bytes);
        calm && sample.drops == 0 && standing.slow.is_none()
    }
}

/// A score, and the rates that it was made of, as seen by one host: what a trigger learns from.
pub(super) struct Scored {
    pub(super) score: Score,
    pub(super) alone: Triggers,
}

impl<'a> Scale<'a> {
    /// A weight of 0 leaves one of a profile's four signals out; the others have none.
    pub(super) fn new(config: &'a Config, length: Duration, coverage: Coverage) -> Self {
        let seconds = length.max(SHORTEST_WINDOW).as_secs_f64();
        let (ours, weights) = (&config.triggers, &config.weights);
        let (half_open, refusals) = (config.half_open_trigger(), config.refusals_trigger());
        let gauges = [
            (ours.syn, Some(weights.syn)),
            (ours.ports, Some(weights.ports)),
            (half_open, None),
            (refusals, None),
            (ours.pps, Some(weights.pps)),
            (ours.bps, Some(weights.bps)),
        ];
        // Finite, because nothing at all reaches no trigger, however small.
        let inverse = |value: f64| {
            if value > 0.0 {
                value.recip().min(f64::MAX)
            } else {
                0.0
            }
        };
        Self {
            config,
            coverage,
            seconds,
            per_second: seconds.recip(),
            triggers: gauges.map(|(trigger, _)| trigger),
            inverses: gauges.map(|(trigger, weight)| {
                let counts = weight.is_none_or(|weight| weight > 0.0);
                if counts { inverse(trigger) } else { 0.0 }
            }),
            weights: gauges.map(|(_, weight)| weight.unwrap_or(0.0)),
            per_dominance: inverse(config.dominance),
        }
    }

    /// What is calm while triggers are divided by up to `pressure`.
    pub(super) fn calm(&self, pressure: f64) -> Calm {
        let config = self.config;
        let severity = config.gate.map_or(LOUD, |gate| gate.severity.min(LOUD));
        let mut ratio = severity / self.weights.iter().sum::<f64>();
        for (at, share) in [(config.dominance, severity), (config.flash, 1.0)] {
            if at > 0.0 {
                ratio = ratio.min(at * share);
            }
        }
        let unit = ratio / ROUNDING / (pressure * self.per_second);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float-to-integer cast saturates, which is what is wanted here"
        )]
        let most = self.inverses.map(|inverse| (unit / inverse) as u64);
        Calm { most }
    }

    fn rates(&self, sample: &Sample) -> Triggers {
        let (per_second, coverage) = (self.per_second, self.coverage);
        let unasked = unasked_share(sample, coverage, self.config.evidence.consent);
        Triggers {
            pps: sample.packets as f64 * unasked * per_second,
            bps: sample.bytes as f64 * unasked * per_second,
            syn: sample.syns as f64 * per_second,
            ports: f64::from(scanned_ports(sample, coverage)) * per_second,
        }
    }

    /// See [`Scored::alone`].
    pub(super) fn alone(&self, sample: &Sample, standing: &Standing) -> Triggers {
        of_one_host(self.rates(sample), standing)
    }

    /// Whether thresholds may be learned from what was scored, whoever it was.
    pub(super) fn is_fit_to_learn(&self, score: &Score) -> bool {
        let most = match (self.coverage.proof, score.proven) {
            (true, true) => f64::INFINITY,
            (true, false) => LOUD,
            (false, _) => HIGH,
        };
        score.severity < most
    }

    pub(super) fn score(&self, sample: &Sample, standing: &Standing) -> Scored {
        let (per_second, coverage) = (self.per_second, self.coverage);
        let rates = self.rates(sample);
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
        let alone = of_one_host(rates, standing);
        Scored { score, alone }
    }

    /// Takes in everything that one window tells.
    fn weigh(&self, sample: &Sample, rates: &Triggers, score: &mut Score) {
        let per_second = |count: u32| f64::from(count) * self.per_second;
        let rates_of = [
            rates.syn,
            rates.ports,
            per_second(sample.half_open),
            per_second(refused(sample)),
            rates.pps,
            rates.bps,
        ];
        // Hosts behind one address share its ports.
        let mut factors = [score.pressure; 6];
        if score.hosts > 1 {
            let of_host = score.pressure / f64::from(score.hosts);
            factors = [of_host; 6];
            factors[PORTS] = score.pressure;
        }
        let ratios: [f64; 6] = array::from_fn(|at| rates_of[at] * self.inverses[at] * factors[at]);
        let (mut weighted, mut most, mut worst) = (0.0, 0.0, 0);
        for (at, ratio) in ratios.into_iter().enumerate() {
            weighted += self.weights[at] * least(ratio, self.config.cap);
            if ratio > most {
                (most, worst) = (ratio, at);
            }
        }
        if most > 0.0 {
            score.signal = GAUGES[worst];
            score.rate = rates_of[worst];
            score.trigger = self.triggers[worst] / factors[worst];
            score.ratio = score.rate * factors[worst] / self.triggers[worst];
        }
        let [.., packets, bytes] = ratios;
        let volume = packets.max(bytes);
        let dominant = |ratio: f64| least(ratio * self.per_dominance, self.config.cap);
        score.volume = dominant(volume);
        score.under_way = dominant(volume * share_under_way(sample, rates.pps * self.seconds));
        score.severity = dominant(score.ratio).max(weighted * ROUNDING);
    }
}

fn of_one_host(mut rates: Triggers, standing: &Standing) -> Triggers {
    if standing.hosts > 1 {
        let hosts = f64::from(standing.hosts);
        for rate in [&mut rates.pps, &mut rates.bps, &mut rates.syn] {
            *rate /= hosts;
        }
    }
    rates
}

/// [`f64::min`] of numbers is an instruction where what is no number need not be told apart.
#[inline]
fn least(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
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
