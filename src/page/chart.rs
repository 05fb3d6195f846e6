//! The pictures: SVG, drawn here, so that the page needs no script.

use super::Report;
use super::html::{escaped, number};
use crate::model::Wall;
use crate::state::Record;

/// Mildest first.
pub(super) const STAGES: [&str; 4] = ["OBSERVE", "RATE_SOFT", "RATE_HARD", "BLOCK"];

/// Where a stage stands in [`STAGES`].
pub(super) fn rank(stage: &str) -> usize {
    STAGES.iter().position(|one| *one == stage).unwrap_or(0)
}

/// The loudest source and the thresholds of one moment, per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    pub time: Wall,
    /// Packets, bytes, SYNs and ports, like `triggers`.
    pub peaks: [f64; 4],
    pub triggers: [f64; 4],
}

/// As decisions name them, with what they count.
const SIGNALS: [(&str, &str); 4] = [
    ("pps", "packets"),
    ("bps", "bytes"),
    ("syn", "SYNs"),
    ("ports", "ports"),
];

const WIDTH: f64 = 960.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 16.0;

/// Time to x.
struct Axis {
    from: f64,
    span: f64,
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
fn seconds(time: Wall) -> f64 {
    time.as_secs() as f64
}

impl Axis {
    fn of(report: &Report) -> Self {
        let from = seconds(report.from);
        Self {
            from,
            span: (seconds(report.to) - from).max(1.0),
        }
    }

    fn x(&self, time: Wall) -> f64 {
        let share = ((seconds(time) - self.from) / self.span).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    /// Five lines with their times of day below.
    fn draw(&self, height: f64, svg: &mut String) {
        for step in 0..5_u32 {
            let share = f64::from(step) / 4.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "seconds since 1970"
            )]
            let time = Wall::from_secs((self.from + share * self.span) as u64);
            let x = self.x(time);
            let text = time.to_string();
            let label = text.get(5..16).unwrap_or(&text).replace('T', " ");
            let anchor = match step {
                0 => "start",
                4 => "end",
                _ => "middle",
            };
            svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"8\" y2=\"{:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>",
                height - 20.0,
                height - 5.0
            ));
        }
    }
}

/// Decisions over time, a lane for each stage they led to.
pub(super) fn stages(report: &Report) -> String {
    let axis = Axis::of(report);
    let height = 170.0;
    let mut svg = format!(
        "<svg id=\"stages\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Decisions over time\">"
    );
    axis.draw(height, &mut svg);
    let lane = |stage: usize| 24.0 + 36.0 * f64::from(u8::try_from(3 - stage.min(3)).unwrap_or(0));
    for (index, stage) in STAGES.iter().enumerate() {
        let y = lane(index);
        svg.push_str(&format!(
            "<text x=\"0\" y=\"{:.1}\">{stage}</text>",
            y + 4.0
        ));
    }
    for record in &report.records {
        let Ok(time) = record.time.parse() else {
            continue;
        };
        let (x, y) = (axis.x(time), lane(rank(&record.to)));
        let stage = STAGES[rank(&record.to)];
        svg.push_str(&format!(
            "<circle class=\"{stage}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{} {} {} to {} ({})</title></circle>",
            escaped(&record.time),
            escaped(&record.source),
            escaped(&record.from),
            escaped(&record.to),
            escaped(&record.signal)
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A chart for each signal that there is anything to show of.
pub(super) fn thresholds(report: &Report) -> String {
    let mut text = String::new();
    for (index, (signal, what)) in SIGNALS.iter().enumerate() {
        let records: Vec<&Record> = report
            .records
            .iter()
            .filter(|record| record.signal == *signal)
            .collect();
        let traffic: Vec<(Wall, f64, f64)> = report
            .traffic
            .iter()
            .filter(|one| one.triggers[index] > 0.0)
            .map(|one| (one.time, one.peaks[index], one.triggers[index]))
            .collect();
        if !records.is_empty() || !traffic.is_empty() {
            text.push_str(&threshold(report, (signal, what), &records, &traffic));
        }
    }
    text
}

fn threshold(
    report: &Report,
    (signal, what): (&str, &str),
    records: &[&Record],
    traffic: &[(Wall, f64, f64)],
) -> String {
    let axis = Axis::of(report);
    let height = 190.0;
    let top = records
        .iter()
        .flat_map(|record| [record.rate, record.trigger])
        .chain(
            traffic
                .iter()
                .flat_map(|(_, peak, trigger)| [*peak, *trigger]),
        )
        .fold(1.0, f64::max);
    // Attacks are a thousand times what is normal: the scale is logarithmic, from 1.
    let most = (top * 1.2).log10().max(1.0);
    let floor = height - 28.0;
    let y = |value: f64| floor - (value.max(1.0).log10() / most).min(1.0) * (floor - 12.0);
    let mut svg = format!(
        "<p>{what} per second of the loudest source; dashed: the threshold</p>\n\
         <svg id=\"threshold-{signal}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{what} per second\">"
    );
    axis.draw(height, &mut svg);
    scale(most, &y, &mut svg);
    svg.push_str(&lines(&axis, &y, records, traffic));
    for record in records {
        let Ok(time) = record.time.parse() else {
            continue;
        };
        svg.push_str(&format!(
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{} {} {}/s of {}/s</title></circle>",
            STAGES[rank(&record.to)],
            axis.x(time),
            y(record.rate),
            escaped(&record.time),
            escaped(&record.source),
            number(record.rate),
            number(record.trigger)
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A line for each power of ten, with its figure.
fn scale(most: f64, y: &dyn Fn(f64) -> f64, svg: &mut String) {
    let mut tick = 1.0_f64;
    while tick.log10() <= most {
        let y = y(tick);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            number(tick)
        ));
        tick *= if most > 5.0 { 100.0 } else { 10.0 };
    }
}

/// Traffic and thresholds, from a recording if there is one, else what decisions tell of them.
fn lines(
    axis: &Axis,
    y: &dyn Fn(f64) -> f64,
    records: &[&Record],
    traffic: &[(Wall, f64, f64)],
) -> String {
    if !traffic.is_empty() {
        let line = |value: fn(&(Wall, f64, f64)) -> f64| {
            let point =
                |one: &(Wall, f64, f64)| format!("{:.1},{:.1}", axis.x(one.0), y(value(one)));
            traffic.iter().map(point).collect::<Vec<_>>().join(" ")
        };
        return format!(
            "<polyline class=\"traffic\" points=\"{}\"/><polyline class=\"trigger\" points=\"{}\"/>",
            line(|one| one.1),
            line(|one| one.2)
        );
    }
    if let (Some(first), Some(last)) = (records.first(), records.last()) {
        // Only what decisions tell: the threshold each of them was held against.
        let points: Vec<String> = records
            .iter()
            .filter_map(|record| {
                let time = record.time.parse().ok()?;
                Some(format!("{:.1},{:.1}", axis.x(time), y(record.trigger)))
            })
            .collect();
        let (start, end) = (y(first.trigger), y(last.trigger));
        return format!(
            "<polyline class=\"trigger\" points=\"{LEFT},{start:.1} {} {:.1},{end:.1}\"/>",
            points.join(" "),
            WIDTH - RIGHT
        );
    }
    String::new()
}
