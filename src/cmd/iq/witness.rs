//! What is known of sources beyond their packets: whose address is real, whom this host refused or
//! asked.

use std::time::Duration;

use super::IQ;
use crate::dataplane::{Proofs, Refusals, Shield, Told};
use crate::error::Result;
use crate::model::{Ktime, Source};
use crate::telemetry::{Coverage, InOrder, Order, Sample};

/// Of the sources a table holds, one in so many is thought to connect or be refused, and is
/// remembered.
const SHARE: usize = 8;

/// A question may be answered with so many packets: what is too large for one comes in fragments.
const FRAGMENTS: u32 = 4;

/// A handshake this old is remembered anew while its source sends: newer ones must not displace it, or
/// a connection that lasts would end as a stranger's. At most so many in one window.
const RENEW_AFTER: Duration = Duration::from_secs(10);
const RENEW_MOST: usize = 2_048;

/// Each part of it may be missing: who cannot be told from others is still scored.
pub(super) struct Witness {
    /// What samples come in.
    order: Order,
    proofs: Option<Proofs>,
    refusals: Option<Refusals>,
}

/// What is known at the end of one window.
pub(super) struct Known {
    order: Order,
    proven: InOrder<Ktime>,
    told: InOrder<Told>,
    at: Ktime,
    /// Proven long ago, and sending.
    renewed: Vec<Source>,
    /// What can be told from it.
    pub(super) coverage: Coverage,
}

impl Known {
    /// Adds it to a sample of that window. Samples come in order.
    pub(super) fn mark(&mut self, sample: &mut Sample) {
        let key = self.order.key(sample.source);
        let proof = self.proven.of(&key);
        sample.proven = proof.is_some();
        let old = proof.is_some_and(|proof| self.at.since(*proof) > RENEW_AFTER);
        if old && self.renewed.len() < RENEW_MOST {
            self.renewed.push(sample.source);
        }
        if let Some(told) = self.told.of(&key) {
            sample.refusals = told.refused;
            sample.strays = strays(told, sample.syns);
            // What is no connection's may be an answer; connections have their proof.
            sample.answers = told.asked.saturating_mul(FRAGMENTS).min(sample.opens);
        }
    }
}

/// Refused TCP that tried to open nothing: with ACK, or without ACK and SYN, which a reset does not
/// tell from a SYN.
fn strays(told: &Told, syns: u32) -> u32 {
    let neither = told.refused.saturating_sub(told.strays);
    let neither = neither.saturating_sub(told.datagrams);
    told.strays.saturating_add(neither.saturating_sub(syns))
}

impl Witness {
    /// For a table of `sources`, which come in `order`.
    pub(super) fn call(shield: &Shield, sources: usize, order: Order) -> Self {
        let capacity = u32::try_from(sources / SHARE).unwrap_or(u32::MAX);
        let bits = shield.v6_bits();
        Self {
            order,
            proofs: Proofs::watch(bits, capacity)
                .inspect_err(|error| log::warn!(target: IQ, "handshakes are not watched: {error}"))
                .ok(),
            refusals: Refusals::beside(shield, capacity)
                .inspect_err(|error| log::warn!(target: IQ, "refusals are not counted: {error}"))
                .ok(),
        }
    }

    /// Follows what is attached to.
    pub(super) fn stand_at(&mut self, interfaces: &[u32]) {
        let Some(refusals) = &mut self.refusals else {
            return;
        };
        if let Err(error) = refusals.watch(interfaces) {
            log::warn!(target: IQ, "refusals are not counted any more: {error}");
            self.refusals = None;
        }
    }

    /// Whether a source's address is known to be its own by now.
    pub(super) fn proves(&self, source: &Source) -> Result<bool> {
        let proofs = self.proofs.as_ref();
        proofs.map_or(Ok(false), |proofs| proofs.hold(source))
    }

    /// Ends a window, at `now`.
    pub(super) fn ask(&mut self, now: Ktime) -> Result<Known> {
        let proven = self.proofs.as_ref().map(Proofs::all).transpose()?;
        let told = self.refusals.as_mut().map(Refusals::take).transpose()?;
        Ok(Known {
            coverage: Coverage {
                proof: proven.is_some(),
                refusals: self.refusals.as_ref().is_some_and(Refusals::watches),
                consent: true,
            },
            order: self.order,
            proven: InOrder::new(proven.unwrap_or_default(), &self.order),
            told: InOrder::new(told.unwrap_or_default(), &self.order),
            at: now,
            renewed: Vec::new(),
        })
    }

    /// After every sample of the window was marked.
    pub(super) fn remember(&self, known: Known) {
        let Some(proofs) = &self.proofs else { return };
        if let Err(error) = proofs.renew(known.renewed, known.at) {
            log::debug!(target: IQ, "{error}; the next window tries again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reset_and_opened_nothing_is_told_from_what_did() {
        let told = |refused, strays, datagrams| Told {
            refused,
            strays,
            datagrams,
            asked: 0,
        };
        for (told, syns, expected) in [
            (told(50, 0, 0), 50, 0),
            (told(50, 0, 50), 0, 0),
            (told(50, 50, 0), 50, 50),
            (told(50, 0, 0), 0, 50),
            (told(50, 10, 10), 5, 35),
            (told(50, 10, 10), 500, 10),
        ] {
            assert_eq!(strays(&told, syns), expected, "{told:?} beside {syns}");
        }
    }

    #[test]
    fn who_sends_on_a_handshake_of_long_ago_is_renewed() {
        let source = |text: &str| text.parse::<Source>().unwrap();
        let at = Ktime::from_secs(100);
        let ago = |secs: u64| Ktime::from_secs(100 - secs);
        let proofs = [
            ("192.0.2.1", ago(11)),
            ("192.0.2.2", ago(10)),
            ("192.0.2.3", ago(90)),
        ];
        let mut known = Known {
            order: Order::BY_SOURCE,
            proven: InOrder::new(
                proofs.map(|(who, since)| (source(who), since)),
                &Order::BY_SOURCE,
            ),
            told: InOrder::new([], &Order::BY_SOURCE),
            at,
            renewed: Vec::new(),
            coverage: Coverage::default(),
        };
        let mut proven = |who: &str| {
            let mut sample = Sample::silent(source(who));
            known.mark(&mut sample);
            sample.proven
        };
        assert!(proven("192.0.2.1") && proven("192.0.2.2") && !proven("192.0.2.9"));
        assert_eq!(known.renewed, [source("192.0.2.1")]);
    }

    #[test]
    fn no_window_renews_more_than_a_tick_has_time_for() {
        let many = u32::try_from(RENEW_MOST).unwrap() + 1;
        let host = |n: u32| Source::host(std::net::Ipv4Addr::from(n).into());
        let mut known = Known {
            order: Order::BY_SOURCE,
            proven: InOrder::new(
                (0..many).map(|n| (host(n), Ktime::from_secs(0))),
                &Order::BY_SOURCE,
            ),
            told: InOrder::new([], &Order::BY_SOURCE),
            at: Ktime::from_secs(100),
            renewed: Vec::new(),
            coverage: Coverage::default(),
        };
        for n in 0..many {
            let mut sample = Sample::silent(host(n));
            known.mark(&mut sample);
            assert!(sample.proven);
        }
        assert_eq!(known.renewed.len(), RENEW_MOST);
    }
}
