//! Readings to windows.
//!
//! A slot of the table belongs to one source on one CPU until it is taken over. Between two
//! readings a slot either kept its source, then the difference counts, or changed hands, then
//! everything in it is new. `bytes` never wraps within an entry's life, so a source that left
//! and came back is told apart from a wrapped packet counter.

use std::hint::black_box;
use std::mem;

use super::key::{Key, sort_keys};
use super::sample::{Sample, linear_count, linear_count_of_32};
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
    pub stacks: u32,
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    bytes: u64,
    packets: u32,
    syns: u32,
    acks: u32,
    drops: u32,
}

impl Counts {
    const NONE: Self = Self {
        bytes: 0,
        packets: 0,
        syns: 0,
        acks: 0,
        drops: 0,
    };

    /// What came after `then`; 32-bit counts wrap.
    #[inline]
    fn since(&self, then: &Self) -> Self {
        Self {
            bytes: self.bytes.wrapping_sub(then.bytes),
            packets: self.packets.wrapping_sub(then.packets),
            syns: self.syns.wrapping_sub(then.syns),
            acks: self.acks.wrapping_sub(then.acks),
            drops: self.drops.wrapping_sub(then.drops),
        }
    }

    fn and(&self, more: &Self) -> Self {
        Self {
            bytes: self.bytes.wrapping_add(more.bytes),
            packets: self.packets.wrapping_add(more.packets),
            syns: self.syns.wrapping_add(more.syns),
            acks: self.acks.wrapping_add(more.acks),
            drops: self.drops.wrapping_add(more.drops),
        }
    }
}

/// What came into a slot in one reading: a cache line, because slots are visited in the order of
/// sources, which is none of theirs.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot {
    came: Counts,
    ports: u64,
    stacks: u32,
    /// The last one that it was in.
    reading: u16,
    source: Source,
    /// Its source took the slot in this reading.
    fresh: bool,
}

/// Remembers the last reading and gives the difference to it.
///
/// Slots keep their sources, so the order of one reading is nearly always that of the next: only
/// a slot that is new or changed hands costs a sort. Rows come in no order; each is left in its
/// slot, and samples are made of them one by one in order once all are there: a copy of them all
/// would be as large as the table.
#[derive(Debug)]
pub struct Meter {
    slots: Vec<Slot>,
    /// What each slot's source has sent in all.
    totals: Vec<Counts>,
    /// The slots that ever held a source, in the order of sources unless `moved`.
    order: Vec<u32>,
    moved: bool,
    /// Where they are brought into that order. Kept, because new memory comes a page at a time.
    keys: Vec<Key>,
    spare: Vec<Key>,
    /// The number of the running reading.
    reading: u16,
    /// Its samples have been given: the next row begins another.
    given: bool,
}

/// The samples of one reading, one per source that sent, in the order of sources.
#[derive(Debug)]
pub struct Samples<'a> {
    slots: &'a [Slot],
    reading: u16,
    /// Slots fetched, and slots to come after those.
    near: &'a [u32],
    rest: &'a [u32],
    /// The one after those that the samples given are of.
    after: Option<&'a Slot>,
}

/// A slot that never held anything, one whose last reading is long past, and the first number
/// that a reading has.
const NEVER: u16 = 0;
const LONG_PAST: u16 = 1;
const FIRST: u16 = 2;

/// Slots fetched at once.
const BATCH: usize = 64;

impl Slot {
    const UNUSED: Self = Self {
        came: Counts::NONE,
        ports: 0,
        stacks: 0,
        reading: NEVER,
        source: Source::UNSPECIFIED,
        fresh: false,
    };

    /// What its source sent since the reading before.
    #[inline]
    fn sample(&self) -> Sample {
        let Counts {
            bytes,
            packets,
            syns,
            acks,
            drops,
        } = self.came;
        Sample {
            packets: packets.into(),
            bytes,
            syns,
            // Per CPU: a connection's packets arrive on one.
            half_open: syns.saturating_sub(acks),
            opens: packets.saturating_sub(acks),
            drops,
            port_bits: self.ports,
            stack_bits: self.stacks,
            ports: linear_count(self.ports),
            stacks: linear_count_of_32(self.stacks),
            fresh: self.fresh,
            ..Sample::silent(self.source)
        }
    }
}

impl Meter {
    /// `slots`: entries of the table, over all CPUs.
    pub fn new(slots: usize) -> Self {
        let mut meter = Self {
            slots: vec![Slot::UNUSED; slots],
            totals: vec![Counts::NONE; slots],
            order: vec![0; slots],
            moved: false,
            keys: vec![Key::default(); slots],
            spare: vec![Key::default(); slots],
            reading: FIRST,
            given: false,
        };
        meter.touch();
        meter
    }

