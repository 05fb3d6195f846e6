//! What lists and profiles say, at the start and whenever they change.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::super::judged_by;
use super::super::learn::Learner;
use super::{IQ, Iq};
use crate::dataplane::Entry;
use crate::error::Result;
use crate::model::Moment;
use crate::runtime::moment;

impl Iq<'_> {
    /// The files that are read again when they change.
    pub(in super::super) fn files(&self) -> Vec<PathBuf> {
        let iq = &self.settings.iq;
        let mut files = vec![iq.whitelist.clone(), iq.feedback.clone()];
        files.extend(iq.pdp_config.clone());
        files
    }

    pub(in super::super) fn read_lists(&mut self) -> Result<()> {
        let now = moment()?;
        self.lists.read_whitelist();
        let forgiven = self.lists.read_feedback(now);
        self.forgive(&forgiven, "feedback")?;
        // Not on disk yet: an interface is attached, and a slow disk must not delay the first tick.
        self.keeper.note_change();
        self.compile_lists(now)
    }

    /// Puts the lists in force; whether that is on disk, too. What an operator said is stored before
    /// anyone is told so.
    pub(in super::super) fn sync_lists(&mut self, now: Moment) -> Result<bool> {
        self.compile_lists(now)?;
        self.save(now)
    }

    pub(in super::super) fn compile_lists(&mut self, now: Moment) -> Result<()> {
        self.lists.compile(now);
        self.exempt_in_kernel(&self.shield.entries()?, now)
    }

    pub(super) fn exempt_in_kernel(&mut self, entries: &[Entry], now: Moment) -> Result<()> {
        // A dry run limits nobody; but a graph may be enforced beside it.
        if self.settings.iq.dry_run && self.shield.graph().is_none() {
            return Ok(());
        }
        self.lists.sync(entries, (self.shield, self.pins), now)
    }

    /// Reads again what changed. A version that cannot be used changes nothing.
    pub(in super::super) fn on_files(&mut self, changed: &BTreeSet<PathBuf>) -> Result<()> {
        if changed.is_empty() {
            return Ok(());
        }
        let now = moment()?;
        let iq = &self.settings.iq;
        let is = |path: &PathBuf| changed.contains(path);
        let (whitelist, feedback) = (is(&iq.whitelist), is(&iq.feedback));
        if iq.pdp_config.as_ref().is_some_and(is) {
            self.read_profile();
        }
        if whitelist {
            self.lists.read_whitelist();
        }
        if feedback {
            let forgiven = self.lists.read_feedback(now);
            self.forgive(&forgiven, "feedback")?;
        }
        if whitelist || feedback {
            self.sync_lists(now)?;
        }
        Ok(())
    }

    fn read_profile(&mut self) {
        let read = judged_by(&self.settings.iq).and_then(|(name, profile)| {
            let effective = profile.effective(&self.settings.overrides)?;
            let base = effective.config()?;
            Ok((name, effective, base))
        });
        let (name, effective, base) = match read {
            Ok(read) => read,
            Err(error) => {
                log::error!(target: IQ, "{error}; the profile read before stays in force");
                return;
            }
        };
        if effective == self.settings.effective {
            return;
        }
        self.learner = Learner::new(&effective, base, &name, self.learner.state());
        log::info!(target: IQ, "profile {name} read again");
        if self.recorder.take().is_some() {
            log::warn!(target: IQ, "the recording ends here: it is of one profile");
        }
        (self.settings.name, self.settings.effective) = (name, effective);
        self.reconfigure();
    }
}
