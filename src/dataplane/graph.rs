//! The frozen graph in the kernel: filled beside the one that counts, then switched to by one store.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::abi::{
    kl_edge_by, kl_edge_key, kl_edge_verdict, kl_graph, kl_graph_limits, kl_graph_mode,
    kl_graph_word, kl_trie_key,
};
use super::edges::{self, BROADCAST, EdgeTable};
use super::graph_maps::GraphMaps;
use super::pod::{Shared, bytes_of};
use crate::error::{Doing, Error, Result};
use crate::graph::{Edge, Groups, Mode, Service};
use crate::model::{Ktime, Source};

/// What a graph consists of in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permits {
    pub allowed: BTreeSet<Edge>,
    pub denied: BTreeSet<Edge>,
    /// Services the graph speaks about; empty: every one.
    pub only: BTreeSet<Service>,
    pub groups: Groups,
    /// Broadcast addresses of this host's links.
    pub broadcast: Vec<Source>,
}

/// What the data plane does now, and what it falls back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphStatus {
    pub mode: Mode,
    /// Until when `mode` holds unless confirmed, and the mode after.
    pub lease: Option<(Ktime, Mode)>,
}

/// What in the graph decided about a packet that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeBy {
    /// The graph has no such edge.
    Nothing,
    /// An edge of the source itself.
    Source,
    /// An edge of the source's group.
    Group,
    /// The graph does not speak about this service.
    Scope,
    /// An edge of the tracked prefix that holds the source.
    Prefix,
    /// The graph has no such edge, and the source is exempt.
    Exempt,
}

impl EdgeBy {
    pub(super) fn from_number(number: u32) -> Self {
        [
            (kl_edge_by::KL_EDGE_BY_SOURCE, Self::Source),
            (kl_edge_by::KL_EDGE_BY_GROUP, Self::Group),
            (kl_edge_by::KL_EDGE_BY_SCOPE, Self::Scope),
            (kl_edge_by::KL_EDGE_BY_PREFIX, Self::Prefix),
            (kl_edge_by::KL_EDGE_BY_EXEMPT, Self::Exempt),
        ]
        .into_iter()
        .find(|(known, _)| known.0 == number)
        .map_or(Self::Nothing, |(_, by)| by)
    }
}

/// Entries one bpf(2) call carries.
const BATCH: usize = 4_096;
const NOW: u32 = kl_graph_word::KL_GRAPH_NOW.0;
const AFTER: u32 = kl_graph_word::KL_GRAPH_AFTER_SHIFT.0;
const GENERATION: u32 = kl_graph_word::KL_GRAPH_GENERATION_SHIFT.0;

/// The word that says which graph counts and how, and its lease: a map of their own.
#[derive(Debug)]
pub(super) struct GraphWord {
    memory: Shared,
}

impl GraphWord {
    pub(super) fn map(fd: impl AsFd) -> Result<Self> {
        let memory = Shared::map(fd, size_of::<kl_graph>()).doing(|| "mapping the graph's word")?;
        Ok(Self { memory })
    }

    fn word(&self) -> &AtomicU32 {
        self.memory.atomic(offset_of!(kl_graph, word))
    }

    fn lease_ns(&self) -> &AtomicU64 {
        self.memory.atomic(offset_of!(kl_graph, lease_ns))
    }

    fn lapsed(&self, now: Ktime) -> bool {
        let lease = self.lease_ns().load(Ordering::Acquire);
        lease != 0 && now.as_nanos() >= lease
    }
}

/// The edge stage of one instance.
pub struct GraphPlane<'a> {
    pub(super) maps: &'a GraphMaps,
    pub(super) word: &'a GraphWord,
    pub(super) v6_bits: u8,
}

