//! Where an instance lives in bpffs, and who may change it at one time.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libbpf_rs::MapHandle;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollTimeout, poll};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::load::Variant;
use super::maps::Maps;
use super::sys;
use crate::error::{Doing, Error, Result};
use crate::trust;

pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/kernloom";
const BPFFS: &str = "/sys/fs/bpf";

/// The pin that says an instance is whole: made last, removed first.
const PROGRAM: &str = "program";
const PROGRAM_FRAGS: &str = "program-frags";
const PROGRAM_TC: &str = "program-tc";
const PROGRAM_EGRESS: &str = "program-egress";
const PROGRAMS: [&str; 4] = [PROGRAM, PROGRAM_FRAGS, PROGRAM_TC, PROGRAM_EGRESS];
/// What is about to replace a pin.
const NEXT: &str = "next-";
const LINK: &str = "link-";
/// Says that a classic TC filter is on that interface; such a filter has no link to pin.
const FILTER: &str = "filter-";
/// A directory, for the lock on it: pinned objects cannot be locked.
const STEERING: &str = "steering";
/// The same two, of the companion for what leaves.
const EGRESS: &str = "egress-";
const EGRESS_FILTER: &str = "egressfilter-";

/// A directory in bpffs that holds one instance: its program, maps and one link per interface.
#[derive(Debug, Clone)]
pub struct PinDir {
    path: PathBuf,
}

