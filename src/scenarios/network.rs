use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::{Config, Decision, Engine};
use crate::model::{Hold, Ktime, LimitScope, Source, Stage};
use crate::telemetry::{Coverage, Sample, Window, linear_count};

const SECOND: Duration = Duration::from_secs(1);

/// What one source sends in one second if nothing is dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// As the data plane counts it; `drops` is of no account.
    pub(super) traffic: Sample,
    pub(super) hostile: bool,
}

/// What is sent in the n-th second to a host of that configuration.
pub(super) type Offers = Box<dyn Fn(&Config, u32) -> Vec<Offer>>;

/// What became of packets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    pub(super) offered: f64,
    pub(super) dropped: f64,
}

impl Fate {
    pub(super) fn loss(&self) -> f64 {
        if self.offered > 0.0 {
            self.dropped / self.offered
        } else {
            0.0
        }
    }
}

/// A limit or deny in force, with the tokens that are left.
struct Entry {
    hold: Hold,
    until: Ktime,
    tokens: f64,
}

/// The data plane in front of an engine: the longest prefix decides, limits are token buckets.
pub(super) struct Network {
    pub(super) engine: Engine,
    pub(super) secs: u64,
    entries: BTreeMap<Source, Entry>,
    lengths: Vec<u8>,
    pub(super) benign: Fate,
    pub(super) hostile: Fate,
    pub(super) log: Vec<(u64, Decision)>,
}

impl Network {
    pub(super) fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(config),
            secs: 100_000,
            entries: BTreeMap::new(),
            lengths: Vec::new(),
            benign: Fate::default(),
            hostile: Fate::default(),
            log: Vec::new(),
        }
    }

    fn now(&self) -> Ktime {
        Ktime::from_secs(self.secs)
    }

    /// The entry that decides about `source`.
    fn deciding(&self, source: &Source) -> Option<Source> {
        self.lengths
            .iter()
            .map(|bits| Source::containing(source.octets(), *bits))
            .find(|prefix| self.entries.contains_key(prefix))
    }

    pub(super) fn is_limited(&self, source: &Source) -> bool {
        self.deciding(source).is_some()
    }

    pub(super) fn stage(&self, source: &Source) -> Stage {
        self.engine.explain(source, self.now()).stage
    }

    /// The harshest stage that `source` has been at.
    pub(super) fn harshest(&self, source: &Source) -> Stage {
        let of_source = self.log.iter().filter(|(_, d)| d.source == *source);
        of_source.map(|(_, d)| d.to).max().unwrap_or_default()
    }

    /// One second: what is offered meets the entries, and the engine what came of it.
    pub(super) fn second(&mut self, offers: &[Offer]) {
        self.secs += 1;
        let now = self.now();
        self.entries.retain(|_, entry| entry.until > now);
        self.index();
        let deciding: Vec<_> = offers
            .iter()
            .map(|offer| self.deciding(&offer.traffic.source))
            .collect();
        let shares = self.shares(offers, &deciding);
        let mut samples = Vec::with_capacity(offers.len());
        for (offer, deciding) in offers.iter().zip(&deciding) {
            let (pass, scope) = deciding.map_or((1.0, LimitScope::All), |entry| shares[&entry]);
            let sample = passed(&offer.traffic, pass, scope);
            let fate = if offer.hostile {
                &mut self.hostile
            } else {
                &mut self.benign
            };
            fate.offered += sample.packets as f64;
            fate.dropped += sample.drops as f64;
            samples.push(sample);
        }
        samples.sort_by_key(|sample| sample.source);
        let window = Window {
            length: SECOND,
            samples: &samples,
            coverage: Coverage {
                proof: true,
                refusals: true,
                consent: true,
            },
            all: None,
        };
        let decisions = self.engine.tick(now, window, &|_| false);
        for decision in decisions {
            self.apply(&decision);
            self.log.push((self.secs, decision));
        }
        self.index();
    }

    /// The prefix lengths in use, longest first.
    fn index(&mut self) {
        let lengths: BTreeSet<u8> = self.entries.keys().map(Source::bits).collect();
        self.lengths = lengths.into_iter().rev().collect();
    }

    /// The share of packets in its scope that each entry lets pass.
    fn shares(
        &mut self,
        offers: &[Offer],
        deciding: &[Option<Source>],
    ) -> BTreeMap<Source, (f64, LimitScope)> {
        let mut wanted: BTreeMap<Source, f64> = BTreeMap::new();
        for (offer, deciding) in offers.iter().zip(deciding) {
            if let Some(entry) = deciding {
                let scope = match self.entries[entry].hold {
                    Hold::Limit { scope, .. } => scope,
                    Hold::Deny => LimitScope::All,
                };
                *wanted.entry(*entry).or_default() += in_scope(&offer.traffic, scope);
            }
        }
        let shares = wanted.into_iter().map(|(source, wanted)| {
            let entry = self.entries.get_mut(&source).unwrap();
            let Hold::Limit { limit, scope } = entry.hold else {
                return (source, (0.0, LimitScope::All));
            };
            let most = f64::from(limit.burst.get());
            // Tokens that come in during the second count, even beyond the burst.
            let tokens = entry.tokens + f64::from(limit.pps.get());
            let taken = wanted.min(tokens);
            entry.tokens = (tokens - taken).min(most);
            let share = if wanted > 0.0 { taken / wanted } else { 1.0 };
            (source, (share, scope))
        });
        shares.collect()
    }

    fn apply(&mut self, decision: &Decision) {
        let Some((hold, until)) = decision.hold.zip(decision.until) else {
            self.entries.remove(&decision.source);
            return;
        };
        let tokens = match (hold, self.entries.get(&decision.source)) {
            (Hold::Limit { limit, .. }, known) => {
                let most = f64::from(limit.burst.get());
                known.map_or(most, |entry| entry.tokens.min(most))
            }
            (Hold::Deny, _) => 0.0,
        };
        let entry = Entry {
            hold,
            until,
            tokens,
        };
        self.entries.insert(decision.source, entry);
    }
}

/// Packets that a limit of `scope` counts.
fn in_scope(traffic: &Sample, scope: LimitScope) -> f64 {
    match scope {
        LimitScope::All => traffic.packets as f64,
        LimitScope::New => f64::from(traffic.opens.saturating_sub(traffic.answers)),
    }
}

/// What is counted of `traffic` if `share` of what is in scope passes: of what is dropped only
/// packets and bytes.
fn passed(traffic: &Sample, share: f64, scope: LimitScope) -> Sample {
    let dropped = (in_scope(traffic, scope) * (1.0 - share)).round();
    let small = |count: u32| (f64::from(count) * share).round() as u32;
    let none = share <= 0.0;
    let answers = match scope {
        LimitScope::All => small(traffic.answers),
        LimitScope::New => traffic.answers,
    };
    let port_bits = if none { 0 } else { traffic.port_bits };
    Sample {
        drops: dropped as u32,
        syns: (f64::from(traffic.syns) * share).round() as u32,
        opens: answers + small(traffic.opens.saturating_sub(traffic.answers)),
        half_open: small(traffic.half_open),
        refusals: small(traffic.refusals),
        strays: small(traffic.strays),
        answers,
        port_bits,
        ports: linear_count(port_bits),
        stack_bits: if none { 0 } else { traffic.stack_bits },
        ..*traffic
    }
}
