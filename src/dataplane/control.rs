//! The control words shared with the program: policy generation, flags, the test clock.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::abi::{bss, kl_allow_only, kl_control, kl_limits};
use super::pod::Shared;
use super::rule::{Action, Gcra, SECOND_NS, action_of, numbers_of};
use crate::error::{Doing, Error, Result};
use crate::model::Ktime;

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
    word!(v6_bits, v6_bits, AtomicU32);
    word!(test_now_ns, test_now_ns, AtomicU64);
    word!(test_jiffies, test_jiffies, AtomicU32);
    word!(test_reason, test_reason, AtomicU32);
    word!(test_bits, test_bits, AtomicU32);
    word!(test_edge, test_edge, AtomicU32);
    word!(probe, probe, AtomicU64);
    word!(retired, retired, AtomicU32);
    word!(pending, pending, AtomicU32);
    word!(hz, hz, AtomicU32);
    word!(allow_only_word, allow_only, AtomicU32);
    word!(lease, lease, AtomicU32);
    word!(lapsed, lapsed, AtomicU32);
    word!(lease_ns, lease_ns, AtomicU64);
    word!(ceiling_action, ceiling, AtomicU32);
    word!(ceiling_interval_ns, ceiling_interval_ns, AtomicU64);
    word!(ceiling_tolerance_ns, ceiling_tolerance_ns, AtomicU64);
    word!(ceiling_debt_ns, ceiling_debt_ns, AtomicU64);
    word!(ceiling_rate, ceiling_rate, AtomicU32);
    word!(ceiling_span, ceiling_span, AtomicU32);
    word!(ceiling_count, ceiling_count, AtomicU32);

    fn atomic<A>(&self, field: usize) -> &A {
        self.memory.atomic(field)
    }

    /// The program's clock: the machine's, or the test's.
    pub(super) fn now(&self) -> Result<Ktime> {
        match self.test_now_ns().load(Ordering::Relaxed) {
            0 => super::sys::ktime().doing(|| "reading the monotonic clock"),
            nanos => Ok(Ktime::from_nanos(nanos)),
        }
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

/// Why nobody reads these maps any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// Others took over; whoever has these open must open those.
    Replaced = 1,
    /// The operator purged the instance: nothing is to take its place.
    Purged = 2,
}

impl Control {
    pub(super) fn retirement(&self) -> Option<Retired> {
        match self.retired().load(Ordering::Acquire) {
            0 => None,
            2 => Some(Retired::Purged),
            _ => Some(Retired::Replaced),
        }
    }
}

/// Whether only allowed sources pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowOnly {
    Off,
    On,
    /// On until then, unless confirmed before; the program itself then turns it off.
    Leased(Ktime),
    /// Off because a lease ran out.
    Lapsed,
}

impl Control {
    pub(super) fn allow_only(&self) -> Result<AllowOnly> {
        let mode = self.allow_only_word().load(Ordering::Acquire);
        if mode == kl_allow_only::KL_ALLOW_ONLY_OFF.0 {
            return Ok(AllowOnly::Off);
        }
        if mode != kl_allow_only::KL_ALLOW_ONLY_LEASED.0 {
            return Ok(AllowOnly::On);
        }
        let end = Ktime::from_nanos(self.lease_ns().load(Ordering::Relaxed));
        let lapsed = self.lapsed().load(Ordering::Relaxed) == self.lease().load(Ordering::Relaxed);
        Ok(if lapsed || self.now()? >= end {
            AllowOnly::Lapsed
        } else {
            AllowOnly::Leased(end)
        })
    }

    /// A lease is numbered anew, so that one that lapsed says nothing of the next.
    pub(super) fn set_allow_only(&self, to: AllowOnly) {
        let mode = match to {
            AllowOnly::Off | AllowOnly::Lapsed => kl_allow_only::KL_ALLOW_ONLY_OFF,
            AllowOnly::On => kl_allow_only::KL_ALLOW_ONLY_ON,
            AllowOnly::Leased(end) => {
                // Off in between: no packet may see the new number with the old end.
                self.allow_only_word()
                    .store(kl_allow_only::KL_ALLOW_ONLY_OFF.0, Ordering::Release);
                self.lease_ns().store(end.as_nanos(), Ordering::Release);
                self.lease().fetch_add(1, Ordering::Release);
                kl_allow_only::KL_ALLOW_ONLY_LEASED
            }
        };
        self.allow_only_word().store(mode.0, Ordering::Release);
    }

    /// False if no lease is pending. One that the program finds run out at this very moment
    /// counts as confirmed: the program asks for the lease only while it is one.
    pub(super) fn confirm(&self) -> Result<bool> {
        if !matches!(self.allow_only()?, AllowOnly::Leased(_)) {
            return Ok(false);
        }
        let (leased, on) = (
            kl_allow_only::KL_ALLOW_ONLY_LEASED.0,
            kl_allow_only::KL_ALLOW_ONLY_ON.0,
        );
        let word = self.allow_only_word();
        Ok(word
            .compare_exchange(leased, on, Ordering::AcqRel, Ordering::Acquire)
            .is_ok())
    }

