//! C types by their Rust names, sizes asserted, and the enums that leave this room.

use std::fmt;

pub(super) use super::skel::shield::types::{
    bss, kl_action, kl_allow_only, kl_answer, kl_config, kl_control, kl_counts, kl_cpu, kl_edge,
    kl_edge_by, kl_edge_key, kl_edge_kind, kl_edge_set, kl_edge_verdict, kl_event, kl_event_kind,
    kl_feature, kl_flow, kl_flow_key, kl_frag_key, kl_graph, kl_graph_limits, kl_graph_mode,
    kl_graph_word, kl_group, kl_layout, kl_limits, kl_note, kl_owner, kl_policy, kl_port,
    kl_prefix, kl_reason, kl_service_bits, kl_source, kl_source_set, kl_trie_key,
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
const _: () = assert!(size_of::<kl_graph>() == 16);

macro_rules! reasons {
    ($($reason:ident = $number:ident, $name:literal;)*) => {
        /// Why a packet left the way it did. Names and numbers are public and only ever added to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($reason,)*
        }

        impl Reason {
            /// In order of number.
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$reason => kl_reason::$number.0,)*
                }
            }

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)*
                }
            }
        }
    };
}

reasons! {
    Pass = KL_REASON_PASS, "pass";
    NotIp = KL_REASON_NOT_IP, "not-ip";
    VlanDepth = KL_REASON_VLAN_DEPTH, "vlan-depth";
    Truncated = KL_REASON_TRUNCATED, "truncated";
    Allow = KL_REASON_ALLOW, "allow";
    WithinLimit = KL_REASON_WITHIN_LIMIT, "within-limit";
    Essential = KL_REASON_ESSENTIAL, "essential";
    Options = KL_REASON_OPTIONS, "options";
    FragmentFirst = KL_REASON_FRAGMENT_FIRST, "fragment-first";
    FragmentLater = KL_REASON_FRAGMENT_LATER, "fragment-later";
    FragmentTiny = KL_REASON_FRAGMENT_TINY, "fragment-tiny";
    L4Malformed = KL_REASON_L4_MALFORMED, "l4-malformed";
    L4Truncated = KL_REASON_L4_TRUNCATED, "l4-truncated";
    ExtDepth = KL_REASON_EXT_DEPTH, "ext-depth";
    Routing0 = KL_REASON_ROUTING_0, "routing-0";
    Malformed = KL_REASON_MALFORMED, "malformed";
    EdgeObserved = KL_REASON_EDGE_OBSERVED, "edge-observed";
    Deny = KL_REASON_DENY, "deny";
    Limit = KL_REASON_LIMIT, "limit";
    NotAllowed = KL_REASON_NOT_ALLOWED, "not-allowed";
    VlanDepthDrop = KL_REASON_VLAN_DEPTH_DROP, "vlan-depth-drop";
    TruncatedDrop = KL_REASON_TRUNCATED_DROP, "truncated-drop";
    Routing0Drop = KL_REASON_ROUTING_0_DROP, "routing-0-drop";
    EdgeUnknown = KL_REASON_EDGE_UNKNOWN, "edge-unknown";
    EdgeDenied = KL_REASON_EDGE_DENIED, "edge-denied";
    EdgeFragment = KL_REASON_EDGE_FRAGMENT, "edge-fragment";
    EdgeUnread = KL_REASON_EDGE_UNREAD, "edge-unread";
}

impl Reason {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.number() == number)
    }

    /// Whether the edge stage gave it.
    pub const fn is_of_graph(self) -> bool {
        matches!(
            self,
            Self::EdgeObserved
                | Self::EdgeUnknown
                | Self::EdgeDenied
                | Self::EdgeFragment
                | Self::EdgeUnread
        )
    }

    /// Whether packets counted under this reason have a row of their source in the table, all of
    /// them.
    pub(super) const fn has_source(self) -> bool {
        let unread = matches!(
            self,
            Self::NotIp
                | Self::VlanDepth
                | Self::Truncated
                | Self::VlanDepthDrop
                | Self::TruncatedDrop
        );
        // The edge stage also judges what leaves.
        !unread && !self.is_of_graph()
    }

    /// Whether packets counted under this reason were dropped.
    pub const fn drops(self) -> bool {
        self.number() >= kl_reason::KL_REASON_DROPS.0
    }

    /// The same as a word: `pass` or `drop`.
    pub const fn verdict(self) -> &'static str {
        if self.drops() { "drop" } else { "pass" }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
