//! Many sources as one, so that what none of them does alone is still seen.
//!
//! Only what unproven sources got through is summed: who completed a handshake, answers this host
//! or is held already answers for itself.

use std::mem;

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

/// Prefixes whose sums are kept at the same time: the loudest.
const MOST_PREFIXES: usize = 4096;

/// The sums of one window.
#[derive(Debug)]
pub(super) struct Aggregate {
    overall: Sample,
    /// What sources sent of which nothing was known before.
    fresh: Sample,
    /// Of no source any more.
    unseen: Traffic,
    /// Prefixes of which several sources were seen, sorted.
    prefixes: Vec<Sample>,
    /// The prefix under way, and its sources so far.
    running: Sample,
    sources: u32,
    /// Packets below which a prefix is not worth a look.
    least: u64,
}

impl Aggregate {
    /// For a window of `seconds`.
    pub(super) fn new(config: &Config, seconds: f64) -> Self {
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
        Self {
            overall: Sample::silent(everyone()),
            fresh: Sample::silent(everyone()),
            unseen: Traffic::default(),
            prefixes: Vec::new(),
            running: Sample::silent(everyone()),
            sources: 0,
            least,
        }
    }

    /// Adds a source; sources come in order.
    pub(super) fn add(&mut self, sample: &Sample) {
        let passed = passed(sample);
        if sample.fresh {
            self.fresh.join(&passed);
        }
        let prefix = prefix_of(&sample.source);
        if self.sources > 0 && self.running.source == prefix {
            self.running.join(&passed);
        } else {
            self.end_prefix();
            self.running = Sample {
                source: prefix,
                ..passed
            };
        }
        self.sources += 1;
    }

    /// Adds what came from sources that had to make room for others. Who still has a place and is
    /// new came the same way: they are a sample of all of them.
    pub(super) fn add_unseen(&mut self, unseen: Traffic) {
        self.unseen = unseen;
    }

    /// The sums of everyone, and of each prefix.
    pub(super) fn close(mut self) -> (Sample, Vec<Sample>) {
        self.end_prefix();
        let like = match self.fresh.packets {
            0 => self.overall,
            _ => self.fresh,
        };
        self.overall.join(&alike(&self.unseen, &like));
        (self.overall, self.prefixes)
    }

    fn end_prefix(&mut self) {
        let sources = mem::take(&mut self.sources);
        if sources > 0 {
            self.overall.join(&self.running);
        }
        if sources > 1 && self.running.packets >= self.least {
            self.prefixes.push(Sample {
                ports: linear_count(self.running.port_bits),
                ..self.running
            });
            while self.prefixes.len() > MOST_PREFIXES {
                self.least = self.least.max(1).saturating_mul(2);
                self.prefixes.retain(|sum| sum.packets >= self.least);
            }
        }
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

/// The prefixes of who keeps limits of their own while everyone else shares one, sorted.
#[derive(Debug, Default)]
pub(super) struct Shelter {
    /// Peers by proof, and who answers this host.
    peers: Vec<Source>,
    /// Who sent before this window, and opens nothing now.
    known: Vec<Source>,
}

impl Shelter {
    /// Takes in a source; sources come in order.
    pub(super) fn see(&mut self, sample: &Sample) {
        let prefixes = if sample.proven || sample.answers > 0 {
            &mut self.peers
        } else if !sample.fresh && sample.syns == 0 {
            &mut self.known
        } else {
            return;
        };
        if prefixes.len() < MOST_SHELTERED {
            let prefix = prefix_of(&sample.source);
            if prefixes.last() != Some(&prefix) {
                prefixes.push(prefix);
            }
        }
    }

    /// Who sent before: of a window in which nobody pressed yet. In the next one a flood's own
    /// sources would be among them.
    pub(super) fn take_known(&mut self) -> Vec<Source> {
        mem::take(&mut self.known)
    }

    /// All of them, with those who were `known` before.
    pub(super) fn with(self, known: &[Source]) -> Vec<Source> {
        let mut prefixes = self.peers;
        let room = MOST_SHELTERED.saturating_sub(prefixes.len());
        prefixes.extend(known.iter().take(room));
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }
}
