//! One IQ per instance.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Doing, Error, Result};
use crate::trust;

enum Instance {
    Ours(Flock<File>),
    /// Of the process with this id.
    Theirs(String),
}

/// Held for as long as this IQ runs; the kernel lets go of it whichever way the process ends.
pub fn only_iq(run_dir: &Path) -> Result<Flock<File>> {
    match instance(run_dir)? {
        Instance::Ours(lock) => Ok(lock),
        Instance::Theirs(pid) => Err(Error::operator(format!(
            "another 'kernloom iq' (pid {pid}) already runs here; stop it first, or give --run-dir and \
             --bpffs of another instance"
        ))),
    }
}

/// The same lock where no IQ holds it.
pub fn no_iq(run_dir: &Path) -> Result<Option<Flock<File>>> {
    match instance(run_dir)? {
        Instance::Ours(lock) => Ok(Some(lock)),
        Instance::Theirs(_) => Ok(None),
    }
}

fn instance(run_dir: &Path) -> Result<Instance> {
    trust::make_dir(run_dir).doing(|| format!("making {}", run_dir.display()))?;
    let path = run_dir.join("iq.lock");
    let doing = || format!("locking {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .doing(doing)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).doing(doing)?;
            write!(lock, "{}", std::process::id()).doing(doing)?;
            Ok(Instance::Ours(lock))
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).doing(doing)?;
            Ok(Instance::Theirs(pid))
        }
        Err((_, errno)) => Err(errno).doing(doing),
    }
}
