//! Program to interface: at which hook, in which mode, and the link that outlives us.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, TC_INGRESS, Xdp, XdpFlags};
use nix::errno::Errno;

use super::foreign::{self, Foreign};
use super::interface::{interface_index, interface_name, refuse_without_ethernet};
use super::load::Variant;
use super::pin::{PinDir, exists, remove_if_there};
use super::{sys, tc};
use crate::error::{Doing, Error, Result};
use crate::rights;

/// Where in the receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything for the packet.
    Driver,
    /// At the stack's XDP hook, for drivers without XDP. Same verdicts, more cost.
    Generic,
    /// At TC ingress, behind the XDP hook. Same verdicts again.
    Tc,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
            Self::Tc => "tc",
        })
    }
}

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeChoice {
    /// The driver first, then generic, then TC ingress.
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
    /// On a fresh attachment: why no better mode was to be had, and what had to give way.
    pub fallback: Option<String>,
    /// True if the interface was attached before this call.
    pub already: bool,
}

/// Hands out the program for a place, loading it when it is first asked for.
pub(super) type Programs<'a> = dyn FnMut(Variant) -> Result<OwnedFd> + 'a;

struct Attempt<'a, 'p> {
    pins: &'a PinDir,
    programs: &'a mut Programs<'p>,
    interface: &'a str,
    ifindex: u32,
}

pub(super) fn attach(
    pins: &PinDir,
    programs: &mut Programs<'_>,
    interface: &str,
    choice: ModeChoice,
    force: bool,
) -> Result<Attached> {
    let ifindex = interface_index(interface)?;
    refuse_without_ethernet(interface)?;
    if let Some(attached) = existing(pins, interface, ifindex)? {
        return Ok(attached);
    }
    remove_if_there(&pins.link(ifindex))?;
    let mut attempt = Attempt {
        pins,
        programs,
        interface,
        ifindex,
    };
    let there = foreign::xdp(interface, ifindex)?;
    let (mode, fallback) = match (there, choice) {
        (Some(there), ModeChoice::Only(AttachMode::Driver | AttachMode::Generic)) if !force => {
            return Err(taken(interface, &there));
        }
        (Some(there), ModeChoice::Auto) if !force => {
            attempt.tc()?;
            (
                AttachMode::Tc,
                Some(format!("the XDP hook is taken by {there}")),
            )
        }
        (
            Some(there),
            ModeChoice::Auto | ModeChoice::Only(AttachMode::Driver | AttachMode::Generic),
        ) => {
            foreign::remove(interface, ifindex, &there)?;
            let (mode, fallback) = attempt.choose(choice)?;
            let removed = format!("in place of {there}, removed by --force");
            let both = fallback.map_or_else(|| removed.clone(), |why| format!("{why}; {removed}"));
            (mode, Some(both))
        }
        (_, choice) => attempt.choose(choice)?,
    };
    Ok(Attached {
        interface: interface.to_owned(),
        ifindex,
        mode: Some(mode),
        fallback,
        already: false,
    })
}

fn taken(interface: &str, there: &Foreign) -> Error {
    Error::world(format!(
        "{interface} already runs {there}, and an interface takes one XDP program; --mode tc judges behind it, \
         --force removes it"
    ))
}

impl Attempt<'_, '_> {
    /// The mode that worked, and why none better did.
    fn choose(&mut self, choice: ModeChoice) -> Result<(AttachMode, Option<String>)> {
        let refused = |mode, error: &io::Error| refused(self.interface, mode, error);
        match choice {
            ModeChoice::Only(AttachMode::Driver) => match self.driver()? {
                Ok(()) => Ok((AttachMode::Driver, None)),
                Err(error) => Err(refused(AttachMode::Driver, &error)),
            },
            ModeChoice::Only(AttachMode::Generic) => {
                match self.xdp(Variant::Xdp, XdpFlags::SKB_MODE)? {
                    Ok(()) => Ok((AttachMode::Generic, None)),
                    Err(error) => Err(refused(AttachMode::Generic, &error)),
                }
            }
            ModeChoice::Only(AttachMode::Tc) => self.tc().map(|()| (AttachMode::Tc, None)),
            ModeChoice::Auto => self.best(),
        }
    }