    /// Has all memory now: the tick in which the table fills has no time to wait for it.
    fn touch(&mut self) {
        self.totals.fill(black_box(Counts::NONE));
        self.order.fill(black_box(0));
        for keys in [&mut self.keys, &mut self.spare] {
            keys.fill(black_box(Key::default()));
        }
        self.order.clear();
    }

    /// Adds one row of a reading. Slots beyond the table's size are ignored.
    pub fn row(&mut self, at: usize, row: Row) {
        if mem::take(&mut self.given) {
            self.begin();
        }
        let (Some(slot), Some(total)) = (self.slots.get_mut(at), self.totals.get_mut(at)) else {
            return;
        };
        let now = Counts {
            bytes: row.bytes,
            packets: row.packets,
            syns: row.syns,
            acks: row.acks,
            drops: row.drops,
        };
        let kept = slot.reading != NEVER && slot.source == row.source;
        let lasted = kept && total.bytes <= now.bytes;
        self.moved |= !kept;
        let then = mem::replace(total, now);
        if !lasted {
            (slot.came, slot.fresh) = (now, true);
        } else if slot.reading != self.reading {
            (slot.came, slot.fresh) = (now.since(&then), false);
        } else {
            slot.came = slot.came.and(&now.since(&then));
        }
        slot.source = row.source;
        slot.ports = row.ports;
        slot.stacks = row.stacks;
        slot.reading = self.reading;
    }

    /// The samples of all rows since the last call of this or [`Meter::skip`].
    pub fn samples(&mut self) -> Samples<'_> {
        if mem::take(&mut self.moved) {
            self.sort();
        }
        self.skip();
        let mut samples = Samples {
            slots: &self.slots,
            reading: self.reading,
            near: &[],
            rest: &self.order,
            after: None,
        };
        samples.after = samples.slot();
        samples
    }

    /// Ends a reading of which nobody wants the samples.
    pub fn skip(&mut self) {
        if mem::replace(&mut self.given, true) {
            self.begin();
        }
    }

    /// Starts a reading. When numbers run out, those of the past become one.
    fn begin(&mut self) {
        self.reading = self.reading.wrapping_add(1).max(FIRST);
        if self.reading == FIRST {
            for slot in self.slots.iter_mut().filter(|slot| slot.reading != NEVER) {
                slot.reading = LONG_PAST;
            }
        }
    }

    /// Brings the slots into the order of sources. Numbers are sorted instead of addresses, and
    /// addresses compared only where numbers are equal.
    fn sort(&mut self) {
        let slots = (0..).zip(&self.slots);
        let used = slots.filter(|(_, slot)| slot.reading != NEVER);
        self.keys.clear();
        self.keys
            .extend(used.map(|(at, slot)| Key::of(&slot.source, at)));
        sort_keys(&mut self.keys, &mut self.spare);
        self.order.clear();
        let source = |key: &Key| self.slots.get(key.slot as usize).map(|slot| slot.source);
        for equals in self.keys.chunk_by_mut(|a, b| a.rank == b.rank) {
            if equals.len() > FEW {
                for key in equals.iter_mut() {
                    key.rank = source(key).map_or(0, |source| source.halves().1);
                }
            }
            equals.sort_unstable_by(|a, b| {
                let known = |key: &Key| (key.rest, key.rank);
                let rest = |key: &Key| (source(key), key.slot);
                let order = known(a).cmp(&known(b));
                order.then_with(|| rest(a).cmp(&rest(b)))
            });
            self.order.extend(equals.iter().map(|key| key.slot));
        }
    }
}

/// More of one rank than this are many: a neighbour makes up link-local addresses, which differ in the
/// lower half alone.
const FEW: usize = 16;

/// Reads a word of every slot. They lie anywhere in memory: so the processor waits for many at once,
/// and not for one after the other.
fn fetch(slots: &[Slot], near: &[u32]) {
    let read = |sum: u32, slot: &u32| {
        let slot = slots.get(*slot as usize);
        slot.map_or(sum, |slot| sum ^ slot.came.packets)
    };
    black_box(near.iter().fold(0, read));
}

impl<'a> Samples<'a> {
    /// The next slot that was read this time and whose source sent.
    #[inline]
    fn slot(&mut self) -> Option<&'a Slot> {
        loop {
            if self.near.is_empty() {
                let batch = self.rest.len().min(BATCH);
                (self.near, self.rest) = self.rest.split_at(batch);
                fetch(self.slots, self.near);
            }
            let (slot, near) = self.near.split_first()?;
            self.near = near;
            if let Some(slot) = self.slots.get(*slot as usize)
                && slot.reading == self.reading
                && slot.came.packets > 0
            {
                return Some(slot);
            }
        }
    }
}

