use std::time::Duration;

use crate::engine::Decision;
use crate::model::{Ktime, format_duration};

/// One transition in one line:
/// `source=192.0.2.7 OBSERVE -> RATE_SOFT severity=3.00 signal=syn rate=5012/s trigger=250/s
/// strikes=3 hold=limit-new:400pps/800 until=1m`. The order of fields is part of the interface;
/// remarks in parentheses may follow, as that `::/0` stands for both families.
pub fn decision_line(decision: &Decision, now: Ktime, dry_run: bool) -> String {
    let hold = decision
        .hold
        .map_or_else(|| "none".to_owned(), |hold| hold.to_string());
    let until = decision
        .until
        .map(|until| format!(" until={}", whole_seconds(until.since(now))))
        .unwrap_or_default();
    let dry_run = if dry_run {
        " (dry run: nothing written)"
    } else {
        ""
    };
    let everyone = if decision.source.is_everyone() {
        " (everyone: IPv4 and IPv6)"
    } else {
        ""
    };
    let Decision {
        source,
        from,
        to,
        why,
        ..
    } = decision;
    format!("source={source} {from} -> {to} {why} hold={hold}{until}{everyone}{dry_run}")
}

/// A remaining time for people: rounded up, because "0s" would read as ended.
pub fn whole_seconds(left: Duration) -> String {
    format_duration(Duration::from_secs(
        left.as_secs() + u64::from(left.subsec_nanos() > 0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Kind, Signal, Why};
    use crate::model::{Hold, LimitScope, RateLimit, Stage};

    #[test]
    fn a_transition_is_one_line_whose_remarks_come_last() {
        let now = Ktime::from_secs(100);
        let limit = RateLimit {
            pps: 400.try_into().unwrap(),
            burst: 800.try_into().unwrap(),
        };
        let of = |source: &str| Decision {
            source: source.parse().unwrap(),
            from: Stage::Observe,
            to: Stage::RateSoft,
            kind: Kind::Escalate,
            hold: Some(Hold::Limit {
                limit,
                scope: LimitScope::New,
            }),
            until: Some(now + Duration::from_secs(60)),
            why: Why {
                severity: 3.0,
                signal: Signal::Syns,
                rate: 5012.0,
                trigger: 250.0,
                strikes: 3,
                nat: 1,
                proven: false,
                exempt: false,
            },
        };
        for (source, dry_run, remarks) in [
            ("192.0.2.7", false, ""),
            ("192.0.2.7", true, " (dry run: nothing written)"),
            (
                "::/0",
                true,
                " (everyone: IPv4 and IPv6) (dry run: nothing written)",
            ),
        ] {
            assert_eq!(
                decision_line(&of(source), now, dry_run),
                format!(
                    "source={source} OBSERVE -> RATE_SOFT severity=3.00 signal=syn rate=5012/s \
                     trigger=250/s strikes=3 nat=1 hold=limit-new:400pps/800 until=1m{remarks}"
                )
            );
        }
    }

    #[test]
    fn remaining_times_have_no_fractions() {
        for (millis, text) in [
            (56_000, "56s"),
            (55_001, "56s"),
            (1, "1s"),
            (0, "0s"),
            (63_500, "1m4s"),
        ] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), text);
        }
    }
}
