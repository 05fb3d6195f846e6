/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * GCRA, virtual scheduling form (ITU-T I.371, annex A): one theoretical arrival
 * time per limited source, in its policy entry, exact across CPUs.
 *
 * A packet that does not conform never takes the lock, and its CPU remembers
 * until when none can: arrival times only move forward, so the bound holds
 * whatever other CPUs do. A bound that is a jiffy or more away is remembered in
 * whole jiffies, rounded down: what is dropped until then needs no clock. Nor does
 * the rest of a jiffy if the burst is as long: what conforms in it passes after it,
 * and since no bucket overflows in a jiffy, as much passes as without.
 *
 * Clock, lookup and lock cost more than all the rest. Where the burst is large a
 * CPU therefore takes KL_LEASE packets at once, if all of them conform now, and
 * passes the others unasked. What it does not use stays with it, so the rate is
 * exact; a source that comes back may find that much above its burst, at most a
 * 64th over all CPUs.
 */
#ifndef KL_LIMITER_H
#define KL_LIMITER_H

#include "config.h"
#include "policy.h"

#define KL_NOT_BEFORE_MOST (1ULL << 29)	/* ns; a quarter of the range of the 15-bit unit */
#define KL_IN_JIFFIES 0x8000		/* of not_before: the unit, else 2^KL_NOT_BEFORE_SHIFT ns */

/* Of two numbers of 15 bits, whichever wrapped. */
static __always_inline int kl_ahead(__u16 at, __u16 now)
{
	return (__s16)((at - now) << 1) > 0;
}

static __always_inline int kl_held_jiffies(const struct kl_source *src, __u32 verdict,
					   __u32 jiffies)
{
	return verdict & KL_VERDICT_HELD && src->not_before & KL_IN_JIFFIES &&
	       kl_ahead(src->not_before, jiffies);
}

static __always_inline int kl_held(const struct kl_source *src, __u32 verdict, __u64 now)
{
	return verdict & KL_VERDICT_HELD && !(src->not_before & KL_IN_JIFFIES) &&
	       kl_ahead(src->not_before, now >> KL_NOT_BEFORE_SHIFT);
}

/*
 * Until `tat` is no more than `tolerance` away. Jiffies are read before the clock,
 * and come in time: whole ones are over before that.
 */
static __always_inline void kl_hold(struct kl_source *src, __u32 verdict, __u64 tat,
				    __u64 tolerance, __u32 jiffies, __u64 now)
{
	__u64 wait = tat - tolerance - now, whole;

	if (wait > KL_NOT_BEFORE_MOST)
		wait = KL_NOT_BEFORE_MOST;
	whole = wait >> kl_config.jiffy_shift;
	if (!whole)
		whole = tolerance >> kl_config.jiffy_shift ? 1 : 0;
	if (whole)
		src->not_before = KL_IN_JIFFIES | (jiffies + whole);
	else
		src->not_before = ((now + wait) >> KL_NOT_BEFORE_SHIFT) & ~KL_IN_JIFFIES;
	src->verdict = verdict | KL_VERDICT_HELD;
}

/* 1 if the packet was taken before. */
static __always_inline int kl_leased(struct kl_source *src, __u32 verdict)
{
	if (verdict & KL_VERDICT_HELD || !src->not_before)
		return 0;
	src->not_before--;
	return 1;
}

/* What a CPU takes at once, in ns; `cost` is one packet's. A shared limit is taken singly. */
static __always_inline __u64 kl_lease(const struct kl_policy_locked *policy, __u32 verdict,
				      __u64 cost)
{
	if (verdict & (KL_VERDICT_PREFIX | KL_VERDICT_EACH) ||
	    policy->action >= KL_ACTION_LIMIT_NEW_BYTES ||
	    policy->tolerance_ns >> kl_config.lease_shift < cost)
		return cost;
	return cost * KL_LEASE;
}

/* 1 if the packet is within the limit of its source, else 0. */
static __always_inline int kl_admit(struct kl_source *src, const struct kl_packet *pkt,
				    __u32 verdict, __u32 jiffies)
{
	struct kl_policy_locked *policy = NULL;
	__u64 now, tat, cost, lease;
	__u32 bits, flags = 0;
	int conforms;

	if (kl_leased(src, verdict))
		return 1;
	if (kl_held_jiffies(src, verdict, jiffies))
		return 0;
	now = kl_now_ns();
	if (kl_held(src, verdict, now))
		return 0;
	if (!(verdict & KL_VERDICT_PREFIX) || verdict & KL_VERDICT_EACH)
		policy = kl_exact(pkt);
	if (verdict & KL_VERDICT_PREFIX)
		policy = kl_longest(pkt, &bits, &flags, kl_floor(policy, pkt->own_bits));
	if (!policy)
		return 1;	/* gone since the verdict was cached; the next packet sees that */
	cost = policy->interval_ns;
	if (policy->action >= KL_ACTION_LIMIT_NEW_BYTES)
		cost = cost * pkt->len >> KL_BYTE_SHIFT;
	lease = kl_lease(policy, verdict, cost);
	tat = policy->tat_ns;
	conforms = tat <= now + policy->tolerance_ns;
	if (conforms && !pkt->probe) {
		bpf_spin_lock(&policy->lock);
		tat = policy->tat_ns;
		conforms = tat <= now + policy->tolerance_ns;
		if (conforms) {
			if (tat < now)
				tat = now;
			if (tat + lease - cost > now + policy->tolerance_ns)
				lease = cost;
			policy->tat_ns = tat + lease;
		}
		bpf_spin_unlock(&policy->lock);
		if (conforms && lease != cost) {
			src->not_before = KL_LEASE - 1;
			src->verdict = verdict & ~KL_VERDICT_HELD;
		}
	}
	if (!conforms)
		kl_hold(src, verdict, tat, policy->tolerance_ns, jiffies, now);
	return conforms;
}

#endif