    fn best(&mut self) -> Result<(AttachMode, Option<String>)> {
        let Err(no_driver) = self.driver()? else {
            return Ok((AttachMode::Driver, None));
        };
        let why = format!("driver mode refused: {}", cause(self.interface, &no_driver));
        let Err(no_generic) = self.xdp(Variant::Xdp, XdpFlags::SKB_MODE)? else {
            return Ok((AttachMode::Generic, Some(why)));
        };
        if no_generic.kind() == io::ErrorKind::PermissionDenied {
            return Err(refused(self.interface, AttachMode::Generic, &no_generic));
        }
        self.tc()?;
        Ok((
            AttachMode::Tc,
            Some(format!("{why}; generic mode refused: {no_generic}")),
        ))
    }

    /// In the driver; where it wants frames in one buffer and they are larger, with the program
    /// that takes several.
    fn driver(&mut self) -> Result<io::Result<()>> {
        let first = self.xdp(Variant::Xdp, XdpFlags::DRV_MODE)?;
        let Err(error) = first else {
            return Ok(Ok(()));
        };
        let too_large = matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(Errno::EINVAL | Errno::ERANGE | Errno::EOPNOTSUPP)
        ) && sys::mtu(self.interface) > Some(1_500);
        if !too_large || sys::kernel_before(5, 18) {
            return Ok(Err(error));
        }
        Ok(match self.xdp(Variant::XdpFrags, XdpFlags::DRV_MODE)? {
            Ok(()) => Ok(()),
            Err(_) => Err(error),
        })
    }

    /// The inner error is the driver's: another mode may do.
    fn xdp(&mut self, variant: Variant, mode: XdpFlags) -> Result<io::Result<()>> {
        let prog = (self.programs)(variant)?;
        let index = index(self.ifindex)?;
        let kind = libbpf_sys::BPF_XDP;
        match sys::link_create(prog.as_fd(), index, kind, mode.bits()) {
            Ok(link) => self.pin(link.as_fd()).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    fn tc(&mut self) -> Result<()> {
        let prog = (self.programs)(Variant::Tc)?;
        match sys::link_create(
            prog.as_fd(),
            index(self.ifindex)?,
            libbpf_sys::BPF_TCX_INGRESS,
            0,
        ) {
            Ok(link) => self.pin(link.as_fd()),
            // No tcx before 6.6: the kernel knows no such attach type.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                let index = index(self.ifindex)?;
                tc::attach(prog.as_fd(), self.interface, index, TC_INGRESS)?;
                self.pins
                    .replace(&self.pins.filter(self.ifindex), prog.as_fd())
            }
            Err(error) => Err(refused(self.interface, AttachMode::Tc, &error)),
        }
    }

    fn pin(&self, link: BorrowedFd<'_>) -> Result<()> {
        let path = self.pins.link(self.ifindex);
        sys::pin(link, &path).doing(|| format!("pinning {}", path.display()))
    }
}

pub(super) fn index(ifindex: u32) -> Result<i32> {
    i32::try_from(ifindex).map_err(|_| Error::world("interface number out of range"))
}

/// The attachment this instance already has there, if it is still alive.
pub(super) fn existing(pins: &PinDir, interface: &str, ifindex: u32) -> Result<Option<Attached>> {
    let found = attached(pins)?;
    let mine = found.into_iter().find(|there| there.ifindex == ifindex);
    Ok(mine.map(|there| Attached {
        interface: interface.to_owned(),
        ..there
    }))
}

/// Links whose interface is gone: they protect nothing, not even another one of that name.
pub(super) fn lost(pins: &PinDir) -> Result<Vec<PathBuf>> {
    if !pins.is_made()? {
        return Ok(Vec::new());
    }
    let linked = linked(pins)?.into_iter();
    let lost = linked.filter(|(_, place)| place.is_none());
    Ok(lost.map(|(path, _)| path).collect())
}

/// An interface, and how a program is attached there where that can be told.
type Place = (u32, Option<AttachMode>);

