/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * The default limit of sources without a rule. What most sources cost is a
 * count: so many per CPU in a span that grants all CPUs together the limit. A
 * source that takes more is promoted to an entry of its own in the policy hash,
 * exact across CPUs. Where that is refused, its share of this CPU's count is all
 * it gets: the hash full is no way around the limit. Nor are more sources than
 * the source table holds: counts are by hash of the source and nothing replaces
 * them. Sources that share one reach it sooner, and get an entry of their own.
 */
#ifndef KL_CEILING_H
#define KL_CEILING_H

#include "config.h"
#include "policy.h"
#include "sources.h"

#define KL_SECOND_NS 1000000000ULL

static __always_inline __u32 kl_ceiling_weight(const struct kl_packet *pkt)
{
	__u32 pieces = 1 + (pkt->len >> KL_CEILING_BYTES_SHIFT);

	if (kl_control.ceiling < KL_ACTION_LIMIT_NEW_BYTES)
		return 1;
	return pieces > KL_CEILING_PIECES ? KL_CEILING_PIECES : pieces;
}

/* 1 while this CPU has seen no more of the source than its share of the default limit. */
static __always_inline int kl_below_ceiling(const struct kl_packet *pkt, __u32 jiffies)
{
	__u32 mask = (KL_WAYS / 2) * (kl_config.set_mask + 1) - 1;
	__u32 hash = kl_hash_sum(pkt->key) >> 32;
	__u32 index = bpf_get_smp_processor_id() * (mask + 1) + ((hash >> 1) & mask);
	struct kl_windows *windows = bpf_map_lookup_elem(&kl_windows, &index);
	__u32 window, count, *cell;

	if (!windows || pkt->probe)
		return 1;	/* none: cannot happen, masked to the table; a probe's source: promoted, or below */
	cell = &windows->cell[hash & 1];
	window = *cell;
	count = window & 0xff;
	if (((jiffies - (window >> 8)) & 0xffffff) > kl_control.ceiling_span || !count) {
		window = jiffies << 8;
		count = 0;
	}
	if (count > kl_control.ceiling_count)
		return 0;
	count += kl_ceiling_weight(pkt);
	*cell = (window & ~0xffu) | (count & 0xff);
	return count <= kl_control.ceiling_count;
}

/* Gives the source an entry of its own: its verdict from now on, or 0 where that is refused. */
static __always_inline __u32 kl_promote(struct kl_source *src, const struct kl_packet *pkt,
					__u32 jiffies)
{
	struct kl_prefix key = kl_exact_key(pkt);
	__u64 now = kl_now_ns(), end = now + KL_CEILING_LIFE_S * KL_SECOND_NS;
	struct kl_policy_locked *policy;
	__u32 verdict;

	if (pkt->probe)
		return 0;
	policy = bpf_map_lookup_elem(&kl_policies, &key);
	if (policy) {
		/* An ended rule or a mark for longer ones: userspace's to change, not ours. */
		if (policy->owner != KL_OWNER_CEILING || policy->longer)
			return 0;
		policy->expires_ns = end;
	} else {
		struct kl_policy_locked fresh = {
			.expires_ns = end,
			.interval_ns = kl_control.ceiling_interval_ns,
			.tolerance_ns = kl_control.ceiling_tolerance_ns,
			/* What was counted before its first packet here was another's of that window. */
			.tat_ns = now + (src->packets > 1 ? kl_control.ceiling_debt_ns : 0),
			.action = kl_control.ceiling,
			.owner = KL_OWNER_CEILING,
			.rate = kl_control.ceiling_rate,
		};

		/* Two CPUs at once: the second finds it made, and believes in it. */
		if (bpf_map_update_elem(&kl_policies, &key, &fresh, BPF_NOEXIST) &&
		    !bpf_map_lookup_elem(&kl_policies, &key))
			return 0;
		kl_control.has_exact = 1;
	}
	verdict = kl_control.generation << KL_VERDICT_SHIFT | KL_VERDICT_RECHECK |
		  (kl_control.ceiling & KL_VERDICT_ACTION);
	*(volatile __u32 *)&src->verdict = verdict;
	src->checked = jiffies;
	src->not_before = 0;
	return *(volatile __u32 *)&src->verdict;	/* as in kl_verdict */
}

#endif
