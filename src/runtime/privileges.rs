//! Rights that are not needed are given up, so that a fault in us is worth less.

use caps::{CapSet, Capability, CapsHashSet};

use crate::error::{Error, Result};

/// What is needed once the data plane is loaded: to call bpf(2), and to attach and query XDP.
pub const STEADY: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// Gives up every capability but `kept`, for good: also for what this process might execute, and
/// with no_new_privs no file gives one back.
///
/// # Errors
/// The kernel's refusal; nobody who keeps what they have gets one.
pub fn keep_only(kept: &[Capability]) -> Result<()> {
    let failed =
        |error: &dyn std::fmt::Display| Error::world(format!("giving up capabilities: {error}"));
    nix::sys::prctl::set_no_new_privs().map_err(|error| failed(&error))?;
    let read = |set| caps::read(None, set).map_err(|error| failed(&error));
    let wanted: CapsHashSet = kept.iter().copied().collect();
    // Dropping from the bounding set is itself a right.
    if read(CapSet::Effective)?.contains(&Capability::CAP_SETPCAP) {
        for capability in read(CapSet::Bounding)?.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(|error| failed(&error))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(|error| failed(&error))?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let left: CapsHashSet = read(set)?.intersection(&wanted).copied().collect();
        caps::set(None, set, &left).map_err(|error| failed(&error))?;
    }
    Ok(())
}
