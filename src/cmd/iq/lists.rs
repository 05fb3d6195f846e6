//! Whom IQ must leave alone: read from files and commands, compiled into the data plane.

use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::IQ;
use crate::dataplane::{Action, Entry, Owner, PinDir, Rule, Shield};
use crate::error::Result;
use crate::exempt::{
    Action as Feedbacks, By, Entry as Said, Exempt, Exempted, Feedback, Whitelist,
};
use crate::model::{Ktime, Moment, Source, Wall, counted};
use crate::state::{Exemption, FirstSeen};
use crate::trust;

/// An end this much off is the same end: it went through the time of day.
const SAME_END_NS: u64 = 2_000_000_000;

pub(super) struct Lists {
    management: Vec<Source>,
    whitelist_path: PathBuf,
    whitelist: Vec<Source>,
    feedback_path: PathBuf,
    feedback: Vec<Said>,
    first_seen: BTreeMap<String, Wall>,
    /// By `iq exempt`.
    commanded: Vec<Exemption>,
    exempt: Exempt,
    /// Exempt sources whose entry in the data plane is somebody else's.
    standing: BTreeSet<Source>,
}

/// The time of day of a moment.
pub(super) fn wall(now: Moment) -> Wall {
    Wall::from_secs(now.unix.as_secs())
}

impl Lists {
    pub(super) fn new(
        management: Vec<Source>,
        (whitelist, feedback): (&Path, &Path),
        commanded: Vec<Exemption>,
        first_seen: Vec<FirstSeen>,
    ) -> Self {
        Self {
            management,
            whitelist_path: whitelist.to_owned(),
            whitelist: Vec::new(),
            feedback_path: feedback.to_owned(),
            feedback: Vec::new(),
            first_seen: first_seen
                .into_iter()
                .map(|seen| (seen.key, seen.first))
                .collect(),
            commanded,
            exempt: Exempt::default(),
            standing: BTreeSet::new(),
        }
    }

    pub(super) fn exempt(&self) -> &Exempt {
        &self.exempt
    }

    /// Reads the whitelist anew. What cannot be read leaves the list as it was.
    pub(super) fn read_whitelist(&mut self) {
        let path = self.whitelist_path.display();
        let Some(text) = read(
            trust::read_bytes,
            &self.whitelist_path,
            !self.whitelist.is_empty(),
        ) else {
            return;
        };
        let whitelist = Whitelist::parse(&text);
        for bad in &whitelist.bad {
            log::error!(target: IQ, "{path}:{bad}; the rest of the file is used");
        }
        if whitelist.sources != self.whitelist {
            log::info!(target: IQ, "{path}: {} exempt", counted(whitelist.sources.len(), "source is", "sources are"));
        }
        self.whitelist = whitelist.sources;
    }

    /// Reads the feedback anew and answers with the sources that it forgives for the first time.
    pub(super) fn read_feedback(&mut self, now: Moment) -> Vec<Source> {
        let path = self.feedback_path.display();
        let Some(text) = read(
            trust::read_to_string,
            &self.feedback_path,
            !self.feedback.is_empty(),
        ) else {
            return Vec::new();
        };
        let said = match Feedback::parse(&text) {
            Ok(feedback) => feedback.entries,
            Err(why) => {
                log::error!(target: IQ, "{path}:{why}; what was read before stays in force");
                return Vec::new();
            }
        };
        if said != self.feedback {
            let exempt = said.iter().filter(|one| one.action == Feedbacks::Whitelist);
            let exempt = counted(exempt.count(), "source is", "sources are");
            let entries = counted(said.len(), "entry", "entries");
            log::info!(target: IQ, "{path}: {entries}, by which {exempt} exempt");
        }
        self.feedback = said;
        let keys: BTreeSet<String> = self.feedback.iter().map(Said::key).collect();
        self.first_seen.retain(|key, _| keys.contains(key));
        let mut forgiven = Vec::new();
        for entry in &self.feedback {
            if let Vacant(unseen) = self.first_seen.entry(entry.key()) {
                unseen.insert(wall(now));
                if entry.action == Feedbacks::Forgive {
                    forgiven.push(entry.target);
                }
            }
        }
        forgiven
    }

    pub(super) fn exempt_until(&mut self, source: Source, until: Wall) {
        self.commanded.retain(|one| one.source != source);
        self.commanded.push(Exemption {
            source,
            until,
            by: By::Command,
        });
    }

    /// Ends what a command exempted under this very name; whether there was that.
    pub(super) fn end_exemption(&mut self, source: &Source) -> bool {
        let before = self.commanded.len();
        self.commanded.retain(|one| one.source != *source);
        self.commanded.len() < before
    }

