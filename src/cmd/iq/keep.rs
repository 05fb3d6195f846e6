//! What IQ keeps on disk, and how state and kernel are brought together at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use super::IQ;
use super::run::Before;
use crate::dataplane::{Action, AllowOnly, Entry, Notes, Owner, PinDir, Rule, Shield};
use crate::engine::{Engine, EngineState};
use crate::error::Result;
use crate::exempt::By;
use crate::model::{ByteLimit, Hold, Ktime, LimitScope, Moment, RateLimit, Source, Wall, counted};
use crate::runtime::{boot_id, now};
use crate::seams::Order;
use crate::state::{Exemption, Found, OperatorAction, OperatorEntry, State, StateFile, Written};

/// At most this often because somebody is held who was not.
const SOON: Duration = Duration::from_secs(30);

/// At least this often, for what was learned.
const LATEST: Duration = Duration::from_secs(300);

pub(super) struct Keeper {
    file: StateFile,
    boot: String,
    /// When it was last written, or read at the start.
    written: Ktime,
    changed: bool,
    failing: bool,
    /// Why the state may lack what the kernel still knows.
    lost: Option<&'static str>,
}

impl Keeper {
    /// Opens the state; what was found is the caller's to restore.
    pub(super) fn open(dir: &std::path::Path, fresh: bool) -> Result<(Self, State)> {
        let (file, found) = StateFile::open(dir, fresh)?;
        let lost = match found {
            Found::Previous(..) => Some("the newest was lost"),
            Found::Nothing => Some("none was stored"),
            Found::Refused(_) => Some("it starts afresh"),
            Found::Newest(_) => None,
        };
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
            written: now()?,
            changed: false,
            failing: false,
            lost,
        };
        Ok((keeper, state))
    }

    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// Why the state may lack what the kernel still knows: it is older than that, or there is none.
    pub(super) const fn lost(&self) -> Option<&'static str> {
        self.lost
    }

    /// There is something that should not be lost.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    pub(super) fn is_due(&self, now: Ktime) -> bool {
        let wait = if self.changed { SOON } else { LATEST };
        now.since(self.written) >= wait
    }

    /// Writes the state; whether it is on disk. A disk that refuses is told of once; the loop goes on,
    /// and tries again.
    pub(super) fn write(&mut self, mut state: State, now: Moment) -> bool {
        state.written = Written::at(&self.boot, now);
        self.written = now.ktime;
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
                (self.changed, self.failing) = (true, true);
            }
        }
        !self.failing
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
pub(super) fn reconcile(engine: &mut Engine, state: &EngineState, before: &Before) -> Reconciled {
    let (kernel, now) = (&before.kernel, before.reading);
    let holds: BTreeMap<Source, (Hold, Ktime)> = kernel
        .entries
        .iter()
        .filter(|entry| entry.rule.owner == Owner::Iq && entry.is_live(now.ktime))
        // Everyone over IPv4 is half of everyone, which the other half stands for.
        .filter(|entry| !(entry.source.is_ipv4() && entry.source.is_everyone()))
        .filter_map(|entry| Some((entry.source, (hold_of(&entry.rule)?, entry.rule.expires?))))
        .collect();
    let trusted = before.same_boot && kernel.reused;
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
        // IQ limits packets only.
        Action::LimitBytes { .. } => None,
    }
}

/// Exemptions for a time in the kernel that a state does not know: those of the feedback file, and of
/// commands if the state is older than them.
pub(super) fn unknown(state: &State, kernel: &Kernel, now: Moment) -> Vec<Exemption> {
    let known: BTreeSet<Source> = state.exemptions.iter().map(|one| one.source).collect();
    exempt_in(kernel)
        .filter(|entry| entry.is_live(now.ktime) && !known.contains(&entry.source))
        .filter_map(|entry| {
            let end = entry.rule.expires?;
            Some(Exemption {
                source: entry.source,
                until: Wall::from_secs(now.unix_ms(end) / 1_000),
                by: By::Command,
            })
        })
        .collect()
}

