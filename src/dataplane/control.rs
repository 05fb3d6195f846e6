//! The control words shared with the program: policy generation, flags, the test clock.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::abi::{bss, kl_control, kl_limits};
use super::pod::Shared;
use crate::error::{Doing, Result};

#[derive(Debug)]
pub(super) struct Control {
    memory: Shared,
}

macro_rules! word {
    ($name:ident, $field:ident, $atomic:ty) => {
        pub(super) fn $name(&self) -> &$atomic {
            self.atomic(offset_of!(bss, kl_control) + offset_of!(kl_control, $field))
        }
    };
}

impl Control {
    pub(super) fn map(bss_fd: impl AsFd) -> Result<Self> {
        let memory = Shared::map(bss_fd, size_of::<bss>()).doing(|| "mapping the control words")?;
        Ok(Self { memory })
    }

    word!(generation, generation, AtomicU32);
    word!(has_exact, has_exact, AtomicU32);
    word!(has_prefix, has_prefix, AtomicU32);
    word!(port_alert, port_alert, AtomicU32);
    word!(resets, resets, AtomicU32);
    word!(layout, layout, AtomicU32);
    word!(v6_bits, v6_bits, AtomicU32);
    word!(test_now_ns, test_now_ns, AtomicU64);
    word!(test_jiffies, test_jiffies, AtomicU32);
    word!(test_reason, test_reason, AtomicU32);

    #[expect(
        clippy::expect_used,
        reason = "offsets are constants of the mapped type"
    )]
    pub(super) fn atomic<A>(&self, field: usize) -> &A {
        let word = self.memory.at::<A>(field, 0).expect("in bss");
        // SAFETY: aligned and inside the mapping by `at`; lives as long as self; the kernel
        // side reads and writes single words too.
        unsafe { &*word }
    }

    /// Makes every source evaluate policy once more. Never 0: that marks an unused entry.
    pub(super) fn bump_generation(&self) {
        let next = |now: u32| Some((now + 1) % kl_limits::KL_GENERATIONS.0).map(|next| next.max(1));
        // The closure never returns None, so neither does this.
        let _ = self
            .generation()
            .fetch_update(Ordering::Release, Ordering::Relaxed, next);
    }
}
