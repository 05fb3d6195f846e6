//! Interfaces by name and number, and what the kernel tells about them.

use std::fs;

use nix::net::if_::{if_nameindex, if_nametoindex};

use super::sys;
use crate::error::{Error, Result};

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

pub(super) fn interface_name(ifindex: u32) -> Option<String> {
    let all = if_nameindex().ok()?;
    let found = all.iter().find(|interface| interface.index() == ifindex)?;
    Some(found.name().to_string_lossy().into_owned())
}

/// The interface of the default route, IPv4 first.
///
/// # Errors
/// World's, with `example` as the way to name one.
pub fn default_interface(example: &str) -> Result<String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    default_of_ipv4(&v4)
        .or_else(|| default_of_ipv6(&v6))
        .ok_or_else(|| {
            Error::world(format!(
                "there is no default route to take the interface from; name one, as in '{example}'"
            ))
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

/// Refuses interfaces whose frames have no Ethernet header: the program would find no source in them.
pub(super) fn refuse_without_ethernet(interface: &str) -> Result<()> {
    // linux/if_arp.h
    const ETHERNET: u16 = 1;
    const LOOPBACK: u16 = 772;
    match sys::link_type(interface) {
        Some(ETHERNET | LOOPBACK) | None => Ok(()),
        Some(_) => Err(Error::operator(format!(
            "{interface} carries packets without Ethernet headers; protect the interface its traffic arrives on"
        ))),
    }
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
