use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::estimator::{Estimate, Estimator, Histograms, METRICS, triggers, values};
use super::plan::{Phase, Plan, Step};
use crate::engine::{Overview, Triggers};

/// Revisions that are remembered.
const HISTORY: usize = 30;

/// Longest window that counts as observed; what is beyond was a stall.
const LONGEST: Duration = Duration::from_secs(60);

/// Seconds of a day.
const DAY: f64 = 24.0 * 3_600.0;

/// One tuning: what the thresholds became and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    pub revision: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub phase: Phase,
    pub k: f64,
    pub triggers: Triggers,
    /// By pps, bps, syn, ports; none where there was nothing to learn from.
    pub estimates: [Option<Estimate>; METRICS],
    /// Share of the samples since the last revision that were fit to learn from.
    pub clean_share: f64,
}

/// What outlives a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunerState<E = Histograms> {
    /// The profile that `triggers` started from.
    pub profile: String,
    /// What it said then; states of before it was kept have none.
    #[serde(default)]
    pub start: Option<Triggers>,
    pub triggers: Triggers,
    /// Seconds of traffic seen: the age of the bootstrap.
    pub observed: f64,
    /// Seconds since the last tuning, or since one was due and had too few samples.
    pub since_tuning: f64,
    /// Thresholds that were in force within the last day, with the seconds of traffic seen when
    /// they were replaced, oldest first.
    pub replaced: VecDeque<(f64, Triggers)>,
    pub seen: u64,
    pub learned: u64,
    pub estimator: E,
    pub history: VecDeque<Revision>,
}

/// Moves thresholds towards what the estimator says, on schedule and within bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuner<E = Histograms> {
    plan: Plan,
    /// What the profile says; nothing here is learned.
    start: Triggers,
    state: TunerState<E>,
}

impl<E: Estimator + Default> Tuner<E> {
    /// `start`: the triggers of the profile of that name. One that is 0 is off and stays off.
    pub fn new(plan: Plan, profile: &str, start: Triggers) -> Self {
        let state = TunerState {
            profile: profile.to_owned(),
            start: Some(start),
            triggers: start,
            observed: 0.0,
            since_tuning: 0.0,
            replaced: VecDeque::new(),
            seen: 0,
            learned: 0,
            estimator: E::default(),
            history: VecDeque::new(),
        };
        Self { plan, start, state }
    }

    /// Goes on from `state`. What was seen and the age of the bootstrap belong to the host and
    /// stay, whatever the configuration; thresholds that were learned from another profile do
    /// not, and neither do thresholds of signals that the profile does not use, or of which it says
    /// something else by now.
    pub fn restore(plan: Plan, profile: &str, start: Triggers, mut state: TunerState<E>) -> Self {
        if state.profile != profile {
            profile.clone_into(&mut state.profile);
            state.triggers = start;
            state.replaced.clear();
        }
        let before = values(&state.start.unwrap_or(start));
        let keep = |learned: Triggers| {
            let mut kept = values(&learned);
            let starts = values(&start).into_iter().zip(before);
            for (kept, (start, before)) in kept.iter_mut().zip(starts) {
                let anew = (start - before).abs() > f64::EPSILON;
                if anew || start <= 0.0 || !kept.is_finite() || *kept <= 0.0 {
                    *kept = start;
                }
            }
            triggers(kept)
        };
        state.triggers = keep(state.triggers);
        for (_, triggers) in &mut state.replaced {
            *triggers = keep(*triggers);
        }
        state.start = Some(start);
        Self { plan, start, state }
    }

    pub fn state(&self) -> &TunerState<E> {
        &self.state
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn triggers(&self) -> Triggers {
        self.state.triggers
    }

    pub fn observed(&self) -> Duration {
        seconds(self.state.observed)
    }

    pub fn phase(&self) -> Phase {
        self.plan.phase(self.observed())
    }

    /// Observed time until the next tuning.
    pub fn due_in(&self) -> Duration {
        let interval = self.plan.step(self.phase()).interval;
        interval.saturating_sub(seconds(self.state.since_tuning))
    }

    /// Oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Revision> {
        self.state.history.iter()
    }

