//! Program to interface: which mode, who is already there, and the link that outlives us.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, ProgramHandle, Xdp, XdpFlags};
use nix::errno::Errno;
use nix::net::if_::{if_nameindex, if_nametoindex};

use super::pin::{PinDir, remove_if_there};
use super::sys;
use crate::error::{Doing, Error, Result};

/// Where in the receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything for the packet.
    Driver,
    /// In the stack, for drivers without XDP. Same verdicts, more cost.
    Generic,
}

impl AttachMode {
    const fn flag(self) -> XdpFlags {
        match self {
            Self::Driver => XdpFlags::DRV_MODE,
            Self::Generic => XdpFlags::SKB_MODE,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
        })
    }
}

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeChoice {
    /// Driver first, generic where the driver refuses.
    Auto,
    Only(AttachMode),
}

/// One attached interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub interface: String,
    pub ifindex: u32,
    /// `None` where the kernel no longer runs the program there, or no longer says how.
    pub mode: Option<AttachMode>,
    /// Why driver mode was not to be had, on a fresh attachment that fell back.
    pub fallback: Option<String>,
    /// True if the interface was attached before this call.
    pub already: bool,
}

pub fn interface_index(name: &str) -> Result<u32> {
    if_nametoindex(name).map_err(|_| {
        let known = if_nameindex().map_or_else(
            |_| String::new(),
            |all| {
                let names: Vec<_> = all
                    .iter()
                    .map(|interface| interface.name().to_string_lossy().into_owned())
                    .collect();
                names.join(", ")
            },
        );
        Error::operator(format!("no interface '{name}'; this host has: {known}"))
    })
}

fn interface_name(ifindex: u32) -> Option<String> {
    let all = if_nameindex().ok()?;
    let found = all.iter().find(|interface| interface.index() == ifindex)?;
    Some(found.name().to_string_lossy().into_owned())
}

/// The interface of the default route, IPv4 first.
pub fn default_interface() -> Result<String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    default_of_ipv4(&v4)
        .or_else(|| default_of_ipv6(&v6))
        .ok_or_else(|| {
            Error::operator(
                "there is no default route to take the interface from; name it with --iface",
            )
        })
}

/// Columns of /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask ...
fn default_of_ipv4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let default = columns.get(1)? == &"00000000" && columns.get(7)? == &"00000000";
        let metric: u32 = columns.get(6)?.parse().ok()?;
        (default && columns.first()? != &"lo").then(|| (metric, columns[0].to_owned()))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name)
}

/// Columns of /proc/net/ipv6_route: destination length source length next-hop metric ... device.
fn default_of_ipv6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let default = columns.first()?.bytes().all(|b| b == b'0') && columns.get(1)? == &"00";
        let metric = u32::from_str_radix(columns.get(5)?, 16).ok()?;
        let device = columns.last()?;
        (default && *device != "lo").then(|| (metric, (*device).to_owned()))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name)
}

pub(super) fn attach(
    pins: &PinDir,
    prog: BorrowedFd<'_>,
    interface: &str,
    choice: ModeChoice,
) -> Result<Attached> {
    let ifindex = interface_index(interface)?;
    let path = pins.link(ifindex);
    if let Some(attached) = existing(pins, interface, ifindex)? {
        return Ok(attached);
    }
    remove_if_there(&path)?;
    refuse_foreign(prog, interface, ifindex)?;
    let index =
        i32::try_from(ifindex).map_err(|_| Error::world("interface number out of range"))?;
    let create = |mode: AttachMode| sys::xdp_link_create(prog, index, mode.flag().bits());
    let (link, mode, fallback) = match choice {
        ModeChoice::Only(mode) => {
            let link = create(mode).map_err(|error| refused(interface, mode, &error))?;
            (link, mode, None)
        }
        ModeChoice::Auto => match create(AttachMode::Driver) {
            Ok(link) => (link, AttachMode::Driver, None),
            Err(first) => {
                let mode = AttachMode::Generic;
                let link = create(mode).map_err(|error| refused(interface, mode, &error))?;
                (link, mode, Some(why_no_driver_mode(interface, &first)))
            }
        },
    };
    sys::pin(link.as_fd(), &path).doing(|| format!("pinning {}", path.display()))?;
    Ok(Attached {
        interface: interface.to_owned(),
        ifindex,
        mode: Some(mode),
        fallback,
        already: false,
    })
}

/// The attachment this instance already has there, if its link is still alive.
fn existing(pins: &PinDir, interface: &str, ifindex: u32) -> Result<Option<Attached>> {
    let path = pins.link(ifindex);
    if !path
        .try_exists()
        .doing(|| format!("looking for {}", path.display()))?
    {
        return Ok(None);
    }
    let live = live_ifindex(&Link::open(&path).doing(|| format!("opening {}", path.display()))?);
    Ok((live == Some(ifindex)).then(|| Attached {
        interface: interface.to_owned(),
        ifindex,
        mode: mode_of(ifindex),
        fallback: None,
        already: true,
    }))
}

