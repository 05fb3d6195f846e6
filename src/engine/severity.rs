//! How bad one window of one source was: 1.0 is at the threshold.
//!
//! `weighted = sum(w_i * min(rate_i / trigger_i, cap))` sees a source that is somewhat loud in
//! every respect. It cannot see one that is very loud in a single respect, because a weight below
//! 1 bounds that term; `dominant = max(rate_i / (dominance * trigger_i))`, capped, does. Severity
//! is the larger of the two.

use std::fmt;
use std::time::Duration;

use super::config::Config;
use crate::telemetry::Sample;

/// What was measured of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    Packets,
    Bytes,
    Syns,
    Ports,
    /// Packets beyond a limit that is already in place.
    Drops,
    /// Nothing was received.
    Silence,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Packets => "pps",
            Self::Bytes => "bps",
            Self::Syns => "syn",
            Self::Ports => "ports",
            Self::Drops => "drops",
            Self::Silence => "silence",
        })
    }
}

/// Shorter windows are counted as this long: one packet in a millisecond is not 1000 per second.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// Weights that make 1 are to reach the cap, and a gate set at it, in spite of rounding errors.
const ROUNDING: f64 = 1.0 + 1e-9;

/// One window of one source, scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) severity: f64,
    /// Dropped packets per second.
    pub(super) drops: f64,
    /// The signal farthest above its trigger, its rate and its trigger, both per second.
    pub(super) signal: Signal,
    pub(super) rate: f64,
    pub(super) trigger: f64,
    /// `rate / trigger`, not capped.
    pub(super) ratio: f64,
}

impl Score {
    pub(super) const SILENT: Self = Self {
        severity: 0.0,
        drops: 0.0,
        signal: Signal::Silence,
        rate: 0.0,
        trigger: 0.0,
        ratio: 0.0,
    };

    /// The score of `sample`, counted in a window of `length`.
    pub(super) fn of(config: &Config, sample: &Sample, length: Duration) -> Self {
        let per_second = 1.0 / length.max(SHORTEST_WINDOW).as_secs_f64();
        let (triggers, weights) = (&config.triggers, &config.weights);
        let terms = [
            (Signal::Syns, sample.syns as f64, triggers.syn, weights.syn),
            (
                Signal::Ports,
                f64::from(sample.ports),
                triggers.ports,
                weights.ports,
            ),
            (
                Signal::Packets,
                sample.packets as f64,
                triggers.pps,
                weights.pps,
            ),
            (
                Signal::Bytes,
                sample.bytes as f64,
                triggers.bps,
                weights.bps,
            ),
        ];
        let mut score = Self {
            drops: sample.drops as f64 * per_second,
            ..Self::SILENT
        };
        let mut weighted = 0.0;
        for (signal, count, trigger, weight) in terms {
            if trigger <= 0.0 || weight <= 0.0 {
                continue;
            }
            let rate = count * per_second;
            let ratio = rate / trigger;
            weighted += weight * ratio.min(config.cap);
            if ratio > score.ratio {
                score.signal = signal;
                score.rate = rate;
                score.trigger = trigger;
                score.ratio = ratio;
            }
        }
        let dominant = if config.dominance > 0.0 {
            (score.ratio / config.dominance).min(config.cap)
        } else {
            0.0
        };
        score.severity = dominant.max(weighted * ROUNDING);
        score
    }

    /// Whether one signal alone is loud enough to act on at once.
    pub(super) fn flashes(&self, config: &Config) -> bool {
        config.flash > 0.0 && self.ratio >= config.flash
    }
}
