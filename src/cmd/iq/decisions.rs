//! `iq decisions`: the journal, whether an IQ runs or not.

use std::path::Path;

use crate::cli::{DecisionsArgs, IqHostArgs};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::model::{Source, Wall, format_duration};
use crate::report::{decisions_json, decisions_table, print};
use crate::runtime::moment;
use crate::state::Journal;

/// What to do where no IQ has ever written a journal.
pub(in crate::cmd) fn check_journal(journal: &Path) -> Result<()> {
    if Journal::is_there(journal) {
        return Ok(());
    }
    Err(Error::operator(format!(
        "there is no journal {}: no 'kernloom iq' has decided anything here yet; start one, e.g. \
         'kernloom iq --profile=web-server', or name another's journal",
        journal.display()
    )))
}

/// Whether what was decided of `source` was of `wanted`, too: of a source inside it, or of what it
/// is part of.
fn concerns(source: Source, wanted: &Source) -> bool {
    wanted.contains(&source) || source.by_family().any(|whole| whole.contains(wanted))
}

pub(super) fn run(host: &Host, args: &DecisionsArgs) -> Result<()> {
    let journal = &host.iq(&IqHostArgs::default()).journal;
    check_journal(journal)?;
    let now = moment()?.unix.as_secs();
    let from = Wall::from_secs(now.saturating_sub(args.last.as_secs()));
    let mut records = Journal::since(journal, from)?;
    if let Some(wanted) = &args.source {
        records.retain(|record| {
            let source = record.source.parse();
            source.is_ok_and(|source| concerns(source, wanted))
        });
    }
    let newest = records.split_off(records.len().saturating_sub(args.count));
    if args.json {
        return print(&decisions_json(&newest));
    }
    if newest.is_empty() {
        let span = format_duration(args.last);
        return print(&format!("no decisions in the last {span}\n"));
    }
    let mut text = decisions_table(&newest);
    if !records.is_empty() {
        text.push_str(&format!("{} older ones; -n shows more\n", records.len()));
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_decided_of_a_whole_was_of_its_parts() {
        let concerns = |source: &str, wanted: &str| {
            super::concerns(source.parse().unwrap(), &wanted.parse().unwrap())
        };
        for (source, wanted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.0/24"),
            ("192.0.2.0/24", "192.0.2.7"),
            ("fd14::/64", "fd14::5"),
            ("fd14::/48", "fd14::5"),
            ("::/0", "fd14::5"),
            ("::/0", "192.0.2.7"),
            ("::/0", "0.0.0.0/0"),
        ] {
            assert!(concerns(source, wanted), "{source} {wanted}");
        }
        for (source, wanted) in [
            ("192.0.2.8", "192.0.2.7"),
            ("198.51.100.0/24", "192.0.2.7"),
            ("fd15::/64", "fd14::5"),
            ("192.0.2.7", "fd14::5"),
        ] {
            assert!(!concerns(source, wanted), "{source} {wanted}");
        }
    }
}
