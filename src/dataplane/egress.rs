//! The TC companion on an interface: by tcx link where the kernel has it (6.6), else by clsact.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use super::pin::{PinDir, remove_if_there};
use super::sys;
use crate::error::{Doing, Error, Result};

/// Where the companion stands among clsact's filters, so that it is found again.
const HANDLE: u32 = 1;
const PRIORITY: u32 = 0x6b6c;

fn path(pins: &PinDir, ifindex: u32) -> PathBuf {
    pins.path().join(format!("egress-{ifindex}"))
}

/// Attaches, replacing what this instance had there.
pub(super) fn attach(pins: &PinDir, prog: BorrowedFd<'_>, ifindex: u32) -> Result<()> {
    let path = path(pins, ifindex);
    remove_if_there(&path)?;
    let index =
        i32::try_from(ifindex).map_err(|_| Error::world("interface number out of range"))?;
    match sys::link_create(prog, index, libbpf_sys::BPF_TCX_EGRESS, 0) {
        Ok(link) => sys::pin(link.as_fd(), &path).doing(|| format!("pinning {}", path.display())),
        Err(_) => clsact(prog, index)
            .doing(|| format!("attaching the outbound companion to interface {ifindex}")),
    }
}

fn hook(index: i32) -> libbpf_sys::bpf_tc_hook {
    libbpf_sys::bpf_tc_hook {
        sz: size_of::<libbpf_sys::bpf_tc_hook>() as libbpf_sys::size_t,
        ifindex: index,
        attach_point: libbpf_sys::BPF_TC_EGRESS,
        ..Default::default()
    }
}

fn options() -> libbpf_sys::bpf_tc_opts {
    libbpf_sys::bpf_tc_opts {
        sz: size_of::<libbpf_sys::bpf_tc_opts>() as libbpf_sys::size_t,
        handle: HANDLE,
        priority: PRIORITY,
        ..Default::default()
    }
}

fn clsact(prog: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    let mut hook = hook(index);
    let mut options = libbpf_sys::bpf_tc_opts {
        prog_fd: prog.as_raw_fd(),
        flags: libbpf_sys::BPF_TC_F_REPLACE,
        ..options()
    };
    // SAFETY: both structs carry their size and outlive the calls.
    let code = unsafe {
        match libbpf_sys::bpf_tc_hook_create(&raw mut hook) {
            0 => {}
            // Somebody has a clsact there already: it is shared.
            code if code == -(Errno::EEXIST as i32) => {}
            code => return Err(io::Error::from_raw_os_error(-code)),
        }
        libbpf_sys::bpf_tc_attach(&raw const hook, &raw mut options)
    };
    if code < 0 {
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(())
}

/// Detaches; nothing happens where it was not attached. The clsact stays: others may use it.
pub(super) fn detach(pins: &PinDir, ifindex: u32) -> Result<()> {
    let path = path(pins, ifindex);
    if path
        .try_exists()
        .doing(|| format!("looking for {}", path.display()))?
    {
        let link = libbpf_rs::Link::open(&path).doing(|| format!("opening {}", path.display()))?;
        // Gone already if its interface is.
        if let Err(error) = link.detach() {
            log::debug!("detaching the outbound companion from interface {ifindex}: {error}");
        }
        return remove_if_there(&path);
    }
    let Ok(index) = i32::try_from(ifindex) else {
        return Ok(());
    };
    let (hook, options) = (hook(index), options());
    // SAFETY: both structs carry their size and outlive the call. It fails where nothing is attached.
    let code = unsafe { libbpf_sys::bpf_tc_detach(&raw const hook, &raw const options) };
    if code < 0 {
        log::debug!("no outbound companion by clsact on interface {ifindex} ({code})");
    }
    Ok(())
}
