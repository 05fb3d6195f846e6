//! Calls into bpf(2) that libbpf-rs does not wrap.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::time::TimeValLike;

use crate::error::{Error, Result};
use crate::model::Ktime;

/// Attaches a program to an interface by bpf_link. `flags` are the mode of XDP (`XDP_FLAGS_*`).
pub(super) fn link_create(
    prog: BorrowedFd<'_>,
    ifindex: i32,
    kind: libbpf_sys::bpf_attach_type,
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
        unsafe { libbpf_sys::bpf_link_create(prog.as_raw_fd(), ifindex, kind, &raw const opts) };
    owned(fd)
}

/// Lets a link run another program from the next packet on.
pub(super) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are borrowed for the call; no options are given.
    let code = unsafe {
        libbpf_sys::bpf_link_update(link.as_raw_fd(), prog.as_raw_fd(), std::ptr::null())
    };
    done(code)
}

pub(super) fn link_detach_by_id(id: u32) -> io::Result<()> {
    // SAFETY: takes a number and returns a fresh descriptor or an error.
    let link = owned(unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) })?;
    // SAFETY: the descriptor is open for the length of the call.
    done(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) })
}

pub(super) fn xdp_detach(ifindex: i32, flags: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; no options are given.
    done(unsafe { libbpf_sys::bpf_xdp_detach(ifindex, flags, std::ptr::null()) })
}

/// What the driver says it can do (`NETDEV_XDP_ACT_*`, linux/netdev.h); 0 before Linux 6.3.
pub(super) fn xdp_features(ifindex: i32) -> io::Result<u64> {
    let mut opts = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: opts outlives the call and carries its size.
    done(unsafe { libbpf_sys::bpf_xdp_query(ifindex, 0, &raw mut opts) })?;
    Ok(opts.feature_flags)
}

/// Up to `most` entries of a hash in one call: keys, then values, each one after the other. libbpf-rs
/// allocates twice for every entry.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    (key_size, value_size): (usize, usize),
    most: u32,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut keys = vec![0; key_size * most as usize];
    let mut values = vec![0; value_size * most as usize];
    let (mut next, mut count) = (vec![0_u8; key_size.max(4)], most);
    // SAFETY: both buffers hold `most` entries of the sizes given, which are the map's own, and `next`
    // a position in it; no position to start from and no options are given.
    let code = unsafe {
        libbpf_sys::bpf_map_lookup_batch(
            map.as_raw_fd(),
            std::ptr::null_mut(),
            next.as_mut_ptr().cast(),
            keys.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
            &raw mut count,
            std::ptr::null(),
        )
    };
    match done(code) {
        // The last entry was reached; so says an empty map, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    keys.truncate(key_size * count as usize);
    values.truncate(value_size * count as usize);
    Ok((keys, values))
}

pub(super) fn program_id(prog: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // SAFETY: info is len bytes long and asks for no arrays.
    let code = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(prog.as_raw_fd(), (&raw mut info).cast(), &raw mut len)
    };
    done(code).map(|()| info.id)
}

/// Whether the running kernel is older than that; false if it does not say.
pub(super) fn kernel_before(major: u32, minor: u32) -> bool {
    kernel_version().is_some_and(|version| version < (major, minor))
}

pub(super) fn kernel_version() -> Option<(u32, u32)> {
    let name = nix::sys::utsname::uname().ok()?;
    let mut numbers = name
        .release()
        .to_str()?
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|digits| digits.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The clock of bpf_ktime_get_ns().
pub(super) fn ktime() -> io::Result<Ktime> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let nanos = time.num_nanoseconds();
    u64::try_from(nanos)
        .map(Ktime::from_nanos)
        .map_err(io::Error::other)
}

fn done(code: i32) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::from_raw_os_error(-code))
    } else {
        Ok(())
    }
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    done(fd)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a live descriptor and a NUL-terminated path, both for the length of the call.
    done(unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) })
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
    done(code)?;
    Ok(Ran {
        action: opts.retval,
        duration: Duration::from_nanos(opts.duration.into()),
    })
}

