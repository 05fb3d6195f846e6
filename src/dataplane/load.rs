//! Object to loaded program: sizes, secrets and width are fixed here, before the verifier runs.

use std::mem::{MaybeUninit, offset_of};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenMapMut, PrintLevel};
use std::os::fd::{AsFd, OwnedFd};

use super::abi::{bss, kl_config, kl_cpu, kl_graph_limits, kl_layout, kl_limits};
use super::graph_maps::GraphMaps;
use super::maps::Maps;
use super::options::LoadOptions;
use super::pin::{PinDir, exists};
use super::pod::{bytes_of, read};
use super::skel::shield::types::rodata;
use super::skel::shield::{OpenShieldSkel, ShieldSkel, ShieldSkelBuilder};
use super::sys;
use crate::error::{Doing, Error, Result};
use crate::rights;
use crate::telemetry::linear_ones;

/// Ports from which on a source is reported where no IQ says otherwise, nor forgets any.
const ALERT_PORTS: u32 = 100;

/// The one decision, compiled for each place it may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    Xdp,
    /// XDP where the driver hands over frames in several buffers: Linux 5.18.
    XdpFrags,
    Tc,
    /// The companion for what leaves.
    Egress,
}

/// Everything a loaded program is made of, without the skeleton's lifetime.
pub(super) struct Loaded {
    pub(super) prog: OwnedFd,
    pub(super) maps: Maps,
}

pub(super) fn layout_of(map: &MapHandle) -> Result<kl_layout> {
    let value = map
        .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
        .doing(|| "reading the layout of the loaded data plane")?;
    value
        .as_deref()
        .and_then(read)
        .ok_or_else(|| Error::world("the loaded data plane does not tell its layout"))
}

/// What a loaded program was configured with.
pub(super) fn config_of(map: &MapHandle) -> Result<kl_config> {
    let value = map
        .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
        .doing(|| "reading the program's configuration")?;
    let config = value
        .as_deref()
        .and_then(|bytes| bytes.get(offset_of!(rodata, kl_config)..));
    config
        .and_then(read)
        .ok_or_else(|| Error::world("the loaded program does not tell its configuration"))
}

/// What this binary would load.
pub(super) fn own_layout() -> kl_layout {
    kl_layout {
        layout: kl_limits::KL_LAYOUT.0,
        policy_layout: kl_limits::KL_POLICY_LAYOUT.0,
        build: env!("KERNLOOM_PROGRAM_HASH").parse().unwrap_or_default(),
    }
}

/// Says which build the maps now serve.
pub(super) fn write_layout(maps: &Maps) -> Result<()> {
    maps.layouts
        .update(&0u32.to_ne_bytes(), bytes_of(&own_layout()), MapFlags::ANY)
        .doing(|| "writing the layout")
}

pub(super) fn load(options: &LoadOptions) -> Result<Loaded> {
    load_over(options, None)
}

/// New maps, but for the graph and the conversations it knows, which go on where they are given.
pub(super) fn load_over(options: &LoadOptions, graph: Option<&GraphMaps>) -> Result<Loaded> {
    let mut storage = MaybeUninit::uninit();
    let name = program_name(Variant::Xdp, options.features.graphs());
    let mut open = opened(&mut storage, name)?;
    configure(&mut open, options)?;
    if let Some(graph) = graph {
        take_graph(&mut open, graph)?;
    }
    let skel = open.load().map_err(|error| {
        if options.features.graphs() && !has_btf() {
            return Error::world(
                "the graph needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF), and this one has none; \
                 start without the graph",
            );
        }
        load_error(&error)
    })?;
    let handle =
        |map: &libbpf_rs::MapMut<'_>| MapHandle::try_from(map).doing(|| "keeping a map open");
    let learned = |map| options.features.learns().then(|| handle(map)).transpose();
    let maps = Maps {
        sources: handle(&skel.maps.kl_sources)?,
        windows: handle(&skel.maps.kl_windows)?,
        policies: handle(&skel.maps.kl_policies)?,
        prefixes: handle(&skel.maps.kl_prefixes)?,
        counters: handle(&skel.maps.kl_counters)?,
        events: learned(&skel.maps.kl_events)?,
        ports: learned(&skel.maps.kl_ports)?,
        questions: handle(&skel.maps.kl_questions)?,
        notes: handle(&skel.maps.kl_notes)?,
        layouts: handle(&skel.maps.kl_layouts)?,
        config: handle(&skel.maps.rodata)?,
        bss: handle(&skel.maps.bss)?,
        graph: match options.features.graphs() {
            true => Some(GraphMaps {
                edges: handle(&skel.maps.kl_edges)?,
                word: handle(&skel.maps.bss_graph)?,
                groups: handle(&skel.maps.kl_groups)?,
                graphs: handle(&skel.maps.kl_graphs)?,
                opened: handle(&skel.maps.kl_opened)?,
                accepted: handle(&skel.maps.kl_accepted)?,
                frags: handle(&skel.maps.kl_frags)?,
            }),
            false => None,
        },
    };
    write_layout(&maps)?;
    let prog = kept(&skel, name)?;
    Ok(Loaded { prog, maps })
}

