//! Tests in network namespaces. They need root, and say SKIPPED without it.

use std::path::Path;

mod attacks;
mod benign;
mod commands;
mod daemon;
mod disk;
mod exemptions;
mod graph;
mod iq;
mod lab_itself;
mod metrics;
mod scans;
mod scripts;
mod seat;
mod shield;
mod vanishing;

/// The program as it will be installed.
fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kernloom"))
}

/// Rows as kernloom prints a table: columns as wide as their widest cell, two spaces between.
fn aligned<const N: usize>(rows: &[[&str; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = (0..N)
                .map(|column| format!("{:<1$}", row[column], width(column)))
                .collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}
