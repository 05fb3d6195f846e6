//! Log lines: for people, or one JSON object each (field names of the Elastic Common Schema).

use std::io::Write;

use env_logger::fmt::Formatter;
use log::Record;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    #[serde(rename = "log.level")]
    level: &'a str,
    #[serde(rename = "log.logger")]
    logger: &'a str,
    message: String,
}

/// Logs to standard error from now on.
pub fn log_as(json: bool) {
    let mut builder =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    builder.format_timestamp_millis();
    if json {
        builder.format(json_line);
    }
    // A second logger in one process is refused, and the first one does.
    let _ = builder.try_init();
}

fn json_line(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let line = Line {
        timestamp: out.timestamp_millis().to_string(),
        level: record.level().as_str(),
        logger: record.target(),
        message: record.args().to_string(),
    };
    let text = serde_json::to_string(&line).map_err(std::io::Error::other)?;
    writeln!(out, "{text}")
}
