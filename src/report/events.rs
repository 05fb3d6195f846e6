//! What the program reported by itself, between ticks.

use serde::{Deserialize, Serialize};

use super::json::document;
use crate::dataplane::{Event, What};
use crate::model::{Moment, Wall};

/// One event, as `shield events` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Counts up while one IQ runs.
    pub number: u64,
    /// RFC 3339, UTC.
    pub time: String,
    pub source: String,
    /// `ports`: many destination ports at once; `violation`: the frozen graph lacks the edge.
    pub kind: String,
    /// Bits set in the port sketch, of an event of that kind.
    pub port_bits: Option<u32>,
    /// Of a violation.
    pub direction: Option<String>,
    pub service: Option<String>,
}

impl EventLine {
    /// `now`: any moment of this boot, for the time of day.
    pub fn of(number: u64, event: &Event, now: Moment) -> Self {
        let (kind, port_bits, edge) = match event.what {
            What::Ports(bits) => ("ports", Some(bits), None),
            What::Violation(direction, service) => ("violation", None, Some((direction, service))),
        };
        Self {
            number,
            time: Wall::from_secs(now.unix_ms(event.time) / 1_000).to_string(),
            source: event.source.to_string(),
            kind: kind.to_owned(),
            port_bits,
            direction: edge.map(|(direction, _)| direction.to_string()),
            service: edge.map(|(_, service)| service.to_string()),
        }
    }

    fn text(&self) -> String {
        let what = match (&self.direction, &self.service) {
            (Some(direction), Some(service)) => {
                format!("{direction} {service} is not in the frozen graph")
            }
            _ => "many ports at once".to_owned(),
        };
        format!(
            "{:<20}  {:<24}  {:<9}  {what}\n",
            self.time, self.source, self.kind
        )
    }
}

/// The headings of [`event_lines`].
pub fn event_headings() -> String {
    format!("{:<20}  {:<24}  {:<9}  WHAT\n", "TIME", "SOURCE", "KIND")
}

pub fn event_lines(events: &[EventLine]) -> String {
    events.iter().map(EventLine::text).collect()
}

/// All of them in one object.
pub fn events_json(events: &[EventLine]) -> String {
    #[derive(Serialize)]
    struct Events<'a> {
        events: &'a [EventLine],
    }
    document("events", &Events { events })
}

/// One object each, for a reader that follows.
pub fn event_json_lines(events: &[EventLine]) -> String {
    let line = |event: &EventLine| document("event", event);
    events.iter().map(line).collect()
}
