//! A budget for mistakes: if decisions would touch too much of what proven sources send, the
//! mildest of them are not made.

use super::config::Config;
use super::decision::Decision;
use super::roster::Roster;
use crate::model::Stage;
use crate::telemetry::Sample;

/// What may be touched. Each proven source counts with its packets up to the packet trigger, so
/// that an attacker does not become too big to be held.
pub(super) struct Allowance {
    share: f64,
    sources: usize,
    most_packets: f64,
    total: f64,
    touched: f64,
    held: usize,
}

impl Allowance {
    pub(super) fn new(config: &Config) -> Self {
        let trigger = config.triggers.pps;
        Self {
            share: config.collateral.share,
            sources: config.collateral.sources,
            most_packets: if trigger > 0.0 {
                trigger
            } else {
                f64::INFINITY
            },
            total: 0.0,
            touched: 0.0,
            held: 0,
        }
    }

    fn worth(&self, packets: f64) -> f64 {
        packets.min(self.most_packets)
    }

    /// Takes in one source and the stage it is to be at.
    pub(super) fn see(&mut self, sample: &Sample, stage: Stage) {
        if !sample.proven {
            return;
        }
        let worth = self.worth(sample.packets as f64);
        self.total += worth;
        if stage > Stage::Observe {
            self.touched += worth;
            self.held += 1;
        }
    }

    /// Takes back what exceeds the budget, the least severe first; how many that were. `proven`
    /// has, for each proven source that is to leave OBSERVE, its decision and its packets.
    pub(super) fn withhold(
        mut self,
        roster: &mut Roster,
        decisions: &mut Vec<Decision>,
        proven: &[(usize, f64)],
    ) -> u64 {
        let exceeds = |budget: &Self| {
            budget.held > budget.sources && budget.touched > budget.share * budget.total
        };
        if !exceeds(&self) {
            return 0;
        }
        let mut by_severity: Vec<_> = proven
            .iter()
            .filter_map(|(at, packets)| Some((*at, *packets, decisions.get(*at)?.why.severity)))
            .collect();
        by_severity.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
        let mut taken_back = Vec::new();
        for (at, packets, _) in by_severity {
            if !exceeds(&self) {
                break;
            }
            let Some(decision) = decisions.get(at) else {
                continue;
            };
            if let Some(ladder) = roster.ladders.get_mut(&decision.source) {
                ladder.withhold();
            }
            self.touched -= self.worth(packets);
            self.held -= 1;
            taken_back.push(at);
        }
        taken_back.sort_unstable();
        let mut at = 0;
        decisions.retain(|_| {
            let keep = taken_back.binary_search(&at).is_err();
            at += 1;
            keep
        });
        u64::try_from(taken_back.len()).unwrap_or(u64::MAX)
    }
}
