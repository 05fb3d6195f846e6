// SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only
/*
 * The XDP program. In order: frame to source, source to entry, entry to verdict;
 * only for a source that passed, transport header, sketches, limiter. The source
 * is judged before its transport header is read: an odd header is no way around
 * a block.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "config.h"
#include "maps.h"
#include "parse.h"
#include "sources.h"
#include "policy.h"
#include "limiter.h"
#include "telemetry.h"

/* Names the types that travel by no map, so that they reach userspace too. */
struct kl_event *kl_event_type __attribute__((unused));
struct kl_policy *kl_policy_type __attribute__((unused));
enum kl_limits kl_limits_type __attribute__((unused));
enum kl_reason kl_reason_type __attribute__((unused));
enum kl_action kl_action_type __attribute__((unused));
enum kl_owner kl_owner_type __attribute__((unused));
enum kl_verdict_bits kl_verdict_type __attribute__((unused));
enum kl_event_kind kl_event_kind_type __attribute__((unused));
enum kl_feature kl_feature_type __attribute__((unused));
struct kl_counts *kl_counts_type __attribute__((unused));

/* A source that is not denied: look at its transport header, count, limit. */
static __always_inline enum kl_reason kl_passing(void *data, void *end, struct kl_packet *pkt,
						 struct kl_source *src, __u32 verdict,
						 struct kl_counts *counts)
{
	__u32 action = verdict & KL_VERDICT_ACTION, limited = action >= KL_ACTION_LIMIT_NEW;

	kl_parse_l4(data, end, pkt);
	kl_observe(src, pkt, counts);
	if (limited && (action == KL_ACTION_LIMIT_ALL || pkt->opens) && !kl_admit(src, pkt, verdict))
		return KL_REASON_LIMIT;
	if (pkt->odd)
		return pkt->odd;
	if (limited)
		return KL_REASON_WITHIN_LIMIT;
	return action == KL_ACTION_ALLOW ? KL_REASON_ALLOW : KL_REASON_PASS;
}

static __always_inline enum kl_reason kl_judge(void *data, void *end, struct kl_packet *pkt,
					       struct kl_counts *counts)
{
	__u32 jiffies = kl_jiffies(), verdict;
	struct kl_source *src = kl_source_of(pkt, jiffies, counts);
	enum kl_reason reason;

	if (!src)
		return KL_REASON_PASS;	/* cannot happen: the index is masked to the table */
	verdict = kl_verdict(src, pkt, jiffies);
	src->seen = jiffies;
	src->packets++;
	src->bytes += pkt->len;
	if ((verdict & KL_VERDICT_ACTION) == KL_ACTION_DENY)
		reason = KL_REASON_DENY;
	else
		reason = kl_passing(data, end, pkt, src, verdict, counts);
	src->drops += reason >= KL_REASON_DROPS;
	return reason;
}

static __always_inline enum kl_reason kl_decide(struct xdp_md *ctx, struct kl_packet *pkt,
						struct kl_counts *counts)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	switch (kl_parse_source(data, end, pkt)) {
	case KL_IP_OK:
		return kl_judge(data, end, pkt, counts);
	case KL_IP_VLAN_DEPTH:
		return KL_REASON_VLAN_DEPTH;
	case KL_IP_TRUNCATED:
		return KL_REASON_TRUNCATED;
	case KL_IP_NONE:
		break;
	}
	return KL_REASON_NOT_IP;
}

static __always_inline int kl_run(struct xdp_md *ctx, __u32 len)
{
	__u32 zero = 0;
	struct kl_cpu *cpu = bpf_map_lookup_elem(&kl_counters, &zero);
	enum kl_reason reason;

	if (!cpu)
		return XDP_PASS;	/* cannot happen: slot 0 of an array exists */
	cpu->packet.len = len;
	reason = kl_decide(ctx, &cpu->packet, &cpu->counts);
	kl_count(&cpu->counts, reason, len);
	if (kl_config.test_clock)
		kl_control.test_reason = reason;
	return reason >= KL_REASON_DROPS ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int kernloom(struct xdp_md *ctx)
{
	return kl_run(ctx, ctx->data_end - ctx->data);
}

/* The same for frames that span buffers (jumbo MTU); its headers are in the first. */
SEC("xdp.frags")
int kernloom_frags(struct xdp_md *ctx)
{
	return kl_run(ctx, bpf_xdp_get_buff_len(ctx));
}

char LICENSE[] SEC("license") = "Dual MPL/GPL";
