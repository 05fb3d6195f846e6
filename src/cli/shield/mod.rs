mod limit;
mod list;

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

pub use limit::{LimitCommand, LimitDefaultArgs, LimitSetArgs, RateArgs, Scope};
pub use list::{EntryArgs, ListCommand, OwnerArg};

use super::positive_duration;
use crate::dataplane::Features;

#[derive(Debug, Subcommand)]
pub enum ShieldCommand {
    /// Attach to interfaces; protection then outlives this command
    #[command(after_help = "Examples:\n  sudo kernloom shield attach eth0\n  \
                            sudo kernloom shield attach eth0 eth1 --management 192.0.2.0/24\n  \
                            sudo kernloom shield attach eth0 --sources 16384 --max-deny 8192   (8 MB at most, without the graph)")]
    Attach(AttachArgs),
    /// Detach from an interface; policy and counters stay until --purge
    #[command(after_help = "Example: sudo kernloom shield detach eth0")]
    Detach(DetachArgs),
    /// Put this binary's program in the place of the one that runs; no packet passes unjudged
    #[command(after_help = "Examples:\n  sudo kernloom shield upgrade\n  \
                            sudo kernloom shield upgrade --max-deny 1000000")]
    Upgrade(UpgradeArgs),
    /// Show where it is attached, in which mode, and how full the tables are
    #[command(after_help = "Example: sudo kernloom shield status --json")]
    Status(StatusArgs),
    /// Show packets and bytes by reason
    #[command(after_help = "Example: sudo kernloom shield stats")]
    Stats(JsonArgs),
    /// Watch who sends and what becomes of it; deny, limit or allow from there
    #[command(
        after_help = "Examples:\n  sudo kernloom shield top\n  sudo kernloom shield top --once -n 10 --by drops"
    )]
    Top(TopArgs),
    /// Show what the program reported by itself: port scans, and what the frozen graph lacks
    #[command(
        after_help = "Of a running IQ, its last 1000. Exit codes: 0 done; 1 the machine refused; 2 nothing is loaded, or rights are missing.\n\n\
                            Examples:\n  sudo kernloom shield events\n  sudo kernloom shield events --follow --json"
    )]
    Events(EventsArgs),
    /// Drop everything from a source
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield deny add 192.0.2.7 --ttl 1h --reason scanner"
    )]
    Deny(ListCommand),
    /// Never limit or block a source, whatever IQ thinks
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield allow add 192.0.2.0/24"
    )]
    Allow(ListCommand),
    /// Addresses the host is managed from: no automatic or blanket rule reaches them
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield management add 192.0.2.0/24"
    )]
    Management(ListCommand),
    /// Limit the packets or bytes of a source
    #[command(
        subcommand,
        after_help = "Example: sudo kernloom shield limit set 192.0.2.7 --rate 200pps"
    )]
    Limit(LimitCommand),
    /// Let only allowed sources pass
    #[command(
        after_help = "What a network cannot do without always passes: ARP and other non-IP frames, ICMP errors, \
                      IPv6 neighbour discovery, router advertisements and MLD.\n\n\
                      Example: sudo kernloom shield enforce-allow on --lease 60s"
    )]
    EnforceAllow(EnforceAllowArgs),
    /// Keep what a lease holds for good
    #[command(after_help = "Example: sudo kernloom shield confirm")]
    Confirm,
    /// Ask the running program what it does with a source; nothing is counted
    #[command(after_help = "Example: sudo kernloom shield verdict 192.0.2.7 --dport 443")]
    Verdict(VerdictArgs),
    /// Examine this host: what works, what stands in the way and how to mend it
    #[command(
        after_help = "In tc mode, packets that GRO merged count as one: limits in packets let more of them pass. \
                            'ethtool -K IFACE gro off' ends that; limits in bytes are not concerned.\n\n\
                            Exit codes: 0 nothing stands in the way; 1 something does.\n\n\
                            Example: sudo kernloom shield doctor eth0"
    )]
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Wait this long for it to be attached; fail if it is not by then
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Interfaces; without one, those of iface in the settings, else that of the default route
    #[arg(value_name = "IFACE")]
    pub ifaces: Vec<String>,
    /// How to attach: auto tries driver, generic and tc in this order, and says why not the first; at tc, packets
    /// that GRO merged count as one
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Remove another's XDP program from the interface
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// What the program can do; what it cannot costs neither time nor memory [default: learn]
    #[arg(long, value_name = "SET")]
    pub features: Option<Features>,
    /// Do not protect your own SSH peer
    #[arg(long)]
    pub no_guard: bool,
    /// Wait this long for an interface, or a default route, that is not there yet
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub wait: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct SizeArgs {
    /// Sources kept in the table, over all CPUs [default: 131072]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub sources: Option<u32>,
    /// Most policy entries [default: 131072]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    pub max_deny: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Auto,
    Driver,
    Generic,
    Tc,
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
pub struct UpgradeArgs {
    #[command(flatten)]
    pub sizes: SizeArgs,
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
    /// What to sort by [default: packets; of 'iq top', stage]
    #[arg(long, value_enum)]
    pub by: Option<SortBy>,
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
    Stage,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Print JSON: one object, or with --follow one a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EnforceAllowArgs {
    #[arg(value_enum)]
    pub state: Switch,
    /// Falls back by itself after this long, unless 'kernloom shield confirm' comes before
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub lease: Option<Duration>,
    /// Do not protect your own SSH peer
    #[arg(long)]
    pub no_guard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// What the running program is asked about where nobody says which.
pub const DEFAULT_PORT: u16 = 443;

#[derive(Debug, Args)]
pub struct VerdictArgs {
    /// Address the packet comes from
    #[arg(value_name = "SRC", value_parser = address)]
    pub source: IpAddr,
    /// Destination port
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PORT)]
    pub dport: u16,
    /// Protocol; TCP means a SYN
    #[arg(long, value_enum, default_value_t = Proto::Tcp)]
    pub proto: Proto,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn address(text: &str) -> Result<IpAddr, String> {
    let one = |_| format!("'{text}' is not one address; write it like 192.0.2.7 or 2001:db8::7");
    text.parse().map_err(one)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proto {
    Tcp,
    Udp,
    Icmp,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Interfaces; without one, those of kernloom.toml, else those attached to, else that of the
    /// default route
    pub ifaces: Vec<String>,
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
