//! Keeps the operator's way in open. Management addresses are allow entries of their own owner,
//! so that the program itself protects them from every wider or automatic rule; here is who gets
//! one, and what is refused because it would take one away.

use std::time::Duration;

use super::super::changing;
use crate::dataplane::{Action, Edit, Entry, Lock, Owner, PinDir, Rule, Shield};
use crate::error::{Error, Result};
use crate::model::{Ktime, Source, format_duration};
use crate::runtime::{now, ssh_peers};

/// How long an SSH peer stays protected after the last command that met it.
const PEER_TTL: Duration = Duration::from_secs(24 * 3_600);
const PEER_NOTE: &str = "ssh session";

#[derive(Default)]
pub(super) struct Guard {
    management: Vec<Source>,
    /// Those of them that may have no entry yet.
    settings: Vec<Source>,
    peers: Vec<Source>,
}

/// Writes down management addresses and, unless `no_guard`, the SSH peer; a line for each.
pub(in crate::cmd) fn open_way_in(
    shield: &Shield,
    management: &[Source],
    no_guard: bool,
    lock: &Lock,
) -> Result<String> {
    let at = now()?;
    let mut text = String::new();
    let mut edit = shield.edit(lock);
    for source in management {
        enter(&mut edit, source)?;
        text.push_str(&managed(source));
    }
    let guard = Guard::new(&edit.list()?, &[], at, no_guard);
    text.push_str(&guard.protect(&mut edit, at, |_| true)?);
    Ok(text)
}

/// Before the graph is enforced: entries for management addresses and the SSH peer that have none. A
/// line for each; nothing where no edge stage is loaded.
pub(in crate::cmd) fn guard_way_in(pins: &PinDir, management: &[Source]) -> Result<String> {
    if !pins.is_loaded()? {
        return Ok(String::new());
    }
    let (lock, shield) = changing(pins)?;
    if shield.graph().is_none() {
        return Ok(String::new());
    }
    let (at, mut edit) = (now()?, shield.edit(&lock));
    let guard = Guard::new(&edit.list()?, management, at, false);
    guard.protect(&mut edit, at, |_| true)
}

fn managed(source: &Source) -> String {
    format!("guard: {source} is managed from\n")
}

/// Whether the management address had no such entry.
fn enter(edit: &mut Edit<'_>, source: &Source) -> Result<bool> {
    let rule = Rule {
        action: Action::Allow,
        owner: Owner::Management,
        expires: None,
    };
    let before = edit.get(source)?;
    if before.is_some_and(|before| before.rule == rule) {
        return Ok(false);
    }
    edit.set(source, &rule)?;
    Ok(true)
}

impl Guard {
    /// `settings`: management addresses that may have no entry yet. `off` is the operator's --no-guard.
    pub(super) fn new(entries: &[Entry], settings: &[Source], now: Ktime, off: bool) -> Self {
        let peers = if off { Vec::new() } else { ssh_peers() };
        let peers = peers.into_iter().map(Source::host).collect();
        Self::with(entries, settings, peers, now, off)
    }

    fn with(
        entries: &[Entry],
        settings: &[Source],
        peers: Vec<Source>,
        now: Ktime,
        off: bool,
    ) -> Self {
        if off {
            return Self::default();
        }
        let entered = entries
            .iter()
            .filter(|entry| entry.rule.owner == Owner::Management && entry.is_live(now));
        let mut management: Vec<Source> = entered.map(|entry| entry.source).collect();
        management.extend(settings);
        Self {
            management,
            settings: settings.to_vec(),
            peers,
        }
    }

    /// Why a rule for exactly this source would cut the way in, if it would.
    pub(super) fn objection(&self, source: &Source) -> Option<String> {
        if self.peers.contains(source) {
            return Some(format!(
                "{source} is where your SSH session comes from; --no-guard does it all the same"
            ));
        }
        let inside = self.management.iter().find(|net| net.contains(source))?;
        Some(format!(
            "{source} belongs to the management addresses {inside}; --no-guard does it all the same"
        ))
    }

