//! Readings to windows.
//!
//! A slot of the table belongs to one source on one CPU until it is taken over. Between two
//! readings a slot either kept its source, then the difference counts, or changed hands, then
//! everything in it is new. `bytes` never wraps within an entry's life, so a source that left
//! and came back is told apart from a wrapped packet counter.

use std::mem;

use super::sample::{Sample, linear_count};
use crate::model::Source;

/// One entry of the source table: totals since the source took the slot. 32-bit counts wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub source: Source,
    pub bytes: u64,
    pub packets: u32,
    pub syns: u32,
    pub drops: u32,
    /// Sketches since they were last cleared.
    pub ports: u64,
    pub stacks: u64,
}

/// What a slot held at the last reading; as small as it can be, because there is one per slot.
#[derive(Debug, Clone, Copy)]
struct Last {
    bytes: u64,
    source: Source,
    packets: u32,
    syns: u32,
    drops: u32,
}

/// Remembers the last reading and gives the difference to it.
#[derive(Debug, Default)]
pub struct Meter {
    last: Vec<Option<Last>>,
    /// One per slot that received anything since the last call of `samples`; then what that gave.
    rows: Vec<Sample>,
    given: bool,
    order: Vec<(u128, u8, u32)>,
}

impl Meter {
    /// `slots`: entries of the table, over all CPUs.
    pub fn new(slots: usize) -> Self {
        Self {
            last: vec![None; slots],
            rows: Vec::new(),
            given: false,
            order: Vec::new(),
        }
    }

    /// Adds one row of a reading. Slots beyond the table's size are ignored.
    pub fn row(&mut self, slot: usize, row: Row) {
        self.forget_given();
        let Some(last) = self.last.get_mut(slot) else {
            return;
        };
        let base = last
            .replace(Last {
                bytes: row.bytes,
                source: row.source,
                packets: row.packets,
                syns: row.syns,
                drops: row.drops,
            })
            .filter(|last| last.source == row.source && last.bytes <= row.bytes);
        let since = |now: u32, then: fn(&Last) -> u32| {
            u64::from(now.wrapping_sub(base.as_ref().map_or(0, then)))
        };
        let packets = since(row.packets, |last| last.packets);
        if packets == 0 {
            return;
        }
        self.rows.push(Sample {
            packets,
            bytes: row.bytes - base.map_or(0, |base| base.bytes),
            syns: since(row.syns, |last| last.syns),
            drops: since(row.drops, |last| last.drops),
            port_bits: row.ports,
            stack_bits: row.stacks,
            fresh: base.is_none(),
            ..Sample::silent(row.source)
        });
    }

    fn forget_given(&mut self) {
        if mem::take(&mut self.given) {
            self.rows.clear();
        }
    }

    /// The samples of all rows since the last call, one per source that sent, sorted by source.
    pub fn samples(&mut self) -> &[Sample] {
        self.forget_given();
        self.given = true;
        let samples = &mut self.rows;
        sort(samples, &mut self.order);
        samples.dedup_by(|row, sum| {
            let same = row.source == sum.source;
            if same {
                sum.join(row);
            }
            same
        });
        for sample in samples.iter_mut() {
            sample.ports = linear_count(sample.port_bits);
            sample.stacks = linear_count(sample.stack_bits);
        }
        samples
    }
}

/// Sorts by source. Numbers are compared and moved instead of samples, which are several times as
/// large; then each sample is moved once, in place.
fn sort(samples: &mut [Sample], order: &mut Vec<(u128, u8, u32)>) {
    order.clear();
    order.extend((0..).zip(samples.iter()).map(|(at, sample)| {
        let address = u128::from_be_bytes(sample.source.octets());
        (address, sample.source.bits(), at)
    }));
    order.sort_unstable();
    for start in 0..order.len() {
        let mut hole = start;
        // Follows a cycle of the permutation; places that are done point at themselves.
        while let Some((_, _, from)) = order.get_mut(hole) {
            let next = *from as usize;
            *from = u32::try_from(hole).unwrap_or(u32::MAX);
            if next == start || next == hole {
                break;
            }
            samples.swap(hole, next);
            hole = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(source: &str, packets: u32, bytes: u64) -> Row {
        let source = source.parse().unwrap();
        Row {
            source,
            bytes,
            packets,
            syns: packets,
            drops: 0,
            ports: 0,
            stacks: 0,
        }
    }

    fn only(meter: &mut Meter) -> Sample {
        let samples = meter.samples();
        assert_eq!(samples.len(), 1, "{samples:?}");
        samples[0]
    }

    #[test]
    fn samples_come_in_the_order_of_sources() {
        let mut meter = Meter::new(1_000);
        for turn in 1..4u32 {
            for slot in 0..1_000u32 {
                let n = slot.wrapping_mul(7_919) % 997;
                let source = format!("192.0.{}.{}", n / 256, n % 256);
                meter.row(slot as usize, row(&source, turn, u64::from(turn) * 60));
            }
            let samples = meter.samples();
            assert_eq!(samples.len(), 997);
            assert!(samples.is_sorted_by(|a, b| a.source < b.source));
            assert_eq!(samples.iter().map(|s| s.packets).sum::<u64>(), 1_000);
        }
    }

    #[test]
    fn the_first_reading_counts_whole() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", 100_000, 6_000_000));
        assert_eq!(only(&mut meter).packets, 100_000);
    }

    #[test]
    fn later_readings_count_the_difference_and_silence_nothing() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", 10, 600));
        meter.samples();
        meter.row(0, row("192.0.2.1", 15, 900));
        let sample = only(&mut meter);
        assert_eq!((sample.packets, sample.bytes, sample.syns), (5, 300, 5));
        meter.row(0, row("192.0.2.1", 15, 900));
        assert!(meter.samples().is_empty());
    }

    #[test]
    fn a_wrapped_counter_is_a_difference_and_a_returned_source_a_beginning() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", u32::MAX - 4, 1_000_000));
        meter.samples();
        meter.row(0, row("192.0.2.1", 5, 1_000_600));
        assert_eq!(only(&mut meter).packets, 10);
        meter.row(0, row("192.0.2.1", 3, 180));
        assert_eq!(only(&mut meter).packets, 3);
    }

    #[test]
    fn a_slot_that_changed_hands_starts_anew() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", 10, 600));
        meter.samples();
        meter.row(0, row("192.0.2.2", 12, 720));
        let sample = only(&mut meter);
        assert_eq!(
            (sample.source.to_string(), sample.packets),
            ("192.0.2.2".to_owned(), 12)
        );
    }

    #[test]
    fn one_source_on_two_cpus_is_one_sample_with_joined_sketches() {
        let mut meter = Meter::new(4);
        meter.row(
            0,
            Row {
                ports: 0b0011,
                ..row("2001:db8::/64", 10, 600)
            },
        );
        meter.row(
            2,
            Row {
                ports: 0b0110,
                ..row("2001:db8::/64", 20, 1_200)
            },
        );
        let sample = only(&mut meter);
        assert_eq!((sample.packets, sample.bytes, sample.ports), (30, 1_800, 3));
    }
}
