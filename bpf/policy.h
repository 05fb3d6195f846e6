/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * What policy says of a source, and the cache of that answer in its entry.
 *
 * The longest prefix wins. One exception: an entry IQ made never overrules an
 * operator's allow, however wide.
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

/* The tracked identity's own entry, ended or not. */
static __always_inline struct kl_policy_locked *kl_exact(const struct kl_packet *pkt)
{
	struct kl_prefix key = {
		.addr = { pkt->key[0], pkt->key[1], pkt->key[2], pkt->key[3] },
		.bits = pkt->family == ETH_P_IP ? 128 : kl_config.v6_bits,
	};

	if (!kl_control.has_exact)
		return NULL;
	return bpf_map_lookup_elem(&kl_policies, &key);
}

/* The longest live entry in the trie that holds the full address, and its length. */
static __always_inline struct kl_policy_locked *kl_longest(const struct kl_packet *pkt, __u32 *bits)
{
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

		if (!prefix)
			return NULL;
		policy = bpf_map_lookup_elem(&kl_policies, prefix);
		if (policy && policy->action != KL_ACTION_NONE && !kl_ended(policy)) {
			*bits = prefix->bits;
			return policy;
		}
		if (prefix->bits == 0)
			return NULL;
		key.bits = prefix->bits - 1;
	}
	return NULL;
}

static __always_inline __u32 kl_verdict_of(const struct kl_policy_locked *policy)
{
	__u32 verdict = policy->action & KL_VERDICT_ACTION;

	if (policy->expires_ns || verdict >= KL_ACTION_LIMIT_NEW)
		verdict |= KL_VERDICT_RECHECK;
	return verdict;
}

/* The verdict bits for a packet, from policy alone. */
static __always_inline __u32 kl_evaluate(const struct kl_packet *pkt)
{
	__u32 own_bits = pkt->family == ETH_P_IP ? 128 : kl_config.v6_bits;
	struct kl_policy_locked *exact = kl_exact(pkt), *wide;
	__u32 bits = 0, each = 0;

	if (exact && exact->longer)
		each = KL_VERDICT_EACH;
	wide = kl_longest(pkt, &bits);
	if (exact && exact->action != KL_ACTION_NONE && !kl_ended(exact)) {
		int overruled = wide && (bits > own_bits || (exact->owner == KL_OWNER_IQ &&
							     wide->action == KL_ACTION_ALLOW));
		if (!overruled)
			return kl_verdict_of(exact) | each;
	}
	if (wide)
		return kl_verdict_of(wide) | KL_VERDICT_PREFIX | each;
	return each;
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
static __always_inline __u32 kl_verdict(struct kl_source *src, const struct kl_packet *pkt,
					__u32 jiffies)
{
	__u32 verdict = src->verdict;

	if (kl_believed(verdict, src, jiffies))
		return verdict;
	verdict = kl_control.generation << KL_VERDICT_SHIFT | kl_evaluate(pkt);
	src->verdict = verdict;
	src->checked = jiffies;
	return verdict;
}

#endif
