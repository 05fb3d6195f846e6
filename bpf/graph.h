/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * The edge stage: learning who opens what, and default-deny for what the frozen
 * graph lacks. Inbound behind the limiter, outbound in a TC companion.
 *
 * What always passes: non-IP, ICMP errors, neighbour discovery and multicast
 * listener reports, DHCP answers, and whatever goes on with a conversation that
 * this side opened or that was under way before. What the graph is silent about
 * passes for an exempt source, too; what was denied does not. A violation costs
 * its packet, and its source nothing.
 */
#ifndef KL_GRAPH_H
#define KL_GRAPH_H

#include "edges.h"
#include "essential.h"
#include "flows.h"
#include "policy.h"
#include "telemetry.h"

#define KL_PORT_DHCP_SERVER 67
#define KL_PORT_DHCP_CLIENT 68
#define KL_PORT_DHCP6_CLIENT 546
#define KL_PORT_DHCP6_SERVER 547
#define KL_TCP_SEQ 4
#define KL_TCP_ACK_SEQ 8
#define KL_SOCK_STREAM 1

static __always_inline int kl_edge_drops(enum kl_reason reason)
{
	return reason >= KL_REASON_DROPS;
}

/* What to do where the graph has no allowing answer, by mode. */
static __always_inline enum kl_reason kl_edge_missing(__u32 word, enum kl_reason reason)
{
	__u32 mode = word & KL_GRAPH_MODE;

	if (mode == KL_GRAPH_ENFORCE)
		return reason;
	return mode == KL_GRAPH_OBSERVE ? KL_REASON_EDGE_OBSERVED : KL_REASON_PASS;
}

static __always_inline enum kl_reason kl_edge_reason(__u32 word, __u32 verdict)
{
	if (verdict == KL_EDGE_ALLOWED)
		return KL_REASON_PASS;
	if (verdict == KL_EDGE_DENIED)
		return KL_REASON_EDGE_DENIED;
	return kl_edge_missing(word, KL_REASON_EDGE_UNKNOWN);
}

/* The same where the source counts. */
static __always_inline enum kl_reason kl_edge_silent(const struct kl_edge_scratch *e, __u32 word,
						     enum kl_reason reason)
{
	return e->exempt ? KL_REASON_PASS : kl_edge_missing(word, reason);
}

/* What the graph's answer comes to for this source. Never kept: an exemption ends without it. */
static __always_inline __u32 kl_edge_allows(const struct kl_edge_scratch *e, __u32 verdict)
{
	return verdict == KL_EDGE_UNKNOWN && e->exempt ? KL_EDGE_ALLOWED : verdict;
}

/* What cannot be judged by an edge at all: too many tags, no complete header. */
static __always_inline enum kl_reason kl_edge_unread(enum kl_hook hook, enum kl_reason reason)
{
	enum kl_reason missing;

	if (!(hook & KL_HOOK_GRAPH))
		return reason;
	missing = kl_edge_missing(kl_graph_now(), KL_REASON_EDGE_UNREAD);
	return missing == KL_REASON_PASS ? reason : missing;
}

/* The near end of what comes in, the far end of what leaves: the destination. */
static __always_inline int kl_destination(void *data, void *end, const struct kl_packet *pkt,
					  __u32 *addr)
{
	__u64 l3 = pkt->l3 & KL_OFFSET_MASK;
	struct ipv6hdr *ip6 = data + l3;
	struct iphdr *ip4 = data + l3;

	if (pkt->family == ETH_P_IP) {
		if ((void *)(ip4 + 1) > end)
			return 0;
		addr[0] = 0;
		addr[1] = 0;
		addr[2] = bpf_htonl(0xffff);
		addr[3] = ip4->daddr;
		return 1;
	}
	if ((void *)(ip6 + 1) > end)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++)
		addr[i] = ip6->daddr.in6_u.u6_addr32[i];
	return 1;
}

static __always_inline int kl_is_cast(const struct kl_packet *pkt, const __u32 *addr)
{
	return pkt->family == ETH_P_IP ? kl_is_cast4(addr[3]) : kl_is_cast6(addr[0]);
}

/*
 * What passes whatever the graph says; e->flow as of a packet that comes in. DHCPv4 is renewed
 * across routers, DHCPv6 with link-local addresses alone (RFC 8415, 5): `near` says so of the
 * other end. IGMP is IPv4's: what it does, IPv6 has in ICMPv6 (RFC 3810, 1).
 */
