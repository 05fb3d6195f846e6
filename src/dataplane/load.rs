//! Object to loaded program: sizes, secrets and width are fixed here, before the verifier runs.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapHandle, PrintLevel};

use super::abi::{kl_config, kl_limits};
use super::skel::{OpenShieldSkel, ShieldSkelBuilder};
use crate::error::{Doing, Error, Result};

/// Width IPv6 sources are tracked at, in bits: 1..=128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackWidth(u8);

impl TrackWidth {
    pub fn new(bits: u8) -> Option<Self> {
        (1..=128).contains(&bits).then_some(Self(bits))
    }

    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl Default for TrackWidth {
    /// A /64: what one site or host commands (RFC 4291, 2.5.1; RFC 7421).
    fn default() -> Self {
        Self(64)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Entries of the source table over all CPUs; rounded down to a power of two per CPU.
    pub sources: u32,
    /// Most policy entries.
    pub max_deny: u32,
    pub v6_width: TrackWidth,
    /// Time comes from [`super::Shield::set_test_time`] instead of the kernel's clocks.
    pub test_clock: bool,
    /// The edge stage and its TC companion exist; without it they cost nothing.
    pub graph: Option<GraphSizes>,
    /// Measuring only: every packet counts as the next of this many sources, a power of two; 0 = off.
    pub bench_sources: u32,
}

/// Entries of the edge stage's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphSizes {
    /// Edges seen, over all CPUs; rounded down to a power of two per CPU.
    pub edges: u32,
    /// Most edges of one frozen graph, denied ones included.
    pub permits: u32,
    /// Conversations remembered, each way.
    pub flows: u32,
}

impl Default for GraphSizes {
    fn default() -> Self {
        Self {
            edges: 65_536,
            permits: 131_072,
            flows: 32_768,
        }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            sources: 131_072,
            max_deny: 131_072,
            v6_width: TrackWidth::default(),
            test_clock: false,
            graph: None,
            bench_sources: 0,
        }
    }
}

/// Everything a loaded program is made of, without the skeleton's lifetime.
pub(super) struct Loaded {
    pub(super) prog: std::os::fd::OwnedFd,
    pub(super) egress: Option<std::os::fd::OwnedFd>,
    pub(super) maps: Maps,
}

pub(super) struct Maps {
    pub(super) sources: MapHandle,
    pub(super) policies: MapHandle,
    pub(super) prefixes: MapHandle,
    pub(super) counters: MapHandle,
    pub(super) events: MapHandle,
    pub(super) bss: MapHandle,
    pub(super) graph: Option<GraphMaps>,
}

/// Maps of the edge stage.
pub(super) struct GraphMaps {
    pub(super) edges: MapHandle,
    pub(super) groups: MapHandle,
    pub(super) graphs: MapHandle,
}

pub(super) fn load(options: &LoadOptions) -> Result<Loaded> {
    // Quiet unless asked for: libbpf tells of every probe; a failed load shows the verifier's log.
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| {
        let text = text.trim_end();
        match level {
            PrintLevel::Warn | PrintLevel::Info | PrintLevel::Debug => {
                log::debug!("libbpf: {text}")
            }
        }
    })));
    let mut storage = MaybeUninit::uninit();
    let mut open = ShieldSkelBuilder::default()
        .open(&mut storage)
        .doing(|| "opening the program")?;
    configure(&mut open, options)?;
    let skel = open.load().map_err(|error| load_error(&error))?;
    let handle =
        |map: &libbpf_rs::MapMut<'_>| MapHandle::try_from(map).doing(|| "keeping a map open");
    let maps = Maps {
        sources: handle(&skel.maps.kl_sources)?,
        policies: handle(&skel.maps.kl_policies)?,
        prefixes: handle(&skel.maps.kl_prefixes)?,
        counters: handle(&skel.maps.kl_counters)?,
        events: handle(&skel.maps.kl_events)?,
        bss: handle(&skel.maps.bss)?,
        graph: match options.graph {
            Some(_) => Some(GraphMaps {
                edges: handle(&skel.maps.kl_edges)?,
                groups: handle(&skel.maps.kl_groups)?,
                graphs: handle(&skel.maps.kl_graphs)?,
            }),
            None => None,
        },
    };
    let keep = |prog: BorrowedFd<'_>| {
        prog.try_clone_to_owned()
            .doing(|| "keeping the program open")
    };
    let prog = keep(skel.progs.kernloom.as_fd())?;
    let egress = match options.graph {
        Some(_) => Some(keep(skel.progs.kernloom_egress.as_fd())?),
        None => None,
    };
    Ok(Loaded { prog, egress, maps })
}

