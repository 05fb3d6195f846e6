//! The order that samples come in.

use crate::model::Source;

/// That of sources, or that of a table whose sets are found by a hash of the source: so that neither
/// has to be brought into the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    seed: [u64; 5],
    /// Of a set's number.
    bits: u32,
}

/// A source in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its hash, the bits of its set in front: that decides nearly always.
    rank: u32,
    pub source: Source,
}

impl Order {
    pub const BY_SOURCE: Self = Self {
        seed: [0; 5],
        bits: 0,
    };

    /// That of a table with `mask` + 1 sets, a power of 2, by the multipliers of its hash; see
    /// `kl_hash_sum`.
    pub const fn of_table(seed: [u64; 5], mask: u32) -> Self {
        Self {
            seed,
            bits: mask.count_ones(),
        }
    }

    #[inline]
    pub fn key(&self, source: Source) -> Key {
        let octets = source.octets();
        let [first, multipliers @ ..] = self.seed;
        let words = octets.as_chunks::<4>().0.iter().zip(multipliers);
        let sum = words.fold(first, |sum, (word, multiplier)| {
            let word = u64::from(u32::from_ne_bytes(*word));
            sum.wrapping_add(word.wrapping_mul(multiplier))
        });
        // The upper half, as there.
        let hash = (sum >> 32) as u32;
        Key {
            rank: hash.rotate_right(self.bits),
            source,
        }
    }

    /// The set that `key` is in, of each CPU.
    #[inline]
    pub fn set(&self, key: &Key) -> usize {
        let rest = u32::BITS - self.bits;
        key.rank.checked_shr(rest).unwrap_or(0) as usize
    }
}
