//! One window and the policy, joined to one row per source.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::dataplane::{Action, Entry, Owner};
use crate::model::{Ktime, Source, Stage};
use crate::telemetry::Sample;

/// What the data plane does to a source, and which entry says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub entry: Source,
    pub action: Action,
    pub owner: Owner,
    /// `None`: until removed.
    pub left: Option<Duration>,
}

/// What a running IQ says of a source above OBSERVE.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub stage: Stage,
    /// The signal that led there.
    pub signal: String,
}

/// One source, or one prefix that policy names.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub source: Source,
    /// Per second, like the next three; of a prefix, all of its sources together.
    pub packets: f64,
    pub bytes: f64,
    pub syns: f64,
    pub drops: f64,
    pub ports: u32,
    pub stacks: u32,
    pub verdict: Option<Verdict>,
    pub held: Option<Held>,
}

impl Row {
    fn silent(source: Source) -> Self {
        Self {
            source,
            packets: 0.0,
            bytes: 0.0,
            syns: 0.0,
            drops: 0.0,
            ports: 0,
            stacks: 0,
            verdict: None,
            held: None,
        }
    }

    /// `pass`, `allow`, `limit` or `deny`.
    pub fn action(&self) -> &'static str {
        match self.verdict.as_ref().map(|verdict| verdict.action) {
            None => "pass",
            Some(Action::Allow) => "allow",
            Some(Action::Limit { .. } | Action::LimitBytes { .. }) => "limit",
            Some(Action::Deny) => "deny",
        }
    }

    /// Why: the signal that IQ went by, else who entered it; empty where nobody said anything.
    pub fn reason(&self) -> String {
        match (&self.held, &self.verdict) {
            (Some(held), _) => held.signal.clone(),
            (None, Some(verdict)) => verdict.owner.to_string(),
            (None, None) => String::new(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rates to one decimal")]
    fn add(&mut self, sample: &Sample, seconds: f64) {
        self.packets += sample.packets as f64 / seconds;
        self.bytes += sample.bytes as f64 / seconds;
        self.syns += sample.syns as f64 / seconds;
        self.drops += sample.drops as f64 / seconds;
        self.ports = self.ports.max(sample.ports);
        self.stacks = self.stacks.max(sample.stacks);
    }
}

/// Live entries, found by the lengths there are.
struct Policy<'a> {
    entries: BTreeMap<Source, &'a Entry>,
    /// Longest first.
    lengths: Vec<u8>,
}

impl<'a> Policy<'a> {
    fn new(entries: &'a [Entry], now: Ktime) -> Self {
        let entries: BTreeMap<Source, &Entry> = entries
            .iter()
            .filter(|entry| entry.is_live(now))
            .map(|entry| (entry.source, entry))
            .collect();
        let lengths: BTreeSet<u8> = entries.keys().map(Source::bits).collect();
        Self {
            entries,
            lengths: lengths.into_iter().rev().collect(),
        }
    }

    /// The entries that hold `source`, longest first.
    fn over(&self, source: &Source) -> impl Iterator<Item = &'a Entry> {
        let source = *source;
        let prefixes = self
            .lengths
            .iter()
            .filter_map(move |bits| source.widened(*bits));
        prefixes.filter_map(|prefix| self.entries.get(&prefix).copied())
    }

    /// As the data plane decides: the longest prefix, but no automatic rule against an allow.
    fn verdict(&self, source: &Source, now: Ktime) -> Option<Verdict> {
        let mut over = self.over(source);
        let longest = over.next()?;
        let yields = longest.rule.owner.is_automatic() && longest.rule.action != Action::Allow;
        let allow = yields
            .then(|| over.find(|entry| entry.rule.action == Action::Allow))
            .flatten();
        let entry = allow.unwrap_or(longest);
        Some(Verdict {
            entry: entry.source,
            action: entry.rule.action,
            owner: entry.rule.owner,
            left: entry.rule.expires.map(|end| end.since(now)),
        })
    }
}

