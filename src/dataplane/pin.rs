//! Where an instance lives in bpffs, and who may change it at one time.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libbpf_rs::MapHandle;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::load::{GraphMaps, Maps};
use super::sys;
use crate::error::{Doing, Error, Result};

pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/kernloom";
const BPFFS: &str = "/sys/fs/bpf";

/// The pin that says an instance is whole: made last, removed first.
const PROGRAM: &str = "program";
const MAPS: [&str; 6] = [
    "sources", "policies", "prefixes", "counters", "events", "control",
];
/// Of the edge stage, where the instance has one.
const GRAPH_MAPS: [&str; 3] = ["edges", "groups", "graphs"];
const EGRESS: &str = "egress";
const LINK: &str = "link-";

/// A directory in bpffs that holds one instance: its program, maps and one link per interface.
#[derive(Debug, Clone)]
pub struct PinDir {
    path: PathBuf,
}

/// Held while an instance is changed; others wait.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<fs::File>,
}

impl PinDir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, mode 0700, mounting bpffs where it is missing.
    pub fn create(&self) -> Result<()> {
        if self.path.starts_with(BPFFS) {
            mount_bpffs()?;
        }
        let doing = || format!("making {}", self.path.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .doing(doing)?;
        let kind = statfs(&self.path).doing(doing)?.filesystem_type();
        if kind != BPF_FS_MAGIC {
            return Err(Error::operator(format!(
                "{} is not in a BPF file system; give --bpffs a directory below {BPFFS}",
                self.path.display()
            )));
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)).doing(doing)
    }

    /// Waits for whoever is changing the instance now.
    pub fn lock(&self) -> Result<Lock> {
        let doing = || format!("locking {}", self.path.display());
        let file = fs::File::open(&self.path).doing(doing)?;
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .doing(doing)?;
        Ok(Lock { _file: file })
    }

    /// Whether a whole instance is pinned here.
    pub fn is_loaded(&self) -> Result<bool> {
        self.path
            .join(PROGRAM)
            .try_exists()
            .doing(|| format!("looking into {}", self.path.display()))
    }

    pub(super) fn program(&self) -> PathBuf {
        self.path.join(PROGRAM)
    }

    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        // By number: interface names may hold dots, which bpffs reserves.
        self.path.join(format!("{LINK}{ifindex}"))
    }

    pub(super) fn links(&self) -> Result<Vec<PathBuf>> {
        let doing = || format!("listing {}", self.path.display());
        let mut links = Vec::new();
        for entry in fs::read_dir(&self.path).doing(doing)? {
            let entry = entry.doing(doing)?;
            if entry.file_name().to_string_lossy().starts_with(LINK) {
                links.push(entry.path());
            }
        }
        links.sort();
        Ok(links)
    }

    /// Pins everything, the program last, clearing what an interrupted attempt left.
    pub(super) fn pin(
        &self,
        program: BorrowedFd<'_>,
        egress: Option<BorrowedFd<'_>>,
        maps: &Maps,
    ) -> Result<()> {
        use std::os::fd::AsFd;
        let handles = [
            &maps.sources,
            &maps.policies,
            &maps.prefixes,
            &maps.counters,
            &maps.events,
            &maps.bss,
        ];
        let graph = maps
            .graph
            .as_ref()
            .map(|graph| [&graph.edges, &graph.groups, &graph.graphs]);
        let graph = GRAPH_MAPS.iter().zip(graph.into_iter().flatten());
        let all = MAPS.iter().zip(handles).chain(graph);
        let all = all.map(|(name, handle)| (*name, handle.as_fd()));
        for (name, object) in all.chain(egress.map(|program| (EGRESS, program))) {
            let path = self.path.join(name);
            remove_if_there(&path)?;
            sys::pin(object, &path).doing(|| format!("pinning {}", path.display()))?;
        }
        let path = self.program();
        sys::pin(program, &path).doing(|| format!("pinning {}", path.display()))
    }

    pub(super) fn open_maps(&self) -> Result<Maps> {
        let open = |name: &str| {
            let path = self.path.join(name);
            MapHandle::from_pinned_path(&path).doing(|| format!("opening {}", path.display()))
        };
        let [sources, policies, prefixes, counters, events, bss] = MAPS;
        Ok(Maps {
            sources: open(sources)?,
            policies: open(policies)?,
            prefixes: open(prefixes)?,
            counters: open(counters)?,
            events: open(events)?,
            bss: open(bss)?,
            graph: self.open_graph_maps()?,
        })
    }

    fn open_graph_maps(&self) -> Result<Option<GraphMaps>> {
        if !self
            .egress()
            .try_exists()
            .doing(|| "looking for the edge stage")?
        {
            return Ok(None);
        }
        let open = |name: &str| {
            let path = self.path.join(name);
            MapHandle::from_pinned_path(&path).doing(|| format!("opening {}", path.display()))
        };
        let [edges, groups, graphs] = GRAPH_MAPS;
        Ok(Some(GraphMaps {
            edges: open(edges)?,
            groups: open(groups)?,
            graphs: open(graphs)?,
        }))
    }

    pub(super) fn egress(&self) -> PathBuf {
        self.path.join(EGRESS)
    }

    /// Removes every pin and the directory. Links must be detached before.
    pub(super) fn remove(&self) -> Result<()> {
        remove_if_there(&self.program())?;
        for name in MAPS.iter().chain(&GRAPH_MAPS).chain(&[EGRESS]) {
            remove_if_there(&self.path.join(name))?;
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn mount_bpffs() -> Result<()> {
    let mounted = statfs(BPFFS).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    let doing = || format!("mounting the BPF file system at {BPFFS}");
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .doing(doing)?;
    log::info!("mounted the BPF file system at {BPFFS}");
    Ok(())
}
