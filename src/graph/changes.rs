//! What a frozen graph says that another does not.

use std::collections::BTreeSet;

use super::frozen::joined;
use super::{Edge, Frozen};

/// One thing that a frozen graph says, in the order of the file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Said<'a> {
    Only(String),
    Group(&'a str, String),
    Edge(&'a Edge),
    Denied(&'a Edge),
}

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Only(service) => write!(f, "only {service}"),
            Self::Group(name, prefixes) => write!(f, "group {name}: {prefixes}"),
            Self::Edge(edge) => edge.fmt(f),
            Self::Denied(edge) => write!(f, "denied {edge}"),
        }
    }
}

impl Frozen {
    /// What `next` says and this does not with `+`, and the other way round with `-`, one line each.
    pub fn changes_to(&self, next: &Self) -> String {
        let (before, after) = (self.said(), next.said());
        let change = |said: &Said<'_>| {
            let sign = if after.contains(said) { '+' } else { '-' };
            format!("{sign} {said}\n")
        };
        before.symmetric_difference(&after).map(change).collect()
    }

    fn said(&self) -> BTreeSet<Said<'_>> {
        let only = self
            .only
            .iter()
            .map(|service| Said::Only(service.to_string()));
        let groups = self.groups.iter();
        let groups = groups.map(|(name, prefixes)| Said::Group(name, joined(prefixes)));
        let edges = self.lines().map(|(denied, edge)| match denied {
            false => Said::Edge(edge),
            true => Said::Denied(edge),
        });
        only.chain(groups).chain(edges).collect()
    }
}
