//! What a program is loaded with.

use super::abi::kl_feature;

/// Width IPv6 sources are tracked at, in bits: 1..=128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackWidth(u8);

impl TrackWidth {
    pub fn new(bits: u8) -> Option<Self> {
        (1..=128).contains(&bits).then_some(Self(bits))
    }

    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl Default for TrackWidth {
    /// A /64: what one site or host commands (RFC 4291, 2.5.1; RFC 7421).
    fn default() -> Self {
        Self(64)
    }
}

/// What the loaded program can do. The verifier removes the rest, and its maps are not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, clap::ValueEnum)]
pub enum Features {
    /// Judge and count every source; no port or stack sketches, no port histogram, no alerts.
    Light,
    /// As light, and all telemetry.
    #[default]
    Learn,
    /// As learn, and the graph: edges are learned and judged.
    Graph,
}

impl Features {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Light => 0,
            Self::Learn => kl_feature::KL_FEATURE_LEARN.0,
            Self::Graph => kl_feature::KL_FEATURE_LEARN.0 | kl_feature::KL_FEATURE_GRAPH.0,
        }
    }

    pub(super) const fn graphs(self) -> bool {
        self.bits() & kl_feature::KL_FEATURE_GRAPH.0 != 0
    }

    pub(super) const fn learns(self) -> bool {
        self.bits() & kl_feature::KL_FEATURE_LEARN.0 != 0
    }
}

#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Entries of the source table over all CPUs; rounded down to a power of two per CPU.
    pub sources: u32,
    /// Most policy entries.
    pub max_deny: u32,
    pub v6_width: TrackWidth,
    pub features: Features,
    /// Of [`Features::Graph`].
    pub graph: GraphSizes,
    /// Time comes from [`super::Shield::set_test_time`] instead of the kernel's clocks.
    pub test_clock: bool,
    /// Hashes are the same in every run, which anyone could aim at: for replays only.
    pub fixed_seed: bool,
    /// Measuring only: every packet counts as the next of this many sources, a power of two; 0 = off.
    pub bench_sources: u32,
}

/// Entries of the edge stage's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphSizes {
    /// Edges seen, over all CPUs; rounded down to a power of two per CPU.
    pub edges: u32,
    /// Conversations remembered, each way.
    pub flows: u32,
}

impl Default for GraphSizes {
    fn default() -> Self {
        Self {
            edges: 65_536,
            flows: 32_768,
        }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            sources: 131_072,
            max_deny: 131_072,
            v6_width: TrackWidth::default(),
            features: Features::default(),
            graph: GraphSizes::default(),
            test_clock: false,
            fixed_seed: false,
            bench_sources: 0,
        }
    }
}
