//! The maps that programs, commands and IQ share.

use std::os::fd::AsFd;

use libbpf_rs::MapHandle;

use super::graph_maps::GraphMaps;
use crate::error::{Doing, Error, Result};

pub(super) struct Maps {
    pub(super) sources: MapHandle,
    pub(super) windows: MapHandle,
    pub(super) policies: MapHandle,
    pub(super) prefixes: MapHandle,
    pub(super) counters: MapHandle,
    /// Not made for [`Features::Light`]; nor is `ports`.
    pub(super) events: Option<MapHandle>,
    pub(super) ports: Option<MapHandle>,
    /// What this host asked, told by the program at TC egress.
    pub(super) questions: MapHandle,
    pub(super) notes: MapHandle,
    pub(super) layouts: MapHandle,
    /// kl_config, frozen: what a program loaded later must share.
    pub(super) config: MapHandle,
    pub(super) bss: MapHandle,
    /// Made for [`Features::Graph`] only.
    pub(super) graph: Option<GraphMaps>,
}

impl Maps {
    pub(super) const NAMES: [&str; 12] = [
        "sources",
        "windows",
        "policies",
        "prefixes",
        "counters",
        "events",
        "ports",
        "questions",
        "notes",
        "layout",
        "config",
        "control",
    ];

    /// Every name a map may be pinned under.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().chain(GraphMaps::NAMES)
    }

    /// Those that were made, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &MapHandle)> {
        let maps = [
            Some(&self.sources),
            Some(&self.windows),
            Some(&self.policies),
            Some(&self.prefixes),
            Some(&self.counters),
            self.events.as_ref(),
            self.ports.as_ref(),
            Some(&self.questions),
            Some(&self.notes),
            Some(&self.layouts),
            Some(&self.config),
            Some(&self.bss),
        ];
        let named = Self::NAMES.into_iter().zip(maps);
        let named = named.filter_map(|(name, map)| map.map(|map| (name, map)));
        named.chain(self.graph.iter().flat_map(GraphMaps::all))
    }

    /// `by_name` answers `None` for a map that was not made.
    pub(super) fn open(mut by_name: impl FnMut(&str) -> Result<Option<MapHandle>>) -> Result<Self> {
        let [
            sources,
            windows,
            policies,
            prefixes,
            counters,
            events,
            ports,
            questions,
            notes,
            layouts,
            config,
            bss,
        ] = Self::NAMES;
        let mut must = |name: &str| {
            by_name(name)?.ok_or_else(|| Error::world(format!("the map '{name}' is gone")))
        };
        Ok(Self {
            sources: must(sources)?,
            windows: must(windows)?,
            policies: must(policies)?,
            prefixes: must(prefixes)?,
            counters: must(counters)?,
            questions: must(questions)?,
            notes: must(notes)?,
            layouts: must(layouts)?,
            config: must(config)?,
            bss: must(bss)?,
            events: by_name(events)?,
            ports: by_name(ports)?,
            graph: GraphMaps::open(&mut by_name)?,
        })
    }

    /// Kernel memory they hold now, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let mut sum = 0;
        for (_, map) in self.all() {
            let path = format!(
                "/proc/self/fdinfo/{}",
                std::os::fd::AsRawFd::as_raw_fd(&map.as_fd())
            );
            let text = std::fs::read_to_string(&path).doing(|| format!("reading {path}"))?;
            let bytes = text
                .lines()
                .find_map(|line| line.strip_prefix("memlock:"))
                .and_then(|bytes| bytes.trim().parse::<u64>().ok());
            sum += bytes.unwrap_or_default();
        }
        Ok(sum)
    }
}
