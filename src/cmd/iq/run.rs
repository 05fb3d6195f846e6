//! The daemon: one epoll loop, no thread.

use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;

use super::super::graph::{GRAPH, GraphKeeper, Setup};
use super::super::pins;
use super::super::shield::{attached_somewhere, open_way_in};
use super::daemon::Iq;
use super::exposed::Exposed;
use super::keep::{self, Keeper, Kernel};
use super::lists::{Before as Exempted, Lists, warn_of_everyone};
use super::recorder::Recorder;
use super::{GraphSettings, IQ, Settings};
use crate::dataplane::{
    Attached, Features, LoadOptions, ModeChoice, PinDir, Retired, Shield, default_interface,
    interface_index,
};
use crate::error::{Error, Result};
use crate::exempt::By;
use crate::graph::Mode;
use crate::host::Host;
use crate::model::{Moment, format_duration};
use crate::report::attached_line;
use crate::runtime::{
    ControlSocket, Poller, STEADY, Ticker, Wake, Watch, keep_only, moment, only_iq, only_keeper,
    patiently, shutdown_on_signal, tell_alive, tell_ready, tell_stopping, told_to_stop,
    watchdog_interval,
};
use crate::state::{Exemption, State};
use crate::trust::directory_of;

pub(super) fn run(host: &Host, mut settings: Settings) -> Result<()> {
    let pins = pins(&host.places);
    await_ready(&pins, &settings)?;
    let _only = only_iq(&host.places.run_dir)?;
    let _kept = only_keeper(&kept_in(host, &settings))?;
    // Before anything is attached: a state that is refused must leave the host as it is.
    let (keeper, mut state) = Keeper::open(&host.state_dir, settings.fresh_state)?;
    let mut made = Made::default();
    if settings.graph.wanted {
        settings.graph.mode = settings.graph.mode_now(&settings.iq.store);
        made.will_make(&settings.iq.store);
        let setup = graph_setup(&settings.iq.store, &settings.graph);
        GraphKeeper::open(None, setup, moment()?)?.check(settings.graph.mode)?;
    }
    pins.create()?;
    let _steering = pins.steer()?;
    let shutdown = shutdown_on_signal()?;
    let reused = pins.is_loaded()?;
    let exposed = Exposed::new(&settings.iq)?;
    let recorder = match &settings.record {
        Some((path, most)) => {
            made.will_make(path);
            Some(Recorder::create(path, *most)?)
        }
        None => None,
    };
    let shield = attach(&pins, &settings)?;
    made.keep();
    keep_way_in(&shield, &pins, host, &settings)?;
    let before = Before::find(&keeper, &state, (&shield, &pins), reused)?;
    if let Some(lost) = keeper.lost() {
        keep_unknown(&mut state, &before.kernel, lost)?;
    }
    let lists = lists(host, &settings, &state, &before.kernel)?;
    let graph = if settings.graph.wanted {
        let graph = &settings.graph;
        Some(begin_graph(&shield, &settings.iq.store, graph, graph.mode)?)
    } else {
        graph_in_force(&shield, &settings.iq.store, &settings.graph)?
    };
    let mut iq = Iq::new(&shield, &pins, settings, keeper, lists, &state, exposed)?;
    iq.graph = graph;
    iq.begin(&state, &before)?;
    if let Some(recorder) = recorder {
        iq.record(recorder)?;
    }
    let ended = attend(host, &shield, &shutdown, &mut iq);
    if ended.is_err() && shield.retired() == Some(Retired::Purged) {
        return purged(&mut iq);
    }
    ended
}

/// Takes what the kernel still exempts into a state that is older than that.
fn keep_unknown(state: &mut State, kernel: &Kernel, lost: &str) -> Result<()> {
    for one in keep::unknown(state, kernel, moment()?) {
        log::warn!(
            target: IQ,
            "{} stays exempt until {}, though no state says so: {lost}; 'kernloom iq exempt {} --end' \
             ends that",
            one.source, one.until, one.source
        );
        state.exemptions.push(one);
    }
    Ok(())
}

/// Whom to leave alone, by what is known before any file is read.
fn lists(host: &Host, settings: &Settings, state: &State, kernel: &Kernel) -> Result<Lists> {
    if let Some(path) = settings.iq.missing_whitelist() {
        log::warn!(
            target: IQ,
            "there is no whitelist {}: nobody is exempt by it until there is",
            path.display()
        );
    }
    warn_of_everyone(&"management", &host.management);
    let feedback = keep::unknown(state, kernel, moment()?);
    let feedback = feedback.into_iter().map(|one| Exemption {
        by: By::Feedback,
        ..one
    });
    let before = Exempted {
        whitelist: keep::whitelisted(kernel),
        feedback: feedback.collect(),
    };
    Ok(Lists::new(
        host.management.clone(),
        (&settings.iq.whitelist, &settings.iq.feedback),
        state.exemptions.clone(),
        state.feedback.clone(),
        before,
    ))
}

/// Where the state is, and the graph if there is one.
fn kept_in<'a>(host: &'a Host, settings: &'a Settings) -> Vec<&'a Path> {
    let mut dirs = vec![host.state_dir.as_path()];
    let store = directory_of(&settings.iq.store);
    if settings.graph.wanted || store.exists() {
        dirs.push(store);
    }
    dirs
}