/// Every pinned link, and where it is.
fn linked(pins: &PinDir) -> Result<Vec<(PathBuf, Option<Place>)>> {
    let place = |path: PathBuf| {
        let link = pinned(&path).transpose()?;
        Some(link.map(|link| (path, place_of(&link))))
    };
    pins.links()?.into_iter().filter_map(place).collect()
}

/// A pinned link; `None` where its pin is gone, as it is while somebody attaches anew or detaches.
pub(super) fn pinned(path: &Path) -> Result<Option<Link>> {
    match Link::open(path) {
        Err(_) if !exists(path)? => Ok(None),
        link => link
            .map(Some)
            .doing(|| format!("opening {}", path.display())),
    }
}

/// Where a link is; `None` once the interface is gone or the link was detached.
pub(super) fn place_of(link: &Link) -> Option<Place> {
    let info = link.info().ok()?.info;
    if let LinkTypeInfo::Xdp(xdp) = &info {
        return (xdp.ifindex != 0).then(|| (xdp.ifindex, mode_of(xdp.ifindex)));
    }
    let LinkTypeInfo::Tcx(tcx) = info else {
        return None;
    };
    (tcx.ifindex != 0).then_some((tcx.ifindex, Some(AttachMode::Tc)))
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

fn refused(interface: &str, mode: AttachMode, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error::operator(format!(
            "attaching to {interface}: {} ({error})",
            rights::refusal()
        ));
    }
    let (hook, mend) = match mode {
        AttachMode::Driver => (
            "XDP in driver mode",
            format!(
                "{}; --mode generic works on any interface",
                cause(interface, error)
            ),
        ),
        AttachMode::Generic => (
            "XDP in generic mode",
            format!("{error}; 'ip link show {interface}' shows whether it is in use"),
        ),
        AttachMode::Tc => (
            "a program at TC ingress",
            format!("{error}; 'tc filter show dev {interface} ingress' shows what is there"),
        ),
    };
    Error::world(format!("{interface} refuses {hook}: {mend}"))
}

/// What the driver most likely meant (kernel: each driver's ndo_bpf and its MTU checks).
pub(super) fn cause(interface: &str, error: &io::Error) -> String {
    let mtu = sys::mtu(interface).unwrap_or_default();
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

/// Every interface of the instance, in order of number; one whose interface is gone is left out.
pub(super) fn attached(pins: &PinDir) -> Result<Vec<Attached>> {
    if !pins.is_made()? {
        return Ok(Vec::new());
    }
    let linked = linked(pins)?.into_iter();
    let mut places: Vec<Place> = linked.filter_map(|(_, place)| place).collect();
    for ifindex in pins.filters()? {
        if tc::is_there(&pins.filter(ifindex), index(ifindex)?, TC_INGRESS)? {
            places.push((ifindex, Some(AttachMode::Tc)));
        }
    }
    places.sort_by_key(|(ifindex, _)| *ifindex);
    Ok(places
        .into_iter()
        .map(|(ifindex, mode)| Attached {
            interface: interface_name(ifindex).unwrap_or_else(|| format!("interface {ifindex}")),
            ifindex,
            mode,
            fallback: None,
            already: true,
        })
        .collect())
}

/// Detaches at once (dropping an unpinned link is asynchronous on 5.10), then removes the pin.
/// False if the instance was not attached there.
pub(super) fn detach(pins: &PinDir, ifindex: u32) -> Result<bool> {
    let (path, filter) = (pins.link(ifindex), pins.filter(ifindex));
    if exists(&filter)? {
        if tc::is_there(&filter, index(ifindex)?, TC_INGRESS)? {
            tc::detach(index(ifindex)?, TC_INGRESS)?;
        }
        remove_if_there(&filter)?;
        return Ok(true);
    }
    let Some(link) = pinned(&path)? else {
        return Ok(false);
    };
    if place_of(&link).is_some() {
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
    fn a_pin_that_is_gone_by_the_time_it_is_opened_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pinned(&dir.path().join("link-4")).unwrap().is_none());
        // What is there and no link is told.
        assert!(pinned(dir.path()).is_err());
    }
}
