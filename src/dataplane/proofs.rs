//! Which sources have completed a TCP handshake with this host: their addresses are not made up.

use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, TracepointCategory};
use nix::mount::{MsFlags, mount};

use super::connections::connected;
use super::load::{load_error, mask_words};
use super::skel::proof as skel;
use super::sources::entries_of;
use super::sys;
use crate::error::{Doing, Error, Result};
use crate::model::{Ktime, Source};

const TRACEFS: &str = "/sys/kernel/tracing";
const EVENT: &str = "inet_sock_set_state";

/// Watches handshakes while it lives. Sources are remembered until `capacity` newer ones came.
pub struct Proofs {
    map: MapHandle,
    v6_bits: u8,
    _link: Link,
}

impl Proofs {
    /// `v6_bits`: as the shield tracks IPv6 sources, [`super::Shield::v6_bits`].
    pub fn watch(v6_bits: u8, capacity: u32) -> Result<Self> {
        let format = read_format()?;
        let mut storage = MaybeUninit::uninit();
        let mut open = skel::ProofSkelBuilder::default()
            .open(&mut storage)
            .doing(|| "opening the handshake program")?;
        let rodata = open.maps.rodata_data.as_deref_mut();
        let rodata = rodata.ok_or_else(|| Error::world("the handshake program has no .rodata"))?;
        rodata.kl_proof_config = skel::types::kl_proof_config {
            new_state: offset(&format, "newstate")?,
            family: offset(&format, "family")?,
            remote4: offset(&format, "daddr")?,
            remote6: offset(&format, "daddr_v6")?,
            v6_mask: mask_words(v6_bits),
        };
        let map = &mut open.maps.kl_proofs;
        map.set_max_entries(capacity.max(1))
            .doing(|| "sizing the map of proven sources")?;
        let skel = open.load().map_err(|error| load_error(&error))?;
        let link = skel
            .progs
            .kernloom_proof
            .attach_tracepoint(TracepointCategory::Sock, EVENT)
            .doing(|| format!("watching the tracepoint sock:{EVENT}"))?;
        let map = MapHandle::try_from(&skel.maps.kl_proofs).doing(|| "keeping a map open")?;
        let proofs = Self {
            map,
            v6_bits,
            _link: link,
        };
        // After the first handshake that is watched, so that none falls between.
        if let Err(error) = proofs.take_over(capacity) {
            log::warn!("who is connected already is not known: {error}");
        }
        Ok(proofs)
    }

    /// Remembers whom this host is connected to by now: a connection may last for weeks, and a
    /// restart must not make a stranger of it.
    fn take_over(&self, capacity: u32) -> Result<()> {
        let now = sys::ktime().doing(|| "reading the monotonic clock")?;
        self.renew(connected(self.v6_bits, capacity as usize)?, now)
    }

    /// Every source remembered, in no order, and since when it may be forgotten before others.
    pub fn all(&self) -> Result<Vec<(Source, Ktime)>> {
        entries_of(&self.map, self.v6_bits, |stamp| {
            let nanos = stamp.first_chunk().copied().map(u64::from_ne_bytes)?;
            Some(Ktime::from_nanos(nanos))
        })
    }

    /// Whether this one is remembered.
    pub fn hold(&self, source: &Source) -> Result<bool> {
        let found = self.map.lookup(&source.octets(), MapFlags::ANY);
        found
            .map(|stamp| stamp.is_some())
            .doing(|| format!("asking whether {source} is connected"))
    }

    /// Remembers these as if they had completed a handshake at `now`.
    pub fn renew(&self, sources: impl IntoIterator<Item = Source>, now: Ktime) -> Result<()> {
        let now = now.as_nanos().to_ne_bytes();
        for source in sources {
            self.map
                .update(&source.octets(), &now, MapFlags::ANY)
                .doing(|| format!("remembering that {source} is connected"))?;
        }
        Ok(())
    }
}

/// The tracepoint's own description, mounting tracefs where it is missing.
fn read_format() -> Result<String> {
    let path = Path::new(TRACEFS)
        .join("events/sock")
        .join(EVENT)
        .join("format");
    if !Path::new(TRACEFS).join("events").exists() {
        mount(
            Some("tracefs"),
            TRACEFS,
            Some("tracefs"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .doing(|| format!("mounting tracefs at {TRACEFS}"))?;
        log::info!("mounted tracefs at {TRACEFS}");
    }
    fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))
}

/// Where a field stands, by the line `field:int newstate;\toffset:20;\tsize:4;\tsigned:1;`.
fn offset(format: &str, name: &str) -> Result<u32> {
    let named = |line: &&str| {
        let declared = line
            .trim_start()
            .strip_prefix("field:")?
            .split(';')
            .next()?;
        let last = declared.rsplit(' ').next()?.split('[').next()?;
        (last == name).then_some(())
    };
    format
        .lines()
        .find(|line| named(line).is_some())
        .and_then(|line| line.split("offset:").nth(1)?.split(';').next())
        .and_then(|offset| offset.trim().parse().ok())
        .ok_or_else(|| {
            Error::world(format!(
                "the tracepoint sock:{EVENT} of this kernel has no field '{name}'"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: inet_sock_set_state\nID: 1\nformat:\n\
        \tfield:const void * skaddr;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:int newstate;\toffset:16;\tsize:4;\tsigned:1;\n\
        \tfield:__u8 daddr[4];\toffset:32;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 daddr_v6[16];\toffset:52;\tsize:16;\tsigned:0;\n";

    #[test]
    fn fields_are_found_by_name_wherever_they_stand() {
        for (name, at) in [("newstate", 16), ("daddr", 32), ("daddr_v6", 52)] {
            assert_eq!(offset(FORMAT, name).unwrap(), at, "{name}");
        }
        assert_eq!(
            offset(FORMAT, "state").unwrap_err().to_string(),
            "the tracepoint sock:inet_sock_set_state of this kernel has no field 'state'"
        );
    }
}
