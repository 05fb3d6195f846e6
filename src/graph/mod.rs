//! Who talks to this host, on which service, and, once frozen, who may. Pure.

mod baseline;
mod changes;
mod comments;
mod drift;
mod edge;
mod freeze;
mod frozen;
mod group;
mod learner;
mod meter;
mod readiness;
mod record;

#[cfg(test)]
mod tests;

pub use baseline::Baseline;
pub use drift::{Change, Drift};
pub use edge::{Direction, Edge, ParseEdgeError, Peer, PeerError, Service};
pub use freeze::{Freeze, FreezeFrom, LeftOut};
pub use frozen::{Frozen, FrozenError};
pub use group::{GroupError, Groups, INTERNET, MOST_GROUPS, Peers};
pub use learner::{Learner, Observation, Promotion, Surge};
pub use meter::{EdgeMeter, EdgeRow, Reading};
pub use readiness::{Coverage, HOURS_OF_WEEK, MOST_RISK, Readiness, risk};
pub use record::{Evidence, Record, State, WINDOW_SECS};

/// What the data plane does with edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing: edges are neither counted nor judged.
    #[default]
    Off,
    /// Edges are learned; only denied ones are dropped.
    Learn,
    /// Learned, and judged against the frozen graph: what it lacks is counted, and passes.
    Observe,
    /// What the frozen graph lacks is dropped.
    Enforce,
}

impl Mode {
    /// Whether packets are judged by the frozen graph.
    pub const fn is_frozen(self) -> bool {
        matches!(self, Self::Observe | Self::Enforce)
    }

    pub const ALL: [Self; 4] = [Self::Off, Self::Learn, Self::Observe, Self::Enforce];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Learn => "learn",
            Self::Observe => "frozen-observe",
            Self::Enforce => "frozen-enforce",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
