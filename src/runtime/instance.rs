//! One IQ per instance, and one command at a time where none runs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Doing, Error, Result};
use crate::trust;

/// Held by an IQ for as long as it runs; holds its process id.
const RUNS: &str = "iq.lock";

/// Held by whoever takes or looks at the other, and by a command for as long as it works in an IQ's
/// stead. So whoever finds the other taken finds its holder's id written there, too.
const TURN: &str = "turn.lock";

/// Held for as long as this IQ runs; the kernel lets go of it whichever way the process ends. Waits
/// for a command that is at work.
///
/// # Errors
/// Operator's, with the process id of the IQ that runs.
pub fn only_iq(run_dir: &Path) -> Result<Flock<File>> {
    let _turn = turn(run_dir)?;
    let doing = || format!("locking {}", run_dir.join(RUNS).display());
    match Flock::lock(open(run_dir, RUNS)?, FlockArg::LockExclusiveNonblock) {
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

/// For a command, `None` where an IQ runs: no IQ starts while this is held. Waits for another
/// command that is at work.
pub fn no_iq(run_dir: &Path) -> Result<Option<Flock<File>>> {
    let turn = turn(run_dir)?;
    match Flock::lock(open(run_dir, RUNS)?, FlockArg::LockExclusiveNonblock) {
        Ok(_) => Ok(Some(turn)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).doing(|| format!("locking {}", run_dir.join(RUNS).display())),
    }
}

/// Held for as long as this process reads and writes what is kept in `dirs`, which are made where they
/// are missing: under another run directory, an IQ does not see the lock of the first.
///
/// # Errors
/// Operator's, where another process does.
pub fn only_keeper(dirs: &[&Path]) -> Result<Vec<Flock<File>>> {
    let mut held: Vec<Flock<File>> = Vec::new();
    for path in dirs {
        let doing = || format!("locking {}", path.display());
        trust::make_dir(path).doing(|| format!("making {}", path.display()))?;
        let dir = File::open(path).doing(doing)?;
        let about = dir.metadata().doing(doing)?;
        let is_this = |other: &Flock<File>| {
            let other = other.metadata();
            other.is_ok_and(|other| (other.dev(), other.ino()) == (about.dev(), about.ino()))
        };
        if held.iter().any(is_this) {
            continue;
        }
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => held.push(lock),
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Error::operator(format!(
                    "another kernloom keeps its state in {}, under another --run-dir; give that --run-dir, or stop \
                     it, or give --state-dir and --store of another instance",
                    path.display()
                )));
            }
            Err((_, errno)) => return Err(errno).doing(doing),
        }
    }
    Ok(held)
}

/// Waits for the turn of this process.
fn turn(run_dir: &Path) -> Result<Flock<File>> {
    let mut file = open(run_dir, TURN)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => {
                return Err(errno).doing(|| format!("locking {}", run_dir.join(TURN).display()));
            }
        }
    }
}

fn open(run_dir: &Path, name: &str) -> Result<File> {
    trust::private_dir(run_dir)?;
    let path = run_dir.join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .doing(|| format!("locking {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::trust::private_tempdir;

    #[test]
    fn an_iq_waits_for_commands_and_commands_for_each_other() {
        let dir = private_tempdir();
        let path = dir.path();
        let command = no_iq(path).unwrap().unwrap();
        thread::scope(|scope| {
            let (told, order) = mpsc::channel();
            let next = [0, 1].map(|_| {
                let told = told.clone();
                scope.spawn(move || {
                    let turn = no_iq(path).unwrap();
                    told.send("a command").unwrap();
                    turn.is_some()
                })
            });
            told.send("the first command").unwrap();
            drop(command);
            for command in next {
                assert!(command.join().unwrap(), "no iq runs yet");
            }
            let command = no_iq(path).unwrap().unwrap();
            let iq = scope.spawn({
                let told = told.clone();
                move || {
                    let iq = only_iq(path);
                    told.send("the iq").unwrap();
                    iq.unwrap()
                }
            });
            told.send("the last command").unwrap();
            drop(command);
            let iq = iq.join().unwrap();
            drop(told);
            let order: Vec<_> = order.iter().collect();
            assert_eq!(order[0], "the first command");
            assert_eq!(order[3..], ["the last command", "the iq"]);
            assert!(no_iq(path).unwrap().is_none(), "an iq runs");
            drop(iq);
        });
        assert!(no_iq(path).unwrap().is_some(), "it ended");
    }

    #[test]
    fn what_is_kept_in_a_directory_has_one_keeper_however_often_it_is_named() {
        let dir = private_tempdir();
        let (state, store) = (dir.path().join("state"), dir.path().join("store"));
        let held = only_keeper(&[&state, &store, &state]).unwrap();
        assert_eq!(held.len(), 2);
        let error = only_keeper(&[&store]).unwrap_err();
        assert!(
            error.to_string().contains("under another --run-dir")
                && error.to_string().contains(&store.display().to_string()),
            "{error}"
        );
        assert!(matches!(error, Error::Operator(_)));
        drop(held);
        assert_eq!(only_keeper(&[&store]).unwrap().len(), 1);
    }

    #[test]
    fn of_many_iqs_and_commands_one_iq_runs_and_the_others_name_it() {
        let dir = private_tempdir();
        // What one that crashed left behind.
        std::fs::write(dir.path().join(RUNS), "4194304999").unwrap();
        let path = dir.path();
        let started: Vec<_> = thread::scope(|scope| {
            let commands = [0; 8].map(|_| {
                scope.spawn(move || {
                    for _ in 0..50 {
                        no_iq(path).unwrap();
                    }
                })
            });
            let iqs = [0; 8].map(|_| scope.spawn(move || only_iq(path)));
            let started = iqs.map(|iq| iq.join().unwrap()).into();
            for command in commands {
                command.join().unwrap();
            }
            started
        });
        let (runs, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!(runs.len(), 1);
        let pid = format!("(pid {})", std::process::id());
        for refused in refused {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(&pid), "{text}");
        }
    }
}
