//! The command line: clap structs only. Doc comments are the help.

mod graph;
mod host;
mod iq;
mod report;
mod shield;

use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Args, Parser, Subcommand};

pub use graph::{EdgeArgs, ExportFormat, GraphArgs, GraphCommand, GraphModeArg};
pub use host::{
    Group, HostArgs, IqHostArgs, LogFormat, Places, Sizing, interface_name, listen_address, tick,
};
pub use iq::{
    DecisionsArgs, IqArgs, IqCommand, IqRunArgs, ProfilesCommand, ReplayArgs, SimulateArgs,
};
pub use report::ReportArgs;
pub use shield::{
    AttachArgs, DEFAULT_PORT, DetachArgs, DoctorArgs, EnforceAllowArgs, EntryArgs, EventsArgs,
    JsonArgs, LimitCommand, LimitDefaultArgs, LimitSetArgs, ListCommand, Mode, OwnerArg, Proto,
    RateArgs, Scope, ShieldCommand, SizeArgs, SortBy, StatusArgs, Switch, TopArgs, UpgradeArgs,
    VerdictArgs,
};

use crate::dataplane::reason_text;
use crate::model::parse_duration;
use crate::profile::Profile;

/// Protects this host at the XDP hook: counts every source, scores it each second, limits and blocks abusers
#[derive(Debug, Parser)]
#[command(
    version,
    long_version = crate::version::long(),
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 the machine refused; 2 the command or a file is wrong, or rights are missing.\n\n\
                  Example: sudo kernloom iq --profile=web-server --iface eth0"
)]
pub struct Cli {
    #[command(flatten)]
    pub host: HostArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach, inspect and steer the data plane by hand
    #[command(subcommand, after_help = "Example: sudo kernloom shield attach eth0")]
    Shield(ShieldCommand),
    /// Score every source each second; limit and block abusers, dry run first
    #[command(after_help = "Examples:\n  sudo kernloom iq --profile=idp\n  \
                            sudo kernloom iq --profile=web-server --iface eth0 --dry-run=false\n  \
                            sudo kernloom iq why 192.0.2.7")]
    Iq(Box<IqArgs>),
    /// Write what was decided in the last hours, and why, as one HTML page
    #[command(after_help = "Example: sudo kernloom report -o report.html --last 24h")]
    Report(ReportArgs),
    /// Learn who talks to this host, freeze that, and enforce it
    #[command(
        after_help = "Examples:\n  sudo kernloom graph readiness\n  sudo kernloom graph freeze\n  \
                            sudo kernloom graph enforce --lease 5m && sudo kernloom graph confirm\n\n\
                            What a command decides is stored at once, what is learned every 30 s."
    )]
    Graph(GraphArgs),
    /// Let go of what is enforced, and say what that was
    #[command(after_help = "Examples:\n  sudo kernloom reset\n  sudo kernloom reset --all")]
    Reset(ResetArgs),
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ResetArgs {
    /// What IQ enforced (the default); a running IQ starts over
    #[arg(long)]
    pub iq: bool,
    /// What operators entered by hand: deny, limit and allow; 'enforce-allow' ends with it
    #[arg(long)]
    pub operator: bool,
    /// Both, and what 'iq exempt' exempted
    #[arg(long)]
    pub all: bool,
}

/// As data plane entries keep it, see [`reason_text`].
fn reason(text: &str) -> Result<String, String> {
    reason_text(text).map(str::to_owned)
}

/// A duration of more than 0.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err(format!("'{text}' is no time at all; give more than 0")),
        Ok(span) => Ok(span),
        Err(error) => Err(error.to_string()),
    }
}

/// The name of a built-in profile. Completions offer those there are; any word is taken here, so that
/// [`Profile::named`] can tell the nearest.
#[derive(Debug, Clone)]
struct ProfileName;

impl TypedValueParser for ProfileName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Profile::names().map(PossibleValue::new)))
    }
}