fn await_ready(pins: &PinDir, settings: &Settings) -> Result<()> {
    let ready = || {
        all_there(&settings.iq.iface)?;
        if settings.no_attach {
            attached_already(pins, &settings.iq.iface)?;
        }
        Ok(())
    };
    match settings.wait {
        Some(patience) => patiently(patience, ready),
        None => ready(),
    }
}

fn all_there(interfaces: &[String]) -> Result<()> {
    interfaces
        .iter()
        .try_for_each(|name| interface_index(name).map(drop))
}

/// Fails unless somebody attached to each of these; without a name, to any.
fn attached_already(pins: &PinDir, interfaces: &[String]) -> Result<Vec<Attached>> {
    if interfaces.is_empty() {
        attached_somewhere(pins)?;
    }
    let there = Shield::attached(pins)?;
    let lacks = |name: &&String| there.iter().all(|one| one.interface != **name);
    let lacking: Vec<&str> = interfaces
        .iter()
        .filter(lacks)
        .map(String::as_str)
        .collect();
    if lacking.is_empty() {
        return Ok(there);
    }
    Err(Error::world(format!(
        "not attached to {}, and --no-attach attaches nothing; start with 'kernloom shield attach {}'",
        lacking.join(", "),
        lacking.join(" ")
    )))
}

/// What the operator let go of must not come back because a service manager sees a failure.
fn purged(iq: &mut Iq<'_>) -> Result<()> {
    log::info!(
        target: IQ,
        "stopping: the operator removed the data plane ('kernloom shield detach --purge'); \
         'kernloom shield attach', then start iq again to protect"
    );
    // The state may have gone with it.
    iq.farewell().map(drop)
}

fn not_stored() -> Error {
    Error::world(
        "the state could not be stored, see above: the next start knows nothing of what was learned, held and \
         exempted since the one on disk",
    )
}

/// Files that were not there before a start, and go with it if it fails: the next one makes them anew.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn will_make(&mut self, path: &Path) {
        if !path.exists() {
            self.0.push(path.to_owned());
        }
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // What was never made is as good as removed.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The loop: one epoll over signals, ring buffer, ticks, files, metrics and the control socket.
fn attend(host: &Host, shield: &Shield, signals: &SignalFd, iq: &mut Iq<'_>) -> Result<()> {
    let ticker = Ticker::every(iq.interval())?;
    let events = shield.events()?;
    let mut socket = ControlSocket::listen(&host.places.run_dir)?;
    let mut watch = watching(iq)?;
    let poller = Poller::new()?;
    poller.watch(signals, Wake::Shutdown)?;
    if let Some(events) = &events {
        poller.watch(events, Wake::Events)?;
    }
    poller.watch(&ticker, Wake::Tick)?;
    let watchdog = watchdog_interval().map(Ticker::every).transpose()?;
    if let Some(watchdog) = &watchdog {
        poller.watch(watchdog, Wake::Watchdog)?;
    }
    poller.watch(&watch, Wake::Files)?;
    socket.watch(&poller)?;
    if let Some(server) = iq.exposed().and_then(Exposed::server) {
        poller.watch(server, Wake::Metrics)?;
    }
    iq.read_lists()?;
    let mode = iq.mode()?;
    log::info!(target: IQ, "profile {}, a tick every {}, {mode}", iq.profile(), format_duration(iq.interval()));
    keep_only(&STEADY)?;
    let trouble = host.trouble.iter().map(|trouble| format!("; {trouble}"));
    tell_ready(&format!(
        "profile {}, {mode}{}",
        iq.profile(),
        trouble.collect::<String>()
    ));
    loop {
        for wake in poller.wait()? {
            match wake {
                Wake::Shutdown if !told_to_stop(signals)? => say_going_on(),
                Wake::Shutdown => {
                    tell_stopping();
                    return iq.farewell()?.then_some(()).ok_or_else(not_stored);
                }
                Wake::Events => events.iter().try_for_each(|events| iq.on_events(events))?,
                Wake::Tick => {
                    ticker.acknowledge()?;
                    iq.on_files(&watch.settled())?;
                    iq.on_tick()?;
                }
                Wake::Watchdog => {
                    watchdog.as_ref().map_or(Ok(()), Ticker::acknowledge)?;
                    tell_alive();
                }
                Wake::Files => iq.on_files(&watch.changed()?)?,
                Wake::Metrics => iq.on_scrape()?,
                Wake::Control => socket.accept(&poller)?,
                Wake::Client(number) => {
                    if let Some(request) = socket.serve(&poller, number)? {
                        let answer = iq.answer(&request.text)?;
                        socket.answer(&request, &answer);
                    }
                }
            }
        }
    }
}

fn say_going_on() {
    log::info!(target: IQ, "SIGHUP: going on; files are read anew when they change, SIGTERM ends iq");
}

fn graph_setup(store: &Path, settings: &GraphSettings) -> Setup {
    Setup {
        store: store.to_owned(),
        groups: settings.groups.clone(),
        promotion: settings.plan.promotion,
        exclude: settings.plan.exclude.clone(),
        fresh: settings.fresh,
    }
}

