use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::positive_duration;
use crate::model::Source;

#[derive(Debug, Subcommand)]
pub enum ShieldCommand {
    /// Attach to an interface; protection then outlives this command
    #[command(after_help = "Example: sudo kernloom shield attach eth0")]
    Attach(AttachArgs),
    /// Detach from an interface; policy and counters stay until --purge
    #[command(after_help = "Example: sudo kernloom shield detach eth0")]
    Detach(DetachArgs),
    /// Show where it is attached, in which mode, and how full the tables are
    #[command(after_help = "Example: sudo kernloom shield status")]
    Status,
    /// Show packets and bytes by reason
    #[command(after_help = "Example: sudo kernloom shield stats")]
    Stats,
    /// Watch who sends and what becomes of it; deny, limit or allow from there
    #[command(
        after_help = "Examples:\n  sudo kernloom shield top\n  sudo kernloom shield top --once -n 10 --by drops"
    )]
    Top(TopArgs),
    /// Drop everything from a source
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield deny add 192.0.2.7 --ttl 1h"
    )]
    Deny(ListCommand),
    /// Never limit or block a source, whatever IQ thinks
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield allow add 192.0.2.0/24"
    )]
    Allow(ListCommand),
    /// Limit the packets of a source
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield limit set 192.0.2.7 --pps 200"
    )]
    Limit(LimitCommand),
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Interface; without it, that of the default route
    pub iface: Option<String>,
    /// How to attach: auto tries the driver first and says why if it must fall back
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Sources kept in the table, over all CPUs
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub sources: u32,
    /// Most policy entries
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    pub max_deny: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Auto,
    Driver,
    Generic,
}

#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Interface; may be left out when there is only one
    pub iface: Option<String>,
    /// Detach from every interface
    #[arg(long, conflicts_with = "iface")]
    pub all: bool,
    /// Also forget policy and counters, once nothing is attached
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one measuring window and end; the default where the output is no terminal
    #[arg(long)]
    pub once: bool,
    /// Print one measuring window as JSON and end
    #[arg(long)]
    pub json: bool,
    /// Sources printed by --once and --json
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub count: usize,
    /// What to sort by
    #[arg(long, value_enum, default_value_t = SortBy::Packets)]
    pub by: SortBy,
    /// Length of the measuring window
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = positive_duration)]
    pub interval: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    Packets,
    Bytes,
    Syns,
    Drops,
    Ports,
}

#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// Add sources: addresses or prefixes
    Add {
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<Source>,
        /// Ends by itself after this long, even if nothing runs by then
        #[arg(long, value_name = "TIME", value_parser = positive_duration)]
        ttl: Option<Duration>,
    },
    /// Remove sources
    Del {
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<Source>,
    },
    /// List them, whoever made them
    List,
}

#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Set the limit of sources: addresses or prefixes; a prefix shares one limit
    Set(LimitSetArgs),
    /// Remove the limit of sources
    Del {
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<Source>,
    },
    /// List limits, whoever made them
    List,
}

#[derive(Debug, Args)]
pub struct LimitSetArgs {
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<Source>,
    /// Packets per second that pass
    #[arg(long, value_name = "N")]
    pub pps: NonZeroU32,
    /// Packets that may come at once [default: one second's worth]
    #[arg(long, value_name = "N")]
    pub burst: Option<NonZeroU32>,
    /// What is limited: every packet, or only what opens something (TCP SYN, UDP, ICMP)
    #[arg(long, value_enum, default_value_t = Scope::All)]
    pub scope: Scope,
    /// Ends by itself after this long, even if nothing runs by then
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub ttl: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    All,
    New,
}
