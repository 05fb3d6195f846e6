//! Memory in large blocks: what an attack takes is given back at once, and taken in few page faults.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// From this size on a block is a mapping of its own, which ends with it. malloc would keep it:
/// glibc raises the size from which it gives back with each block that is freed (mallopt(3)).
const LARGE: usize = 1 << 20;

/// A huge page on most machines, <https://docs.kernel.org/admin-guide/mm/transhuge.html>: a tick
/// that fills tens of MB spends half of its time in faults of 4 KiB. Only whole ones are asked
/// for, so none of it is memory that the block has no use for.
const HUGE: usize = 2 << 20;

/// Lengths of mappings are multiples of this, which is the largest page size there is.
const PAGE: usize = 64 << 10;

/// The system's allocator, and mappings for what is large.
struct Blocks;

#[global_allocator]
static BLOCKS: Blocks = Blocks;

const fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

const fn length(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

/// An anonymous mapping of zeros, or null.
fn map(size: usize) -> *mut u8 {
    let length = length(size);
    let Some(room) = length.checked_add(HUGE) else {
        return ptr::null_mut();
    };
    let (protection, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping where the kernel has room touches no other.
    let whole = unsafe { libc::mmap(ptr::null_mut(), room, protection, kind, -1, 0) };
    if whole == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let whole = whole.cast::<u8>();
    let before = whole.addr().next_multiple_of(HUGE) - whole.addr();
    let block = whole.wrapping_add(before);
    // SAFETY: both ranges are of the mapping above, on either side of the block.
    unsafe {
        unmap(whole, before);
        unmap(block.wrapping_add(length), room - before - length);
    }
    advise(block, size);
    block
}

/// # Safety
/// Nothing refers to this range any more, and it was mapped here.
unsafe fn unmap(at: *mut u8, length: usize) {
    if length > 0 {
        // SAFETY: the caller's.
        unsafe { libc::munmap(at.cast(), length) };
    }
}

/// A kernel that has no huge pages to give goes on with small ones.
fn advise(block: *mut u8, size: usize) {
    let whole = size / HUGE * HUGE;
    if whole > 0 {
        // SAFETY: advice changes how the block's own range is backed, not what is in it.
        unsafe { libc::madvise(block.cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

/// Moves a block's pages, not what is in them, to where `size` bytes have room; null if nowhere.
///
/// # Safety
/// `block` was mapped here for `layout`; it is gone unless this is null.
unsafe fn grow(block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    let (new, old) = (map(size), length(layout.size()));
    if new.is_null() {
        return new;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: from the whole of one mapping to the beginning of another, both ours.
    let moved = unsafe { libc::mremap(block.cast(), old, old, flags, new) };
    if moved == libc::MAP_FAILED {
        // SAFETY: both are mapped and at least so long; the old one is not needed any more.
        unsafe {
            ptr::copy_nonoverlapping(block, new, layout.size());
            unmap(block, old);
        }
    }
    advise(new, size);
    new
}

// SAFETY: a block is the system's or a mapping by its layout alone, which is the same when it is
// given back; mappings are readable, writable, aligned to HUGE and as long as was asked for.
unsafe impl GlobalAlloc for Blocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's; what is large was mapped here.
        unsafe {
            if is_large(layout) {
                unmap(block, length(layout.size()));
            } else {
                System.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps `size`, rounded up to the alignment, within isize.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (old, new) = (length(layout.size()), length(size));
        // SAFETY: the caller's; what is large was mapped here, and what is beyond `new` is unused.
        unsafe {
            match (is_large(layout), is_large(wanted)) {
                (false, false) => System.realloc(block, layout, size),
                (true, true) if new > old => grow(block, layout, size),
                (true, true) => {
                    unmap(block.wrapping_add(new), old - new);
                    block
                }
                (true, false) | (false, true) => {
                    let to = self.alloc(wanted);
                    if !to.is_null() {
                        ptr::copy_nonoverlapping(block, to, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    to
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_what_is_in_them_however_they_grow_and_shrink() {
        let sizes = [
            100,
            LARGE - 1,
            LARGE,
            3 * LARGE,
            9 * HUGE + 1,
            5 * HUGE,
            LARGE,
            10,
        ];
        let mut block: Vec<u8> = Vec::new();
        for (turn, size) in (1u8..).zip(sizes) {
            let kept = block.len().min(size);
            let before: Vec<u8> = block.iter().take(kept).copied().collect();
            if size < block.len() {
                block.truncate(size);
                block.shrink_to_fit();
            } else {
                block.reserve_exact(size - block.len());
                block.resize(size, turn);
            }
            assert_eq!(block[..kept], before[..], "{size}");
            assert!(block[kept..].iter().all(|byte| *byte == turn), "{size}");
            if size >= LARGE {
                assert_eq!(block.as_ptr().addr() % HUGE, 0);
            }
        }
    }

    #[test]
    fn what_is_zeroed_is_zero_and_what_nobody_can_have_is_null() {
        assert!(vec![0u8; 3 * HUGE].iter().all(|byte| *byte == 0));
        let mut block: Vec<u8> = Vec::new();
        assert!(block.try_reserve_exact(usize::MAX / 4).is_err());
    }
}
