use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::{positive_duration, reason};
use crate::model::{Rate, Source};

#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Set the limit of sources: addresses or prefixes; a prefix shares one limit
    #[command(visible_alias = "add")]
    Set(LimitSetArgs),
    /// Set, lift or show the limit of every source without a rule of its own
    #[command(
        after_help = "Examples:\n  sudo kernloom shield limit default --rate 5000pps\n  \
                            sudo kernloom shield limit default --off"
    )]
    Default(LimitDefaultArgs),
    /// Remove the limit of sources
    Del {
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<Source>,
    },
    /// List limits, whoever made them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// How much passes.
#[derive(Debug, Args)]
pub struct RateArgs {
    /// What passes: packets (5000pps) or bytes (10mbit, 2MB/s) per second
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    pub rate: Option<Rate>,
    /// The same in packets per second
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true, conflicts_with = "rate")]
    pub pps: Option<NonZeroU32>,
    /// Packets, or bytes of a rate in bytes, that may come at once: at least some milliseconds' worth, because a
    /// burst of 1 forgives no jitter and holds even evenly spaced traffic to less than the rate [default: one
    /// second's worth]
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    pub burst: Option<NonZeroU32>,
    /// What is limited: every packet, or only what may open something or belongs to nothing: TCP but with ACK and
    /// neither SYN nor RST, UDP that answers no question of this host's, ICMP, other protocols, later fragments
    #[arg(long, value_enum, default_value_t = Scope::All)]
    pub scope: Scope,
}

fn count(text: &str) -> Result<NonZeroU32, String> {
    let bounds = |_| format!("give a whole number, 1 to {}", u32::MAX);
    text.parse().map_err(bounds)
}

#[derive(Debug, Args)]
pub struct LimitSetArgs {
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<Source>,
    #[command(flatten)]
    pub rate: RateArgs,
    /// Ends by itself after this long, even if nothing runs by then
    #[arg(long, value_name = "TIME", value_parser = positive_duration, allow_hyphen_values = true)]
    pub ttl: Option<Duration>,
    /// Why, in a line of at most 64 bytes
    #[arg(
        long,
        value_name = "TEXT",
        value_parser = reason,
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Limit even management addresses and your own SSH peer
    #[arg(long)]
    pub no_guard: bool,
}

#[derive(Debug, Args)]
pub struct LimitDefaultArgs {
    #[command(flatten)]
    pub rate: RateArgs,
    /// Lift it
    #[arg(long, conflicts_with_all = ["rate", "pps", "burst"])]
    pub off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    All,
    New,
}
