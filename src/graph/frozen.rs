//! The frozen graph as a file: one edge per line, in order, with the operator's comments.
//!
//! The hash is over what the file means, not how it looks: groups, scope, edges and denials, one
//! canonical line each. A comment may be changed freely; an edge that was added, lost or altered shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::comments::Comments;
use super::{Direction, Edge, Groups, Peer, PeerError, Service, State};
use crate::model::Source;

const API_VERSION: &str = "kernloom.io/v1alpha1";
const KIND: &str = "FrozenGraph";

/// The edges that may be used, and for which services they are all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frozen {
    /// Identity of the host it was frozen on.
    pub node: String,
    /// RFC 3339.
    pub frozen_at: String,
    /// Services it speaks about; empty: every service.
    pub only: BTreeSet<Service>,
    pub groups: BTreeMap<String, Vec<Source>>,
    pub edges: BTreeSet<Edge>,
    /// Edges that are refused in every mode, whatever the scope. `None`: a file from before denials
    /// were kept in it, which says nothing of them.
    pub denied: Option<BTreeSet<Edge>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrozenError {
    #[error("{0}")]
    Syntax(String),
    #[error("{what}: '{found}' is not '{wanted}'")]
    Kind {
        what: &'static str,
        found: String,
        wanted: &'static str,
    },
    #[error("edge {line}: {why}")]
    Edge { line: String, why: String },
    #[error("edge {0} is there twice")]
    Twice(Edge),
    #[error("edge {0} is in 'edges' and in 'denied'; keep one of them")]
    Both(Edge),
    #[error("edge {0}: its group is not defined; give --group {peer}=PREFIX", peer = .0.peer)]
    Undefined(Edge),
    #[error("edge {edge}: {why}")]
    Peer { edge: Edge, why: PeerError },
    #[error("{0}")]
    Group(String),
    #[error(
        "its contents hash to {found}, and its metadata says {stated}: it was edited or damaged; review it, \
         then accept it with 'kernloom graph freeze --accept-edits'"
    )]
    Hash { stated: String, found: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
struct Document {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    only: Vec<String>,
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    /// Always there: a file that was cut off must not shut everyone out.
    #[serde(deserialize_with = "Option::deserialize")]
    edges: Option<Vec<Line>>,
    #[serde(default, deserialize_with = "there")]
    denied: Option<Option<Vec<Line>>>,
}

/// Tells a key without a value from none.
fn there<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Vec<Line>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
struct Metadata {
    node: String,
    frozen: String,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
struct Line {
    direction: String,
    peer: String,
    service: String,
}

impl Frozen {
    /// Whether the graph speaks about this service.
    pub fn covers(&self, service: Service) -> bool {
        self.only.is_empty() || self.only.contains(&service)
    }

    /// SHA-256 of the contents, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut text = format!("node {}\n", self.node);
        for service in &self.only {
            text.push_str(&format!("only {service}\n"));
        }
        for (name, prefixes) in &self.groups {
            text.push_str(&format!("group {name} {}\n", joined(prefixes)));
        }
        for (denied, edge) in self.lines() {
            text.push_str(&format!(
                "{} {} {} {}\n",
                if denied { "denied" } else { "edge" },
                edge.direction,
                edge.peer,
                edge.service
            ));
        }
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Every edge and whether it is denied; those that are come last.
    pub(super) fn lines(&self) -> impl Iterator<Item = (bool, &Edge)> {
        let edges = self.edges.iter().map(|edge| (false, edge));
        edges.chain(self.denied().map(|edge| (true, edge)))
    }

    /// Its groups, and nobody else's, on this host.
    pub fn groups_on(&self, host: &Groups) -> Groups {
        let mut groups = host.without_names();
        for (name, prefixes) in &self.groups {
            for prefix in prefixes {
                // Reading a file refuses what this would.
                let _ = groups.add(name, *prefix);
            }
        }
        groups
    }

    pub fn denied(&self) -> impl Iterator<Item = &Edge> {
        self.denied.iter().flatten()
    }

    pub fn denies(&self, edge: &Edge) -> bool {
        self.denied
            .as_ref()
            .is_some_and(|denied| denied.contains(edge))
    }

    /// Whether packets can belong to the group, if the peer is one.
    pub fn defines(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Group(name) => name == super::INTERNET || self.groups.contains_key(name),
            Peer::Any | Peer::Source(_) => true,
        }
    }

    /// The state of an edge by this file, where it is `now`; `None`: nothing is known of it any more.
    ///
    /// What was frozen and is gone was taken out by hand: a freeze takes in all that is frozen in its
    /// scope. What was denied and is gone is denied no longer, and not allowed either.
    pub fn state_of(&self, edge: &Edge, now: State) -> Option<State> {
        let gone = self.covers(edge.service) && self.defines(&edge.peer);
        match now {
            _ if self.edges.contains(edge) => Some(State::Frozen),
            _ if self.denies(edge) => Some(State::Denied),
            State::Frozen if gone => Some(State::Removed),
            State::Frozen => Some(State::Learned),
            State::Denied if self.denied.is_some() => None,
            State::Candidate
            | State::Learned
            | State::Approved
            | State::Denied
            | State::Expired
            | State::Removed => Some(now),
        }
    }

    /// The file's text. `before`: the file it replaces, whose comments are kept.
    pub fn to_text(&self, before: Option<&str>) -> String {
        let comments = before.map(Comments::read).unwrap_or_default();
        let mut text = comments.head.clone();
        if text.is_empty() {
            text.push_str(
                "# Kernloom: who may talk to this host. One edge per line; comments are kept.\n\
                 # After editing: kernloom graph freeze --accept-edits\n",
            );
        }
        text.push_str(&format!(
            "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n  node: \"{}\"\n  frozen: \"{}\"\n  sha256: \"{}\"\n",
            self.node,
            self.frozen_at,
            self.hash()
        ));
        if !self.only.is_empty() {
            comments.put(&mut text, &format!("only: [{}]", joined(&self.only)));
        }
        if !self.groups.is_empty() {
            comments.put(&mut text, "groups:");
            for (name, prefixes) in &self.groups {
                let quoted: Vec<String> = prefixes
                    .iter()
                    .map(|prefix| format!("\"{prefix}\""))
                    .collect();
                let line = format!("  {name}: [{}]", quoted.join(", "));
                comments.put(&mut text, &line);
            }
        }
        let lists = [
            ("edges", Some(&self.edges)),
            ("denied", self.denied.as_ref()),
        ];
        for (name, edges) in lists {
            let Some(edges) = edges else { continue };
            let none = if edges.is_empty() { " []" } else { "" };
            comments.put(&mut text, &format!("{name}:{none}"));
            for edge in edges {
                comments.put(&mut text, &edge_line(edge));
            }
        }
        text.push_str(&comments.tail);
        text
    }

    /// Whether packets can match every edge, where IPv6 is tracked at `v6_bits`.
    pub fn check(&self, v6_bits: u8) -> Result<(), FrozenError> {
        self.check_each(|edge| edge.check(v6_bits))
    }

    /// Whether packets can match every edge, of a file that an operator writes now.
    pub fn check_written(&self, v6_bits: u8) -> Result<(), FrozenError> {
        self.check(v6_bits)?;
        self.check_each(Edge::check_written)
    }

    fn check_each(
        &self,
        check: impl Fn(&Edge) -> Result<(), PeerError>,
    ) -> Result<(), FrozenError> {
        for (_, edge) in self.lines() {
            check(edge).map_err(|why| FrozenError::Peer {
                edge: edge.clone(),
                why,
            })?;
        }
        Ok(())
    }

    /// Reads and verifies a file.
    pub fn from_text(text: &str) -> Result<Self, FrozenError> {
        let (frozen, stated) = Self::unverified(text)?;
        let found = frozen.hash();
        if found == stated {
            Ok(frozen)
        } else {
            Err(FrozenError::Hash { stated, found })
        }
    }

    /// Reads a file that an operator edited: everything is checked but the hash.
    pub fn from_edited(text: &str) -> Result<Self, FrozenError> {
        Self::unverified(text).map(|(frozen, _)| frozen)
    }

    fn unverified(text: &str) -> Result<(Self, String), FrozenError> {
        let document: Document =
            serde_yaml::from_str(text).map_err(|error| FrozenError::Syntax(error.to_string()))?;
        for (what, found, wanted) in [
            ("apiVersion", &document.api_version, API_VERSION),
            ("kind", &document.kind, KIND),
        ] {
            if found != wanted {
                return Err(FrozenError::Kind {
                    what,
                    found: found.clone(),
                    wanted,
                });
            }
        }
        let mut frozen = Self {
            node: document.metadata.node,
            frozen_at: document.metadata.frozen,
            ..Self::default()
        };
        for service in &document.only {
            let service = service
                .parse()
                .map_err(|error: super::ParseEdgeError| FrozenError::Syntax(error.to_string()))?;
            frozen.only.insert(service);
        }
        frozen.groups = read_groups(&document.groups)?;
        frozen.edges = frozen.read_list("edges", document.edges)?;
        if let Some(list) = document.denied {
            frozen.denied = Some(frozen.read_list("denied", list)?);
        }
        if let Some(edge) = frozen.denied().find(|edge| frozen.edges.contains(*edge)) {
            return Err(FrozenError::Both(edge.clone()));
        }
        Ok((frozen, document.metadata.sha256))
    }

    fn read_list(
        &self,
        name: &str,
        list: Option<Vec<Line>>,
    ) -> Result<BTreeSet<Edge>, FrozenError> {
        let list = list.ok_or_else(|| {
            FrozenError::Syntax(format!(
                "'{name}:' has no lines; write '{name}: []' if none is meant"
            ))
        })?;
        let mut edges = BTreeSet::new();
        for line in list {
            let edge = self.edge(&line)?;
            if !edges.insert(edge.clone()) {
                return Err(FrozenError::Twice(edge));
            }
        }
        Ok(edges)
    }

    fn edge(&self, line: &Line) -> Result<Edge, FrozenError> {
        let error = |why: String| FrozenError::Edge {
            line: format!("{} {} {}", line.direction, line.peer, line.service),
            why,
        };
        let is_group = |name: &str| self.defines(&Peer::Group(name.to_owned()));
        let direction: Direction = line.direction.parse().map_err(|e| error(format!("{e}")))?;
        let peer = Peer::parse(&line.peer, is_group).map_err(|e| error(e.to_string()))?;
        let service: Service = line.service.parse().map_err(|e| error(format!("{e}")))?;
        Ok(Edge {
            direction,
            peer,
            service,
        })
    }
}

fn read_groups(
    written: &BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, Vec<Source>>, FrozenError> {
    let mut groups = Groups::default();
    for (name, prefixes) in written {
        for prefix in prefixes {
            let prefix = prefix
                .parse()
                .map_err(|error| FrozenError::Group(format!("group {name}: {error}")))?;
            groups
                .add(name, prefix)
                .map_err(|error| FrozenError::Group(error.to_string()))?;
        }
    }
    let read: BTreeMap<String, Vec<Source>> = groups
        .named()
        .map(|(name, prefixes)| (name.to_owned(), prefixes.to_vec()))
        .collect();
    Ok(read)
}

pub(super) fn joined<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    words.join(", ")
}

fn edge_line(edge: &Edge) -> String {
    format!(
        "  - {{direction: {}, peer: \"{}\", service: {}}}",
        edge.direction, edge.peer, edge.service
    )
}
