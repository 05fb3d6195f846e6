use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Source, Wall};

/// Who exempted a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// `management` of kernloom.toml.
    Management,
    Whitelist,
    Feedback,
    /// `kernloom iq exempt`.
    Command,
    /// `kernloom shield allow`.
    Operator,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Management => "management",
            Self::Whitelist => "whitelist",
            Self::Feedback => "feedback",
            Self::Command => "iq exempt",
            Self::Operator => "shield allow",
        })
    }
}

/// Why and until when a source is exempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exempted {
    pub by: By,
    /// `None`: as long as it is written where `by` says.
    pub until: Option<Wall>,
}

impl Exempted {
    fn lasts_longer(&self, other: &Self) -> bool {
        let end = |one: &Self| one.until.map_or(u64::MAX, Wall::as_secs);
        end(self) > end(other)
    }

    pub fn is_live(&self, now: Wall) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Exempt sources. A question costs one look-up per prefix length in use, not one per entry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exempt {
    by_length: BTreeMap<u8, HashMap<Source, Exempted>>,
}

impl Exempt {
    /// Adds one; of two for the same source the longer lasting one stays.
    pub fn add(&mut self, source: Source, exempted: Exempted) {
        let same_length = self.by_length.entry(source.bits()).or_default();
        let kept = same_length.entry(source).or_insert(exempted);
        if exempted.lasts_longer(kept) {
            *kept = exempted;
        }
    }

    /// The narrowest live exemption that covers all of `source`.
    pub fn covering(&self, source: &Source, now: Wall) -> Option<(Source, Exempted)> {
        let lengths = self.by_length.range(..=source.bits()).rev();
        lengths
            .filter_map(|(bits, same_length)| {
                let prefix = source.widened(*bits)?;
                same_length.get(&prefix).map(|found| (prefix, *found))
            })
            .find(|(_, exempted)| exempted.is_live(now))
    }

    /// All of them, ended ones included, in order of prefix length and source.
    pub fn iter(&self) -> impl Iterator<Item = (Source, Exempted)> {
        self.by_length.values().flat_map(|same_length| {
            let mut entries: Vec<_> = same_length.iter().map(|(s, e)| (*s, *e)).collect();
            entries.sort_by_key(|(source, _)| *source);
            entries
        })
    }

    /// Those that have not ended.
    pub fn live(&self, now: Wall) -> usize {
        let all = self.by_length.values().flat_map(HashMap::values);
        all.filter(|exempted| exempted.is_live(now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn what_has_ended_is_live_no_more() {
        let mut exempt = Exempt::default();
        let by = By::Command;
        for (name, until) in [("192.0.2.1", None), ("192.0.2.2", Some(Wall::from_secs(9)))] {
            exempt.add(source(name), Exempted { by, until });
        }
        let live = |secs| exempt.live(Wall::from_secs(secs));
        assert_eq!((live(8), live(9)), (2, 1));
    }

    #[test]
    fn the_narrowest_live_exemption_answers() {
        let mut exempt = Exempt::default();
        let forever = |by| Exempted { by, until: None };
        exempt.add(source("10.0.0.0/8"), forever(By::Whitelist));
        exempt.add(
            source("10.1.0.0/16"),
            Exempted {
                by: By::Command,
                until: Some(Wall::from_secs(100)),
            },
        );
        let by_of = |exempt: &Exempt, text: &str, now| {
            exempt
                .covering(&source(text), Wall::from_secs(now))
                .map(|(_, exempted)| exempted.by)
        };
        let by = |text: &str, now| by_of(&exempt, text, now);
        assert_eq!(by("10.1.2.3", 99), Some(By::Command));
        assert_eq!(by("10.1.2.3", 100), Some(By::Whitelist));
        assert_eq!(by("10.0.0.0/7", 0), None);
        assert_eq!(by("2001:db8::1", 0), None);
        // IPv4 is carried inside these, but they do not speak of it.
        for wide in ["::/0", "::/1"] {
            exempt.add(source(wide), forever(By::Feedback));
            assert_eq!(by_of(&exempt, "192.0.2.7", 0), None, "{wide}");
        }
        let v6 = by_of(&exempt, "2001:db8::1", 0);
        assert_eq!(v6, Some(By::Feedback));
    }

    #[test]
    fn of_two_for_one_source_the_longer_stays() {
        let mut exempt = Exempt::default();
        let until = |secs| Exempted {
            by: By::Command,
            until: Some(Wall::from_secs(secs)),
        };
        for secs in [50, 90, 70] {
            exempt.add(source("192.0.2.7"), until(secs));
        }
        assert_eq!(exempt.iter().count(), 1);
        assert_eq!(exempt.iter().next().unwrap().1, until(90));
    }
}
