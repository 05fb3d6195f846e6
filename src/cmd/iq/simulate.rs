//! `iq simulate`: a recording decided again, and how that differs from what was decided live.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::judged_by_names;
use super::learn::{Learner, Pupils};
use super::recorder::began;
use crate::cli::SimulateArgs;
use crate::engine::{Decision, Engine, Kind};
use crate::error::{Error, Result};
use crate::model::{Ktime, Moment, Source, Stage, Wall, counted};
use crate::page::Traffic;
use crate::profile::{Effective, Overrides, Profile};
use crate::record::{Frame, Reader, Start};
use crate::report::{Table, document, print, progress};
use crate::telemetry::{Sample, Window};

pub(super) fn run(args: &SimulateArgs) -> Result<()> {
    let mut reader = Reader::open(&args.file)?;
    let Some(Frame::Start(start)) = reader.frame()? else {
        return Err(Error::operator(format!(
            "{} ends before its first tick",
            args.file.display()
        )));
    };
    let (name, effective) = settings(args, &start)?;
    let mut judge = Judge::new(&start, &name, &effective, as_recorded(args))?;
    let bar = progress("simulating", reader.size);
    while let Some(frame) = reader.frame()? {
        judge.step(frame);
        bar.set_position(reader.read);
    }
    bar.finish_and_clear();
    if reader.cut {
        log::warn!(
            "{} ends in the middle of a frame; what is before it was decided",
            args.file.display()
        );
    }
    let told = judge.told(&start, &name);
    if args.json {
        print(&document("simulate", &told))
    } else {
        print(&told.text())
    }
}

/// Points of a drawing: more cannot be told apart.
const MOST_POINTS: usize = 800;

/// The loudest source and the thresholds, tick by tick, from `from` on.
pub(in crate::cmd) fn traffic(path: &Path, from: Wall) -> Result<Vec<Traffic>> {
    let mut reader = Reader::open(path)?;
    let Some(Frame::Start(start)) = reader.frame()? else {
        return Ok(Vec::new());
    };
    let recorded = Profile::parse("the recording's settings", &start.settings)?;
    let effective = recorded.effective(&Overrides::default())?;
    let mut judge = Judge::new(&start, &start.profile, &effective, true)?;
    let mut traffic = Vec::new();
    while let Some(frame) = reader.frame()? {
        let seen = if let Frame::Tick {
            unix_ms,
            length,
            samples,
            ..
        } = &frame
        {
            let time = Wall::from_secs(unix_ms / 1_000);
            Some((time, peaks(samples, *length)))
        } else {
            None
        };
        judge.step(frame);
        if let Some((time, peaks)) = seen.filter(|(time, _)| *time >= from) {
            let triggers = judge.engine.config().triggers;
            let triggers = [triggers.pps, triggers.bps, triggers.syn, triggers.ports];
            traffic.push(Traffic {
                time,
                peaks,
                triggers,
            });
        }
    }
    Ok(thinned(&traffic))
}

#[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
fn peaks(samples: &[Sample], length: Duration) -> [f64; 4] {
    let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
    let counts: [fn(&Sample) -> u64; 4] = [
        |sample| sample.packets,
        |sample| sample.bytes,
        |sample| sample.syns.into(),
        |sample| sample.ports.into(),
    ];
    counts.map(|count| samples.iter().map(count).max().unwrap_or(0) as f64 / seconds)
}

/// The loudest of each group of neighbours, so that no peak is lost.
fn thinned(traffic: &[Traffic]) -> Vec<Traffic> {
    let together = traffic.len().div_ceil(MOST_POINTS).max(1);
    let loudest = |group: &[Traffic]| {
        let mut one = *group.first()?;
        for other in group {
            for (most, peak) in one.peaks.iter_mut().zip(other.peaks) {
                *most = most.max(peak);
            }
        }
        Some(one)
    };
    traffic.chunks(together).filter_map(loudest).collect()
}

/// Whether the command line leaves the recording's settings as they are.
fn as_recorded(args: &SimulateArgs) -> bool {
    args.profile.is_none() && args.pdp_config.is_none() && args.set.is_empty()
}

