//! Everyone that a tick must leave alone, whoever said so.

use super::lists::wall;
use crate::dataplane::{Action, Entry, Owner, Shield};
use crate::error::Result;
use crate::exempt::{By, Exempt};
use crate::model::{Moment, Source};

/// Lists and operators' entries, at one moment.
pub(super) struct Exemptions<'a> {
    pub(super) operators: &'a Operators,
    pub(super) lists: &'a Exempt,
    pub(super) now: Moment,
}

impl Exemptions<'_> {
    /// Whom the whitelist exempts, and whom anything else does now.
    pub(super) fn split(&self) -> (Vec<Source>, Vec<Source>) {
        let at = wall(self.now);
        let (mut whitelisted, mut others) = (Vec::new(), Vec::new());
        for (source, exempted) in self.lists.iter() {
            match exempted.by {
                By::Whitelist => whitelisted.push(source),
                By::Management | By::Feedback | By::Command | By::Operator => {
                    others.extend(exempted.is_live(at).then_some(source));
                }
            }
        }
        let live = |entry: &&Entry| entry.is_live(self.now.ktime);
        let allowed = self.operators.allowed.iter().filter(live);
        others.extend(allowed.map(|entry| entry.source));
        (whitelisted, others)
    }

    pub(super) fn cover(&self, source: &Source) -> bool {
        self.lists.covering(source, wall(self.now)).is_some()
            || self.operators.covering(source, self.now).is_some()
    }
}

/// Sources that operators allow; read again only when policy changed.
#[derive(Default)]
pub(super) struct Operators {
    generation: Option<u32>,
    allowed: Vec<Entry>,
}

impl Operators {
    /// Every entry, if policy changed since the last time.
    pub(super) fn refresh(&mut self, shield: &Shield) -> Result<Option<Vec<Entry>>> {
        let generation = shield.generation();
        if self.generation == Some(generation) {
            return Ok(None);
        }
        let entries = shield.entries()?;
        let allows =
            |entry: &&Entry| entry.rule.owner != Owner::Iq && entry.rule.action == Action::Allow;
        self.allowed = entries.iter().filter(allows).copied().collect();
        self.generation = Some(generation);
        Ok(Some(entries))
    }

    pub(super) fn covering(&self, source: &Source, now: Moment) -> Option<&Entry> {
        let covers = |entry: &&Entry| entry.is_live(now.ktime) && entry.source.contains(source);
        self.allowed.iter().find(covers)
    }
}