static __always_inline int kl_always(void *data, void *end, const struct kl_packet *pkt,
				     const struct kl_edge_scratch *e, int near)
{
	__u16 server = bpf_htons(KL_PORT_DHCP6_SERVER), client = bpf_htons(KL_PORT_DHCP6_CLIENT);

	if (kl_essential(data, end, pkt))
		return 1;
	if (pkt->family == ETH_P_IP) {
		if (pkt->proto == IPPROTO_IGMP)
			return 1;
		server = bpf_htons(KL_PORT_DHCP_SERVER);
		client = bpf_htons(KL_PORT_DHCP_CLIENT);
	} else if (!near) {
		return 0;
	}
	return pkt->proto == IPPROTO_UDP && e->flow.rport == server && e->flow.lport == client;
}

/* Tells userspace of an edge's first violation, and of each doubling of them. */
static __always_inline void kl_violation(const struct kl_packet *pkt, struct kl_edge_scratch *e,
					 struct kl_edge *way, __u32 jiffies,
					 struct kl_counts *counts)
{
	struct kl_event event = {
		.source = { pkt->addr[0], pkt->addr[1], pkt->addr[2], pkt->addr[3] },
		.kind = KL_EVENT_VIOLATION,
		.value = e->key.service,
	};
	__u32 slot = jiffies / KL_GRAPH_EVENT_JIFFIES;

	way->violations++;
	if (way->violations & (way->violations - 1))
		return;
	if (e->event_slot != slot) {
		e->event_slot = slot;
		e->event_sent = 0;
	}
	if (e->event_sent++ >= KL_GRAPH_EVENTS)
		return;
	event.time_ns = kl_now_ns();
	if (bpf_ringbuf_output(&kl_events, &event, sizeof(event), 0) && counts)
		counts->events_lost++;
}

static __always_inline void kl_edge_count(struct kl_edge *way, const struct kl_packet *pkt,
					  __u32 jiffies)
{
	way->packets++;
	way->bytes += pkt->len;
	way->seen = jiffies;
}

static __always_inline void kl_frag_key_of(const struct kl_packet *pkt, struct kl_edge_scratch *e)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		e->frag.source[i] = pkt->addr[i];
		e->frag.destination[i] = e->local[i];
	}
	e->frag.id = pkt->frag_id;
}

static __always_inline enum kl_reason kl_later_fragment(const struct kl_packet *pkt,
							struct kl_edge_scratch *e, __u32 word,
							__u32 jiffies)
{
	__u32 *seen;

	kl_frag_key_of(pkt, e);
	seen = bpf_map_lookup_elem(&kl_frags, &e->frag);
	if (seen && jiffies - *seen < KL_FRAG_S * kl_control.hz)
		return KL_REASON_PASS;
	return kl_edge_silent(e, word, KL_REASON_EDGE_FRAGMENT);
}

static __always_inline void kl_edge_key_in(const struct kl_packet *pkt, struct kl_edge_scratch *e,
					   int cast)
{
	kl_edge_key_of(pkt, e, e->flow.lport, cast ? KL_EDGE_CAST : KL_EDGE_IN);
}

/* The edge's entry if there is one. */
static __always_inline struct kl_edge *kl_edge_known(const struct kl_edge_key *key)
{
	struct kl_edge_set *set = kl_edge_set_of(key->peer, key->service);

	return set ? kl_edge_find(set, key->peer, key->service) : NULL;
}

/* An inbound packet of an edge that is not known to be allowed. */
static __always_inline enum kl_reason kl_edge_unknown(void *ctx, void *data, void *end,
						      const struct kl_packet *pkt,
						      struct kl_edge_scratch *e,
						      struct kl_counts *counts)
{
	struct kl_edge *way = kl_edge_known(&e->key);
	__u32 word = e->word, jiffies = e->jiffies;
	__u32 learning = (word & KL_GRAPH_MODE) == KL_GRAPH_LEARN, middle = 0;
	__u32 cast = e->key.service >> KL_SERVICE_KIND_SHIFT == KL_EDGE_CAST, stage = KL_FLOW_OPEN;
	enum kl_reason reason;
	__u32 answer, verdict, known = 0;

