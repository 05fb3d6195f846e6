//! The frozen graph in the kernel: filled beside the one that counts, then switched to by one store.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::abi::{
    bss, kl_edge_key, kl_edge_verdict, kl_graph, kl_graph_mode, kl_graph_word, kl_permit,
    kl_trie_key,
};
use super::control::Control;
use super::edges::{self, BROADCAST, EdgeTable};
use super::load::GraphMaps;
use super::pod::bytes_of;
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
}

/// What the data plane does now, and what it falls back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphStatus {
    pub mode: Mode,
    /// Until when `mode` holds unless confirmed, and the mode after.
    pub lease: Option<(Ktime, Mode)>,
}

/// Entries one bpf(2) call carries.
const BATCH: usize = 4_096;

/// The edge stage of one instance.
pub struct GraphPlane<'a> {
    pub(super) maps: &'a GraphMaps,
    pub(super) control: &'a Control,
    pub(super) v6_bits: u8,
}

impl GraphPlane<'_> {
    pub fn edges(&self) -> Result<EdgeTable> {
        EdgeTable::map(&self.maps.edges, self.v6_bits)
    }

    /// What holds at `now`.
    pub fn status(&self, now: Ktime) -> GraphStatus {
        let word = self.word().load(Ordering::Acquire);
        let lease = self.lease_ns().load(Ordering::Acquire);
        let after = word >> kl_graph_word::KL_GRAPH_AFTER_SHIFT.0;
        if lease == 0 {
            return GraphStatus {
                mode: mode_of(word),
                lease: None,
            };
        }
        let end = Ktime::from_nanos(lease);
        if now >= end {
            return GraphStatus {
                mode: mode_of(after),
                lease: None,
            };
        }
        GraphStatus {
            mode: mode_of(word),
            lease: Some((end, mode_of(after))),
        }
    }

    /// Tells the data plane which prefix is which group, and which addresses are broadcast.
    pub fn set_groups(&self, groups: &Groups, broadcast: &[Source]) -> Result<()> {
        let doing = || "setting the groups";
        let mut wanted: Vec<(Source, u32)> = groups
            .prefixes()
            .into_iter()
            .map(|(prefix, number)| (prefix, number.into()))
            .collect();
        wanted.extend(broadcast.iter().map(|address| (*address, BROADCAST)));
        let most = self.maps.groups.max_entries() as usize;
        if wanted.len() > most {
            return Err(Error::operator(format!(
                "the groups have {} prefixes; the data plane takes {most}: join some",
                wanted.len()
            )));
        }
        let keys: BTreeSet<Vec<u8>> = wanted
            .iter()
            .map(|(prefix, _)| bytes_of(&trie_key(prefix)).to_vec())
            .collect();
        let stale: Vec<Vec<u8>> = self
            .maps
            .groups
            .keys()
            .filter(|key| !keys.contains(key))
            .collect();
        for (prefix, number) in &wanted {
            let key = trie_key(prefix);
            self.maps
                .groups
                .update(bytes_of(&key), &number.to_ne_bytes(), MapFlags::ANY)
                .doing(doing)?;
        }
        for key in stale {
            self.maps.groups.delete(&key).doing(doing)?;
        }
        self.renew();
        Ok(())
    }

    /// Puts a graph in force, in one step. With a lease the data plane goes back to what is
    /// confirmed now by itself, unless [`Self::confirm`] comes before.
    pub fn switch(
        &self,
        mode: Mode,
        permits: &Permits,
        groups: &Groups,
        lease: Option<Ktime>,
        now: Ktime,
    ) -> Result<()> {
        let word = self.word().load(Ordering::Acquire);
        let pending = self.status(now).lease.is_some();
        let now_bits = self.now_bits(now);
        let slot_bit = kl_graph_word::KL_GRAPH_SLOT.0;
        // While a lease is pending the other slot holds what it would fall back to.
        let slot = if pending {
            now_bits & slot_bit
        } else {
            (now_bits & slot_bit) ^ slot_bit
        };
        let graph = filled(permits, groups)?;
        use std::os::fd::AsRawFd;
        let fd = graph.as_fd().as_raw_fd();
        self.maps
            .graphs
            .update(
                &u32::from(slot != 0).to_ne_bytes(),
                &fd.to_ne_bytes(),
                MapFlags::ANY,
            )
            .doing(|| "putting the graph into its slot")?;
        let scoped = if permits.only.is_empty() {
            0
        } else {
            kl_graph_word::KL_GRAPH_SCOPED.0
        };
        let bits = number_of(mode) | slot | scoped;
        let shift = kl_graph_word::KL_GRAPH_AFTER_SHIFT.0;
        let after = match lease {
            None => bits,
            Some(_) if pending => (word >> shift) & kl_graph_word::KL_GRAPH_NOW.0,
            Some(_) => now_bits,
        };
        let next = next_generation(word) | after << shift | bits;
        if let Some(end) = lease {
            // Before the word: until then the word falls back to itself.
            self.lease_ns()
                .store(end.as_nanos().max(1), Ordering::Release);
        }
        self.word().store(next, Ordering::Release);
        if lease.is_none() {
            self.lease_ns().store(0, Ordering::Release);
        }
        Ok(())
    }

    /// Keeps what is leased. False if no lease is pending.
    pub fn confirm(&self, now: Ktime) -> bool {
        if self.status(now).lease.is_none() {
            return false;
        }
        let word = self.word().load(Ordering::Acquire);
        let bits = word & kl_graph_word::KL_GRAPH_NOW.0;
        let shift = kl_graph_word::KL_GRAPH_AFTER_SHIFT.0;
        let after = kl_graph_word::KL_GRAPH_NOW.0 << shift;
        self.word()
            .store(word & !after | bits << shift, Ordering::Release);
        self.lease_ns().store(0, Ordering::Release);
        true
    }

    /// Mode, slot and scope that apply at `now`.
    fn now_bits(&self, now: Ktime) -> u32 {
        let word = self.word().load(Ordering::Acquire);
        let lease = self.lease_ns().load(Ordering::Acquire);
        let lapsed = lease != 0 && now.as_nanos() >= lease;
        let shift = if lapsed {
            kl_graph_word::KL_GRAPH_AFTER_SHIFT.0
        } else {
            0
        };
        (word >> shift) & kl_graph_word::KL_GRAPH_NOW.0
    }

    /// Makes every cached answer be asked for once more.
    fn renew(&self) {
        let low = (1 << kl_graph_word::KL_GRAPH_GENERATION_SHIFT.0) - 1;
        let next = |word: u32| Some(next_generation(word) | word & low);
        // The closure never returns None, so neither does this.
        let _ = self
            .word()
            .fetch_update(Ordering::Release, Ordering::Relaxed, next);
    }

    fn word(&self) -> &AtomicU32 {
        self.atomic(offset_of!(kl_graph, word))
    }

    fn lease_ns(&self) -> &AtomicU64 {
        self.atomic(offset_of!(kl_graph, lease_ns))
    }

    fn atomic<A>(&self, field: usize) -> &A {
        self.control.atomic(offset_of!(bss, kl_graph) + field)
    }
}