    /// The default limit of sources without a rule.
    pub(super) fn ceiling(&self) -> Option<Action> {
        let gcra = Gcra {
            interval_ns: self.ceiling_interval_ns().load(Ordering::Relaxed),
            tolerance_ns: self.ceiling_tolerance_ns().load(Ordering::Relaxed),
            rate: self.ceiling_rate().load(Ordering::Relaxed),
        };
        action_of(self.ceiling_action().load(Ordering::Acquire), &gcra)
    }

    /// Off while its numbers change. Limits only: nothing else makes a default limit.
    pub(super) fn set_ceiling(&self, action: Option<&Action>) -> Result<()> {
        self.ceiling_action().store(0, Ordering::Release);
        let Some(action) = action else {
            return Ok(());
        };
        if !action.is_limit() {
            return Err(Error::operator("a default limit is a limit"));
        }
        let cpus = super::sys::possible_cpus()?;
        let (number, gcra) = numbers_of(action);
        let window = Window::of(
            action,
            &gcra,
            cpus.into(),
            self.hz().load(Ordering::Relaxed).into(),
        );
        self.ceiling_interval_ns()
            .store(gcra.interval_ns, Ordering::Relaxed);
        self.ceiling_tolerance_ns()
            .store(gcra.tolerance_ns, Ordering::Relaxed);
        self.ceiling_rate().store(gcra.rate, Ordering::Relaxed);
        self.ceiling_debt_ns()
            .store(window.debt_ns, Ordering::Relaxed);
        self.ceiling_count().store(window.count, Ordering::Relaxed);
        self.ceiling_span().store(window.span, Ordering::Relaxed);
        self.ceiling_action().store(number, Ordering::Release);
        Ok(())
    }
}

/// How much one CPU lets a source have, in which span, before the program promotes it.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    /// Packets, or pieces of 256 bytes.
    count: u32,
    /// Jiffies; all CPUs together then grant the limit.
    span: u32,
    /// What the count is worth.
    debt_ns: u64,
}

impl Window {
    /// Jiffies of 24 bits are compared; half of them is told from the other half.
    const MOST_SPAN: u64 = 1 << 23;

    fn of(action: &Action, gcra: &Gcra, cpus: u64, hz: u64) -> Self {
        let piece_ns = match action {
            Action::LimitBytes { .. } => {
                (gcra.interval_ns << kl_limits::KL_CEILING_BYTES_SHIFT.0)
                    >> kl_limits::KL_BYTE_SHIFT.0
            }
            Action::Limit { .. } | Action::Allow | Action::Deny => gcra.interval_ns,
        }
        .max(1);
        let burst = gcra.tolerance_ns / piece_ns + 1;
        let most = u64::from(kl_limits::KL_CEILING_MOST.0);
        let count = (burst / (2 * cpus)).clamp(1, most);
        let debt_ns = count * piece_ns;
        let span = (u128::from(debt_ns) * u128::from(cpus * hz)).div_ceil(SECOND_NS.into());
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        Self {
            count: u32::try_from(count).unwrap_or(1),
            span: u32::try_from(span.min(Self::MOST_SPAN)).unwrap_or(1),
            debt_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ByteLimit, LimitScope, RateLimit};

    #[test]
    fn all_cpus_windows_together_grant_no_more_than_the_limit() {
        let packets = |pps: u32, burst: u32| Action::Limit {
            limit: RateLimit {
                pps: pps.try_into().unwrap(),
                burst: burst.try_into().unwrap(),
            },
            scope: LimitScope::All,
        };
        for (pps, burst) in [(1, 1), (10, 1_000), (5_000, 5_000), (1_000_000, 64)] {
            for (cpus, hz) in [(1, 100), (2, 250), (64, 1_000)] {
                let action = packets(pps, burst);
                let window = Window::of(&action, &numbers_of(&action).1, cpus, hz);
                let granted = u64::from(window.count) * cpus * hz;
                assert!(
                    granted <= u64::from(pps) * u64::from(window.span),
                    "{pps}/{burst} on {cpus} CPUs at {hz} Hz: {window:?}"
                );
                assert!(u64::from(window.count) * 2 * cpus <= u64::from(burst).max(2 * cpus));
            }
        }
    }

    #[test]
    fn a_window_in_bytes_counts_pieces() {
        let action = Action::LimitBytes {
            limit: ByteLimit {
                bytes: 1_024_000.try_into().unwrap(),
                burst: 102_400.try_into().unwrap(),
            },
            scope: LimitScope::All,
        };
        // 4 000 pieces a second, 400 at once: 100 for each of two CPUs in a twentieth second.
        let window = Window::of(&action, &numbers_of(&action).1, 2, 1_000);
        assert_eq!((window.count, window.span), (100, 50));
    }
}
