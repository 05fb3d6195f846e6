//! Names that tell whose they are, and the removal of what a killed lab left behind.
//!
//! Everything a lab makes is called `klw-<pid>-<lab>` or begins so, in three places: namespaces,
//! bpffs and /run. A name whose process is gone belongs to nobody and is removed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::namespace::{NETNS_DIR, delete};

const PREFIX: &str = "klw-";

/// Parent of the labs' pin directories.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// Parent of the labs' directories.
pub(super) const DIRS: &str = "/run";

/// The common beginning of all names of a lab of this process.
pub(super) fn stem(lab: &str) -> String {
    format!("{PREFIX}{}-{lab}", std::process::id())
}

/// Removes what labs of dead processes left.
pub(super) fn sweep_dead() {
    sweep(|pid| !Path::new("/proc").join(pid.to_string()).exists());
}

/// Removes everything this process made. For a panic hook where panics abort and nothing drops.
pub(crate) fn sweep_own() {
    let own = std::process::id();
    sweep(|pid| pid == own);
}

/// Everything of this process's labs that exists now; empty once a lab is gone.
pub(crate) fn leftovers() -> Vec<PathBuf> {
    let own = std::process::id();
    [NETNS_DIR, BPFFS, DIRS]
        .into_iter()
        .flat_map(|dir| named(dir, &|pid| pid == own))
        .collect()
}

fn sweep(whose: impl Fn(u32) -> bool) {
    // Pins first: XDP detaches, then the interfaces go.
    for path in named(BPFFS, &whose) {
        remove(&path);
    }
    for path in named(NETNS_DIR, &whose) {
        if let Some(name) = path.file_name() {
            delete(&name.to_string_lossy());
        }
    }
    for path in named(DIRS, &whose) {
        remove(&path);
    }
}

/// Removes a directory that may not exist. Says so when it cannot.
pub(super) fn remove(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            eprintln!("lab: removing {}: {error}", dir.display());
        }
        Ok(()) | Err(_) => {}
    }
}

fn named(dir: &str, whose: &impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new(); // nothing was ever made there
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| owner(path).is_some_and(whose))
        .collect()
}

/// The pid in `klw-<pid>-...`.
fn owner(path: &Path) -> Option<u32> {
    let rest = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    rest.split('-').next()?.parse().ok()
}