/// Another program over maps that are in use: same policy, same counters, same secrets.
pub(super) fn load_beside(maps: &Maps, variant: Variant) -> Result<OwnedFd> {
    let mut storage = MaybeUninit::uninit();
    let name = program_name(variant, maps.graph.is_some());
    let mut open = opened(&mut storage, name)?;
    reuse(&mut open, maps)?;
    let skel = open.load().map_err(|error| load_error(&error))?;
    kept(&skel, name)
}

/// With the edge stage only where it is wanted: it brings functions that older kernels would check,
/// and without BTF refuse, even where nobody calls them.
fn program_name(variant: Variant, graph: bool) -> &'static str {
    match (variant, graph) {
        (Variant::Xdp, false) => "kernloom",
        (Variant::Xdp, true) => "kernloom_graph",
        (Variant::XdpFrags, false) => "kernloom_frags",
        (Variant::XdpFrags, true) => "kernloom_frags_graph",
        (Variant::Tc, false) => "kernloom_tc",
        (Variant::Tc, true) => "kernloom_tc_graph",
        (Variant::Egress, _) => "kernloom_egress",
    }
}

/// What tells the verifier of a function's context.
fn has_btf() -> bool {
    std::fs::exists("/sys/kernel/btf/vmlinux").unwrap_or_default()
}

fn kept(skel: &ShieldSkel<'_>, name: &str) -> Result<OwnedFd> {
    let prog = skel.object().progs().find(|prog| prog.name() == name);
    let prog = prog.ok_or_else(|| Error::world(format!("no program is called '{name}'")))?;
    let prog = prog.as_fd().try_clone_to_owned();
    prog.doing(|| "keeping the program open")
}

/// `None` if that variant is not pinned.
pub(super) fn open_program(pins: &PinDir, variant: Variant) -> Result<Option<OwnedFd>> {
    let path = pins.program(variant);
    let doing = || format!("opening {}", path.display());
    if !exists(&path)? {
        return Ok(None);
    }
    let prog = libbpf_rs::ProgramHandle::from_pinned_path(&path).doing(doing)?;
    prog.as_fd().try_clone_to_owned().doing(doing).map(Some)
}

fn reuse(open: &mut OpenShieldSkel<'_>, maps: &Maps) -> Result<()> {
    take(&mut open.maps.kl_sources, &maps.sources)?;
    take(&mut open.maps.kl_windows, &maps.windows)?;
    take(&mut open.maps.kl_policies, &maps.policies)?;
    take(&mut open.maps.kl_prefixes, &maps.prefixes)?;
    take(&mut open.maps.kl_counters, &maps.counters)?;
    let take_made = |open: &mut OpenMapMut<'_>, map: Option<&MapHandle>| match map {
        Some(map) => take(open, map),
        None => leave_out(open),
    };
    take_made(&mut open.maps.kl_events, maps.events.as_ref())?;
    take_made(&mut open.maps.kl_ports, maps.ports.as_ref())?;
    take(&mut open.maps.kl_questions, &maps.questions)?;
    take(&mut open.maps.kl_notes, &maps.notes)?;
    take(&mut open.maps.kl_layouts, &maps.layouts)?;
    match &maps.graph {
        Some(graph) => {
            take(&mut open.maps.kl_edges, &graph.edges)?;
            take_graph(open, graph)?;
        }
        None => leave_graph_out(open)?,
    }
    take(&mut open.maps.rodata, &maps.config)?;
    take(&mut open.maps.bss, &maps.bss)
}

fn take(open: &mut OpenMapMut<'_>, map: &MapHandle) -> Result<()> {
    open.reuse_fd(map.as_fd())
        .doing(|| "taking over a map that is in use")
}

/// The graph and the conversations it knows; not the edge table, which goes by the hash's secret.
fn take_graph(open: &mut OpenShieldSkel<'_>, graph: &GraphMaps) -> Result<()> {
    take(&mut open.maps.bss_graph, &graph.word)?;
    take(&mut open.maps.kl_groups, &graph.groups)?;
    take(&mut open.maps.kl_graphs, &graph.graphs)?;
    take(&mut open.maps.kl_opened, &graph.opened)?;
    take(&mut open.maps.kl_accepted, &graph.accepted)?;
    take(&mut open.maps.kl_frags, &graph.frags)
}

