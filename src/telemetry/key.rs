//! Slots in the order of sources.

use std::mem;

use crate::model::Source;

/// A slot by its source: `rank` orders as sources do, and is the same only for neighbours, whom
/// `rest` tells apart, and for prefixes of one address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Key {
    pub(super) rank: u64,
    pub(super) rest: u32,
    pub(super) slot: u32,
}

impl Key {
    #[inline]
    pub(super) fn of(source: &Source, slot: u32) -> Self {
        let (upper, lower) = source.halves();
        let (rank, rest) = match upper {
            0 => (lower >> 1, lower & 1),
            _ => (upper >> 1 | 1 << 63, upper & 1),
        };
        let rest = u32::from(rest == 1);
        Self { rank, rest, slot }
    }
}

/// Digits that keys are sorted by.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

#[expect(clippy::cast_possible_truncation, reason = "the digit is kept")]
#[inline]
fn digit(rank: u64, shift: u32) -> usize {
    (rank >> shift) as usize % DIGITS
}

/// Sorts keys by rank; those of one rank stay as they are. A radix sort (Knuth, "The Art of
/// Computer Programming", volume 3, 5.2.5) over the digits that are not the same in all: addresses
/// that a sender chooses make it no slower. What `spare` holds does not matter.
pub(super) fn sort_keys(keys: &mut Vec<Key>, spare: &mut Vec<Key>) {
    let first = keys.first().map_or(0, |key| key.rank);
    let differs = keys.iter().fold(0, |bits, key| bits | (key.rank ^ first));
    let shifts = (0..u64::BITS).step_by(DIGIT_BITS as usize);
    let mut digits: Vec<_> = shifts
        .filter(|shift| digit(differs, *shift) != 0)
        .map(|shift| (shift, [0; DIGITS]))
        .collect();
    for key in keys.iter() {
        for (shift, counts) in &mut digits {
            counts[digit(key.rank, *shift)] += 1;
        }
    }
    spare.resize(keys.len(), Key::default());
    for (shift, places) in &mut digits {
        let mut place = 0;
        for count in places.iter_mut() {
            place += mem::replace(count, place);
        }
        for key in keys.iter() {
            let place = &mut places[digit(key.rank, *shift)];
            spare[*place] = *key;
            *place += 1;
        }
        mem::swap(keys, spare);
    }
}
