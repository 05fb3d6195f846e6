//! What is known of sources beyond their packets: whose address is real, whom this host refused.

use super::IQ;
use crate::dataplane::{Proofs, Refusals, Shield};
use crate::error::Result;
use crate::telemetry::{Coverage, Sample};

/// Of the sources a table holds, one in so many is thought to connect or be refused, and is
/// remembered.
const SHARE: usize = 8;

/// Each part of it may be missing: who cannot be told from others is still scored.
pub(super) struct Witness {
    proofs: Option<Proofs>,
    refusals: Option<Refusals>,
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
            refusals: Refusals::load(bits, capacity)
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

    /// Marks the samples of one window, and says what can be told from them.
    pub(super) fn mark(&mut self, samples: &mut [Sample]) -> Result<Coverage> {
        if let Some(proofs) = &self.proofs {
            proofs.mark(samples)?;
        }
        let mut coverage = Coverage {
            proof: self.proofs.is_some(),
            refusals: false,
            consent: true,
        };
        if let Some(refusals) = &mut self.refusals {
            refusals.mark(samples)?;
            coverage.refusals = refusals.watches();
        }
        Ok(coverage)
    }
}
