//! Policy: which source is allowed, denied or limited, by whom and until when.
//!
//! The hash holds the truth. The trie only finds entries of other lengths than the tracking
//! width, and `longer` only marks tracked prefixes with longer rules inside; both are written
//! before the entry and removed after it, so that an interrupted change leaves nothing that is
//! listed but not enforced.

use std::sync::atomic::Ordering;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use super::abi::{kl_policy, kl_prefix};
use super::control::Control;
use super::notes::Notes;
use super::pin::Lock;
use super::pod::{bytes_of, read};
use super::rule::{
    Entry, NoteId, Owner, Rule, is_imported, key_of, rule_of, source_of, trie_key_of, value_of,
};
use crate::error::{Doing, Error, Result};
use crate::model::{Ktime, Source};

#[derive(Clone, Copy)]
pub(super) struct Policies<'a> {
    pub(super) entries: &'a MapHandle,
    pub(super) index: &'a MapHandle,
    pub(super) notes: &'a MapHandle,
    pub(super) control: &'a Control,
    pub(super) v6_bits: u8,
}

impl Policies<'_> {
    /// The width the program tracks sources of this family at.
    pub(super) fn own_bits(&self, source: &Source) -> u8 {
        source.tracked_bits(self.v6_bits)
    }

    fn raw(&self, source: &Source) -> Result<Option<kl_policy>> {
        let found = self
            .entries
            .lookup(bytes_of(&key_of(source)), MapFlags::ANY)
            .doing(|| format!("reading the entry of {source}"))?;
        Ok(found.as_deref().and_then(read))
    }

    /// Writes one value. Where the table is full, what ended or the program made gives way.
    fn write(&self, source: &Source, value: &kl_policy) -> Result<()> {
        let key = key_of(source);
        let put = || {
            self.entries
                .update(bytes_of(&key), bytes_of(value), MapFlags::ANY)
        };
        match put() {
            Err(error) if error.kind() == ErrorKind::TooBig && self.make_room()? => {
                put().map_err(|error| self.write_error(source, &error))
            }
            result => result.map_err(|error| self.write_error(source, &error)),
        }
    }

    /// Removes what has ended, or else what the program itself made. False if that was nothing.
    pub(super) fn make_room(&self) -> Result<bool> {
        let now = self.control.now()?;
        let mut entries = self.list()?;
        if entries.iter().all(|entry| entry.is_live(now)) {
            entries.retain(|entry| entry.rule.owner == Owner::Ceiling);
        } else {
            entries.retain(|entry| !entry.is_live(now));
        }
        for entry in &entries {
            self.remove(&entry.source)?;
        }
        Ok(!entries.is_empty())
    }

    pub(super) fn full(&self, what: &str) -> Error {
        let most = self.entries.max_entries();
        Error::world(format!(
            "no room for {what}: all {most} policy entries are taken; remove some, or attach anew with a larger \
             --max-deny"
        ))
    }

    pub(super) fn write_error(&self, source: &Source, error: &libbpf_rs::Error) -> Error {
        if error.kind() == ErrorKind::TooBig {
            return self.full(&source.to_string());
        }
        Error::world(format!("writing the entry of {source}: {error:#}"))
    }

    pub(super) fn get(&self, source: &Source) -> Result<Option<Entry>> {
        let value = self.raw(source)?.filter(|value| self.counts(value));
        Ok(value.and_then(|value| Entry::of(*source, &value)))
    }

    /// Whether the value is in force, or was; not so what is being imported.
    fn counts(&self, value: &kl_policy) -> bool {
        self.control.pending().load(Ordering::Acquire) == 0 || !is_imported(value)
    }

    /// Every value of the hash, marks included, in no order.
    pub(super) fn values(&self) -> Result<Vec<(Source, kl_policy)>> {
        let mut found = Vec::new();
        // One by one: a batch ends early, without an error, where a bucket does not fit into it.
        for key in self.entries.keys() {
            let value = self
                .entries
                .lookup(&key, MapFlags::ANY)
                .doing(|| "listing policy")?;
            let value = value.as_deref().and_then(read);
            if let (Some(key), Some(value)) = (read::<kl_prefix>(&key), value) {
                found.push((source_of(&key), value));
            }
        }
        Ok(found)
    }

    /// In order of source.
    pub(super) fn list(&self) -> Result<Vec<Entry>> {
        let mut found: Vec<Entry> = self
            .values()?
            .into_iter()
            .filter(|(_, value)| self.counts(value))
            .filter_map(|(source, value)| Entry::of(source, &value))
            .collect();
        found.sort_by_key(|entry| entry.source);
        // The walk starts over where the program takes away the entry it stands on.
        found.dedup_by_key(|entry| entry.source);
        Ok(found)
    }

    fn set(&self, source: &Source, rule: &Rule, note: NoteId) -> Result<Option<Entry>> {
        let before = self.raw(source)?;
        let longer = before.map_or(0, |value| value.longer);
        let own_bits = self.own_bits(source);
        let fresh = before.as_ref().and_then(rule_of).is_none();
        if source.bits() == own_bits {
            self.control.has_exact().store(1, Ordering::Release);
        } else {
            self.control.has_prefix().store(1, Ordering::Release);
            if fresh && source.bits() > own_bits {
                self.mark(source, own_bits, 1)?;
            }
            self.point(source)?;
        }
        let mut value = value_of(rule, note, longer);
        keep_arrival(&mut value, before.as_ref());
        if let Err(error) = self.write(source, &value) {
            if fresh && source.bits() != own_bits {
                self.unpoint(source, own_bits)?;
            }
            return Err(error);
        }
        // What the program made for a source above the default limit is nobody's rule.
        let made = before.and_then(|value| Entry::of(*source, &value));
        Ok(made.filter(|entry| entry.rule.owner != Owner::Ceiling))
    }

    /// Makes the trie find the source's entry.
    pub(super) fn point(&self, source: &Source) -> Result<()> {
        let (key, value) = (trie_key_of(source), key_of(source));
        self.index
            .update(bytes_of(&key), bytes_of(&value), MapFlags::ANY)
            .map_err(|error| self.write_error(source, &error))
    }

    fn unpoint(&self, source: &Source, own_bits: u8) -> Result<()> {
        self.index
            .delete(bytes_of(&trie_key_of(source)))
            .doing(|| format!("removing {source} from the index"))?;
        if source.bits() > own_bits {
            self.mark(source, own_bits, -1)?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, source: &Source) -> Result<Option<Entry>> {
        let Some(before) = self.raw(source)? else {
            return Ok(None);
        };
        let Some(entry) = Entry::of(*source, &before) else {
            return Ok(None);
        };
        let own_bits = self.own_bits(source);
        if before.longer > 0 {
            self.write(
                source,
                &kl_policy {
                    longer: before.longer,
                    ..kl_policy::default()
                },
            )?;
        } else {
            self.delete(source)?;
        }
        if source.bits() != own_bits {
            self.unpoint(source, own_bits)?;
        }
        Ok(Some(entry))
    }

    fn delete(&self, source: &Source) -> Result<()> {
        self.entries
            .delete(bytes_of(&key_of(source)))
            .doing(|| format!("removing the entry of {source}"))
    }

    /// Counts a longer rule in or out of the tracked prefix that holds it.
    fn mark(&self, source: &Source, own_bits: u8, by: i32) -> Result<()> {
        let tracked = Source::containing(source.octets(), own_bits);
        self.control.has_exact().store(1, Ordering::Release);
        let mut value = self.raw(&tracked)?.unwrap_or_default();
        value.longer = value.longer.saturating_add_signed(by);
        if value.longer == 0 && rule_of(&value).is_none() {
            return self.delete(&tracked);
        }
        self.write(&tracked, &value)
    }
}