/// Held while a process steers an instance; the kernel lets go of it however that process ends.
#[derive(Debug)]
pub struct Steering {
    _dir: Flock<fs::File>,
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
        self.refuse_dots()?;
        let doing = || format!("making {}", self.path.display());
        trust::make_dir(&self.path).doing(doing)?;
        trust::refuse_foreign_dir(&self.path)?;
        self.refuse_other_places()?;
        // Whoever could write here may have left pins of his own.
        let mode = fs::metadata(&self.path).doing(doing)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(Error::operator(format!(
                "{name}: others may write into it (mode {mode:04o}); remove it ('rm -r {name}')",
                name = self.path.display()
            )));
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)).doing(doing)
    }

    /// Names in bpffs hold no dots: it refuses them as if rights were missing.
    fn refuse_dots(&self) -> Result<()> {
        let there = self.path.ancestors().find(|path| path.exists());
        let there = there.unwrap_or(Path::new("."));
        let missing = self.path.strip_prefix(there).unwrap_or(&self.path);
        let is_bpffs = statfs(there).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
        let takes = |name: &&OsStr| [".", ".."].contains(&&*name.to_string_lossy());
        let dotted = missing
            .iter()
            .find(|name| name.as_encoded_bytes().contains(&b'.') && !takes(name));
        match dotted.filter(|_| is_bpffs) {
            Some(name) => Err(Error::operator(format!(
                "making {}: the BPF file system takes no dot in a name; give --bpffs another than '{}'",
                self.path.display(),
                name.display()
            ))),
            None => Ok(()),
        }
    }

    /// The directory is ours, its rights and its end: not one of another file system, and never a
    /// whole one.
    pub fn refuse_other_places(&self) -> Result<()> {
        let doing = || format!("looking at {}", self.path.display());
        let kind = statfs(&self.path).doing(doing)?.filesystem_type();
        if kind != BPF_FS_MAGIC {
            return Err(Error::operator(format!(
                "{} is not in a BPF file system; give --bpffs a directory below {BPFFS}",
                self.path.display()
            )));
        }
        let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).doing(doing);
        if device(&self.path)? != device(&self.path.join(".."))? {
            return Err(Error::operator(format!(
                "{} is a BPF file system itself; give --bpffs a directory below it",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Makes it and locks it, although another process may be taking it away.
    pub fn create_locked(&self) -> Result<Lock> {
        const TRIES: u32 = 100;
        for _ in 1..TRIES {
            self.create()?;
            match self.lock() {
                Err(_) if !self.is_made()? => {}
                locked => return locked,
            }
        }
        self.create()?;
        self.lock()
    }

    /// What to do about there being no instance.
    pub fn nothing_loaded(&self) -> Error {
        Error::operator(format!(
            "nothing is loaded in {}; start with 'kernloom shield attach' or 'kernloom iq'",
            self.path.display()
        ))
    }

    /// # Errors
    /// Operator's, where no whole instance is pinned here.
    pub fn must_be_loaded(&self) -> Result<()> {
        match self.is_loaded()? {
            true => Ok(()),
            false => Err(self.nothing_loaded()),
        }
    }

    /// Taken by the one process that steers the instance, for as long as it runs.
    pub fn steer(&self) -> Result<Steering> {
        let path = self.path.join(STEERING);
        let doing = || format!("locking {}", path.display());
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).doing(doing);
            }
            _ => {}
        }
        let dir = fs::File::open(&path).doing(doing)?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(dir) => Ok(Steering { _dir: dir }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::operator(format!(
                "another 'kernloom iq' steers {} already, under another --run-dir; stop it first, or give \
                 --bpffs of another instance",
                self.path.display()
            ))),
            Err((_, errno)) => Err(errno).doing(doing),
        }
    }

    /// Waits for whoever is changing the instance now.
    pub fn lock(&self) -> Result<Lock> {
        // The one who holds it is done in milliseconds, seconds where a million entries move to
        // new maps, or stopped; nobody waits for ever.
        const TRIES: u32 = 600;
        for _ in 1..TRIES {
            match self.flock()? {
                Some(lock) => return Ok(lock),
                // A signal only makes the wait shorter.
                None => drop(poll(&mut [], PollTimeout::from(100u8))),
            }
        }
        self.try_lock()
    }

    /// The same at once or not at all.
    pub fn try_lock(&self) -> Result<Lock> {
        self.flock()?.ok_or_else(|| {
            Error::world(format!(
                "another kernloom command is changing {} and does not finish; 'fuser {}' shows which",
                self.path.display(),
                self.path.display()
            ))
        })
    }

    fn flock(&self) -> Result<Option<Lock>> {
        trust::refuse_foreign_dir(&self.path)?;
        let doing = || format!("locking {}", self.path.display());
        let file = match fs::File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.nothing_loaded());
            }
            file => file.doing(doing)?,
        };
        let locked = file.metadata().doing(doing)?.ino();
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Taken away by who held it, and maybe made anew.
            Ok(_) if fs::metadata(&self.path).map_or(0, |about| about.ino()) != locked => Ok(None),
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).doing(doing),
        }
    }

    /// Whether a whole instance is pinned here.
    pub fn is_loaded(&self) -> Result<bool> {
        self.has(PROGRAM)
    }

    /// Whether the directory is there, with a whole instance or what is left of one.
    pub fn is_made(&self) -> Result<bool> {
        exists(&self.path)
    }

    /// Whether something is pinned by that name.
    pub(super) fn has(&self, name: &str) -> Result<bool> {
        exists(&self.path.join(name))
    }

    pub(super) fn program(&self, variant: Variant) -> PathBuf {
        self.path.join(match variant {
            Variant::Xdp => PROGRAM,
            Variant::XdpFrags => PROGRAM_FRAGS,
            Variant::Tc => PROGRAM_TC,
            Variant::Egress => PROGRAM_EGRESS,
        })
    }

    pub(super) fn filter(&self, ifindex: u32) -> PathBuf {
        self.path.join(format!("{FILTER}{ifindex}"))
    }

    /// Interfaces with a classic TC filter of this instance.
    pub(super) fn filters(&self) -> Result<Vec<u32>> {
        self.numbered(FILTER)
    }

    fn numbered(&self, prefix: &str) -> Result<Vec<u32>> {
        let numbers = self.named(prefix)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(prefix)?.parse().ok()
        });
        Ok(numbers.collect())
    }

    pub(super) fn egress(&self, ifindex: u32) -> PathBuf {
        self.path.join(format!("{EGRESS}{ifindex}"))
    }

    pub(super) fn egress_links(&self) -> Result<Vec<PathBuf>> {
        self.named(EGRESS)
    }

    pub(super) fn egress_filter(&self, ifindex: u32) -> PathBuf {
        self.path.join(format!("{EGRESS_FILTER}{ifindex}"))
    }

    pub(super) fn egress_filters(&self) -> Result<Vec<u32>> {
        self.numbered(EGRESS_FILTER)
    }

    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        // By number: interface names may hold dots, which bpffs reserves.
        self.path.join(format!("{LINK}{ifindex}"))
    }

    pub(super) fn links(&self) -> Result<Vec<PathBuf>> {
        self.named(LINK)
    }

    fn named(&self, prefix: &str) -> Result<Vec<PathBuf>> {
        let doing = || format!("listing {}", self.path.display());
        let mut links = Vec::new();
        for entry in fs::read_dir(&self.path).doing(doing)? {
            let entry = entry.doing(doing)?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                links.push(entry.path());
            }
        }
        links.sort();
        Ok(links)
    }

    /// Pins everything, the program last, in place of what is pinned there.
    pub(super) fn pin(&self, program: BorrowedFd<'_>, maps: &Maps) -> Result<()> {
        use std::os::fd::AsFd;
        for (name, handle) in maps.all() {
            self.replace(&self.path.join(name), handle.as_fd())?;
        }
        self.replace(&self.program(Variant::Xdp), program)
    }

    /// Pins an object under a name that may be taken; there is no moment without it.
    pub(super) fn replace(&self, path: &Path, object: BorrowedFd<'_>) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let next = self.path.join(format!("{NEXT}{name}"));
        remove_if_there(&next)?;
        sys::pin(object, &next).doing(|| format!("pinning {}", path.display()))?;
        fs::rename(&next, path).doing(|| format!("pinning {}", path.display()))
    }

    pub(super) fn open_map(&self, name: &str) -> Result<MapHandle> {
        let path = self.path.join(name);
        MapHandle::from_pinned_path(&path).doing(|| format!("opening {}", path.display()))
    }

    pub(super) fn open_maps(&self) -> Result<Maps> {
        Maps::open(|name| self.open_made(name))
    }

    /// `None` for a map that was not made.
    pub(super) fn open_made(&self, name: &str) -> Result<Option<MapHandle>> {
        self.has(name)?.then(|| self.open_map(name)).transpose()
    }

    /// Removes every pin and the directory. Links must be detached before.
    pub(super) fn remove(&self) -> Result<()> {
        for name in PROGRAMS.iter().copied().chain(Maps::names()) {
            remove_if_there(&self.path.join(name))?;
        }
        // Links left here are dead: what they were on is gone, or somebody took its place.
        for prefix in [NEXT, LINK, FILTER, EGRESS, EGRESS_FILTER] {
            for left in self.named(prefix)? {
                remove_if_there(&left)?;
            }
        }
        for dir in [&self.path.join(STEERING), &self.path] {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).doing(|| format!("removing {}", dir.display()))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What may not be looked at is no reason to say that nothing is there.
pub(super) fn exists(path: &Path) -> Result<bool> {
    path.try_exists()
        .doing(|| format!("looking for {}", path.display()))
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn has_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs() -> Result<()> {
    if has_bpffs() {
        return Ok(());
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .map_err(std::io::Error::from)
    .map_err(|error| {
        // Where root is refused, a unit's sandbox refuses: it may not mount, and need not.
        Error::world(format!(
            "mounting the BPF file system at {BPFFS}: {error}; run 'mount -t bpf bpf {BPFFS}' as root, outside of \
             any unit or container"
        ))
    })?;
    log::info!("mounted the BPF file system at {BPFFS}");
    Ok(())
}
