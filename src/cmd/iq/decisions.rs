//! `iq decisions`: the journal, whether an IQ runs or not.

use std::path::Path;

use crate::cli::{DecisionsArgs, IqHostArgs};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::model::{Source, Wall, format_duration};
use crate::report::{decisions_json, decisions_table, print};
use crate::runtime::moment;
use crate::state::{Journal, Record};

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

pub(super) fn run(host: &Host, args: &DecisionsArgs) -> Result<()> {
    let journal = &host.iq(&IqHostArgs::default()).journal;
    check_journal(journal)?;
    let now = moment()?.unix.as_secs();
    let from = Wall::from_secs(now.saturating_sub(args.last.as_secs()));
    let mut records = Journal::since(journal, from)?;
    if let Some(wanted) = &args.source {
        let inside = |record: &Record| {
            let source = record.source.parse::<Source>();
            source.is_ok_and(|source| wanted.contains(&source))
        };
        records.retain(inside);
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
