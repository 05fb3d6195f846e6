use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::graph::{Direction, Service};
use crate::model::parse_duration;

#[derive(Debug, Args)]
pub struct GraphArgs {
    /// Where the graph is kept [default: STATE_DIR/graph.db]; the frozen graph stands beside it
    #[arg(long, global = true, value_name = "FILE")]
    pub store: Option<PathBuf>,
    #[command(subcommand)]
    pub command: GraphCommand,
}

/// What the graph does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphModeArg {
    /// Learn who talks to this host; drop only what was denied
    Learn,
    /// Count what the frozen graph would drop
    FrozenObserve,
    /// Drop what is not in the frozen graph
    FrozenEnforce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    Dot,
    Mermaid,
    Json,
    Yaml,
    Html,
}

#[derive(Debug, Subcommand)]
pub enum GraphCommand {
    /// Show the graph as a tree: peers, and what they use
    #[command(after_help = "Example: sudo kernloom graph show")]
    Show {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// List every edge with its evidence
    #[command(
        after_help = "Example: sudo kernloom graph edges --state candidate\n\n\
        Connections and handshakes are counted while the graph learns or observes. Enforced, packets of an edge that\n\
        is allowed pass on the shortest way, and are counted alone. Of what goes out, the first packet of each\n\
        conversation is counted, and none of the rest."
    )]
    Edges {
        /// Only edges in this state: candidate, learned, approved, frozen, denied, expired,
        /// removed
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Estimate how likely a legitimate edge has not been seen yet
    #[command(after_help = "Example: sudo kernloom graph readiness")]
    Readiness {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write the learned graph to the frozen file; observe and enforce judge by it, at once if on
    #[command(after_help = "Example: sudo kernloom graph freeze --dry-run\n\n\
        What was removed from the file by hand stays out, which each freeze says, until 'graph allow' lets it back.\n\
        Packets are judged by the groups of the file: a group that was configured since comes in with a freeze, or\n\
        with an edge that is allowed or denied it, and begins with the edges of those it takes members out of.")]
    Freeze {
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Freeze although readiness is not below 5 %
        #[arg(long)]
        accept_risk: bool,
        /// Freeze this service alone; every other stays open
        #[arg(long, value_name = "SERVICE", conflicts_with = "accept_edits")]
        only: Vec<Service>,
        /// Take the frozen file as it was edited by hand
        #[arg(long)]
        accept_edits: bool,
    },
    /// Go back to learning, over restarts of IQ too; the frozen file stays
    #[command(after_help = "Example: sudo kernloom graph thaw")]
    Thaw,
    /// Show how the frozen file and what is seen differ, and whether it was edited
    #[command(after_help = "Example: sudo kernloom graph diff")]
    Diff,
    /// Accept an edge, in the frozen graph too
    #[command(
        after_help = "Example: sudo kernloom graph allow 10.0.0.5 tcp/5432\n\n\
        An address means one host, an IPv6 /64 everyone in it. The more specific edge counts."
    )]
    Allow(EdgeArgs),
    /// Refuse an edge in every mode, in the frozen graph too; connections that are under way may go on
    #[command(after_help = "Example: sudo kernloom graph deny office tcp/22\n\n\
        Counts for management addresses and exempt sources, too; a warning names those it shuts out.")]
    Deny(EdgeArgs),
    /// List what the frozen graph lacks and was tried
    #[command(after_help = "Example: sudo kernloom graph violations --json")]
    Violations {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write the graph as a picture or as data
    #[command(after_help = "Example: sudo kernloom graph export --format html -o graph.html")]
    Export {
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// File to write; without it, standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Drop what is not in the frozen graph, until the lease ends or 'graph confirm' comes
    #[command(after_help = "Example: sudo kernloom graph enforce --lease 5m\n\n\
        Management addresses and exempt sources come in without an edge, unless one that is theirs is denied.\n\
        What this host opens to them needs one.")]
    Enforce {
        /// Go back by itself after this long unless confirmed; 0 = confirmed at once
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
        lease: Duration,
    },
    /// Count what the frozen graph would drop, and let it pass
    #[command(after_help = "Example: sudo kernloom graph observe")]
    Observe,
    /// Keep enforcing: ends the lease
    #[command(after_help = "Example: sudo kernloom graph confirm")]
    Confirm,
    /// Forget everything learned; the frozen file stays, and what is denied or was removed from it
    #[command(after_help = "Example: sudo kernloom graph reset --yes")]
    Reset {
        /// Yes, everything
        #[arg(long, required = true)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct EdgeArgs {
    /// An address, a prefix, a group, 'internet', or 'any' for what is sent to multicast addresses
    pub peer: String,
    /// Services, like tcp/443, udp/53 or icmp
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<Service>,
    /// in: the peer opens it here; out: this host opens it there; cast: sent to multicast or broadcast
    #[arg(long, default_value_t = Direction::In)]
    pub direction: Direction,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}
