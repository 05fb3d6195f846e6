//! Log lines: for people, or one JSON object each (field names of the Elastic Common Schema).

use std::io::Write;

use env_logger::TimestampPrecision;
use env_logger::fmt::{ConfigurableFormat, Formatter};
use log::Record;
use log::kv::{self, Key, Value, VisitSource};
use serde_json::{Map, Value as Json};

use crate::model::printable;

/// Logs to standard error from now on.
pub fn log_as(json: bool) {
    let mut builder =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    if json {
        builder.format(json_line);
    } else {
        builder.format(text_line);
    }
    // A second logger in one process is refused, and the first one does.
    let _ = builder.try_init();
}

fn text_line(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let mut format = ConfigurableFormat::default();
    format.timestamp(Some(TimestampPrecision::Millis));
    let message = record.args().to_string();
    format.format(
        out,
        &Record::builder()
            .args(format_args!("{}", printable(&message)))
            .level(record.level())
            .target(record.target())
            .build(),
    )
}

/// The version of the schema whose names are used.
const ECS: &str = "8.11.0";

/// Fields of a record, as JSON.
struct Fields(Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let json = if let Some(truth) = value.to_bool() {
            truth.into()
        } else if let Some(count) = value.to_u64() {
            count.into()
        } else if let Some(number) = value.to_f64() {
            number.into()
        } else {
            value.to_string().into()
        };
        self.0.insert(key.as_str().to_owned(), json);
        Ok(())
    }
}

fn json_line(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let mut fields = Fields(Map::new());
    record
        .key_values()
        .visit(&mut fields)
        .map_err(std::io::Error::other)?;
    let mut line = fields.0;
    if line.contains_key("event.action") {
        let category = ["network", "intrusion_detection"];
        line.insert("event.category".to_owned(), category.as_slice().into());
        line.insert("event.dataset".to_owned(), "kernloom.iq".into());
    }
    for (key, value) in [
        ("@timestamp", out.timestamp_millis().to_string()),
        ("ecs.version", ECS.to_owned()),
        ("event.module", "kernloom".to_owned()),
        ("log.level", record.level().as_str().to_lowercase()),
        ("log.logger", record.target().to_owned()),
        ("message", record.args().to_string()),
    ] {
        line.insert(key.to_owned(), value.into());
    }
    let text = serde_json::to_string(&line).map_err(std::io::Error::other)?;
    writeln!(out, "{text}")
}
