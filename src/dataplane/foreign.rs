//! XDP programs of others: named, and removed only when told to.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_rs::{ProgramHandle, Xdp, XdpFlags};

use super::attach::index;
use super::sys;
use crate::error::{Doing, Error, Result};

/// A program at the XDP hook, of whoever asks or of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// `None` without the rights to ask.
    pub name: Option<String>,
    pub id: u32,
    mode: u32,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "XDP program '{name}' (id {})", self.id),
            None => write!(f, "an XDP program (id {})", self.id),
        }
    }
}

/// Who is at the XDP hook.
pub(super) fn xdp(interface: &str, ifindex: u32) -> Result<Option<Foreign>> {
    let stdin = io::stdin();
    let query = Xdp::new(stdin.as_fd())
        .query(index(ifindex)?, XdpFlags::NONE)
        .doing(|| format!("asking who is attached to {interface}"))?;
    let found = [
        (query.drv_prog_id, libbpf_sys::XDP_FLAGS_DRV_MODE),
        (query.skb_prog_id, libbpf_sys::XDP_FLAGS_SKB_MODE),
        (query.hw_prog_id, libbpf_sys::XDP_FLAGS_HW_MODE),
        (query.prog_id, 0),
    ];
    let found = found.into_iter().find(|(id, _)| *id != 0);
    Ok(found.map(|(id, mode)| Foreign {
        name: ProgramHandle::from_prog_id(id)
            .ok()
            .map(|program| program.name().to_string_lossy().into_owned()),
        id,
        mode,
    }))
}

/// Takes it off the interface: by its link if it has one, else over netlink.
pub(super) fn remove(interface: &str, ifindex: u32, there: &Foreign) -> Result<()> {
    let doing = || format!("removing {there} from {interface}");
    let link = LinkInfoIter::default().find(|link| {
        matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex)
            && link.prog_id == there.id
    });
    match link {
        Some(link) => sys::link_detach_by_id(link.id).doing(doing),
        None => sys::xdp_detach(index(ifindex)?, there.mode).doing(doing),
    }?;
    match xdp(interface, ifindex)? {
        None => Ok(()),
        Some(left) => Err(Error::world(format!(
            "{interface} still runs {left} after {there} was removed; remove it with its own tool"
        ))),
    }
}
