use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Which packets of a source a limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitScope {
    /// Packets that open something: TCP SYN, and every UDP and ICMP packet.
    New,
    /// Every packet.
    All,
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::All => "all",
        })
    }
}

/// A packet limit: sustained rate in packets per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub pps: NonZeroU32,
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// Rate and burst of one in `parts`, at least 1; 0 counts as one.
    pub fn over(self, parts: u32) -> Self {
        let part = |whole: NonZeroU32| {
            NonZeroU32::new(whole.get() / parts.max(1)).unwrap_or(NonZeroU32::MIN)
        };
        Self {
            pps: part(self.pps),
            burst: part(self.burst),
        }
    }

    /// Rate and burst for `factor` senders; 0 counts as one.
    pub fn times(self, factor: u32) -> Self {
        let by = NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN);
        Self {
            pps: self.pps.saturating_mul(by),
            burst: self.burst.saturating_mul(by),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}pps/{}", self.pps, self.burst)
    }
}

/// What a stage asks of the data plane for one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    Limit { limit: RateLimit, scope: LimitScope },
    Deny,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { limit, scope } => write!(f, "limit-{scope}:{limit}"),
            Self::Deny => f.write_str("deny"),
        }
    }
}