/// Exemptions without an end in the kernel: the whitelist's.
pub(super) fn whitelisted(kernel: &Kernel) -> Vec<Source> {
    let endless = exempt_in(kernel).filter(|entry| entry.rule.expires.is_none());
    endless.map(|entry| entry.source).collect()
}

fn exempt_in(kernel: &Kernel) -> impl Iterator<Item = &Entry> {
    kernel.entries.iter().filter(|entry| {
        let Rule { action, owner, .. } = entry.rule;
        owner == Owner::Iq && action == Action::Allow
    })
}

/// What operators entered by hand, for the state.
pub(super) struct Policy {
    pub(super) operators: Vec<OperatorEntry>,
    pub(super) allow_only: bool,
    pub(super) ceiling: Option<OperatorAction>,
}

impl Policy {
    pub(super) fn read(shield: &Shield, now: Moment) -> Result<Self> {
        Ok(Self {
            operators: operators(&shield.entries()?, &shield.notes()?, now),
            // A lease that nobody confirmed is not what the operator decided.
            allow_only: shield.allow_only()? == AllowOnly::On,
            ceiling: shield.ceiling().map(kept_action),
        })
    }
}

fn kept_action(action: Action) -> OperatorAction {
    match action {
        Action::Allow => OperatorAction::Allow,
        Action::Deny => OperatorAction::Deny,
        Action::Limit { limit, scope } => {
            let (pps, burst) = (limit.pps.get(), limit.burst.get());
            match scope {
                LimitScope::New => OperatorAction::LimitNew { pps, burst },
                LimitScope::All => OperatorAction::LimitAll { pps, burst },
            }
        }
        Action::LimitBytes { limit, scope } => {
            let (bytes, burst) = (limit.bytes.get(), limit.burst.get());
            match scope {
                LimitScope::New => OperatorAction::LimitBytesNew { bytes, burst },
                LimitScope::All => OperatorAction::LimitBytesAll { bytes, burst },
            }
        }
    }
}

fn operators(entries: &[Entry], notes: &Notes, now: Moment) -> Vec<OperatorEntry> {
    entries
        .iter()
        .filter(|entry| {
            matches!(entry.rule.owner, Owner::Operator | Owner::Management)
                && entry.is_live(now.ktime)
        })
        .map(|entry| OperatorEntry {
            source: entry.source,
            management: entry.rule.owner == Owner::Management,
            action: kept_action(entry.rule.action),
            reason: notes.text(entry.note).to_owned(),
            until_ms: entry.rule.expires.map(|end| now.unix_ms(end)),
        })
        .collect()
}

/// After a reboot, puts back what operators had entered by hand, what has not ended since and what
/// nobody has ruled over since. Answers with a line for each kind.
pub(super) fn put_back(
    state: &State,
    shield: &Shield,
    pins: &PinDir,
    now: Moment,
) -> Result<Vec<String>> {
    let lock = pins.lock()?;
    let missing = missing(&state.operators, &shield.entries()?, now);
    let mut edit = shield.edit(&lock);
    for (source, rule, reason) in &missing {
        let note = edit.note(reason)?;
        edit.set_noted(source, rule, note)?;
    }
    drop(edit);
    let mut done = Vec::new();
    if !missing.is_empty() {
        let entries = counted(missing.len(), "entry", "entries");
        done.push(format!("{entries} of operators"));
    }
    let ceiling = state.ceiling.and_then(rule_action);
    if let (Some(ceiling), None) = (ceiling, shield.ceiling()) {
        shield.set_ceiling(Some(&ceiling), &lock)?;
        done.push("the default limit".to_owned());
    }
    // After the entries: whoever is allowed must never be without his.
    if state.allow_only && shield.allow_only()? == AllowOnly::Off {
        shield.set_allow_only(AllowOnly::On, &lock);
        done.push("that only allowed sources pass".to_owned());
    }
    Ok(done)
}

