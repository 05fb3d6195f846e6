/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * What policy says of a source, and the cache of that answer in its entry.
 *
 * The longest prefix wins. One exception: an automatic entry (IQ's, a feed's,
 * the ceiling's) never overrules an allow, however wide.
 */
#ifndef KL_POLICY_H
#define KL_POLICY_H

#include "config.h"
#include "maps.h"
#include "parse.h"

static __always_inline int kl_ended(const struct kl_policy_locked *policy)
{
	return policy->expires_ns && kl_now_ns() >= policy->expires_ns;
}

static __always_inline int kl_live(const struct kl_policy_locked *policy)
{
	return policy && policy->action != KL_ACTION_NONE &&
	       !(policy->owner & kl_control.pending) && !kl_ended(policy);
}

/* Made by a program's judgement or somebody else's list, not by the operator for this host. */
static __always_inline int kl_automatic(const struct kl_policy_locked *policy)
{
	__u32 owner = policy->owner & ~KL_OWNER_IMPORTED;

	return owner == KL_OWNER_IQ || owner == KL_OWNER_FEED || owner == KL_OWNER_CEILING;
}

static __always_inline struct kl_prefix kl_exact_key(const struct kl_packet *pkt)
{
	struct kl_prefix key = {
		.addr = { pkt->key[0], pkt->key[1], pkt->key[2], pkt->key[3] },
		.bits = pkt->own_bits,
	};

	return key;
}

/* The tracked identity's own entry, ended or not. */
static __always_inline struct kl_policy_locked *kl_exact(const struct kl_packet *pkt)
{
	struct kl_prefix key = kl_exact_key(pkt);

	if (!kl_control.has_exact)
		return NULL;
	return bpf_map_lookup_elem(&kl_policies, &key);
}

/* Takes something away, and was made by nobody for this host. */
static __always_inline int kl_yields(const struct kl_policy_locked *policy)
{
	return kl_automatic(policy) && policy->action != KL_ACTION_ALLOW;
}

/* Length below which the trie has no say against an automatic entry: the identity's own rule has. */
static __always_inline __u32 kl_floor(const struct kl_policy_locked *exact, __u32 own_bits)
{
	return kl_live(exact) && !kl_yields(exact) ? own_bits : 0;
}

/*
 * The live entry in the trie that decides on the full address, and its length:
 * the longest, but an automatic one yields to the longest allow behind it,
 * unless that is shorter than `floor`.
 */
static __always_inline struct kl_policy_locked *kl_longest(const struct kl_packet *pkt, __u32 *bits,
							   __u32 *flags, __u32 floor)
{
	struct kl_policy_locked *found = NULL;
	struct kl_trie_key key = {
		.bits = 128,
		.addr = { pkt->addr[0], pkt->addr[1], pkt->addr[2], pkt->addr[3] },
	};

	if (!kl_control.has_prefix)
		return NULL;
#pragma unroll
	for (int i = 0; i < KL_EXPIRED_DEPTH; i++) {
		struct kl_prefix *prefix = bpf_map_lookup_elem(&kl_prefixes, &key);
		struct kl_policy_locked *policy;

		/* IPv4 is carried inside ::/0, but no IPv6 prefix speaks of it. */
		if (!prefix || (pkt->family == ETH_P_IP && prefix->bits < KL_MAPPED_BITS))
			return found;
		if (found && prefix->bits < floor)
			return found;
		policy = bpf_map_lookup_elem(&kl_policies, prefix);
		if (kl_live(policy)) {
			/* Its end may matter even where it does not decide. */
			if (policy->expires_ns)
				*flags |= KL_VERDICT_RECHECK;
			if (!found || policy->action == KL_ACTION_ALLOW) {
				found = policy;
				*bits = prefix->bits;
			}
			if (!kl_yields(policy))
				return found;
		}
		if (prefix->bits == 0)
			return found;
		key.bits = prefix->bits - 1;
	}
	return found;
}

/*
 * Allows whom no default limit and no graph may hit: a management address, or one that IQ's lists
 * exempt. Another allow says who may come, not which edges he may use.
 */
static __always_inline int kl_exempts(const struct kl_policy_locked *policy)
{
	__u32 owner = policy->owner & ~KL_OWNER_IMPORTED;

	return policy->action == KL_ACTION_ALLOW &&
	       (owner == KL_OWNER_MANAGEMENT || owner == KL_OWNER_IQ);
}

static __always_inline __u32 kl_verdict_of(const struct kl_policy_locked *policy)
{
	__u32 verdict = policy->action & KL_VERDICT_ACTION;

	if (policy->expires_ns || verdict >= KL_ACTION_LIMIT_NEW)
		verdict |= KL_VERDICT_RECHECK;
	if (policy->action == KL_ACTION_ALLOW ||
	    (policy->action >= KL_ACTION_LIMIT_NEW && !kl_automatic(policy)))
		verdict |= KL_VERDICT_KNOWN;
	if (kl_exempts(policy))
		verdict |= KL_VERDICT_EXEMPT;
	return verdict;
}

/* Whether the live entry `wide`, of length `bits`, decides against the identity's own live one. */
static __always_inline int kl_overrules(const struct kl_policy_locked *wide, __u32 bits,
					const struct kl_policy_locked *exact, __u32 own_bits)
{
	if (bits > own_bits)
		return !(kl_yields(wide) && exact->action == KL_ACTION_ALLOW);
	return kl_yields(exact) && wide->action == KL_ACTION_ALLOW;
}

/* The verdict bits for a packet, from policy alone. */
static __always_inline __u32 kl_evaluate(struct kl_packet *pkt)
{
	__u32 own_bits = pkt->own_bits, bits = 0, flags = 0;
	struct kl_policy_locked *exact = kl_exact(pkt), *wide;

	if (exact && exact->longer)
		flags = KL_VERDICT_EACH;
	wide = kl_longest(pkt, &bits, &flags, kl_floor(exact, own_bits));
	if (kl_live(exact) && !(wide && kl_overrules(wide, bits, exact, own_bits))) {
		pkt->decided = own_bits;
		return kl_verdict_of(exact) | flags;
	}
	if (wide) {
		pkt->decided = bits;
		return kl_verdict_of(wide) | KL_VERDICT_PREFIX | flags;
	}
	pkt->decided = KL_NO_ENTRY;
	return flags;
}

static __always_inline int kl_believed(__u32 verdict, const struct kl_source *src, __u32 jiffies)
{
	if (verdict >> KL_VERDICT_SHIFT != kl_control.generation || verdict & KL_VERDICT_EACH)
		return 0;
	if (jiffies - src->seen >= KL_SILENT_JIFFIES)
		return 0;
	return !(verdict & KL_VERDICT_RECHECK) ||
	       (__u16)(jiffies - src->checked) < KL_RECHECK_JIFFIES;
}

/* The cached verdict where it still holds, else a fresh one. */
static __always_inline __u32 kl_verdict(struct kl_source *src, struct kl_packet *pkt,
					__u32 jiffies)
{
	__u32 verdict = src->verdict;

	if (kl_believed(verdict, src, jiffies))
		return verdict;
	verdict = kl_control.generation << KL_VERDICT_SHIFT | kl_evaluate(pkt);
	if (verdict & KL_VERDICT_RECHECK) {
		src->checked = jiffies;
		if ((verdict ^ src->verdict) & ((1 << KL_VERDICT_SHIFT) - 1))
			src->not_before = 0;	/* else what is left of a lease stays */
	}
	/* Reloaded, so that the verifier forgets which way it came about. */
	*(volatile __u32 *)&src->verdict = verdict;
	return *(volatile __u32 *)&src->verdict;
}

/* Whether it is the verdict of an exemption. */
static __always_inline __u32 kl_is_exempt(__u32 verdict)
{
	const __u32 both = KL_ACTION_ALLOW | KL_VERDICT_EXEMPT;

	return (verdict & (KL_VERDICT_ACTION | KL_VERDICT_EXEMPT)) == both;
}

/* Whether only allowed sources pass now. The clock is read only while a lease is pending. */
static __always_inline int kl_allow_only(void)
{
	__u32 mode = kl_control.allow_only, lease = kl_control.lease;

	if (mode != KL_ALLOW_ONLY_LEASED)
		return mode != KL_ALLOW_ONLY_OFF;
	if (kl_control.lapsed == lease)
		return 0;
	if (kl_now_ns() < kl_control.lease_ns)
		return 1;
	kl_control.lapsed = lease;
	return 0;
}

#endif
