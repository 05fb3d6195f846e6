use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::model::Source;

/// What one source, or all of a prefix, did in one window, summed over CPUs. Counts, not rates:
/// the window's length travels beside a batch of samples. What nobody measures is 0; see
/// [`Coverage`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub source: Source,
    /// Packets received, dropped ones included.
    pub packets: u64,
    /// Frame bytes received, dropped ones included.
    pub bytes: u64,
    /// TCP SYN without ACK.
    pub syns: u32,
    /// Packets dropped by a limit or a deny.
    pub drops: u32,
    /// The sketch that `ports` counts: one hashed bit per port.
    pub port_bits: u64,
    /// The sketch that `stacks` counts: one hashed bit per fingerprint.
    pub stack_bits: u32,
    /// SYNs that no packet of an established peer followed: `syns` less TCP packets with ACK and
    /// neither SYN nor RST, at least 0. A flood of both kinds evades it; none evades `proven`.
    pub half_open: u32,
    /// Packets that this host refused: answered with RST or an ICMP unreachable.
    pub refusals: u32,
    /// Of those, what belonged to no connection and tried to open none: anybody could have sent it in
    /// the source's name, and where it had an ACK no limit of what is new holds it.
    pub strays: u32,
    /// Packets that may open something: all but TCP with ACK and neither SYN nor RST.
    pub opens: u32,
    /// Packets that answer a flow which this host opened.
    pub answers: u32,
    /// Distinct destination ports opened, estimated by linear counting.
    pub ports: u32,
    /// Distinct stack fingerprints among SYNs, estimated by linear counting: hosts behind it.
    pub stacks: u32,
    /// This host completed a TCP handshake with it, so the address is not made up.
    pub proven: bool,
    /// Nothing was known of it when the window began.
    pub fresh: bool,
}

impl Sample {
    /// A window in which `source` sent nothing.
    pub const fn silent(source: Source) -> Self {
        Self {
            source,
            packets: 0,
            bytes: 0,
            syns: 0,
            drops: 0,
            port_bits: 0,
            stack_bits: 0,
            half_open: 0,
            refusals: 0,
            strays: 0,
            opens: 0,
            answers: 0,
            ports: 0,
            stacks: 0,
            proven: false,
            fresh: false,
        }
    }

    /// Adds what another CPU, or another source of the prefix, saw. The estimates are those of
    /// `self` until they are made anew from the joined sketches.
    #[inline]
    pub(crate) fn join(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.syns = self.syns.saturating_add(other.syns);
        self.drops = self.drops.saturating_add(other.drops);
        self.port_bits |= other.port_bits;
        self.stack_bits |= other.stack_bits;
        self.half_open = self.half_open.saturating_add(other.half_open);
        self.refusals = self.refusals.saturating_add(other.refusals);
        self.strays = self.strays.saturating_add(other.strays);
        self.opens = self.opens.saturating_add(other.opens);
        self.answers = self.answers.saturating_add(other.answers);
        self.proven |= other.proven;
        self.fresh &= other.fresh;
    }
}

/// What the data plane measures at all, so that "none seen" is told from "nobody looked".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// `proven` and `half_open`.
    pub proof: bool,
    /// `refusals`.
    pub refusals: bool,
    /// `opens`, and, where refusals are seen, `answers`.
    pub consent: bool,
}

/// What all sources together sent, dropped packets included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
}

impl Traffic {
    /// Adds what one source sent.
    #[inline]
    pub(crate) fn add(&mut self, sample: &Sample) {
        self.packets += sample.packets;
        self.bytes += sample.bytes;
        self.drops += u64::from(sample.drops);
    }

    /// What is left without `other`, at least nothing.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(other.packets),
            bytes: self.bytes.saturating_sub(other.bytes),
            drops: self.drops.saturating_sub(other.drops),
        }
    }
}

