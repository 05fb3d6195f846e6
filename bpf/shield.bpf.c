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
#include "ceiling.h"
#include "essential.h"
#include "telemetry.h"
#include "graph.h"
#include "egress.h"

/* Names the types that travel by no map, so that they reach userspace too; a pointer would have another
 * size in a 32-bit one. */
struct kl_event kl_event_type __attribute__((unused));
struct kl_policy kl_policy_type __attribute__((unused));
enum kl_limits kl_limits_type __attribute__((unused));
enum kl_reason kl_reason_type __attribute__((unused));
enum kl_action kl_action_type __attribute__((unused));
enum kl_owner kl_owner_type __attribute__((unused));
enum kl_verdict_bits kl_verdict_type __attribute__((unused));
enum kl_allow_only kl_allow_only_type __attribute__((unused));
enum kl_answer kl_answer_type __attribute__((unused));
enum kl_event_kind kl_event_kind_type __attribute__((unused));
enum kl_feature kl_feature_type __attribute__((unused));
struct kl_edge kl_edge_type __attribute__((unused));
enum kl_edge_kind kl_edge_kind_type __attribute__((unused));
enum kl_group kl_group_type __attribute__((unused));
enum kl_edge_verdict kl_edge_verdict_type __attribute__((unused));
enum kl_service_bits kl_service_bits_type __attribute__((unused));
enum kl_edge_by kl_edge_by_type __attribute__((unused));
enum kl_graph_limits kl_graph_limits_type __attribute__((unused));
struct kl_edge_key kl_edge_key_type __attribute__((unused));
struct kl_trie_key kl_trie_key_type __attribute__((unused));
enum kl_graph_mode kl_graph_mode_type __attribute__((unused));
enum kl_graph_word kl_graph_word_type __attribute__((unused));
struct kl_counts kl_counts_type __attribute__((unused));

#define KL_PULL (KL_OFFSET_MASK + 1 + 64)

static __always_inline void *kl_data(void *ctx, enum kl_hook hook)
{
	return (void *)(long)(hook & KL_HOOK_TC ? ((struct __sk_buff *)ctx)->data :
						   ((struct xdp_md *)ctx)->data);
}

static __always_inline void *kl_end(void *ctx, enum kl_hook hook)
{
	return (void *)(long)(hook & KL_HOOK_TC ? ((struct __sk_buff *)ctx)->data_end :
						   ((struct xdp_md *)ctx)->data_end);
}

static __always_inline int kl_only_new(__u32 action)
{
	return action == KL_ACTION_LIMIT_NEW || action == KL_ACTION_LIMIT_NEW_BYTES;
}

/* A datagram that this host asked for. It opens nothing, whoever else is limited. */
static __always_inline int kl_was_asked(const struct kl_packet *pkt, __u32 jiffies)
{
	struct kl_question question = {
		.addr = { pkt->addr[0], pkt->addr[1], pkt->addr[2], pkt->addr[3] },
		.theirs = pkt->answers,
		.ours = bpf_ntohs(pkt->dport),
	};
	__u32 *asked = bpf_map_lookup_elem(&kl_questions, &question);

	return asked && jiffies - *asked < KL_ANSWER_S * kl_control.hz;
}

/* Default-deny is about edges: no allowed source is above it by that alone (kl_exempts). */
static __always_inline enum kl_reason kl_edge_stage(void *ctx, enum kl_hook hook,
						    const struct kl_packet *pkt,
						    const struct kl_source *src, __u32 jiffies,
						    enum kl_reason reason)
{
	enum kl_reason edge;

	if (pkt->probe)
		edge = kl_edge_asked(kl_data(ctx, hook), kl_end(ctx, hook), pkt, src);
	else
		edge = kl_edge_in(ctx, hook, kl_data(ctx, hook), kl_end(ctx, hook), pkt, src,
				  jiffies);
	return edge == KL_REASON_PASS ? reason : edge;
}

