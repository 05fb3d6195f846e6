//! `kernloom iq`: the daemon, and what speaks to it.

mod answer;
mod daemon;
mod decisions;
mod exemptions;
mod exposed;
mod gate;
mod happened;
mod keep;
mod learn;
mod links;
mod lists;
mod notes;
mod recorder;
mod replay;
mod run;
mod simulate;
mod witness;

pub(super) use decisions::check_journal;
pub(super) use simulate::traffic;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use answer::Ask;
use nix::fcntl::Flock;

use super::graph::{GRAPH, GraphAsk, frozen_path};
use crate::cli::{GraphModeArg, IqArgs, IqCommand, IqRunArgs, ProfilesCommand};
use crate::error::{Error, Result};
use crate::graph::{Groups, Mode};
use crate::host::{Host, IqHost};
use crate::model::Source;
use crate::profile::{Effective, GraphPlan, Overrides, Profile, ProfileError};
use crate::report::{
    Answer, EventLine, HeldLine, Table, document, print, settings_yaml, status_lines, why_lines,
};
use crate::runtime::{no_iq, wait};
use crate::top::SortKey;

const PROFILES: &str = "'kernloom iq profiles list' names the profiles";

/// The log target of everything IQ says.
const IQ: &str = "iq";

impl From<ProfileError> for Error {
    fn from(error: ProfileError) -> Self {
        if error.is_operator_mistake() {
            Self::operator(error.to_string())
        } else {
            Self::world(error.to_string())
        }
    }
}

pub(super) fn run(host: &Host, args: &IqArgs) -> Result<()> {
    match &args.command {
        None => {
            let settings = Settings::read(host, &args.run)?;
            if args.run.print_config {
                return print(&settings_yaml(
                    &settings.name,
                    &settings.effective.settings(),
                ));
            }
            run::run(host, settings)
        }
        Some(IqCommand::Record { file, run }) => {
            if run.host.dry_run == Some(false) {
                return Err(Error::operator(format!(
                    "'iq record' judges as a dry run; 'kernloom iq --dry-run=false --record {}' records while enforcing",
                    file.display()
                )));
            }
            let mut settings = Settings::read(host, run)?;
            settings.iq.dry_run = true;
            settings.record = Some((file.clone(), run.record_max));
            run::run(host, settings)
        }
        Some(IqCommand::Replay(args)) => replay::run(args),
        Some(IqCommand::Simulate(args)) => simulate::run(args),
        Some(IqCommand::Decisions(args)) => decisions::run(host, args),
        Some(IqCommand::Top(args)) => super::top::run(&host.places, args, SortKey::Stage),
        Some(IqCommand::Profiles(command)) => profiles(command),
        Some(IqCommand::Status { json }) => tell(host, &Ask::Status, *json),
        Some(IqCommand::Why { source, json }) => tell(host, &Ask::Why { source: *source }, *json),
        Some(IqCommand::Forgive { source }) => tell(host, &Ask::Forgive { source: *source }, false),
        Some(IqCommand::Exempt { source, ttl, .. }) => {
            let source = *source;
            let ask = match ttl {
                Some(ttl) => Ask::Exempt {
                    source,
                    ttl_s: ttl.as_secs().max(1),
                },
                None => Ask::EndExemption { source },
            };
            tell(host, &ask, false)
        }
    }
}

/// Asks the running IQ and prints what it says.
fn tell(host: &Host, question: &Ask, json: bool) -> Result<()> {
    let answer = ask(&host.places.run_dir, question)?.ok_or_else(|| {
        Error::operator(format!(
            "no iq runs for {}; start it with 'kernloom iq', or give --run-dir of the one that does",
            host.places.run_dir.display()
        ))
    })?;
    let text = match &answer {
        Answer::Refused(why) => return Err(Error::operator(why.clone())),
        Answer::Failed(why) => return Err(Error::world(why.clone())),
        Answer::Status(status) if json => document("iq-status", status),
        Answer::Why(why) if json => document("iq-why", why),
        Answer::Status(status) => status_lines(status),
        Answer::Why(why) => why_lines(why),
        Answer::Held(_) | Answer::Events(_) => {
            return Err(Error::world("the running iq answered something else"));
        }
        Answer::Done(what) => format!("{what}\n"),
    };
    print(&text)
}

/// `None` if no IQ runs in `run_dir`.
fn ask(run_dir: &Path, question: &Ask) -> Result<Option<Answer>> {
    let odd =
        |error: serde_json::Error| Error::world(format!("speaking to the running iq: {error}"));
    let question = serde_json::to_string(question).map_err(odd)?;
    match crate::runtime::ask(run_dir, &question)? {
        Some(line) => serde_json::from_str(&line).map(Some).map_err(odd),
        None => Ok(None),
    }
}

