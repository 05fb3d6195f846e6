//! From what was seen to what thresholds should be.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use crate::engine::Triggers;

/// What one threshold should be, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Samples it comes from.
    pub samples: u64,
    pub median: f64,
    /// Median absolute deviation, as is: without the factor to a standard deviation.
    pub mad: f64,
    /// The 99.5th percentile.
    pub high: f64,
    pub target: f64,
}

/// Where thresholds come from. Another way of estimating, by season or by kind of source, is
/// another of these.
pub trait Estimator {
    /// Takes in the rates of one source in one tick, per second.
    fn learn(&mut self, rates: &Triggers);

    /// Time passes.
    fn advance(&mut self, length: Duration);

    /// What the thresholds should be, in the order of [`METRICS`]; `k` is how many standard
    /// deviations above the median. `None` where nothing was seen.
    fn estimate(&self, k: f64) -> [Option<Estimate>; METRICS];
}

/// pps, bps, syn, ports.
pub const METRICS: usize = 4;

pub(super) const fn values(triggers: &Triggers) -> [f64; METRICS] {
    [triggers.pps, triggers.bps, triggers.syn, triggers.ports]
}

pub(super) const fn triggers([pps, bps, syn, ports]: [f64; METRICS]) -> Triggers {
    Triggers {
        pps,
        bps,
        syn,
        ports,
    }
}

/// From the median absolute deviation of normal values to their standard deviation.
const SIGMA: f64 = 1.4826;

const HIGH: f64 = 0.995;

/// Room above what was seen.
const HEADROOM: f64 = 1.1;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Days that are remembered.
const DAYS: usize = 14;

/// Histograms of the last 14 days, a set for each.
///
/// `target = max(median + k * 1.4826 * MAD, q99.5 * headroom)`, the first no more than the highest
/// value seen allows. Ticks in which a source did nothing of a kind are not samples of it: most
/// sources open a connection in few of their ticks, and a quantile over all ticks would be zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histograms {
    /// The last is running.
    days: VecDeque<[Histogram; METRICS]>,
    /// How much of the running day has passed.
    running: Duration,
}

impl Estimator for Histograms {
    fn learn(&mut self, rates: &Triggers) {
        if self.days.is_empty() {
            self.days.push_back(Default::default());
        }
        if let Some(day) = self.days.back_mut() {
            for (histogram, value) in day.iter_mut().zip(values(rates)) {
                histogram.record(value);
            }
        }
    }

    fn advance(&mut self, length: Duration) {
        self.running += length;
        if self.running < DAY {
            return;
        }
        self.running = Duration::ZERO;
        self.days.push_back(Default::default());
        while self.days.len() > DAYS {
            self.days.pop_front();
        }
    }

    fn estimate(&self, k: f64) -> [Option<Estimate>; METRICS] {
        std::array::from_fn(|metric| {
            let mut all = Histogram::default();
            for histogram in self.days.iter().filter_map(|day| day.get(metric)) {
                all.merge(histogram);
            }
            (all.total() > 0).then(|| {
                let (median, high) = (all.quantile(0.5), all.quantile(HIGH));
                let mad = all.median_distance(median);
                let spread = (median + k * SIGMA * mad).min(all.quantile(1.0));
                Estimate {
                    samples: all.total(),
                    median,
                    mad,
                    high,
                    target: spread.max(high * HEADROOM),
                }
            })
        })
    }
}
