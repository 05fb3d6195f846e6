//! One instance of the data plane: loaded here, or opened from its pins.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libbpf_rs::ProgramHandle;

use super::abi::{Reason, kl_limits};
use super::attach::{self, Attached, ModeChoice};
use super::control::Control;
use super::counters::Counters;
use super::egress;
use super::events::Events;
use super::graph::GraphPlane;
use super::load::{self, LoadOptions, Loaded, Maps};
use super::pin::{Lock, PinDir};
use super::policy::{Edit, Entry, Policies};
use super::sources::SourceTable;
use super::sys;
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

/// linux/pkt_cls.h
const TC_ACT_SHOT: u32 = 2;

pub struct Shield {
    prog: OwnedFd,
    egress: Option<OwnedFd>,
    maps: Maps,
    control: Control,
    v6_bits: u8,
}

impl Shield {
    /// Loads a fresh instance that nothing is attached to and nobody else sees.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let Loaded { prog, egress, maps } = load::load(options)?;
        Self::of(prog, egress, maps)
    }

    /// Opens the instance pinned in `pins`, `None` if there is none.
    pub fn open(pins: &PinDir) -> Result<Option<Self>> {
        if !pins.is_loaded()? {
            return Ok(None);
        }
        let program = |path: PathBuf| {
            let prog = ProgramHandle::from_pinned_path(&path)
                .doing(|| format!("opening {}", path.display()))?;
            prog.as_fd()
                .try_clone_to_owned()
                .doing(|| "keeping the program open")
        };
        let prog = program(pins.program())?;
        let maps = pins.open_maps()?;
        let egress = match maps.graph {
            Some(_) => Some(program(pins.egress())?),
            None => None,
        };
        let shield = Self::of(prog, egress, maps)?;
        let (theirs, ours) = (
            shield.control.layout().load(Ordering::Relaxed),
            kl_limits::KL_LAYOUT.0,
        );
        if theirs != ours {
            return Err(Error::world(format!(
                "the loaded data plane has layout {theirs}, this binary speaks {ours}; run 'kernloom shield \
                 detach --purge' with the binary that loaded it, then attach anew"
            )));
        }
        Ok(Some(shield))
    }

    /// Opens the pinned instance, or loads one and pins it. `lock` is the instance's own.
    pub fn open_or_load(pins: &PinDir, options: &LoadOptions, _lock: &Lock) -> Result<Self> {
        if let Some(shield) = Self::open(pins)? {
            return Ok(shield);
        }
        let shield = Self::load(options)?;
        let egress = shield.egress.as_ref().map(AsFd::as_fd);
        pins.pin(shield.prog.as_fd(), egress, &shield.maps)?;
        Ok(shield)
    }

    fn of(prog: OwnedFd, egress: Option<OwnedFd>, maps: Maps) -> Result<Self> {
        let control = Control::map(maps.bss.as_fd())?;
        let v6_bits = control.v6_bits().load(Ordering::Relaxed);
        let v6_bits = u8::try_from(v6_bits)
            .map_err(|_| Error::world("opening the data plane: its control words make no sense"))?;
        Ok(Self {
            prog,
            egress,
            maps,
            control,
            v6_bits,
        })
    }

    /// Attaches to an interface; says so instead if it already is.
    pub fn attach(
        &self,
        pins: &PinDir,
        interface: &str,
        choice: ModeChoice,
        _lock: &Lock,
    ) -> Result<Attached> {
        let attached = attach::attach(pins, self.prog.as_fd(), interface, choice)?;
        if let Some(egress) = &self.egress {
            egress::attach(pins, egress.as_fd(), attached.ifindex)?;
        }
        Ok(attached)
    }

    /// Every interface the instance in `pins` is attached to.
    pub fn attached(pins: &PinDir) -> Result<Vec<Attached>> {
        attach::attached(pins)
    }

    /// False if the instance was not attached there.
    pub fn detach(pins: &PinDir, ifindex: u32, _lock: &Lock) -> Result<bool> {
        let was = attach::detach(pins, ifindex)?;
        egress::detach(pins, ifindex)?;
        Ok(was)
    }

    /// Unpins everything: policy and counters are gone. Refused while an interface is attached.
    pub fn purge(pins: &PinDir, _lock: &Lock) -> Result<()> {
        if let Some(attached) = Self::attached(pins)?.first() {
            return Err(Error::operator(format!(
                "{} is still attached; detach it first",
                attached.interface
            )));
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
        SourceTable::map(&self.maps.sources, self.v6_bits)
    }

    pub fn events(&self) -> Result<Events> {
        let map =
            libbpf_rs::MapHandle::try_from(&self.maps.events).doing(|| "opening the event ring")?;
        Events::open(map, self.v6_bits)
    }

    fn policies(&self) -> Policies<'_> {
        Policies {
            entries: &self.maps.policies,
            index: &self.maps.prefixes,
            control: &self.control,
            v6_bits: self.v6_bits,
        }
    }

    /// The edge stage, if this instance was loaded with one.
    pub fn graph(&self) -> Option<GraphPlane<'_>> {
        self.maps.graph.as_ref().map(|maps| GraphPlane {
            maps,
            control: &self.control,
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

    /// Runs one frame through the outbound companion: whether it is dropped.
    pub fn test_run_out(&self, frame: &[u8], repeat: u32) -> Result<Option<TestRun>> {
        let Some(egress) = &self.egress else {
            return Ok(None);
        };
        let ran = sys::test_run(egress.as_fd(), frame, repeat)
            .doing(|| "test-running an outbound packet")?;
        Ok(Some(TestRun {
            dropped: ran.action == TC_ACT_SHOT,
            reason: None,
            duration: ran.duration,
        }))
    }

    /// Runs one frame through the program as if received, `repeat` times on the current CPU.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun> {
        let ran =
            sys::test_run(self.prog.as_fd(), frame, repeat).doing(|| "test-running a packet")?;
        let reason = Reason::from_number(self.control.test_reason().load(Ordering::Relaxed));
        Ok(TestRun {
            dropped: ran.action != libbpf_sys::XDP_PASS,
            reason,
            duration: ran.duration,
        })
    }
}
