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
	KL_LAYOUT = 3,			/* version of everything below */
	KL_POLICY_LAYOUT = 1,		/* version of kl_prefix, kl_policy and kl_note alone */
	KL_CONTROL_LAYOUT = 3,		/* since this layout kl_control was only appended to */
	KL_MAPPED_BITS = 96,		/* in front of an IPv4 address */
	KL_WAYS = 4,			/* entries per set of the source table */
	KL_SEEDS = 5,
	KL_VLAN_DEPTH = 4,		/* tags walked before a frame counts as too deep */
	KL_EXT_DEPTH = 6,		/* IPv6 extension headers walked (RFC 8200, 4.1) */
	KL_EXPIRED_DEPTH = 4,		/* expired prefixes looked behind per evaluation */
	KL_RECHECK_JIFFIES = 16,	/* how long a verdict with an end or a limit is believed */
	KL_SILENT_JIFFIES = 1 << 18,	/* silence after which any verdict is evaluated anew */
	KL_AGE_SHIFT = 9,		/* jiffies per age class of the replacement rule, log2 */
	KL_NOT_BEFORE_SHIFT = 16,	/* finer unit of not_before: 2^16 ns */
	KL_REASONS = 64,
	KL_LENGTHS = 16,			/* bins of the length histogram */
	KL_LENGTH_SHIFT = 7,		/* width of a bin: 128 bytes; the last is open */
	KL_PORTS = 1 << 16,
	KL_GENERATIONS = 1 << 24,
	KL_LEASE = 8,			/* packets of a limit that one CPU may take at once */
	KL_BYTE_SHIFT = 16,		/* interval_ns of a limit in bytes counts 2^-16 ns */
	KL_CEILING_BYTES_SHIFT = 8,	/* a ceiling in bytes counts pieces of 256, log2 */
	KL_CEILING_PIECES = 63,		/* most pieces one packet counts for */
	KL_CEILING_MOST = 191,		/* most that kl_control.ceiling_count may be */
	KL_CEILING_LIFE_S = 30,		/* how long a promoted source keeps its entry */
	KL_NOTES = 4096,		/* different reasons entries may carry */
	KL_NOTE_BYTES = 64,
	KL_EVENTS_BYTES = 1 << 18,
	KL_QUESTIONS = 8192,		/* asked over UDP and not yet answered, or just so */
	KL_ANSWER_S = 8,		/* how long a question may take: a resolver gives up after 5 s */
};

/*
 * Why a packet left the way it did. Passed below KL_REASON_DROPS, dropped from there
 * on. Append only: numbers are public. A passed packet with an odd header counts under
 * its class; where several apply, under the highest number.
 */
enum kl_reason {
	KL_REASON_PASS = 0,		/* counted; no rule matched */
	KL_REASON_NOT_IP = 1,		/* ARP and friends: always pass */
	KL_REASON_VLAN_DEPTH = 2,	/* more tags than are walked: passed unjudged */
	KL_REASON_TRUNCATED = 3,	/* no complete IP header: passed, the stack drops it */
	KL_REASON_ALLOW = 4,		/* an allow entry matched */
	KL_REASON_WITHIN_LIMIT = 5,	/* limited source, within its limit */
	KL_REASON_ESSENTIAL = 6,	/* what no default-deny may drop (RFC 4890) */
	/* odd headers, judged by source, then passed */
	KL_REASON_OPTIONS = 8,		/* IPv4 options or IPv6 extension headers */
	KL_REASON_FRAGMENT_FIRST = 9,
	KL_REASON_FRAGMENT_LATER = 10,
	KL_REASON_FRAGMENT_TINY = 11,	/* first, without its whole transport header (RFC 3128) */
	KL_REASON_L4_MALFORMED = 12,	/* contradictory transport header */
	KL_REASON_L4_TRUNCATED = 13,	/* the packet ends inside its headers */
	KL_REASON_EXT_DEPTH = 14,	/* more extension headers than are walked */
	KL_REASON_ROUTING_0 = 15,	/* IPv6 routing header type 0 (RFC 5095) */
	KL_REASON_MALFORMED = 16,	/* contradictory IP header */
	KL_REASON_EDGE_OBSERVED = 17,	/* the frozen graph lacks its edge, and is only observed */

