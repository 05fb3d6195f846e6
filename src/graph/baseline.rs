/// What rate an edge usually has, in packets per second over the ticks in which it was seen:
/// exponentially weighted mean and mean absolute deviation, and the peak.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Baseline {
    pub mean_pps: f64,
    pub deviation_pps: f64,
    pub peak_pps: f64,
    pub ticks: u64,
}

/// Weight of a new tick while the mean settles, and after.
const ALPHA_FIRST: f64 = 0.10;
const ALPHA: f64 = 0.02;
/// Ticks until the mean has settled.
const SETTLED: u64 = 30;
/// How many deviations above its mean an edge has to run to be worth telling.
const SURGE: f64 = 5.0;
/// No edge is steadier than half its mean or than one packet per second: below that, change is
/// not news.
const LEAST_SHARE: f64 = 0.5;
const LEAST_PPS: f64 = 1.0;

impl Baseline {
    pub fn update(&mut self, pps: f64) {
        let alpha = if self.ticks < SETTLED {
            ALPHA_FIRST
        } else {
            ALPHA
        };
        if self.ticks == 0 {
            self.mean_pps = pps;
        } else {
            self.deviation_pps += alpha * ((pps - self.mean_pps).abs() - self.deviation_pps);
            self.mean_pps += alpha * (pps - self.mean_pps);
        }
        self.peak_pps = self.peak_pps.max(pps);
        self.ticks += 1;
    }

    /// How many deviations `pps` lies above the mean, if that is many. Upwards only: an edge that
    /// goes quiet harms nobody. It is news for the operator, and never a strike against a source.
    pub fn surge(&self, pps: f64) -> Option<f64> {
        if self.ticks < SETTLED {
            return None;
        }
        let least = (self.mean_pps * LEAST_SHARE).max(LEAST_PPS);
        let deviations = (pps - self.mean_pps) / self.deviation_pps.max(least);
        (deviations > SURGE).then_some(deviations)
    }
}
