//! The maps of the edge stage: made with the program, or taken over from one that runs.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::abi::{kl_flow, kl_flow_key, kl_frag_key, kl_graph, kl_graph_limits};
use super::pin::PinDir;
use super::pod::read;
use crate::error::{Doing, Result};

/// Maps of the edge stage.
pub(super) struct GraphMaps {
    pub(super) edges: MapHandle,
    pub(super) word: MapHandle,
    pub(super) groups: MapHandle,
    pub(super) graphs: MapHandle,
    pub(super) opened: MapHandle,
    pub(super) accepted: MapHandle,
    pub(super) frags: MapHandle,
}

impl GraphMaps {
    pub(super) const NAMES: [&str; 7] = [
        "edges", "graph", "groups", "graphs", "opened", "accepted", "frags",
    ];

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &MapHandle)> {
        let maps = [
            &self.edges,
            &self.word,
            &self.groups,
            &self.graphs,
            &self.opened,
            &self.accepted,
            &self.frags,
        ];
        Self::NAMES.into_iter().zip(maps)
    }

    /// `None` if one is not there: then none was made.
    pub(super) fn open(
        by_name: &mut impl FnMut(&str) -> Result<Option<MapHandle>>,
    ) -> Result<Option<Self>> {
        let mut maps = Vec::with_capacity(Self::NAMES.len());
        for name in Self::NAMES {
            maps.extend(by_name(name)?);
        }
        let whole: Result<[MapHandle; 7], _> = maps.try_into();
        let Ok([edges, word, groups, graphs, opened, accepted, frags]) = whole else {
            return Ok(None);
        };
        Ok(Some(Self {
            edges,
            word,
            groups,
            graphs,
            opened,
            accepted,
            frags,
        }))
    }

    pub(super) fn open_pinned(pins: &PinDir) -> Result<Option<Self>> {
        Self::open(&mut |name| pins.open_made(name))
    }

    /// Whether this binary's programs read what these hold: all but the edge table, which is
    /// only telemetry.
    pub(super) fn fits(&self) -> Result<bool> {
        let shape = |map: &MapHandle, key: usize, value: usize| {
            (map.key_size() as usize, map.value_size() as usize) == (key, value)
        };
        let word = self
            .word
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .doing(|| "reading the form of the loaded graph")?;
        let word: Option<kl_graph> = word.as_deref().and_then(read);
        let slots = kl_graph_limits::KL_GRAPH_SLOTS.0;
        Ok(
            word.is_some_and(|word| word.layout == kl_graph_limits::KL_GRAPH_LAYOUT.0)
                && self.groups.max_entries() == slots
                && self.graphs.max_entries() == slots
                && shape(&self.opened, size_of::<kl_flow_key>(), size_of::<kl_flow>())
                && shape(
                    &self.accepted,
                    size_of::<kl_flow_key>(),
                    size_of::<kl_flow>(),
                )
                && shape(&self.frags, size_of::<kl_frag_key>(), size_of::<u32>()),
        )
    }
}
