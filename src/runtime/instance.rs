//! One IQ per instance.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Doing, Error, Result};

/// Held for as long as this IQ runs; the kernel lets go of it whichever way the process ends.
pub fn only_iq(run_dir: &Path) -> Result<Flock<File>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)
        .doing(|| format!("making {}", run_dir.display()))?;
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
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).doing(doing)?;
            Err(Error::operator(format!(
                "another 'kernloom iq' (pid {pid}) already runs here; stop it first, or give --run-dir and \
                 --bpffs of another instance"
            )))
        }
        Err((_, errno)) => Err(errno).doing(doing),
    }
}
