use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::{positive_duration, reason};
use crate::model::Source;

#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// Add sources: addresses or prefixes
    Add {
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<Source>,
        #[command(flatten)]
        how: EntryArgs,
    },
    /// Remove sources
    Del {
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<Source>,
    },
    /// Add all sources of a list, or none of them
    #[command(
        after_help = "One source a line: ADDRESS or PREFIX, then if wanted ttl=TIME, owner=OWNER and \
                            reason=TEXT, which runs to the end of the line. What follows '#' or ';' is a comment.\n\n\
                            Example: curl -s https://lists.example/drop.txt | sudo kernloom shield deny import - \
                            --owner feed --ttl 1d"
    )]
    Import {
        /// File to read; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        how: EntryArgs,
    },
    /// Write the list in the form import reads: what operators and feeds entered
    Export {
        /// File to write; - is standard output
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// List them, whoever made them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct EntryArgs {
    /// Ends by itself after this long, even if nothing runs by then
    #[arg(long, value_name = "TIME", value_parser = positive_duration, allow_hyphen_values = true)]
    pub ttl: Option<Duration>,
    /// Whose entry it is; a feed's and IQ's never overrule an allow, nor an operator's entry
    #[arg(long, value_enum, default_value_t = OwnerArg::Operator)]
    pub owner: OwnerArg,
    /// Why, in a line of at most 64 bytes
    #[arg(
        long,
        value_name = "TEXT",
        value_parser = reason,
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Deny even management addresses and your own SSH peer
    #[arg(long)]
    pub no_guard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OwnerArg {
    Operator,
    Iq,
    Feed,
}
