/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * GCRA, virtual scheduling form (ITU-T I.371, annex A): one theoretical arrival
 * time per limited source, in its policy entry, exact across CPUs.
 *
 * A packet that does not conform never takes the lock, and its CPU remembers
 * until when none can: arrival times only move forward, so the bound holds
 * whatever other CPUs do.
 */
#ifndef KL_LIMITER_H
#define KL_LIMITER_H

#include "config.h"
#include "policy.h"

#define KL_NOT_BEFORE_MOST (1ULL << 30)	/* ns; half the range of the 16-bit unit */

static __always_inline int kl_held(const struct kl_source *src, __u32 verdict, __u64 now)
{
	__u16 unit = now >> KL_NOT_BEFORE_SHIFT;

	return verdict & KL_VERDICT_HELD && (__s16)(src->not_before - unit) > 0;
}

static __always_inline void kl_hold(struct kl_source *src, __u32 verdict, __u64 conforms, __u64 now)
{
	if (conforms - now > KL_NOT_BEFORE_MOST)
		conforms = now + KL_NOT_BEFORE_MOST;
	src->not_before = conforms >> KL_NOT_BEFORE_SHIFT;
	src->verdict = verdict | KL_VERDICT_HELD;
}

/* 1 if the packet is within the limit of its source, else 0. */
static __always_inline int kl_admit(struct kl_source *src, const struct kl_packet *pkt,
				    __u32 verdict)
{
	__u64 now = kl_now_ns(), tat, cost;
	struct kl_policy_locked *policy;
	__u32 bits, flags = 0;
	int conforms;

	if (kl_held(src, verdict, now))
		return 0;
	policy = NULL;
	if (!(verdict & KL_VERDICT_PREFIX) || verdict & KL_VERDICT_EACH)
		policy = kl_exact(pkt);
	if (verdict & KL_VERDICT_PREFIX)
		policy = kl_longest(pkt, &bits, &flags, kl_floor(policy, pkt->own_bits));
	if (!policy)
		return 1;	/* gone since the verdict was cached; the next packet sees that */
	cost = policy->interval_ns;
	if (policy->action >= KL_ACTION_LIMIT_NEW_BYTES)
		cost = cost * pkt->len >> KL_BYTE_SHIFT;
	tat = policy->tat_ns;
	conforms = tat <= now + policy->tolerance_ns;
	if (conforms && !pkt->probe) {
		bpf_spin_lock(&policy->lock);
		tat = policy->tat_ns;
		conforms = tat <= now + policy->tolerance_ns;
		if (conforms)
			policy->tat_ns = (tat > now ? tat : now) + cost;
		bpf_spin_unlock(&policy->lock);
	}
	if (!conforms)
		kl_hold(src, verdict, tat - policy->tolerance_ns, now);
	return conforms;
}

#endif
