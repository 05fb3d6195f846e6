//! Tells when a file of the operator may have changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::error::{Doing, Result};
use crate::trust::directory_of;

/// Watches the directories of files: editors replace files, which a watch on the file would miss. What
/// happens elsewhere, where a link leads, is seen by looking at the files from time to time.
pub struct Watch {
    inotify: Inotify,
    watched: Vec<Watched>,
}

struct Watched {
    /// `None`: the directory cannot be watched.
    events: Option<WatchDescriptor>,
    name: OsString,
    path: PathBuf,
    /// As it was when it was named last.
    told: Option<Look>,
    /// At the last look.
    last: Option<Look>,
}

/// What tells one version of a file from another. Of a link, that of what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    /// `None` where there is nothing to look at.
    fn at(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        Some(Self {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

impl Watched {
    /// Before it is read: what changes after that is seen at the next look.
    fn tell(&mut self) -> PathBuf {
        self.last = Look::at(&self.path);
        self.told = self.last;
        self.path.clone()
    }
}

impl Watch {
    pub fn new() -> Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).doing(|| "preparing to watch files")?;
        Ok(Self {
            inotify,
            watched: Vec::new(),
        })
    }

    /// Watches `path` from here on. If its directory cannot be watched, [`Self::settled`] alone sees
    /// what happens to it.
    pub fn add(&mut self, path: &Path) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        let events = self.inotify.add_watch(directory_of(path), flags);
        let look = Look::at(path);
        self.watched.push(Watched {
            events: events.ok(),
            name: path.file_name().unwrap_or_default().to_owned(),
            path: path.to_owned(),
            told: look,
            last: look,
        });
    }

    /// The files that something happened to since the last call.
    pub fn changed(&mut self) -> Result<BTreeSet<PathBuf>> {
        let mut changed = BTreeSet::new();
        loop {
            let events = match self.inotify.read_events() {
                Err(Errno::EAGAIN) => return Ok(changed),
                events => events.doing(|| "reading file changes")?,
            };
            for event in events {
                // Changes were lost: any file may be among them.
                let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let touched = self.watched.iter_mut().filter(|one| {
                    lost || one.events == Some(event.wd) && Some(&one.name) == event.name.as_ref()
                });
                changed.extend(touched.map(Watched::tell));
            }
        }
    }

    /// The files that are not what they were when they were named last, and have stayed so since the
    /// last call: one that is being written is not whole yet.
    pub fn settled(&mut self) -> BTreeSet<PathBuf> {
        let mut settled = BTreeSet::new();
        for one in &mut self.watched {
            let look = Look::at(&one.path);
            if look != one.told && look == one.last {
                settled.insert(one.tell());
            }
            one.last = look;
        }
        settled
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_that_is_written_or_replaced_is_named_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("list"), dir.path().join("other"));
        let mut watch = Watch::new().unwrap();
        watch.add(&file);
        let mut changed = || watch.changed().unwrap().into_iter().collect::<Vec<_>>();
        let only = [file.clone()];
        assert!(changed().is_empty());
        fs::write(&other, "").unwrap();
        assert!(changed().is_empty());
        fs::write(&file, "1").unwrap();
        assert_eq!(changed(), only);
        fs::rename(&other, &file).unwrap();
        assert_eq!(changed(), only);
        fs::remove_file(&file).unwrap();
        assert_eq!(changed(), only);
        assert!(changed().is_empty());
    }

    #[test]
    fn permissions_are_a_change_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new().unwrap();
        watch.add(&file);
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(
            watch.changed().unwrap().into_iter().collect::<Vec<_>>(),
            [file]
        );
        assert!(watch.settled().is_empty(), "named already");
    }

    #[test]
    fn what_is_linked_into_place_and_what_a_link_leads_to_are_seen_once_they_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/target"), "1").unwrap();
        fs::write(at("other"), "1").unwrap();
        let (file, late) = (at("list"), at("no/such/dir"));
        let mut watch = Watch::new().unwrap();
        watch.add(&file);
        watch.add(&late);
        let mut seen = |what: &str, path: &Path| {
            assert!(watch.settled().is_empty(), "{what}: it may be half of it");
            assert_eq!(
                watch.settled().into_iter().collect::<Vec<_>>(),
                [path],
                "{what}"
            );
            assert!(watch.settled().is_empty(), "{what}: twice");
        };
        symlink(at("elsewhere/target"), &file).unwrap();
        seen("a link", &file);
        fs::write(at("elsewhere/target"), "12").unwrap();
        seen("its target", &file);
        fs::remove_file(&file).unwrap();
        seen("nothing", &file);
        fs::hard_link(at("other"), &file).unwrap();
        seen("a second name", &file);
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        seen("a pipe", &file);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        seen("a directory", &file);
        fs::create_dir_all(late.parent().unwrap()).unwrap();
        fs::write(&late, "1").unwrap();
        seen("a directory that came later", &late);
    }
}
