//! Readings to windows.
//!
//! An entry of the table belongs to one source on one CPU until it is taken over. Between two
//! readings it either kept its source, then the difference counts, or changed hands, then
//! everything in it is new. `bytes` never wraps within an entry's life, so a source that left
//! and came back is told apart from a wrapped packet counter.

use super::order::{Key, Order};
use super::sample::{Sample, linear_count, linear_count_of_32};
use crate::model::Source;

/// One entry of the source table: totals since the source took it. 32-bit counts wrap.
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

/// How the entries of a table are numbered: by CPU, then by set, then by way. A source is in the
/// same set of every CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub cpus: usize,
    /// Of each CPU.
    pub sets: usize,
    /// Of each set.
    pub ways: usize,
}

impl Shape {
    pub const fn entries(&self) -> usize {
        self.cpus * self.sets * self.ways
    }
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
}

/// What an entry held when it was read last.
#[derive(Debug, Clone, Copy)]
struct Past {
    total: Counts,
    source: Source,
}

impl Past {
    const UNUSED: Self = Self {
        total: Counts::NONE,
        source: Source::UNSPECIFIED,
    };

    /// What its source sent since then, if anything.
    #[inline]
    fn update(&mut self, row: &Row) -> Option<Sample> {
        let now = Counts {
            bytes: row.bytes,
            packets: row.packets,
            syns: row.syns,
            acks: row.acks,
            drops: row.drops,
        };
        let Self { total, source } = *self;
        let kept = total.bytes > 0 && total.bytes <= now.bytes && source == row.source;
        *self = Self {
            total: now,
            source: row.source,
        };
        let came = if kept { now.since(&total) } else { now };
        (came.packets > 0).then(|| Sample {
            packets: came.packets.into(),
            bytes: came.bytes,
            syns: came.syns,
            // Per CPU: a connection's packets arrive on one.
            half_open: came.syns.saturating_sub(came.acks),
            opens: came.packets.saturating_sub(came.acks),
            drops: came.drops,
            port_bits: row.ports,
            stack_bits: row.stacks,
            ports: linear_count(row.ports),
            stacks: linear_count_of_32(row.stacks),
            fresh: !kept,
            ..Sample::silent(row.source)
        })
    }
}

/// Remembers the last reading and gives the difference to it, set by set: every entry is touched
/// once, in the order of memory.
#[derive(Debug)]
pub struct Meter {
    shape: Shape,
    order: Order,
    past: Vec<Past>,
    misplaced: u64,
    /// What a set gave, and in which order. Kept, because memory costs time.
    set: Vec<Sample>,
    sorted: Vec<(Key, usize)>,
}

/// The samples of one reading, one per source that sent, in the order of the table
/// ([`super::Order`]).
#[derive(Debug)]
pub struct Samples<'a, R> {
    meter: &'a mut Meter,
    read: R,
    /// Sets read.
    sets: usize,
    /// Samples given of the last one.
    given: usize,
}

impl Meter {
    /// For a table whose sets are found in `order`.
    pub fn new(shape: Shape, order: Order) -> Self {
        Self {
            past: vec![Past::UNUSED; shape.entries()],
            shape,
            order,
            misplaced: 0,
            set: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// Entries of the last reading that were left out, because their source belongs into another
    /// set. One may be: it changed hands while it was read, and the next reading has it.
    pub const fn misplaced(&self) -> u64 {
        self.misplaced
    }

    /// Reads the table, each entry by its number; `None` is an entry of nobody, or one that cannot
    /// be read just now.
    pub fn samples<R: FnMut(usize) -> Option<Row>>(&mut self, read: R) -> Samples<'_, R> {
        self.sorted.clear();
        self.misplaced = 0;
        Samples {
            meter: self,
            read,
            sets: 0,
            given: 0,
        }
    }

    /// Reads one set of all CPUs.
    #[inline]
    fn read(&mut self, set: usize, mut read: impl FnMut(usize) -> Option<Row>) {
        let Shape { cpus, sets, ways } = self.shape;
        self.set.clear();
        self.sorted.clear();
        for cpu in 0..cpus {
            let first = (cpu * sets + set) * ways;
            let past = self.past.get_mut(first..).unwrap_or_default();
            for (entry, past) in (first..).zip(past.iter_mut().take(ways)) {
                let Some(row) = read(entry) else { continue };
                let key = self.order.key(row.source);
                if self.order.set(&key) != set {
                    self.misplaced += 1;
                } else if let Some(sample) = past.update(&row) {
                    self.sorted.push((key, self.set.len()));
                    self.set.push(sample);
                }
            }
        }
        self.sorted.sort_unstable_by_key(|(key, _)| *key);
    }
}

impl<R: FnMut(usize) -> Option<Row>> Samples<'_, R> {
    /// The next sample of the set that was read last.
    #[inline]
    fn peek(&self) -> Option<&Sample> {
        let (_, at) = self.meter.sorted.get(self.given)?;
        self.meter.set.get(*at)
    }

