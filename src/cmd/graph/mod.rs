//! `kernloom graph`: asks the running IQ, which then is the one writer, or does it itself.

mod ask;
mod decide;
mod disk;
mod freeze;
mod groups;
mod keeper;
mod links;
mod violations;
mod way_in;

use std::path::{Path, PathBuf};

pub(super) use ask::GraphAsk;
pub(super) use groups::{group_of, groups};
pub(super) use keeper::{GraphKeeper, Setup};

use super::iq::{self, Asked};
use super::pins;
use super::shield::guard_way_in;
use crate::cli::{EdgeArgs, GraphArgs, GraphCommand};
use crate::dataplane::Shield;
use crate::error::{Doing, Error, Result};
use crate::graph::{Direction, Edge, Frozen, GroupError, Promotion, Service};
use crate::host::Host;
use crate::model::Source;
use crate::report::{Answer, GraphView, print, spinner, write_out};
use crate::runtime::{moment, only_keeper};
use crate::store::read_frozen;
use crate::trust::directory_of;

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
    // With a hundred thousand edges these take seconds.
    let spinner = if matches!(args.command, GraphCommand::Freeze { .. }) {
        Some(spinner("freezing the graph"))
    } else if matches!(
        args.command,
        GraphCommand::Enforce { .. } | GraphCommand::Observe
    ) {
        Some(spinner("putting the graph in force"))
    } else {
        None
    };
    let enforces = matches!(args.command, GraphCommand::Enforce { .. });
    let guarded = refuse_groups(host)
        .and_then(|()| refuse_other_store(host, args))
        .and_then(|()| match enforces {
            true => guard_way_in(&pins(&host.places), &host.management),
            false => Ok(String::new()),
        });
    let answer = guarded.and_then(|said| Ok(said + &told(host, &store, &ask)?));
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let text = answer?;
    if let GraphCommand::Export {
        output: Some(path), ..
    } = &args.command
    {
        write_out(path, &text)?;
        if path == Path::new("-") {
            return Ok(());
        }
        return print(&format!("wrote {}\n", path.display()));
    }
    print(&text)
}

