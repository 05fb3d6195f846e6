//! Bytes to ABI types and back, and memory shared with the kernel: the kernel boundary's `unsafe`.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::abi::{
    kl_config, kl_counts, kl_edge_key, kl_event, kl_graph, kl_layout, kl_note, kl_policy,
    kl_prefix, kl_trie_key,
};

/// Types that travel through maps and the ring buffer.
///
/// # Safety
/// Implementors are `repr(C)`, without implicit padding, and valid for every bit pattern.
pub(super) unsafe trait Pod: Copy + Default {}

// SAFETY: generated from bpf/abi.h: fixed-width integers only, padding written out.
unsafe impl Pod for kl_policy {}
// SAFETY: as above.
unsafe impl Pod for kl_prefix {}
// SAFETY: as above.
unsafe impl Pod for kl_trie_key {}
// SAFETY: as above.
unsafe impl Pod for kl_event {}
// SAFETY: as above.
unsafe impl Pod for kl_counts {}
// SAFETY: as above.
unsafe impl Pod for kl_layout {}
// SAFETY: as above.
unsafe impl Pod for kl_config {}
// SAFETY: as above.
unsafe impl Pod for kl_note {}

// SAFETY: as above.
unsafe impl Pod for kl_edge_key {}
// SAFETY: as above.
unsafe impl Pod for kl_graph {}

pub(super) fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: Pod has no padding, so every byte is initialised; the borrow keeps it alive.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// `None` if the bytes are fewer than the type.
pub(super) fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough by the check; Pod is valid for every bit pattern; unaligned is allowed.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A BPF map's memory, shared with the kernel. Reads and writes go through raw pointers only:
/// the other side changes it at any time.
#[derive(Debug)]
pub(super) struct Shared {
    start: NonNull<c_void>,
    len: usize,
}

impl Shared {
    pub(super) fn map(fd: impl AsFd, len: usize) -> nix::Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(nix::errno::Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice; length is not zero.
        let start = unsafe {
            mmap(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )?
        };
        Ok(Self {
            start,
            len: len.get(),
        })
    }

    /// The `index`th `T`, if all of it lies inside.
    pub(super) fn at<T>(&self, offset: usize, index: usize) -> Option<*mut T> {
        let from = index.checked_mul(size_of::<T>())?.checked_add(offset)?;
        if from.checked_add(size_of::<T>())? > self.len || !from.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: within the mapping by the check above.
        Some(unsafe { self.start.as_ptr().cast::<u8>().add(from).cast() })
    }

    /// A single word at an offset that is a constant of the mapped type.
    #[expect(
        clippy::expect_used,
        reason = "offsets are constants of the mapped type"
    )]
    pub(super) fn atomic<A>(&self, offset: usize) -> &A {
        let word = self.at::<A>(offset, 0).expect("in the mapped type");
        // SAFETY: aligned and inside the mapping by `at`; lives as long as self; the kernel
        // side reads and writes single words too.
        unsafe { &*word }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: start and len are what mmap returned; nothing borrows from it.
        if let Err(error) = unsafe { munmap(self.start, self.len) } {
            log::warn!("unmapping {} bytes of map memory: {error}", self.len);
        }
    }
}

// SAFETY: the memory is shared with the kernel anyway; access is by volatile or atomic operations.
unsafe impl Send for Shared {}
// SAFETY: as above; `at` hands out raw pointers only, and whoever follows one does so likewise.
unsafe impl Sync for Shared {}