/// Those of the command line, else those of the recording.
fn settings(args: &SimulateArgs, start: &Start) -> Result<(String, Effective)> {
    let overrides = Overrides {
        set: args.set.clone(),
        ..Overrides::default()
    };
    let (name, profile) = if args.profile.is_none() && args.pdp_config.is_none() {
        let recorded = Profile::parse("the recording's settings", &start.settings)?;
        (start.profile.clone(), recorded)
    } else {
        judged_by_names(args.profile.as_deref(), args.pdp_config.as_deref())?
    };
    Ok((name, profile.effective(&overrides)?))
}

/// One line of decisions: when, and what.
type Line = Vec<(Ktime, Decision)>;

struct Judge {
    engine: Engine,
    learner: Learner,
    whitelist_learn: bool,
    whitelisted: Vec<Source>,
    others: Vec<Source>,
    ticks: u64,
    last: Ktime,
    live: Line,
    simulated: Line,
}

impl Judge {
    /// What was learned before is taken up only if `learned`: it would stand in for thresholds
    /// that are given.
    fn new(start: &Start, name: &str, effective: &Effective, learned: bool) -> Result<Self> {
        let (held, autotune) = began(start)?;
        let autotune = autotune.filter(|_| learned);
        let learner = Learner::new(effective, effective.config()?, name, autotune);
        let mut engine = Engine::new(learner.config());
        let moment = Moment {
            ktime: start.now,
            unix: start.unix,
        };
        engine.restore(&held, moment);
        Ok(Self {
            engine,
            learner,
            whitelist_learn: start.whitelist_learn,
            whitelisted: Vec::new(),
            others: Vec::new(),
            ticks: 0,
            last: start.now,
            live: Vec::new(),
            simulated: Vec::new(),
        })
    }

    fn step(&mut self, frame: Frame) {
        match frame {
            // A second start would be a second recording in one file; there is none.
            Frame::Start(_) => {}
            Frame::Exempt {
                whitelisted,
                others,
            } => {
                (self.whitelisted, self.others) = (whitelisted, others);
            }
            Frame::Forget(sources) => self.engine.forget(&sources),
            Frame::Reset => self.engine.reset(),
            Frame::Alert {
                now,
                sample,
                decision,
            } => {
                let (whitelisted, others) = (&self.whitelisted, &self.others);
                let exempt =
                    |source: &Source| covers(whitelisted, source) || covers(others, source);
                let ours = self.engine.alert(now, &sample, &exempt);
                self.simulated.extend(ours.map(|ours| (now, ours)));
                self.live.extend(decision.map(|live| (now, live)));
            }
            Frame::Tick {
                now,
                unix_ms,
                length,
                coverage,
                all,
                samples,
                decisions,
            } => {
                let window = Window {
                    length,
                    samples,
                    coverage,
                    all,
                };
                let ours = self.tick(now, unix_ms, window);
                self.simulated
                    .extend(ours.into_iter().map(|one| (now, one)));
                self.live
                    .extend(decisions.into_iter().map(|one| (now, one)));
                self.ticks += 1;
                self.last = now;
            }
        }
    }

    /// As the daemon does.
    fn tick(&mut self, now: Ktime, unix_ms: u64, window: Window<Vec<Sample>>) -> Vec<Decision> {
        let (whitelisted, others) = (&self.whitelisted, &self.others);
        let exempt = |source: &Source| covers(whitelisted, source) || covers(others, source);
        let learner = &mut self.learner;
        let (white, rest) = (whitelisted.iter().copied(), others.iter().copied());
        let mut pupils = Pupils::new(self.whitelist_learn, white, rest, self.engine.order());
        let length = window.length;
        let mut learn =
            |source: &_, rates: &_, fit| learner.learn_from(&mut pupils, source, rates, fit);
        let decisions = self
            .engine
            .tick_learning(now, window.by_ref(), &exempt, &mut learn);
        let overview = self.engine.overview();
        let (changed, _) = self.learner.tick(length, &overview, unix_ms);
        if changed {
            self.engine.reconfigure(self.learner.config());
        }
        decisions
    }