/// # Errors
/// Operator's, if an IQ runs and keeps its graph elsewhere than `--store` says.
fn refuse_other_store(host: &Host, args: &GraphArgs) -> Result<()> {
    let Some(named) = &args.store else {
        return Ok(());
    };
    let run_dir = &host.places.run_dir;
    let asked = || iq::ask_graph(run_dir, &GraphAsk::Store);
    // What else it answers, it answers to the command, too.
    let Asked::Told(Answer::Done(kept)) = iq::ask_or_alone(run_dir, asked)? else {
        return Ok(());
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(named) == real(Path::new(&kept)) {
        return Ok(());
    }
    Err(Error::operator(format!(
        "the iq that runs keeps its graph in {kept}, and would not look at the {} of --store: leave --store \
         out, or stop iq first",
        named.display()
    )))
}

/// # Errors
/// Operator's, if groups are given to a command and an IQ runs, which has its own.
fn refuse_groups(host: &Host) -> Result<()> {
    if host.groups_given && iq::runs(&host.places.run_dir)? {
        return Err(Error::operator(
            "--group says nothing to an iq that runs: give it to 'kernloom iq', or write it to \
             /etc/kernloom/kernloom.toml, and start iq again",
        ));
    }
    Ok(())
}

/// The answer of the running IQ, or our own.
fn told(host: &Host, store: &Path, ask: &GraphAsk) -> Result<String> {
    let run_dir = &host.places.run_dir;
    let asked = || {
        refuse_groups(host)?;
        iq::ask_graph(run_dir, ask)
    };
    match iq::ask_or_alone(run_dir, asked)? {
        Asked::Told(Answer::Refused(why)) => Err(Error::operator(why)),
        Asked::Told(Answer::Failed(why)) => Err(Error::world(why)),
        Asked::Told(Answer::Done(text)) => Ok(text),
        Asked::Told(Answer::Status(_) | Answer::Why(_) | Answer::Held(_) | Answer::Events(_)) => {
            Err(Error::world("the running iq answered something else"))
        }
        Asked::Alone(_) if ask.only_reads() && !store.exists() => Err(Error::operator(format!(
            "no graph is kept in {}; 'kernloom iq --graph' learns one, --store names another",
            store.display()
        ))),
        Asked::Alone(_lock) => alone(host, store, ask),
    }
}

/// The graph as it is, for the report; `None` where none was ever kept.
pub(super) fn view(host: &Host) -> Result<Option<GraphView>> {
    let store = host.graph_store(None);
    let there = store.try_exists();
    if !there.doing(|| format!("looking for {}", store.display()))? {
        return Ok(None);
    }
    let (run_dir, show) = (&host.places.run_dir, GraphAsk::Show { json: true });
    let text = match iq::ask_or_alone(run_dir, || iq::ask_graph(run_dir, &show))? {
        Asked::Told(Answer::Done(text)) => text,
        // The running IQ keeps none: what an earlier one learned is not what holds.
        Asked::Told(_) => return Ok(None),
        Asked::Alone(_lock) => alone(host, &store, &show)?,
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::world(format!("reading the graph: {error}")))
}

/// No IQ runs: this process is the one writer for as long as the caller holds IQ's lock.
fn alone(host: &Host, store: &Path, ask: &GraphAsk) -> Result<String> {
    let _kept = only_keeper(&[directory_of(store)])?;
    let pins = pins(&host.places);
    let shield = Shield::open(&pins)?;
    let _steering = shield.as_ref().map(|_| pins.steer()).transpose()?;
    let setup = Setup {
        store: store.to_owned(),
        groups: groups(host)?,
        promotion: Promotion::default(),
        exclude: Vec::new(),
        fresh: false,
    };
    let mut keeper = match GraphKeeper::open(shield.as_ref(), setup.clone(), moment()?) {
        Ok(keeper) => keeper,
        // A broken database must not keep a host shut.
        Err(error) if ask.releases() => {
            let mut keeper = GraphKeeper::without_store(shield.as_ref(), setup, moment()?)?;
            keeper.go_by_file(moment()?);
            let text = keeper.answer(ask, moment()?)?;
            return Ok(format!(
                "{text}it is not stored, and lasts until 'kernloom iq' starts: {error}\n"
            ));
        }
        Err(error) => return Err(error),
    };
    keeper.go_by_file(moment()?);
    let answer = keeper.answer(ask, moment()?);
    keeper.flush(moment()?)?;
    answer
}

/// The frozen graph and its file's text, if there is one and packets can match all of it.
fn read_sound(path: &Path, v6_bits: u8) -> Result<Option<(Frozen, String)>> {
    let read = read_frozen(path)?;
    if let Some((frozen, _)) = &read {
        let sound = frozen.check(v6_bits);
        sound.map_err(|error| Error::operator(format!("{}: {error}", path.display())))?;
    }
    Ok(read)
}

/// The frozen graph's file, beside the store.
pub(super) fn frozen_path(store: &Path) -> PathBuf {
    store.with_file_name("frozen-graph.yaml")
}

/// Beside it, what it said when it was accepted last.
fn accepted_path(store: &Path) -> PathBuf {
    store.with_file_name("frozen-graph.yaml.accepted")
}

/// The edges that a command names.
fn named(args: &EdgeArgs) -> (Direction, String, Vec<Service>) {
    (args.direction, args.peer.clone(), args.services.clone())
}

/// `10.0.0.0/8` in `exclude` covers every source inside.
fn is_excluded(exclude: &[Source], edge: &Edge, source: &Source) -> bool {
    edge.direction != Direction::Cast && exclude.iter().any(|prefix| prefix.contains(source))
}
