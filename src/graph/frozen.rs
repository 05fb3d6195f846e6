//! The frozen graph as a file: one edge per line, in order, with the operator's comments.
//!
//! The hash is over what the file means, not how it looks: groups, scope and edges, one canonical
//! line each. A comment may be changed freely; an edge that was added, lost or altered shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Direction, Edge, Groups, Peer, PeerError, Record, Service};
use crate::model::{Source, Wall};

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

/// What a freeze takes from the graph.
pub struct FreezeFrom<'a> {
    pub node: &'a str,
    pub now: Wall,
    pub only: BTreeSet<Service>,
    pub groups: &'a Groups,
    pub records: &'a BTreeMap<Edge, Record>,
}

impl Frozen {
    /// Every accepted edge of the services in scope, and the groups they name.
    pub fn freeze(from: FreezeFrom<'_>) -> Self {
        let mut frozen = Self {
            node: from.node.to_owned(),
            frozen_at: from.now.to_string(),
            only: from.only,
            groups: BTreeMap::new(),
            edges: BTreeSet::new(),
        };
        for (edge, record) in from.records {
            if record.state.is_accepted() && frozen.covers(edge.service) {
                frozen.edges.insert(edge.clone());
            }
        }
        frozen.groups = from
            .groups
            .named()
            .map(|(name, prefixes)| (name.to_owned(), prefixes.to_vec()))
            .collect();
        frozen
    }

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
        for edge in &self.edges {
            text.push_str(&format!(
                "edge {} {} {}\n",
                edge.direction, edge.peer, edge.service
            ));
        }
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
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
            text.push_str(&format!("only: [{}]\n", joined(&self.only)));
        }
        if !self.groups.is_empty() {
            text.push_str("groups:\n");
            for (name, prefixes) in &self.groups {
                let quoted: Vec<String> = prefixes
                    .iter()
                    .map(|prefix| format!("\"{prefix}\""))
                    .collect();
                let line = format!("  {name}: [{}]", quoted.join(", "));
                comments.put(&mut text, &line);
            }
        }
        if self.edges.is_empty() {
            text.push_str("edges: []\n");
        } else {
            text.push_str("edges:\n");
        }
        for edge in &self.edges {
            comments.put(&mut text, &edge_line(edge));
        }
        text.push_str(&comments.tail);
        text
    }

    /// Whether packets can match every edge, where IPv6 is tracked at `v6_bits`.
    pub fn check(&self, v6_bits: u8) -> Result<(), FrozenError> {
        for edge in &self.edges {
            edge.check(v6_bits).map_err(|why| FrozenError::Peer {
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
        let edges = document.edges.ok_or_else(|| {
            FrozenError::Syntax(
                "'edges:' has no lines; write 'edges: []' if none is meant".to_owned(),
            )
        })?;
        for line in edges {
            let edge = frozen.edge(&line)?;
            if !frozen.edges.insert(edge.clone()) {
                return Err(FrozenError::Twice(edge));
            }
        }
        Ok((frozen, document.metadata.sha256))
    }

    fn edge(&self, line: &Line) -> Result<Edge, FrozenError> {
        let error = |why: String| FrozenError::Edge {
            line: format!("{} {} {}", line.direction, line.peer, line.service),
            why,
        };
        let is_group = |name: &str| name == super::INTERNET || self.groups.contains_key(name);
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

fn joined<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    words.join(", ")
}

fn edge_line(edge: &Edge) -> String {
    format!(
        "  - {{direction: {}, peer: \"{}\", service: {}}}",
        edge.direction, edge.peer, edge.service
    )
}

/// The comments of a file and the lines they belong to: those above a line, and behind it.
#[derive(Default)]
struct Comments {
    head: String,
    above: BTreeMap<String, String>,
    behind: BTreeMap<String, String>,
    tail: String,
}

impl Comments {
    fn read(text: &str) -> Self {
        let mut comments = Self::default();
        let mut waiting = String::new();
        for line in text.lines() {
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                waiting.push_str(line);
                waiting.push('\n');
                continue;
            }
            let (content, behind) = split_comment(line);
            let key = key_of(content);
            if content.starts_with("apiVersion:") {
                comments.head = std::mem::take(&mut waiting);
            } else if !waiting.is_empty() {
                let above = std::mem::take(&mut waiting);
                comments.above.insert(key.clone(), above);
            }
            if !behind.is_empty() {
                comments.behind.insert(key, behind.to_owned());
            }
        }
        comments.tail = waiting;
        comments
    }

    fn put(&self, text: &mut String, line: &str) {
        let key = key_of(line);
        if let Some(above) = self.above.get(&key) {
            text.push_str(above);
        }
        text.push_str(line);
        if let Some(behind) = self.behind.get(&key) {
            text.push_str("  ");
            text.push_str(behind);
        }
        text.push('\n');
    }
}

/// A line and the comment behind it: YAML wants white space before its '#'.
fn split_comment(line: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        if c == '#' && !quoted && before.is_whitespace() {
            return (line[..at].trim_end(), &line[at..]);
        }
        before = c;
    }
    (line.trim_end(), "")
}

/// What a comment is attached to: the line without quotes and spaces, a group only by its name.
fn key_of(content: &str) -> String {
    let plain: String = content
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '"' && *c != '\'')
        .collect();
    match plain.split_once(":[") {
        Some((name, _)) => name.to_owned(),
        None => plain,
    }
}