/// For a map that the features' code does not touch.
fn leave_out(open: &mut OpenMapMut<'_>) -> Result<()> {
    open.set_autocreate(false).doing(|| "leaving a map out")
}

/// Whether this binary's programs can work on these maps.
pub(super) fn fits(maps: &Maps) -> Result<bool> {
    let (theirs, ours) = (layout_of(&maps.layouts)?, own_layout());
    let size = |map: &MapHandle, size: usize| map.value_size() as usize == size;
    Ok(theirs.layout == ours.layout
        && size(&maps.config, size_of::<kl_config>())
        && size(&maps.bss, size_of::<bss>())
        && size(&maps.counters, size_of::<kl_cpu>()))
}

/// libbpf tells of every probe; only RUST_LOG=debug wants to know.
pub fn quiet_libbpf() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| {
        let text = text.trim_end();
        match level {
            PrintLevel::Warn | PrintLevel::Info | PrintLevel::Debug => {
                log::debug!("libbpf: {text}")
            }
        }
    })));
}

fn opened<'o>(
    storage: &'o mut MaybeUninit<libbpf_rs::OpenObject>,
    name: &str,
) -> Result<OpenShieldSkel<'o>> {
    quiet_libbpf();
    let mut open = ShieldSkelBuilder::default()
        .open(storage)
        .doing(|| "opening the program")?;
    for mut prog in open.open_object_mut().progs_mut() {
        let wanted = prog.name() == name;
        prog.set_autoload(wanted);
    }
    Ok(open)
}

fn configure(open: &mut OpenShieldSkel<'_>, options: &LoadOptions) -> Result<()> {
    let cpus = sys::possible_cpus()?;
    let sets = sets_per_cpu(options.sources, cpus)?;
    let edge_sets = match options.features.graphs() {
        true => Some(sets_per_cpu(options.graph.edges, cpus)?),
        false => None,
    };
    let hertz = if options.test_clock { 1_000 } else { hertz()? };
    let missing = || Error::world("configuring the program: it has no .rodata; build it anew");
    let bits = options.v6_width.bits();
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(missing)?;
    rodata.kl_config = kl_config {
        seed: seed(options.fixed_seed)?,
        // Odd, so that multiplication permutes; see kl_sketch_bit().
        port_seed: seed::<1>(options.fixed_seed)?[0] | 1,
        set_mask: sets - 1,
        probe_set: sets * cpus,
        v6_bits: bits.into(),
        v6_mask: mask_words(bits),
        test_clock: options.test_clock.into(),
        features: options.features.bits(),
        bench_sources: options.bench_sources,
        edge_mask: edge_sets.unwrap_or(1) - 1,
        lease_shift: lease_shift(cpus),
        jiffy_shift: jiffy_shift(hertz),
    };
    let bss = open.maps.bss_data.as_deref_mut().ok_or_else(missing)?;
    bss.kl_control.generation = 1;
    bss.kl_control.hz = hertz;
    bss.kl_control.port_alert = linear_ones(ALERT_PORTS);
    bss.kl_control.v6_bits = bits.into();
    size_graph(open, options, edge_sets.map(|sets| sets * cpus))?;
    let sized = || "sizing the maps";
    open.maps
        .kl_sources
        .set_max_entries((sets + 1) * cpus)
        .doing(sized)?;
    open.maps
        .kl_windows
        .set_max_entries(kl_limits::KL_WAYS.0 / 2 * sets * cpus)
        .doing(sized)?;
    if options.features.learns() {
        let ports = kl_limits::KL_PORTS.0 * cpus;
        open.maps.kl_ports.set_max_entries(ports).doing(sized)?;
    } else {
        leave_out(&mut open.maps.kl_ports)?;
        leave_out(&mut open.maps.kl_events)?;
    }
    open.maps
        .kl_policies
        .set_max_entries(options.max_deny)
        .doing(sized)?;
    open.maps
        .kl_prefixes
        .set_max_entries(options.max_deny)
        .doing(sized)
}

/// The burst from which on a limit is leased, log2: the leases of all CPUs are at most a 64th of it.
fn lease_shift(cpus: u32) -> u16 {
    6 + log2(kl_limits::KL_LEASE.0 * cpus)
}

/// Nanoseconds that a jiffy is at most, log2.
fn jiffy_shift(hertz: u32) -> u16 {
    log2(1_000_000_000_u32.div_ceil(hertz))
}

/// Rounded up.
const fn log2(number: u32) -> u16 {
    let bits = number.next_power_of_two().trailing_zeros();
    #[expect(clippy::cast_possible_truncation, reason = "at most 31")]
    let log = bits as u16;
    log
}

