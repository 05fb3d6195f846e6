//! Classic TC (clsact), for kernels before tcx. A filter there has no link: it stays until
//! removed, and a pin of its program says whose it is.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::{ErrorKind, ProgramHandle, TC_INGRESS, TcAttachPoint, TcHook, TcHookBuilder};

use crate::error::{Doing, Result};

/// Ours by number: one filter, early but not first.
const HANDLE: u32 = 0x6b6c;
const PRIORITY: u32 = 10;

fn hook(prog: BorrowedFd<'_>, ifindex: i32, point: TcAttachPoint) -> TcHook {
    TcHookBuilder::new(prog)
        .ifindex(ifindex)
        .replace(true)
        .handle(HANDLE)
        .priority(PRIORITY)
        .hook(point)
}

/// Attaches, or puts the program in the place of the one this instance has there: no packet
/// sees a gap.
pub(super) fn attach(
    prog: BorrowedFd<'_>,
    interface: &str,
    ifindex: i32,
    point: TcAttachPoint,
) -> Result<()> {
    let mut hook = hook(prog, ifindex, point);
    hook.create()
        .doing(|| format!("making a TC hook on {interface}"))?;
    hook.attach()
        .doing(|| format!("attaching to TC {} of {interface}", name(point)))?;
    Ok(())
}

/// Whether the program pinned at `path` is the one in our place.
pub(super) fn is_there(path: &Path, ifindex: i32, point: TcAttachPoint) -> Result<bool> {
    let prog =
        ProgramHandle::from_pinned_path(path).doing(|| format!("opening {}", path.display()))?;
    let id = super::sys::program_id(prog.as_fd()).doing(|| "asking which program is pinned")?;
    let found = hook(prog.as_fd(), ifindex, point).query();
    Ok(found.is_ok_and(|there| there == id))
}

pub(super) fn detach(ifindex: i32, point: TcAttachPoint) -> Result<()> {
    let stdin = std::io::stdin();
    match hook(stdin.as_fd(), ifindex, point).detach() {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("detaching from TC {} of interface {ifindex}", name(point)))
        }
        _ => Ok(()),
    }
}

const fn name(point: TcAttachPoint) -> &'static str {
    if point == TC_INGRESS {
        "ingress"
    } else {
        "egress"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::LoadOptions;
    use crate::dataplane::load::{self, Variant};
    use crate::dataplane::pin::{PinDir, remove_if_there};

    /// Kernels with tcx never come here by themselves. A namespace of its own, and its loopback.
    #[test]
    fn a_classic_filter_is_put_replaced_and_taken_away() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none());
            eprintln!("SKIPPED: loading programs needs root");
            return;
        }
        let pins = PinDir::new(format!("/sys/fs/bpf/klw-{}-filter", std::process::id()));
        pins.create().unwrap();
        let inside = std::thread::spawn({
            let path = pins.filter(1);
            move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let loaded = load::load(&LoadOptions::default()).unwrap();
                let first = load::load_beside(&loaded.maps, Variant::Tc).unwrap();
                let second = load::load_beside(&loaded.maps, Variant::Tc).unwrap();
                let pin = |prog: BorrowedFd<'_>| {
                    remove_if_there(&path).unwrap();
                    super::super::sys::pin(prog, &path).unwrap();
                    is_there(&path, 1, TC_INGRESS).unwrap()
                };
                assert!(!pin(first.as_fd()));
                attach(first.as_fd(), "lo", 1, TC_INGRESS).unwrap();
                assert!(pin(first.as_fd()) && !pin(second.as_fd()));
                attach(second.as_fd(), "lo", 1, TC_INGRESS).unwrap();
                assert!(pin(second.as_fd()) && !pin(first.as_fd()));
                detach(1, TC_INGRESS).unwrap();
                assert!(!pin(second.as_fd()));
                detach(1, TC_INGRESS).unwrap();
            }
        });
        let ended = inside.join();
        remove_if_there(&pins.filter(1)).unwrap();
        std::fs::remove_dir(pins.path()).unwrap();
        ended.unwrap();
    }
}