/// A row for each source that sent, each live entry, and each source that IQ holds; by source.
pub fn rows(
    samples: impl Iterator<Item = Sample>,
    length: Duration,
    entries: &[Entry],
    held: &BTreeMap<Source, Held>,
    now: Ktime,
) -> Vec<Row> {
    let seconds = length.as_secs_f64().max(0.001);
    let policy = Policy::new(entries, now);
    let mut rows: BTreeMap<Source, Row> = BTreeMap::new();
    let named = policy.entries.keys().chain(held.keys());
    for source in named {
        rows.entry(*source).or_insert_with(|| Row::silent(*source));
    }
    for sample in samples {
        for entry in policy.over(&sample.source) {
            if entry.source != sample.source
                && let Some(row) = rows.get_mut(&entry.source)
            {
                row.add(&sample, seconds);
            }
        }
        rows.entry(sample.source)
            .or_insert_with(|| Row::silent(sample.source))
            .add(&sample, seconds);
    }
    rows.into_values()
        .map(|row| Row {
            verdict: policy.verdict(&row.source, now),
            held: held.get(&row.source).cloned(),
            ..row
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{NoteId, Rule};

    fn sample(source: &str, packets: u64) -> Sample {
        Sample {
            packets,
            bytes: 60 * packets,
            ..Sample::silent(source.parse().unwrap())
        }
    }

    fn entry(source: &str, action: Action, owner: Owner, expires: Option<u64>) -> Entry {
        Entry {
            source: source.parse().unwrap(),
            rule: Rule {
                action,
                owner,
                expires: expires.map(Ktime::from_secs),
            },
            note: NoteId::default(),
        }
    }

    fn told(samples: &[Sample], entries: &[Entry]) -> Vec<String> {
        let now = Ktime::from_secs(100);
        let held = BTreeMap::new();
        rows(
            samples.iter().copied(),
            Duration::from_secs(2),
            entries,
            &held,
            now,
        )
        .iter()
        .map(|row| {
            format!(
                "{} {}/s {} {}",
                row.source,
                row.packets,
                row.action(),
                row.reason()
            )
        })
        .collect()
    }

    #[test]
    fn a_prefix_of_either_family_is_a_row_with_all_of_its_sources() {
        let samples = [
            sample("192.0.2.1", 10),
            sample("192.0.2.2", 20),
            sample("2001:db8:0:1::/64", 30),
        ];
        let entries = [
            entry("192.0.2.0/24", Action::Deny, Owner::Operator, None),
            entry("2001:db8::/48", Action::Allow, Owner::Operator, None),
        ];
        assert_eq!(
            told(&samples, &entries),
            [
                "192.0.2.0/24 15/s deny operator",
                "192.0.2.1 5/s deny operator",
                "192.0.2.2 10/s deny operator",
                "2001:db8::/48 15/s allow operator",
                "2001:db8:0:1::/64 15/s allow operator",
            ]
        );
    }

    #[test]
    fn the_longest_decides_but_iq_never_against_an_allow_and_the_ended_not_at_all() {
        let samples = [sample("192.0.2.1", 2), sample("198.51.100.1", 2)];
        let entries = [
            entry("192.0.2.0/24", Action::Allow, Owner::Operator, None),
            entry("192.0.2.1", Action::Deny, Owner::Iq, Some(200)),
            entry("198.51.100.0/24", Action::Allow, Owner::Operator, None),
            entry("198.51.100.1", Action::Deny, Owner::Operator, None),
            entry("203.0.113.9", Action::Deny, Owner::Iq, Some(100)),
        ];
        assert_eq!(
            told(&samples, &entries),
            [
                "192.0.2.0/24 1/s allow operator",
                "192.0.2.1 1/s allow operator",
                "198.51.100.0/24 1/s allow operator",
                "198.51.100.1 1/s deny operator",
            ]
        );
    }

    #[test]
    fn no_automatic_rule_beats_an_allow_whoever_made_it() {
        let samples = [sample("192.0.2.1", 2), sample("198.51.100.1", 2)];
        let entries = [
            entry("::/0", Action::Deny, Owner::Operator, None),
            entry("192.0.2.0/24", Action::Allow, Owner::Management, None),
            entry("192.0.2.1", Action::Deny, Owner::Feed, None),
            entry("198.51.100.0/24", Action::Allow, Owner::Iq, None),
            entry("198.51.100.1", Action::Deny, Owner::Ceiling, None),
        ];
        assert_eq!(
            told(&samples, &entries),
            [
                "::/0 0/s deny operator",
                "192.0.2.0/24 1/s allow management",
                "192.0.2.1 1/s allow management",
                "198.51.100.0/24 1/s allow iq",
                "198.51.100.1 1/s allow iq",
            ]
        );
    }

    #[test]
    fn who_is_held_is_shown_though_silent() {
        let source: Source = "192.0.2.1".parse().unwrap();
        let held = Held {
            stage: Stage::Block,
            signal: "syn".to_owned(),
        };
        let held = BTreeMap::from([(source, held)]);
        let rows = rows(
            std::iter::empty(),
            Duration::from_secs(1),
            &[],
            &held,
            Ktime::from_secs(1),
        );
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].packets, rows[0].reason()), (0.0, "syn".to_owned()));
    }
}