	if (kl_always(data, end, pkt, e, kl_link_local(pkt->addr[0])))
		return KL_REASON_PASS;
	if (way)
		known = 1;
	barrier_var(known);	/* or clang ors the pointer with a flag, which no verifier takes */
	if (!(learning && known) && !cast && kl_answers(pkt, e, word, jiffies))
		return KL_REASON_PASS;
	if (!cast && *(__u8 *)data & 1 && kl_group_of(e->local, word) == KL_GROUP_BROADCAST) {
		cast = 1;
		way = NULL;
	}
	kl_edge_key_in(pkt, e, cast);
	if (learning && !known && !cast && !kl_edge_opens(pkt, e)) {
		middle = kl_was_accepted(ctx, pkt, e);
		if (!middle)
			return KL_REASON_PASS;
		known = 1;
	}
	answer = kl_edge_answer(e, pkt, way, word);
	verdict = kl_edge_allows(e, answer & 0xff);
	reason = kl_edge_reason(word, verdict);
	if ((answer & 0xff) != KL_EDGE_ALLOWED && !(learning && known) && !cast &&
	    kl_goes_on(ctx, pkt, e, jiffies))
		return KL_REASON_PASS;
	way = cast ? kl_edge_entry(e, pkt, word, jiffies) :
		     kl_edge_keep(e, way, answer, word, jiffies);
	if (!way)
		return reason;
	kl_edge_count(way, pkt, jiffies);
	if (reason != KL_REASON_PASS)
		kl_violation(pkt, e, way, jiffies, counts);
	if (kl_edge_drops(reason) || cast)
		return reason;
	if ((word & KL_GRAPH_MODE) == KL_GRAPH_ENFORCE) {
		if (verdict != (answer & 0xff))
			kl_flow_note(pkt, e, way, KL_FLOW_OPEN, jiffies);
		return reason;
	}
	if (middle)
		kl_accept_middle(pkt, e, way);
	if (reason == KL_REASON_EDGE_OBSERVED)
		stage = KL_FLOW_VIOLATION;
	kl_accept(ctx, pkt, e, way, stage, jiffies);
	return reason;
}

static __always_inline int kl_edge_slowly(void *ctx, void *data, void *end)
{
	__u32 zero = 0, slot = KL_SLOT_IN;
	struct kl_edge_scratch *e = bpf_map_lookup_elem(&kl_edge_scratches, &slot);
	struct kl_cpu *cpu = bpf_map_lookup_elem(&kl_counters, &zero);

	if (!e || !cpu || data + sizeof(struct ethhdr) > end)
		return KL_REASON_PASS;	/* cannot happen: kl_edge_in had all three */
	return kl_edge_unknown(ctx, data, end, &cpu->packet, e, &cpu->counts);
}

/*
 * Functions of their own to the verifier, which then looks at them once instead of
 * once per way to get there. They may be handed no pointer but the context (5.10).
 */
