//! Which services are being opened, summed over sources and CPUs.

use std::os::fd::AsFd;
use std::ptr;

use libbpf_rs::{MapCore, MapHandle};

use super::abi::{kl_limits, kl_port};
use super::pod::Shared;
use crate::error::{Doing, Result};

/// What was opened at one destination port since the program was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortCount {
    pub port: u16,
    /// TCP SYN without ACK.
    pub syns: u64,
    /// UDP packets that came from a higher port.
    pub udp: u64,
}

/// Every port with any opening, in order of port.
pub(super) fn read(map: &MapHandle) -> Result<Vec<PortCount>> {
    let ports = kl_limits::KL_PORTS.0 as usize;
    let cpus = map.max_entries() as usize / ports;
    let memory = Shared::map(map.as_fd(), cpus * ports * size_of::<kl_port>())
        .doing(|| "mapping the port histogram")?;
    let mut found = Vec::new();
    for port in 0..=u16::MAX {
        let mut sum = PortCount {
            port,
            syns: 0,
            udp: 0,
        };
        for cpu in 0..cpus {
            if let Some(count) = memory.at::<kl_port>(0, cpu * ports + usize::from(port)) {
                // SAFETY: `at` returned it: aligned, inside the mapping; each word is written whole.
                let count = unsafe { ptr::read_volatile(count) };
                sum.syns += u64::from(count.syns);
                sum.udp += u64::from(count.udp);
            }
        }
        if sum.syns + sum.udp > 0 {
            found.push(sum);
        }
    }
    Ok(found)
}
