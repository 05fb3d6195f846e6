//! One instance of the data plane: loaded here, or opened from its pins.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::abi::{Reason, kl_answer};
use super::attach::{self, Attached, ModeChoice};
use super::control::{AllowOnly, Control, Retired};
use super::counters::Counters;
use super::events::Events;
use super::examine::Interface;
use super::graph::{EdgeBy, GraphPlane, GraphWord};
use super::load::{self, Loaded, Variant};
use super::maps::Maps;
use super::notes::Notes;
use super::options::LoadOptions;
use super::pin::{Lock, PinDir, remove_if_there};
use super::policy::{Edit, Policies};
use super::ports::{self, PortCount};
use super::rule::{Action, Entry, Owner};
use super::sources::SourceTable;
use super::{egress, sys, upgrade};
use crate::error::{Doing, Error, Result};
use crate::model::Ktime;

/// Result of a packet run through the program without an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestRun {
    pub dropped: bool,
    /// Known only on an instance loaded with the test clock.
    pub reason: Option<Reason>,
    /// Mean over the repetitions.
    pub duration: Duration,
}

/// What the program would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub dropped: bool,
    pub reason: Reason,
    /// Length of the prefix whose entry decided, of 128; `None` where no entry did.
    pub decided_by: Option<u8>,
    /// What in the graph decided; told of packets that policy passes.
    pub edge: EdgeBy,
}

pub struct Shield {
    pub(super) prog: OwnedFd,
    pub(super) maps: Maps,
    pub(super) control: Control,
    graph: Option<GraphWord>,
    v6_bits: u8,
}

