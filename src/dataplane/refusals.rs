//! Whom this host refuses and whom it asks, seen at TC egress of the interfaces it is asked from.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, TC_EGRESS, TcHook, TcHookBuilder};
use nix::errno::Errno;

use super::load::{load_error, mask_words};
use super::shield::Shield;
use super::skel::refusals as skel;
use super::sources::entries_of;
use super::sys;
use crate::error::{Doing, Error, Result};
use crate::model::Source;

/// Where our filter stands among clsact's; one that a killed process left is replaced.
const HANDLE: u32 = 0x6b6c;
const PRIORITY: u32 = 11;

/// On one interface; ends with this.
enum Place {
    /// Held open: closing it detaches.
    Tcx { _link: OwnedFd },
    /// Kernels before 6.6.
    Classic(TcHook),
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Classic(hook) = self {
            // Its interface may be gone, and the filter with it.
            let _ = hook.detach();
        }
    }
}

/// What a source was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its packets that were refused.
    pub refused: u32,
    /// Of those, TCP with ACK that belonged to no connection.
    pub strays: u32,
    /// Of those, no TCP.
    pub datagrams: u32,
    /// UDP packets from a high port of this host to a lower one of the source.
    pub asked: u32,
}

/// Counts what each source is refused and asked, while it lives. Sources are remembered until
/// `capacity` newer ones came.
pub struct Refusals {
    prog: OwnedFd,
    refused: MapHandle,
    bss: MapHandle,
    v6_bits: u8,
    /// As of the last reading.
    sent: u32,
    places: BTreeMap<u32, Place>,
}

impl Refusals {
    /// Watches no interface yet. `v6_bits`: as the shield tracks IPv6 sources,
    /// [`super::Shield::v6_bits`].
    pub fn load(v6_bits: u8, capacity: u32) -> Result<Self> {
        Self::load_with(v6_bits, capacity, None)
    }

    /// The same, and tells `shield` each question, so that answers pass a limit of what opens
    /// something.
    pub fn beside(shield: &Shield, capacity: u32) -> Result<Self> {
        Self::load_with(shield.v6_bits(), capacity, Some(&shield.maps.questions))
    }

    fn load_with(v6_bits: u8, capacity: u32, questions: Option<&MapHandle>) -> Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::RefusalsSkelBuilder::default()
            .open(&mut storage)
            .doing(|| "opening the program that counts refusals")?;
        let missing = || Error::world("the program that counts refusals has no .rodata");
        let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(missing)?;
        rodata.kl_refusals_config.v6_mask = mask_words(v6_bits);
        let map = &mut open.maps.kl_refusals;
        map.set_max_entries(capacity.max(1))
            .doing(|| "sizing the map of refused sources")?;
        if let Some(questions) = questions {
            let map = &mut open.maps.kl_questions;
            map.reuse_fd(questions.as_fd())
                .doing(|| "sharing the questions with the shield")?;
        }
        let skel = open.load().map_err(|error| load_error(&error))?;
        let handle =
            |map: &libbpf_rs::MapMut<'_>| MapHandle::try_from(map).doing(|| "keeping a map open");
        let prog = skel.progs.kernloom_refusals.as_fd();
        Ok(Self {
            prog: prog
                .try_clone_to_owned()
                .doing(|| "keeping the program that counts refusals")?,
            refused: handle(&skel.maps.kl_refusals)?,
            bss: handle(&skel.maps.bss)?,
            v6_bits,
            sent: 0,
            places: BTreeMap::new(),
        })
    }

    /// Watches these interfaces and no others; an error names one that cannot be watched.
    pub fn watch(&mut self, interfaces: &[u32]) -> Result<()> {
        self.places
            .retain(|ifindex, _| interfaces.contains(ifindex));
        for ifindex in interfaces {
            if !self.places.contains_key(ifindex) {
                let place = self.attach(*ifindex)?;
                self.places.insert(*ifindex, place);
            }
        }
        Ok(())
    }

    /// Whether there is an interface to see refusals on.
    pub fn watches(&self) -> bool {
        !self.places.is_empty()
    }

    fn attach(&self, ifindex: u32) -> Result<Place> {
        let doing = || format!("counting refusals on interface {ifindex}");
        let index =
            i32::try_from(ifindex).map_err(|_| Error::world("interface number out of range"))?;
        match sys::link_create(self.prog.as_fd(), index, libbpf_sys::BPF_TCX_EGRESS, 0) {
            Ok(link) => return Ok(Place::Tcx { _link: link }),
            // The kernel knows no such attach type.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {}
            Err(error) => return Err(error).doing(doing),
        }
        let mut hook = TcHookBuilder::new(self.prog.as_fd())
            .ifindex(index)
            .replace(true)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(TC_EGRESS);
        hook.create().doing(doing)?;
        hook.attach().doing(doing).map(Place::Classic)
    }

    /// What each source was told since the last reading, in no order.
    pub fn take(&mut self) -> Result<Vec<(Source, Told)>> {
        let ended = self.turn()?;
        ended.map_or_else(|| Ok(Vec::new()), |ended| self.told_in(ended))
    }

    /// Begins another epoch: the one that ended with it, if anything was sent in that.
    pub fn turn(&mut self) -> Result<Option<u32>> {
        let doing = || "reading who was refused";
        let zero = 0_u32.to_ne_bytes();
        let missing = || Error::world("the program that counts refusals has no variables");
        let value = self.bss.lookup(&zero, MapFlags::ANY).doing(doing)?;
        let mut value = value.ok_or_else(missing)?;
        let words = value.as_chunks_mut::<4>().0;
        let [epoch, sent, ..] = words else {
            return Err(missing());
        };
        let (ended, now) = (u32::from_ne_bytes(*epoch), u32::from_ne_bytes(*sent));
        if now == std::mem::replace(&mut self.sent, now) {
            return Ok(None);
        }
        // One counted meanwhile is forgotten in `sent` only.
        *epoch = ended.wrapping_add(1).to_ne_bytes();
        self.bss.update(&zero, &value, MapFlags::ANY).doing(doing)?;
        Ok(Some(ended))
    }

    /// What each source was told in the epoch that ended last, in no order.
    pub fn told_in(&self, ended: u32) -> Result<Vec<(Source, Told)>> {
        entries_of(&self.refused, self.v6_bits, |value| {
            let (epoch, counts) = value.as_chunks::<4>().0.split_first()?;
            let (now, before) = counts.split_at_checked(4)?;
            let of_epoch = match u32::from_ne_bytes(*epoch).wrapping_sub(ended) {
                0 => now,
                // Sent more since the epoch ended, and who is loudest always is.
                1 => before,
                _ => return None,
            };
            let counts: &[[u8; 4]; 4] = of_epoch.try_into().ok()?;
            let [refused, strays, datagrams, asked] = counts.map(u32::from_ne_bytes);
            Some(Told {
                refused,
                strays,
                datagrams,
                asked,
            })
        })
    }
}
