//! C types by their Rust names, sizes asserted, and the enums that leave this room.

use std::fmt;

pub(super) use super::skel::types::{
    bss, kl_action, kl_config, kl_control, kl_counts, kl_edge, kl_edge_key, kl_edge_kind,
    kl_edge_set, kl_edge_verdict, kl_event, kl_event_kind, kl_graph, kl_graph_mode, kl_graph_word,
    kl_group, kl_limits, kl_owner, kl_permit, kl_policy, kl_prefix, kl_reason, kl_source,
    kl_source_set, kl_trie_key,
};

const _: () = assert!(size_of::<kl_source>() == 64);
const _: () = assert!(size_of::<kl_source_set>() == 64 * kl_limits::KL_WAYS.0 as usize);
const _: () = assert!(size_of::<kl_policy>() == 48);
const _: () = assert!(size_of::<kl_prefix>() == 20);
const _: () = assert!(size_of::<kl_trie_key>() == 20);
const _: () = assert!(size_of::<kl_event>() == 32);
const _: () = assert!(size_of::<kl_edge>() == 64);
const _: () = assert!(size_of::<kl_edge_set>() == 64 * kl_limits::KL_WAYS.0 as usize);
const _: () = assert!(size_of::<kl_edge_key>() == 20);
const _: () = assert!(size_of::<kl_permit>() == 8);

/// Why a packet left the way it did. Names and numbers are public and only ever added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Pass,
    NotIp,
    VlanDepth,
    Truncated,
    Malformed,
    Allow,
    WithinLimit,
    Deny,
    Limit,
    EdgeObserved,
    EdgeUnknown,
    EdgeDenied,
    EdgeFragment,
    EdgeUnread,
}

impl Reason {
    pub const ALL: [Self; 14] = [
        Self::Pass,
        Self::NotIp,
        Self::VlanDepth,
        Self::Truncated,
        Self::Malformed,
        Self::Allow,
        Self::WithinLimit,
        Self::Deny,
        Self::Limit,
        Self::EdgeObserved,
        Self::EdgeUnknown,
        Self::EdgeDenied,
        Self::EdgeFragment,
        Self::EdgeUnread,
    ];

    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Pass => kl_reason::KL_REASON_PASS.0,
            Self::NotIp => kl_reason::KL_REASON_NOT_IP.0,
            Self::VlanDepth => kl_reason::KL_REASON_VLAN_DEPTH.0,
            Self::Truncated => kl_reason::KL_REASON_TRUNCATED.0,
            Self::Malformed => kl_reason::KL_REASON_MALFORMED.0,
            Self::Allow => kl_reason::KL_REASON_ALLOW.0,
            Self::WithinLimit => kl_reason::KL_REASON_WITHIN_LIMIT.0,
            Self::Deny => kl_reason::KL_REASON_DENY.0,
            Self::Limit => kl_reason::KL_REASON_LIMIT.0,
            Self::EdgeObserved => kl_reason::KL_REASON_EDGE_OBSERVED.0,
            Self::EdgeUnknown => kl_reason::KL_REASON_EDGE_UNKNOWN.0,
            Self::EdgeDenied => kl_reason::KL_REASON_EDGE_DENIED.0,
            Self::EdgeFragment => kl_reason::KL_REASON_EDGE_FRAGMENT.0,
            Self::EdgeUnread => kl_reason::KL_REASON_EDGE_UNREAD.0,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.number() == number)
    }

    /// Whether packets counted under this reason were dropped.
    pub const fn drops(self) -> bool {
        matches!(
            self,
            Self::Deny
                | Self::Limit
                | Self::EdgeUnknown
                | Self::EdgeDenied
                | Self::EdgeFragment
                | Self::EdgeUnread
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::NotIp => "not-ip",
            Self::VlanDepth => "vlan-depth",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Allow => "allow",
            Self::WithinLimit => "within-limit",
            Self::Deny => "deny",
            Self::Limit => "limit",
            Self::EdgeObserved => "edge-observed",
            Self::EdgeUnknown => "edge-unknown",
            Self::EdgeDenied => "edge-denied",
            Self::EdgeFragment => "edge-fragment",
            Self::EdgeUnread => "edge-unread",
        })
    }
}
