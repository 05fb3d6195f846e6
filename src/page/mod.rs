//! The report: what was decided in some hours, as one page that needs nothing but itself. Pure.

mod chart;
mod graph;
mod html;

use std::collections::BTreeMap;

pub use chart::Traffic;
use chart::{stages, thresholds};
pub use graph::{Graph, GraphEdge};
use html::{escaped, number};

use crate::model::{Wall, format_duration};
use crate::state::Record;

/// What the page is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub host: String,
    pub from: Wall,
    pub to: Wall,
    /// Oldest first.
    pub records: Vec<Record>,
    /// Oldest first; empty without a recording.
    pub traffic: Vec<Traffic>,
    pub graph: Option<Graph>,
}

/// Decisions in the table; the picture has all of them.
const MOST_ROWS: usize = 500;

/// Sources in the table.
const TOP: usize = 25;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b2330;--paper:#fff;--soft:#5b6778;--line:#d8dde5;--card:#f5f7fa;\
--observe:#4c78a8;--soft-limit:#b88600;--hard-limit:#d9660b;--block:#c62828;--traffic:#4c78a8}\
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--paper:#12161c;--soft:#9aa7b8;--line:#2c3440;\
--card:#1a2029;--observe:#7aa6d6;--soft-limit:#e0b341;--hard-limit:#f0914a;--block:#ef6a6a;--traffic:#7aa6d6}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;\
margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
p{margin:.3rem 0;color:var(--soft)}.cards{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}\
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem 1rem;min-width:8rem}\
.card b{display:block;font-size:1.5rem;font-weight:600}.scroll{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}\
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right}svg{width:100%;height:auto;display:block}\
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}.grid{stroke:var(--line)}\
.OBSERVE{fill:var(--observe)}.RATE_SOFT{fill:var(--soft-limit)}.RATE_HARD{fill:var(--hard-limit)}\
.BLOCK{fill:var(--block)}.trigger{fill:none;stroke:var(--block);stroke-dasharray:5 4}\
.traffic{fill:none;stroke:var(--traffic)}\
.edge{fill:none;stroke:var(--soft);stroke-width:1.5}.edge.frozen,.edge.approved,.edge.learned\
{stroke:var(--observe)}.edge.candidate,.edge.expired{stroke-dasharray:2 4}\
.edge.denied,.edge.removed,.edge.violation{stroke:var(--block);stroke-dasharray:5 4}\
.host{fill:var(--card);stroke:var(--line)}";

impl Report {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let span = format_duration(self.to.since(self.from));
        let host = escaped(&self.host);
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>Kernloom on {host}</title><style>{STYLE}</style></head><body>\n\
             <h1>Kernloom on {host}</h1>\n<p>{} to {} ({span}), UTC</p>\n",
            self.from, self.to
        );
        self.cards(&mut text);
        text.push_str("<h2>Decisions</h2>\n");
        if self.records.is_empty() {
            text.push_str("<p id=\"quiet\">No source left OBSERVE in this time.</p>\n");
        } else {
            text.push_str(&stages(self));
        }
        let charts = thresholds(self);
        if !charts.is_empty() {
            text.push_str("<h2>Thresholds against traffic</h2>\n");
            text.push_str(&charts);
        }
        self.top(&mut text);
        if let Some(graph) = &self.graph {
            graph.draw(&mut text);
        }
        self.log(&mut text);
        text.push_str("</body></html>\n");
        text
    }

    fn cards(&self, text: &mut String) {
        let to = |stage: &str| {
            let there = self.records.iter().filter(|record| record.to == stage);
            there.count()
        };
        let dry = self.records.iter().filter(|record| record.dry_run).count();
        text.push_str("<div class=\"cards\">");
        for (name, count) in [
            ("decisions", self.records.len()),
            ("sources", self.sources().len()),
            ("to RATE_SOFT", to("RATE_SOFT")),
            ("to RATE_HARD", to("RATE_HARD")),
            ("to BLOCK", to("BLOCK")),
            ("in a dry run", dry),
        ] {
            text.push_str(&format!("<div class=\"card\"><b>{count}</b>{name}</div>"));
        }
        text.push_str("</div>\n");
    }

    fn sources(&self) -> BTreeMap<&str, Vec<&Record>> {
        let mut sources: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in &self.records {
            sources.entry(&record.source).or_default().push(record);
        }
        sources
    }

    fn top(&self, text: &mut String) {
        let mut sources: Vec<_> = self.sources().into_iter().collect();
        if sources.is_empty() {
            return;
        }
        let harshest = |records: &[&Record]| {
            let rank = |record: &&Record| chart::rank(&record.to);
            records.iter().map(rank).max().unwrap_or(0)
        };
        sources.sort_by_key(|(source, records)| {
            use std::cmp::Reverse;
            (Reverse(harshest(records)), Reverse(records.len()), *source)
        });
        text.push_str(
            "<h2>Top sources</h2>\n<div class=\"scroll\"><table id=\"top\"><tr><th>Source</th>\
             <th>Harshest stage</th><th class=\"n\">Decisions</th><th>First</th><th>Last</th>\
             <th>Signal</th><th class=\"n\">Peak rate</th></tr>\n",
        );
        for (source, records) in sources.iter().take(TOP) {
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                continue;
            };
            let peak = records.iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
            text.push_str(&format!(
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td class=\"n\">{}</td></tr>\n",
                escaped(source),
                chart::STAGES[harshest(records)],
                records.len(),
                escaped(&first.time),
                escaped(&last.time),
                escaped(&first.signal),
                peak.map_or_else(String::new, |record| number(record.rate) + record.per())
            ));
        }
        text.push_str("</table></div>\n");
        if sources.len() > TOP {
            text.push_str(&format!("<p>and {} more</p>\n", sources.len() - TOP));
        }
    }

    fn log(&self, text: &mut String) {
        if self.records.is_empty() {
            return;
        }
        text.push_str(
            "<h2>Every decision, newest first</h2>\n<div class=\"scroll\"><table id=\"log\"><tr><th>Time</th>\
             <th>Source</th><th>From</th><th>To</th><th>Signal</th><th class=\"n\">Rate</th>\
             <th class=\"n\">Threshold</th><th class=\"n\">Severity</th><th>Hold</th></tr>\n",
        );
        for record in self.records.iter().rev().take(MOST_ROWS) {
            text.push_str(&format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{:.2}</td><td>{}</td></tr>\n",
                escaped(&record.time),
                escaped(&record.source),
                escaped(&record.from),
                escaped(&record.to),
                escaped(&record.signal),
                number(record.rate) + record.per(),
                number(record.trigger) + record.per(),
                record.severity,
                escaped(&record.hold)
            ));
        }
        text.push_str("</table></div>\n");
        if self.records.len() > MOST_ROWS {
            let more = self.records.len() - MOST_ROWS;
            text.push_str(&format!("<p>and {more} older ones</p>\n"));
        }
    }
}