impl Shield {
    /// Loads a fresh instance that nothing is attached to and nobody else sees.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let Loaded { prog, maps } = load::load(options)?;
        Self::of(prog, maps)
    }

    /// Opens the instance pinned in `pins`, `None` if there is none.
    pub fn open(pins: &PinDir) -> Result<Option<Self>> {
        if !pins.is_loaded()? {
            return match unsteered(pins)? {
                Some(interface) => Err(Error::world(format!(
                    "{interface} runs a program of {} whose pin is gone, so nothing can steer it; \
                     'kernloom shield detach --all --purge' ends it, then attach anew",
                    pins.path().display()
                ))),
                None => Ok(None),
            };
        }
        if !upgrade::fits_pinned(pins)? {
            return Err(Error::world(
                "the loaded data plane has another layout than this binary speaks; 'kernloom shield upgrade' moves \
                 its policy over without a gap",
            ));
        }
        let prog = load::open_program(pins, Variant::Xdp)?
            .ok_or_else(|| Error::world("the program's pin went away just now; try again"))?;
        Self::of(prog, pins.open_maps()?).map(Some)
    }

    /// Opens the pinned instance, or loads one and pins it. `lock` is the instance's own.
    pub fn open_or_load(pins: &PinDir, options: &LoadOptions, _lock: &Lock) -> Result<Self> {
        if let Some(shield) = Self::open(pins)? {
            return Ok(shield);
        }
        let shield = Self::load(options).inspect_err(|_| {
            // It was made for what did not come. Where something is in it, it stays.
            let _ = std::fs::remove_dir(pins.path());
        })?;
        pins.pin(shield.prog.as_fd(), &shield.maps)?;
        Ok(shield)
    }

    pub(super) fn of(prog: OwnedFd, maps: Maps) -> Result<Self> {
        let control = Control::map(maps.bss.as_fd())?;
        let v6_bits = control.v6_bits().load(Ordering::Relaxed);
        let v6_bits = u8::try_from(v6_bits)
            .map_err(|_| Error::world("opening the data plane: its control words make no sense"))?;
        let graph = maps.graph.as_ref();
        let graph = graph.map(|graph| GraphWord::map(graph.word.as_fd()));
        Ok(Self {
            graph: graph.transpose()?,
            prog,
            maps,
            control,
            v6_bits,
        })
    }

    /// Attaches to an interface; says so instead if it already is. `force` removes the XDP
    /// program of somebody else.
    pub fn attach(
        &self,
        pins: &PinDir,
        interface: &str,
        choice: ModeChoice,
        force: bool,
        _lock: &Lock,
    ) -> Result<Attached> {
        for path in attach::lost(pins)? {
            remove_if_there(&path)?;
        }
        let mut programs = |variant| self.program(pins, variant);
        let attached = attach::attach(pins, &mut programs, interface, choice, force)?;
        if let Err(error) = self.attach_companion(pins, &attached) {
            // All of it or nothing: what came in would be judged, what left would not.
            if !attached.already {
                attach::detach(pins, attached.ifindex)?;
            }
            return Err(error);
        }
        Ok(attached)
    }

    fn attach_companion(&self, pins: &PinDir, to: &Attached) -> Result<()> {
        if self.maps.graph.is_none() {
            return Ok(());
        }
        let egress = self.program(pins, Variant::Egress)?;
        egress::attach(pins, egress.as_fd(), &to.interface, to.ifindex)
    }

    /// The program for a place, loaded and pinned when it is first asked for.
    fn program(&self, pins: &PinDir, variant: Variant) -> Result<OwnedFd> {
        if variant == Variant::Xdp {
            return self.prog.try_clone().doing(|| "keeping the program open");
        }
        if let Some(prog) = load::open_program(pins, variant)? {
            return Ok(prog);
        }
        let prog = load::load_beside(&self.maps, variant)?;
        pins.replace(&pins.program(variant), prog.as_fd())?;
        Ok(prog)
    }

    /// Every interface the instance in `pins` is attached to.
    pub fn attached(pins: &PinDir) -> Result<Vec<Attached>> {
        attach::attached(pins)
    }

    /// How many interfaces it was attached to that are gone since, and nobody attached anew.
    pub fn lost(pins: &PinDir) -> Result<usize> {
        Ok(attach::lost(pins)?.len())
    }

    /// How the instance in `pins` is attached to one interface.
    pub fn attached_to(pins: &PinDir, interface: &Interface) -> Result<Option<Attached>> {
        attach::existing(pins, &interface.name, interface.ifindex)
    }

    /// False if the instance was not attached there.
    pub fn detach(pins: &PinDir, ifindex: u32, _lock: &Lock) -> Result<bool> {
        egress::detach(pins, ifindex)?;
        attach::detach(pins, ifindex)
    }

    /// Unpins everything: policy and counters are gone. Refused while an interface is attached.
    pub fn purge(pins: &PinDir, _lock: &Lock) -> Result<()> {
        if let Some(attached) = Self::attached(pins)?.first() {
            return Err(Error::operator(format!(
                "{} is still attached; detach it first",
                attached.interface
            )));
        }
        if pins.is_loaded()? {
            upgrade::retire(pins, Retired::Purged)?;
        }
        pins.remove()
    }

    /// Width IPv6 sources are tracked at.
    pub const fn v6_bits(&self) -> u8 {
        self.v6_bits
    }

    pub fn counters(&self) -> Result<Counters> {
        Counters::read(&self.maps.counters)
    }

    pub fn sources(&self) -> Result<SourceTable> {
        let config = load::config_of(&self.maps.config)?;
        SourceTable::map(&self.maps.sources, &config, self.v6_bits)
    }

    /// `None` if the program was loaded without them ([`super::Features`]).
    pub fn events(&self) -> Result<Option<Events>> {
        let Some(map) = &self.maps.events else {
            return Ok(None);
        };
        let map = libbpf_rs::MapHandle::try_from(map).doing(|| "opening the event ring")?;
        Events::open(map, self.v6_bits).map(Some)
    }

    /// Openings by destination port, every port with any; `None` as for events.
    pub fn ports(&self) -> Result<Option<Vec<PortCount>>> {
        self.maps.ports.as_ref().map(ports::read).transpose()
    }

    fn policies(&self) -> Policies<'_> {
        Policies {
            entries: &self.maps.policies,
            index: &self.maps.prefixes,
            notes: &self.maps.notes,
            control: &self.control,
            v6_bits: self.v6_bits,
        }
    }

    /// Why entries were made.
    pub fn notes(&self) -> Result<Notes> {
        Notes::read(&self.maps.notes)
    }

    /// Kernel memory of its maps now, in bytes.
    pub fn memory(&self) -> Result<u64> {
        self.maps.memory()
    }

    pub fn allow_only(&self) -> Result<AllowOnly> {
        self.control.allow_only()
    }

    /// Whether only allowed sources pass, from the next packet on.
    pub fn set_allow_only(&self, to: AllowOnly, _lock: &Lock) {
        self.control.set_allow_only(to);
    }

    /// Makes a pending lease last. False if none is pending.
    pub fn confirm(&self, _lock: &Lock) -> Result<bool> {
        self.control.confirm()
    }

    /// The default limit of sources without a rule.
    pub fn ceiling(&self) -> Option<Action> {
        self.control.ceiling()
    }

    /// Sets or lifts the default limit; sources that the old one had promoted start over.
    pub fn set_ceiling(&self, action: Option<&Action>, lock: &Lock) -> Result<()> {
        self.control.set_ceiling(None)?;
        self.edit(lock)
            .remove_all(|entry| entry.rule.owner == Owner::Ceiling)?;
        self.control.set_ceiling(action)
    }

    /// `None` while a program reads these maps, or may again.
    pub fn retired(&self) -> Option<Retired> {
        self.control.retirement()
    }

    /// Asks the program what it would do with a frame, leaving no trace. The frame's first
    /// 8 bytes are replaced by a number drawn for this question.
    pub fn probe(&self, frame: &[u8], _lock: &Lock) -> Result<Answer> {
        let nonce = load::random::<1>()?[0] | 1;
        let mut frame = frame.to_vec();
        for (to, byte) in frame.iter_mut().zip(nonce.to_le_bytes()) {
            *to = byte;
        }
        self.control.test_edge().store(0, Ordering::Release);
        self.control.probe().store(nonce, Ordering::Release);
        let ran = sys::test_run(self.prog.as_fd(), &frame, 1);
        self.control.probe().store(0, Ordering::Release);
        let ran = ran.doing(|| "asking the program")?;
        let number = self.control.test_reason().load(Ordering::Acquire);
        let reason = Reason::from_number(number)
            .ok_or_else(|| Error::world(format!("the program gave an unknown reason, {number}")))?;
        let bits = self.control.test_bits().load(Ordering::Acquire);
        let decided_by = u8::try_from(bits)
            .ok()
            .filter(|_| bits != kl_answer::KL_NO_ENTRY.0);
        Ok(Answer {
            dropped: ran.action != libbpf_sys::XDP_PASS,
            reason,
            decided_by,
            edge: EdgeBy::from_number(self.control.test_edge().load(Ordering::Acquire)),
        })
    }

    /// The edge stage, if this instance was loaded with one.
    pub fn graph(&self) -> Option<GraphPlane<'_>> {
        let (maps, word) = (self.maps.graph.as_ref()?, self.graph.as_ref()?);
        Some(GraphPlane {
            maps,
            word,
            v6_bits: self.v6_bits,
        })
    }

    /// All policy entries, ended ones included, in order of source.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.policies().list()
    }

    /// The entry of exactly this source.
    pub fn entry(&self, source: &crate::model::Source) -> Result<Option<Entry>> {
        self.policies().get(source)
    }

    /// Most policy entries this instance takes.
    pub fn max_deny(&self) -> u32 {
        use libbpf_rs::MapCore;
        self.maps.policies.max_entries()
    }

    /// Starts a change of policy; sources see it when the edit ends.
    pub fn edit<'a>(&'a self, lock: &'a Lock) -> Edit<'a> {
        Edit::new(self.policies(), lock)
    }

    /// Sketch bits at which the program reports a source between ticks; 0 = never.
    pub fn set_port_alert(&self, bits: u32) {
        self.control.port_alert().store(bits, Ordering::Relaxed);
    }

    /// Version of the policy: changes with every edit.
    pub fn generation(&self) -> u32 {
        self.control.generation().load(Ordering::Acquire)
    }

    /// How often `kernloom reset` ran on this instance.
    pub fn resets(&self) -> u32 {
        self.control.resets().load(Ordering::Acquire)
    }

    /// Tells a running IQ that what it enforced is gone.
    pub fn announce_reset(&self) {
        self.control.resets().fetch_add(1, Ordering::Release);
    }

    /// Sets the clocks of an instance loaded with the test clock. Jiffies count at 1000 Hz.
    pub fn set_test_time(&self, now: Ktime) {
        self.control
            .test_now_ns()
            .store(now.as_nanos(), Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "jiffies wrap; so does the kernel's"
        )]
        let jiffies = (now.as_nanos() / 1_000_000) as u32;
        self.control
            .test_jiffies()
            .store(jiffies, Ordering::Relaxed);
    }

    /// Runs one frame through the program as if received, `repeat` times on the current CPU.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun> {
        let ran =
            sys::test_run(self.prog.as_fd(), frame, repeat).doing(|| "test-running a packet")?;
        Ok(TestRun {
            dropped: ran.action != libbpf_sys::XDP_PASS,
            reason: self.test_reason(),
            duration: ran.duration,
        })
    }

    /// Sends `frames` copies of a frame through the program as if an interface had received them.
    pub fn test_run_live(&self, frame: &[u8], frames: u32, ifindex: u32) -> Result<()> {
        sys::test_run_live(self.prog.as_fd(), frame, frames, ifindex)
            .doing(|| "test-running live frames (Linux 5.18)")
    }

    /// The companion for what leaves, to run frames through; `None` without the edge stage.
    pub fn companion(&self) -> Result<Option<Companion>> {
        match self.maps.graph {
            Some(_) => {
                load::load_beside(&self.maps, Variant::Egress).map(|prog| Some(Companion { prog }))
            }
            None => Ok(None),
        }
    }

    /// Why the last packet left as it did, on an instance loaded with the test clock.
    pub fn test_reason(&self) -> Option<Reason> {
        Reason::from_number(self.control.test_reason().load(Ordering::Relaxed))
    }
}

/// The TC companion of the edge stage, without an interface.
pub struct Companion {
    prog: OwnedFd,
}

/// linux/pkt_cls.h
const TC_ACT_SHOT: u32 = 2;

impl Companion {
    /// Whether a frame that leaves would be dropped.
    pub fn drops(&self, frame: &[u8]) -> Result<bool> {
        let ran = sys::test_run(self.prog.as_fd(), frame, 1)
            .doing(|| "test-running an outbound packet")?;
        Ok(ran.action == TC_ACT_SHOT)
    }
}

/// An interface that is attached although the instance in `pins` is not whole.
fn unsteered(pins: &PinDir) -> Result<Option<String>> {
    let attached = attach::attached(pins)?;
    Ok(attached
        .into_iter()
        .next()
        .map(|attached| attached.interface))
}
