//! What a running IQ says on its control socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::graph::{GRAPH, GraphAsk};
use super::super::shield::asked;
use super::daemon::Iq;
use super::lists::{room_for, wall, warn_of_everyone};
use super::notes::stamp;
use crate::autotune::Revision;
use crate::cli::{DEFAULT_PORT, Proto};
use crate::engine::Reading;
use crate::error::{Error, Result};
use crate::model::{Moment, Source, Stage, counted};
use crate::report::{
    Answer, HeldCount, HeldLine, IqStatus, LiveVerdict, Note, Policy, RevisionLine, Why,
    action_text, owner_text,
};
use crate::runtime::moment;
use crate::state::Journal;

/// Sources in one answer.
const MOST_HELD: usize = 4_096;

/// Behind an answer whose effect a restart would forget.
const NOT_STORED: &str = "; in force, but not stored yet: the log says why";

/// Transitions that `why` shows.
const TRANSITIONS: usize = 10;

/// Lines of an answer that are logged, too.
const LOGGED: usize = 8;

/// One request of the control socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    Status,
    /// The sources above OBSERVE, at most [`MOST_HELD`].
    Held,
    /// What the program reported after the event of this number.
    Events {
        after: u64,
    },
    Why {
        source: Source,
    },
    Forgive {
        source: Source,
    },
    Exempt {
        source: Source,
        ttl_s: u64,
    },
    /// Of [`Ask::Exempt`].
    EndExemption {
        source: Source,
    },
    Reset {
        /// Those of [`Ask::Exempt`] end, too.
        #[serde(default)]
        exemptions: bool,
    },
    Graph {
        ask: GraphAsk,
    },
}

