use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::positive_duration;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// File to write; - is standard output
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "kernloom-report.html"
    )]
    pub output: PathBuf,
    /// How far back
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = positive_duration)]
    pub last: Duration,
    /// Journal to read [default: that of this instance's IQ]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Recording of 'iq record' to draw traffic from
    #[arg(long, value_name = "FILE")]
    pub recording: Option<PathBuf>,
}
