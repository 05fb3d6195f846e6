//! `iq replay`: a capture through the real program and the real engine, in the capture's own time.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::daemon::alerted;
use super::judged_by_names;
use super::learn::{Learner, Pupils};
use crate::capture::{Capture, Captured, Ends, Handshakes};
use crate::cli::ReplayArgs;
use crate::dataplane::{
    Counters, Events, LoadOptions, MapEnforcer, PinDir, Shield, SourceTable, What,
};
use crate::engine::{Decision, Engine, Kind};
use crate::error::{Doing, Error, Result};
use crate::model::{Ktime, Moment, Source, Stage, counted, format_duration};
use crate::profile::Overrides;
use crate::report::{Table, document, print, progress};
use crate::seams::{Enforcer, Order};
use crate::telemetry::{Coverage, Meter, Sample, Window, linear_ones};

/// The program's clock at the first packet: long enough after boot that nothing is at its start.
const START: Ktime = Ktime::from_secs(1_000);

/// Longer silence in a capture is taken for this long.
const LONGEST_SILENCE: Duration = Duration::from_secs(2 * 86_400);

/// Longest frame that the kernel takes for a test run: a page less head- and tailroom.
const LONGEST_FRAME: usize = 3_400;

/// Shortest frame that the kernel takes.
const SHORTEST_FRAME: usize = 14;

pub(super) fn run(args: &ReplayArgs) -> Result<()> {
    let mut capture = Capture::open(&args.file)?;
    let (name, profile) = judged_by_names(args.profile.as_deref(), args.pdp_config.as_deref())?;
    let overrides = Overrides {
        set: args.set.clone(),
        ..Overrides::default()
    };
    let effective = profile.effective(&overrides)?;
    let learner = Learner::new(&effective, effective.config()?, &name, None);
    let place = Place::new()?;
    let shield = Shield::load(&LoadOptions {
        sources: args.sources,
        test_clock: true,
        fixed_seed: true,
        ..LoadOptions::default()
    })?;
    stay_on_this_cpu()?;
    let mut replay = Replay::new(&shield, &place.pins, learner, args)?;
    let bar = progress("replaying", capture.size);
    while let Some(captured) = capture.packet()? {
        replay.receive(&captured)?;
        bar.set_position(capture.read);
    }
    replay.end()?;
    bar.finish_and_clear();
    if capture.cut {
        log::warn!(
            "{} ends in the middle of a packet; what is before it was replayed",
            args.file.display()
        );
    }
    if !replay.both_ways {
        log::warn!(
            "{} shows no answer to what is opened: who is made up is not known of it, and what many sources do \
             together is not judged; a capture of both directions tells",
            args.file.display()
        );
    }
    let told = replay.told(&name, args);
    if args.json {
        print(&document("replay", &told))
    } else {
        print(&told.text())
    }
}

/// The table has a part per CPU: one part sees everything, as one receive queue would.
fn stay_on_this_cpu() -> Result<()> {
    let doing = || "staying on one CPU";
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().doing(doing)?).doing(doing)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).doing(doing)
}

/// A directory for the lock that changes of policy hold; nobody else knows of it.
struct Place {
    dir: PathBuf,
    pins: PinDir,
}

impl Place {
    fn new() -> Result<Self> {
        let name = format!("kernloom-replay-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).doing(|| format!("making {}", dir.display()))?;
        let pins = PinDir::new(&dir);
        Ok(Self { dir, pins })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            log::warn!("removing {}: {error}", self.dir.display());
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    packets: u64,
    dropped: u64,
}

struct Replay<'a> {
    shield: &'a Shield,
    enforcer: MapEnforcer<'a>,
    table: SourceTable,
    events: Events,
    meter: Meter,
    counted: Counters,
    engine: Engine,
    learner: Learner,
    interval: Duration,
    /// Only packets to these are received; all, if there are none.
    to: Vec<Source>,
    /// The time of day at `START`.
    first: Option<Duration>,
    now: Ktime,
    tick_at: Ktime,
    /// Whether the running window has packets.
    busy: bool,
    all: Tally,
    skipped: u64,
    decisions: Vec<(Ktime, Decision)>,
    tallies: BTreeMap<Source, Tally>,
    handshakes: Handshakes,
    proven: HashSet<Source>,
    /// Both directions are in the capture: only then does it say that somebody proved nothing.
    both_ways: bool,
}

impl<'a> Replay<'a> {
    fn new(
        shield: &'a Shield,
        pins: &'a PinDir,
        learner: Learner,
        args: &ReplayArgs,
    ) -> Result<Self> {
        let table = shield.sources()?;
        let engine = Engine::new(learner.config());
        shield.set_port_alert(linear_ones(engine.port_alert()));
        shield.set_test_time(START);
        Ok(Self {
            shield,
            enforcer: MapEnforcer { shield, pins },
            events: shield
                .events()?
                .ok_or_else(|| Error::world("the loaded program has no event ring"))?,
            meter: Meter::new(table.shape(), table.order()),
            counted: shield.counters()?,
            table,
            engine,
            learner,
            interval: args.interval,
            to: args.to.clone(),
            first: None,
            now: START,
            tick_at: START + args.interval,
            busy: false,
            all: Tally::default(),
            skipped: 0,
            decisions: Vec::new(),
            tallies: BTreeMap::new(),
            handshakes: Handshakes::default(),
            proven: HashSet::new(),
            both_ways: false,
        })
    }

