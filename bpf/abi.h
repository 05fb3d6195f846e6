/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * Everything that crosses between the XDP program and userspace: keys, values,
 * records, load-time configuration, limits and reasons. libbpf-cargo turns these
 * types into Rust; nothing is declared twice. Plain fixed-width members only,
 * padding written out, sizes asserted.
 */
#ifndef KL_ABI_H
#define KL_ABI_H

#include <linux/types.h>

enum kl_limits {
	KL_LAYOUT = 1,			/* version of everything below */
	KL_WAYS = 4,			/* entries per set of the source table */
	KL_SEEDS = 5,
	KL_VLAN_DEPTH = 4,		/* tags walked before a frame counts as too deep */
	KL_EXT_DEPTH = 6,		/* IPv6 extension headers walked (RFC 8200, 4.1) */
	KL_EXPIRED_DEPTH = 4,		/* expired prefixes looked behind per evaluation */
	KL_RECHECK_JIFFIES = 16,	/* how long a verdict with an end or a limit is believed */
	KL_SILENT_JIFFIES = 1 << 18,	/* silence after which any verdict is evaluated anew */
	KL_AGE_SHIFT = 9,		/* jiffies per age class of the replacement rule, log2 */
	KL_NOT_BEFORE_SHIFT = 16,	/* unit of not_before: 2^16 ns */
	KL_GENERATIONS = 1 << 25,
	KL_REASONS = 32,
	KL_EVENTS_BYTES = 1 << 18,
};

/* Why a packet left the way it did. Append only: numbers are public. */
enum kl_reason {
	KL_REASON_PASS = 0,		/* counted; no rule matched */
	KL_REASON_NOT_IP = 1,		/* ARP and friends: always pass */
	KL_REASON_VLAN_DEPTH = 2,	/* more tags than are walked: passed unjudged */
	KL_REASON_TRUNCATED = 3,	/* no complete IP header: passed, the stack drops it */
	KL_REASON_MALFORMED = 4,	/* contradictory IP header: judged by source, then passed */
	KL_REASON_ALLOW = 5,		/* an allow entry matched */
	KL_REASON_WITHIN_LIMIT = 6,	/* limited source, within its limit */
	KL_REASON_DENY = 7,		/* dropped: a deny entry matched */
	KL_REASON_LIMIT = 8,		/* dropped: above the source's limit */
	KL_REASON_EDGE_OBSERVED = 20,	/* passed; the frozen graph lacks its edge */
	KL_REASON_EDGE_UNKNOWN = 21,	/* dropped: the frozen graph lacks its edge */
	KL_REASON_EDGE_DENIED = 22,	/* dropped: the operator denied its edge */
	KL_REASON_EDGE_FRAGMENT = 23,	/* dropped: of no datagram whose first fragment passed */
	KL_REASON_EDGE_UNREAD = 24,	/* dropped: its edge cannot be read from its headers */
};

enum kl_action {
	KL_ACTION_NONE = 0,		/* the entry only marks longer rules inside its prefix */
	KL_ACTION_ALLOW = 1,
	KL_ACTION_DENY = 2,
	KL_ACTION_LIMIT_NEW = 3,	/* limit what opens something: TCP SYN, UDP, ICMP */
	KL_ACTION_LIMIT_ALL = 4,
};

enum kl_owner {
	KL_OWNER_OPERATOR = 0,
	KL_OWNER_IQ = 1,
};

/* Below the generation in kl_source.verdict. */
enum kl_verdict_bits {
	KL_VERDICT_ACTION = 0x07,	/* enum kl_action */
	KL_VERDICT_RECHECK = 0x08,	/* believed for KL_RECHECK_JIFFIES only */
	KL_VERDICT_PREFIX = 0x10,	/* the deciding entry is found through the trie */
	KL_VERDICT_EACH = 0x20,		/* longer rules inside: every packet is evaluated */
	KL_VERDICT_HELD = 0x40,		/* not_before holds */
	KL_VERDICT_SHIFT = 7,		/* the generation stands above, 25 bits */
};

/*
 * One source as one CPU sees it: one cache line. Written by the XDP program on
 * its own CPU only, read by userspace through mmap. Counters wrap; `bytes` does
 * not within a lifetime.
 */
