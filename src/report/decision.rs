use std::time::Duration;

use crate::engine::Decision;
use crate::model::{Ktime, format_duration};

/// One transition in one line:
/// `source=192.0.2.7 OBSERVE -> RATE_SOFT severity=3.00 signal=syn rate=5012/s trigger=250/s
/// strikes=3 hold=limit-new:400pps/800 until=1m`. The order of fields is part of the interface.
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
    let Decision {
        source,
        from,
        to,
        why,
        ..
    } = decision;
    format!("source={source} {from} -> {to} {why} hold={hold}{until}{dry_run}")
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
