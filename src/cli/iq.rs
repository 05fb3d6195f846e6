use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};

use super::graph::GraphModeArg;
use super::host::{IqHostArgs, tick};
use super::shield::TopArgs;
use super::{ProfileName, positive_duration};
use crate::model::Source;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct IqArgs {
    #[command(subcommand)]
    pub command: Option<IqCommand>,
    #[command(flatten)]
    pub run: IqRunArgs,
}

#[derive(Debug, Args)]
pub struct IqRunArgs {
    #[command(flatten)]
    pub host: IqHostArgs,
    /// Do not protect your own SSH peer
    #[arg(long)]
    pub no_guard: bool,
    /// Attach nothing: score where 'kernloom shield attach' attached, and fail where it did not
    #[arg(long)]
    pub no_attach: bool,
    /// Wait this long for a named interface that is not there yet; with --no-attach, for the attachment
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub wait: Option<Duration>,
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
    /// Whether sources may be blocked while thresholds are first learned, instead of the profile's
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub bootstrap_allow_block: Option<bool>,
    /// Learn who talks to this host, and judge by it [default: the profile's]
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub graph: Option<bool>,
    /// What the graph does to packets at the start, unless a command put something in force [default: the profile's]
    #[arg(long, value_enum, value_name = "MODE")]
    pub graph_mode: Option<GraphModeArg>,
    /// Let the graph's clock run so many times as fast: for rehearsals
    #[arg(long, value_name = "N", hide = true, default_value_t = 1)]
    pub graph_clock: u32,
    /// Set any key of the profile, as in signal_engine.pps_trigger=500
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print what would be gone by and who set it, and end
    #[arg(long)]
    pub print_config: bool,
    /// Start over when the state or the graph on disk cannot be read; what was learned is lost
    #[arg(long)]
    pub fresh_state: bool,
    /// Keep what is judged and how it was decided in a new file, for 'iq simulate'
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Size at which a recording ends, as in 64MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = bytes)]
    pub record_max: u64,
}

#[derive(Debug, Subcommand)]
pub enum IqCommand {
    /// Run a capture through the real program and engine: who would have been held, when and why
    #[command(
        after_help = "Example: sudo kernloom iq replay flood.pcap --profile web-server --to 192.0.2.10"
    )]
    Replay(ReplayArgs),
    /// Judge as a dry run and keep what was judged in a file; 'kernloom iq --record' does so while enforcing
    #[command(after_help = "Example: sudo kernloom iq record day.klrec --profile web-server")]
    Record {
        file: PathBuf,
        #[command(flatten)]
        run: Box<IqRunArgs>,
    },
    /// Decide a recording again, under its own or other settings, and show the difference
    #[command(
        after_help = "Example: kernloom iq simulate day.klrec --set signal_engine.pps_trigger=500"
    )]
    Simulate(SimulateArgs),
    /// List or show the built-in profiles
    #[command(
        subcommand,
        after_help = "Example: kernloom iq profiles show web-server"
    )]
    Profiles(ProfilesCommand),
    /// Show what the running IQ does: phase, thresholds, who is held
    #[command(after_help = "Example: sudo kernloom iq status --json")]
    Status {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Say why a source is treated as it is, until when, and how to exempt it
    #[command(after_help = "Example: sudo kernloom iq why 192.0.2.7")]
    Why {
        source: Source,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// List what was decided, newest last, from the journal: no IQ needs to run
    #[command(after_help = "Examples:\n  sudo kernloom iq decisions --last 1h\n  \
                            sudo kernloom iq decisions --source 192.0.2.0/24 --json")]
    Decisions(DecisionsArgs),
    /// Watch who sends, those that IQ holds first: 'kernloom shield top --by stage'
    #[command(after_help = "Example: sudo kernloom iq top --once")]
    Top(TopArgs),
    /// Let go of a source now; it may be judged anew
    #[command(after_help = "Example: sudo kernloom iq forgive 192.0.2.7")]
    Forgive { source: Source },
    /// Never limit or block a source for a time
    #[command(
        after_help = "Examples:\n  sudo kernloom iq exempt 192.0.2.0/24 --ttl 24h\n  \
                            sudo kernloom iq exempt 192.0.2.0/24 --end"
    )]
    Exempt {
        source: Source,
        /// How long
        #[arg(long, value_name = "TIME", value_parser = positive_duration, allow_hyphen_values = true, required_unless_present = "end", conflicts_with = "end")]
        ttl: Option<Duration>,
        /// End what this command exempted before, now
        #[arg(long)]
        end: bool,
    },
}

#[derive(Debug, Args)]
pub struct DecisionsArgs {
    /// How far back
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = positive_duration)]
    pub last: Duration,
    /// Only of this source, of those inside this prefix, or of what it is part of
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<Source>,
    /// Most decisions printed, the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub count: usize,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Capture, pcap or pcapng
    pub file: PathBuf,
    /// Built-in profile to judge by
    #[arg(long, value_name = "NAME", required_unless_present = "pdp_config", value_parser = ProfileName, hide_possible_values = true)]
    pub profile: Option<String>,
    /// Profile file to judge by; goes before --profile where both say something
    #[arg(long, value_name = "FILE")]
    pub pdp_config: Option<PathBuf>,
    /// Set any key of the profile, as in signal_engine.pps_trigger=500
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Only packets to these; without it, everything in the capture counts as received
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub to: Vec<Source>,
    /// Length of a tick
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = tick)]
    pub interval: Duration,
    /// Sources kept in the table, over all CPUs
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub sources: u32,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Recording, made by 'iq record' or 'iq --record'
    pub file: PathBuf,
    /// Built-in profile to judge by, instead of the recording's settings
    #[arg(long, value_name = "NAME", value_parser = ProfileName, hide_possible_values = true)]
    pub profile: Option<String>,
    /// Profile file to judge by; goes before --profile where both say something
    #[arg(long, value_name = "FILE")]
    pub pdp_config: Option<PathBuf>,
    /// Set any key of the profile, as in signal_engine.pps_trigger=500
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Reads a size: a number, and KiB, MiB or GiB.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("'{text}' is no size; write it like 64MiB")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("'{text}' is no size; write it like 64MiB"))
}

#[derive(Debug, Subcommand)]
pub enum ProfilesCommand {
    /// Names, one per line, with what they are for
    List,
    /// The file as it was written
    Show {
        #[arg(value_parser = ProfileName, hide_possible_values = true)]
        name: String,
    },
}