    /// The same of all of them.
    pub(super) fn end_exemptions(&mut self) -> bool {
        let any = !self.commanded.is_empty();
        self.commanded.clear();
        any
    }

    /// Takes in everything that was read or commanded.
    pub(super) fn compile(&mut self, now: Moment) {
        let now = wall(now);
        self.commanded.retain(|one| now < one.until);
        let mut exempt = Exempt::default();
        let mut add = |source, by, until| exempt.add(source, Exempted { by, until });
        for source in &self.management {
            add(*source, By::Management, None);
        }
        for source in &self.whitelist {
            add(*source, By::Whitelist, None);
        }
        for entry in self
            .feedback
            .iter()
            .filter(|one| one.action == Feedbacks::Whitelist)
        {
            let first = self.first_seen.get(&entry.key()).copied().unwrap_or(now);
            add(entry.target, By::Feedback, Some(entry.ends(first)));
        }
        for one in &self.commanded {
            add(one.source, one.by, Some(one.until));
        }
        self.exempt = exempt;
    }

    /// Makes IQ's allow entries in the data plane, which has `entries`, those of the lists. What
    /// binds there stands, and is told once.
    pub(super) fn sync(
        &mut self,
        entries: &[Entry],
        (shield, pins): (&Shield, &PinDir),
        now: Moment,
    ) -> Result<()> {
        let live = |exempted: &Exempted| exempted.until.is_none_or(|until| wall(now) < until);
        let mut missing: BTreeMap<Source, Option<Ktime>> = self
            .exempt
            .iter()
            .filter(|(_, exempted)| live(exempted))
            .map(|(source, exempted)| {
                let end = exempted
                    .until
                    .map(|until| now.ktime(until.as_secs() * 1_000));
                (source, end)
            })
            .collect();
        let (mut stale, mut standing) = (Vec::new(), BTreeSet::new());
        for entry in entries {
            let Rule {
                action,
                owner,
                expires,
            } = entry.rule;
            let ours = owner == Owner::Iq && action == Action::Allow;
            match missing.get(&entry.source) {
                None if ours => stale.push(entry.source),
                Some(_) if !ours && entry.binds(now.ktime) => {
                    if owner != Owner::Management && !self.standing.contains(&entry.source) {
                        log::warn!(target: IQ, "{}", in_the_way(entry));
                    }
                    standing.insert(entry.source);
                    missing.remove(&entry.source);
                }
                Some(end) if ours && same_end(expires, *end) => {
                    missing.remove(&entry.source);
                }
                None | Some(_) => {}
            }
        }
        self.standing = standing;
        if stale.is_empty() && missing.is_empty() {
            return Ok(());
        }
        let lock = pins.lock()?;
        let mut edit = shield.edit(&lock);
        for source in &stale {
            edit.remove(source)?;
        }
        for (source, expires) in missing {
            let rule = Rule {
                action: Action::Allow,
                owner: Owner::Iq,
                expires,
            };
            edit.set(&source, &rule)?;
        }
        Ok(())
    }

    pub(super) fn commanded(&self) -> Vec<Exemption> {
        self.commanded.clone()
    }

    pub(super) fn first_seen(&self) -> Vec<FirstSeen> {
        let seen = |(key, first): (&String, &Wall)| FirstSeen {
            key: key.clone(),
            first: *first,
        };
        self.first_seen.iter().map(seen).collect()
    }
}

/// What an entry of somebody else's keeps an exemption from, and the way out.
fn in_the_way(entry: &Entry) -> String {
    let Entry { source, rule, .. } = entry;
    let (list, effect) = match rule.action {
        Action::Allow => ("allow", "a default limit and an enforced graph hold for it"),
        Action::Deny => ("deny", "it is blocked"),
        Action::Limit { .. } | Action::LimitBytes { .. } => ("limit", "it is limited"),
    };
    format!(
        "{source} is exempt, but the {}'s {list} of it stands, and {effect}: \
         'kernloom shield {list} del {source}' makes room for the exemption",
        rule.owner
    )
}

fn same_end(a: Option<Ktime>, b: Option<Ktime>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.as_nanos().abs_diff(b.as_nanos()) < SAME_END_NS,
        (a, b) => a == b,
    }
}

/// What a list holds, `None` if there is nothing to go by. `had` says whether it was read before:
/// then its absence is news, and what was read stays.
fn read<T>(from: impl FnOnce(&Path) -> std::io::Result<T>, path: &Path, had: bool) -> Option<T> {
    let shown = path.display();
    match from(path) {
        Ok(read) => Some(read),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if had {
                log::warn!(target: IQ, "{shown} is gone; what was read before stays in force until it is back");
            }
            None
        }
        Err(error) => {
            log::error!(target: IQ, "{shown}: {error}; what was read before stays in force");
            None
        }
    }
}
