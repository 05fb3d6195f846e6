//! A newer program in the place of one that runs, while packets flow.
//!
//! Maps that fit are taken over as they are: policy, counters and every source stay. Maps that
//! do not (another layout, another size) are made anew; the policy is copied while the old
//! program still judges, and only then do the links change over.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use libbpf_rs::{Link, MapCore, MapFlags, TC_INGRESS};

use super::abi::{kl_limits, kl_policy, kl_prefix};
use super::attach::{self, AttachMode};
use super::control::{AllowOnly, Control, Retired};
use super::graph_maps::GraphMaps;
use super::load::{self, Loaded, Variant};
use super::notes::Notes;
use super::options::{Features, GraphSizes, LoadOptions};
use super::pin::{Lock, PinDir};
use super::pod::read;
use super::rule::{Entry, NoteId, Owner, Rule, source_of};
use super::shield::Shield;
use super::{egress, sys, tc};
use crate::error::{Doing, Error, Result};
use crate::model::Source;

/// The layout of instances that do not tell theirs.
const UNTOLD: u32 = 1;

/// What an upgrade did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// Interfaces that changed over.
    pub interfaces: Vec<String>,
    /// Entries copied into new maps; `None` where the maps were taken over as they are.
    pub migrated: Option<usize>,
    /// Layouts before and after.
    pub layouts: (u32, u32),
    /// False where the very same program was running already.
    pub newer: bool,
}

/// Sizes for the maps; `None` keeps them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    pub sources: Option<u32>,
    pub max_deny: Option<u32>,
}

fn layout(pins: &PinDir) -> Result<Option<super::abi::kl_layout>> {
    let layout = pins.open_made("layout")?;
    layout.as_ref().map(load::layout_of).transpose()
}

pub(super) fn fits_pinned(pins: &PinDir) -> Result<bool> {
    match layout(pins)? {
        Some(theirs) if theirs.layout == kl_limits::KL_LAYOUT.0 => load::fits(&pins.open_maps()?),
        _ => Ok(false),
    }
}

impl Shield {
    /// Whether the pinned instance runs another build's program than this binary holds.
    pub fn is_outdated(pins: &PinDir) -> Result<bool> {
        Ok(pins.is_loaded()?
            && layout(pins)?.is_none_or(|theirs| theirs.build != load::own_layout().build))
    }

    /// What the pinned instance was loaded to do: a map that was left out was not pinned. An untold
    /// layout had no choice.
    pub fn features(pins: &PinDir) -> Result<Features> {
        let told = layout(pins)?.is_some();
        Ok(if pins.has("graphs")? {
            Features::Graph
        } else if told && !pins.has("ports")? {
            Features::Light
        } else {
            Features::Learn
        })
    }

    /// Whether the pinned instance has other sizes than the named ones.
    pub fn resizes(pins: &PinDir, sizes: &Sizes) -> Result<bool> {
        if sizes.sources.is_none() && sizes.max_deny.is_none() {
            return Ok(false);
        }
        let (wanted, maps) = (options(pins, sizes)?, pins.open_maps()?);
        Ok(maps.policies.max_entries() != wanted.max_deny
            || maps.sources.max_entries() != load::source_sets(&wanted)?)
    }

    /// Puts this binary's program in the place of the pinned one on every interface. No packet
    /// passes unjudged meanwhile; on an error the old program goes on.
    pub fn upgrade(pins: &PinDir, sizes: &Sizes, lock: &Lock) -> Result<Upgraded> {
        let there = layout(pins)?;
        let ours = load::own_layout();
        let before = there.map_or(UNTOLD, |there| there.layout);
        let newer = there.is_none_or(|there| there.build != ours.build);
        let (shield, migrated) = if fits_pinned(pins)? && !Self::resizes(pins, sizes)? {
            let maps = pins.open_maps()?;
            let prog = load::load_beside(&maps, Variant::Xdp)?;
            (Self::of(prog, maps)?, None)
        } else {
            let policy_layout = there.map_or(ours.policy_layout, |there| there.policy_layout);
            if policy_layout != ours.policy_layout {
                return Err(Error::world(format!(
                    "the loaded data plane writes its policy in a form (version {policy_layout}) that this binary \
                     does not read (version {}); export it with the binary that loaded it, detach --purge, attach \
                     and import",
                    ours.policy_layout
                )));
            }
            let (shield, copied) = migrate(pins, sizes, lock)?;
            (shield, Some(copied))
        };
        let interfaces = change_over(pins, &shield)?;
        if migrated.is_some() {
            retire(pins, Retired::Replaced)?;
        } else {
            // What the program before said of a source is not believed: an edit of nothing says so.
            drop(shield.edit(lock));
        }
        load::write_layout(&shield.maps)?;
        pins.pin(shield.prog.as_fd(), &shield.maps)?;
        Ok(Upgraded {
            interfaces,
            migrated,
            layouts: (before, ours.layout),
            newer,
        })
    }
}

