//! The TC companion on an interface: by tcx link where the kernel has it (6.6), else by clsact.

use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::{Link, TC_EGRESS};
use nix::errno::Errno;

use super::attach::{index, pinned, place_of};
use super::pin::{PinDir, exists, remove_if_there};
use super::{sys, tc};
use crate::error::{Doing, Error, Result};

/// Attaches; nothing happens where it is attached already.
pub(super) fn attach(
    pins: &PinDir,
    prog: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
) -> Result<()> {
    if is_attached(pins, ifindex)? {
        return Ok(());
    }
    let path = pins.egress(ifindex);
    remove_if_there(&path)?;
    match sys::link_create(prog, index(ifindex)?, libbpf_sys::BPF_TCX_EGRESS, 0) {
        Ok(link) => sys::pin(link.as_fd(), &path).doing(|| format!("pinning {}", path.display())),
        // No tcx before 6.6: the kernel knows no such attach type.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            put_filter(pins, prog, interface, ifindex)
        }
        Err(error) => Err(Error::world(format!(
            "{interface} refuses the companion for what leaves: {error}; 'tc filter show dev {interface} egress' \
             shows what is there"
        ))),
    }
}

/// The same by clsact, or the program in the place of the one that is there.
pub(super) fn put_filter(
    pins: &PinDir,
    prog: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
) -> Result<()> {
    tc::attach(prog, interface, index(ifindex)?, TC_EGRESS)?;
    pins.replace(&pins.egress_filter(ifindex), prog)
}

fn is_attached(pins: &PinDir, ifindex: u32) -> Result<bool> {
    let (link, filter) = (pins.egress(ifindex), pins.egress_filter(ifindex));
    if exists(&filter)? && tc::is_there(&filter, index(ifindex)?, TC_EGRESS)? {
        return Ok(true);
    }
    Ok(pinned(&link)?.is_some_and(|link| place_of(&link).is_some()))
}

/// Every companion runs another program from the next packet on.
pub(super) fn change_over(pins: &PinDir, prog: BorrowedFd<'_>) -> Result<()> {
    for path in pins.egress_links()? {
        let doing = || format!("changing the program of {}", path.display());
        let link = Link::open(&path).doing(doing)?;
        if place_of(&link).is_some() {
            sys::link_update(link.as_fd(), prog).doing(doing)?;
        }
    }
    for ifindex in pins.egress_filters()? {
        let path = pins.egress_filter(ifindex);
        if tc::is_there(&path, index(ifindex)?, TC_EGRESS)? {
            put_filter(pins, prog, &format!("interface {ifindex}"), ifindex)?;
        }
    }
    Ok(())
}

/// Detaches; nothing happens where it was not attached. The clsact stays: others may use it.
pub(super) fn detach(pins: &PinDir, ifindex: u32) -> Result<()> {
    let (path, filter) = (pins.egress(ifindex), pins.egress_filter(ifindex));
    if let Some(link) = pinned(&path)? {
        if place_of(&link).is_some() {
            link.detach().doing(|| {
                format!("detaching the companion for what leaves from interface {ifindex}")
            })?;
        }
        remove_if_there(&path)?;
    }
    if exists(&filter)? {
        if tc::is_there(&filter, index(ifindex)?, TC_EGRESS)? {
            tc::detach(index(ifindex)?, TC_EGRESS)?;
        }
        remove_if_there(&filter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::load::{self, Variant};
    use crate::dataplane::{Features, LoadOptions};

    /// Kernels with tcx never come here by themselves. A namespace of its own, and its loopback.
    #[test]
    fn without_tcx_the_companion_is_a_classic_filter_put_replaced_and_taken_away() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none());
            eprintln!("SKIPPED: loading programs needs root");
            return;
        }
        let pins = PinDir::new(format!("/sys/fs/bpf/klw-{}-egress", std::process::id()));
        pins.create().unwrap();
        let inside = std::thread::spawn({
            let pins = pins.clone();
            move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let options = LoadOptions {
                    features: Features::Graph,
                    ..LoadOptions::default()
                };
                let loaded = load::load(&options).unwrap();
                let companion = || load::load_beside(&loaded.maps, Variant::Egress).unwrap();
                let runs = |prog: BorrowedFd<'_>| {
                    let pin = libbpf_rs::ProgramHandle::from_pinned_path(pins.egress_filter(1));
                    let pinned = sys::program_id(pin.unwrap().as_fd()).unwrap();
                    is_attached(&pins, 1).unwrap() && pinned == sys::program_id(prog).unwrap()
                };
                let (first, second) = (companion(), companion());
                assert!(!is_attached(&pins, 1).unwrap());
                put_filter(&pins, first.as_fd(), "lo", 1).unwrap();
                assert!(runs(first.as_fd()));
                // Attaching once more finds it there, and leaves it alone.
                attach(&pins, second.as_fd(), "lo", 1).unwrap();
                assert!(runs(first.as_fd()));
                change_over(&pins, second.as_fd()).unwrap();
                assert!(runs(second.as_fd()));
                detach(&pins, 1).unwrap();
                assert!(!is_attached(&pins, 1).unwrap());
                detach(&pins, 1).unwrap();
            }
        });
        let ended = inside.join();
        pins.remove().unwrap();
        ended.unwrap();
    }
}