__noinline int kl_edge_slow_xdp(struct xdp_md *ctx)
{
	return kl_edge_slowly(ctx, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
}

__noinline int kl_edge_slow_tc(struct __sk_buff *skb)
{
	return kl_edge_slowly(skb, (void *)(long)skb->data, (void *)(long)skb->data_end);
}

static __always_inline enum kl_reason kl_edge_judged(void *ctx, enum kl_hook hook,
						     void *data, void *end,
						     const struct kl_packet *pkt,
						     struct kl_edge_scratch *e)
{
	__u32 word = e->word;
	struct kl_edge *way;

	if (pkt->odd >= KL_REASON_EXT_DEPTH || !kl_edge_ports(data, end, pkt, e, KL_TCP_ACK_SEQ))
		return kl_edge_silent(e, word, KL_REASON_EDGE_UNREAD);
	kl_edge_key_in(pkt, e, kl_is_cast(pkt, e->local));
	way = kl_edge_known(&e->key);
	if (way && way->stamp == word && way->verdict == KL_EDGE_ALLOWED &&
	    (word & KL_GRAPH_MODE) == KL_GRAPH_ENFORCE) {
		kl_edge_count(way, pkt, e->jiffies);
		return KL_REASON_PASS;
	}
	return hook & KL_HOOK_TC ? kl_edge_slow_tc(ctx) : kl_edge_slow_xdp(ctx);
}

/* The reason a packet that passed everything else is dropped for, KL_REASON_PASS if it is not. */
static __always_inline enum kl_reason kl_edge_any(void *ctx, enum kl_hook hook, void *data,
						  void *end, const struct kl_packet *pkt,
						  const struct kl_source *src, __u32 word,
						  __u32 jiffies)
{
	__u32 slot = KL_SLOT_IN;
	struct kl_edge_scratch *e = bpf_map_lookup_elem(&kl_edge_scratches, &slot);
	enum kl_reason reason;

	if (!e)
		return KL_REASON_PASS;	/* cannot happen: slot 0 of an array exists */
	e->word = word;
	e->jiffies = jiffies;
	e->exempt = kl_is_exempt(src->verdict);
	if (!kl_destination(data, end, pkt, e->local))
		return kl_edge_silent(e, e->word, KL_REASON_EDGE_UNREAD);
	if (pkt->odd == KL_REASON_FRAGMENT_LATER)
		return kl_later_fragment(pkt, e, e->word, e->jiffies);
	reason = kl_edge_judged(ctx, hook, data, end, pkt, e);
	if (pkt->more && !kl_edge_drops(reason)) {
		kl_frag_key_of(pkt, e);
		bpf_map_update_elem(&kl_frags, &e->frag, &e->jiffies, BPF_ANY);
	}
	return reason;
}

/*
 * 1 if the packet is a plain one of an edge that was found allowed before, which then is
 * all there is to do. kl_parse_l4 has read what it takes: no header is looked at again.
 */
static __always_inline int kl_edge_plain(const struct kl_packet *pkt, __u32 word, __u32 jiffies)
{
	__u32 service = bpf_ntohs(pkt->dport) | pkt->proto << KL_SERVICE_PROTO_SHIFT |
			kl_edge_host(pkt);
	struct kl_edge_set *set;
	struct kl_edge *way;

	if ((word & KL_GRAPH_MODE) != KL_GRAPH_ENFORCE || pkt->odd || !pkt->ports || pkt->cast)
		return 0;
	set = kl_edge_set_of(pkt->addr, service);
	if (!set)
		return 0;	/* cannot happen: the index is masked to the table */
	way = &set->way[KL_WAYS - 1];	/* claimed first, and the only one in most sets */
	if (kl_edge_differs(way, pkt->addr, service))
		way = kl_edge_find(set, pkt->addr, service);
	if (!way || way->stamp != word || way->verdict != KL_EDGE_ALLOWED)
		return 0;
	kl_edge_count(way, pkt, jiffies);
	return 1;
}

static __always_inline enum kl_reason kl_edge_in(void *ctx, enum kl_hook hook, void *data,
						 void *end, const struct kl_packet *pkt,
						 const struct kl_source *src, __u32 jiffies)
{
	__u32 word = kl_graph_now();

	if (!(word & KL_GRAPH_MODE) || kl_edge_plain(pkt, word, jiffies))
		return KL_REASON_PASS;
	return kl_edge_any(ctx, hook, data, end, pkt, src, word, jiffies);
}

/* What the graph says of a probe as a new conversation; leaves no trace. */
static __always_inline enum kl_reason kl_edge_asked(void *data, void *end,
						    const struct kl_packet *pkt,
						    const struct kl_source *src)
{
	__u32 slot = KL_SLOT_PROBE, word = kl_graph_now(), answer, verdict;
	struct kl_edge_scratch *e = bpf_map_lookup_elem(&kl_edge_scratches, &slot);

	kl_control.test_edge = KL_EDGE_BY_NONE;
	if (!e || !(word & KL_GRAPH_MODE))
		return KL_REASON_PASS;
	e->exempt = kl_is_exempt(src->verdict);
	if (!kl_destination(data, end, pkt, e->local) ||
	    !kl_edge_ports(data, end, pkt, e, KL_TCP_ACK_SEQ))
		return kl_edge_silent(e, word, KL_REASON_EDGE_UNREAD);
	kl_edge_key_in(pkt, e, 0);
	answer = kl_edge_judge(e, pkt, kl_group_of(pkt->addr, word) & 0xff, word);
	verdict = kl_edge_allows(e, answer);
	kl_control.test_edge = verdict == answer ? e->by : KL_EDGE_BY_EXEMPT;
	return kl_edge_reason(word, verdict);
}

#endif
