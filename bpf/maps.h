/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* Every map; each comment says who writes and who reads. Sizes are set at load. */
#ifndef KL_MAPS_H
#define KL_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "parse.h"

/* kl_policy as the program sees it: the verifier wants the lock by its own type. */
struct kl_policy_locked {
	__u64 expires_ns;
	__u64 interval_ns;
	__u64 tolerance_ns;
	__u64 tat_ns;
	struct bpf_spin_lock lock;
	__u32 longer;
	__u8 action;
	__u8 owner;
	__u16 note;
	__u32 rate;
};
_Static_assert(sizeof(struct kl_policy_locked) == sizeof(struct kl_policy), "one layout");

/*
 * Sources, one partition of set_mask + 1 sets per possible CPU, then one set per
 * CPU for probes. Written by the program, each CPU in its own partition; read
 * through mmap by userspace, which clears the sketches.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kl_source_set);
} kl_sources SEC(".maps");

/* As many as an array has bytes for in the least it takes for a value. */
struct kl_windows {
	__u32 cell[2];
};

/*
 * Windows of the ceiling by hash of the source, one partition of as many as sources
 * per possible CPU: jiffies of the start (24 bits), then the count (8 bits). Written
 * by the program, each CPU in its own partition.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kl_windows);
} kl_windows SEC(".maps");

/* All policy. Written by userspace; the program writes arrival times and ceilings. Never evicts. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kl_prefix);
	__type(value, struct kl_policy_locked);
} kl_policies SEC(".maps");

/* Index over those policies whose length is not the tracking width. Value: their key. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kl_trie_key);
	__type(value, struct kl_prefix);
} kl_prefixes SEC(".maps");

/*
 * What one CPU keeps to itself: counters, read by userspace, then the packet under
 * way. One value, because each lookup shows in the cost of a denied packet. The
 * second slot is the probes'; nobody reads it.
 */
struct kl_cpu {
	struct kl_counts counts;
	struct kl_packet packet;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct kl_cpu);
} kl_counters SEC(".maps");

/*
 * Openings by destination port, one partition of KL_PORTS per possible CPU. Written
 * by the program, each CPU in its own partition; read through mmap by userspace.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KL_PORTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kl_port);
} kl_ports SEC(".maps");

/*
 * When each question was asked last, in jiffies. Written by the program at TC egress
 * that tells questions, while an IQ runs (refusals.bpf.c); read where a limit of what
 * opens something meets a datagram. Gives up the oldest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KL_QUESTIONS);
	__type(key, struct kl_question);
	__type(value, __u32);
} kl_questions SEC(".maps");

/* Why entries were made, by kl_policy.note. Userspace only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KL_NOTES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct kl_note);
} kl_notes SEC(".maps");

/* Userspace only: what the other maps hold. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kl_layout);
} kl_layouts SEC(".maps");

/* Written by the program, read by a running IQ. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, KL_EVENTS_BYTES);
} kl_events SEC(".maps");

#endif