fn missing<'a>(
    operators: &'a [OperatorEntry],
    there: &[Entry],
    now: Moment,
) -> Vec<(Source, Rule, &'a str)> {
    let ruled: BTreeSet<Source> = there.iter().map(|entry| entry.source).collect();
    operators
        .iter()
        .filter(|entry| !ruled.contains(&entry.source))
        .filter_map(|entry| Some((entry.source, rule_of(entry, now)?, entry.reason.as_str())))
        .collect()
}

/// `None` for a rate of nothing, which no command makes.
fn rule_action(action: OperatorAction) -> Option<Action> {
    let limit = |pps, burst, scope| {
        let (pps, burst) = (NonZeroU32::new(pps)?, NonZeroU32::new(burst)?);
        let limit = RateLimit { pps, burst };
        Some(Action::Limit { limit, scope })
    };
    let byte_limit = |bytes, burst, scope| {
        let (bytes, burst) = (NonZeroU32::new(bytes)?, NonZeroU32::new(burst)?);
        let limit = ByteLimit { bytes, burst };
        Some(Action::LimitBytes { limit, scope })
    };
    match action {
        OperatorAction::Allow => Some(Action::Allow),
        OperatorAction::Deny => Some(Action::Deny),
        OperatorAction::LimitNew { pps, burst } => limit(pps, burst, LimitScope::New),
        OperatorAction::LimitAll { pps, burst } => limit(pps, burst, LimitScope::All),
        OperatorAction::LimitBytesNew { bytes, burst } => byte_limit(bytes, burst, LimitScope::New),
        OperatorAction::LimitBytesAll { bytes, burst } => byte_limit(bytes, burst, LimitScope::All),
    }
}

