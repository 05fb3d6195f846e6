/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * The source table: set-associative, one partition per CPU, one cache line per
 * source. A lookup is one array access, one hash and four compares, whatever
 * the mix of sources.
 */
#ifndef KL_SOURCES_H
#define KL_SOURCES_H

#include "config.h"
#include "maps.h"
#include "parse.h"

/*
 * Multilinear hashing, strongly universal on 32 bits (Lemire and Kaser, "Strongly
 * universal string hashing is fast", 2014): without the seed, two chosen keys
 * collide with probability 2^-32, so nobody can aim at a set.
 */
static __always_inline __u64 kl_hash_sum(const __u32 *key)
{
	__u64 sum = kl_config.seed[0];

	sum += kl_config.seed[1] * key[0];
	sum += kl_config.seed[2] * key[1];
	sum += kl_config.seed[3] * key[2];
	sum += kl_config.seed[4] * key[3];
	return sum;
}

/* 0 if the way holds the packet's source, else 1. Arithmetic: a branch per way multiplies states. */
static __always_inline __u64 kl_differs(const struct kl_source *way, const struct kl_packet *pkt)
{
	const __u64 *a = (const __u64 *)way->key, *b = (const __u64 *)pkt->key;
	__u64 diff = (a[0] ^ b[0]) | (a[1] ^ b[1]);

	return (diff | -diff) >> 63;
}

/*
 * How much a way deserves replacing: unused, then silent longest (in classes of
 * 2^KL_AGE_SHIFT jiffies), then fewest packets. A flood of one-packet sources
 * therefore evicts its own kind, never a heavy hitter. The way's number rides
 * in the low bits.
 */
static __always_inline __u64 kl_replaceable(const struct kl_source *way, __u32 jiffies, __u64 number)
{
	__u64 age = (jiffies - way->seen) >> KL_AGE_SHIFT;
	__u64 unused = way->verdict == 0;

	return unused << 63 | age << 34 | (__u64)(__u32)~way->packets << 2 | number;
}

static __always_inline __u64 kl_most(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

static __always_inline __u64 kl_victim(const struct kl_source_set *set, __u32 jiffies)
{
	__u64 a = kl_most(kl_replaceable(&set->way[0], jiffies, 0),
			  kl_replaceable(&set->way[1], jiffies, 1));
	__u64 b = kl_most(kl_replaceable(&set->way[2], jiffies, 2),
			  kl_replaceable(&set->way[3], jiffies, 3));

	return kl_most(a, b) & (KL_WAYS - 1);
}

/*
 * Takes a way over. Userspace reads without a lock: unused first, then empty,
 * then named, so that a reader never credits one source with another's counts.
 */
static __always_inline void kl_claim(struct kl_source *way, const struct kl_packet *pkt,
				     __u32 jiffies, struct kl_counts *counts)
{
	if (way->verdict) {
		counts->replaced++;
		counts->crowded += jiffies - way->seen < 1 << KL_AGE_SHIFT;
	} else {
		counts->sources++;
	}
	*(volatile __u32 *)&way->verdict = 0;
	barrier();
	way->bytes = 0;
	way->ports = 0;
	way->stacks = 0;
	way->packets = 0;
	way->syns = 0;
	way->acks = 0;
	way->drops = 0;
	way->checked = 0;
	way->not_before = 0;
	barrier();
	way->key[0] = pkt->key[0];
	way->key[1] = pkt->key[1];
	way->key[2] = pkt->key[2];
	way->key[3] = pkt->key[3];
	barrier();
}

/* The way that holds the packet's source, KL_WAYS if none does; never one for a probe. */
static __always_inline __u64 kl_way_of(const struct kl_source_set *set,
				       const struct kl_packet *pkt)
{
	__u64 found = (1 - kl_differs(&set->way[0], pkt)) |
		      (1 - kl_differs(&set->way[1], pkt)) << 1 |
		      (1 - kl_differs(&set->way[2], pkt)) << 2 |
		      (1 - kl_differs(&set->way[3], pkt)) << 3;

	/*
	 * An unused way has the key of the unspecified address. That source takes the lowest
	 * such way and keeps it, because others claim the highest.
	 */
	found &= -found & -(__u64)(1 - pkt->probe);
	/* One-hot 1, 2, 4, 8 to 0, 1, 2, 3; 0 to 4. */
	return ((found >> 1) - (found >> 3)) | (1 - ((found | -found) >> 63)) << 2;
}

static __always_inline struct kl_source *kl_source_of(struct kl_packet *pkt, __u32 jiffies,
						      struct kl_counts *counts)
{
	__u32 cpu = bpf_get_smp_processor_id(), probe = -pkt->probe;
	__u32 hash = kl_hash_sum(pkt->key) >> 32;
	__u32 index = cpu * (kl_config.set_mask + 1) + (hash & kl_config.set_mask);
	struct kl_source_set *set;
	struct kl_source *way;

	/* A probe takes its CPU's set behind the table, and always anew: no branch, one state. */
	index = (index & ~probe) | ((kl_config.probe_set + cpu) & probe);
	set = bpf_map_lookup_elem(&kl_sources, &index);

	if (!set)
		return NULL;
	/* Claimed first, and the only one in most sets. Through memory: one state behind it. */
	pkt->way = KL_WAYS - 1;
	if (pkt->probe | kl_differs(&set->way[KL_WAYS - 1], pkt))
		pkt->way = kl_way_of(set, pkt);
	barrier();
	if (pkt->way < KL_WAYS)
		return &set->way[pkt->way & (KL_WAYS - 1)];
	way = &set->way[kl_victim(set, jiffies) & (KL_WAYS - 1)];
	kl_claim(way, pkt, jiffies, counts);
	return way;
}

#endif