    /// Adds what other CPUs counted of its source.
    #[cold]
    fn join(&mut self, sample: &mut Sample) {
        while let Some(other) = self.peek().filter(|other| other.source == sample.source) {
            sample.join(other);
            self.given += 1;
        }
        sample.ports = linear_count(sample.port_bits);
        sample.stacks = linear_count_of_32(sample.stack_bits);
    }
}

impl<R: FnMut(usize) -> Option<Row>> Iterator for Samples<'_, R> {
    type Item = Sample;

    #[inline]
    fn next(&mut self) -> Option<Sample> {
        loop {
            if let Some(sample) = self.peek() {
                let mut sample = *sample;
                self.given += 1;
                if self.peek().is_some_and(|next| next.source == sample.source) {
                    self.join(&mut sample);
                }
                return Some(sample);
            }
            if self.sets == self.meter.shape.sets {
                return None;
            }
            self.meter.read(self.sets, &mut self.read);
            self.sets += 1;
            self.given = 0;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let Shape { cpus, sets, ways } = self.meter.shape;
        let most = (sets - self.sets.min(sets)) * cpus * ways;
        let rest = self.meter.sorted.len().saturating_sub(self.given);
        (0, Some(most + rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Order;

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

    /// Of a single set.
    fn of(cpus: usize, ways: usize) -> Meter {
        let shape = Shape {
            cpus,
            sets: 1,
            ways,
        };
        Meter::new(shape, Order::BY_SOURCE)
    }

    /// One CPU, one set of four.
    fn small() -> Meter {
        of(1, 4)
    }

    /// What a reading of these entries gives.
    fn all(meter: &mut Meter, entries: &[(usize, Row)]) -> Vec<Sample> {
        let read = |at: usize| {
            let entry = entries.iter().find(|(entry, _)| *entry == at);
            entry.map(|(_, row)| *row)
        };
        meter.samples(read).collect()
    }

    fn only(meter: &mut Meter, row: Row) -> Sample {
        let samples = all(meter, &[(0, row)]);
        assert_eq!(samples.len(), 1, "{samples:?}");
        samples[0]
    }

    #[test]
    fn samples_come_in_the_order_of_the_table_each_source_once() {
        let order = Order::of_table([7, 1 << 33, 3 << 31, 5 << 30, 0x9e37_79b9_7f4a_7c15], 63);
        let shape = Shape {
            cpus: 3,
            sets: 64,
            ways: 4,
        };
        let mut meter = Meter::new(shape, order);
        let mut table = vec![None; shape.entries()];
        let (mut placed, mut hosts) = (0, std::collections::BTreeSet::new());
        for number in 0..600_u32 {
            // Many of them on two CPUs.
            let (cpu, host) = (number as usize % 3, number / 2);
            let source = format!("192.0.{}.{}", host / 256, host % 256);
            let one = row(&source, 1, 60);
            let first = (cpu * shape.sets + order.set(&order.key(one.source))) * shape.ways;
            let free = (first..first + shape.ways)
                .rev()
                .find(|at| table[*at].is_none());
            if let Some(at) = free {
                table[at] = Some(one);
                placed += 1;
                hosts.insert(host);
            }
        }
        assert!(placed > 500 && hosts.len() < placed);
        for packets in 1..4_u32 {
            for one in table.iter_mut().flatten() {
                (one.packets, one.bytes) = (packets, 60 * u64::from(packets));
            }
            let samples: Vec<_> = meter.samples(|at| table[at]).collect();
            assert_eq!(samples.len(), hosts.len());
            let keys: Vec<_> = samples
                .iter()
                .map(|sample| order.key(sample.source))
                .collect();
            assert!(keys.is_sorted_by(|a, b| a < b));
            let sum: u64 = samples.iter().map(|sample| sample.packets).sum();
            assert_eq!(sum, placed as u64);
        }
        assert_eq!(meter.samples(|at| table[at]).count(), 0);
    }

    #[test]
    fn an_iterator_tells_how_many_may_come() {
        let mut meter = of(2, 4);
        let rows = ["192.0.2.1", "192.0.2.2"].map(|source| row(source, 1, 60));
        let mut samples = meter.samples(|at| rows.get(at).copied());
        assert_eq!(samples.size_hint(), (0, Some(8)));
        samples.next();
        assert_eq!(samples.size_hint(), (0, Some(1)));
        assert_eq!(samples.count(), 1);
    }

    #[test]
    fn an_entry_that_was_silent_or_changed_hands_is_told_apart() {
        let mut meter = small();
        let names = |meter: &mut Meter, rows: &[(usize, Row)]| -> Vec<String> {
            let samples = all(meter, rows);
            samples.iter().map(|s| s.source.to_string()).collect()
        };
        let first = [
            (0, row("192.0.2.1", 1, 60)),
            (1, row("192.0.2.5", 1, 60)),
            (2, row("192.0.2.9", 1, 60)),
        ];
        assert_eq!(
            names(&mut meter, &first),
            ["192.0.2.1", "192.0.2.5", "192.0.2.9"]
        );
        let second = [
            (0, row("192.0.2.1", 1, 60)),
            (1, row("192.0.2.77", 1, 60)),
            (2, row("192.0.2.9", 2, 120)),
        ];
        assert_eq!(names(&mut meter, &second), ["192.0.2.9", "192.0.2.77"]);
        // An entry that could not be read tells the difference later.
        assert!(names(&mut meter, &[]).is_empty());
        let third = [(2, row("192.0.2.9", 7, 420))];
        let samples = all(&mut meter, &third);
        assert_eq!((samples.len(), samples[0].packets), (1, 5));
    }

    #[test]
    fn who_is_in_a_set_of_others_is_left_out_and_hides_nobody() {
        let order = Order::of_table([0x9e37_79b9_7f4a_7c15; 5], 3);
        let of_set = |set| {
            let mut rows = (0..=255).map(|n| row(&format!("192.0.2.{n}"), 1, 60));
            rows.find(|row| order.set(&order.key(row.source)) == set)
                .unwrap()
        };
        let [first, second, third, last] = [0, 1, 2, 3].map(of_set);
        let shape = Shape {
            cpus: 1,
            sets: 4,
            ways: 1,
        };
        let mut meter = Meter::new(shape, order);
        let mut given = |rows: [Row; 4]| {
            let samples = meter.samples(|at| rows.get(at).copied());
            let sources: Vec<_> = samples.map(|sample| sample.source).collect();
            (sources, meter.misplaced())
        };
        let others = vec![second.source, third.source, last.source];
        assert_eq!(given([last, second, third, last]), (others, 1));
        let rows = [first, second, third, last];
        assert_eq!(given(rows), (vec![first.source], 0));
    }

    #[test]
    fn the_first_reading_counts_whole() {
        let sample = only(&mut small(), row("192.0.2.1", 100_000, 6_000_000));
        assert_eq!((sample.packets, sample.fresh), (100_000, true));
    }

    #[test]
    fn who_was_just_named_when_it_was_read_is_fresh_the_next_time() {
        let mut meter = small();
        assert!(all(&mut meter, &[(0, row("::", 0, 0))]).is_empty());
        assert!(only(&mut meter, row("::", 1, 60)).fresh);
        assert!(!only(&mut meter, row("::", 2, 120)).fresh);
    }

    #[test]
    fn half_open_is_what_no_established_peer_answers() {
        let mut meter = small();
        let counted = |packets, syns, acks| Row {
            syns,
            acks,
            ..row("192.0.2.1", packets, 600)
        };
        assert_eq!(only(&mut meter, counted(10, 10, 0)).half_open, 10);
        let second = only(&mut meter, counted(20, 14, 6));
        assert_eq!(second.half_open, 0, "4 opened, 6 answered");
        let both = [(0, counted(23, 17, 6)), (1, counted(2, 2, 1))];
        let samples = all(&mut meter, &both);
        assert_eq!((samples.len(), samples[0].half_open), (1, 4));
    }

    #[test]
    fn later_readings_count_the_difference_and_silence_nothing() {
        let mut meter = small();
        only(&mut meter, row("192.0.2.1", 10, 600));
        let sample = only(&mut meter, row("192.0.2.1", 15, 900));
        assert_eq!((sample.packets, sample.bytes, sample.syns), (5, 300, 5));
        assert!(all(&mut meter, &[(0, row("192.0.2.1", 15, 900))]).is_empty());
    }

    #[test]
    fn a_wrapped_counter_is_a_difference_and_a_returned_source_a_beginning() {
        let mut meter = small();
        only(&mut meter, row("192.0.2.1", u32::MAX - 4, 1_000_000));
        let sample = only(&mut meter, row("192.0.2.1", 5, 1_000_600));
        assert_eq!((sample.packets, sample.fresh), (10, false));
        let sample = only(&mut meter, row("192.0.2.1", 3, 180));
        assert_eq!((sample.packets, sample.fresh), (3, true));
    }

    #[test]
    fn an_entry_that_changed_hands_starts_anew() {
        let mut meter = small();
        only(&mut meter, row("192.0.2.1", 10, 600));
        let sample = only(&mut meter, row("192.0.2.2", 12, 720));
        assert_eq!(
            (sample.source.to_string(), sample.packets),
            ("192.0.2.2".to_owned(), 12)
        );
    }

    #[test]
    fn one_source_on_two_cpus_is_one_sample_with_joined_sketches() {
        let mut meter = of(2, 2);
        let counted = |packets, ports| Row {
            ports,
            ..row("2001:db8::/64", packets, 60 * u64::from(packets))
        };
        let samples = all(
            &mut meter,
            &[(0, counted(10, 0b0011)), (2, counted(20, 0b0110))],
        );
        let sample = samples[0];
        assert_eq!(samples.len(), 1);
        assert_eq!((sample.packets, sample.bytes, sample.ports), (30, 1_800, 3));
    }
}
