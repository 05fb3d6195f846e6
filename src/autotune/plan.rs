use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::Triggers;

const HOUR: u64 = 3_600;

/// How far bootstrap has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Bootstrap1,
    Bootstrap2,
    Bootstrap3,
    Steady,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bootstrap1 => "bootstrap-1",
            Self::Bootstrap2 => "bootstrap-2",
            Self::Bootstrap3 => "bootstrap-3",
            Self::Steady => "steady",
        })
    }
}

/// What holds during one phase. Shares are of the value before, 0 to 1 downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub interval: Duration,
    /// Most that one step changes.
    pub max_up: f64,
    pub max_down: f64,
    /// Most that all steps of one day change together.
    pub day_up: f64,
    pub day_down: f64,
    /// Share of the way to the target that one step takes, before the bounds.
    pub alpha: f64,
}

/// When to tune, and how far.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub phase1_end: Duration,
    pub phase2_end: Duration,
    /// Length of the bootstrap.
    pub window: Duration,
    pub phase1: Step,
    pub phase2: Step,
    pub phase3: Step,
    pub steady: Step,
    /// Standard deviations above the median, from the start of the bootstrap to its end.
    pub k_start: f64,
    pub k_final: f64,
    /// Samples of a signal before its threshold is touched.
    pub min_samples: u64,
    /// No threshold falls below; 0 leaves its threshold alone.
    pub floors: Triggers,
    /// No threshold rises above this multiple of what the profile says, or of the floor if that
    /// is more.
    pub ceiling: f64,
}

impl Default for Plan {
    /// 0-48 h every hour, 48 h-5 d every 6 h, 5-14 d every day, then every 84 h.
    fn default() -> Self {
        let step = |hours, up, down, day_up, day_down, alpha| Step {
            interval: Duration::from_secs(hours * HOUR),
            max_up: up,
            max_down: down,
            day_up,
            day_down,
            alpha,
        };
        Self {
            phase1_end: Duration::from_secs(48 * HOUR),
            phase2_end: Duration::from_secs(120 * HOUR),
            window: Duration::from_secs(336 * HOUR),
            phase1: step(1, 0.10, 0.10, 1.0, 0.75, 1.0),
            phase2: step(6, 0.20, 0.20, 0.5, 0.5, 1.0),
            phase3: step(24, 0.25, 0.30, 0.25, 0.30, 1.0),
            steady: step(84, 0.10, 0.10, 0.10, 0.10, 0.5),
            k_start: 4.0,
            k_final: 3.5,
            min_samples: 500,
            floors: Triggers::default(),
            ceiling: 20.0,
        }
    }
}

impl Plan {
    /// The phase after `observed`.
    pub fn phase(&self, observed: Duration) -> Phase {
        if observed >= self.window {
            Phase::Steady
        } else if observed < self.phase1_end {
            Phase::Bootstrap1
        } else if observed < self.phase2_end {
            Phase::Bootstrap2
        } else {
            Phase::Bootstrap3
        }
    }

    pub fn step(&self, phase: Phase) -> &Step {
        match phase {
            Phase::Bootstrap1 => &self.phase1,
            Phase::Bootstrap2 => &self.phase2,
            Phase::Bootstrap3 => &self.phase3,
            Phase::Steady => &self.steady,
        }
    }

    /// Linear from start to end of the bootstrap.
    pub fn k(&self, observed: Duration) -> f64 {
        let whole = self.window.as_secs_f64();
        let share = if whole > 0.0 {
            (observed.as_secs_f64() / whole).min(1.0)
        } else {
            1.0
        };
        self.k_start + (self.k_final - self.k_start) * share
    }
}
