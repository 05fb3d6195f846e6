//! Classic TC ingress (clsact), for kernels before tcx. A filter there has no link: it stays until
//! removed, and a pin of its program says whose it is.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::{ErrorKind, ProgramHandle, TC_INGRESS, TcHook, TcHookBuilder};

use crate::error::{Doing, Result};

/// Ours by number: one filter, early but not first.
const HANDLE: u32 = 0x6b6c;
const PRIORITY: u32 = 10;

fn hook(prog: BorrowedFd<'_>, ifindex: i32) -> TcHook {
    TcHookBuilder::new(prog)
        .ifindex(ifindex)
        .replace(true)
        .handle(HANDLE)
        .priority(PRIORITY)
        .hook(TC_INGRESS)
}

/// Attaches, or puts the program in the place of the one this instance has there: no packet
/// sees a gap.
pub(super) fn attach(prog: BorrowedFd<'_>, interface: &str, ifindex: i32) -> Result<()> {
    let mut hook = hook(prog, ifindex);
    hook.create()
        .doing(|| format!("making a TC hook on {interface}"))?;
    hook.attach()
        .doing(|| format!("attaching to TC ingress of {interface}"))?;
    Ok(())
}

/// Whether the program pinned at `path` is the one in our place.
pub(super) fn is_there(path: &Path, ifindex: i32) -> Result<bool> {
    let prog =
        ProgramHandle::from_pinned_path(path).doing(|| format!("opening {}", path.display()))?;
    let id = super::sys::program_id(prog.as_fd()).doing(|| "asking which program is pinned")?;
    let found = hook(prog.as_fd(), ifindex).query();
    Ok(found.is_ok_and(|there| there == id))
}

pub(super) fn detach(ifindex: i32) -> Result<()> {
    let stdin = std::io::stdin();
    match hook(stdin.as_fd(), ifindex).detach() {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("detaching from TC ingress of interface {ifindex}"))
        }
        _ => Ok(()),
    }
}
