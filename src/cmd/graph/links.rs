//! This host's own addresses: what is local, and what is broadcast.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::error::{Doing, Result};
use crate::model::Source;

fn ip(address: Option<&SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}

/// The prefixes of this host's links.
pub(super) fn local() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for link in getifaddrs().doing(|| "listing this host's addresses")? {
        let (Some(address), Some(mask)) = (ip(link.address.as_ref()), ip(link.netmask.as_ref()))
        else {
            continue;
        };
        let bits = match mask {
            IpAddr::V4(mask) => 96 + u32::from(mask).count_ones(),
            IpAddr::V6(mask) => u128::from(mask).count_ones(),
        };
        let octets = Source::host(address).octets();
        found.push(Source::containing(
            octets,
            u8::try_from(bits).unwrap_or(128),
        ));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Broadcast addresses of this host's links.
pub(super) fn broadcast() -> Result<Vec<Source>> {
    let links = getifaddrs().doing(|| "listing this host's addresses")?;
    let broadcast = |link: nix::ifaddrs::InterfaceAddress| {
        let flag = nix::net::if_::InterfaceFlags::IFF_BROADCAST;
        let address = link.flags.contains(flag).then_some(link.broadcast)?;
        ip(address.as_ref()).map(Source::host)
    };
    Ok(links.filter_map(broadcast).collect())
}