struct kl_source {
	__u32 key[4];		/* identity, network byte order, IPv4 mapped */
	__u64 bytes;
	__u64 ports;		/* distinct opened ports: linear counting bitmap; userspace clears */
	__u64 stacks;		/* distinct SYN fingerprints: as above */
	__u32 packets;
	__u32 syns;		/* TCP SYN without ACK */
	__u32 drops;
	__u32 seen;		/* jiffies of the last packet */
	__u32 verdict;		/* generation and enum kl_verdict_bits; 0 = way unused */
	__u16 checked;		/* jiffies of the last evaluation */
	__u16 not_before;	/* a limited source passes nothing before this, 2^16 ns */
};
_Static_assert(sizeof(struct kl_source) == 64, "kl_source is one cache line");

struct kl_source_set {
	struct kl_source way[KL_WAYS];
};

/* Key of the policy hash: a prefix, host bits zero. */
struct kl_prefix {
	__u32 addr[4];		/* network byte order, IPv4 mapped */
	__u32 bits;		/* of 128 */
};

/* Key of the prefix trie, as BPF_MAP_TYPE_LPM_TRIE wants it: length first. */
struct kl_trie_key {
	__u32 bits;
	__u32 addr[4];
};

struct kl_policy {
	__u64 expires_ns;	/* bpf_ktime_get_ns(); 0 = never */
	__u64 interval_ns;	/* GCRA emission interval: 1 s / rate */
	__u64 tolerance_ns;	/* GCRA tau: (burst - 1) * interval */
	__u64 tat_ns;		/* GCRA theoretical arrival time */
	__u32 lock;		/* struct bpf_spin_lock where the program sees it */
	__u32 longer;		/* live rules longer than this prefix inside it */
	__u8 action;		/* enum kl_action */
	__u8 owner;		/* enum kl_owner */
	__u8 pad[2];
	__u32 rate_pps;		/* the limit as it was asked for; the program uses interval_ns */
};
_Static_assert(sizeof(struct kl_policy) == 48, "kl_policy is ABI");

struct kl_count {
	__u64 packets;
	__u64 bytes;
};

/* Per CPU. */
struct kl_counts {
	struct kl_count reason[KL_REASONS];
	__u64 sources;		/* ways taken */
	__u64 replaced;		/* ways taken from another source */
	__u64 events_lost;	/* ring buffer full */
};

enum kl_event_kind {
	KL_EVENT_PORTS = 1,	/* a source's port sketch crossed the alert bound */
	KL_EVENT_VIOLATION = 2,	/* an edge the frozen graph lacks; value: kl_edge_key from port on */
};

struct kl_event {
	__u64 time_ns;
	__u32 source[4];
	__u32 kind;		/* enum kl_event_kind */
	__u32 value;		/* bits set in the sketch */
};

/* Frozen at load. */
struct kl_config {
	__u64 seed[KL_SEEDS];	/* secret multipliers of the source hash */
	__u64 port_seed;
	__u32 set_mask;		/* sets of one CPU's partition - 1 */
	__u32 v6_bits;		/* width IPv6 sources are tracked at: 1..128 */
	__u32 v6_mask[4];	/* the same as a mask, network byte order */
	__u32 test_clock;	/* 1: time comes from kl_control, verdicts go there */
	__u32 bench_sources;	/* not 0: each packet takes the next of so many (2^n) sources */
	__u32 edge_mask;	/* sets of one CPU's partition of the edge table - 1 */
	__u32 graph;		/* 1: the edge stage exists */
};

/* Shared, pinned, written by userspace. */
struct kl_control {
	__u32 generation;	/* policy version, 1..KL_GENERATIONS-1; bumped after every change */
	__u32 has_exact;	/* 0 only if the policy hash holds nothing */
	__u32 has_prefix;	/* 0 only if the prefix trie holds nothing */
	__u32 port_alert;	/* sketch bits that raise KL_EVENT_PORTS; 0 = never */
	__u32 resets;		/* bumped by `kernloom reset`; a running IQ watches it */
	__u32 layout;		/* KL_LAYOUT of whoever loaded the program */
	__u32 v6_bits;		/* kl_config.v6_bits, for those who only open the pins */
	__u32 pad;
	__u64 test_now_ns;
	__u32 test_jiffies;
	__u32 test_reason;	/* reason of the last packet of a test run */
};

/* Lifetimes of what the edge stage remembers, in seconds. */
enum kl_graph_limits {
	KL_FLOW_UDP_S = 180,		/* as net.netfilter.nf_conntrack_udp_timeout_stream */
	KL_FLOW_TCP_S = 21600,
	KL_FLOW_CLOSING_S = 60,		/* after FIN or RST */
	KL_FRAG_S = 60,			/* RFC 8200, 4.5; net.ipv4.ipfrag_time is half of it */
	KL_GRAPH_EVENTS = 16,		/* violations reported per CPU and KL_GRAPH_EVENT_JIFFIES */
	KL_GRAPH_EVENT_JIFFIES = 64,
};

