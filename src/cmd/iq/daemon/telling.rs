//! What becomes of decisions: enforced, logged, journalled.

use super::super::lists::wall;
use super::super::notes::stamp;
use super::{IQ, Iq};
use crate::engine::{Decision, Kind};
use crate::error::Result;
use crate::model::{Moment, Source, counted};
use crate::report::{decision_line, log_decision};
use crate::seams::{Order, Outcome};
use crate::state::Record;

impl Iq<'_> {
    /// Enforces and tells. A source whose order failed is forgotten: the next tick decides anew.
    pub(super) fn carry_out(&mut self, now: Moment, decisions: &[Decision]) -> Result<()> {
        let orders: Vec<Order> = decisions
            .iter()
            .map(|decision| Order {
                source: decision.source,
                hold: decision.hold.zip(decision.until),
            })
            .collect();
        let outcomes = match self.enforcer.enforce(&orders, now.ktime) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                log::error!(target: IQ, "enforcing {}: {error}; trying again", counted(orders.len(), "decision", "decisions"));
                let sources: Vec<Source> = orders.iter().map(|order| order.source).collect();
                self.engine.forget(&sources);
                if let Some(exposed) = &mut self.exposed {
                    exposed.metrics.failed(orders.len() as u64);
                }
                if let Some(recorder) = &mut self.recorder {
                    recorder.forget(&sources);
                }
                return Ok(());
            }
        };
        let (mut stands, mut failed) = (Vec::new(), Vec::new());
        for (decision, outcome) in decisions.iter().zip(outcomes) {
            if let Some(exposed) = &mut self.exposed {
                exposed.decided(decision, &outcome);
            }
            let line = decision_line(decision, now.ktime, self.settings.iq.dry_run);
            match outcome {
                Ok(Outcome::Done) => self.tell(decision, &line, now),
                // Its exemption has taken the entry's place already.
                Ok(Outcome::OperatorRules) if decision.why.exempt => {
                    self.tell(decision, &line, now);
                }
                Ok(Outcome::OperatorRules) => {
                    if self.is_news(decision.source, "stands", now) {
                        log::info!(target: IQ, "{line} (left alone: an entry that is not IQ's stands)");
                    }
                    stands.push(decision.source);
                }
                Err(error) => {
                    if self.is_news(decision.source, "error", now) {
                        log::error!(target: IQ, "not in force: {line}: {error}");
                    }
                    failed.push(decision.source);
                }
            }
        }
        self.engine.forget(&stands);
        self.engine.forget(&failed);
        if let Some(recorder) = &mut self.recorder
            && !failed.is_empty()
        {
            recorder.forget(&failed);
        }
        Ok(())
    }

    /// What could not be carried out is decided again with each tick.
    fn is_news(&mut self, source: Source, reason: &str, now: Moment) -> bool {
        let news = self.failures.is_due(&source, now.ktime) && self.lines.admits(reason);
        if news {
            self.failures.told(source, now.ktime);
        }
        news
    }

    /// Transitions are news; renewals are not.
    fn tell(&mut self, decision: &Decision, line: &str, now: Moment) {
        if decision.kind == Kind::Renew {
            log_decision(
                log::Level::Debug,
                IQ,
                line,
                decision,
                self.settings.iq.dry_run,
            );
            return;
        }
        self.keeper.note_change();
        let Decision { from, to, why, .. } = decision;
        if self
            .lines
            .admits(&format!("{from} -> {to} signal={}", why.signal))
        {
            log_decision(
                log::Level::Info,
                IQ,
                line,
                decision,
                self.settings.iq.dry_run,
            );
        }
        if self.records.admits("transitions") {
            self.journalise(decision, now);
        }
    }

    fn journalise(&mut self, decision: &Decision, now: Moment) {
        let why = &decision.why;
        let record = Record {
            time: wall(now).to_string(),
            source: decision.source.to_string(),
            from: decision.from.to_string(),
            to: decision.to.to_string(),
            kind: decision.kind.to_string(),
            severity: why.severity,
            signal: why.signal.to_string(),
            rate: why.rate,
            trigger: why.trigger,
            strikes: why.strikes,
            hold: decision
                .hold
                .map_or_else(|| "none".to_owned(), |hold| hold.to_string()),
            until: decision
                .until
                .map(|until| stamp(now.unix_ms(until)))
                .unwrap_or_default(),
            dry_run: self.settings.iq.dry_run,
        };
        let Some(journal) = &mut self.journal else {
            return;
        };
        if let Err(error) = journal.write(&record)
            && self.lines.admits("journal")
        {
            log::error!(target: IQ, "{error}");
        }
    }

    pub(super) fn say_held_back(&mut self, now: Moment) {
        for (reason, count) in self.lines.held_back(now.ktime) {
            log::warn!(target: IQ, "{} like '{reason}' not logged", counted(count, "more line was", "more lines were"));
        }
        for (_, count) in self.records.held_back(now.ktime) {
            log::warn!(target: IQ, "{} not journalled", counted(count, "more transition was", "more transitions were"));
        }
    }
}