impl GraphPlane<'_> {
    pub fn edges(&self) -> Result<EdgeTable> {
        EdgeTable::map(&self.maps.edges, self.v6_bits)
    }

    /// What holds at `now`.
    pub fn status(&self, now: Ktime) -> GraphStatus {
        let word = self.word.word().load(Ordering::Acquire);
        let lease = self.word.lease_ns().load(Ordering::Acquire);
        let end = Ktime::from_nanos(lease);
        if lease == 0 || now >= end {
            return GraphStatus {
                mode: mode_of(self.now_bits(now)),
                lease: None,
            };
        }
        GraphStatus {
            mode: mode_of(word),
            lease: Some((end, mode_of(word >> AFTER))),
        }
    }

    /// Puts a graph in force with its groups, in one step. With a lease the data plane goes back to
    /// what is confirmed now by itself, unless [`Self::confirm`] comes before.
    pub fn switch(
        &self,
        mode: Mode,
        permits: &Permits,
        lease: Option<Ktime>,
        now: Ktime,
    ) -> Result<()> {
        let (groups, graph) = (grouped(permits)?, filled(permits)?);
        self.settle(now);
        let word = self.word.word().load(Ordering::Acquire);
        // What a lease, given or pending, falls back to.
        let before = (word >> AFTER) & NOW;
        let slot = (0..kl_graph_limits::KL_GRAPH_SLOTS.0)
            .find(|slot| *slot != slot_of(word) && *slot != slot_of(before))
            .unwrap_or_default();
        put(&self.maps.groups, slot, &groups)?;
        put(&self.maps.graphs, slot, &graph)?;
        let scoped = match permits.only.is_empty() {
            true => 0,
            false => kl_graph_word::KL_GRAPH_SCOPED.0,
        };
        let bits = number_of(mode) | slot << kl_graph_word::KL_GRAPH_SLOT_SHIFT.0 | scoped;
        let after = lease.map_or(bits, |_| before);
        if let Some(end) = lease {
            // Before the word: until then the word falls back to itself.
            let end = end.as_nanos().max(1);
            self.word.lease_ns().store(end, Ordering::Release);
        }
        let next = next_generation(word) | after << AFTER | bits;
        self.word.word().store(next, Ordering::Release);
        if lease.is_none() {
            self.word.lease_ns().store(0, Ordering::Release);
        }
        Ok(())
    }

    /// Keeps what is leased. False if no lease is pending.
    pub fn confirm(&self, now: Ktime) -> bool {
        if self.status(now).lease.is_none() {
            return false;
        }
        self.keep(self.word.word().load(Ordering::Acquire) & NOW);
        true
    }

    /// A lease that ran out leaves a word without one, that says the same.
    fn settle(&self, now: Ktime) {
        if self.word.lapsed(now) {
            self.keep(self.now_bits(now));
        }
    }

    fn keep(&self, bits: u32) {
        let word = self.word.word().load(Ordering::Acquire);
        let generation = word & (u32::MAX << GENERATION);
        let word = generation | bits << AFTER | bits;
        self.word.word().store(word, Ordering::Release);
        self.word.lease_ns().store(0, Ordering::Release);
    }

    /// Mode, slot and scope that apply at `now`.
    fn now_bits(&self, now: Ktime) -> u32 {
        let word = self.word.word().load(Ordering::Acquire);
        (if self.word.lapsed(now) {
            word >> AFTER
        } else {
            word
        }) & NOW
    }
}

/// The word's upper bits for its successor: never 0, so that a stamp is never 0.
fn next_generation(word: u32) -> u32 {
    let next = ((word >> GENERATION) + 1) & (u32::MAX >> GENERATION);
    next.max(1) << GENERATION
}

const fn slot_of(word: u32) -> u32 {
    (word & kl_graph_word::KL_GRAPH_SLOT.0) >> kl_graph_word::KL_GRAPH_SLOT_SHIFT.0
}

fn number_of(mode: Mode) -> u32 {
    match mode {
        Mode::Off => kl_graph_mode::KL_GRAPH_OFF.0,
        Mode::Learn => kl_graph_mode::KL_GRAPH_LEARN.0,
        Mode::Observe => kl_graph_mode::KL_GRAPH_OBSERVE.0,
        Mode::Enforce => kl_graph_mode::KL_GRAPH_ENFORCE.0,
    }
}