impl Iq<'_> {
    /// The answer to one line, as one line.
    pub(super) fn answer(&mut self, text: &str) -> Result<String> {
        let answer = match serde_json::from_str(text) {
            Ok(ask) => self.answer_to(&ask)?,
            Err(error) => Answer::Refused(format!("no such request: {error}")),
        };
        serde_json::to_string(&answer)
            .map_err(|error| Error::world(format!("writing an answer: {error}")))
    }

    fn answer_to(&mut self, ask: &Ask) -> Result<Answer> {
        let now = moment()?;
        Ok(match ask {
            Ask::Status => Answer::Status(Box::new(self.status(now))),
            Ask::Held => Answer::Held(self.held_lines(now)),
            Ask::Events { after } => Answer::Events(self.happened.after(*after)),
            Ask::Why { source } => Answer::Why(Box::new(self.why(source, now)?)),
            Ask::Forgive { source } => match self.forgive(&[*source], "command")? {
                0 => Answer::Done(format!(
                    "nothing inside {source} was held; its strikes are forgotten"
                )),
                count => Answer::Done(format!(
                    "let go of {} inside {source}",
                    counted(count, "source", "sources")
                )),
            },
            Ask::Exempt { source, ttl_s } => {
                let until = wall(now) + Duration::from_secs(*ttl_s);
                let before = self.lists.commanded();
                self.lists.exempt_until(*source, until);
                self.compile_lists(now)?;
                if self.lists.lacks_room(source) {
                    self.lists.command(before);
                    self.compile_lists(now)?;
                    return Ok(Answer::Failed(format!(
                        "{source} is not exempt: the policy table has no room for it; {}",
                        room_for(1, self.shield.max_deny())
                    )));
                }
                let freed = self.forgive(&[*source], "exemption")?;
                warn_of_everyone(&"'iq exempt'", [source]);
                let stored = self.sync_lists(now)?;
                Answer::Done(format!(
                    "{source} is exempt until {until}; let go of {}{}",
                    counted(freed, "source", "sources"),
                    if stored { "" } else { NOT_STORED }
                ))
            }
            Ask::EndExemption { source } => self.end_exemption(source, now)?,
            Ask::Graph { ask } => match &mut self.graph {
                Some(graph) => match graph.answer(ask, now) {
                    Ok(text) => {
                        log_command(ask, &text);
                        Answer::Done(text)
                    }
                    Err(Error::Operator(why)) => Answer::Refused(why),
                    // The machine's fault, and no reason for IQ to end.
                    Err(Error::World(why)) => Answer::Failed(why),
                },
                None => Answer::Refused(
                    "the running iq keeps no graph; start it with --graph".to_owned(),
                ),
            },
            Ask::Reset { exemptions } => self.start_over(*exemptions, now)?,
        })
    }

    fn end_exemption(&mut self, source: &Source, now: Moment) -> Result<Answer> {
        if !self.lists.end_exemption(source) {
            return Ok(Answer::Refused(format!(
                "'iq exempt' exempts no {source}; 'kernloom iq why {source}' says who does, if anyone"
            )));
        }
        let stored = self.sync_lists(now)?;
        Ok(Answer::Done(format!(
            "{source} is no longer exempt by command{}",
            if stored { "" } else { NOT_STORED }
        )))
    }

    fn start_over(&mut self, exemptions: bool, now: Moment) -> Result<Answer> {
        self.watch_reset(now)?;
        let ended = exemptions && self.lists.end_exemptions();
        let stored = !ended || self.sync_lists(now)?;
        Ok(Answer::Done(format!(
            "the running iq starts over{}",
            if stored { "" } else { NOT_STORED }
        )))
    }

    fn held_lines(&self, now: Moment) -> Vec<HeldLine> {
        let line = |(source, stage, _): (&Source, Stage, _)| HeldLine {
            source: *source,
            stage,
            signal: self
                .engine
                .explain(source, now.ktime)
                .cause
                .signal
                .to_string(),
        };
        self.engine.held().take(MOST_HELD).map(line).collect()
    }

    fn status(&self, now: Moment) -> IqStatus {
        let tuner = self.learner.tuner();
        let overview = self.engine.overview();
        let mut held = HeldCount::default();
        for (_, stage, _) in self.engine.held() {
            match stage {
                Stage::Observe => {}
                Stage::RateSoft => held.rate_soft += 1,
                Stage::RateHard => held.rate_hard += 1,
                Stage::Block => held.block += 1,
            }
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 sources is beyond any table"
        )]
        let clean_share = overview.learned as f64 / overview.sources.max(1) as f64;
        IqStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            profile: self.settings.name.clone(),
            dry_run: self.settings.iq.dry_run,
            started: wall(self.started).to_string(),
            ticks: self.ticks,
            phase: tuner.map_or_else(|| "off".to_owned(), |tuner| tuner.phase().to_string()),
            observed_s: tuner.map_or(0, |tuner| tuner.observed().as_secs()),
            next_tuning_s: tuner.map(|tuner| tuner.due_in().as_secs()),
            may_block: self.learner.may_block(),
            thresholds: self.learner.thresholds(&self.settings.effective),
            history: tuner
                .map(|tuner| tuner.history().map(revision_line).collect())
                .unwrap_or_default(),
            clean_share,
            sources: overview.sources,
            held,
            withheld: overview.withheld,
            exempt: self.lists.exempt().live(wall(now)) as u64,
            exempt_no_room: self.lists.unfit() as u64,
            time: wall(now).to_string(),
        }
    }

    fn why(&self, source: &Source, now: Moment) -> Result<Why> {
        let exempt = self.exempted(source, now);
        let bits = self.shield.v6_bits();
        // Of a limit of many, who is exempt is no part.
        let judged = (self.engine).held_as(source, bits, exempt.is_some(), now.ktime);
        let explanation = self.engine.explain(&judged, now.ktime);
        let held = explanation.stage > Stage::Observe;
        let at = |instant| held.then(|| stamp(now.unix_ms(instant)));
        let entries = self.shield.entries()?;
        let deciding = entries
            .iter()
            .filter(|entry| entry.is_live(now.ktime) && entry.source.contains(source))
            .max_by_key(|entry| entry.source.bits());
        let exempt = exempt.map(|(by, entry, until)| {
            let until =
                until.map_or_else(|| "until removed".to_owned(), |end| format!("until {end}"));
            format!("{entry} by {by}, {until}")
        });
        let name = source.to_string();
        Ok(Why {
            part_of: (judged != *source).then(|| judged.to_string()),
            stage: explanation.stage.to_string(),
            dry_run: self.settings.iq.dry_run,
            policy: deciding.map(|entry| Policy {
                source: entry.source.to_string(),
                action: action_text(&entry.rule.action),
                owner: owner_text(&entry.rule),
                until: entry.rule.expires.map(|end| stamp(now.unix_ms(end))),
            }),
            verdict: self.live_verdict(source),
            exempt,
            entered: at(explanation.entered),
            ends: at(explanation.ends),
            until: explanation.until.and_then(at),
            strikes: explanation.strikes,
            nat: explanation.nat,
            proven: explanation.proven || self.witness.proves(&judged)?,
            ports: explanation.ports,
            cause: held.then(|| {
                let time = stamp(now.unix_ms(explanation.entered));
                note(
                    &explanation.cause,
                    time,
                    explanation.stage,
                    explanation.strikes,
                )
            }),
            ticks: self.notes.of(&judged),
            thresholds: self.learner.thresholds(&self.settings.effective),
            journal: Journal::of_source(
                &self.settings.iq.journal,
                &judged.to_string(),
                TRANSITIONS,
            )?,
            exempt_with: format!("kernloom iq exempt {name} --ttl 24h"),
            source: name,
        })
    }

    /// Asked of the program itself, as `shield verdict` does. Of a prefix its first address; that
    /// it cannot be asked is no reason to keep the rest of the answer back.
    fn live_verdict(&self, source: &Source) -> Option<LiveVerdict> {
        let ask = || {
            let lock = self.pins.try_lock()?;
            asked(self.shield, source.ip(), Proto::Tcp, DEFAULT_PORT, &lock)
        };
        match ask() {
            Ok(answer) => Some(LiveVerdict {
                packet: format!("tcp/{DEFAULT_PORT}"),
                verdict: answer.reason.verdict().to_owned(),
                reason: answer.reason.to_string(),
            }),
            Err(error) => {
                log::warn!("asking the program about {source}: {error}");
                None
            }
        }
    }
}

/// What was done to the graph, for who reads the log later. What a freeze lists is in its file.
fn log_command(ask: &GraphAsk, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let told = if ask.only_reads() {
        &[]
    } else if matches!(ask, GraphAsk::Freeze { .. }) {
        lines
            .get(lines.len().saturating_sub(1)..)
            .unwrap_or_default()
    } else {
        lines.get(..LOGGED.min(lines.len())).unwrap_or_default()
    };
    for line in told {
        log::info!(target: GRAPH, "by command: {line}");
    }
}

fn note(reading: &Reading, time: String, stage: Stage, strikes: u32) -> Note {
    Note {
        time,
        stage: stage.to_string(),
        severity: reading.severity,
        signal: reading.signal.to_string(),
        rate: reading.rate,
        trigger: reading.trigger,
        strikes,
    }
}

fn revision_line(revision: &Revision) -> RevisionLine {
    let triggers = revision.triggers;
    let packets = revision.estimates.first().copied().flatten();
    RevisionLine {
        revision: revision.revision,
        at: stamp(revision.at_ms),
        phase: revision.phase.to_string(),
        pps: triggers.pps,
        bps: triggers.bps,
        syn: triggers.syn,
        ports: triggers.ports,
        samples: packets.map_or(0, |estimate| estimate.samples),
        clean_share: revision.clean_share,
    }
}
