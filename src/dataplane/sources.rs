//! The source table as userspace reads it: shared memory, no system call per entry.

use std::os::fd::AsFd;
use std::ptr;

use libbpf_rs::{MapCore, MapHandle};

use super::abi::{kl_limits, kl_source};
use super::pod::Shared;
use super::sys;
use crate::error::{Doing, Result};
use crate::model::Source;
use crate::telemetry::Row;

/// The identity of a table key: the tracked prefix.
#[inline]
pub(super) fn source_of(key: [u32; 4], v6_bits: u8) -> Source {
    let mut octets = [0; 16];
    for (to, word) in octets.chunks_exact_mut(4).zip(key) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    tracked(octets, v6_bits)
}

/// The identity under which this address counts.
#[inline]
pub(super) fn tracked(octets: [u8; 16], v6_bits: u8) -> Source {
    let bits = Source::containing(octets, 128).tracked_bits(v6_bits);
    Source::containing(octets, bits)
}

/// Every entry of a hash that has identities for keys, by what `read` makes of its value, in the order
/// of sources.
pub(super) fn entries_of<T>(
    map: &MapHandle,
    v6_bits: u8,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<(Source, T)>> {
    let sizes = (map.key_size() as usize, map.value_size() as usize);
    let (keys, values) = sys::lookup_batch(map.as_fd(), sizes, map.max_entries())
        .doing(|| "reading a map of sources")?;
    let entries = keys
        .chunks_exact(sizes.0)
        .zip(values.chunks_exact(sizes.1))
        .filter_map(|(key, value)| {
            let octets = *key.first_chunk()?;
            Some((tracked(octets, v6_bits), read(value)?))
        });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable_by_key(|(source, _)| *source);
    Ok(entries)
}

#[derive(Debug)]
pub struct SourceTable {
    memory: Shared,
    ways: usize,
    v6_bits: u8,
}

impl SourceTable {
    pub(super) fn map(map: &MapHandle, v6_bits: u8) -> Result<Self> {
        // Behind the table stands one set per CPU for probes.
        let cpus = sys::possible_cpus()? as usize;
        let sets = (map.max_entries() as usize).saturating_sub(cpus);
        let ways = sets * kl_limits::KL_WAYS.0 as usize;
        let memory = Shared::map(map.as_fd(), ways * size_of::<kl_source>())
            .doing(|| "mapping the source table")?;
        Ok(Self {
            memory,
            ways,
            v6_bits,
        })
    }

    /// Entries over all CPUs.
    pub fn capacity(&self) -> usize {
        self.ways
    }

    /// Shows every used entry with its slot number. An entry that changes hands meanwhile is
    /// left out; the next reading has it.
    pub fn visit(&self, mut row: impl FnMut(usize, Row)) {
        for slot in 0..self.ways {
            if let Some(read) = self.entry(slot).and_then(|entry| self.read(entry)) {
                row(slot, read);
            }
        }
    }

    /// As `visit`, and starts every sketch anew. An opening that lands in the same few
    /// nanoseconds on another CPU may be counted in the next window instead.
    pub fn take(&self, mut row: impl FnMut(usize, Row)) {
        for slot in 0..self.ways {
            let Some(entry) = self.entry(slot) else {
                continue;
            };
            let Some(read) = self.read(entry) else {
                continue;
            };
            if read.ports != 0 || read.stacks != 0 {
                // SAFETY: inside the mapping; aligned words the program also writes whole.
                unsafe {
                    ptr::write_volatile(&raw mut (*entry).ports, 0);
                    ptr::write_volatile(&raw mut (*entry).stacks, 0);
                }
            }
            row(slot, read);
        }
    }

    #[inline]
    fn entry(&self, slot: usize) -> Option<*mut kl_source> {
        self.memory.at(0, slot)
    }

    #[inline]
    fn read(&self, entry: *mut kl_source) -> Option<Row> {
        // SAFETY: `at` returned it: aligned, inside the mapping. The program writes concurrently,
        // so the copy is volatile and kept only if its key stood still around it.
        let copy = unsafe {
            if ptr::read_volatile(&raw const (*entry).verdict) == 0 {
                return None;
            }
            let before = ptr::read_volatile(&raw const (*entry).key);
            let copy = ptr::read_volatile(entry);
            let after = ptr::read_volatile(&raw const (*entry).key);
            if before != copy.key || after != copy.key || copy.verdict == 0 {
                return None;
            }
            copy
        };
        Some(Row {
            source: source_of(copy.key, self.v6_bits),
            bytes: copy.bytes,
            packets: copy.packets,
            syns: copy.syns,
            acks: copy.acks,
            drops: copy.drops,
            ports: copy.ports,
            stacks: copy.stacks,
        })
    }
}
