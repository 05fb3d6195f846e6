//! The order that samples come in, and a walk along it.

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

/// Values of sources, asked for in an order: a step for each, and no table to look up.
#[derive(Debug, Default)]
pub struct InOrder<T> {
    values: Vec<(Key, T)>,
    at: usize,
}

impl<T> InOrder<T> {
    /// `values`: in any order.
    pub fn new(values: impl IntoIterator<Item = (Source, T)>, order: &Order) -> Self {
        let keyed = |(source, value)| (order.key(source), value);
        let mut values: Vec<_> = values.into_iter().map(keyed).collect();
        values.sort_unstable_by_key(|(key, _)| *key);
        Self { values, at: 0 }
    }

    /// Of a source that does not come before the last one asked for.
    pub fn of(&mut self, key: &Key) -> Option<&T> {
        while self.values.get(self.at)?.0 < *key {
            self.at += 1;
        }
        let (found, value) = self.values.get(self.at)?;
        (found == key).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_the_order_of_sources_whatever_lies_between() {
        let host = |n: u8| Source::host([192, 0, 2, n].into());
        let there = [9, 1, 4, 5];
        for order in [Order::BY_SOURCE, Order::of_table([1, 2, 3, 4, 5 << 20], 7)] {
            let mut values = InOrder::new(there.map(|n| (host(n), n)), &order);
            let mut asked = [0, 1, 2, 3, 4, 4, 5, 8, 9, 10, 11].map(|n| (order.key(host(n)), n));
            asked.sort();
            for (key, n) in asked {
                let found = values.of(&key).copied();
                assert_eq!(found, there.contains(&n).then_some(n), "{order:?}");
            }
        }
    }
}
