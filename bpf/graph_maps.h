/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* Maps of the edge stage; each comment says who writes and who reads. Sizes are set at load. */
#ifndef KL_GRAPH_MAPS_H
#define KL_GRAPH_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"

/* A map of its own: it outlives every layout of the others (`kernloom shield upgrade`). */
SEC(".bss.graph") volatile struct kl_graph kl_graph = {};

/* Edges, one partition of edge_mask + 1 sets per possible CPU. As kl_sources. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kl_edge_set);
} kl_edges SEC(".maps");

/* Prefix to number of a group. Written by userspace before it counts. */
struct kl_prefix_groups {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, KL_GROUP_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kl_trie_key);
	__type(value, __u32);
};

/* One graph: enum kl_edge_verdict of every edge that is allowed or denied. As the groups. */
struct kl_permits {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kl_edge_key);
	__type(value, __u32);
};

/* By slot: a graph and the groups it speaks of. kl_graph.word says which counts. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, KL_GRAPH_SLOTS);
	__type(key, __u32);
	__array(values, struct kl_prefix_groups);
} kl_groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, KL_GRAPH_SLOTS);
	__type(key, __u32);
	__array(values, struct kl_permits);
} kl_graphs SEC(".maps");

/*
 * Conversations this side opened, and those the other side did. Written by the
 * programs. Two maps: who floods this host from outside fills only the second.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct kl_flow_key);
	__type(value, struct kl_flow);
} kl_opened SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct kl_flow_key);
	__type(value, struct kl_flow);
} kl_accepted SEC(".maps");

/* Datagrams whose first fragment passed; value: jiffies. Shared: fragments may change queues. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct kl_frag_key);
	__type(value, __u32);
} kl_frags SEC(".maps");

/*
 * Which of the two contexts a program was given. One without the edge stage must not even name a global
 * function: before 6.8 the verifier checks those nobody calls too, and where the
 * kernel has no BTF none of them may take the context.
 */
enum kl_hook {
	KL_HOOK_XDP = 0,
	KL_HOOK_TC = 1,
	KL_HOOK_GRAPH = 2,	/* with the edge stage; or'ed in */
};

/* Whose scratch: the two directions may interrupt each other, and a probe either. */
enum kl_edge_slot { KL_SLOT_IN, KL_SLOT_OUT, KL_SLOT_PROBE, KL_SLOTS };

/* What is known of the packet under way on this CPU. */
struct kl_edge_scratch {
	struct kl_edge_key key;
	struct kl_edge_key wider;	/* what the key is looked up as next */
	struct kl_flow_key flow;
	struct kl_frag_key frag;
	__u32 local[4];
	__u32 flags;			/* TCP flags, or ICMP type */
	__u32 ack;			/* TCP acknowledgment or sequence number, network order */
	__u32 word;			/* kl_graph.word as it applies now */
	__u32 jiffies;
	__u32 by;			/* enum kl_edge_by of the last judgement */
	__u32 exempt;			/* 1: of an exempt source, for what comes in */
	__u32 event_slot;		/* not the packet's: jiffies, and events sent in them */
	__u32 event_sent;
	struct bpf_sock_tuple tuple;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KL_SLOTS);
	__type(key, __u32);
	__type(value, struct kl_edge_scratch);
} kl_edge_scratches SEC(".maps");

#endif
