//! The source table as userspace reads it: shared memory, no system call per entry.

use std::os::fd::AsFd;
use std::ptr;

use libbpf_rs::{MapCore, MapHandle};

use super::abi::{kl_config, kl_limits, kl_source};
use super::pod::Shared;
use super::sys;
use crate::error::{Doing, Error, Result};
use crate::model::Source;
use crate::telemetry::{Order, Row, Shape};

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

/// Every entry of a hash that has identities for keys, by what `read` makes of its value, in no order.
pub(super) fn entries_of<T>(
    map: &MapHandle,
    v6_bits: u8,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<(Source, T)>> {
    let sizes = (map.key_size() as usize, map.value_size() as usize);
    let (keys, values) = sys::lookup_batch(map.as_fd(), sizes, map.max_entries())
        .doing(|| "reading a map of sources")?;
    Ok(keys
        .chunks_exact(sizes.0)
        .zip(values.chunks_exact(sizes.1))
        .filter_map(|(key, value)| {
            let octets = *key.first_chunk()?;
            Some((tracked(octets, v6_bits), read(value)?))
        })
        .collect())
}

#[derive(Debug)]
pub struct SourceTable {
    memory: Shared,
    shape: Shape,
    order: Order,
    v6_bits: u8,
}

impl SourceTable {
    /// `config`: that of the program which writes it.
    pub(super) fn map(map: &MapHandle, config: &kl_config, v6_bits: u8) -> Result<Self> {
        let cpus = sys::possible_cpus()? as usize;
        // Behind the table stands one set per CPU for probes.
        let sets = (map.max_entries() as usize).saturating_sub(cpus) / cpus.max(1);
        let set_mask = config.set_mask;
        if usize::try_from(set_mask).ok() != sets.checked_sub(1) {
            return Err(Error::world(
                "opening the data plane: its table is none of its program's",
            ));
        }
        let shape = Shape {
            cpus,
            sets,
            ways: kl_limits::KL_WAYS.0 as usize,
        };
        let memory = Shared::map(map.as_fd(), shape.entries() * size_of::<kl_source>())
            .doing(|| "mapping the source table")?;
        Ok(Self {
            memory,
            shape,
            order: Order::of_table(config.seed, set_mask),
            v6_bits,
        })
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// That of its sets.
    pub fn order(&self) -> Order {
        self.order
    }

    /// An entry by its number. `None` if it is nobody's, or changes hands just now: the next reading
    /// has it.
    #[inline]
    pub fn get(&self, at: usize) -> Option<Row> {
        self.read(self.entry(at)?)
    }

    /// As `get`, and starts its sketches anew. An opening that lands in the same few nanoseconds on
    /// another CPU may be counted in the next window instead.
    #[inline]
    pub fn take(&self, at: usize) -> Option<Row> {
        let entry = self.entry(at)?;
        let row = self.read(entry)?;
        if row.ports != 0 || row.stacks != 0 {
            // SAFETY: inside the mapping; aligned words the program also writes whole.
            unsafe {
                ptr::write_volatile(&raw mut (*entry).ports, 0);
                ptr::write_volatile(&raw mut (*entry).stacks, 0);
            }
        }
        Some(row)
    }

    /// Every entry that is somebody's.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        (0..self.shape.entries()).filter_map(|at| self.get(at))
    }

    #[inline]
    fn entry(&self, at: usize) -> Option<*mut kl_source> {
        self.memory.at(0, at)
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