impl Samples<'_> {
    /// Adds what other CPUs counted of its source.
    #[cold]
    fn join(&mut self, sample: &mut Sample) {
        while let Some(slot) = self.after.filter(|slot| slot.source == sample.source) {
            sample.join(&slot.sample());
            self.after = self.slot();
        }
        sample.ports = linear_count(sample.port_bits);
        sample.stacks = linear_count_of_32(sample.stack_bits);
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    #[inline]
    fn next(&mut self) -> Option<Sample> {
        let mut sample = self.after?.sample();
        self.after = self.slot();
        if self.after.is_some_and(|slot| slot.source == sample.source) {
            self.join(&mut sample);
        }
        Some(sample)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = self.near.len() + self.rest.len() + usize::from(self.after.is_some());
        (0, Some(most))
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

    fn all(meter: &mut Meter) -> Vec<Sample> {
        meter.samples().collect()
    }

    fn only(meter: &mut Meter) -> Sample {
        let samples = all(meter);
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
            let samples = all(&mut meter);
            assert_eq!(samples.len(), 997);
            assert!(samples.is_sorted_by(|a, b| a.source < b.source));
            assert_eq!(samples.iter().map(|s| s.packets).sum::<u64>(), 1_000);
        }
    }

    #[test]
    fn a_slot_that_was_silent_or_changed_hands_keeps_the_order() {
        let mut meter = Meter::new(3);
        let names = |meter: &mut Meter| -> Vec<String> {
            meter.samples().map(|s| s.source.to_string()).collect()
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
    fn the_order_of_sources_holds_in_all_of_the_address_space() {
        let names = [
            "::5",
            "::6",
            "192.0.2.1",
            "192.0.2.2",
            "0:0:0:1::/64",
            "0:0:0:2::/64",
            "0:0:0:3::/64",
            "2001:db8::/64",
            "fe80::1",
            "fe80::2",
        ];
        let mut meter = Meter::new(names.len());
        for (slot, name) in names.iter().rev().enumerate() {
            meter.row(slot, row(name, 1, 60));
        }
        let samples = meter.samples();
        let given: Vec<String> = samples.map(|sample| sample.source.to_string()).collect();
        assert_eq!(given, names);
    }

    #[test]
    fn many_that_differ_in_the_lower_half_alone_come_in_order() {
        let mut meter = Meter::new(200);
        for slot in 0..200u32 {
            let host = slot.wrapping_mul(7_919) % 199;
            let name = match slot % 2 {
                0 => format!("fe80::{host:x}"),
                _ => format!("fe80:0:0:1::{host:x}"),
            };
            meter.row(slot as usize, row(&name, 1, 60));
        }
        let sources: Vec<_> = all(&mut meter).iter().map(|sample| sample.source).collect();
        assert!(sources.len() > 190);
        assert!(sources.is_sorted_by(|a, b| a < b), "{sources:?}");
    }

    #[test]
    fn a_slot_not_read_until_numbers_run_out_gives_nothing_and_then_the_difference() {
        let mut meter = Meter::new(2);
        meter.row(0, row("192.0.2.1", 10, 600));
        assert_eq!(only(&mut meter).packets, 10);
        for _ in 0..=2 * u32::from(u16::MAX) {
            assert!(all(&mut meter).is_empty());
        }
        meter.row(0, row("192.0.2.1", 15, 900));
        assert_eq!(only(&mut meter).packets, 5);
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
        meter.skip();
        meter.row(0, row("192.0.2.1", 15, 900));
        let sample = only(&mut meter);
        assert_eq!((sample.packets, sample.bytes, sample.syns), (5, 300, 5));
        meter.row(0, row("192.0.2.1", 15, 900));
        assert!(all(&mut meter).is_empty());
    }

    #[test]
    fn a_wrapped_counter_is_a_difference_and_a_returned_source_a_beginning() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", u32::MAX - 4, 1_000_000));
        meter.skip();
        meter.row(0, row("192.0.2.1", 5, 1_000_600));
        assert_eq!(only(&mut meter).packets, 10);
        meter.row(0, row("192.0.2.1", 3, 180));
        assert_eq!(only(&mut meter).packets, 3);
    }

    #[test]
    fn a_slot_that_changed_hands_starts_anew() {
        let mut meter = Meter::new(4);
        meter.row(0, row("192.0.2.1", 10, 600));
        meter.skip();
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
