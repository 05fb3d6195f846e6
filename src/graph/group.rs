//! Prefixes that act as one peer, so that a graph stays small where peers are many.

use std::collections::BTreeMap;

use super::Peer;
use crate::model::Source;

/// Everything that is neither private nor local, unless a group of the operator names it.
pub const INTERNET: &str = "internet";

/// What is never `internet`: RFC 1918, RFC 6598, RFC 3927, RFC 1122, RFC 4193, RFC 4291.
const PRIVATE: [&str; 10] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/127",
    "fc00::/7",
    "fe80::/10",
];

/// Width of an IPv6 link's network, RFC 4291, 2.5.1.
const LINK_BITS: u8 = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error(
        "'{0}' cannot name a group; use letters, digits, '-' and '_', beginning with a letter, at most 32, \
         and not 'any' or 'internet'"
    )]
    Name(String),
    #[error("{prefix} is in the groups '{first}' and '{second}'; a prefix belongs to one")]
    Twice {
        prefix: Source,
        first: String,
        second: String,
    },
    #[error("there are more than {MOST_GROUPS} groups; join some")]
    TooMany,
}

/// Numbers travel to the data plane in one byte: 0 is no group, 1 `internet`, 254 and 255 reserved.
pub const MOST_GROUPS: usize = 250;

/// Named prefixes. The longest prefix that holds an address names its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    named: BTreeMap<String, Vec<Source>>,
    local: Vec<Source>,
}

impl Groups {
    /// `local`: prefixes on this host's links; their members are themselves, not `internet`.
    pub fn new(local: Vec<Source>) -> Self {
        Self {
            named: BTreeMap::new(),
            local,
        }
    }

    /// Whether an address is in the /64 of one of this host's, or in a network of its links.
    pub fn is_beside(&self, source: &Source) -> bool {
        let link = |local: &Source| Source::containing(local.octets(), local.bits().min(LINK_BITS));
        let mut v6 = self.local.iter().filter(|local| !local.is_ipv4());
        v6.any(|local| link(local).contains(source))
    }

    /// The same host's, with no group named.
    pub fn without_names(&self) -> Self {
        Self::new(self.local.clone())
    }

    /// Adds a prefix to a group, making the group if it is new.
    pub fn add(&mut self, name: &str, prefix: Source) -> Result<(), GroupError> {
        if !is_name(name) {
            return Err(GroupError::Name(name.to_owned()));
        }
        if let Some((first, _)) = self.named.iter().find(|(_, all)| all.contains(&prefix)) {
            if first == name {
                return Ok(());
            }
            return Err(GroupError::Twice {
                prefix,
                first: first.clone(),
                second: name.to_owned(),
            });
        }
        if self.named.len() >= MOST_GROUPS && !self.named.contains_key(name) {
            return Err(GroupError::TooMany);
        }
        let all = self.named.entry(name.to_owned()).or_default();
        all.push(prefix);
        all.sort_unstable();
        Ok(())
    }

    /// The operator's groups in order of name, each with its prefixes in order.
    pub fn named(&self) -> impl Iterator<Item = (&str, &[Source])> {
        self.named
            .iter()
            .map(|(name, all)| (name.as_str(), all.as_slice()))
    }

    pub fn contains(&self, name: &str) -> bool {
        name == INTERNET || self.named.contains_key(name)
    }

    /// The number of a group in the data plane: stable for one set of groups.
    pub fn number(&self, name: &str) -> Option<u8> {
        if name == INTERNET {
            return Some(1);
        }
        let position = self.named.keys().position(|known| known == name)?;
        u8::try_from(position + 2).ok()
    }

    pub fn name(&self, number: u8) -> Option<&str> {
        match number {
            0 => None,
            1 => Some(INTERNET),
            _ => self
                .named
                .keys()
                .nth(usize::from(number) - 2)
                .map(String::as_str),
        }
    }

    /// Every prefix with its group's number; 0 for what is only itself. What no prefix holds is
    /// `internet`.
    pub fn prefixes(&self) -> Vec<(Source, u8)> {
        // No prefix of IPv6 holds IPv4 addresses, though they are carried inside `::/0`.
        let mut all: BTreeMap<_, _> = "0.0.0.0/0"
            .parse()
            .map(|all| (all, 1))
            .into_iter()
            .collect();
        for prefix in private().chain(self.local.iter().copied()) {
            all.insert(prefix, 0);
        }
        for (name, prefixes) in &self.named {
            for prefix in prefixes {
                all.insert(*prefix, self.number(name).unwrap_or(0));
            }
        }
        all.into_iter().collect()
    }

    /// The same, to ask of many addresses.
    pub fn peers(&self) -> Peers {
        let mut ranges = vec![(0, 1)];
        let mut open = vec![(u128::MAX, 1)];
        for (prefix, number) in self.prefixes() {
            let first = u128::from_be_bytes(prefix.octets());
            close(&mut ranges, &mut open, first);
            let last = first | u128::MAX.checked_shr(prefix.bits().into()).unwrap_or(0);
            ranges.push((first, number));
            open.push((last, number));
        }
        close(&mut ranges, &mut open, u128::MAX);
        let names = [INTERNET]
            .into_iter()
            .chain(self.named.keys().map(String::as_str));
        Peers {
            ranges,
            names: names.map(str::to_owned).collect(),
        }
    }

