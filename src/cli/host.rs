use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use serde::Deserialize;

use super::{ProfileName, positive_duration};
use crate::model::{ParseSourceError, Source};

/// Flags of every command. Each but the first three is also a key of kernloom.toml.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Host")]
pub struct HostArgs {
    /// Settings of this host; /dev/null for none [default: /etc/kernloom/kernloom.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Copy of the settings, kept in step while they can be read and gone by where they cannot: for what starts
    /// at boot, where a mistyped line must not leave the host open. It is replaced as a whole, the target of a link
    /// likewise; a device, pipe, socket or directory is left alone, and told
    #[arg(long, global = true, value_name = "FILE")]
    pub settings_copy: Option<PathBuf>,
    /// File that the words of this command come from, as a unit's EnvironmentFile=: refused if others may change it
    #[arg(long, global = true, value_name = "FILE")]
    pub environment_file: Option<PathBuf>,
    /// Another instance of this name, with interfaces and policy of its own: every directory gets -NAME
    #[arg(long, global = true, value_name = "NAME")]
    pub instance: Option<String>,
    /// Directory in the BPF file system that holds program, maps and links [default: /sys/fs/bpf/kernloom]
    #[arg(long, global = true, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// Directory for lock files and the control socket [default: /run/kernloom]
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Directory for what IQ learned and holds [default: /var/lib/kernloom/iq]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How log lines look [default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Sources that no automatic rule may touch
    #[arg(long, global = true, value_name = "SOURCE", value_delimiter = ',')]
    pub management: Vec<Source>,
    /// A named set of sources
    #[arg(long, global = true, value_name = "NAME=SOURCE,..")]
    pub group: Vec<Group>,
}

/// Flags of `iq` that are also keys of kernloom.toml.
#[derive(Debug, Clone, Default, Args)]
pub struct IqHostArgs {
    /// Built-in profile to judge by
    #[arg(long, value_name = "NAME", value_parser = ProfileName, hide_possible_values = true)]
    pub profile: Option<String>,
    /// Profile file to judge by (YAML, kind PDPConfig); goes before --profile where both say something
    #[arg(long, value_name = "FILE")]
    pub pdp_config: Option<PathBuf>,
    /// Interface to protect; without it, those already attached, else that of the default route
    #[arg(long, value_name = "IFACE", value_delimiter = ',', value_parser = interface_name)]
    pub iface: Vec<String>,
    /// Print every decision and write nothing to the enforcement maps [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub dry_run: Option<bool>,
    /// Length of a tick [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = tick)]
    pub interval: Option<Duration>,
    /// Sources never to limit or block, one per line [default: STATE_DIR/whitelist.txt]
    #[arg(long, value_name = "FILE")]
    pub whitelist: Option<PathBuf>,
    /// Let whitelisted sources count as normal traffic when thresholds are learned [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub whitelist_learn: Option<bool>,
    /// Sources to forgive or whitelist for a time, a JSON array [default: STATE_DIR/feedback.json]
    ///
    /// Each entry is {"target": "192.0.2.7", "action": "forgive"}, which lets go of the source once, or {"target":
    /// "192.0.2.0/24", "action": "whitelist", "ttl": "24h", "notes": "audit"}, which exempts it for ttl from when the
    /// entry was first seen, 24h without one, or until "until" (RFC 3339, as "2030-01-31T12:00:00Z").
    #[arg(long, value_name = "FILE")]
    pub feedback: Option<PathBuf>,
    /// Where every transition is written, one JSON object per line [default: STATE_DIR/journal.jsonl]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Where the graph is kept [default: STATE_DIR/graph.db]
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
    /// Address that serves metrics; off without it
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// File that metrics are written to; off without it
    #[arg(long, value_name = "FILE")]
    pub metrics_textfile: Option<PathBuf>,
    /// How much memory the tables take [default: standard]
    #[arg(long, value_enum, value_name = "SIZE")]
    pub sizing: Option<Sizing>,
    /// Sources kept in the table, over all CPUs, when IQ loads it [default: by --sizing]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub sources: Option<u32>,
    /// Most policy entries, when IQ loads the table [default: by --sizing]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub max_deny: Option<u32>,
}

/// Where an instance keeps what it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub bpffs: PathBuf,
    pub run_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Table sizes that fit a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sizing {
    /// A server: 131072 sources and policy entries
    #[default]
    Standard,
    /// A board with 1 GB of memory: 16384 sources and policy entries
    RaspberryPi,
}

impl Sizing {
    /// Entries of the source table over all CPUs.
    pub const fn sources(self) -> u32 {
        match self {
            Self::Standard => 131_072,
            Self::RaspberryPi => 16_384,
        }
    }

    /// Most policy entries.
    pub const fn max_deny(self) -> u32 {
        self.sources()
    }
}

/// `NAME=SOURCE,SOURCE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub sources: Vec<Source>,
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, sources) = text
            .split_once('=')
            .filter(|(name, sources)| !name.is_empty() && !sources.is_empty())
            .ok_or("write NAME=SOURCE,SOURCE, as office=192.0.2.0/24")?;
        let sources: Result<_, ParseSourceError> = sources
            .split(',')
            .map(|source| source.trim().parse())
            .collect();
        Ok(Self {
            name: name.to_owned(),
            sources: sources.map_err(|error| error.to_string())?,
        })
    }
}

/// The length of a tick.
pub fn tick(text: &str) -> Result<Duration, String> {
    let span = positive_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&span) {
        Ok(span)
    } else {
        Err(format!("'{text}' is no useful tick; give 100ms to 60s"))
    }
}

/// A name that an interface can have; whether it is there is another question.
///
/// # Errors
/// That there can be none.
pub fn interface_name(text: &str) -> Result<String, String> {
    /// linux/if.h: IFNAMSIZ, less the zero at the end.
    const LONGEST: usize = 15;
    let wrong = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > LONGEST || text.contains(wrong) {
        return Err(format!(
            "'{text}' can be no interface; 'ip link' names them"
        ));
    }
    Ok(text.to_owned())
}

/// Reads `ADDRESS:PORT`, or a port alone, which is on loopback.
///
/// # Errors
/// What is wrong and how to write it.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    match (port.parse::<u16>(), text.parse()) {
        (Ok(port), _) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        (_, Ok(address)) => Ok(address),
        _ => Err(format!(
            "'{text}' is no address to listen on; write it like 127.0.0.1:9798, [::1]:9798 or 9798"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback_and_nonsense_is_refused() {
        for (text, address) in [
            ("9798", "127.0.0.1:9798"),
            (":9798", "127.0.0.1:9798"),
            ("127.0.0.1:9798", "127.0.0.1:9798"),
            ("0.0.0.0:9798", "0.0.0.0:9798"),
            ("[::1]:9798", "[::1]:9798"),
        ] {
            assert_eq!(listen_address(text).unwrap().to_string(), address);
        }
        for text in ["", "localhost", "127.0.0.1", "70000", "1.2.3.4:"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }
}
