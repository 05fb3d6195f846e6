//! Whom IQ must leave alone: read from files and commands, compiled into the data plane.

use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::IQ;
use crate::dataplane::{Action, Edit, Entry, Owner, PinDir, Rule, Shield};
use crate::error::{Error, Result};
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
    before: Before,
    exempt: Exempt,
    /// Exempt sources whose entry in the data plane is somebody else's.
    standing: BTreeSet<Source>,
    /// When the first of those ends, or what ends first where there was no room: policy does not change then.
    again: Option<Ktime>,
    /// Exempt sources that the data plane had no room for.
    unfit: BTreeSet<Source>,
    /// Entries in force when it had none.
    full_at: usize,
}

/// What the data plane still exempts by the files of an IQ before this one, until they are read.
#[derive(Default)]
pub(super) struct Before {
    pub(super) whitelist: Vec<Source>,
    pub(super) feedback: Vec<Exemption>,
}

/// What [`Lists::sync`] has to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    stale: Vec<Source>,
    /// IQ's own entries that stay as they are.
    kept: usize,
    /// Of what is missing, what has an entry of IQ's own with another end.
    moved: BTreeSet<Source>,
    /// Those that have an entry first: a change of it needs no room.
    missing: Vec<(Source, Option<Ktime>)>,
    standing: BTreeSet<Source>,
    /// Lines about entries that stand since the last time.
    news: Vec<String>,
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
        before: Before,
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
            before,
            exempt: Exempt::default(),
            standing: BTreeSet::new(),
            again: None,
            unfit: BTreeSet::new(),
            full_at: 0,
        }
    }

    pub(super) fn exempt(&self) -> &Exempt {
        &self.exempt
    }

    /// Reads the whitelist anew. What cannot be read leaves the list as it was, at a start as the
    /// data plane has it.
    pub(super) fn read_whitelist(&mut self) {
        let path = self.whitelist_path.display();
        let before = std::mem::take(&mut self.before.whitelist);
        let text = match trust::read_bytes(&self.whitelist_path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                say_gone(&path, !self.whitelist.is_empty(), before.len());
                return;
            }
            Err(error) => {
                if self.whitelist.is_empty() {
                    self.whitelist = before;
                }
                say_unread(&format!("{path}: {error}"), !self.whitelist.is_empty());
                return;
            }
        };
        let whitelist = Whitelist::parse(&text);
        for bad in &whitelist.bad {
            log::error!(target: IQ, "{path}:{bad}; the rest of the file is used");
        }
        if whitelist.sources != self.whitelist {
            log::info!(target: IQ, "{path}: {} exempt", counted(whitelist.sources.len(), "source is", "sources are"));
            warn_of_everyone(&path, &whitelist.sources);
        }
        self.whitelist = whitelist.sources;
    }

    /// Reads the feedback anew and answers with the sources that it forgives for the first time.
    pub(super) fn read_feedback(&mut self, now: Moment) -> Vec<Source> {
        let path = self.feedback_path.display();
        let parsed = match trust::read_to_string(&self.feedback_path) {
            Ok(text) => Feedback::parse(&text).map_err(|why| format!("{path}:{why}")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let before = std::mem::take(&mut self.before.feedback);
                say_gone(&path, !self.feedback.is_empty(), before.len());
                return Vec::new();
            }
            Err(error) => Err(format!("{path}: {error}")),
        };
        let said = match parsed {
            Ok(feedback) => feedback.entries,
            Err(why) => {
                let exempts = !self.feedback.is_empty() || !self.before.feedback.is_empty();
                say_unread(&why, exempts);
                return Vec::new();
            }
        };
        self.before.feedback.clear();
        if said != self.feedback {
            let today = wall(now);
            let whitelist = || said.iter().filter(|one| one.action == Feedbacks::Whitelist);
            let (over, exempt): (Vec<_>, Vec<_>) =
                whitelist().partition(|one| self.end_of(one, today) <= today);
            let over = match over.len() {
                0 => String::new(),
                over => format!("; {} over", counted(over, "entry is", "entries are")),
            };
            let exempt = counted(exempt.len(), "source is", "sources are");
            let entries = counted(said.len(), "entry", "entries");
            log::info!(target: IQ, "{path}: {entries}, by which {exempt} exempt{over}");
            warn_of_everyone(&path, whitelist().map(|one| &one.target));
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

    /// When an entry of the feedback is over, if it is new at `now` unless it was seen before.
    fn end_of(&self, entry: &Said, now: Wall) -> Wall {
        entry.ends(self.first_seen.get(&entry.key()).copied().unwrap_or(now))
    }

    pub(super) fn exempt_until(&mut self, source: Source, until: Wall) {
        self.commanded.retain(|one| one.source != source);
        self.commanded.push(Exemption {
            source,
            until,
            by: By::Command,
        });
    }

    /// Goes by these commands alone.
    pub(super) fn command(&mut self, exemptions: Vec<Exemption>) {
        self.commanded = exemptions;
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
            let ends = self.end_of(entry, now);
            if now < ends {
                add(entry.target, By::Feedback, Some(ends));
            }
        }
        for one in self.commanded.iter().chain(&self.before.feedback) {
            add(one.source, one.by, Some(one.until));
        }
        self.exempt = exempt;
    }

    /// Whether something that stood in an exemption's way has ended.
    pub(super) fn is_due(&self, now: Ktime) -> bool {
        self.again.is_some_and(|at| at <= now)
    }

    /// Makes IQ's allow entries in the data plane, which has `entries`, those of the lists. What
    /// binds there stands, and what there is no room for is left out; either is told once.
    pub(super) fn sync(
        &mut self,
        entries: &[Entry],
        (shield, pins): (&Shield, &PinDir),
        now: Moment,
    ) -> Result<()> {
        let live = entries.iter().filter(|entry| entry.is_live(now.ktime));
        let live = live.count();
        let mut work = self.compare(entries, now);
        for line in &work.news {
            log::warn!(target: IQ, "{line}");
        }
        let waits = |(source, _): &(Source, _)| self.unfit.contains(source);
        // Trying changes policy, which is a reason to try.
        let no_room_yet =
            work.missing.is_empty() || live >= self.full_at && work.missing.iter().all(waits);
        self.standing = std::mem::take(&mut work.standing);
        if work.stale.is_empty() && no_room_yet {
            let still: BTreeSet<Source> = work.missing.iter().map(|one| one.0).collect();
            self.unfit = still;
            self.again = self.next_end(entries, now.ktime);
            return Ok(());
        }
        let lock = pins.lock()?;
        let mut edit = shield.edit(&lock);
        for source in &work.stale {
            edit.remove(source)?;
        }
        let most = shield.max_deny();
        let Some((unfit, error)) = self.place(&mut edit, work, most) else {
            self.unfit.clear();
            self.again = self.next_end(entries, now.ktime);
            return Ok(());
        };
        let news = !unfit.is_subset(&self.unfit);
        self.unfit = unfit;
        let there = edit.list()?;
        let live = there.iter().filter(|entry| entry.is_live(now.ktime));
        self.full_at = live.count();
        self.again = self.next_end(&there, now.ktime);
        if news {
            log::error!(target: IQ, "{}", self.no_room(&error, most));
        }
        Ok(())
    }

    /// Makes entries of what is missing in a table of `most`: whom there was no room for, and why, if
    /// there was anybody.
    fn place(
        &self,
        edit: &mut Edit<'_>,
        work: Work,
        most: u32,
    ) -> Option<(BTreeSet<Source>, Error)> {
        let mut room = share_of(most).saturating_sub(work.kept + work.moved.len());
        let (mut unfit, mut refused) = (BTreeSet::new(), None);
        let mut left = work.missing.into_iter();
        for (source, expires) in left.by_ref() {
            // Whom a command exempts is meant now.
            let commanded = || self.commanded.iter().any(|one| one.source == source);
            if !work.moved.contains(&source) && !commanded() {
                if room == 0 {
                    unfit.insert(source);
                    refused.get_or_insert_with(|| no_more_than(most));
                    continue;
                }
                room -= 1;
            }
            let rule = Rule {
                action: Action::Allow,
                owner: Owner::Iq,
                expires,
            };
            if let Err(error) = edit.set(&source, &rule) {
                unfit.insert(source);
                refused = Some(error);
                break;
            }
        }
        unfit.extend(left.map(|one| one.0));
        refused.map(|error| (unfit, error))
    }

    /// What of `entries` has to change.
    fn compare(&self, entries: &[Entry], now: Moment) -> Work {
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
        let mut work = Work::default();
        for entry in entries {
            let Rule {
                action,
                owner,
                expires,
            } = entry.rule;
            let ours = owner == Owner::Iq && action == Action::Allow;
            match missing.get(&entry.source) {
                None if ours => work.stale.push(entry.source),
                Some(_) if !ours && entry.binds(now.ktime) => {
                    if owner != Owner::Management && !self.standing.contains(&entry.source) {
                        work.news.push(in_the_way(entry));
                    }
                    work.standing.insert(entry.source);
                    missing.remove(&entry.source);
                }
                Some(end) if ours && same_end(expires, *end) => {
                    missing.remove(&entry.source);
                    work.kept += 1;
                }
                Some(_) => {
                    work.missing.extend(missing.remove_entry(&entry.source));
                    work.moved.extend(ours.then_some(entry.source));
                }
                None => {}
            }
        }
        work.missing.extend(missing);
        work
    }

    /// When to look again although policy has not changed.
    fn next_end(&self, entries: &[Entry], now: Ktime) -> Option<Ktime> {
        let matters =
            |entry: &&Entry| !self.unfit.is_empty() || self.standing.contains(&entry.source);
        let ends = entries.iter().filter(matters);
        ends.filter_map(|entry| entry.rule.expires)
            .filter(|end| now < *end)
            .min()
    }

    /// How many exemptions the data plane lacks for want of room.
    pub(super) fn unfit(&self) -> usize {
        self.unfit.len()
    }

    /// Whether the data plane lacks this exemption for want of room.
    pub(super) fn lacks_room(&self, source: &Source) -> bool {
        self.unfit.contains(source)
    }

    /// How many exemptions of whom the data plane lacks, and what makes room.
    fn no_room(&self, error: &Error, most: u32) -> String {
        let mut by: BTreeMap<String, usize> = BTreeMap::new();
        for (source, exempted) in self.exempt.iter() {
            if self.unfit.contains(&source) {
                *by.entry(self.said_by(exempted.by)).or_default() += 1;
            }
        }
        let by: Vec<String> = by
            .iter()
            .map(|(who, count)| format!("{count} of {who}"))
            .collect();
        format!(
            "{} in the data plane, {}: a default limit and an enforced graph hold for them ({error}); {}",
            counted(self.unfit.len(), "exemption is not", "exemptions are not"),
            by.join(", "),
            room_for(self.unfit.len(), most)
        )
    }

    fn said_by(&self, by: By) -> String {
        match by {
            By::Whitelist => self.whitelist_path.display().to_string(),
            By::Feedback => self.feedback_path.display().to_string(),
            By::Management => "the settings' management".to_owned(),
            By::Command | By::Operator => format!("'{by}'"),
        }
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

/// Says so of sources that are everyone of a family: few mean that.
pub(super) fn warn_of_everyone<'a>(
    who: &dyn Display,
    sources: impl IntoIterator<Item = &'a Source>,
) {
    for source in sources.into_iter().filter(|one| one.is_everyone()) {
        log::warn!(target: IQ, "{who} exempts everyone ({source}): iq limits and blocks none of them");
    }
}

/// How many of `most` policy entries exemptions may take: the others are for who is to be held.
fn share_of(most: u32) -> usize {
    usize::try_from(most - most / 4).unwrap_or(usize::MAX)
}

fn no_more_than(most: u32) -> Error {
    Error::world(format!(
        "exemptions have {} of {most} policy entries, so that there is room for who is to be held",
        share_of(most)
    ))
}

/// How a table of `most` entries gets room for `more`.
pub(super) fn room_for(more: usize, most: u32) -> String {
    // A source longer than what is tracked takes a second entry.
    let more = u32::try_from(more).unwrap_or(u32::MAX).saturating_mul(2);
    let enough = most.saturating_add(more);
    format!("'kernloom shield upgrade --max-deny {enough}' makes room")
}

fn same_end(a: Option<Ktime>, b: Option<Ktime>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.as_nanos().abs_diff(b.as_nanos()) < SAME_END_NS,
        (a, b) => a == b,
    }
}

