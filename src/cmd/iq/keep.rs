//! What IQ keeps on disk, and how state and kernel are brought together at the start.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::IQ;
use crate::dataplane::{Action, Entry, Owner, PinDir, Rule, Shield};
use crate::engine::{Engine, EngineState};
use crate::error::Result;
use crate::model::{Hold, Ktime, LimitScope, Moment, RateLimit, Source};
use crate::runtime::boot_id;
use crate::seams::Order;
use crate::state::{Found, OperatorAction, OperatorEntry, State, StateFile, Written};

/// At most this often because somebody is held who was not.
const SOON: Duration = Duration::from_secs(30);

/// At least this often, for what was learned.
const LATEST: Duration = Duration::from_secs(300);

pub(super) struct Keeper {
    file: StateFile,
    boot: String,
    written: Option<Ktime>,
    changed: bool,
    failing: bool,
}

impl Keeper {
    /// Opens the state; what was found is the caller's to restore.
    pub(super) fn open(dir: &std::path::Path, fresh: bool) -> Result<(Self, State)> {
        let (file, found) = StateFile::open(dir, fresh)?;
        let state = match found {
            Found::Nothing => {
                log::info!(target: IQ, "no state in {}; starting to learn", dir.display());
                State::default()
            }
            Found::Newest(state) => state,
            Found::Previous(state, why) => {
                log::warn!(target: IQ, "{why}; going on from the state before it, the damaged one is kept");
                state
            }
            Found::Refused(why) => {
                log::warn!(target: IQ, "{why}; starting over as told");
                State::default()
            }
        };
        let keeper = Self {
            file,
            boot: boot_id()?,
            written: None,
            changed: false,
            failing: false,
        };
        Ok((keeper, state))
    }

    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// There is something that should not be lost.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    pub(super) fn is_due(&self, now: Ktime) -> bool {
        let wait = if self.changed { SOON } else { LATEST };
        self.written.is_none_or(|last| now.since(last) >= wait)
    }

    /// Writes the state. A disk that refuses is told of once; the loop goes on, and tries again.
    pub(super) fn write(&mut self, mut state: State, now: Moment) {
        state.written = Written::at(&self.boot, now);
        self.written = Some(now.ktime);
        match self.file.write(&state) {
            Ok(()) => {
                if self.failing {
                    log::info!(target: IQ, "the state is written again");
                }
                (self.changed, self.failing) = (false, false);
            }
            Err(error) => {
                if !self.failing {
                    log::error!(target: IQ, "{error}; the state before it stays on disk, trying again");
                }
                self.failing = true;
            }
        }
    }
}

/// What the kernel held when IQ started.
pub(super) struct Kernel {
    pub(super) entries: Vec<Entry>,
    /// The instance was there before this start.
    pub(super) reused: bool,
}

/// What became of the two.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Reconciled {
    /// Held by the state and still to be held.
    pub(super) kept: usize,
    /// In the kernel in IQ's name without state.
    pub(super) adopted: usize,
    /// Orders that make the kernel agree.
    pub(super) orders: Vec<Order>,
}

/// Brings the engine to where it was. Within a boot, and with the instance still there, the kernel
/// is the truth about what is held: what it no longer has was reset or has ended. Otherwise the
/// state is, for the time that is left.
pub(super) fn reconcile(
    engine: &mut Engine,
    state: &EngineState,
    kernel: &Kernel,
    same_boot: bool,
    now: Moment,
) -> Reconciled {
    let holds: BTreeMap<Source, (Hold, Ktime)> = kernel
        .entries
        .iter()
        .filter(|entry| entry.rule.owner == Owner::Iq && entry.is_live(now.ktime))
        .filter_map(|entry| Some((entry.source, (hold_of(&entry.rule)?, entry.rule.expires?))))
        .collect();
    let trusted = same_boot && kernel.reused;
    let still = EngineState {
        held: state
            .held
            .iter()
            .filter(|held| !trusted || holds.contains_key(&held.source))
            .cloned()
            .collect(),
    };
    let mut reconciled = Reconciled::default();
    for decision in engine.restore(&still, now) {
        reconciled.orders.push(Order {
            source: decision.source,
            hold: decision.hold.zip(decision.until),
        });
    }
    reconciled.kept = engine.held().count();
    for (source, (hold, until)) in holds {
        engine.adopt(source, hold, until, now.ktime);
    }
    reconciled.adopted = engine.held().count() - reconciled.kept;
    reconciled
}

fn hold_of(rule: &Rule) -> Option<Hold> {
    match rule.action {
        Action::Allow => None,
        Action::Deny => Some(Hold::Deny),
        Action::Limit { limit, scope } => Some(Hold::Limit { limit, scope }),
    }
}

/// Operators' entries, for the state.
pub(super) fn operators(entries: &[Entry], now: Moment) -> Vec<OperatorEntry> {
    entries
        .iter()
        .filter(|entry| entry.rule.owner == Owner::Operator && entry.is_live(now.ktime))
        .map(|entry| OperatorEntry {
            source: entry.source,
            action: match entry.rule.action {
                Action::Allow => OperatorAction::Allow,
                Action::Deny => OperatorAction::Deny,
                Action::Limit { limit, scope } => {
                    let (pps, burst) = (limit.pps.get(), limit.burst.get());
                    match scope {
                        LimitScope::New => OperatorAction::LimitNew { pps, burst },
                        LimitScope::All => OperatorAction::LimitAll { pps, burst },
                    }
                }
            },
            until_ms: entry.rule.expires.map(|end| now.unix_ms(end)),
        })
        .collect()
}

/// After a reboot, puts back what operators had entered by hand and what has not ended since.
/// Answers with how many.
pub(super) fn put_back(
    operators: &[OperatorEntry],
    shield: &Shield,
    pins: &PinDir,
    now: Moment,
) -> Result<usize> {
    let live: Vec<(Source, Rule)> = operators
        .iter()
        .filter_map(|entry| Some((entry.source, rule_of(entry, now)?)))
        .collect();
    if live.is_empty() {
        return Ok(0);
    }
    let lock = pins.lock()?;
    let mut edit = shield.edit(&lock);
    for (source, rule) in &live {
        edit.set(source, rule)?;
    }
    Ok(live.len())
}

/// `None` for one that has ended.
fn rule_of(entry: &OperatorEntry, now: Moment) -> Option<Rule> {
    let limit = |pps, burst| {
        Some(RateLimit {
            pps: NonZeroU32::new(pps)?,
            burst: NonZeroU32::new(burst)?,
        })
    };
    let action = match entry.action {
        OperatorAction::Allow => Action::Allow,
        OperatorAction::Deny => Action::Deny,
        OperatorAction::LimitNew { pps, burst } => Action::Limit {
            limit: limit(pps, burst)?,
            scope: LimitScope::New,
        },
        OperatorAction::LimitAll { pps, burst } => Action::Limit {
            limit: limit(pps, burst)?,
            scope: LimitScope::All,
        },
    };
    let expires = entry.until_ms.map(|end| now.ktime(end));
    if expires.is_some_and(|end| end <= now.ktime) {
        return None;
    }
    Some(Rule {
        action,
        owner: Owner::Operator,
        expires,
    })
}