/// The word's upper 24 bits for its successor: never 0, so that a stamp is never 0.
fn next_generation(word: u32) -> u32 {
    let shift = kl_graph_word::KL_GRAPH_GENERATION_SHIFT.0;
    let next = ((word >> shift) + 1) & (u32::MAX >> shift);
    next.max(1) << shift
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

/// A new map that holds the graph. An edge that is allowed and denied is denied.
fn filled(permits: &Permits, groups: &Groups) -> Result<MapHandle> {
    let mut entries: Vec<(kl_edge_key, u32)> = Vec::new();
    for (edges, verdict) in [
        (&permits.allowed, kl_edge_verdict::KL_EDGE_ALLOWED.0),
        (&permits.denied, kl_edge_verdict::KL_EDGE_DENIED.0),
    ] {
        for edge in edges {
            let key = edges::key_of(edge, groups).ok_or_else(|| {
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
    let map = create(size)?;
    for part in entries.chunks(BATCH) {
        let mut keys = Vec::with_capacity(part.len() * size_of::<kl_edge_key>());
        let mut values = Vec::with_capacity(part.len() * size_of::<kl_permit>());
        for (key, verdict) in part {
            keys.extend_from_slice(bytes_of(key));
            let permit = kl_permit {
                verdict: *verdict,
                seen: 0,
            };
            values.extend_from_slice(bytes_of(&permit));
        }
        let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
        map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
            .doing(|| format!("filling a graph of {size} edges"))?;
    }
    Ok(map)
}

fn create(entries: u32) -> Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_NO_PREALLOC,
        ..Default::default()
    };
    let [key, value] = [size_of::<kl_edge_key>(), size_of::<kl_permit>()];
    MapHandle::create(
        MapType::Hash,
        Some("kl_permits"),
        u32::try_from(key).unwrap_or_default(),
        u32::try_from(value).unwrap_or_default(),
        entries,
        &options,
    )
    .doing(|| format!("making a graph of {entries} edges"))
}