    /// The peer a source counts as.
    pub fn peer(&self, source: &Source) -> Peer {
        let prefixes = self.prefixes();
        let longest = prefixes
            .iter()
            .filter(|(prefix, _)| prefix.contains(source))
            .max_by_key(|(prefix, _)| prefix.bits());
        let number = longest.map_or(1, |(_, number)| *number);
        self.name(number)
            .map_or(Peer::Source(*source), |name| Peer::Group(name.to_owned()))
    }
}

/// Groups as ranges of addresses: where each begins, in order, and its group's number.
#[derive(Debug, Clone)]
pub struct Peers {
    ranges: Vec<(u128, u8)>,
    /// By number, from 1.
    names: Vec<String>,
}

impl Peers {
    /// The peer that an address, or a prefix that no group's is inside, counts as.
    pub fn of(&self, source: &Source) -> Peer {
        let address = u128::from_be_bytes(source.octets());
        let before = self.ranges.partition_point(|(first, _)| *first <= address);
        let number = before.checked_sub(1).and_then(|at| self.ranges.get(at));
        let number = number.map_or(1, |(_, number)| usize::from(*number));
        let name = number.checked_sub(1).and_then(|at| self.names.get(at));
        name.map_or(Peer::Source(*source), |name| Peer::Group(name.clone()))
    }
}

/// Ends what ends before `first`: prefixes nest, and what holds them goes on.
fn close(ranges: &mut Vec<(u128, u8)>, open: &mut Vec<(u128, u8)>, first: u128) {
    while let Some((last, _)) = open.pop_if(|(last, _)| *last < first) {
        if let Some((_, outer)) = open.last() {
            ranges.push((last + 1, *outer));
        }
    }
}

fn private() -> impl Iterator<Item = Source> {
    PRIVATE.iter().filter_map(|text| text.parse().ok())
}

fn is_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && name != INTERNET
        && name != "any"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn every_private_prefix_is_well_formed() {
        assert_eq!(private().count(), PRIVATE.len());
    }

    #[test]
    fn the_internet_is_what_is_neither_private_nor_local_nor_named() {
        let mut groups = Groups::new(vec![source("203.0.113.0/24"), source("2001:db8:1::/64")]);
        groups.add("office", source("198.51.100.0/24")).unwrap();
        groups.add("office", source("10.1.0.0/16")).unwrap();
        groups.add("monitoring", source("10.1.7.7")).unwrap();
        let peer = |text: &str| groups.peer(&source(text)).to_string();
        assert_eq!(peer("192.0.2.7"), "internet");
        assert_eq!(peer("2001:db8:2::/64"), "internet");
        assert_eq!(peer("203.0.113.9"), "203.0.113.9");
        assert_eq!(peer("2001:db8:1::/64"), "2001:db8:1::/64");
        assert_eq!(peer("192.168.3.4"), "192.168.3.4");
        assert_eq!(peer("fe80::/64"), "fe80::/64");
        assert_eq!(peer("198.51.100.77"), "office");
        assert_eq!(peer("10.1.2.3"), "office");
        assert_eq!(peer("10.1.7.7"), "monitoring");
        assert_eq!(peer("10.2.0.1"), "10.2.0.1");
    }

    #[test]
    fn many_addresses_are_told_apart_as_one_is() {
        let mut groups = Groups::new(vec![source("203.0.113.0/24"), source("fd77::/64")]);
        for (name, prefix) in [
            ("office", "198.51.100.0/24"),
            ("printer", "198.51.100.0"),
            ("last", "198.51.100.255"),
            ("office", "203.0.113.128/25"),
            ("six", "::/0"),
            ("west", "2001:db8::/32"),
            ("end", "ffff::/16"),
        ] {
            groups.add(name, source(prefix)).unwrap();
        }
        let peers = groups.peers();
        for (prefix, _) in groups.prefixes() {
            let first = u128::from_be_bytes(prefix.octets());
            let last = first | u128::MAX.checked_shr(prefix.bits().into()).unwrap_or(0);
            for address in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
                let address = Source::containing(address.to_be_bytes(), 128);
                assert_eq!(peers.of(&address), groups.peer(&address), "{address}");
            }
        }
        assert_eq!(peers.of(&source("192.0.2.1")).to_string(), "internet");
        assert_eq!(peers.of(&source("2001:db9::/64")).to_string(), "six");
        assert_eq!(peers.of(&source("203.0.113.129")).to_string(), "office");
        let names = |groups: &Groups| groups.peers().of(&source("192.0.2.1"));
        assert_eq!(names(&Groups::default()).to_string(), "internet");
    }

    #[test]
    fn numbers_and_names_are_each_others_inverse() {
        let mut groups = Groups::default();
        for name in ["web", "office"] {
            groups.add(name, source("10.0.0.0/8")).ok();
        }
        groups.add("web", source("10.9.0.0/16")).unwrap();
        groups.add("office", source("10.8.0.0/16")).unwrap();
        for name in [INTERNET, "office", "web"] {
            assert_eq!(groups.name(groups.number(name).unwrap()), Some(name));
        }
        assert_eq!(groups.number("nobody"), None);
    }

    #[test]
    fn bad_groups_say_why() {
        let mut groups = Groups::default();
        groups.add("a", source("10.0.0.0/8")).unwrap();
        assert_eq!(
            groups
                .add("b", source("10.0.0.0/8"))
                .unwrap_err()
                .to_string(),
            "10.0.0.0/8 is in the groups 'a' and 'b'; a prefix belongs to one"
        );
        for name in ["", "any", "internet", "1st", "a b", "a:"] {
            assert!(groups.add(name, source("10.1.0.0/16")).is_err(), "{name}");
        }
    }
}
