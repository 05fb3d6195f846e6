//! What this host offers, asked without changing anything.

use super::abi::{kl_limits, kl_policy, kl_port, kl_prefix, kl_source_set};
use super::attach::{AttachMode, index};
use super::foreign::{self, Foreign};
use super::interface::{interface_index, refuse_without_ethernet};
use super::load::source_sets;
use super::options::LoadOptions;
use super::sys;
use crate::error::Result;

/// NETDEV_XDP_ACT_*, linux/netdev.h.
const FEATURE_BASIC: u64 = 1;
const FEATURE_SEVERAL_BUFFERS: u64 = 32;

/// Drivers that took XDP in 5.10 already; newer kernels say it themselves.
const XDP_DRIVERS: [&str; 20] = [
    "bnxt_en",
    "dpaa2-eth",
    "ena",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "qede",
    "sfc",
    "tun",
    "veth",
    "virtio_net",
];

/// The largest MTU whose frames fit one page with XDP's headroom on every driver seen.
const ONE_BUFFER_MTU: u32 = 3_498;

#[derive(Debug, Clone)]
pub struct Interface {
    pub name: String,
    pub ifindex: u32,
    pub driver: Option<String>,
    pub rx_queues: u32,
    pub mtu: u32,
    pub large_receive_offload: bool,
    /// Whoever is at the XDP hook, be it this instance.
    pub there: Option<Foreign>,
    /// Why no program can judge its frames at all.
    pub unfit: Option<String>,
    /// What the driver said it can do; `None` before Linux 6.3.
    features: Option<u64>,
}

impl Interface {
    /// An unknown name is an error that lists the known ones.
    pub fn examine(name: &str) -> Result<Self> {
        let ifindex = interface_index(name)?;
        let features = sys::xdp_features(index(ifindex)?).ok();
        Ok(Self {
            name: name.to_owned(),
            ifindex,
            driver: sys::driver(name),
            rx_queues: sys::receive_queues(name),
            mtu: sys::mtu(name).unwrap_or_default(),
            large_receive_offload: sys::large_receive_offload(name),
            there: foreign::xdp(name, ifindex)?,
            unfit: refuse_without_ethernet(name)
                .err()
                .map(|error| error.to_string()),
            features: features.filter(|_| !sys::kernel_before(6, 3)),
        })
    }

    fn takes_xdp(&self) -> bool {
        match (self.features, &self.driver) {
            (Some(features), _) => features & FEATURE_BASIC != 0,
            (None, Some(driver)) => XDP_DRIVERS.contains(&driver.as_str()),
            (None, None) => false,
        }
    }

    /// Whether a smaller MTU would let its driver take XDP.
    pub fn is_mtu_in_the_way(&self) -> bool {
        let several = self
            .features
            .is_some_and(|features| features & FEATURE_SEVERAL_BUFFERS != 0);
        self.takes_xdp() && self.mtu > ONE_BUFFER_MTU && !several
    }

    /// The mode `attach` would come to, and why not a better one, where this instance is not attached.
    pub fn expected_mode(&self) -> (AttachMode, Option<String>) {
        if let Some(there) = &self.there {
            return (
                AttachMode::Tc,
                Some(format!("the XDP hook is taken by {there}")),
            );
        }
        let driver = self.driver.as_deref().unwrap_or("its driver");
        if !self.takes_xdp() {
            return (AttachMode::Generic, Some(format!("{driver} has no XDP")));
        }
        if self.is_mtu_in_the_way() {
            let why = format!(
                "{driver} takes XDP with an MTU of up to about {ONE_BUFFER_MTU}, not {}",
                self.mtu
            );
            return (AttachMode::Generic, Some(why));
        }
        (AttachMode::Driver, None)
    }
}

/// Release of the running kernel, and whether it is too old.
pub fn kernel() -> (String, bool) {
    let release = nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    (release, sys::kernel_before(5, 10))
}

/// Whether BPF memory counts against RLIMIT_MEMLOCK here: before Linux 5.11.
pub fn locks_memory() -> bool {
    sys::kernel_before(5, 11)
}

/// Whether a BPF file system is mounted where pins go by default.
pub fn has_bpffs() -> bool {
    super::pin::has_bpffs()
}

/// Bytes of kernel memory: just loaded, and with every table full.
pub fn predicted_memory(options: &LoadOptions) -> Result<(u64, u64)> {
    // A hash entry: header of 48 bytes, key rounded up to 8, value; the allocator rounds to 128
    // (htab_elem, bpf_mem_alloc). A bucket has 16 bytes. A trie node and the branch it needs: 2 x 96.
    const HASH_HEADER: u64 = 48;
    const BUCKET: u64 = 16;
    const TRIE_NODES: u64 = 192;
    // An entry of the questions and its bucket, made at once: header, key of 20, value of 4.
    const QUESTION: u64 = HASH_HEADER + 24 + 8 + BUCKET;
    const COUNTERS_AND_NOTES: u64 = 128 << 10;
    let sets = u64::from(source_sets(options)?);
    let most = u64::from(options.max_deny);
    let key = size_of::<kl_prefix>().next_multiple_of(8) as u64;
    let entry = (HASH_HEADER + key + size_of::<kl_policy>() as u64).next_power_of_two();
    let cpus = u64::from(super::sys::possible_cpus()?);
    let ports = cpus * u64::from(kl_limits::KL_PORTS.0) * size_of::<kl_port>() as u64;
    let learning = if options.features.learns() {
        ports + u64::from(kl_limits::KL_EVENTS_BYTES.0)
    } else {
        0
    };
    let windows = sets * u64::from(kl_limits::KL_WAYS.0) * size_of::<u32>() as u64;
    let loaded = sets * size_of::<kl_source_set>() as u64
        + windows
        + most.next_power_of_two() * BUCKET
        + learning
        + u64::from(kl_limits::KL_QUESTIONS.0) * QUESTION
        + COUNTERS_AND_NOTES;
    Ok((loaded, loaded + most * (entry + TRIE_NODES)))
}
