//! `kernloom report`: journal and recording to one page.

use std::path::Path;

use super::iq;
use crate::cli::{IqHostArgs, ReportArgs};
use crate::error::{Doing, Error, Result};
use crate::host::Host;
use crate::model::Wall;
use crate::page::Report;
use crate::report::print;
use crate::runtime::moment;
use crate::state::Journal;

pub(super) fn run(host: &Host, args: &ReportArgs) -> Result<()> {
    let journal = args.journal.clone();
    let named = journal.is_some();
    let journal = journal.unwrap_or_else(|| host.iq(&IqHostArgs::default()).journal);
    if named && !journal.exists() {
        return Err(Error::operator(format!(
            "cannot read {}: there is no such journal; leave out --journal to read this instance's",
            journal.display()
        )));
    }
    let to = moment()?.unix.as_secs();
    let from = Wall::from_secs(to.saturating_sub(args.last.as_secs()));
    let to = Wall::from_secs(to);
    let traffic = match &args.recording {
        Some(path) => iq::traffic(path, from)?,
        None => Vec::new(),
    };
    let report = Report {
        host: nix::sys::utsname::uname().map_or_else(
            |_| "this host".to_owned(),
            |name| name.nodename().to_string_lossy().into_owned(),
        ),
        from,
        to,
        records: Journal::since(&journal, from)?,
        traffic,
    };
    let page = report.html();
    if args.output == Path::new("-") {
        return print(&page);
    }
    std::fs::write(&args.output, page).doing(|| format!("writing {}", args.output.display()))?;
    print(&format!(
        "{}: {} decisions since {from}\n",
        args.output.display(),
        report.records.len()
    ))
}
