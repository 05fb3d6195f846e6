//! Many sources as one, so that what none of them does alone is still seen.
//!
//! Only what unproven sources got through is summed: who completed a handshake, answers this host
//! or is held already answers for itself.

use std::collections::HashSet;
use std::mem;

use foldhash::fast::RandomState;

use super::config::{Config, whole};
use crate::model::Source;
use crate::telemetry::{Sample, Traffic, linear_count};

/// Prefix lengths of the 128 bits of a mapped address: IPv4 /24 and IPv6 /48.
const V4_BITS: u8 = 96 + 24;
const V6_BITS: u8 = 48;

/// Everyone, IPv4 and IPv6.
pub(super) const EVERYONE: u8 = 0;

/// Prefixes that keep limits of their own while everyone is limited.
const MOST_SHELTERED: usize = 1024;

pub(super) fn prefix_of(source: &Source) -> Source {
    let bits = if source.is_ipv4() { V4_BITS } else { V6_BITS };
    Source::containing(source.octets(), bits.min(source.bits()))
}

pub(super) fn everyone() -> Source {
    Source::containing([0; 16], EVERYONE)
}

/// As what packets from `source` are judged where sources are told apart at `v6_bits`, the most
/// specific first: itself, the source they count for, its prefix, everyone.
pub(super) fn judged_as(source: &Source, v6_bits: u8) -> [Source; 4] {
    let bits = source.tracked_bits(v6_bits).min(source.bits());
    let counted = if source.is_everyone() {
        everyone()
    } else {
        Source::containing(source.octets(), bits)
    };
    [*source, counted, prefix_of(source), everyone()]
}

/// Prefixes whose sums are kept, by hash: a set each holds the loudest of those that fall into it.
const SET_BITS: u32 = 11;
const WAYS: usize = 4;

/// By way: which prefix, its packets, 0 where it is free, and where its sum is: one cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set {
    prefixes: [u64; WAYS],
    packets: [u32; WAYS],
    at: [u16; WAYS],
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    sample: Sample,
    sources: u32,
}

/// The sums of the prefixes of one window: of all, unless they are many thousands.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    sets: Vec<Set>,
    sums: Vec<Sum>,
}

impl Prefixes {
    fn clear(&mut self) {
        if !self.sums.is_empty() {
            self.sums.clear();
            self.sets.fill(Set::default());
        }
    }

    /// Adds a source to the sum of its prefix. A newcomer takes the place of the most quiet that
    /// is no louder.
    fn add(&mut self, sample: &Sample) {
        let prefix = number_of(&sample.source);
        let packets = u32::try_from(sample.packets).unwrap_or(u32::MAX).max(1);
        if self.sets.is_empty() {
            self.sets.resize(1 << SET_BITS, Set::default());
        }
        let Some(set) = self.sets.get_mut(set_of(prefix)) else {
            return;
        };
        let known = |way: &usize| set.prefixes[*way] == prefix && set.packets[*way] > 0;
        if let Some(way) = (0..WAYS).find(known) {
            set.packets[way] = set.packets[way].saturating_add(packets);
            if let Some(sum) = self.sums.get_mut(usize::from(set.at[way])) {
                sum.sample.join(sample);
                sum.sources += 1;
            }
            return;
        }
        let quiet = (0..WAYS).min_by_key(|way| set.packets[*way]);
        let way = quiet.unwrap_or_default();
        let sum = Sum {
            sample: Sample {
                source: prefix_of(&sample.source),
                ..*sample
            },
            sources: 1,
        };
        if set.packets[way] == 0 {
            set.at[way] = u16::try_from(self.sums.len()).unwrap_or(u16::MAX);
            self.sums.push(sum);
        } else if set.packets[way] > packets {
            return;
        } else if let Some(place) = self.sums.get_mut(usize::from(set.at[way])) {
            *place = sum;
        }
        (set.prefixes[way], set.packets[way]) = (prefix, packets);
    }

    /// Those of several sources with as many packets, sorted.
    fn of_several(&self, least: u64) -> Vec<Sample> {
        let several = |sum: &&Sum| sum.sources > 1 && sum.sample.packets >= least;
        let sums = self.sums.iter().filter(several).map(|sum| Sample {
            ports: linear_count(sum.sample.port_bits),
            ..sum.sample
        });
        let mut sums: Vec<_> = sums.collect();
        sums.sort_unstable_by_key(|sum| sum.source);
        sums
    }
}

/// The prefix of a source as a number.
#[inline]
fn number_of(source: &Source) -> u64 {
    let (upper, lower) = source.halves();
    if source.is_ipv4() {
        (lower >> (128 - V4_BITS)) << 1 | 1
    } else {
        (upper >> (64 - V6_BITS)) << 1
    }
}