	KL_REASON_DROPS = 32,
	KL_REASON_DENY = 32,		/* a deny entry matched */
	KL_REASON_LIMIT = 33,		/* above the source's limit */
	KL_REASON_NOT_ALLOWED = 34,	/* default-deny, and no allow entry matched */
	KL_REASON_VLAN_DEPTH_DROP = 35,	/* default-deny: the source is out of reach */
	KL_REASON_TRUNCATED_DROP = 36,	/* default-deny: there is no source */
	KL_REASON_ROUTING_0_DROP = 37,	/* default-deny: from any source */
	KL_REASON_EDGE_UNKNOWN = 38,	/* the frozen graph lacks its edge */
	KL_REASON_EDGE_DENIED = 39,	/* the operator denied its edge */
	KL_REASON_EDGE_FRAGMENT = 40,	/* of no datagram whose first fragment passed */
	KL_REASON_EDGE_UNREAD = 41,	/* its edge cannot be read from its headers */
};

enum kl_action {
	KL_ACTION_NONE = 0,		/* the entry only marks longer rules inside its prefix */
	KL_ACTION_ALLOW = 1,
	KL_ACTION_DENY = 2,
	KL_ACTION_LIMIT_NEW = 3,	/* limit what may open something: all but TCP with ACK and neither SYN nor RST */
	KL_ACTION_LIMIT_ALL = 4,
	KL_ACTION_LIMIT_NEW_BYTES = 5,	/* the same two, counted in bytes */
	KL_ACTION_LIMIT_ALL_BYTES = 6,
};

enum kl_owner {
	KL_OWNER_OPERATOR = 0,
	KL_OWNER_IQ = 1,
	KL_OWNER_FEED = 2,		/* an imported list */
	KL_OWNER_CEILING = 3,		/* made by the program for a source above the default limit */
	KL_OWNER_MANAGEMENT = 4,	/* protects the way in; no automatic rule overrules it */
	KL_OWNER_IMPORTED = 0x80,	/* or'ed in: of the list that is being imported */
};

/* Below the generation in kl_source.verdict. */
enum kl_verdict_bits {
	KL_VERDICT_ACTION = 0x07,	/* enum kl_action */
	KL_VERDICT_RECHECK = 0x08,	/* believed for KL_RECHECK_JIFFIES only */
	KL_VERDICT_PREFIX = 0x10,	/* the deciding entry is found through the trie */
	KL_VERDICT_EACH = 0x20,		/* longer rules inside: every packet is evaluated */
	KL_VERDICT_HELD = 0x40,		/* of a limit: not_before holds */
	KL_VERDICT_EXEMPT = 0x40,	/* of an allow: what the graph is silent about passes */
	KL_VERDICT_KNOWN = 0x80,	/* passes where only allowed sources do */
	KL_VERDICT_SHIFT = 8,		/* the generation stands above, 24 bits */
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
	__u32 stacks;		/* distinct SYN fingerprints: as above */
	__u32 packets;
	__u32 syns;		/* TCP SYN without ACK */
	__u32 acks;		/* TCP ACK without SYN or RST: what an established peer sends */
	__u32 drops;
	__u32 seen;		/* jiffies of the last packet */
	__u32 verdict;		/* generation and enum kl_verdict_bits; 0 = way unused */
	__u16 checked;		/* with a rule: jiffies of its evaluation */
	/* With a limit, held: passes nothing before (limiter.h), else the packets it may still pass unasked. */
	__u16 not_before;
};
_Static_assert(sizeof(struct kl_source) == 64, "kl_source is one cache line");

struct kl_source_set {
	struct kl_source way[KL_WAYS];
};

/* What this host asked a peer over UDP, from a high port of its own to a lower one. */
struct kl_question {
	__u32 addr[4];		/* the peer's, whole; network byte order, IPv4 mapped */
	__u16 theirs;		/* ports, host order */
	__u16 ours;
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
	__u64 interval_ns;	/* GCRA emission interval: 1 s / rate; by byte in 2^-KL_BYTE_SHIFT ns */
	__u64 tolerance_ns;	/* GCRA tau: (burst - 1) * interval */
	__u64 tat_ns;		/* GCRA theoretical arrival time */
	__u32 lock;		/* struct bpf_spin_lock where the program sees it */
	__u32 longer;		/* live rules longer than this prefix inside it */
	__u8 action;		/* enum kl_action */
	__u8 owner;		/* enum kl_owner */
	__u16 note;		/* key of the text that says why; 0 = none */
	__u32 rate;		/* per second, as it was asked for; the program uses interval_ns */
};
_Static_assert(sizeof(struct kl_policy) == 48, "kl_policy is ABI");

/* Why an entry was made: UTF-8, padded with zeros. */
struct kl_note {
	char text[KL_NOTE_BYTES];
};