/// Opens the graph and puts it in force.
fn begin_graph<'a>(
    shield: &'a Shield,
    store: &Path,
    settings: &GraphSettings,
    asked: Option<Mode>,
) -> Result<GraphKeeper<'a>> {
    if shield.graph().is_none() {
        return Err(Error::operator(
            "the data plane that is loaded has no edge stage; run 'kernloom shield detach --all --purge' first, \
             then start with --graph again",
        ));
    }
    let setup = graph_setup(store, settings);
    let mut keeper = GraphKeeper::open(Some(shield), setup, moment()?)?;
    keeper.set_rate(settings.clock);
    let mode = keeper.begin(asked, moment()?)?;
    log::info!(target: GRAPH, "{mode}, kept in {}", store.display());
    Ok(keeper)
}

/// The graph that judges already, though nobody asked for one: it must not be out of reach of its
/// commands for as long as this IQ runs.
fn graph_in_force<'a>(
    shield: &'a Shield,
    store: &Path,
    settings: &GraphSettings,
) -> Result<Option<GraphKeeper<'a>>> {
    let Some(plane) = shield.graph() else {
        return Ok(None);
    };
    let mode = plane.status(moment()?.ktime).mode;
    if !mode.is_frozen() {
        return Ok(None);
    }
    log::warn!(target: GRAPH, "{mode} is in force from before, and stays: the graph is kept without --graph, too");
    match begin_graph(shield, store, settings, None) {
        Ok(keeper) => Ok(Some(keeper)),
        Err(error) => {
            log::error!(target: GRAPH, "{error}; the graph in force can be changed only while no iq runs");
            Ok(None)
        }
    }
}

/// What was there before this start, read before anything changes it.
pub(super) struct Before {
    pub(super) kernel: Kernel,
    pub(super) same_boot: bool,
    /// By which the times of the state are read.
    pub(super) reading: Moment,
}

impl Before {
    fn find(
        keeper: &Keeper,
        state: &State,
        (shield, pins): (&Shield, &PinDir),
        reused: bool,
    ) -> Result<Self> {
        let now = moment()?;
        let same_boot = state.written.boot == keeper.boot();
        let reading = state.written.reading(keeper.boot(), now);
        // Whoever attached since the reboot, and with what lists, knows nothing of these. They are
        // no decisions of ours: a dry run that left them out would lose them with its next state.
        if !same_boot {
            for what in keep::put_back(state, shield, pins, reading)? {
                log::info!(target: IQ, "put back {what} after the reboot");
            }
        }
        Ok(Self {
            kernel: Kernel {
                entries: shield.entries()?,
                reused,
            },
            same_boot,
            reading,
        })
    }
}

fn watching(iq: &Iq<'_>) -> Result<Watch> {
    let mut watch = Watch::new()?;
    for path in iq.files() {
        watch.add(&path);
    }
    Ok(watch)
}

/// Attaches to the named interfaces; without a name, to what is attached already, else to the
/// interface of the default route.
fn attach(pins: &PinDir, settings: &Settings) -> Result<Shield> {
    let iq = &settings.iq;
    let options = LoadOptions {
        sources: iq.sources,
        max_deny: iq.max_deny,
        features: if settings.graph.wanted {
            Features::Graph
        } else {
            Features::default()
        },
        ..LoadOptions::default()
    };
    let lock = pins.lock()?;
    // Again, for whoever detached since may not meet an IQ that attaches.
    let there = if settings.no_attach {
        attached_already(pins, &iq.iface)?
    } else {
        Shield::attached(pins)?
    };
    let shield = Shield::open_or_load(pins, &options, &lock)?;
    if settings.no_attach || iq.iface.is_empty() && !there.is_empty() {
        there.iter().for_each(say_attached);
        return Ok(shield);
    }
    let mut interfaces = iq.iface.clone();
    if interfaces.is_empty() {
        let interface = default_interface("kernloom iq --iface eth0")?;
        log::info!(target: IQ, "protecting {interface}, the interface of the default route");
        interfaces.push(interface);
    }
    for interface in &interfaces {
        match shield.attach(pins, interface, ModeChoice::Auto, false, &lock) {
            Ok(attached) => say_attached(&attached),
            Err(error) => {
                if Shield::attached(pins)?.is_empty() {
                    Shield::purge(pins, &lock)?;
                }
                return Err(error);
            }
        }
    }
    Ok(shield)
}

/// Management addresses and the SSH peer, where something may be enforced.
fn keep_way_in(shield: &Shield, pins: &PinDir, host: &Host, settings: &Settings) -> Result<()> {
    if settings.iq.dry_run && shield.graph().is_none() {
        return Ok(());
    }
    let lock = pins.lock()?;
    let said = open_way_in(shield, &host.management, settings.no_guard, &lock)?;
    for line in said.lines() {
        log::info!(target: IQ, "{line}");
    }
    Ok(())
}

fn say_attached(attached: &Attached) {
    log::info!(target: IQ, "{}", attached_line(attached));
}
