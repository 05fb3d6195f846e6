//! Readings to windows.
//!
//! A slot of the table belongs to one source on one CPU until it is taken over. Between two
//! readings a slot either kept its source, then the difference counts, or changed hands, then
//! everything in it is new. `bytes` never wraps within an entry's life, so a source that left
//! and came back is told apart from a wrapped packet counter.

use std::mem;

use super::sample::{Sample, linear_count, linear_count_of};
use crate::model::Source;

/// One entry of the source table: totals since the source took the slot. 32-bit counts wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub source: Source,
    pub bytes: u64,
    pub packets: u32,
    pub syns: u32,
    /// TCP with ACK, without SYN or RST.
    pub acks: u32,
    pub drops: u32,
    /// Sketches since they were last cleared.
    pub ports: u64,
    /// Of 32 bits.
    pub stacks: u64,
}

/// What a slot held at the last reading; as small as it can be, because there is one per slot.
#[derive(Debug, Clone, Copy)]
struct Last {
    bytes: u64,
    source: Source,
    packets: u32,
    syns: u32,
    acks: u32,
    drops: u32,
}

/// Remembers the last reading and gives the difference to it.
///
/// Slots keep their sources, so the order of one reading is nearly always that of the next: each
/// row is put in its place as it comes, and only a slot that is new or changed hands costs a sort.
#[derive(Debug, Default)]
pub struct Meter {
    last: Vec<Option<Last>>,
    /// The place of each slot in the order of sources; `NOWHERE` if it has none yet.
    places: Vec<u32>,
    /// The slot at each place, then those without one as they came.
    slots: Vec<u32>,
    /// How many of them have a place.
    placed: usize,
    /// A row for each of `slots`, without packets if it received none; after `samples` what that
    /// gave.
    rows: Vec<Sample>,
    given: bool,
}

const NOWHERE: u32 = u32::MAX;

/// Stands where nothing was received.
fn nothing() -> Sample {
    Sample::silent(Source::containing([0; 16], 0))
}

impl Meter {
    /// `slots`: entries of the table, over all CPUs.
    pub fn new(slots: usize) -> Self {
        Self {
            last: vec![None; slots],
            places: vec![NOWHERE; slots],
            slots: Vec::new(),
            placed: 0,
            rows: Vec::new(),
            given: false,
        }
    }

