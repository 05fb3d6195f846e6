//! The edge table as userspace reads it, and edges as the maps hold them.

use std::os::fd::AsFd;
use std::ptr;

use libbpf_rs::{MapCore, MapHandle};

use super::abi::{kl_edge, kl_edge_key, kl_edge_kind, kl_group, kl_limits, kl_service_bits};
use super::pod::Shared;
use super::sources;
use crate::error::{Doing, Result};
use crate::graph::{Direction, Edge, EdgeRow, Groups, Peer, Service};
use crate::model::Source;

#[derive(Debug)]
pub struct EdgeTable {
    memory: Shared,
    ways: usize,
    v6_bits: u8,
}

impl EdgeTable {
    pub(super) fn map(map: &MapHandle, v6_bits: u8) -> Result<Self> {
        let ways = map.max_entries() as usize * kl_limits::KL_WAYS.0 as usize;
        let memory = Shared::map(map.as_fd(), ways * size_of::<kl_edge>())
            .doing(|| "mapping the edge table")?;
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

    /// Shows every used entry with its slot number; one that changes hands meanwhile is left out.
    pub fn visit(&self, mut row: impl FnMut(usize, EdgeRow)) {
        for slot in 0..self.ways {
            if let Some(read) = self.memory.at(0, slot).and_then(|entry| self.read(entry)) {
                row(slot, read);
            }
        }
    }

    fn read(&self, entry: *mut kl_edge) -> Option<EdgeRow> {
        // SAFETY: `at` returned it: aligned, inside the mapping. The program writes concurrently,
        // so the copy is volatile and kept only if its key stood still around it.
        let copy = unsafe {
            if ptr::read_volatile(&raw const (*entry).stamp) == 0 {
                return None;
            }
            let before = ptr::read_volatile(&raw const (*entry).key);
            let copy = ptr::read_volatile(entry);
            let after = ptr::read_volatile(&raw const (*entry).key);
            if !same(&before, &copy.key) || !same(&after, &copy.key) || copy.stamp == 0 {
                return None;
            }
            copy
        };
        let (direction, service) = service_of(copy.key.service)?;
        let source = || peer_of(copy.key.peer, copy.key.service, self.v6_bits);
        Some(EdgeRow {
            direction,
            source: (direction != Direction::Cast).then(source),
            service,
            group: copy.group,
            bytes: copy.bytes,
            packets: copy.packets,
            connections: copy.connections,
            handshakes: copy.handshakes,
            violations: copy.violations,
        })
    }
}

fn same(a: &kl_edge_key, b: &kl_edge_key) -> bool {
    a.peer == b.peer && a.service == b.service
}

/// The peer of a key with this service word. IPv4 mapped is nobody's address on IPv6's wire: what
/// claims it counts as the prefix that holds it.
pub(super) fn peer_of(peer: [u32; 4], word: u32, v6_bits: u8) -> Source {
    let host = kl_edge_kind::KL_EDGE_HOST.0 << kl_service_bits::KL_SERVICE_KIND_SHIFT.0;
    let source = sources::source_of(peer, 128);
    if source.is_ipv4() && word & host != 0 {
        Source::containing(source.octets(), v6_bits)
    } else {
        source
    }
}

/// A key's service word taken apart.
pub(super) fn service_of(word: u32) -> Option<(Direction, Service)> {
    let [.., protocol, kind] = word.to_le_bytes();
    let kind = u32::from(kind) & kl_edge_kind::KL_EDGE_DIRECTION.0;
    let direction = Direction::ALL
        .into_iter()
        .find(|direction| kind_of(*direction) == kind)?;
    let port = u16::try_from(word & kl_service_bits::KL_SERVICE_PORT.0).ok()?;
    Some((direction, Service::new(protocol, port)))
}

fn word_of(service: Service, kind: u32) -> u32 {
    u32::from(service.port)
        | u32::from(service.protocol) << kl_service_bits::KL_SERVICE_PROTO_SHIFT.0
        | kind << kl_service_bits::KL_SERVICE_KIND_SHIFT.0
}

const fn kind_of(direction: Direction) -> u32 {
    match direction {
        Direction::In => kl_edge_kind::KL_EDGE_IN.0,
        Direction::Out => kl_edge_kind::KL_EDGE_OUT.0,
        Direction::Cast => kl_edge_kind::KL_EDGE_CAST.0,
    }
}

/// The edge's key in the frozen graph; `None` if its group is not defined.
pub(super) fn key_of(edge: &Edge, groups: &Groups) -> Option<kl_edge_key> {
    let mut kind = kind_of(edge.direction);
    let peer = match &edge.peer {
        Peer::Any => [0; 4],
        Peer::Source(source) => {
            if source.bits() == 128 && !source.is_ipv4() {
                kind |= kl_edge_kind::KL_EDGE_HOST.0;
            }
            words(source)
        }
        Peer::Group(name) => {
            kind |= kl_edge_kind::KL_EDGE_GROUP.0;
            [0, 0, 0, groups.number(name)?.into()]
        }
    };
    Some(kl_edge_key {
        peer,
        service: word_of(edge.service, kind),
    })
}

/// The key that says that the graph speaks about a service.
pub(super) fn scope_key(service: Service) -> kl_edge_key {
    kl_edge_key {
        peer: [0; 4],
        service: word_of(service, kl_edge_kind::KL_EDGE_SCOPE.0),
    }
}

pub(super) fn words(source: &Source) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(source.octets().as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

/// Number of the group that marks broadcast addresses of this host's links.
pub(super) const BROADCAST: u32 = kl_group::KL_GROUP_BROADCAST.0;