/// The sizes asked for, else those there are.
fn options(pins: &PinDir, sizes: &Sizes) -> Result<LoadOptions> {
    let default = LoadOptions::default();
    let cpus = sys::possible_cpus()?;
    let there = |name: &str| pins.open_map(name).map(|map| map.max_entries());
    // An untold layout had no sets for probes behind its table.
    let probes = if layout(pins)?.is_some() { cpus } else { 0 };
    let sets = there("sources")?.saturating_sub(probes);
    Ok(LoadOptions {
        sources: sizes
            .sources
            .unwrap_or(sets.saturating_mul(kl_limits::KL_WAYS.0)),
        max_deny: match sizes.max_deny {
            Some(max_deny) => max_deny,
            None => there("policies")?,
        },
        features: Shield::features(pins)?,
        graph: graph_sizes(pins)?,
        ..default
    })
}

fn graph_sizes(pins: &PinDir) -> Result<GraphSizes> {
    if Shield::features(pins)? != Features::Graph {
        return Ok(GraphSizes::default());
    }
    let edges = pins.open_map("edges")?.max_entries();
    Ok(GraphSizes {
        edges: edges.saturating_mul(kl_limits::KL_WAYS.0),
        flows: pins.open_map("opened")?.max_entries(),
    })
}

/// The graph of what is loaded, which both programs then judge by; `None` where there is none.
fn old_graph(pins: &PinDir) -> Result<Option<GraphMaps>> {
    if Shield::features(pins)? != Features::Graph {
        return Ok(None);
    }
    match GraphMaps::open_pinned(pins)? {
        Some(graph) if graph.fits()? => Ok(Some(graph)),
        _ => Err(Error::world(
            "the loaded data plane keeps its graph in a form that this binary does not read, and an upgrade must \
             not switch it off; 'kernloom shield detach --all --purge' and start iq again: the frozen graph is in \
             its own file and stays",
        )),
    }
}

/// New maps with the old policy in them.
fn migrate(pins: &PinDir, sizes: &Sizes, lock: &Lock) -> Result<(Shield, usize)> {
    let graph = old_graph(pins)?;
    let settings = control(pins)?.ok_or_else(|| {
        Error::world(
            "the loaded data plane keeps enforce-allow and the default limit in a form that this binary does not read; \
             ask 'shield status' and export the lists with the binary that loaded it, detach --purge, attach and import",
        )
    })?;
    let Loaded { prog, maps } = load::load_over(&options(pins, sizes)?, graph.as_ref())?;
    let shield = Shield::of(prog, maps)?;
    let (entries, notes) = old_policy(pins)?;
    let mut edit = shield.edit(lock);
    let mut fresh: HashMap<NoteId, NoteId> = HashMap::new();
    let mut rules: Vec<(Source, Rule, NoteId)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let note = match fresh.get(&entry.note) {
            Some(note) => *note,
            None => {
                let note = edit.note(notes.text(entry.note))?;
                fresh.insert(entry.note, note);
                note
            }
        };
        rules.push((entry.source, entry.rule, note));
    }
    edit.import(&rules, |_| ())?;
    drop(edit);
    copy_settings(&settings, &shield)?;
    Ok((shield, rules.len()))
}

/// Rules as they stand in the pinned hash. What the program made it makes again.
fn old_policy(pins: &PinDir) -> Result<(Vec<Entry>, Notes)> {
    let map = pins.open_map("policies")?;
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    if (key_size, value_size) != (size_of::<kl_prefix>(), size_of::<kl_policy>()) {
        return Err(Error::world(format!(
            "the loaded policy has keys of {key_size} and values of {value_size} bytes, which this binary does not read"
        )));
    }
    let entries = map.keys().filter_map(|key| {
        let value = map.lookup(&key, MapFlags::ANY).ok()??;
        Entry::of(source_of(&read::<kl_prefix>(&key)?), &read(&value)?)
    });
    let entries = entries.filter(|entry| entry.rule.owner != Owner::Ceiling);
    let notes = pins.open_made("notes")?;
    let notes = notes.as_ref().map(Notes::read).transpose()?;
    let notes = notes.unwrap_or_default();
    Ok((entries.collect(), notes))
}

/// The control words of what is pinned, whatever else it has otherwise; `None` from before they could
/// be read so. Words that it does not have are 0.
fn control(pins: &PinDir) -> Result<Option<Control>> {
    match layout(pins)? {
        Some(theirs) if theirs.layout >= kl_limits::KL_CONTROL_LAYOUT.0 => {
            Control::map(pins.open_map("control")?.as_fd()).map(Some)
        }
        _ => Ok(None),
    }
}

