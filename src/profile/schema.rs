//! The file as it is written: `kind: PDPConfig`, `apiVersion: kernloom.io/v1alpha1`.
//!
//! Names are those of the file. A key that is not listed here is an error. What a file leaves out
//! comes from the profile it extends or from `defaults.yaml`; see `layer`. Rates are per second and
//! source.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::scalar::{Amount, Cidr, Span, truth};

pub const API_VERSION: &str = "kernloom.io/v1alpha1";
pub const KIND: &str = "PDPConfig";

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Document {
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Metadata {
    pub name: String,
    /// A built-in profile that gives what this file leaves out.
    #[serde(default)]
    pub extends: String,
    #[serde(default)]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Spec {
    pub signal_engine: SignalEngine,
    pub progressive_enforcement: ProgressiveEnforcement,
    pub non_compliance: NonCompliance,
    pub evidence: Evidence,
    pub aggregates: Aggregates,
    pub collateral: Collateral,
    pub graph: Graph,
    pub baseline: Baseline,
    pub autotune: Autotune,
    pub adapters: Adapters,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct SignalEngine {
    /// 0: this and every other trigger of 0 comes from learned state, or from its floor.
    pub pps_trigger: Amount,
    pub syn_trigger: Amount,
    /// Distinct destination ports.
    pub scan_trigger: Amount,
    pub bps_trigger: Amount,
    pub weights: Weights,
    /// Multiple of its trigger at which one signal alone has severity 1; 0 is off.
    pub dominance: Amount,
    /// Multiple of its trigger at which one signal alone leads to RATE_SOFT at once; 0 is off.
    pub flash: Amount,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Weights {
    pub pps: Amount,
    pub syn: Amount,
    pub scan: Amount,
    pub bps: Amount,
    /// Most that the ratio of one signal to its trigger can count.
    pub cap: Amount,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct ProgressiveEnforcement {
    /// Strikes; 999 and more is never, for `hard_at` and `block_at`.
    pub soft_at: u32,
    pub hard_at: u32,
    pub block_at: u32,
    /// High ticks before a step up.
    pub up_need: u32,
    /// Low ticks before a step down.
    pub down_need: u32,
    /// 0: BLOCK has no gate.
    pub block_min_sev: Amount,
    pub block_min_dur: Span,
    pub min_hold_soft: Span,
    pub min_hold_hard: Span,
    pub soft_ttl: Span,
    pub hard_ttl: Span,
    pub block_ttl: Span,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct NonCompliance {
    /// Ticks; 0 or 999 and more is never.
    pub at: u32,
    pub drop: Amount,
    pub sev: Amount,
    pub reset: Amount,
}

/// What is gone by beyond the four rates; 0 is off.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Evidence {
    /// Half-open connections per second that are too many, as a share of `syn_trigger`.
    pub half_open: Amount,
    /// Refused packets per second that are too many, as a multiple of `scan_trigger`.
    pub refusals: Amount,
    /// Distinct ports that make a scan when spread over a minute, an hour, a day; at most 266.
    pub ports_minute: u32,
    pub ports_hour: u32,
    pub ports_day: u32,
    /// Share of `syn_trigger` that is too much when kept up for an hour.
    pub sustained: Amount,
    /// How many packets that this host asked for count as one.
    pub consent: Amount,
    /// Most that triggers and limits are multiplied by for hosts behind one address; 1 to 255.
    pub nat_max: u32,
}

/// Triggers of all unproven sources together, as multiples of those of one; 0 is off.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Aggregates {
    /// Of an IPv4 /24 or an IPv6 /48.
    pub prefix: Amount,
    /// Of everyone.
    pub overall: Amount,
    /// Most that the triggers of one of them are divided by while everyone exceeds `overall`.
    pub pressure: Amount,
}

/// How much of what proven sources send decisions may touch.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Collateral {
    /// Of their packets, 0 to 1.
    pub share: Amount,
    /// Proven sources that may be held whatever their share.
    pub sources: u32,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Graph {
    #[serde(deserialize_with = "truth")]
    pub enabled: bool,
    pub mode: GraphMode,
    pub store: Option<String>,
    pub promotion: Promotion,
    pub freeze: Freeze,
    pub exclude: Exclude,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GraphMode {
    #[default]
    #[serde(alias = "")]
    Learn,
    FrozenObserve,
    FrozenEnforce,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Promotion {
    pub min_seen_count: u32,
    pub min_windows: u32,
    pub min_age: Span,
    pub expire_ttl: Span,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Freeze {
    pub max_action: FreezeAction,
    #[serde(deserialize_with = "truth")]
    pub allow_block: bool,
    pub min_severity_for_block: u32,
}

/// The harshest answer to an edge that is not in the frozen graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeAction {
    #[default]
    #[serde(alias = "")]
    Observe,
    Signal,
    RateLimit,
    Block,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Exclude {
    pub source_cidrs: Vec<Cidr>,
    #[serde(deserialize_with = "truth")]
    pub broadcast: bool,
    #[serde(deserialize_with = "truth")]
    pub loopback: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Baseline {
    pub min_observations: u64,
    pub alpha: Amount,
    pub alpha_bootstrap: Amount,
    pub min_obs_time_based: u64,
    pub min_age_time_based: Span,
    pub deviation_threshold: Amount,
    pub min_update_pps: Amount,
    pub min_update_bps: Amount,
    pub peak_tolerance: Amount,
    pub peak_decay_half_life: Span,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Autotune {
    /// Off: thresholds stay as written.
    #[serde(deserialize_with = "truth")]
    pub enabled: bool,
    pub min_samples: u32,
    pub floors: Floors,
    pub bootstrap: Bootstrap,
}

/// Least that a learned trigger can be.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Floors {
    pub pps: Amount,
    pub syn: Amount,
    pub scan: Amount,
    pub bps: Amount,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Bootstrap {
    #[serde(deserialize_with = "truth")]
    pub enabled: bool,
    /// Whether a source may be blocked while the window lasts.
    #[serde(deserialize_with = "truth")]
    pub allow_block: bool,
    pub window: Span,
    pub k_start: Amount,
    pub k_final: Amount,
    pub phase1_end: Span,
    pub phase2_end: Span,
    pub phase1: Phase,
    pub phase2: Phase,
    pub phase3: Phase,
    pub steady: Phase,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Phase {
    pub interval: Span,
    /// Largest change in one step, as a share of the old value.
    pub max_up: Amount,
    pub max_down: Amount,
    pub alpha: Amount,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct Adapters {
    pub shield_pep: ShieldPep,
    /// Accepted because existing files carry it; Kernloom enforces at the XDP hook only.
    pub netfilter: IgnoredAny,
}

/// Packet limits.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub struct ShieldPep {
    pub soft_rate_pps: u32,
    pub soft_burst: u32,
    pub hard_rate_pps: u32,
    pub hard_burst: u32,
    /// The limit is this multiple of the packet trigger if that is more than the rate.
    pub soft_rate_factor: Amount,
    pub hard_rate_factor: Amount,
    /// Accepted because existing files carry it; stages hold for their TTL instead.
    pub cooldown: Span,
}