    fn told(&self, start: &Start, name: &str) -> Told {
        let (live, simulated) = (by_source(&self.live), by_source(&self.simulated));
        let mut sources: Vec<&Source> = live.keys().chain(simulated.keys()).collect();
        sources.sort();
        sources.dedup();
        let course = |lines: Option<&Line>| lines.map(|line| Course::of(line, start.now));
        let differs = |source: &&Source| live.get(source) != simulated.get(source);
        let differences: Vec<Difference> = sources
            .into_iter()
            .filter(differs)
            .map(|source| Difference {
                source: source.to_string(),
                live: course(live.get(source)),
                simulated: course(simulated.get(source)),
            })
            .collect();
        Told {
            recorded_profile: start.profile.clone(),
            profile: name.to_owned(),
            ticks: self.ticks,
            seconds: self.last.since(start.now).as_secs_f64(),
            live_decisions: self.live.len() as u64,
            simulated_decisions: self.simulated.len() as u64,
            identical: self.live == self.simulated,
            differences,
        }
    }
}

fn covers(exempt: &[Source], source: &Source) -> bool {
    exempt.iter().any(|one| one.contains(source))
}

fn by_source(line: &Line) -> BTreeMap<Source, Line> {
    let mut sources: BTreeMap<Source, Line> = BTreeMap::new();
    for (at, decision) in line {
        let own = sources.entry(decision.source).or_default();
        own.push((*at, decision.clone()));
    }
    sources
}

/// `iq simulate --json`: packaging/schemas/simulate.schema.json.
#[derive(Debug, Serialize)]
struct Told {
    recorded_profile: String,
    profile: String,
    ticks: u64,
    seconds: f64,
    /// Renewals included.
    live_decisions: u64,
    simulated_decisions: u64,
    /// Every decision is the same, to the last digit.
    identical: bool,
    /// Sources whose decisions are not the same.
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Difference {
    source: String,
    /// None: never held.
    live: Option<Course>,
    simulated: Option<Course>,
}

/// What became of one source.
#[derive(Debug, Serialize)]
struct Course {
    /// The harshest stage.
    stage: Stage,
    /// Of the first decision, since the start.
    first_at_seconds: f64,
    transitions: u64,
    signal: String,
}

impl Course {
    fn of(line: &Line, start: Ktime) -> Self {
        let stages = line.iter().map(|(_, decision)| decision.to);
        let news = line.iter().filter(|(_, one)| one.kind != Kind::Renew);
        let first = line.first();
        let at = first.map_or(Duration::ZERO, |(at, _)| at.since(start));
        Self {
            stage: stages.max().unwrap_or_default(),
            first_at_seconds: at.as_secs_f64(),
            transitions: news.count() as u64,
            signal: first
                .map(|(_, one)| one.why.signal.to_string())
                .unwrap_or_default(),
        }
    }

    fn text(one: Option<&Self>) -> String {
        one.map_or_else(
            || "-".to_owned(),
            |one| {
                format!(
                    "{} at +{:.0}s ({}, {})",
                    one.stage,
                    one.first_at_seconds,
                    one.signal,
                    counted(one.transitions, "transition", "transitions")
                )
            },
        )
    }
}

impl Told {
    fn text(&self) -> String {
        let mut text = format!(
            "{}; {} live under {}, {} simulated under {}\n",
            counted(self.ticks, "tick", "ticks"),
            counted(self.live_decisions, "decision", "decisions"),
            self.recorded_profile,
            self.simulated_decisions,
            self.profile
        );
        if self.identical {
            text.push_str("every decision is the same\n");
            return text;
        }
        let mut table = Table::new(["SOURCE", "LIVE", "SIMULATED"]);
        for one in &self.differences {
            table.row([
                one.source.clone(),
                Course::text(one.live.as_ref()),
                Course::text(one.simulated.as_ref()),
            ]);
        }
        text.push_str(&table.render());
        text.push_str("drops in the recording are those of the live limits\n");
        text
    }
}