    fn receive(&mut self, captured: &Captured) -> Result<()> {
        let first = *self.first.get_or_insert(captured.time);
        // Captures are not always in order; time does not run backwards.
        let then = (START + captured.time.saturating_sub(first)).max(self.now);
        // After so long a silence nobody is held any more; the rest of it would change nothing.
        let latest = then - LONGEST_SILENCE;
        while self.tick_at <= then {
            self.tick()?;
            self.tick_at = self.tick_at.max(latest);
        }
        self.now = then;
        let ends = Ends::of(&captured.frame);
        self.follow_handshake(ends.as_ref(), &captured.frame);
        let received = ends.is_none_or(|ends| self.is_received(ends.to));
        if !received || captured.frame.len() < SHORTEST_FRAME {
            self.skipped += 1;
            return Ok(());
        }
        self.shield.set_test_time(then);
        let length = captured.frame.len().min(LONGEST_FRAME);
        let ran = self.shield.test_run(&captured.frame[..length], 1)?;
        self.busy = true;
        let source = ends.map(|ends| Source::tracked(ends.from, self.shield.v6_bits()));
        let own = source.map(|source| self.tallies.entry(source).or_default());
        for tally in own.into_iter().chain([&mut self.all]) {
            tally.packets += 1;
            tally.dropped += u64::from(ran.dropped);
        }
        let mut decisions = Vec::new();
        for event in self.events.drain() {
            let What::Ports(bits) = event.what else {
                continue;
            };
            let proven = self.both_ways && self.proven.contains(&event.source);
            let sample = alerted(event.source, bits, proven);
            decisions.extend(self.engine.alert(then, &sample, &|_| false));
        }
        self.carry_out(then, decisions)
    }

    /// Whether packets to this address are received here.
    fn is_received(&self, to: IpAddr) -> bool {
        let to = Source::host(to);
        self.to.is_empty() || self.to.iter().any(|one| one.contains(&to))
    }

    fn follow_handshake(&mut self, ends: Option<&Ends>, frame: &[u8]) {
        let answer = ends.and_then(|ends| self.handshakes.see(ends, frame));
        let Some(answer) = answer else {
            return;
        };
        let to_here = self.is_received(answer.to);
        self.both_ways |= to_here || self.is_received(answer.of);
        if to_here && answer.proves {
            let source = Source::tracked(answer.of, self.shield.v6_bits());
            self.proven.insert(source);
        }
    }

    fn tick(&mut self) -> Result<()> {
        let now = self.tick_at;
        self.tick_at = now + self.interval;
        self.now = now;
        self.shield.set_test_time(now);
        // A table that no packet touched since it was read has nothing new in it.
        let (mut all, mut samples) = (None, Vec::new());
        if std::mem::take(&mut self.busy) {
            let counted = self.shield.counters()?;
            all = counted.crowded_since(&self.counted);
            self.counted = counted;
            let (table, proven) = (&self.table, &self.proven);
            let read = self.meter.samples(|at| table.take(at));
            samples.extend(read.map(|sample| Sample {
                proven: proven.contains(&sample.source),
                ..sample
            }));
        }
        let window = Window {
            length: self.interval,
            samples,
            coverage: Coverage {
                proof: self.both_ways,
                ..Coverage::default()
            },
            all,
        };
        let (learner, mut pupils) = (&mut self.learner, Pupils::default());
        let mut learn =
            |source: &_, rates: &_, fit| learner.learn_from(&mut pupils, source, rates, fit);
        let window = window.sorted(&self.engine.order());
        let decisions = self
            .engine
            .tick_learning(now, window.by_ref(), &|_| false, &mut learn);
        self.carry_out(now, decisions)?;
        let at = self.moment().unix_ms(now);
        let (changed, _) = self
            .learner
            .tick(self.interval, &self.engine.overview(), at);
        if changed {
            self.engine.reconfigure(self.learner.config());
            self.shield
                .set_port_alert(linear_ones(self.engine.port_alert()));
        }
        Ok(())
    }

    /// Judges the last, unfinished window.
    fn end(&mut self) -> Result<()> {
        if self.busy {
            self.tick()?;
        }
        Ok(())
    }

