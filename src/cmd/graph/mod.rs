//! `kernloom graph`: asks the running IQ, which then is the one writer, or does it itself.

mod ask;
mod keeper;
mod links;
mod violations;

use std::path::{Path, PathBuf};

pub(super) use ask::GraphAsk;
pub(super) use keeper::{GraphKeeper, Setup};

use super::{iq, pins};
use crate::cli::{EdgeArgs, GraphArgs, GraphCommand};
use crate::dataplane::Shield;
use crate::error::{Doing, Error, Result};
use crate::graph::{Direction, Edge, Frozen, GroupError, Groups, Peer, Promotion, Service};
use crate::host::Host;
use crate::model::Source;
use crate::report::{Answer, print};
use crate::runtime::{moment, only_iq};
use crate::store::{read_frozen, write_whole};

/// The log target of everything about the graph.
pub(super) const GRAPH: &str = "graph";

impl From<GroupError> for Error {
    fn from(error: GroupError) -> Self {
        Self::operator(error.to_string())
    }
}

pub(super) fn run(host: &Host, args: &GraphArgs) -> Result<()> {
    let store = host.graph_store(args.store.as_ref());
    let ask = GraphAsk::of(&args.command);
    let text = match iq::ask_graph(&host.places.run_dir, &ask)? {
        Some(Answer::Refused(why)) => return Err(Error::operator(why)),
        Some(Answer::Failed(why)) => return Err(Error::world(why)),
        Some(Answer::Done(text)) => text,
        Some(Answer::Status(_) | Answer::Why(_) | Answer::Held(_)) => {
            return Err(Error::world("the running iq answered something else"));
        }
        None => alone(host, &store, &ask)?,
    };
    if let GraphCommand::Export {
        output: Some(path), ..
    } = &args.command
    {
        write_export(path, &text)?;
        return print(&format!("wrote {}\n", path.display()));
    }
    print(&text)
}

/// A pipe or a device is written to; only a file is replaced.
fn write_export(path: &Path, text: &str) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            std::fs::write(path, text).doing(|| format!("writing {}", path.display()))
        }
        _ => write_whole(path, text),
    }
}

/// No IQ runs: this process is the one writer for as long as it holds IQ's lock.
fn alone(host: &Host, store: &Path, ask: &GraphAsk) -> Result<String> {
    let _only = only_iq(&host.places.run_dir)?;
    let shield = Shield::open(&pins(&host.places))?;
    let setup = Setup {
        store: store.to_owned(),
        groups: groups(host)?,
        promotion: Promotion::default(),
        exclude: Vec::new(),
    };
    let mut keeper = GraphKeeper::open(shield.as_ref(), setup, moment()?)?;
    let answer = keeper.answer(ask, moment()?);
    keeper.flush(moment()?)?;
    answer
}

/// The operator's groups, and this host's own prefixes, which are never `internet`.
pub(super) fn groups(host: &Host) -> Result<Groups> {
    let mut groups = Groups::new(links::local()?);
    for (name, prefixes) in &host.groups {
        for prefix in prefixes {
            groups.add(name, *prefix)?;
        }
    }
    Ok(groups)
}

/// The groups that apply: those of the frozen file go before the configured ones of that name.
fn in_force(configured: &Groups, frozen: Option<&Frozen>) -> Groups {
    let Some(frozen) = frozen else {
        return configured.clone();
    };
    let mut groups = configured.without_names();
    let named = configured.named();
    let named = named.filter(|(name, _)| !frozen.groups.contains_key(*name));
    let filed = frozen
        .groups
        .iter()
        .map(|(name, all)| (name.as_str(), all.as_slice()));
    for (name, prefixes) in filed.chain(named) {
        for prefix in prefixes {
            if let Err(error) = groups.add(name, *prefix) {
                log::warn!(target: GRAPH, "{error}; the frozen graph's word counts");
            }
        }
    }
    groups
}

/// The group that a source counts as, by the configuration and the frozen file.
pub(super) fn group_of(host: &Host, source: &Source) -> Result<Option<Peer>> {
    let frozen = read_frozen(&frozen_path(&host.graph_store(None)))?;
    let groups = in_force(&groups(host)?, frozen.as_ref().map(|(frozen, _)| frozen));
    Ok(Some(groups.peer(source)).filter(|peer| matches!(peer, Peer::Group(_))))
}

/// The frozen graph's file, beside the store.
fn frozen_path(store: &Path) -> PathBuf {
    store.with_file_name("frozen-graph.yaml")
}

/// The edges that a command names.
fn named(args: &EdgeArgs) -> (Direction, String, Vec<Service>) {
    (args.direction, args.peer.clone(), args.services.clone())
}

/// `10.0.0.0/8` in `exclude` covers every source inside.
fn is_excluded(exclude: &[Source], edge: &Edge, source: &Source) -> bool {
    edge.direction != Direction::Cast && exclude.iter().any(|prefix| prefix.contains(source))
}