    pub(super) fn refuse(&self, sources: &[Source]) -> Result<()> {
        match sources.iter().find_map(|source| self.objection(source)) {
            Some(why) => Err(Error::operator(format!("{why}. Nothing was changed"))),
            None => Ok(()),
        }
    }

    /// Gives the management addresses of the settings, and the SSH peers inside `reach`, entries of
    /// their own; a line for each that had none.
    pub(super) fn protect(
        &self,
        edit: &mut Edit<'_>,
        now: Ktime,
        reach: impl Fn(&Source) -> bool,
    ) -> Result<String> {
        let mut text = String::new();
        for source in &self.settings {
            if enter(edit, source)? {
                text.push_str(&managed(source));
            }
        }
        for peer in self.peers.iter().filter(|peer| reach(peer)) {
            if self
                .management
                .iter()
                .any(|net| net.contains(peer) && net != peer)
            {
                continue;
            }
            let there = edit.get(peer)?;
            if there.is_some_and(|there| {
                there.rule.owner == Owner::Management && there.rule.expires.is_none()
            }) {
                continue;
            }
            let rule = Rule {
                action: Action::Allow,
                owner: Owner::Management,
                expires: Some(now + PEER_TTL),
            };
            let note = edit.note(PEER_NOTE)?;
            edit.set_noted(peer, &rule, note)?;
            text.push_str(&format!(
                "guard: {peer}, where your SSH session comes from, stays reachable for {}; 'kernloom shield \
                 management add {peer}' makes that permanent\n",
                format_duration(PEER_TTL)
            ));
        }
        Ok(text)
    }

    /// What of the way in a rule for a wider prefix leaves open.
    pub(super) fn spared(&self, sources: &[Source]) -> String {
        let inside = |net: &&Source| {
            sources
                .iter()
                .any(|source| source.contains(net) && source != *net)
        };
        self.management
            .iter()
            .filter(inside)
            .map(|net| format!("guard: {net} is managed from and stays reachable\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::NoteId;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    fn guard(off: bool) -> Guard {
        let entry = |text: &str, expires| Entry {
            source: source(text),
            rule: Rule {
                action: Action::Allow,
                owner: Owner::Management,
                expires,
            },
            note: NoteId::default(),
        };
        let entries = [
            entry("192.0.2.0/24", None),
            entry("203.0.113.0/24", Some(Ktime::from_secs(5))),
        ];
        let peers = vec![source("198.51.100.9")];
        Guard::with(&entries, &[], peers, Ktime::from_secs(10), off)
    }

    #[test]
    fn a_rule_for_the_way_in_is_refused_and_says_how_to_insist() {
        let error = |text: &str| {
            let error = guard(false).refuse(&[source("10.0.0.1"), source(text)]);
            error.unwrap_err().to_string()
        };
        assert_eq!(
            error("192.0.2.7"),
            "192.0.2.7 belongs to the management addresses 192.0.2.0/24; --no-guard does it all the same. \
             Nothing was changed"
        );
        assert_eq!(
            error("198.51.100.9"),
            "198.51.100.9 is where your SSH session comes from; --no-guard does it all the same. Nothing was changed"
        );
        for free in ["192.0.3.7", "203.0.113.7", "192.0.0.0/16"] {
            assert!(guard(false).refuse(&[source(free)]).is_ok(), "{free}");
        }
        assert!(guard(true).refuse(&[source("192.0.2.7")]).is_ok());
    }

    #[test]
    fn a_wider_rule_says_whom_it_spares() {
        assert_eq!(
            guard(false).spared(&[source("192.0.0.0/16")]),
            "guard: 192.0.2.0/24 is managed from and stays reachable\n"
        );
        assert_eq!(guard(false).spared(&[source("192.0.2.0/24")]), "");
        assert_eq!(guard(true).spared(&[source("192.0.0.0/16")]), "");
    }
}
