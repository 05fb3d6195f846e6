//! The parse-only program that `make bench` measures everything above.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::skel::floor as skel;
use super::sys;
use crate::error::{Doing, Error, Result};

pub struct Floor {
    prog: OwnedFd,
    empty: OwnedFd,
}

impl Floor {
    /// `bench_sources` as in [`super::LoadOptions`]: the same work on both sides.
    pub fn load(bench_sources: u32) -> Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::FloorSkelBuilder::default()
            .open(&mut storage)
            .doing(|| "opening the floor program")?;
        let rodata = open.maps.rodata_data.as_deref_mut();
        let rodata = rodata.ok_or_else(|| Error::world("the floor program has no .rodata"))?;
        rodata.kl_config.bench_sources = bench_sources;
        rodata.kl_config.v6_mask = [u32::MAX, u32::MAX, 0, 0];
        let skel = open.load().doing(|| "loading the floor program")?;
        let keep =
            |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().doing(|| "keeping it open");
        Ok(Self {
            prog: keep(skel.progs.kernloom_floor.as_fd())?,
            empty: keep(skel.progs.kernloom_empty.as_fd())?,
        })
    }

    /// Mean time per packet of a program that does nothing.
    pub fn empty_run(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        Ok(sys::test_run(self.empty.as_fd(), frame, repeat)
            .doing(|| "test-running the empty program")?
            .duration)
    }

    /// Mean time per packet.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        Ok(sys::test_run(self.prog.as_fd(), frame, repeat)
            .doing(|| "test-running the floor program")?
            .duration)
    }
}