    /// Adds one row of a reading. Slots beyond the table's size are ignored.
    pub fn row(&mut self, slot: usize, row: Row) {
        self.begin();
        let Some(last) = self.last.get_mut(slot) else {
            return;
        };
        let base = last
            .replace(Last {
                bytes: row.bytes,
                source: row.source,
                packets: row.packets,
                syns: row.syns,
                acks: row.acks,
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
        let syns = since(row.syns, |last| last.syns);
        let acks = since(row.acks, |last| last.acks);
        let sample = Sample {
            packets,
            bytes: row.bytes - base.map_or(0, |base| base.bytes),
            syns,
            // Per CPU: a connection's packets arrive on one.
            half_open: u32::try_from(syns.saturating_sub(acks)).unwrap_or(u32::MAX),
            opens: u32::try_from(packets.saturating_sub(acks)).unwrap_or(u32::MAX),
            drops: since(row.drops, |last| last.drops),
            port_bits: row.ports,
            stack_bits: row.stacks,
            ports: linear_count(row.ports),
            stacks: linear_count_of(row.stacks, 32),
            fresh: base.is_none(),
            ..Sample::silent(row.source)
        };
        self.put(slot, sample);
    }

    fn put(&mut self, slot: usize, sample: Sample) {
        let place = self.places.get(slot).copied().unwrap_or(NOWHERE);
        match self.rows.get_mut(place as usize) {
            Some(row) => *row = sample,
            None => {
                self.slots.push(u32::try_from(slot).unwrap_or(NOWHERE));
                self.rows.push(sample);
            }
        }
    }

    /// The samples of all rows since the last call, one per source that sent, sorted by source.
    pub fn samples(&mut self) -> &mut [Sample] {
        self.begin();
        self.given = true;
        let sent = self.rows.iter().filter(|row| row.packets > 0);
        if self.slots.len() > self.placed || !sent.is_sorted_by_key(|row| row.source) {
            self.sort();
        }
        self.rows.retain(|row| row.packets > 0);
        self.rows.dedup_by(|row, sum| {
            let same = row.source == sum.source;
            if same {
                sum.join(row);
                sum.ports = linear_count(sum.port_bits);
                sum.stacks = linear_count_of(sum.stack_bits, 32);
            }
            same
        });
        &mut self.rows
    }

    /// Starts a reading.
    fn begin(&mut self) {
        if mem::take(&mut self.given) {
            self.rows.clear();
            self.rows.resize(self.slots.len(), nothing());
        }
    }

    /// Brings rows and slots into the order of sources. Numbers are compared and moved instead of
    /// samples, which are several times as large; then each row is moved once, in place. The sort
    /// is linear where little changed.
    fn sort(&mut self) {
        let source = |slot: &u32| {
            let last = self.last.get(*slot as usize).copied().flatten();
            last.map_or(nothing().source, |last| last.source)
        };
        let mut order: Vec<(u128, u8, u32)> = (0..)
            .zip(&self.slots)
            .map(|(at, slot)| {
                let source = source(slot);
                (u128::from_be_bytes(source.octets()), source.bits(), at)
            })
            .collect();
        order.sort();
        for start in 0..order.len() {
            let mut hole = start;
            // Follows a cycle of the permutation; places that are done point at themselves.
            while let Some((_, _, from)) = order.get_mut(hole) {
                let next = *from as usize;
                *from = u32::try_from(hole).unwrap_or(NOWHERE);
                if next == start || next == hole {
                    break;
                }
                self.rows.swap(hole, next);
                self.slots.swap(hole, next);
                hole = next;
            }
        }
        for (place, slot) in (0..).zip(&self.slots) {
            if let Some(known) = self.places.get_mut(*slot as usize) {
                *known = place;
            }
        }
        self.placed = self.slots.len();
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
            acks: 0,
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
    fn a_slot_that_was_silent_or_changed_hands_keeps_the_order() {
        let mut meter = Meter::new(3);
        let names = |meter: &mut Meter| -> Vec<String> {
            meter
                .samples()
                .iter()
                .map(|s| s.source.to_string())
                .collect()
        };
        meter.row(0, row("192.0.2.1", 1, 60));
        meter.row(1, row("192.0.2.5", 1, 60));
        meter.row(2, row("192.0.2.9", 1, 60));
        assert_eq!(names(&mut meter), ["192.0.2.1", "192.0.2.5", "192.0.2.9"]);
        meter.row(0, row("192.0.2.1", 1, 60));
        meter.row(1, row("192.0.2.77", 1, 60));
        meter.row(2, row("192.0.2.9", 2, 120));
        assert_eq!(names(&mut meter), ["192.0.2.9", "192.0.2.77"]);
        meter.row(2, row("192.0.2.9", 3, 180));
        meter.row(1, row("192.0.2.77", 2, 120));
        meter.row(0, row("192.0.2.1", 2, 120));
        assert_eq!(names(&mut meter), ["192.0.2.1", "192.0.2.9", "192.0.2.77"]);
        assert!(names(&mut meter).is_empty());
    }

    #[test]
    fn the_first_reading_counts_whole() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", 100_000, 6_000_000));
        assert_eq!(only(&mut meter).packets, 100_000);
    }

    #[test]
    fn half_open_is_what_no_established_peer_answers() {
        let mut meter = Meter::new(4);
        let counted = |packets, syns, acks| Row {
            syns,
            acks,
            ..row("192.0.2.1", packets, 600)
        };
        meter.row(0, counted(10, 10, 0));
        assert_eq!(only(&mut meter).half_open, 10);
        meter.row(0, counted(20, 14, 6));
        assert_eq!(only(&mut meter).half_open, 0, "4 opened, 6 answered");
        meter.row(0, counted(23, 17, 6));
        meter.row(1, counted(2, 2, 1));
        assert_eq!(only(&mut meter).half_open, 4);
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