/// The interface a link is on; `None` once the interface is gone or the link was detached.
fn live_ifindex(link: &Link) -> Option<u32> {
    let LinkTypeInfo::Xdp(xdp) = link.info().ok()?.info else {
        return None;
    };
    Some(xdp.ifindex).filter(|ifindex| *ifindex != 0)
}

fn mode_of(ifindex: u32) -> Option<AttachMode> {
    // Querying needs no program; any descriptor serves the wrapper's signature.
    let stdin = io::stdin();
    let query = Xdp::new(stdin.as_fd())
        .query(i32::try_from(ifindex).ok()?, XdpFlags::NONE)
        .ok()?;
    match u32::from(query.attach_mode) {
        libbpf_sys::XDP_ATTACHED_DRV => Some(AttachMode::Driver),
        libbpf_sys::XDP_ATTACHED_SKB => Some(AttachMode::Generic),
        _ => None,
    }
}

fn refuse_foreign(prog: BorrowedFd<'_>, interface: &str, ifindex: u32) -> Result<()> {
    let index =
        i32::try_from(ifindex).map_err(|_| Error::world("interface number out of range"))?;
    let there = Xdp::new(prog)
        .query_id(index, XdpFlags::NONE)
        .doing(|| format!("asking who is attached to {interface}"))?;
    if there == 0 {
        return Ok(());
    }
    let name = ProgramHandle::from_prog_id(there).map_or_else(
        |_| "unknown".to_owned(),
        |program| program.name().to_string_lossy().into_owned(),
    );
    Err(Error::world(format!(
        "{interface} already runs another XDP program, '{name}' (id {there}); one interface takes one: detach \
         it with its own tool, or protect another interface"
    )))
}

fn refused(interface: &str, mode: AttachMode, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error::operator(format!(
            "attaching to {interface}: not permitted; run it with sudo ({error})"
        ));
    }
    let mend = match mode {
        AttachMode::Driver => format!(
            "{}; --mode generic works on any interface",
            cause(interface, error)
        ),
        AttachMode::Generic => {
            format!("{error}; 'ip link show {interface}' shows whether it is in use")
        }
    };
    Error::world(format!("{interface} refuses XDP in {mode} mode: {mend}"))
}

fn why_no_driver_mode(interface: &str, error: &io::Error) -> String {
    format!("driver mode refused: {}", cause(interface, error))
}

/// What the driver most likely meant (kernel: each driver's ndo_bpf and its MTU checks).
fn cause(interface: &str, error: &io::Error) -> String {
    let mtu = fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    let mtu: u32 = mtu
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL | Errno::ERANGE) if mtu > 1_500 => {
            format!(
                "{error}; its MTU of {mtu} is likely too large for the driver's XDP, 1500 works"
            )
        }
        Some(Errno::EOPNOTSUPP) => {
            format!(
                "{error}; the driver has no XDP, or receive offload (LRO, GRO_HW) or the MTU of {mtu} is in its way"
            )
        }
        _ => error.to_string(),
    }
}

/// Every interface of the instance; one whose interface is gone has no mode.
pub(super) fn attached(pins: &PinDir) -> Result<Vec<Attached>> {
    let mut all = Vec::new();
    for path in pins.links()? {
        let link = Link::open(&path).doing(|| format!("opening {}", path.display()))?;
        let Some(ifindex) = live_ifindex(&link) else {
            continue;
        };
        let interface = interface_name(ifindex).unwrap_or_else(|| format!("interface {ifindex}"));
        let mode = mode_of(ifindex);
        all.push(Attached {
            interface,
            ifindex,
            mode,
            fallback: None,
            already: true,
        });
    }
    Ok(all)
}

/// Detaches at once (dropping an unpinned link is asynchronous on 5.10), then removes the pin.
/// False if the instance was not attached there.
pub(super) fn detach(pins: &PinDir, ifindex: u32) -> Result<bool> {
    let path = pins.link(ifindex);
    if !path
        .try_exists()
        .doing(|| format!("looking for {}", path.display()))?
    {
        return Ok(false);
    }
    let link = Link::open(&path).doing(|| format!("opening {}", path.display()))?;
    if live_ifindex(&link).is_some() {
        link.detach()
            .doing(|| format!("detaching from interface {ifindex}"))?;
    }
    remove_if_there(&path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_least_metric_names_the_interface() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                     wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_of_ipv4(table).as_deref(), Some("eth0"));
        assert_eq!(default_of_ipv4("Iface\n"), None);
    }

    #[test]
    fn an_ipv6_default_route_serves_where_there_is_no_other() {
        let table = "20010db8000000000000000000000000 20 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1\n\
                     00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                     fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth1\n\
                     00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";
        assert_eq!(default_of_ipv6(table).as_deref(), Some("eth1"));
    }
}