/* A source that is not denied: look at its transport header, count, limit. */
static __always_inline enum kl_reason kl_passing(void *data, void *end, struct kl_packet *pkt,
						 struct kl_source *src, __u32 verdict,
						 __u32 jiffies, struct kl_counts *counts)
{
	__u32 action = verdict & KL_VERDICT_ACTION;

	kl_parse_l4(data, end, pkt);
	if (kl_control.allow_only && kl_allow_only()) {
		if (pkt->odd == KL_REASON_ROUTING_0)
			return KL_REASON_ROUTING_0_DROP;
		if (!(verdict & KL_VERDICT_KNOWN)) {
			if (!kl_essential(data, end, pkt))
				return KL_REASON_NOT_ALLOWED;
			pkt->odd = KL_REASON_ESSENTIAL;
		}
	}
	if (!pkt->probe)
		kl_observe(src, pkt, counts);
	if (pkt->answers && (kl_only_new(action) || kl_only_new(kl_control.ceiling)) &&
	    kl_was_asked(pkt, jiffies))
		pkt->opens = 0;
	barrier();
	if (action == KL_ACTION_NONE && kl_control.ceiling &&
	    (pkt->opens || !kl_only_new(kl_control.ceiling)) &&
	    !kl_below_ceiling(pkt, jiffies)) {
		verdict = kl_promote(src, pkt, jiffies);
		if (!verdict)
			return KL_REASON_LIMIT;
		action = verdict & KL_VERDICT_ACTION;
	}
	if (action >= KL_ACTION_LIMIT_NEW && (pkt->opens || !kl_only_new(action)) &&
	    !kl_admit(src, pkt, verdict, jiffies))
		return KL_REASON_LIMIT;
	if (pkt->odd)
		return pkt->odd;
	if (action >= KL_ACTION_LIMIT_NEW)
		return KL_REASON_WITHIN_LIMIT;
	return action == KL_ACTION_ALLOW ? KL_REASON_ALLOW : KL_REASON_PASS;
}

static __always_inline enum kl_reason kl_judge(void *ctx, enum kl_hook hook,
					       struct kl_packet *pkt, struct kl_counts *counts)
{
	void *data = kl_data(ctx, hook), *end = kl_end(ctx, hook);
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
		reason = kl_passing(data, end, pkt, src, verdict, jiffies, counts);
	if (hook & KL_HOOK_GRAPH) {
		/* To memory and back: one state for the edge stage, not one per reason. */
		pkt->reason = reason;
		barrier();
		reason = pkt->reason;
		if (reason < KL_REASON_DROPS)
			reason = kl_edge_stage(ctx, hook, pkt, src, jiffies, reason);
	}
	src->drops += reason >= KL_REASON_DROPS;
	return reason;
}

/* A frame whose source cannot be read is nobody's that was allowed. */
static __always_inline enum kl_reason kl_unjudged(enum kl_hook hook, enum kl_reason passed,
						 enum kl_reason dropped)
{
	if (kl_control.allow_only && kl_allow_only())
		return dropped;
	return kl_edge_unread(hook, passed);
}

static __always_inline enum kl_reason kl_decide(void *ctx, enum kl_hook hook, struct kl_packet *pkt,
						struct kl_counts *counts)
{
	switch (kl_parse_source(kl_data(ctx, hook), kl_end(ctx, hook), pkt)) {
	case KL_IP_OK:
		/* Pointers loaded anew: the verifier forgets how many tags made them safe. */
		return kl_judge(ctx, hook, pkt, counts);
	case KL_IP_VLAN_DEPTH:
		return kl_unjudged(hook, KL_REASON_VLAN_DEPTH, KL_REASON_VLAN_DEPTH_DROP);
	case KL_IP_TRUNCATED:
		return kl_unjudged(hook, KL_REASON_TRUNCATED, KL_REASON_TRUNCATED_DROP);
	case KL_IP_NONE:
		break;
	}
	return KL_REASON_NOT_IP;
}

/*
 * 1 if the frame is userspace asking what would happen (`kernloom shield verdict`):
 * it begins with a number drawn for the occasion, and nobody who receives frames
 * knows it. As a number, so that the verifier sees one path.
 */
static __always_inline __u32 kl_probed(void *data, void *end)
{
	__u64 probe = kl_control.probe, diff = 0;
	const __u16 *mac = data;

	if (!probe || (void *)(mac + 4) > end)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++)
		diff |= mac[i] ^ (__u16)(probe >> 16 * i);
	return 1 - (__u32)((diff | -diff) >> 63);
}