/* What the pinned maps hold. The one struct whose first two words never change. */
struct kl_layout {
	__u32 layout;		/* KL_LAYOUT */
	__u32 policy_layout;	/* KL_POLICY_LAYOUT */
	__u64 build;		/* hash of the object the program came from */
};

struct kl_count {
	__u64 packets;
	__u64 bytes;
};

/* Per CPU. */
struct kl_counts {
	struct kl_count reason[KL_REASONS];
	__u64 length[KL_LENGTHS];	/* frames by length */
	__u64 sources;		/* ways taken */
	__u64 replaced;		/* ways taken from another source */
	__u64 crowded;		/* of those, from one heard of within 2^KL_AGE_SHIFT jiffies */
	__u64 events_lost;	/* ring buffer full */
};

/* What was opened at one destination port, by one CPU. Wraps. */
struct kl_port {
	__u32 syns;		/* TCP SYN without ACK */
	__u32 udp;		/* UDP to a lower port than it came from */
};
_Static_assert(sizeof(struct kl_port) == 8, "kl_port is an array map's slot");

enum kl_feature {
	KL_FEATURE_LEARN = 1,	/* sketches, port histogram, events */
	KL_FEATURE_GRAPH = 2,	/* the edge stage */
};

enum kl_event_kind {
	KL_EVENT_PORTS = 1,	/* a source's port sketch crossed the alert bound */
	KL_EVENT_VIOLATION = 2,	/* an edge the frozen graph lacks: source and value are its key */
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
	__u32 probe_set;	/* behind all partitions: one set per CPU for probes */
	__u32 v6_bits;		/* width IPv6 sources are tracked at: 1..128 */
	__u32 v6_mask[4];	/* the same as a mask, network byte order */
	__u32 features;		/* enum kl_feature */
	__u32 test_clock;	/* 1: time comes from kl_control, verdicts go there */
	__u32 bench_sources;	/* not 0: each packet takes the next of so many (2^n) sources */
	__u32 edge_mask;	/* sets of one CPU's partition of the edge table - 1 */
	__u16 lease_shift;	/* packets of burst from which on a limit is leased, log2 */
	__u16 jiffy_shift;	/* ns that a jiffy is at most, log2 */
};

/* kl_control.allow_only */
enum kl_allow_only {
	KL_ALLOW_ONLY_OFF = 0,
	KL_ALLOW_ONLY_ON = 1,
	KL_ALLOW_ONLY_LEASED = 2,	/* on until lease_ns, then off, unless confirmed before */
};

/* A source, as in kl_source. */
struct kl_identity {
	__u32 addr[4];
};

/* Frozen at load, for the handshake program: where the tracepoint's fields are. */
struct kl_proof_config {
	__u32 new_state;
	__u32 family;
	__u32 remote4;
	__u32 remote6;
	__u32 v6_mask[4];	/* as in kl_config */
};

/* Frozen at load, for the program that counts refusals and questions. */
struct kl_refusals_config {
	__u32 v6_mask[4];	/* as in kl_config */
};

struct kl_refusals_state {
	__u32 epoch;		/* of now; userspace begins another to read the one that ended */
	__u32 sent;		/* of both so far: a look at the map is saved where there was none */
};

/* What a source was sent within an epoch. */
struct kl_told {
	__u32 epoch;
	__u32 refused;		/* its packets that were */
	__u32 strays;		/* of those, TCP with ACK that belonged to no connection */
	__u32 datagrams;	/* of those, no TCP */
	__u32 asked;		/* UDP to a service of its own */
	__u32 refused_before;	/* in the epoch before, which may be read only now; the same four */
	__u32 strays_before;
	__u32 datagrams_before;
	__u32 asked_before;
};