    /// Takes in the rates of one source in one tick.
    pub fn learn(&mut self, rates: &Triggers) {
        self.state.estimator.learn(rates);
    }

    /// Ends a tick of `length` that ended at `at_ms` of the time of day. When the thresholds
    /// changed, or could have: what they are now.
    pub fn tick(&mut self, length: Duration, overview: &Overview, at_ms: u64) -> Option<Revision> {
        let length = length.min(LONGEST);
        let state = &mut self.state;
        state.estimator.advance(length);
        state.observed += length.as_secs_f64();
        state.since_tuning += length.as_secs_f64();
        state.seen += overview.sources;
        state.learned += overview.learned;
        if !self.due_in().is_zero() {
            return None;
        }
        self.tune(at_ms)
    }

    fn tune(&mut self, at_ms: u64) -> Option<Revision> {
        let (phase, k) = (self.phase(), self.plan.k(self.observed()));
        let estimates = self.state.estimator.estimate(k);
        self.state.since_tuning = 0.0;
        let enough = |estimate: &Option<Estimate>| {
            estimate.is_some_and(|estimate| estimate.samples >= self.plan.min_samples)
        };
        if !estimates.iter().any(enough) {
            return None;
        }
        let step = self.plan.step(phase);
        let now = self.state.observed;
        self.state.replaced.retain(|(at, _)| now - at <= DAY);
        let old = values(&self.state.triggers);
        let day: Vec<_> = self.state.replaced.iter().map(|(_, t)| values(t)).collect();
        let of_day = |metric: usize| day.iter().map(move |values| values[metric]);
        let (floors, start) = (values(&self.plan.floors), values(&self.start));
        let mut new = old;
        for (metric, estimate) in estimates.iter().enumerate() {
            let Some(estimate) = estimate.filter(|_| enough(estimate)) else {
                continue;
            };
            let bounds = Bounds {
                old: old[metric],
                day_low: of_day(metric).fold(old[metric], f64::min),
                day_high: of_day(metric).fold(old[metric], f64::max),
                floor: floors[metric],
                ceiling: self.plan.ceiling * start[metric].max(floors[metric]),
            };
            if start[metric] > 0.0 && floors[metric] > 0.0 {
                new[metric] = bounds.step(step, estimate.target);
            }
        }
        if new != old {
            self.state.replaced.push_back((now, triggers(old)));
        }
        self.state.triggers = triggers(new);
        let history = &mut self.state.history;
        let revision = Revision {
            revision: history.back().map_or(1, |last| last.revision + 1),
            at_ms,
            phase,
            k,
            triggers: self.state.triggers,
            estimates,
            clean_share: self.state.learned as f64 / self.state.seen.max(1) as f64,
        };
        (self.state.seen, self.state.learned) = (0, 0);
        history.push_back(revision.clone());
        while history.len() > HISTORY {
            history.pop_front();
        }
        Some(revision)
    }
}

/// What holds one threshold.
struct Bounds {
    old: f64,
    /// Lowest and highest of the last day.
    day_low: f64,
    day_high: f64,
    floor: f64,
    ceiling: f64,
}

impl Bounds {
    /// The threshold after a step towards `target`. A floor above the old value does not get past
    /// the bounds either: a profile's own figure may be more sensitive than its floor.
    fn step(&self, step: &Step, target: f64) -> f64 {
        let target = target.max(self.floor).min(self.ceiling.max(self.floor));
        let wanted = self.old + step.alpha * (target - self.old);
        let low = (self.old * (1.0 - step.max_down)).max(self.day_high * (1.0 - step.day_down));
        let high = (self.old * (1.0 + step.max_up)).min(self.day_low * (1.0 + step.day_up));
        wanted.clamp(low.min(high), high)
    }
}

/// Seconds of a state file, which may hold anything.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}
