//! Counts of values in buckets whose width grows with the value: log-linear, as in HdrHistogram,
//! <https://hdrhistogram.github.io/HdrHistogram/>. Bounded in memory whatever is recorded.

use serde::{Deserialize, Serialize};

/// Bits of the mantissa that tell buckets of one octave apart: 16, so a bucket's middle is within
/// 1/32 of every value in it.
const SUB_BITS: u32 = 4;
const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - SUB_BITS;

/// Exponent of the smallest and of the largest value that is told apart.
const LOWEST: i32 = -4;
const HIGHEST: i32 = 41;

const BUCKETS: usize = ((HIGHEST - LOWEST) as usize) << SUB_BITS;

/// Positive values; how often each occurred, to a thirtieth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(usize, u32)>", into = "Vec<(usize, u32)>")]
pub struct Histogram {
    counts: Box<[u32]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts `value`; what is not above zero is not counted.
    pub fn record(&mut self, value: f64) {
        if value > 0.0
            && let Some(count) = self.counts.get_mut(bucket(value))
            && *count < u32::MAX
        {
            *count += 1;
            self.total += 1;
        }
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            let sum = count.saturating_add(*more);
            self.total += u64::from(sum - *count);
            *count = sum;
        }
    }

    /// The value that `share` of all values do not exceed, 0 to 1; 0 if nothing was counted.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.total as f64;
        let mut seen = 0.0;
        for (value, count) in self.filled() {
            seen += count;
            if seen >= rank {
                return value;
            }
        }
        0.0
    }

    /// The median of the distances to `center`.
    pub fn median_distance(&self, center: f64) -> f64 {
        let mut distances: Vec<_> = self
            .filled()
            .map(|(value, count)| ((value - center).abs(), count))
            .collect();
        distances.sort_by(|a, b| a.0.total_cmp(&b.0));
        let half = self.total as f64 / 2.0;
        let mut seen = 0.0;
        for (distance, count) in distances {
            seen += count;
            if seen >= half {
                return distance;
            }
        }
        0.0
    }

    /// Middle and count of each bucket that holds anything, in rising order.
    fn filled(&self) -> impl Iterator<Item = (f64, f64)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| (middle(bucket), f64::from(*count)))
    }
}

/// Exponent and leading mantissa bits, counted from the lowest bucket; values outside are in the
/// outermost buckets.
fn bucket(value: f64) -> usize {
    let lowest = 2f64.powi(LOWEST).to_bits() >> SHIFT;
    let at = (value.to_bits() >> SHIFT).saturating_sub(lowest);
    usize::try_from(at).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

fn middle(bucket: usize) -> f64 {
    let lowest = 2f64.powi(LOWEST).to_bits() >> SHIFT;
    let edge = |at: u64| f64::from_bits((lowest + at) << SHIFT);
    let at = bucket as u64;
    f64::midpoint(edge(at), edge(at + 1))
}

impl From<Histogram> for Vec<(usize, u32)> {
    /// Buckets that hold anything.
    fn from(histogram: Histogram) -> Self {
        let counts = histogram.counts.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

impl TryFrom<Vec<(usize, u32)>> for Histogram {
    type Error = String;

    fn try_from(filled: Vec<(usize, u32)>) -> Result<Self, Self::Error> {
        let mut histogram = Self::default();
        for (bucket, count) in filled {
            let held = histogram
                .counts
                .get_mut(bucket)
                .ok_or_else(|| format!("histogram bucket {bucket} is not below {BUCKETS}"))?;
            if *held != 0 {
                return Err(format!("histogram bucket {bucket} occurs twice"));
            }
            *held = count;
            histogram.total += u64::from(count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_within_a_thirtieth() {
        for value in [0.07, 0.5, 1.0, 7.0, 99.0, 1_200.0, 3.3e6, 1.6e9, 9.9e11] {
            let mut histogram = Histogram::default();
            histogram.record(value);
            let back = histogram.quantile(0.5);
            assert!((back / value - 1.0).abs() <= 1.0 / 31.0, "{value}: {back}");
        }
    }

    #[test]
    fn quantiles_follow_ranks_and_zeros_do_not_count() {
        let mut histogram = Histogram::default();
        for value in 0..=1_000 {
            histogram.record(f64::from(value));
        }
        assert_eq!(histogram.total(), 1_000);
        for (share, expected) in [(0.5, 500.0), (0.9, 900.0), (0.995, 995.0)] {
            let value = histogram.quantile(share);
            assert!((value / expected - 1.0).abs() < 0.04, "{share}: {value}");
        }
        let spread = histogram.median_distance(500.0);
        assert!((spread / 250.0 - 1.0).abs() < 0.05, "{spread}");
    }

    #[test]
    fn values_beyond_the_range_stay_in_it() {
        let mut histogram = Histogram::default();
        for value in [1e-300, 1e300, f64::INFINITY, f64::NAN, -1.0] {
            histogram.record(value);
        }
        assert_eq!(histogram.total(), 3);
        assert!(histogram.quantile(1.0) < 3e12);
    }

    #[test]
    fn it_is_written_sparsely_and_read_strictly() {
        let mut histogram = Histogram::default();
        histogram.record(1.0);
        histogram.record(1.0);
        let json = serde_json::to_string(&histogram).unwrap();
        assert_eq!(json, "[[64,2]]");
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
        for bad in ["[[100000,1]]", "[[1,1],[1,1]]", "[[1,-1]]"] {
            assert!(serde_json::from_str::<Histogram>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn merging_adds() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(10.0);
        other.record(10.0);
        other.record(1_000.0);
        one.merge(&other);
        assert_eq!(one.total(), 3);
        assert!(one.quantile(1.0) > 900.0);
    }
}
