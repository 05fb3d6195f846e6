//! Policy: which source is allowed, denied or limited, by whom and until when.
//!
//! The hash holds the truth. The trie only finds entries of other lengths than the tracking
//! width, and `longer` only marks tracked prefixes with longer rules inside; both are written
//! before the entry and removed after it, so that an interrupted change leaves nothing that is
//! listed but not enforced.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use super::abi::{kl_action, kl_owner, kl_policy, kl_prefix, kl_trie_key};
use super::control::Control;
use super::pin::Lock;
use super::pod::{bytes_of, read};
use crate::error::{Doing, Error, Result};
use crate::model::{Hold, Ktime, LimitScope, RateLimit, Source};

const SECOND_NS: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    Limit { limit: RateLimit, scope: LimitScope },
}

impl From<Hold> for Action {
    fn from(hold: Hold) -> Self {
        match hold {
            Hold::Deny => Self::Deny,
            Hold::Limit { limit, scope } => Self::Limit { limit, scope },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Operator,
    Iq,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Operator => "operator",
            Self::Iq => "iq",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub action: Action,
    pub owner: Owner,
    /// `None`: until removed.
    pub expires: Option<Ktime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub source: Source,
    pub rule: Rule,
}

impl Entry {
    pub fn is_live(&self, now: Ktime) -> bool {
        self.rule.expires.is_none_or(|end| now < end)
    }
}

pub(super) struct Policies<'a> {
    pub(super) entries: &'a MapHandle,
    pub(super) index: &'a MapHandle,
    pub(super) control: &'a Control,
    pub(super) v6_bits: u8,
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

fn key_of(source: &Source) -> kl_prefix {
    kl_prefix {
        addr: words(source.octets()),
        bits: source.bits().into(),
    }
}

fn trie_key_of(source: &Source) -> kl_trie_key {
    kl_trie_key {
        bits: source.bits().into(),
        addr: words(source.octets()),
    }
}

fn source_of(key: &kl_prefix) -> Source {
    let mut octets = [0; 16];
    for (to, word) in octets.chunks_exact_mut(4).zip(key.addr) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    Source::containing(octets, u8::try_from(key.bits).unwrap_or(128))
}

fn value_of(rule: &Rule, longer: u32) -> kl_policy {
    let (action, limit) = match rule.action {
        Action::Allow => (kl_action::KL_ACTION_ALLOW, None),
        Action::Deny => (kl_action::KL_ACTION_DENY, None),
        Action::Limit {
            limit,
            scope: LimitScope::New,
        } => (kl_action::KL_ACTION_LIMIT_NEW, Some(limit)),
        Action::Limit {
            limit,
            scope: LimitScope::All,
        } => (kl_action::KL_ACTION_LIMIT_ALL, Some(limit)),
    };
    let owner = match rule.owner {
        Owner::Operator => kl_owner::KL_OWNER_OPERATOR,
        Owner::Iq => kl_owner::KL_OWNER_IQ,
    };
    let interval_ns = limit.map_or(0, |limit| SECOND_NS.div_ceil(u64::from(limit.pps.get())));
    let burst = limit.map_or(1, |limit| u64::from(limit.burst.get()));
    kl_policy {
        // An end in the first nanosecond after boot would read as "never".
        expires_ns: rule.expires.map_or(0, |end| end.as_nanos().max(1)),
        interval_ns,
        tolerance_ns: (burst - 1).saturating_mul(interval_ns),
        longer,
        rate: limit.map_or(0, |limit| limit.pps.get()),
        action: u8::try_from(action.0).unwrap_or_default(),
        owner: u8::try_from(owner.0).unwrap_or_default(),
        ..kl_policy::default()
    }
}

fn limit_of(value: &kl_policy) -> Option<RateLimit> {
    let burst = u32::try_from(value.tolerance_ns / value.interval_ns.max(1) + 1).ok()?;
    Some(RateLimit {
        pps: NonZeroU32::new(value.rate)?,
        burst: NonZeroU32::new(burst)?,
    })
}

/// `None` for an entry that only marks longer rules.
fn rule_of(value: &kl_policy) -> Option<Rule> {
    let limited = |scope| limit_of(value).map(|limit| Action::Limit { limit, scope });
    let action = match kl_action(value.action.into()) {
        kl_action::KL_ACTION_ALLOW => Action::Allow,
        kl_action::KL_ACTION_DENY => Action::Deny,
        kl_action::KL_ACTION_LIMIT_NEW => limited(LimitScope::New)?,
        kl_action::KL_ACTION_LIMIT_ALL => limited(LimitScope::All)?,
        _ => return None,
    };
    let owner = if u32::from(value.owner) == kl_owner::KL_OWNER_IQ.0 {
        Owner::Iq
    } else {
        Owner::Operator
    };
    let expires = (value.expires_ns != 0).then(|| Ktime::from_nanos(value.expires_ns));
    Some(Rule {
        action,
        owner,
        expires,
    })
}

impl Policies<'_> {
    /// The width the program tracks sources of this family at.
    fn own_bits(&self, source: &Source) -> u8 {
        if source.is_ipv4() { 128 } else { self.v6_bits }
    }

    fn raw(&self, source: &Source) -> Result<Option<kl_policy>> {
        let found = self
            .entries
            .lookup(bytes_of(&key_of(source)), MapFlags::ANY)
            .doing(|| format!("reading the entry of {source}"))?;
        Ok(found.as_deref().and_then(read))
    }

    fn write(&self, source: &Source, value: &kl_policy) -> Result<()> {
        self.entries
            .update(bytes_of(&key_of(source)), bytes_of(value), MapFlags::ANY)
            .map_err(|error| self.write_error(source, &error))
    }

    fn write_error(&self, source: &Source, error: &libbpf_rs::Error) -> Error {
        if error.kind() == ErrorKind::TooBig {
            let most = self.entries.max_entries();
            return Error::world(format!(
                "no room for {source}: all {most} policy entries are taken; remove some, or attach anew with a \
                 larger --max-deny"
            ));
        }
        Error::world(format!("writing the entry of {source}: {error:#}"))
    }

    pub(super) fn get(&self, source: &Source) -> Result<Option<Entry>> {
        let rule = self.raw(source)?.as_ref().and_then(rule_of);
        Ok(rule.map(|rule| Entry {
            source: *source,
            rule,
        }))
    }

    pub(super) fn list(&self) -> Result<Vec<Entry>> {
        let mut found = BTreeMap::new();
        for key in self.entries.keys() {
            let Some(prefix) = read::<kl_prefix>(&key) else {
                continue;
            };
            let source = source_of(&prefix);
            if let Some(entry) = self.get(&source)? {
                found.insert(source, entry);
            }
        }
        Ok(found.into_values().collect())
    }

    fn set(&self, source: &Source, rule: &Rule) -> Result<Option<Entry>> {
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
            self.index
                .update(
                    bytes_of(&trie_key_of(source)),
                    bytes_of(&key_of(source)),
                    MapFlags::ANY,
                )
                .map_err(|error| self.write_error(source, &error))?;
        }
        let mut value = value_of(rule, longer);
        // A renewed limit keeps its arrival time: renewing is no fresh burst.
        value.tat_ns = before
            .filter(|before| before.interval_ns == value.interval_ns)
            .map_or(0, |before| before.tat_ns);
        self.write(source, &value)?;
        let rule = before.as_ref().and_then(rule_of);
        Ok(rule.map(|rule| Entry {
            source: *source,
            rule,
        }))
    }

    fn remove(&self, source: &Source) -> Result<Option<Entry>> {
        let Some(before) = self.raw(source)? else {
            return Ok(None);
        };
        let Some(rule) = rule_of(&before) else {
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
            let key = trie_key_of(source);
            self.index
                .delete(bytes_of(&key))
                .doing(|| format!("removing {source} from the index"))?;
            if source.bits() > own_bits {
                self.mark(source, own_bits, -1)?;
            }
        }
        Ok(Some(Entry {
            source: *source,
            rule,
        }))
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

/// A change of policy. All of it takes effect for every source when this is dropped, whichever
/// way the change ended.
pub struct Edit<'a> {
    policies: Policies<'a>,
    _lock: &'a Lock,
}

impl<'a> Edit<'a> {
    pub(super) fn new(policies: Policies<'a>, lock: &'a Lock) -> Self {
        Self {
            policies,
            _lock: lock,
        }
    }

    /// Writes the source's entry and returns the one it replaced.
    pub fn set(&mut self, source: &Source, rule: &Rule) -> Result<Option<Entry>> {
        self.policies.set(source, rule)
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
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        self.policies.control.bump_generation();
    }
}