/// Sizes the edge stage's maps, or leaves them out.
fn size_graph(
    open: &mut OpenShieldSkel<'_>,
    options: &LoadOptions,
    sets: Option<u32>,
) -> Result<()> {
    let doing = || "sizing the maps of the edge stage";
    let Some(sets) = sets else {
        return leave_graph_out(open);
    };
    if let Some(word) = open.maps.bss_graph_data.as_deref_mut() {
        word.kl_graph.layout = kl_graph_limits::KL_GRAPH_LAYOUT.0;
    }
    let maps = &mut open.maps;
    let flows = options.graph.flows;
    maps.kl_edges.set_max_entries(sets).doing(doing)?;
    maps.kl_opened.set_max_entries(flows).doing(doing)?;
    maps.kl_accepted.set_max_entries(flows).doing(doing)?;
    maps.kl_frags
        .set_max_entries((flows / 8).max(64))
        .doing(doing)
}

fn leave_graph_out(open: &mut OpenShieldSkel<'_>) -> Result<()> {
    let maps = &mut open.maps;
    for map in [
        &mut maps.kl_edges,
        &mut maps.bss_graph,
        &mut maps.kl_groups,
        &mut maps.kl_graphs,
        &mut maps.kl_opened,
        &mut maps.kl_accepted,
        &mut maps.kl_frags,
        &mut maps.kl_edge_scratches,
        &mut maps.kl_leaving,
    ] {
        leave_out(map)?;
    }
    Ok(())
}

/// Jiffies in a second: the coarse clock moves once per jiffy, and says so.
fn hertz() -> Result<u32> {
    let coarse = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    let tick = nix::time::clock_getres(coarse).doing(|| "asking how long a jiffy is")?;
    let nanos = u32::try_from(tick.tv_nsec()).unwrap_or_default().max(1);
    Ok((1_000_000_000 + nanos / 2) / nanos)
}

/// Sets of the source table with those behind it, over all CPUs.
pub(super) fn source_sets(options: &LoadOptions) -> Result<u32> {
    let cpus = sys::possible_cpus()?;
    Ok((sets_per_cpu(options.sources, cpus)? + 1) * cpus)
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

pub(super) fn mask_words(bits: u8) -> [u32; 4] {
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

/// The words of splitmix64 from 0 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014), or unpredictable ones.
fn seed<const N: usize>(fixed: bool) -> Result<[u64; N]> {
    if !fixed {
        return random();
    }
    let mut state = 0_u64;
    Ok(std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }))
}

pub(super) fn random<const N: usize>() -> Result<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        *word = sys::random_word().doing(|| "drawing the hash seed")?;
    }
    Ok(words)
}

pub(super) fn load_error(error: &libbpf_rs::Error) -> Error {
    let kernel = nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    if error.kind() == libbpf_rs::ErrorKind::PermissionDenied {
        // Where all rights are there, what is left is the limit of locked memory, where it counts.
        let limited = rights::missing().is_empty() && super::examine::locks_memory();
        let why = if limited {
            "the limit of locked memory is too low; raise it (ulimit -l unlimited)".to_owned()
        } else {
            rights::refusal()
        };
        return Error::operator(format!(
            "loading the XDP program on kernel {kernel}: {why} ({error:#})"
        ));
    }
    if format!("{error:#}").contains(UNTRANSLATED) {
        return Error::world(format!(
            "loading the XDP program on kernel {kernel}: its JIT compiler cannot translate it ({error:#}); run \
             'sysctl -w net.core.bpf_jit_enable=0', which has it interpreted"
        ));
    }
    Error::world(format!(
        "loading the XDP program on kernel {kernel}: {error:#}; Kernloom needs Linux 5.10 or newer with \
         CONFIG_BPF_SYSCALL; RUST_LOG=debug shows the verifier's words"
    ))
}

/// ENOTSUPP of linux/errno.h, which no C library knows: what a JIT compiler answers that cannot
/// translate a program where no interpreter takes over. libbpf-rs shows a code in its text alone.
const UNTRANSLATED: &str = "(os error 524)";

#[cfg(test)]
mod tests {
    use libbpf_rs::ErrorExt;

    use super::*;

    #[test]
    fn a_jit_that_cannot_translate_is_told_with_the_way_out() {
        let told = |code| {
            let error = libbpf_rs::Error::from_raw_os_error(code).context("failed to load object");
            load_error(&error).to_string()
        };
        assert!(told(524).contains("sysctl -w net.core.bpf_jit_enable=0"));
        assert!(!told(libc::EINVAL).contains("bpf_jit_enable"));
    }

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
