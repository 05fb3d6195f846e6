//! What is known of sources beyond their packets: whose address is real, whom this host refused or
//! asked.

use std::collections::{HashMap, HashSet};

use super::IQ;
use crate::dataplane::{Proofs, Refusals, Shield, Told};
use crate::error::Result;
use crate::model::Source;
use crate::telemetry::{Coverage, Sample};

/// Of the sources a table holds, one in so many is thought to connect or be refused, and is
/// remembered.
const SHARE: usize = 8;

/// A question may be answered with so many packets: what is too large for one comes in fragments.
const FRAGMENTS: u32 = 4;

/// Each part of it may be missing: who cannot be told from others is still scored.
pub(super) struct Witness {
    proofs: Option<Proofs>,
    refusals: Option<Refusals>,
}

/// What is known at the end of one window.
pub(super) struct Known {
    proven: HashSet<Source>,
    told: HashMap<Source, Told>,
    /// What can be told from it.
    pub(super) coverage: Coverage,
}

impl Known {
    /// Adds it to a sample of that window.
    pub(super) fn mark(&self, sample: &mut Sample) {
        sample.proven = self.proven.contains(&sample.source);
        if let Some(told) = self.told.get(&sample.source) {
            sample.refusals = told.refused;
            // What is no connection's may be an answer; connections have their proof.
            sample.answers = told.asked.saturating_mul(FRAGMENTS).min(sample.opens);
        }
    }
}

impl Witness {
    /// For a table of `sources`.
    pub(super) fn call(shield: &Shield, sources: usize) -> Self {
        let capacity = u32::try_from(sources / SHARE).unwrap_or(u32::MAX);
        let bits = shield.v6_bits();
        Self {
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

    /// Ends a window.
    pub(super) fn ask(&mut self) -> Result<Known> {
        let proven = self.proofs.as_ref().map(Proofs::all).transpose()?;
        let told = self.refusals.as_mut().map(Refusals::take).transpose()?;
        Ok(Known {
            coverage: Coverage {
                proof: proven.is_some(),
                refusals: self.refusals.as_ref().is_some_and(Refusals::watches),
                consent: true,
            },
            proven: proven.unwrap_or_default(),
            told: told.unwrap_or_default(),
        })
    }
}
