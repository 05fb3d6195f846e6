//! C types by their Rust names, sizes asserted, and the enums that leave this room.

use std::fmt;

pub(super) use super::skel::types::{
    bss, kl_action, kl_allow_only, kl_answer, kl_config, kl_control, kl_counts, kl_event,
    kl_event_kind, kl_layout, kl_limits, kl_note, kl_owner, kl_policy, kl_prefix, kl_reason,
    kl_source, kl_source_set, kl_trie_key,
};

const _: () = assert!(size_of::<kl_source>() == 64);
const _: () = assert!(size_of::<kl_source_set>() == 64 * kl_limits::KL_WAYS.0 as usize);
const _: () = assert!(size_of::<kl_policy>() == 48);
const _: () = assert!(size_of::<kl_prefix>() == 20);
const _: () = assert!(size_of::<kl_trie_key>() == 20);
const _: () = assert!(size_of::<kl_event>() == 32);

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
    NotAllowed,
}

impl Reason {
    pub const ALL: [Self; 10] = [
        Self::Pass,
        Self::NotIp,
        Self::VlanDepth,
        Self::Truncated,
        Self::Malformed,
        Self::Allow,
        Self::WithinLimit,
        Self::Deny,
        Self::Limit,
        Self::NotAllowed,
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
            Self::NotAllowed => kl_reason::KL_REASON_NOT_ALLOWED.0,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.number() == number)
    }

    /// Whether packets counted under this reason were dropped.
    pub const fn drops(self) -> bool {
        matches!(self, Self::Deny | Self::Limit | Self::NotAllowed)
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
            Self::NotAllowed => "not-allowed",
        })
    }
}
