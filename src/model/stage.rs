use std::fmt;

use serde::{Deserialize, Serialize};

/// The ladder of progressive enforcement, mildest first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    /// Count only.
    #[default]
    Observe,
    /// Limit new connections, or packets where volume is the harm.
    RateSoft,
    /// Limit all packets.
    RateHard,
    /// Drop everything.
    Block,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Observe, Self::RateSoft, Self::RateHard, Self::Block];

    /// The stage one step milder; OBSERVE stays OBSERVE.
    pub const fn milder(self) -> Self {
        match self {
            Self::Observe | Self::RateSoft => Self::Observe,
            Self::RateHard => Self::RateSoft,
            Self::Block => Self::RateHard,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observe => "OBSERVE",
            Self::RateSoft => "RATE_SOFT",
            Self::RateHard => "RATE_HARD",
            Self::Block => "BLOCK",
        })
    }
}