/* Shared, pinned, written by userspace but where it says otherwise. The first 64 bytes are hot. */
struct kl_control {
	__u32 generation;	/* policy version, 1..KL_GENERATIONS-1; bumped after every change */
	__u32 has_exact;	/* 0 only if the policy hash holds nothing; the program sets it too */
	__u32 has_prefix;	/* 0 only if the prefix trie holds nothing */
	__u32 port_alert;	/* sketch bits that raise KL_EVENT_PORTS; 0 = never */
	__u32 allow_only;	/* enum kl_allow_only */
	__u32 lease;		/* number of the last lease given */
	__u32 lapsed;		/* number of the last lease that ran out; written by the program */
	__u32 ceiling;		/* default limit: its enum kl_action; 0 = none */
	__u64 probe;		/* what a probe's frame begins with; 0 = none under way */
	__u64 test_now_ns;
	__u32 test_jiffies;
	__u32 test_reason;	/* enum kl_reason of the last packet of a test run or probe */
	__u32 test_bits;	/* length of the prefix whose entry decided; KL_NO_ENTRY = none */
	__u32 v6_bits;		/* kl_config.v6_bits, for those who only open the pins */
	__u64 lease_ns;		/* bpf_ktime_get_ns() at which the lease runs out */
	__u64 ceiling_interval_ns;	/* as in kl_policy */
	__u64 ceiling_tolerance_ns;
	__u64 ceiling_debt_ns;	/* what ceiling_count is worth */
	__u32 ceiling_rate;	/* as in kl_policy */
	__u32 ceiling_span;	/* jiffies one CPU may take for ceiling_count, or the source is promoted */
	__u32 ceiling_count;	/* packets, or pieces of 2^KL_CEILING_BYTES_SHIFT bytes */
	__u32 hz;		/* jiffies in a second */
	__u32 test_edge;	/* enum kl_edge_by of the last probe */
	__u32 resets;		/* bumped by `kernloom reset`; a running IQ watches it */
	__u32 pending;		/* KL_OWNER_IMPORTED: what has it does not count yet; else 0 */
	__u32 retired;		/* 1: other maps took over; whoever has these open starts over */
};

enum kl_answer { KL_NO_ENTRY = 255 };

/* Sizes of the edge stage, and for how many seconds it remembers. */
enum kl_graph_limits {
	KL_GRAPH_LAYOUT = 1,		/* version of kl_graph and of the maps a graph is kept in */
	KL_GRAPH_SLOTS = 3,		/* the graph that counts, the one after its lease, the one to come */
	KL_GROUP_PREFIXES = 4096,
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
	KL_EDGE_HOST = 16,		/* the peer is one IPv6 address, not a tracked prefix */
};

enum kl_group {
	KL_GROUP_NONE = 0,		/* counts as itself */
	KL_GROUP_INTERNET = 1,		/* what no prefix of the trie holds */
	KL_GROUP_BROADCAST = 255,	/* a broadcast address of this host's links */
};

/* Who may open what: key of the edge table and of the frozen graph. */
struct kl_edge_key {
	__u32 peer[4];			/* address, IPv4 mapped; of a graph also prefix or group; or nobody */
	__u32 service;			/* enum kl_service_bits */
};
_Static_assert(sizeof(struct kl_edge_key) == 20, "kl_edge_key is ABI");

/* A number, so that one comparison tells two services apart. */
enum kl_service_bits {
	KL_SERVICE_PORT = 0xffff,	/* host byte order; 0 for protocols without ports */
	KL_SERVICE_PROTO_SHIFT = 16,	/* 8 bits */
	KL_SERVICE_KIND_SHIFT = 24,	/* enum kl_edge_kind */
};

enum kl_edge_verdict {
	KL_EDGE_UNKNOWN = 0,		/* not in the graph */
	KL_EDGE_ALLOWED = 1,
	KL_EDGE_DENIED = 2,
};

/* What in the graph decided, as a probe is told. */
enum kl_edge_by {
	KL_EDGE_BY_NONE = 0,		/* nothing: the graph lacks the edge, or there is no graph */
	KL_EDGE_BY_SOURCE = 1,		/* an edge of the source itself */
	KL_EDGE_BY_GROUP = 2,		/* an edge of its group */
	KL_EDGE_BY_SCOPE = 3,		/* the graph does not speak about this service */
	KL_EDGE_BY_PREFIX = 4,		/* an edge of the tracked prefix that holds the source */
	KL_EDGE_BY_EXEMPT = 5,		/* nothing, but the source is exempt */
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

/* kl_graph.word: one aligned store switches mode, groups and graph together. */
enum kl_graph_word {
	KL_GRAPH_MODE = 0x03,		/* enum kl_graph_mode */
	KL_GRAPH_SLOT = 0x0c,		/* which of the graphs */
	KL_GRAPH_SLOT_SHIFT = 2,
	KL_GRAPH_SCOPED = 0x10,		/* it speaks about some services only */
	KL_GRAPH_NOW = 0x1f,
	KL_GRAPH_AFTER_SHIFT = 5,	/* the same bits, for when the lease has run out */
	KL_GRAPH_GENERATION_SHIFT = 10,	/* 22 bits, never 0, changed with the word */
};

/* Shared, pinned, written by userspace. */
struct kl_graph {
	__u32 word;
	__u32 layout;			/* KL_GRAPH_LAYOUT */
	__u64 lease_ns;			/* 0 = none; then the word's upper half applies */
};

#endif