/// A renewed limit keeps its arrival time: renewing is no fresh burst.
pub(super) fn keep_arrival(value: &mut kl_policy, before: Option<&kl_policy>) {
    value.tat_ns = before
        .filter(|before| before.interval_ns == value.interval_ns)
        .map_or(0, |before| before.tat_ns);
}

/// A change of policy. All of it takes effect for every source when this is dropped, whichever
/// way the change ended.
pub struct Edit<'a> {
    pub(super) policies: Policies<'a>,
    _lock: &'a Lock,
}

impl<'a> Edit<'a> {
    pub(super) fn new(policies: Policies<'a>, lock: &'a Lock) -> Self {
        if let Err(error) = policies.take_back() {
            log::error!("taking back a list whose import was cut off: {error}");
        }
        Self {
            policies,
            _lock: lock,
        }
    }

    /// Writes the source's entry and returns the one it replaced.
    pub fn set(&mut self, source: &Source, rule: &Rule) -> Result<Option<Entry>> {
        self.set_noted(source, rule, NoteId::default())
    }

    /// As `set`, with the reason why.
    pub fn set_noted(
        &mut self,
        source: &Source,
        rule: &Rule,
        note: NoteId,
    ) -> Result<Option<Entry>> {
        self.policies.set(source, rule, note)
    }

    /// The key of a reason: a line of at most 64 bytes.
    pub fn note(&mut self, text: &str) -> Result<NoteId> {
        let policies = self.policies;
        Notes::keep(policies.notes, text, || {
            Ok(policies.list()?.iter().map(|entry| entry.note).collect())
        })
    }

    /// Removes the source's entry and returns it.
    pub fn remove(&mut self, source: &Source) -> Result<Option<Entry>> {
        self.policies.remove(source)
    }

    /// Removes every entry that `which` picks, and returns them.
    pub fn remove_all(&mut self, which: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>> {
        let mut removed = Vec::new();
        for entry in self
            .policies
            .list()?
            .into_iter()
            .filter(|entry| which(entry))
        {
            removed.extend(self.policies.remove(&entry.source)?);
        }
        Ok(removed)
    }

    pub fn get(&self, source: &Source) -> Result<Option<Entry>> {
        self.policies.get(source)
    }

    /// Every entry, in order of source.
    pub fn list(&self) -> Result<Vec<Entry>> {
        self.policies.list()
    }

    /// Removes entries that ended before `now`; how many.
    pub fn collect(&mut self, now: Ktime) -> Result<usize> {
        Ok(self.remove_all(|entry| !entry.is_live(now))?.len())
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        self.policies.control.bump_generation();
    }
}
