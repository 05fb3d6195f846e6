//! Decisions as events: the fields that a JSON log line has beside its text.

use log::kv::Value;
use log::{Level, Record};

use crate::engine::{Decision, Kind};

/// Logs a decision. `line` is for people; as JSON it is one object whose fields are those of the
/// Elastic Common Schema where it has one, and `kernloom.*` where it has none:
/// packaging/schemas/decision-event.schema.json.
pub fn log_decision(level: Level, target: &str, line: &str, decision: &Decision, dry_run: bool) {
    let why = &decision.why;
    let source = decision.source;
    let address = source.to_string();
    let (kind, from, to) = (
        decision.kind.to_string(),
        decision.from.to_string(),
        decision.to.to_string(),
    );
    let hold = decision
        .hold
        .map_or_else(|| "none".to_owned(), |hold| hold.to_string());
    let signal = why.signal.to_string();
    let family = if source.is_ipv4() { "ipv4" } else { "ipv6" };
    let event_kind = match decision.kind {
        Kind::Escalate => "alert",
        Kind::Renew | Kind::Release => "event",
    };
    let mut fields: Vec<(&str, Value<'_>)> = vec![
        ("event.kind", event_kind.into()),
        ("event.action", kind.as_str().into()),
        ("rule.name", signal.as_str().into()),
        ("source.address", address.as_str().into()),
        ("network.type", family.into()),
        ("kernloom.stage.from", from.as_str().into()),
        ("kernloom.stage.to", to.as_str().into()),
        ("kernloom.severity", why.severity.into()),
        ("kernloom.rate", why.rate.into()),
        ("kernloom.trigger", why.trigger.into()),
        ("kernloom.strikes", why.strikes.into()),
        ("kernloom.hold", hold.as_str().into()),
        ("kernloom.dry_run", dry_run.into()),
    ];
    // An `ip` field takes no prefix.
    if source.bits() == 128 {
        fields.push(("source.ip", address.as_str().into()));
    }
    let fields = fields.as_slice();
    log::logger().log(
        &Record::builder()
            .level(level)
            .target(target)
            .module_path_static(Some(module_path!()))
            .args(format_args!("{line}"))
            .key_values(&fields)
            .build(),
    );
}