/// Sends `frames` copies of a frame through the program as if `ifindex` had received them: dropped
/// ones are recycled, passed ones go up the stack (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).
pub(super) fn test_run_live(
    prog: BorrowedFd<'_>,
    frame: &[u8],
    frames: u32,
    ifindex: u32,
) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = libbpf_sys::xdp_md {
        data_end: len,
        ingress_ifindex: ifindex,
        ..Default::default()
    };
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: len,
        ctx_in: std::ptr::from_ref(&context).cast(),
        ctx_size_in: u32::try_from(size_of_val(&context)).map_err(io::Error::other)?,
        repeat: i32::try_from(frames).map_err(io::Error::other)?,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        ..Default::default()
    };
    // SAFETY: both inputs point at as many readable bytes as their sizes say; no output buffers.
    done(unsafe { libbpf_sys::bpf_prog_test_run_opts(prog.as_raw_fd(), &raw mut opts) })
}

/// ETHTOOL_GDRVINFO, ETHTOOL_GFLAGS and ETHTOOL_GCHANNELS, linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const GET_CHANNELS: u32 = 0x3c;
const FLAG_LRO: u32 = 1 << 15;

/// The driver's name by ethtool, which virtual interfaces know too.
pub(super) fn driver(interface: &str) -> Option<String> {
    // struct ethtool_drvinfo: the command, then the driver in 32 bytes, 196 in all.
    let mut info = [0; 196];
    info[..4].copy_from_slice(&GET_DRIVER.to_ne_bytes());
    ethtool(interface, &mut info).ok()?;
    let name = info[4..36].split(|byte| *byte == 0).next()?;
    let name = std::str::from_utf8(name).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

pub(super) fn large_receive_offload(interface: &str) -> bool {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&GET_FLAGS.to_ne_bytes());
    let asked = ethtool(interface, &mut value);
    let flags = u32::from_ne_bytes([value[4], value[5], value[6], value[7]]);
    asked.is_ok() && flags & FLAG_LRO != 0
}

/// Receive queues, alone or paired with a transmit queue; 1 where the driver does not tell.
pub(super) fn receive_queues(interface: &str) -> u32 {
    // struct ethtool_channels: the command, four maxima, then rx, tx, other, combined.
    let mut value = [0; 36];
    value[..4].copy_from_slice(&GET_CHANNELS.to_ne_bytes());
    let asked = ethtool(interface, &mut value);
    let word = |index: usize| {
        let bytes = value.get(index * 4..index * 4 + 4)?;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    };
    let queues = word(5).unwrap_or_default() + word(8).unwrap_or_default();
    if asked.is_ok() { queues.max(1) } else { 1 }
}

pub(super) fn mtu(interface: &str) -> Option<u32> {
    let answer = ask(interface, libc::SIOCGIFMTU, |_| ()).ok()?;
    // SAFETY: SIOCGIFMTU filled in this member.
    u32::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).ok()
}

/// ARPHRD_*, linux/if_arp.h.
pub(super) fn link_type(interface: &str) -> Option<u16> {
    let answer = ask(interface, libc::SIOCGIFHWADDR, |_| ()).ok()?;
    // SAFETY: SIOCGIFHWADDR filled in this member.
    Some(unsafe { answer.ifr_ifru.ifru_hwaddr.sa_family })
}

fn ethtool(interface: &str, command: &mut [u8]) -> io::Result<()> {
    let data = command.as_mut_ptr().cast();
    ask(interface, libc::SIOCETHTOOL, |request| {
        request.ifr_ifru.ifru_data = data;
    })
    .map(drop)
}

/// One netdevice(7) question. What `fill` points at must be as long as the request asks.
fn ask(
    interface: &str,
    what: libc::c_ulong,
    fill: impl FnOnce(&mut libc::ifreq),
) -> io::Result<libc::ifreq> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)))?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([byte]);
    }
    fill(&mut request);
    // SAFETY: the request outlives the call, and so does what `fill` put into it.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw mut request) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request)
}

/// Eight bytes of the kernel's random numbers: getrandom(2), which needs no file.
pub(super) fn random_word() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    loop {
        // SAFETY: the kernel writes at most these 8 bytes, which outlive the call.
        let code = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(code) {
            Ok(written) if written == bytes.len() => return Ok(u64::from_ne_bytes(bytes)),
            Ok(_) => {}
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// CPUs that may ever be there.
pub(super) fn possible_cpus() -> Result<u32> {
    let odd = |why: String| {
        Error::world(format!(
            "counting CPUs in /sys/devices/system/cpu/possible: {why}; 'mount -t sysfs sysfs /sys' if it is missing"
        ))
    };
    let cpus = libbpf_rs::num_possible_cpus().map_err(|error| odd(format!("{error:#}")))?;
    u32::try_from(cpus).map_err(|_| odd("absurdly many".to_owned()))
}
