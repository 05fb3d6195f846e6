//! Many entries at once: all of them, or none, even if this process ends in the middle.
//!
//! New entries are marked, and nothing that is marked counts until all are there; then one word
//! makes all of them count. Marks that are left over say nothing while that word is zero. Entries
//! that only change are written after that: the source has one or the other meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use super::abi::{kl_owner, kl_policy};
use super::pod::{Pod, bytes_of};
use super::policy::{Edit, Policies, keep_arrival};
use super::rule::{Entry, NoteId, Rule, imported, is_imported, key_of, trie_key_of, value_of};
use crate::error::{Doing, Error, Result};
use crate::model::{Ktime, Source};

/// Entries written with one system call.
const BATCH: usize = 4_096;

/// What became of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    pub added: usize,
    pub changed: usize,
    /// Left alone: an operator's own entry for the same source stands, or an allow.
    pub kept: usize,
}

/// What the maps have to look like afterwards.
#[derive(Default)]
struct Plan {
    fresh: BTreeMap<Source, kl_policy>,
    /// Tracked prefixes with longer rules to come, otherwise as they are.
    marks: BTreeMap<Source, kl_policy>,
    /// Those that have a rule already.
    changed: BTreeMap<Source, kl_policy>,
    /// Sources the trie has to find, and did not before.
    pointers: Vec<Source>,
    outcome: Imported,
}

impl Edit<'_> {
    /// Writes all of them or, on any error, none. `progress` is told how many are written.
    pub fn import(
        &mut self,
        rules: &[(Source, Rule, NoteId)],
        progress: impl Fn(usize),
    ) -> Result<Imported> {
        self.policies.import(rules, &progress)
    }
}