fn mode_of(word: u32) -> Mode {
    let number = word & kl_graph_word::KL_GRAPH_MODE.0;
    [Mode::Learn, Mode::Observe, Mode::Enforce]
        .into_iter()
        .find(|mode| number_of(*mode) == number)
        .unwrap_or(Mode::Off)
}

fn trie_key(prefix: &Source) -> kl_trie_key {
    kl_trie_key {
        bits: prefix.bits().into(),
        addr: edges::words(prefix),
    }
}

/// Puts a map into a slot of a map of maps.
fn put(outer: &MapHandle, slot: u32, inner: &MapHandle) -> Result<()> {
    let fd = inner.as_fd().as_raw_fd();
    outer
        .update(&slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
        .doing(|| "putting the graph into its slot")
}

/// A new map that tells the group of every prefix.
fn grouped(permits: &Permits) -> Result<MapHandle> {
    let mut wanted: Vec<(Source, u32)> = permits
        .groups
        .prefixes()
        .into_iter()
        .map(|(prefix, number)| (prefix, number.into()))
        .collect();
    let broadcast = permits.broadcast.iter();
    wanted.extend(broadcast.map(|address| (*address, BROADCAST)));
    let most = kl_graph_limits::KL_GROUP_PREFIXES.0;
    if wanted.len() > most as usize {
        return Err(Error::operator(format!(
            "the groups have {} prefixes; the data plane takes {most}: join some",
            wanted.len()
        )));
    }
    let map = create::<kl_trie_key>(MapType::LpmTrie, "kl_groups_of", most)?;
    for (prefix, number) in &wanted {
        map.update(
            bytes_of(&trie_key(prefix)),
            &number.to_ne_bytes(),
            MapFlags::ANY,
        )
        .doing(|| format!("naming the group of {prefix}"))?;
    }
    Ok(map)
}

/// A new map that holds the graph. An edge that is allowed and denied is denied.
fn filled(permits: &Permits) -> Result<MapHandle> {
    let mut entries: Vec<(kl_edge_key, u32)> = Vec::new();
    for (edges, verdict) in [
        (&permits.allowed, kl_edge_verdict::KL_EDGE_ALLOWED.0),
        (&permits.denied, kl_edge_verdict::KL_EDGE_DENIED.0),
    ] {
        for edge in edges {
            let key = edges::key_of(edge, &permits.groups).ok_or_else(|| {
                Error::operator(format!(
                    "edge {edge}: its group is not defined; give --group {}=PREFIX",
                    edge.peer
                ))
            })?;
            entries.push((key, verdict));
        }
    }
    for service in &permits.only {
        entries.push((edges::scope_key(*service), 0));
    }
    let size = u32::try_from(entries.len().max(1))
        .map_err(|_| Error::operator("the graph has more than 2^32 edges"))?;
    let map = create::<kl_edge_key>(MapType::Hash, "kl_permits", size)?;
    for part in entries.chunks(BATCH) {
        let mut keys = Vec::with_capacity(part.len() * size_of::<kl_edge_key>());
        let mut values = Vec::with_capacity(part.len() * size_of::<u32>());
        for (key, verdict) in part {
            keys.extend_from_slice(bytes_of(key));
            values.extend_from_slice(&verdict.to_ne_bytes());
        }
        let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
        map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
            .doing(|| format!("filling a graph of {size} edges"))?;
    }
    Ok(map)
}

/// An empty map from `K` to numbers, as the program's slots take it.
fn create<K>(kind: MapType, name: &str, entries: u32) -> Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_NO_PREALLOC,
        ..Default::default()
    };
    MapHandle::create(
        kind,
        Some(name),
        u32::try_from(size_of::<K>()).unwrap_or_default(),
        u32::try_from(size_of::<u32>()).unwrap_or_default(),
        entries,
        &options,
    )
    .doing(|| format!("making a map of {entries} entries for the graph"))
}
