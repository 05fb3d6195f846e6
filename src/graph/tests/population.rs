//! Readiness against populations whose truth is known.

use super::super::{Coverage, Readiness, risk};
use super::{START, edge};
use std::collections::BTreeMap;
use std::time::Duration;

/// xorshift64*: small, seeded, good enough to draw days.
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Daily chance of each edge of a population.
fn populations() -> Vec<(&'static str, Vec<f64>)> {
    let zipf = |count: u32, power: f64| {
        (1..=count)
            .map(move |i| f64::from(i).powf(-power))
            .collect()
    };
    let mut mixed: Vec<f64> = vec![0.95; 300];
    mixed.extend(vec![1.0 / 7.0; 200]);
    mixed.extend(vec![1.0 / 30.0; 150]);
    let mut office: Vec<f64> = vec![0.7; 500];
    office.extend((1..=1_000).map(|i| 0.5 * f64::from(i).powf(-0.7)));
    vec![
        ("every edge rare", vec![0.05; 2_000]),
        ("every edge weekly", vec![1.0 / 7.0; 1_000]),
        ("Zipf 1.0", zipf(3_000, 1.0)),
        ("Zipf 0.8", zipf(2_000, 0.8)),
        ("servers, weekly and monthly jobs", mixed),
        ("office", office),
    ]
}

/// Days on which each edge was seen, of `days`; and the true chance that an edge-day of the next
/// day belongs to one never seen.
fn observe(chances: &[f64], days: u64, draw: &mut Draw) -> (Vec<u64>, f64) {
    let seen: Vec<u64> = chances
        .iter()
        .map(|chance| (0..days).filter(|_| draw.unit() < *chance).count() as u64)
        .collect();
    let missed: f64 = chances
        .iter()
        .zip(&seen)
        .filter(|(_, days)| **days == 0)
        .map(|(chance, _)| chance)
        .sum();
    (seen, missed / chances.iter().sum::<f64>())
}

/// Every population and length of learning: on average within the factor, and run by run in at
/// least 19 of 20, where there are singletons enough to say anything.
#[test]
fn the_stated_risk_is_within_a_factor_of_two_of_the_true_miss_rate() {
    const RUNS: u32 = 40;
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let within = |stated: f64, truth: f64| stated <= truth * 2.0 && stated >= truth / 2.0;
    let (mut judged, mut kept) = (0, 0);
    for (name, chances) in populations() {
        for days in [3, 7, 14, 28] {
            let (mut stated_sum, mut truth_sum) = (0.0, 0.0);
            for _ in 0..RUNS {
                let (seen, truth) = observe(&chances, days, &mut draw);
                let seen: Vec<u64> = seen.into_iter().filter(|days| *days > 0).collect();
                let stated = risk(&seen, days);
                stated_sum += stated;
                truth_sum += truth;
                if seen.iter().filter(|days| **days == 1).count() >= 10 {
                    judged += 1;
                    kept += i32::from(within(stated, truth));
                }
            }
            let (stated, truth) = (stated_sum / f64::from(RUNS), truth_sum / f64::from(RUNS));
            assert!(
                within(stated, truth),
                "{name}, {days} days: stated {stated:.4}, true {truth:.4}"
            );
        }
    }
    assert!(
        judged > 800 && kept * 20 >= judged * 19,
        "{kept} of {judged}"
    );
}

#[test]
fn nothing_seen_or_one_day_only_is_no_readiness() {
    assert_eq!(risk(&[], 30), 1.0);
    assert_eq!(risk(&[1; 50], 1), 1.0);
    assert_eq!(risk(&[1; 50], 14), 1.0);
    assert_eq!(risk(&[14; 50], 14), 0.0);
}

#[test]
fn coverage_counts_days_and_hours_of_the_week_once() {
    let mut coverage = Coverage::default();
    for hour in 0..200 {
        assert_eq!(
            coverage.note(START + Duration::from_secs(hour * 3_600)),
            hour < 168 || hour % 24 == 0
        );
        assert!(!coverage.note(START + Duration::from_secs(hour * 3_600 + 60)));
    }
    assert_eq!((coverage.days, coverage.hours_of_week()), (9, 168));
}

#[test]
fn readiness_leaves_out_what_was_denied_and_what_nobody_answered() {
    use super::super::{Evidence, Record, State};
    let record = |state, days, handshakes| Record {
        days,
        seen: Evidence {
            handshakes,
            ..Evidence::default()
        },
        ..Record::new(state, START, None)
    };
    let records: BTreeMap<_, _> = [
        (edge("10.0.0.1", "tcp/1"), record(State::Learned, 10, 5)),
        (edge("10.0.0.2", "tcp/1"), record(State::Frozen, 1, 1)),
        (edge("10.0.0.3", "tcp/1"), record(State::Candidate, 1, 0)),
        (edge("10.0.0.4", "tcp/1"), record(State::Denied, 1, 1)),
        (edge("10.0.0.5", "udp/1"), record(State::Candidate, 1, 0)),
    ]
    .into();
    let coverage = Coverage {
        days: 10,
        ..Coverage::default()
    };
    let readiness = Readiness::of(&records, &coverage, 0);
    assert_eq!(
        readiness.singletons,
        [edge("10.0.0.2", "tcp/1"), edge("10.0.0.5", "udp/1")]
    );
    assert_eq!(
        (
            readiness.accepted,
            readiness.candidates,
            readiness.edge_days
        ),
        (2, 2, 12)
    );
    // Two of twelve edge-days are singletons, one of twelve is a candidate's.
    let expected = 2.0 / 12.0 + 10.0 / 12.0 / 12.0;
    assert!((readiness.risk - expected).abs() < 1e-9);
    assert!(!readiness.is_ready());
}