impl Policies<'_> {
    fn import(
        &self,
        rules: &[(Source, Rule, NoteId)],
        progress: &dyn Fn(usize),
    ) -> Result<Imported> {
        let mut before = self.unmarked()?;
        let now = self.control.now()?;
        let mut plan = self.plan(rules, &before, now);
        if let Err(full) = self.fits(&plan, &before) {
            if !self.make_room()? {
                return Err(full);
            }
            before = self.unmarked()?;
            plan = self.plan(rules, &before, now);
            self.fits(&plan, &before)?;
        }
        if plan
            .sources()
            .any(|source| source.bits() == self.own_bits(source))
        {
            self.control.has_exact().store(1, Ordering::Release);
        }
        if !plan.pointers.is_empty() {
            self.control.has_prefix().store(1, Ordering::Release);
        }
        if let Err(error) = self.commit(&plan, progress) {
            self.put_back(&plan, &before)?;
            return Err(error);
        }
        Ok(plan.outcome)
    }

    fn plan(
        &self,
        rules: &[(Source, Rule, NoteId)],
        before: &HashMap<Source, kl_policy>,
        now: Ktime,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut marks: BTreeMap<Source, u32> = BTreeMap::new();
        for (source, rule, note) in rules {
            let there = before.get(source);
            let made = there.and_then(|there| Entry::of(*source, there));
            if made.is_some_and(|made| rule.yields_to(&made, now)) {
                plan.outcome.kept += 1;
                continue;
            }
            let mut value = value_of(rule, *note, there.map_or(0, |there| there.longer));
            keep_arrival(&mut value, there);
            let own_bits = self.own_bits(source);
            match made {
                Some(_) => {
                    plan.outcome.changed += 1;
                    plan.changed.insert(*source, value);
                }
                None => {
                    plan.outcome.added += 1;
                    plan.fresh.insert(*source, value);
                    if source.bits() != own_bits {
                        plan.pointers.push(*source);
                    }
                    if source.bits() > own_bits {
                        let tracked = Source::containing(source.octets(), own_bits);
                        *marks.entry(tracked).or_default() += 1;
                    }
                }
            }
        }
        for (tracked, longer) in marks {
            if let Some(fresh) = plan.fresh.get_mut(&tracked) {
                fresh.longer += longer;
                continue;
            }
            if let Some(changed) = plan.changed.get_mut(&tracked) {
                changed.longer += longer;
            }
            let mut value = before.get(&tracked).copied().unwrap_or_default();
            value.longer += longer;
            plan.marks.insert(tracked, value);
        }
        plan
    }

    fn fits(&self, plan: &Plan, before: &HashMap<Source, kl_policy>) -> Result<()> {
        let fresh = plan.sources().filter(|source| !before.contains_key(source));
        let needed = before.len() + fresh.count();
        let most = self.entries.max_entries() as usize;
        if needed <= most {
            return Ok(());
        }
        Err(Error::world(format!(
            "no room for {} new entries: {} of {most} policy entries are taken; nothing was changed; make room \
             with 'kernloom shield upgrade --max-deny {needed}'",
            plan.outcome.added,
            before.len()
        )))
    }

    /// The trie first, so that nothing is listed that is not found.
    fn commit(&self, plan: &Plan, progress: &dyn Fn(usize)) -> Result<()> {
        for sources in plan.pointers.chunks(BATCH) {
            let keys: Vec<_> = sources.iter().map(trie_key_of).collect();
            let values: Vec<_> = sources.iter().map(key_of).collect();
            update(self.index, &keys, &values).map_err(|error| self.batch_error(&error))?;
        }
        let (pending, mark) = (self.control.pending(), kl_owner::KL_OWNER_IMPORTED.0);
        let as_is = |value: &kl_policy| *value;
        self.write_all(&plan.marks, as_is, &|_| ())?;
        pending.store(mark, Ordering::Release);
        self.write_all(&plan.fresh, |value| imported(*value, true), progress)?;
        pending.store(0, Ordering::Release);
        self.control.bump_generation();
        let fresh = plan.fresh.len();
        self.write_all(&plan.changed, as_is, &|written| progress(fresh + written))?;
        self.write_all(&plan.fresh, |value| imported(*value, false), &|_| ())
    }

    fn write_all(
        &self,
        values: &BTreeMap<Source, kl_policy>,
        as_written: impl Fn(&kl_policy) -> kl_policy,
        progress: &dyn Fn(usize),
    ) -> Result<()> {
        let all: Vec<_> = values.iter().collect();
        let mut written = 0;
        for part in all.chunks(BATCH) {
            let keys: Vec<_> = part.iter().map(|(source, _)| key_of(source)).collect();
            let values: Vec<_> = part.iter().map(|(_, value)| as_written(value)).collect();
            update(self.entries, &keys, &values).map_err(|error| self.batch_error(&error))?;
            written += part.len();
            progress(written);
        }
        Ok(())
    }

    /// Every value, none with a mark that an import left which was cut off once it counted.
    fn unmarked(&self) -> Result<HashMap<Source, kl_policy>> {
        let mut all: HashMap<Source, kl_policy> = self.values()?.into_iter().collect();
        let mut left = BTreeMap::new();
        for (source, value) in all.iter_mut().filter(|(_, value)| is_imported(value)) {
            *value = imported(*value, false);
            left.insert(*source, *value);
        }
        self.write_all(&left, |value| *value, &|_| ())?;
        Ok(all)
    }

    /// Ends what an import began that was cut off: what did not count yet goes, what did stays.
    pub(super) fn take_back(&self) -> Result<()> {
        if self.control.pending().load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        for (source, value) in self.values()? {
            if is_imported(&value) {
                self.remove(&source)?;
            }
        }
        for key in self.index.keys() {
            let at = self.index.lookup(&key, MapFlags::ANY);
            let Some(entry) = at.doing(|| "reading the index of prefixes")? else {
                continue;
            };
            let there = self.entries.lookup(&entry, MapFlags::ANY);
            if there.doing(|| "reading policy")?.is_none() {
                gone(self.index.delete(&key)).doing(|| "tidying the index of prefixes")?;
            }
        }
        self.control.pending().store(0, Ordering::Release);
        Ok(())
    }

    fn batch_error(&self, error: &libbpf_rs::Error) -> Error {
        if error.kind() == ErrorKind::TooBig {
            return self.full("the import");
        }
        Error::world(format!("writing policy: {error:#}; nothing was changed"))
    }

    /// What there was before an attempt, whichever part of it was written.
    fn put_back(&self, plan: &Plan, before: &HashMap<Source, kl_policy>) -> Result<()> {
        for source in plan.sources() {
            let key = key_of(source);
            match before.get(source) {
                Some(value) => update(self.entries, &[key], &[*value]),
                None => gone(self.entries.delete(bytes_of(&key))),
            }
            .map_err(|error| self.write_error(source, &error))?;
        }
        for source in &plan.pointers {
            gone(self.index.delete(bytes_of(&trie_key_of(source))))
                .map_err(|error| self.write_error(source, &error))?;
        }
        self.control.pending().store(0, Ordering::Release);
        Ok(())
    }
}

impl Plan {
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let known = self.marks.keys().chain(self.changed.keys());
        self.fresh.keys().chain(known)
    }
}

fn gone(result: libbpf_rs::Result<()>) -> libbpf_rs::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// One system call where the kernel has it for this kind of map (tries: 5.13), else one each.
fn update<K: Pod, V: Pod>(map: &MapHandle, keys: &[K], values: &[V]) -> libbpf_rs::Result<()> {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let flat = |parts: Vec<&[u8]>| parts.concat();
    let result = map.update_batch(
        &flat(keys.iter().map(bytes_of).collect()),
        &flat(values.iter().map(bytes_of).collect()),
        count,
        MapFlags::ANY,
        MapFlags::ANY,
    );
    match result {
        Err(error) if error.kind() == ErrorKind::TooBig => Err(error),
        Err(_) => keys
            .iter()
            .zip(values)
            .try_for_each(|(key, value)| map.update(bytes_of(key), bytes_of(value), MapFlags::ANY)),
        done => done,
    }
}