/// Who answers what can be answered without an IQ too.
pub(super) enum Asked<T> {
    Told(T),
    /// Nobody: no IQ starts while this is held.
    Alone(Flock<File>),
}

/// Asks; one that is about to start is waited for.
pub(super) fn ask_or_alone<T>(
    run_dir: &Path,
    ask: impl Fn() -> Result<Option<T>>,
) -> Result<Asked<T>> {
    /// Loading programs takes seconds on a small machine.
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 0..TRIES {
        if let Some(answer) = ask()? {
            return Ok(Asked::Told(answer));
        }
        if let Some(lock) = no_iq(run_dir)? {
            return Ok(Asked::Alone(lock));
        }
        wait(PAUSE)?;
    }
    Err(Error::world(
        "an iq has begun to start and does not answer; its log says why, 'kernloom shield doctor' what \
         stands in the way",
    ))
}

/// Whether an IQ runs that answers.
pub(super) fn runs(run_dir: &Path) -> Result<bool> {
    Ok(ask(run_dir, &Ask::Status)?.is_some())
}

/// Whom a running IQ holds; nobody if none runs.
pub(super) fn held(run_dir: &Path) -> Result<Vec<HeldLine>> {
    match ask(run_dir, &Ask::Held)? {
        Some(Answer::Held(held)) => Ok(held),
        _ => Ok(Vec::new()),
    }
}

/// What the program told a running IQ after the event of this number; `None` if none runs.
pub(super) fn events(run_dir: &Path, after: u64) -> Result<Option<Vec<EventLine>>> {
    Ok(match ask(run_dir, &Ask::Events { after })? {
        Some(Answer::Events(events)) => Some(events),
        Some(_) => return Err(Error::world("the running iq answered something else")),
        None => None,
    })
}

/// What a running IQ says of a source, as lines; none if none runs.
pub(super) fn why(run_dir: &Path, source: &Source) -> Result<Vec<String>> {
    match ask(run_dir, &Ask::Why { source: *source })? {
        Some(Answer::Why(why)) => Ok(why_lines(&why).lines().map(str::to_owned).collect()),
        _ => Ok(Vec::new()),
    }
}

/// Asks the running IQ about the graph; `None` if none runs.
pub(super) fn ask_graph(run_dir: &Path, ask_: &GraphAsk) -> Result<Option<Answer>> {
    ask(run_dir, &Ask::Graph { ask: ask_.clone() })
}

/// Tells a running IQ that what it enforced is gone, and with `exemptions` that those of 'iq exempt'
/// end; what it said, if one runs.
pub(super) fn tell_of_reset(run_dir: &Path, exemptions: bool) -> Result<Option<String>> {
    Ok(
        ask(run_dir, &Ask::Reset { exemptions })?.map(|answer| match answer {
            Answer::Done(what) | Answer::Refused(what) | Answer::Failed(what) => what,
            Answer::Status(_) | Answer::Why(_) | Answer::Held(_) | Answer::Events(_) => {
                "the running iq was told".to_owned()
            }
        }),
    )
}

fn profiles(command: &ProfilesCommand) -> Result<()> {
    match command {
        ProfilesCommand::List => {
            let mut table = Table::new(["PROFILE", "FOR"]);
            for name in Profile::names() {
                let profile = Profile::named(name)?;
                table.row([name.to_owned(), profile.description().to_owned()]);
            }
            let sizes = "Sizes of the tables, whatever the profile: --sizing=standard, \
                         --sizing=raspberry-pi\n";
            print(&format!("{}{sizes}", table.render()))
        }
        ProfilesCommand::Show { name } => print(Profile::text(name)?),
    }
}

/// What this run goes by.
struct Settings {
    /// Name of the profile, or path of the file.
    name: String,
    effective: Effective,
    overrides: Overrides,
    iq: IqHost,
    fresh_state: bool,
    no_guard: bool,
    /// Whether another command attaches.
    no_attach: bool,
    /// How long a named interface, or that command, is waited for.
    wait: Option<Duration>,
    /// Where this run is recorded, and at how many bytes that ends.
    record: Option<(PathBuf, u64)>,
    graph: GraphSettings,
}

/// How the graph starts.
struct GraphSettings {
    /// Else it is kept only where it judges already.
    wanted: bool,
    mode: Option<Mode>,
    /// Said by the flag, not by the profile.
    by_flag: bool,
    clock: u32,
    /// Start over where the database cannot be read.
    fresh: bool,
    groups: Groups,
    plan: GraphPlan,
}