fn configure(open: &mut OpenShieldSkel<'_>, options: &LoadOptions) -> Result<()> {
    let cpus = libbpf_rs::num_possible_cpus().doing(|| "counting CPUs")?;
    let cpus = u32::try_from(cpus).map_err(|_| Error::world("counting CPUs: absurdly many"))?;
    let sets = sets_per_cpu(options.sources, cpus)?;
    let edge_sets = match &options.graph {
        Some(sizes) => Some(sets_per_cpu(sizes.edges, cpus)?),
        None => None,
    };
    let missing = || Error::world("configuring the program: it has no .rodata; build it anew");
    let bits = options.v6_width.bits();
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(missing)?;
    rodata.kl_config = kl_config {
        seed: random()?,
        // Odd, so that multiplication permutes; see kl_sketch_bit().
        port_seed: random::<1>()?[0] | 1,
        set_mask: sets - 1,
        v6_bits: bits.into(),
        v6_mask: mask_words(bits),
        test_clock: options.test_clock.into(),
        bench_sources: options.bench_sources,
        edge_mask: edge_sets.unwrap_or(1) - 1,
        graph: options.graph.is_some().into(),
    };
    let bss = open.maps.bss_data.as_deref_mut().ok_or_else(missing)?;
    bss.kl_control.generation = 1;
    bss.kl_control.layout = kl_limits::KL_LAYOUT.0;
    bss.kl_control.v6_bits = bits.into();
    bss.kl_graph.hz = JIFFIES_PER_SECOND;
    size_graph(open, options, edge_sets.map(|sets| sets * cpus))?;
    let sized = || "sizing the maps";
    open.maps
        .kl_sources
        .set_max_entries(sets * cpus)
        .doing(sized)?;
    open.maps
        .kl_policies
        .set_max_entries(options.max_deny)
        .doing(sized)?;
    open.maps
        .kl_prefixes
        .set_max_entries(options.max_deny)
        .doing(sized)
}

/// The least that `CONFIG_HZ` can make of a second is 100; the most, which the edge stage's
/// lifetimes are counted with, makes them longer elsewhere, never shorter.
const JIFFIES_PER_SECOND: u32 = 1_000;

/// Sizes the edge stage's maps, or leaves them and its companion out.
fn size_graph(
    open: &mut OpenShieldSkel<'_>,
    options: &LoadOptions,
    edge_sets: Option<u32>,
) -> Result<()> {
    let doing = || "sizing the maps of the edge stage";
    let exists = options.graph.is_some();
    let maps = &mut open.maps;
    for map in [
        &mut maps.kl_edges,
        &mut maps.kl_groups,
        &mut maps.kl_graphs,
        &mut maps.kl_opened,
        &mut maps.kl_accepted,
        &mut maps.kl_frags,
        &mut maps.kl_edge_scratches,
        &mut maps.kl_leaving,
    ] {
        map.set_autocreate(exists).doing(doing)?;
    }
    open.progs.kernloom_egress.set_autoload(exists);
    let (Some(sizes), Some(sets)) = (&options.graph, edge_sets) else {
        return Ok(());
    };
    maps.kl_edges.set_max_entries(sets).doing(doing)?;
    maps.kl_opened.set_max_entries(sizes.flows).doing(doing)?;
    maps.kl_accepted.set_max_entries(sizes.flows).doing(doing)?;
    maps.kl_frags
        .set_max_entries((sizes.flows / 8).max(64))
        .doing(doing)
}

fn sets_per_cpu(sources: u32, cpus: u32) -> Result<u32> {
    let sets = sources / cpus.max(1) / kl_limits::KL_WAYS.0;
    sets.checked_ilog2().map(|log2| 1 << log2).ok_or_else(|| {
        let least = cpus * kl_limits::KL_WAYS.0;
        Error::operator(format!(
            "--sources {sources} is too few for {cpus} CPUs; give at least {least}"
        ))
    })
}

fn mask_words(bits: u8) -> [u32; 4] {
    let mask = u128::MAX
        .checked_shl(128 - u32::from(bits))
        .unwrap_or(0)
        .to_be_bytes();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(mask.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

fn random<const N: usize>() -> Result<[u64; N]> {
    let doing = || "drawing the hash seed from /dev/urandom";
    let mut file = std::fs::File::open("/dev/urandom").doing(doing)?;
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes).doing(doing)?;
        *word = u64::from_ne_bytes(bytes);
    }
    Ok(words)
}

fn load_error(error: &libbpf_rs::Error) -> Error {
    let kernel = nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    if error.kind() == libbpf_rs::ErrorKind::PermissionDenied {
        return Error::operator(format!(
            "loading the XDP program on kernel {kernel}: not permitted; run it with sudo, and if you did, \
             raise the locked memory limit (ulimit -l unlimited) ({error:#})"
        ));
    }
    Error::world(format!(
        "loading the XDP program on kernel {kernel}: {error:#}; Kernloom needs Linux 5.10 or newer with \
         CONFIG_BPF_SYSCALL; RUST_LOG=debug shows the verifier's words"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_powers_of_two_and_never_empty() {
        assert_eq!(sets_per_cpu(131_072, 2).unwrap(), 16_384);
        assert_eq!(sets_per_cpu(100_000, 3).unwrap(), 8_192);
        assert_eq!(sets_per_cpu(8, 2).unwrap(), 1);
        let error = sets_per_cpu(7, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--sources 7 is too few for 2 CPUs; give at least 8"
        );
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn the_v6_mask_is_in_network_order() {
        let mask = |bits| mask_words(bits).map(u32::to_be);
        assert_eq!(mask(64), [u32::MAX, u32::MAX, 0, 0]);
        assert_eq!(mask(56), [u32::MAX, 0xffff_ff00, 0, 0]);
        assert_eq!(mask(128), [u32::MAX; 4]);
    }
}