/// Default-deny with its lease, default limit, alert bound.
fn copy_settings(from: &Control, to: &Shield) -> Result<()> {
    match from.allow_only()? {
        AllowOnly::Lapsed => {}
        state @ (AllowOnly::Off | AllowOnly::On | AllowOnly::Leased(_)) => {
            to.control.set_allow_only(state)
        }
    }
    to.control.set_ceiling(from.ceiling().as_ref())?;
    let copy = |from: &std::sync::atomic::AtomicU32, to: &std::sync::atomic::AtomicU32| {
        to.store(from.load(Ordering::Acquire), Ordering::Release);
    };
    copy(from.port_alert(), to.control.port_alert());
    copy(from.resets(), to.control.resets());
    Ok(())
}

/// Every link runs the new program from its next packet on; which interfaces.
fn change_over(pins: &PinDir, shield: &Shield) -> Result<Vec<String>> {
    let mut beside = Programs::default();
    for path in pins.links()? {
        let doing = || format!("changing the program of {}", path.display());
        let link = Link::open(&path).doing(doing)?;
        let Some((_, mode)) = attach::place_of(&link) else {
            continue;
        };
        let variant = match mode {
            Some(AttachMode::Tc) => Variant::Tc,
            _ if runs(pins, Variant::XdpFrags, &link)? => Variant::XdpFrags,
            _ => Variant::Xdp,
        };
        let prog = beside.get(shield, variant)?;
        sys::link_update(link.as_fd(), prog.as_fd()).doing(doing)?;
    }
    for ifindex in pins.filters()? {
        let (path, index) = (pins.filter(ifindex), attach::index(ifindex)?);
        if tc::is_there(&path, index, TC_INGRESS)? {
            let prog = beside.get(shield, Variant::Tc)?;
            tc::attach(
                prog.as_fd(),
                &format!("interface {ifindex}"),
                index,
                TC_INGRESS,
            )?;
            pins.replace(&path, prog.as_fd())?;
        }
    }
    if shield.graph().is_some() {
        egress::change_over(pins, beside.get(shield, Variant::Egress)?.as_fd())?;
    }
    for (variant, prog) in &beside.loaded {
        pins.replace(&pins.program(*variant), prog.as_fd())?;
    }
    // A variant nothing runs any more is of the old build: loaded anew when it is asked for.
    for variant in [Variant::XdpFrags, Variant::Tc] {
        if !beside.loaded.iter().any(|(loaded, _)| *loaded == variant) {
            super::pin::remove_if_there(&pins.program(variant))?;
        }
    }
    let there = attach::attached(pins)?;
    Ok(there.into_iter().map(|there| there.interface).collect())
}

/// Programs of the new build besides the one every instance has.
#[derive(Default)]
struct Programs {
    loaded: Vec<(Variant, OwnedFd)>,
}

impl Programs {
    fn get(&mut self, shield: &Shield, variant: Variant) -> Result<OwnedFd> {
        let keep = |prog: &OwnedFd| prog.try_clone().doing(|| "keeping the program open");
        if variant == Variant::Xdp {
            return keep(&shield.prog);
        }
        if let Some((_, prog)) = self.loaded.iter().find(|(loaded, _)| *loaded == variant) {
            return keep(prog);
        }
        let prog = load::load_beside(&shield.maps, variant)?;
        let kept = keep(&prog)?;
        self.loaded.push((variant, prog));
        Ok(kept)
    }
}

fn runs(pins: &PinDir, variant: Variant, link: &Link) -> Result<bool> {
    let Some(prog) = load::open_program(pins, variant)? else {
        return Ok(false);
    };
    let doing = || "asking which program a link runs";
    let id = sys::program_id(prog.as_fd()).doing(doing)?;
    Ok(link.info().doing(doing)?.prog_id == id)
}

/// Tells whoever has the old maps open why they are read no more.
pub(super) fn retire(pins: &PinDir, why: Retired) -> Result<()> {
    if let Some(control) = control(pins)? {
        control.retired().store(why as u32, Ordering::Release);
    }
    Ok(())
}

impl std::fmt::Display for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.migrated {
            None if !self.newer => {
                f.write_str("the same program again; policy, counters and sources kept")
            }
            None => f.write_str("newer program; policy, counters and sources kept"),
            Some(copied) if self.layouts.0 == self.layouts.1 => write!(
                f,
                "tables made anew; {copied} policy entries moved over, counters and sources start at zero"
            ),
            Some(copied) => write!(
                f,
                "layout {} became {}; {copied} policy entries moved over, counters and sources start at zero",
                self.layouts.0, self.layouts.1
            ),
        }
    }
}
