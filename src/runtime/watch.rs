//! Tells when a file of the operator may have changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::error::{Doing, Result};

/// Watches the directories of files: editors replace files, which a watch on the file would miss.
pub struct Watch {
    inotify: Inotify,
    watched: Vec<(WatchDescriptor, OsString, PathBuf)>,
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

    /// # Errors
    /// If the directory of `path` does not exist or cannot be watched.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let doing = || format!("watching {} for changes", path.display());
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        let watch = self
            .inotify
            .add_watch(parent.unwrap_or(Path::new(".")), flags)
            .doing(doing)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        self.watched.push((watch, name, path.to_owned()));
        Ok(())
    }

    /// The files that something happened to since the last call.
    pub fn changed(&self) -> Result<BTreeSet<PathBuf>> {
        let mut changed = BTreeSet::new();
        loop {
            let events = match self.inotify.read_events() {
                Err(Errno::EAGAIN) => return Ok(changed),
                events => events.doing(|| "reading file changes")?,
            };
            for event in events {
                // Changes were lost: any file may be among them.
                let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let touched = self.watched.iter().filter(|(watch, name, _)| {
                    lost || (*watch == event.wd && Some(name) == event.name.as_ref())
                });
                changed.extend(touched.map(|(_, _, path)| path.clone()));
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_written_or_replaced_is_named_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("list"), dir.path().join("other"));
        let mut watch = Watch::new().unwrap();
        watch.add(&file).unwrap();
        let changed = || watch.changed().unwrap().into_iter().collect::<Vec<_>>();
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
}
