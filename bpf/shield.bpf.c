// SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only
/*
 * The XDP program. In order: frame to source, source to entry, entry to verdict;
 * only for a source that passed, transport header, sketches, limiter. The source
 * is judged before its transport header is read: an odd header is no way around
 * a block.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "config.h"
#include "maps.h"
#include "parse.h"
#include "sources.h"
#include "policy.h"
#include "limiter.h"
#include "telemetry.h"
#include "graph.h"
#include "egress.h"

/* Names the types that travel by no map, so that they reach userspace too. */
struct kl_event *kl_event_type __attribute__((unused));
struct kl_policy *kl_policy_type __attribute__((unused));
enum kl_limits kl_limits_type __attribute__((unused));
enum kl_reason kl_reason_type __attribute__((unused));
enum kl_action kl_action_type __attribute__((unused));
enum kl_owner kl_owner_type __attribute__((unused));
enum kl_verdict_bits kl_verdict_type __attribute__((unused));
enum kl_event_kind kl_event_kind_type __attribute__((unused));
struct kl_edge *kl_edge_type __attribute__((unused));
enum kl_edge_kind kl_edge_kind_type __attribute__((unused));
enum kl_group kl_group_type __attribute__((unused));
enum kl_edge_verdict kl_edge_verdict_type __attribute__((unused));
enum kl_graph_mode kl_graph_mode_type __attribute__((unused));
enum kl_graph_word kl_graph_word_type __attribute__((unused));

static __always_inline int kl_drops(enum kl_reason reason)
{
	return reason >= KL_REASON_DENY && reason != KL_REASON_EDGE_OBSERVED;
}

/* Default-deny is about edges: neither an allowed source nor one within its limit is above it. */
static __always_inline enum kl_reason kl_edge_stage(void *ctx, void *data, void *end,
						    const struct kl_packet *pkt,
						    enum kl_reason reason)
{
	enum kl_reason edge;

	if (!kl_config.graph)
		return reason;
	edge = kl_edge_in(ctx, data, end, pkt);
	return edge == KL_REASON_PASS ? reason : edge;
}

/* A source that is not denied: look at its transport header, count, limit. */
static __always_inline enum kl_reason kl_passing(void *ctx, void *data, void *end, struct kl_packet *pkt,
						 struct kl_source *src, __u32 verdict,
						 struct kl_counts *counts)
{
	__u32 action = verdict & KL_VERDICT_ACTION;
	enum kl_reason reason;

	kl_parse_l4(data, end, pkt);
	kl_observe(src, pkt, counts);
	if (action >= KL_ACTION_LIMIT_NEW) {
		if (action == KL_ACTION_LIMIT_NEW && !pkt->opens)
			reason = KL_REASON_WITHIN_LIMIT;
		else
			reason = kl_admit(src, pkt, verdict) ? KL_REASON_WITHIN_LIMIT :
							       KL_REASON_LIMIT;
	} else if (pkt->malformed) {
		reason = KL_REASON_MALFORMED;
	} else {
		reason = action == KL_ACTION_ALLOW ? KL_REASON_ALLOW : KL_REASON_PASS;
	}
	return reason == KL_REASON_LIMIT ? reason : kl_edge_stage(ctx, data, end, pkt, reason);
}

static __always_inline enum kl_reason kl_judge(void *ctx, void *data, void *end, struct kl_packet *pkt,
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
		reason = kl_passing(ctx, data, end, pkt, src, verdict, counts);
	src->drops += kl_drops(reason);
	return reason;
}

static __always_inline enum kl_reason kl_decide(struct xdp_md *ctx, struct kl_packet *pkt,
						struct kl_counts *counts)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	switch (kl_parse_source(data, end, pkt)) {
	case KL_IP_OK:
		return kl_judge(ctx, data, end, pkt, counts);
	case KL_IP_VLAN_DEPTH:
		return kl_edge_unread(KL_REASON_VLAN_DEPTH);
	case KL_IP_TRUNCATED:
		return kl_edge_unread(KL_REASON_TRUNCATED);
	case KL_IP_NONE:
		break;
	}
	return KL_REASON_NOT_IP;
}

SEC("xdp")
int kernloom(struct xdp_md *ctx)
{
	__u32 zero = 0, len = ctx->data_end - ctx->data;
	struct kl_counts *counts = bpf_map_lookup_elem(&kl_counters, &zero);
	struct kl_packet *pkt = bpf_map_lookup_elem(&kl_scratch, &zero);
	enum kl_reason reason;

	if (!pkt)
		return XDP_PASS;	/* cannot happen: slot 0 of an array exists */
	pkt->len = len;
	reason = kl_decide(ctx, pkt, counts);
	kl_count(counts, reason, len);
	if (kl_config.test_clock)
		kl_control.test_reason = reason;
	return kl_drops(reason) ? XDP_DROP : XDP_PASS;
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kl_packet);
} kl_leaving SEC(".maps");

/* Headers behind as many as are walked; the stack's own are in the first buffer anyway. */
#define KL_LINEAR 128

SEC("tc")
int kernloom_egress(struct __sk_buff *skb)
{
	__u32 zero = 0, slot = 1, word = kl_graph_now();
	struct kl_edge_scratch *e = bpf_map_lookup_elem(&kl_edge_scratches, &slot);
	struct kl_counts *counts = bpf_map_lookup_elem(&kl_counters, &zero);
	struct kl_packet *pkt = bpf_map_lookup_elem(&kl_leaving, &zero);
	enum kl_reason reason;
	void *data, *end;

	if (!pkt || !e || !(word & KL_GRAPH_MODE))
		return TC_ACT_UNSPEC;
	if (skb->data_end - skb->data < KL_LINEAR && skb->data_end - skb->data < skb->len)
		bpf_skb_pull_data(skb, skb->len < KL_LINEAR ? skb->len : KL_LINEAR);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	pkt->len = skb->len;
	reason = kl_edge_out(skb, data, end, pkt, e, word, counts);
	if (reason == KL_REASON_PASS)
		return TC_ACT_UNSPEC;	/* other filters still get to see it */
	kl_count(counts, reason, skb->len);
	return kl_drops(reason) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MPL/GPL";
