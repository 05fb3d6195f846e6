//! `kernloom report`: journal and recording to one page.

use std::path::Path;

use super::{graph, iq};
use crate::cli::{IqHostArgs, ReportArgs};
use crate::error::{Doing, Error, Result};
use crate::graph::Direction;
use crate::host::Host;
use crate::model::{Wall, counted};
use crate::page::{Graph, GraphEdge, Report};
use crate::report::{GraphView, print, write_out};
use crate::runtime::moment;
use crate::state::Journal;

pub(super) fn run(host: &Host, args: &ReportArgs) -> Result<()> {
    let journal = args.journal.clone();
    let named = journal.is_some();
    let journal = journal.unwrap_or_else(|| host.iq(&IqHostArgs::default()).journal);
    let there = journal.try_exists();
    if named && !there.doing(|| format!("looking for {}", journal.display()))? {
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
    let graph = graph::view(host)?.map(drawn);
    if !named && args.recording.is_none() && graph.is_none() {
        iq::check_journal(&journal)?;
    }
    let report = Report {
        host: nix::sys::utsname::uname().map_or_else(
            |_| "this host".to_owned(),
            |name| name.nodename().to_string_lossy().into_owned(),
        ),
        from,
        to,
        records: Journal::since(&journal, from)?,
        traffic,
        graph,
    };
    let page = report.html();
    write_out(&args.output, &page)?;
    if args.output == Path::new("-") {
        return Ok(());
    }
    print(&format!(
        "{}: {} since {from}\n",
        args.output.display(),
        counted(report.records.len(), "decision", "decisions")
    ))
}

/// The graph in the words of the page.
fn drawn(view: GraphView) -> Graph {
    let edges = view.edges.into_iter().map(|edge| GraphEdge {
        out: edge.direction == Direction::Out.name(),
        peer: edge.peer,
        service: edge.service,
        state: edge.state,
    });
    let violations = view.violations.into_iter().map(|violation| GraphEdge {
        out: violation.direction == Direction::Out.name(),
        peer: violation.peer,
        service: violation.service,
        state: "violation".to_owned(),
    });
    let left = view.lease.map(|left| format!(", leased for {left} more"));
    Graph {
        mode: format!("{}{}", view.mode, left.unwrap_or_default()),
        edges: edges.chain(violations).collect(),
    }
}
