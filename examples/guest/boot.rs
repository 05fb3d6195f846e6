//! From a bare kernel to something programs can run in, and back.

use std::fs::{self, File};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use crate::{Doing, Result};

pub(crate) fn bring_up() -> Result<String> {
    for (kind, path) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
    ] {
        fs::create_dir_all(path).doing(path)?;
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
            .doing(&format!("mounting {path}"))?;
    }
    let modules = load_modules()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").doing("naming the kernel")?;
    let uptime = fs::read_to_string("/proc/uptime").doing("reading the uptime")?;
    let uptime = uptime.split(' ').next().unwrap_or_default();
    Ok(format!(
        "{} after {uptime} s, {modules} modules",
        kernel.trim()
    ))
}

/// Loads the modules in the order the runner worked out.
fn load_modules() -> Result<usize> {
    let order = fs::read_to_string("/modules/order").doing("reading /modules/order")?;
    for name in order.lines() {
        let path = Path::new("/modules").join(name);
        let file = File::open(&path).doing(name)?;
        match nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(format!("loading {name}: {error}")),
        }
    }
    Ok(order.lines().count())
}

/// Restarts the machine, which the runner's qemu takes as the end.
pub(crate) fn end() {
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    println!("guest: cannot restart: {error}");
}