/// The upper bits of the product with 2^64 divided by the golden ratio (Knuth, "The Art of Computer
/// Programming", volume 3, 6.4). Who makes prefixes meet wins nothing by it: the louder stay.
#[inline]
fn set_of(prefix: u64) -> usize {
    (prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SET_BITS)) as usize
}

/// The sums of one window.
#[derive(Debug)]
pub(super) struct Aggregate<'a> {
    overall: Sample,
    /// What sources sent of which nothing was known before.
    fresh: Sample,
    /// Of no source any more.
    unseen: Traffic,
    prefixes: &'a mut Prefixes,
    /// Packets below which a prefix is not worth a look.
    least: u64,
}

impl<'a> Aggregate<'a> {
    /// For a window of `seconds`.
    pub(super) fn new(config: &Config, seconds: f64, prefixes: &'a mut Prefixes) -> Self {
        let triggers = &config.triggers;
        let lowest = [triggers.pps, triggers.syn, triggers.ports]
            .into_iter()
            .filter(|trigger| *trigger > 0.0)
            .fold(f64::INFINITY, f64::min);
        let least = if lowest.is_finite() {
            u64::from(whole(lowest * seconds / 4.0))
        } else {
            0
        };
        prefixes.clear();
        Self {
            overall: Sample::silent(everyone()),
            fresh: Sample::silent(everyone()),
            unseen: Traffic::default(),
            prefixes,
            least,
        }
    }

    /// Adds a source, in any order.
    pub(super) fn add(&mut self, sample: &Sample) {
        let passed = passed(sample);
        if sample.fresh {
            self.fresh.join(&passed);
        }
        self.overall.join(&passed);
        self.prefixes.add(&passed);
    }

    /// Adds what came from sources that had to make room for others. Who still has a place and is
    /// new came the same way: they are a sample of all of them.
    pub(super) fn add_unseen(&mut self, unseen: Traffic) {
        self.unseen = unseen;
    }

    /// The sums of everyone, and of each prefix.
    pub(super) fn close(mut self) -> (Sample, Vec<Sample>) {
        let like = match self.fresh.packets {
            0 => self.overall,
            _ => self.fresh,
        };
        self.overall.join(&alike(&self.unseen, &like));
        (self.overall, self.prefixes.of_several(self.least))
    }
}

/// So much traffic of the kind that `like` is of.
fn alike(traffic: &Traffic, like: &Sample) -> Sample {
    let packets = traffic.packets.saturating_sub(traffic.drops);
    let part = |count: u32| {
        let part = u128::from(count) * u128::from(packets) / u128::from(like.packets.max(1));
        u32::try_from(part).unwrap_or(u32::MAX)
    };
    let drops = u32::try_from(traffic.drops).unwrap_or(u32::MAX);
    passed(&Sample {
        packets: traffic.packets,
        bytes: traffic.bytes,
        drops,
        syns: part(like.syns),
        half_open: part(like.half_open),
        opens: part(like.opens),
        ..Sample::silent(everyone())
    })
}

/// What got through and was not asked for.
fn passed(sample: &Sample) -> Sample {
    let packets = sample
        .packets
        .saturating_sub(sample.drops.into())
        .saturating_sub(sample.answers.into());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the bytes there were"
    )]
    let bytes = if packets == sample.packets {
        sample.bytes
    } else {
        (sample.bytes as f64 * (packets as f64 / sample.packets.max(1) as f64)) as u64
    };
    Sample {
        packets,
        bytes,
        answers: 0,
        stack_bits: 0,
        stacks: 0,
        ..*sample
    }
}

/// The prefixes of who keeps limits of their own while everyone else shares one.
#[derive(Debug, Default)]
pub(super) struct Shelter {
    /// Peers by proof, and who answers this host.
    peers: Few,
    /// Who sent before this window, and opens nothing now.
    known: Few,
}

/// At most [`MOST_SHELTERED`], the first that came.
type Few = HashSet<Source, RandomState>;

impl Shelter {
    /// Takes in a source, in any order.
    pub(super) fn see(&mut self, sample: &Sample) {
        let prefixes = if sample.proven || sample.answers > 0 {
            &mut self.peers
        } else if !sample.fresh && sample.syns == 0 {
            &mut self.known
        } else {
            return;
        };
        if prefixes.len() < MOST_SHELTERED {
            prefixes.insert(prefix_of(&sample.source));
        }
    }

    /// Who sent before: of a window in which nobody pressed yet. In the next one a flood's own
    /// sources would be among them.
    pub(super) fn take_known(&mut self) -> Vec<Source> {
        let mut known: Vec<_> = mem::take(&mut self.known).into_iter().collect();
        known.sort_unstable();
        known
    }

    /// All of them, with those who were `known` before, sorted.
    pub(super) fn with(self, known: &[Source]) -> Vec<Source> {
        let room = MOST_SHELTERED.saturating_sub(self.peers.len());
        let mut prefixes: Vec<_> = self.peers.into_iter().collect();
        prefixes.extend(known.iter().take(room));
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }
}