/// `had`: it was read by this IQ. `before` are exempt by it in the data plane since another.
fn say_gone(path: &dyn Display, had: bool, before: usize) {
    if had {
        log::warn!(target: IQ, "{path} is gone; what was read before stays in force until it is back");
    } else if before > 0 {
        let sources = counted(before, "source is", "sources are");
        log::warn!(target: IQ, "there is no {path} any more: {sources} not exempt that it exempted before this start");
    }
}

/// `exempts`: somebody is exempt by what it said before.
fn say_unread(what: &str, exempts: bool) {
    let effect = if exempts {
        "what was read before stays in force"
    } else {
        "nobody is exempt by it"
    };
    log::error!(target: IQ, "{what}; {effect}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dataplane::NoteId;

    fn now(secs: u64) -> Moment {
        Moment {
            ktime: Ktime::from_secs(secs),
            unix: Duration::from_secs(1_000_000 + secs),
        }
    }

    fn whitelisted(sources: &[&str]) -> Lists {
        let mut lists = Lists::new(
            Vec::new(),
            (Path::new("/w"), Path::new("/f")),
            Vec::new(),
            Vec::new(),
            Before::default(),
        );
        lists.whitelist = sources.iter().map(|one| one.parse().unwrap()).collect();
        lists.compile(now(0));
        lists
    }

    fn operators(source: &str, ends: u64) -> Entry {
        Entry {
            source: source.parse().unwrap(),
            rule: Rule {
                action: Action::Allow,
                owner: Owner::Operator,
                expires: Some(Ktime::from_secs(ends)),
            },
            note: NoteId::default(),
        }
    }

    #[test]
    fn what_stands_in_the_way_is_told_once_and_awaited_to_its_end() {
        let mut lists = whitelisted(&["192.0.2.1", "192.0.2.2"]);
        let there = [operators("192.0.2.1", 50), operators("203.0.113.1", 20)];
        let work = lists.compare(&there, now(1));
        assert_eq!((work.missing.len(), work.news.len()), (1, 1));
        lists.standing = work.standing;
        lists.again = lists.next_end(&there, Ktime::from_secs(1));
        let due = |lists: &Lists| [49, 50].map(|at| lists.is_due(Ktime::from_secs(at)));
        assert_eq!(due(&lists), [false, true]);
        assert!(lists.compare(&there, now(2)).news.is_empty(), "told once");
        // Its entry is there still, but has ended; a change of it goes first.
        let work = lists.compare(&there, now(50));
        assert_eq!(work.missing[0].0, there[0].source);
        assert_eq!((work.missing.len(), work.standing.len()), (2, 0));
        // Where there was no room, anybody's end is a reason to look.
        lists.unfit.insert("192.0.2.2".parse().unwrap());
        let next = lists.next_end(&there, Ktime::from_secs(1));
        assert_eq!(next, Some(Ktime::from_secs(20)));
    }

    #[test]
    fn what_has_no_room_is_told_by_who_said_it_and_with_the_mend() {
        let mut lists = whitelisted(&["192.0.2.1", "192.0.2.2"]);
        lists.exempt_until("192.0.2.3".parse().unwrap(), wall(now(9)));
        lists.compile(now(0));
        lists.unfit = lists.exempt.iter().map(|(source, _)| source).collect();
        assert_eq!(
            lists.no_room(&Error::world("full"), 64),
            "3 exemptions are not in the data plane, 1 of 'iq exempt', 2 of /w: a default limit and an enforced \
             graph hold for them (full); 'kernloom shield upgrade --max-deny 70' makes room"
        );
    }
}
