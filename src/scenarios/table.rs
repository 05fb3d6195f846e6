//! What all profiles made of each scenario, as a table that BENCHMARKS.md keeps.

use crate::model::Stage;

/// One scenario under one profile.
pub(super) struct Row {
    pub(super) scenario: &'static str,
    /// Seconds until it was held; `None` if it never was.
    pub(super) held: Option<u32>,
    pub(super) stage: Stage,
    /// Of all its packets.
    pub(super) lost: f64,
}

/// One line per scenario in order, made of what the profiles made of it.
fn table(head: &str, rows: &[Row], line: impl Fn(&[&Row]) -> String) -> String {
    let columns = head.matches('|').count() - 1;
    let mut table = format!("{head}\n|{}\n", "---|".repeat(columns));
    let mut told: Vec<&str> = Vec::new();
    for Row { scenario, .. } in rows {
        if !told.contains(scenario) {
            told.push(scenario);
            let of: Vec<&Row> = rows
                .iter()
                .filter(|row| row.scenario == *scenario)
                .collect();
            table += &format!("| {scenario} | {} |\n", line(&of));
        }
    }
    table
}

fn stages(rows: &[&Row]) -> String {
    let count = |stage| rows.iter().filter(|row| row.stage == stage).count();
    let counts = Stage::ALL.map(|stage| (stage, count(stage)));
    let some = counts.iter().filter(|(_, count)| *count > 0);
    let words: Vec<String> = some
        .map(|(stage, count)| format!("{stage} in {count}"))
        .collect();
    words.join(", ")
}

pub(super) fn attacks(rows: &[Row]) -> String {
    let head =
        "| attack | limited after, at most | passed, least / most | harshest stage of one source |";
    table(head, rows, |of| {
        let late = of.iter().map(|row| row.held.unwrap_or(u32::MAX)).max();
        let passed = of.iter().map(|row| (1.0 - row.lost) * 100.0);
        let least = passed.clone().fold(f64::INFINITY, f64::min);
        let most = passed.fold(0.0, f64::max);
        let late = late.unwrap_or_default();
        format!("{late} s | {least:.1} / {most:.1} % | {}", stages(of))
    })
}

pub(super) fn benign(rows: &[Row]) -> String {
    table(
        "| benign load | harshest stage | lost, most |",
        rows,
        |of| {
            let most = of.iter().map(|row| row.lost * 100.0).fold(0.0, f64::max);
            format!("{} | {most:.2} %", stages(of))
        },
    )
}

/// # Panics
/// With the table, if BENCHMARKS.md holds another.
pub(super) fn assert_kept(table: &str) {
    println!("{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/BENCHMARKS.md");
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept.contains(table),
        "BENCHMARKS.md is to hold this table:\n{table}"
    );
}
