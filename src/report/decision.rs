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
        .map(|until| format!(" until={}", format_duration(until.since(now))))
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