    fn moment(&self) -> Moment {
        Moment {
            ktime: START,
            unix: self.first.unwrap_or_default(),
        }
    }

    fn carry_out(&mut self, now: Ktime, decisions: Vec<Decision>) -> Result<()> {
        let order = |decision: &Decision| Order {
            source: decision.source,
            hold: decision.hold.zip(decision.until),
        };
        let orders: Vec<Order> = decisions.iter().map(order).collect();
        for outcome in self.enforcer.enforce(&orders, now)? {
            outcome?;
        }
        let news = decisions
            .into_iter()
            .filter(|decision| decision.kind != Kind::Renew);
        self.decisions.extend(news.map(|decision| (now, decision)));
        Ok(())
    }

    fn told(&self, profile: &str, args: &ReplayArgs) -> Told {
        let mut held: BTreeMap<Source, HeldSource> = BTreeMap::new();
        for (at, decision) in &self.decisions {
            if decision.to == Stage::Observe {
                continue;
            }
            let of = |tally: Option<&Tally>| tally.copied().unwrap_or_default();
            let tally = of(self.tallies.get(&decision.source));
            let one = held.entry(decision.source).or_insert_with(|| HeldSource {
                source: decision.source.to_string(),
                stage: decision.to,
                first_at_seconds: at.since(START).as_secs_f64(),
                packets: tally.packets,
                dropped: tally.dropped,
            });
            one.stage = one.stage.max(decision.to);
        }
        let decision = |(at, decision): &(Ktime, Decision)| ToldDecision {
            at_seconds: at.since(START).as_secs_f64(),
            source: decision.source.to_string(),
            from: decision.from,
            to: decision.to,
            signal: decision.why.signal.to_string(),
            severity: decision.why.severity,
            rate: decision.why.rate,
            trigger: decision.why.trigger,
            hold: decision.hold.map(|hold| hold.to_string()),
        };
        Told {
            capture: args.file.display().to_string(),
            profile: profile.to_owned(),
            seconds: self.now.since(START).as_secs_f64(),
            packets: self.all.packets,
            dropped: self.all.dropped,
            skipped: self.skipped,
            seen: self.tallies.len() as u64,
            decisions: self.decisions.iter().map(decision).collect(),
            sources: held.into_values().collect(),
        }
    }
}

/// `iq replay --json`: packaging/schemas/replay.schema.json.
#[derive(Debug, Serialize)]
struct Told {
    capture: String,
    profile: String,
    /// From the first packet to the last tick.
    seconds: f64,
    packets: u64,
    dropped: u64,
    /// Packets to other hosts, and what is no frame.
    skipped: u64,
    /// Distinct sources.
    seen: u64,
    decisions: Vec<ToldDecision>,
    /// Every source that left OBSERVE.
    sources: Vec<HeldSource>,
}

#[derive(Debug, Serialize)]
struct ToldDecision {
    /// Since the first packet.
    at_seconds: f64,
    source: String,
    from: Stage,
    to: Stage,
    signal: String,
    severity: f64,
    rate: f64,
    trigger: f64,
    hold: Option<String>,
}

#[derive(Debug, Serialize)]
struct HeldSource {
    source: String,
    /// The harshest.
    stage: Stage,
    first_at_seconds: f64,
    packets: u64,
    dropped: u64,
}

impl Told {
    fn text(&self) -> String {
        let mut table = Table::new([
            "AT", "SOURCE", "FROM", "TO", "SIGNAL", "RATE", "TRIGGER", "HOLD",
        ]);
        for one in &self.decisions {
            table.row([
                format!("+{:.1}s", one.at_seconds),
                one.source.clone(),
                one.from.to_string(),
                one.to.to_string(),
                one.signal.clone(),
                format!("{:.1}", one.rate),
                format!("{:.1}", one.trigger),
                one.hold.clone().unwrap_or_else(|| "none".to_owned()),
            ]);
        }
        let mut text = String::new();
        if !self.decisions.is_empty() {
            text.push_str(&table.render());
            let mut table = Table::new(["SOURCE", "STAGE", "FIRST", "PACKETS", "DROPPED"]);
            for one in &self.sources {
                table.row([
                    one.source.clone(),
                    one.stage.to_string(),
                    format!("+{:.1}s", one.first_at_seconds),
                    one.packets.to_string(),
                    one.dropped.to_string(),
                ]);
            }
            text.push('\n');
            text.push_str(&table.render());
            text.push('\n');
        }
        let whole = Duration::from_secs_f64(self.seconds.ceil());
        text.push_str(&format!(
            "{} of {} would have been held; {} of {} dropped in {}; {} skipped\n",
            self.sources.len(),
            counted(self.seen, "source", "sources"),
            self.dropped,
            counted(self.packets, "packet", "packets"),
            format_duration(whole),
            self.skipped,
        ));
        text
    }
}
