//! Calls into bpf(2) that libbpf-rs does not wrap.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Attaches an XDP program by bpf_link, in the mode `flags` name (`XDP_FLAGS_*`).
pub(super) fn xdp_link_create(
    prog: BorrowedFd<'_>,
    ifindex: i32,
    flags: u32,
) -> io::Result<OwnedFd> {
    link_create(prog, ifindex, libbpf_sys::BPF_XDP, flags)
}

/// Attaches a program to a hook of an interface by bpf_link.
pub(super) fn link_create(
    prog: BorrowedFd<'_>,
    ifindex: i32,
    hook: libbpf_sys::bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        // SAFETY: an all-zero bpf_link_create_opts is what DECLARE_LIBBPF_OPTS starts from.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: the descriptor is borrowed for the call; opts outlives it and carries its size.
    let fd =
        unsafe { libbpf_sys::bpf_link_create(prog.as_raw_fd(), ifindex, hook, &raw const opts) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a live descriptor and a NUL-terminated path, both for the length of the call.
    let code = unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) };
    if code < 0 {
        Err(io::Error::from_raw_os_error(-code))
    } else {
        Ok(())
    }
}

/// What BPF_PROG_TEST_RUN answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    pub(super) action: u32,
    /// Mean of all repetitions.
    pub(super) duration: Duration,
}

pub(super) fn test_run(prog: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        repeat: i32::try_from(repeat).map_err(io::Error::other)?,
        ..Default::default()
    };
    // SAFETY: data_in points at data_size_in readable bytes; no output buffers are given.
    let code = unsafe { libbpf_sys::bpf_prog_test_run_opts(prog.as_raw_fd(), &raw mut opts) };
    if code < 0 {
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(Ran {
        action: opts.retval,
        duration: Duration::from_nanos(opts.duration.into()),
    })
}
