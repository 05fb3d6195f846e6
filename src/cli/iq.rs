use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::positive_duration;
use crate::metrics::listen_address;

#[derive(Debug, Args)]
pub struct IqArgs {
    /// Built-in profile to judge by
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "pdp_config",
        conflicts_with = "pdp_config"
    )]
    pub profile: Option<String>,
    /// Profile file to judge by (YAML, kind PDPConfig)
    #[arg(long, value_name = "FILE")]
    pub pdp_config: Option<PathBuf>,
    /// Interface to protect; without it, those already attached, else that of the default route
    #[arg(long, value_name = "IFACE")]
    pub iface: Option<String>,
    /// Print every decision and write nothing to the enforcement maps
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub dry_run: bool,
    /// Length of a tick
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = tick)]
    pub interval: Duration,
    /// How long a soft limit lasts at least, instead of the profile's
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub soft_ttl: Option<Duration>,
    /// How long a hard limit lasts at least, instead of the profile's
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub hard_ttl: Option<Duration>,
    /// How long a block lasts at least, instead of the profile's
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub block_ttl: Option<Duration>,
    /// Severity a source must keep before it may be blocked, instead of the profile's
    #[arg(long, value_name = "SEVERITY")]
    pub block_min_sev: Option<f64>,
    /// How long it must keep that severity, instead of the profile's
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub block_min_dur: Option<Duration>,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics; a port alone is on loopback
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// Keep metrics in a file for the node exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub metrics_textfile: Option<PathBuf>,
}

fn tick(text: &str) -> Result<Duration, String> {
    let span = positive_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&span) {
        Ok(span)
    } else {
        Err(format!("'{text}' is no useful tick; give 100ms to 60s"))
    }
}
