//! Is the graph complete enough to freeze?
//!
//! The unit is one edge on one day. With `Q1` edges seen on exactly one day, `Q2` on two, `U` edge-days
//! in all over `T` days, the chance that the next edge-day belongs to an edge never seen before is
//! estimated by Good and Turing's estimator for incidence data (Good, "The population frequencies of
//! species and the estimation of population parameters", 1953; Chao and Jost, "Coverage-based
//! rarefaction and extrapolation", 2012, eq. 4a):
//!
//! ```text
//! risk = Q1 / U * (T - 1) Q1 / ((T - 1) Q1 + 2 Q2)
//! ```
//!
//! It cannot know what a part of the week hides in which nothing was observed: that is told beside it.

use std::collections::BTreeMap;

use super::{Edge, Record, State};
use crate::model::Wall;

/// The risk above which a freeze wants to be told that it is accepted.
pub const MOST_RISK: f64 = 0.05;

/// When learning ran: days, and which hours of the week.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    pub days: u64,
    /// One bit per hour of the week, from Monday 00:00 UTC; the upper 88 are not used.
    pub hours: [u64; 3],
    pub last: Option<Wall>,
}

pub const HOURS_OF_WEEK: u32 = 168;

impl Coverage {
    /// Notes that learning ran at `now`. True if that is news worth storing.
    pub fn note(&mut self, now: Wall) -> bool {
        let hour = now.hour_of_week();
        let (word, bit) = (usize::from(hour / 64), 1 << (hour % 64));
        let new_day = self.last.is_none_or(|last| last.day() != now.day());
        let new_hour = self.hours.get(word).is_some_and(|hours| hours & bit == 0);
        self.days += u64::from(new_day);
        if let Some(hours) = self.hours.get_mut(word) {
            *hours |= bit;
        }
        self.last = Some(now);
        new_day || new_hour
    }

    pub fn hours_of_week(&self) -> u32 {
        self.hours.iter().map(|word| word.count_ones()).sum()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Readiness {
    /// Chance that the next edge-day belongs to an edge that a freeze now would leave out, because
    /// it was not seen so far or has not earned its place: 0..=1.
    pub risk: f64,
    /// Days on which learning ran.
    pub days: u64,
    /// Hours of the week, of 168, in which learning ever ran.
    pub hours_of_week: u32,
    /// Edges a freeze would take in.
    pub accepted: usize,
    /// Edges that have not earned it yet.
    pub candidates: usize,
    /// Edges seen on exactly one day, in order.
    pub singletons: Vec<Edge>,
    /// Edge-days seen.
    pub edge_days: u64,
    /// Sources of which new edges teach nothing now: they tried many services in vain.
    pub scanners: usize,
}

impl Readiness {
    pub fn of(records: &BTreeMap<Edge, Record>, coverage: &Coverage, scanners: usize) -> Self {
        let counted = |edge: &Edge, record: &Record| {
            record.days > 0
                && !matches!(
                    record.state,
                    State::Denied | State::Expired | State::Removed
                )
                && (!edge.service.is_tcp() || record.seen.handshakes > 0)
        };
        let legitimate: Vec<(&Edge, &Record)> = records
            .iter()
            .filter(|(edge, record)| counted(edge, record))
            .collect();
        let days: Vec<u64> = legitimate.iter().map(|(_, record)| record.days).collect();
        let in_state = |wanted: &dyn Fn(State) -> bool| {
            records
                .values()
                .filter(|record| wanted(record.state))
                .count()
        };
        let edge_days: u64 = days.iter().sum();
        let left_out: u64 = legitimate
            .iter()
            .filter(|(_, record)| !record.state.is_accepted())
            .map(|(_, record)| record.days)
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let left_out = left_out as f64 / edge_days.max(1) as f64;
        let unseen = risk(&days, coverage.days);
        Self {
            risk: unseen + (1.0 - unseen) * left_out,
            days: coverage.days,
            hours_of_week: coverage.hours_of_week(),
            accepted: in_state(&State::is_accepted),
            candidates: in_state(&|state| state == State::Candidate),
            singletons: legitimate
                .iter()
                .filter(|(_, record)| record.days == 1)
                .map(|(edge, _)| (*edge).clone())
                .collect(),
            edge_days,
            scanners,
        }
    }

    /// Whether a freeze needs nobody to accept a risk.
    pub fn is_ready(&self) -> bool {
        self.risk <= MOST_RISK
    }
}

/// `days`: of each edge, on how many it was seen; `observed`: on how many learning ran.
pub fn risk(days: &[u64], observed: u64) -> f64 {
    let count = |wanted| days.iter().filter(|days| **days == wanted).count();
    let float = |number: u64| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let float = number as f64;
        float
    };
    let total = float(days.iter().sum());
    if observed < 2 || total == 0.0 {
        return 1.0;
    }
    let (once, twice) = (float(count(1) as u64), float(count(2) as u64));
    if once == 0.0 {
        return 0.0;
    }
    let trials = float(observed - 1) * once;
    once / total * trials / (trials + 2.0 * twice)
}