/// `None` for one that has ended.
fn rule_of(entry: &OperatorEntry, now: Moment) -> Option<Rule> {
    let action = rule_action(entry.action)?;
    let expires = entry.until_ms.map(|end| now.ktime(end));
    if expires.is_some_and(|end| end <= now.ktime) {
        return None;
    }
    Some(Rule {
        action,
        owner: if entry.management {
            Owner::Management
        } else {
            Owner::Operator
        },
        expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::NoteId;
    use crate::engine::{Held, Reading, Signal};
    use crate::model::Stage;
    use crate::profile::{Overrides, Profile};

    const NOW: Moment = Moment {
        ktime: Ktime::from_secs(1_000),
        unix: Duration::from_secs(50_000),
    };

    fn engine() -> Engine {
        let profile = Profile::named("web-server").unwrap();
        Engine::new(profile.resolve(&Overrides::default()).unwrap())
    }

    fn held(source: &str, until_s: u64) -> Held {
        Held {
            source: source.parse().unwrap(),
            stage: Stage::RateHard,
            scope: LimitScope::All,
            spares: false,
            limit: Some(RateLimit {
                pps: NonZeroU32::new(100).unwrap(),
                burst: NonZeroU32::new(200).unwrap(),
            }),
            entered_ms: 49_000_000,
            ends_ms: until_s * 1_000,
            until_ms: until_s * 1_000,
            strikes: 5,
            down: 0,
            nat: 1,
            proven: false,
            cause: Reading {
                severity: 3.0,
                signal: Signal::Syns,
                rate: 5_000.0,
                trigger: 250.0,
            },
        }
    }

    fn entry(source: &str, owner: Owner, end_s: u64) -> Entry {
        Entry {
            source: source.parse().unwrap(),
            rule: Rule {
                action: Action::Deny,
                owner,
                expires: Some(Ktime::from_secs(end_s)),
            },
            note: NoteId::default(),
        }
    }

    /// Who is held after `state` met `entries`, and what the kernel is told.
    fn met(
        state: &[Held],
        entries: Vec<Entry>,
        (same_boot, reused): (bool, bool),
    ) -> (Vec<String>, Reconciled) {
        let before = Before {
            kernel: Kernel { entries, reused },
            same_boot,
            reading: NOW,
        };
        let state = EngineState {
            held: state.to_vec(),
        };
        let mut engine = engine();
        let reconciled = reconcile(&mut engine, &state, &before);
        let mut sources: Vec<String> = engine
            .held()
            .map(|(source, ..)| source.to_string())
            .collect();
        sources.sort();
        (sources, reconciled)
    }

    #[test]
    fn w18_within_a_boot_the_kernel_says_who_is_held() {
        let state = [held("192.0.2.1", 50_600), held("192.0.2.2", 50_600)];
        let entries = vec![
            entry("192.0.2.1", Owner::Iq, 1_600),
            entry("192.0.2.3", Owner::Iq, 1_300),
            entry("192.0.2.4", Owner::Iq, 999),
            entry("192.0.2.5", Owner::Operator, 1_300),
        ];
        let (sources, reconciled) = met(&state, entries, (true, true));
        assert_eq!(
            sources,
            ["192.0.2.1", "192.0.2.3"],
            "reset, ended and operators' entries are not IQ's to hold"
        );
        assert_eq!((reconciled.kept, reconciled.adopted), (1, 1));
    }

    #[test]
    fn w18_without_the_kernels_tables_the_state_says_so_for_the_time_that_is_left() {
        let state = [held("192.0.2.1", 50_600), held("192.0.2.2", 49_999)];
        for boots in [(false, false), (true, false)] {
            let (sources, reconciled) = met(&state, Vec::new(), boots);
            assert_eq!(sources, ["192.0.2.1"], "what ended meanwhile is dropped");
            let [order] = reconciled.orders[..] else {
                panic!("{reconciled:?}");
            };
            let (hold, until) = order.hold.unwrap();
            assert_eq!(hold.to_string(), "limit-all:100pps/200");
            assert_eq!(until, Ktime::from_secs(1_600));
        }
    }

    #[test]
    fn operators_entries_come_back_after_a_reboot_unless_they_ended() {
        let limit = Entry {
            rule: Rule {
                action: Action::Limit {
                    limit: RateLimit {
                        pps: NonZeroU32::new(7).unwrap(),
                        burst: NonZeroU32::new(9).unwrap(),
                    },
                    scope: LimitScope::New,
                },
                owner: Owner::Operator,
                expires: None,
            },
            ..entry("192.0.2.8", Owner::Operator, 0)
        };
        let written = operators(
            &[
                limit,
                entry("192.0.2.9", Owner::Operator, 1_100),
                entry("192.0.2.1", Owner::Iq, 1_600),
            ],
            &Notes::default(),
            NOW,
        );
        assert_eq!(written.len(), 2);
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(
            text,
            r#"[{"source":"192.0.2.8","action":{"limit-new":{"pps":7,"burst":9}},"until_ms":null},{"source":"192.0.2.9","action":"deny","until_ms":50100000}]"#
        );
        // 60 s later by the time of day, 30 s into the next boot.
        let later = |secs| Moment {
            ktime: Ktime::from_secs(30),
            unix: Duration::from_secs(secs),
        };
        assert_eq!(rule_of(&written[0], later(50_060)), Some(limit.rule));
        let end = rule_of(&written[1], later(50_060)).unwrap().expires;
        assert_eq!(end, Some(Ktime::from_secs(70)));
        assert_eq!(rule_of(&written[1], later(50_100)), None);
        // One was entered anew since the reboot: it is not overruled.
        let since = [entry("192.0.2.8", Owner::Operator, 900)];
        let back = missing(&written, &since, later(50_060));
        let sources: Vec<String> = back.iter().map(|(source, ..)| source.to_string()).collect();
        assert_eq!(sources, ["192.0.2.9"]);
    }
}