/// Samples, as a slice or one after the other, and the window they were counted in.
#[derive(Debug, Clone, Copy)]
pub struct Window<S> {
    pub length: Duration,
    pub samples: S,
    pub coverage: Coverage,
    /// What everybody sent, if sources had to make room for others meanwhile: samples lack what
    /// those had sent by then.
    pub all: Option<Traffic>,
}

impl<S: IntoIterator<Item = Sample>> Window<S> {
    /// The same window, its samples in this order.
    pub fn sorted(self, order: &Order) -> Window<Vec<Sample>> {
        let mut samples: Vec<_> = self.samples.into_iter().collect();
        samples.sort_by_key(|sample| order.key(sample.source));
        Window {
            length: self.length,
            samples,
            coverage: self.coverage,
            all: self.all,
        }
    }
}

impl<S: AsRef<[Sample]>> Window<S> {
    /// The same window, its samples one after the other.
    pub fn by_ref(&self) -> Window<impl Iterator<Item = Sample>> {
        Window {
            length: self.length,
            samples: self.samples.as_ref().iter().copied(),
            coverage: self.coverage,
            all: self.all,
        }
    }
}

/// Linear counting (Whang et al., "A linear-time probabilistic counting algorithm", 1990) over
/// a bitmap of 64 bits: `-64 ln(unset / 64)`, rounded. A full bitmap answers as with one bit unset,
/// 266: so many and more.
#[inline]
pub fn linear_count(bitmap: u64) -> u32 {
    few(bitmap).unwrap_or_else(|| {
        static ESTIMATES: LazyLock<[u16; 65]> = LazyLock::new(estimates);
        estimate(&*ESTIMATES, bitmap.count_ones())
    })
}

/// The same over 32 bits: a full bitmap answers 111.
#[inline]
pub fn linear_count_of_32(bitmap: u32) -> u32 {
    few(bitmap.into()).unwrap_or_else(|| {
        static ESTIMATES: LazyLock<[u16; 33]> = LazyLock::new(estimates);
        estimate(&*ESTIMATES, bitmap.count_ones())
    })
}

/// The estimate for at most one set bit, which is nearly everybody's.
#[inline]
fn few(bitmap: u64) -> Option<u32> {
    (bitmap & bitmap.wrapping_sub(1) == 0).then_some((bitmap != 0).into())
}

/// The estimate for each number of set bits.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 64, and 0..=266"
)]
fn estimates<const N: usize>() -> [u16; N] {
    let bits = (N - 1) as f64;
    std::array::from_fn(|ones| {
        let unset = (N - 1 - ones).max(1) as f64;
        (bits * (bits.ln() - unset.ln())).round() as u16
    })
}

#[cold]
fn estimate(estimates: &[u16], ones: u32) -> u32 {
    estimates
        .get(ones as usize)
        .copied()
        .unwrap_or_default()
        .into()
}

/// The fewest set bits whose estimate reaches `count`; at most 62, so that a bound can be crossed.
pub fn linear_ones(count: u32) -> u32 {
    (0..62)
        .find(|ones| linear_count((1 << ones) - 1) >= count)
        .unwrap_or(62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_counting_is_exact_for_few_and_saturates_for_many() {
        assert_eq!(linear_count(0), 0);
        assert_eq!(linear_count(1), 1);
        assert_eq!(linear_count(u64::MAX >> 32), 44);
        assert_eq!(linear_count(u64::MAX >> 1), 266);
        assert_eq!(linear_count(u64::MAX), 266);
        assert_eq!(linear_count_of_32(0xffff), 22);
        assert_eq!(linear_count_of_32(0xffff_ffff), 111);
    }

    #[test]
    fn a_bound_in_ports_becomes_the_bits_that_mean_it() {
        for (ports, ones) in [(0, 0), (1, 1), (44, 32), (u32::MAX, 62)] {
            assert_eq!(linear_ones(ports), ones, "{ports}");
        }
    }
}