enum kl_edge_kind {
	KL_EDGE_IN = 0,
	KL_EDGE_OUT = 1,
	KL_EDGE_CAST = 2,		/* to a multicast or broadcast address; the peer is all zero */
	KL_EDGE_DIRECTION = 3,
	KL_EDGE_GROUP = 4,		/* peer[3] is the number of a group */
	KL_EDGE_SCOPE = 8,		/* not an edge: the graph speaks about this service */
};

enum kl_group {
	KL_GROUP_NONE = 0,		/* counts as itself */
	KL_GROUP_INTERNET = 1,		/* what no prefix of the trie holds */
	KL_GROUP_BROADCAST = 255,	/* a broadcast address of this host's links */
};

/* Who may open what: key of the edge table and of the frozen graph. */
struct kl_edge_key {
	__u32 peer[4];			/* identity, IPv4 mapped, or a group, or nobody */
	__u16 port;			/* host byte order; 0 for protocols without ports */
	__u8 proto;
	__u8 kind;			/* enum kl_edge_kind */
};
_Static_assert(sizeof(struct kl_edge_key) == 20, "kl_edge_key is ABI");

enum kl_edge_verdict {
	KL_EDGE_UNKNOWN = 0,		/* not in the graph */
	KL_EDGE_ALLOWED = 1,
	KL_EDGE_DENIED = 2,
};

/*
 * One edge as one CPU sees it, and what the graph says of it: one cache line.
 * Written by the programs on their own CPU only. Counters wrap; bytes do not.
 */
struct kl_edge {
	struct kl_edge_key key;
	__u32 stamp;			/* kl_graph.word it was judged under; 0 = way unused */
	__u64 bytes;
	__u32 packets;
	__u32 connections;
	__u32 handshakes;		/* of TCP, completed by both ends */
	__u32 violations;		/* packets seen while the frozen graph lacked the edge */
	__u32 seen;			/* jiffies of the last packet */
	__u8 group;			/* number of the peer's group */
	__u8 verdict;			/* enum kl_edge_verdict */
	__u8 pad[10];
};
_Static_assert(sizeof(struct kl_edge) == 64, "kl_edge is one cache line");

struct kl_edge_set {
	struct kl_edge way[KL_WAYS];
};

/* Value in the frozen graph. */
struct kl_permit {
	__u32 verdict;			/* enum kl_edge_verdict */
	__u32 seen;			/* jiffies of the last packet that was judged by it */
};

/* One conversation: the remote end, its port and ours. */
struct kl_flow_key {
	__u32 remote[4];		/* all zero: anyone, after something sent to a group address */
	__u16 rport;			/* network byte order */
	__u16 lport;
	__u32 proto;
};

struct kl_flow {
	__u32 seen;			/* jiffies */
	__u32 next;			/* sequence number that completes the handshake, network order */
	__u32 stage;			/* enum kl_flow_stage */
};

enum kl_flow_stage {
	KL_FLOW_OPEN = 0,
	KL_FLOW_ANSWERED = 1,
	KL_FLOW_COMPLETE = 2,
	KL_FLOW_CLOSING = 3,
	KL_FLOW_VIOLATION = 4,		/* of an edge the frozen graph lacks, while it only observes */
};

struct kl_frag_key {
	__u32 source[4];
	__u32 destination[4];
	__u32 id;
};

enum kl_graph_mode {
	KL_GRAPH_OFF = 0,
	KL_GRAPH_LEARN = 1,
	KL_GRAPH_OBSERVE = 2,
	KL_GRAPH_ENFORCE = 3,
};

/* kl_graph.word: one aligned store switches mode and graph together. */
enum kl_graph_word {
	KL_GRAPH_MODE = 0x03,		/* enum kl_graph_mode */
	KL_GRAPH_SLOT = 0x04,		/* which of the two graphs */
	KL_GRAPH_SCOPED = 0x08,		/* it speaks about some services only */
	KL_GRAPH_NOW = 0x0f,
	KL_GRAPH_AFTER_SHIFT = 4,	/* the same four bits, for when the lease has run out */
	KL_GRAPH_GENERATION_SHIFT = 8,	/* 24 bits, never 0, changed with the word */
};

/* Shared, written by userspace. */
struct kl_graph {
	__u32 word;
	__u32 hz;			/* jiffies in a second */
	__u64 lease_ns;			/* 0 = none; then the word's upper half applies */
};

#endif
