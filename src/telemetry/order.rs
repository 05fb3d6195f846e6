//! The order that samples come in.

use crate::model::Source;

/// That of sources, or that of a table whose sets are found by a hash of the source: so that neither
/// has to be brought into the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    seed: [u64; 5],
    mask: u32,
}

/// A source with its place in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    place: u32,
    pub source: Source,
}

impl Order {
    pub const BY_SOURCE: Self = Self {
        seed: [0; 5],
        mask: 0,
    };

    /// That of a table with `mask` + 1 sets, by the multipliers of its hash; see `kl_hash_sum`.
    pub const fn of_table(seed: [u64; 5], mask: u32) -> Self {
        Self { seed, mask }
    }

    /// By set, and within a set by source.
    #[inline]
    pub fn key(&self, source: Source) -> Key {
        Key {
            place: self.place(&source),
            source,
        }
    }

    /// The set that holds `source`, of each CPU.
    #[inline]
    pub fn place(&self, source: &Source) -> u32 {
        let octets = source.octets();
        let [first, multipliers @ ..] = self.seed;
        let words = octets.as_chunks::<4>().0.iter().zip(multipliers);
        let sum = words.fold(first, |sum, (word, multiplier)| {
            let word = u64::from(u32::from_ne_bytes(*word));
            sum.wrapping_add(word.wrapping_mul(multiplier))
        });
        // The upper half, as there.
        (sum >> 32) as u32 & self.mask
    }
}
