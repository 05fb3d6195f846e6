//! Thresholds learned from what the host really sees. Pure: time is what has been observed.
//!
//! [`Plan`] says when to tune and how far a step may go, an [`Estimator`] what the thresholds
//! should be, and [`Tuner`] walks from where they are to there. The clock is observed time: an
//! attack does not stop it, because sources are left out of the samples, never ticks.
//!
//! Who stays below what would limit it cannot be told from a client, and is learned from. What it
//! can gain is bounded instead: by the day ([`Step`]) and, in the long run, by the ceiling.

mod estimator;
mod histogram;
mod plan;
#[cfg(test)]
mod tests;
mod tuner;

pub use estimator::{Estimate, Estimator, Histograms, METRICS};
pub use histogram::Histogram;
pub use plan::{Phase, Plan, Step};
pub use tuner::{Revision, Tuner, TunerState};
