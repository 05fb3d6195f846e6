//! File systems that are full.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small file system, gone with the value.
pub(super) struct Small(PathBuf);

impl Small {
    /// Of so many KiB, where there may be a directory already.
    pub(super) fn at(path: &Path, kib: u32) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k,mode=0700");
        let (device, size) = (Some("kernloom-small"), Some(size.as_str()));
        mount(device, path, Some("tmpfs"), MsFlags::empty(), size).unwrap();
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room there is left; by which file.
    pub(super) fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let full = std::fs::write(&path, vec![1; 2 << 20]);
        assert!(full.is_err(), "it has no bounds");
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("unmounting {}: {error}", self.0.display());
        }
    }
}