impl GraphSettings {
    fn read(host: &Host, args: &IqRunArgs, plan: GraphPlan) -> Result<Self> {
        let wanted = args.graph.unwrap_or(plan.enabled);
        if !wanted && args.graph_mode.is_some() {
            return Err(Error::operator("--graph-mode says nothing without --graph"));
        }
        let asked = args.graph_mode.map(|mode| match mode {
            GraphModeArg::Learn => Mode::Learn,
            GraphModeArg::FrozenObserve => Mode::Observe,
            GraphModeArg::FrozenEnforce => Mode::Enforce,
        });
        Ok(Self {
            wanted,
            mode: asked.or(plan.mode),
            by_flag: asked.is_some(),
            clock: args.graph_clock,
            fresh: args.fresh_state,
            groups: super::graph::groups(host)?,
            plan,
        })
    }

    /// What can be judged by. A profile says it of every host that goes by it, before there is
    /// anything to freeze on this one: without a frozen graph it learns, and protects meanwhile.
    fn mode_now(&self, store: &Path) -> Option<Mode> {
        let Some(asked @ (Mode::Observe | Mode::Enforce)) = self.mode else {
            return self.mode;
        };
        let path = frozen_path(store);
        // A name that leads nowhere is a damaged one, and refused as such.
        let none_yet = path
            .symlink_metadata()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if self.by_flag || !none_yet {
            return self.mode;
        }
        log::error!(
            target: GRAPH,
            "the profile asks for {asked}, but there is no frozen graph yet ({}): the graph learns and drops \
             nothing; 'kernloom graph freeze' makes one, then 'kernloom graph {}' or a restart of iq puts it \
             in force",
            path.display(),
            if asked == Mode::Observe { "observe" } else { "enforce" }
        );
        None
    }
}

impl Settings {
    fn read(host: &Host, args: &IqRunArgs) -> Result<Self> {
        let iq = host.iq(&args.host);
        let overrides = Overrides {
            soft_ttl: args.soft_ttl,
            hard_ttl: args.hard_ttl,
            block_ttl: args.block_ttl,
            block_min_sev: args.block_min_sev,
            block_min_dur: args.block_min_dur,
            bootstrap_allow_block: args.bootstrap_allow_block,
            set: args.set.clone(),
        };
        if let Some(path) = &iq.unused_pdp_config {
            let given = if args.host.profile.is_some() {
                "--profile"
            } else {
                "--pdp-config"
            };
            log::warn!(
                target: IQ,
                "pdp-config ({}) in {} is not used: {given} was given, and goes before both keys of the file; \
                 --pdp-config={} lays it over",
                path.display(),
                host.config.display(),
                path.display()
            );
        }
        if let Some(profile) = &iq.unused_profile {
            log::warn!(
                target: IQ,
                "profile ({profile}) in {} is not used: --pdp-config was given, and goes before both keys of the \
                 file; --profile={profile} puts it under the file",
                host.config.display()
            );
        }
        let untold = iq.profile.is_none() && iq.pdp_config.is_none();
        if untold {
            return Err(Error::operator(format!(
                "give --profile or --pdp-config, or set 'profile' in {}; {PROFILES}",
                host.config.display()
            )));
        }
        let (name, profile) = judged_by(&iq)?;
        let effective = profile.effective(&overrides)?;
        effective.config()?;
        let graph = GraphSettings::read(host, args, effective.graph())?;
        Ok(Self {
            name,
            effective,
            overrides,
            iq,
            fresh_state: args.fresh_state,
            graph,
            no_guard: args.no_guard,
            no_attach: args.no_attach,
            wait: args.wait,
            record: args.record.clone().map(|path| (path, args.record_max)),
        })
    }
}

/// The profile, the file, or the file laid over the profile.
fn judged_by(iq: &IqHost) -> Result<(String, Profile)> {
    judged_by_names(iq.profile.as_deref(), iq.pdp_config.as_deref())
}

fn judged_by_names(name: Option<&str>, path: Option<&Path>) -> Result<(String, Profile)> {
    match (name, path) {
        (Some(name), None) => Ok((name.to_owned(), Profile::named(name)?)),
        (base, Some(path)) => {
            let mut profile = Profile::read(path)?;
            if let Some(base) = base {
                profile = profile.over(Profile::named(base)?);
            }
            Ok((profile.name().to_owned(), profile))
        }
        (None, None) => Err(Error::operator(format!(
            "give --profile or --pdp-config; {PROFILES}"
        ))),
    }
}