/* `len` is the frame's, of which only the beginning may be readable. */
static __always_inline enum kl_reason kl_frame(void *ctx, enum kl_hook hook, __u32 len)
{
	__u32 probe = kl_probed(kl_data(ctx, hook), kl_end(ctx, hook));
	struct kl_cpu *cpu = bpf_map_lookup_elem(&kl_counters, &probe);
	struct kl_packet *pkt;
	enum kl_reason reason;

	if (!cpu)
		return KL_REASON_PASS;	/* cannot happen: both slots of an array exist */
	pkt = &cpu->packet;
	pkt->len = len;
	pkt->probe = probe;
	pkt->decided = KL_NO_ENTRY;
	barrier();	/* from here on the length comes from memory: no state per length */
	reason = kl_decide(ctx, hook, pkt, &cpu->counts);
	kl_count(&cpu->counts, reason, pkt->len);
	if (kl_config.test_clock || probe) {
		kl_control.test_reason = reason;
		kl_control.test_bits = pkt->decided;
	}
	return reason;
}

static __always_inline int kl_xdp(struct xdp_md *ctx, enum kl_hook hook, __u32 len)
{
	return kl_frame(ctx, hook, len) >= KL_REASON_DROPS ? XDP_DROP : XDP_PASS;
}

static __always_inline int kl_tc(struct __sk_buff *skb, enum kl_hook hook)
{
	/* As much as any header start this parser accepts, and the headers themselves. */
	if (skb->data_end - skb->data < skb->len)
		bpf_skb_pull_data(skb, skb->len < KL_PULL ? skb->len : KL_PULL);
	/* Not TC_ACT_OK: filters behind this one still get to see what passes. */
	return kl_frame(skb, hook, skb->len) >= KL_REASON_DROPS ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("xdp")
int kernloom(struct xdp_md *ctx)
{
	return kl_xdp(ctx, KL_HOOK_XDP, ctx->data_end - ctx->data);
}

SEC("xdp")
int kernloom_graph(struct xdp_md *ctx)
{
	return kl_xdp(ctx, KL_HOOK_XDP | KL_HOOK_GRAPH, ctx->data_end - ctx->data);
}

/* The same where the driver hands over frames in several buffers (Linux 5.18 and later). */
SEC("xdp.frags")
int kernloom_frags(struct xdp_md *ctx)
{
	return kl_xdp(ctx, KL_HOOK_XDP, bpf_xdp_get_buff_len(ctx));
}

SEC("xdp.frags")
int kernloom_frags_graph(struct xdp_md *ctx)
{
	return kl_xdp(ctx, KL_HOOK_XDP | KL_HOOK_GRAPH, bpf_xdp_get_buff_len(ctx));
}

/* The same behind the stack's packet buffer, for interfaces whose XDP hook is taken. */
SEC("tc")
int kernloom_tc(struct __sk_buff *skb)
{
	return kl_tc(skb, KL_HOOK_TC);
}

SEC("tc")
int kernloom_tc_graph(struct __sk_buff *skb)
{
	return kl_tc(skb, KL_HOOK_TC | KL_HOOK_GRAPH);
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
	__u32 zero = 0, slot = KL_SLOT_OUT, word = kl_graph_now();
	struct kl_edge_scratch *e = bpf_map_lookup_elem(&kl_edge_scratches, &slot);
	struct kl_cpu *cpu = bpf_map_lookup_elem(&kl_counters, &zero);
	struct kl_packet *pkt = bpf_map_lookup_elem(&kl_leaving, &zero);
	enum kl_reason reason;
	void *data, *end;

	if (!pkt || !e || !cpu || !(word & KL_GRAPH_MODE))
		return TC_ACT_UNSPEC;
	if (skb->data_end - skb->data < KL_LINEAR && skb->data_end - skb->data < skb->len)
		bpf_skb_pull_data(skb, skb->len < KL_LINEAR ? skb->len : KL_LINEAR);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	pkt->len = skb->len;
	reason = kl_edge_out(skb, data, end, pkt, e, word, &cpu->counts);
	if (reason == KL_REASON_PASS)
		return TC_ACT_UNSPEC;	/* other filters still get to see it */
	kl_count(&cpu->counts, reason, skb->len);
	return reason >= KL_REASON_DROPS ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MPL/GPL";
