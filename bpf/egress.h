/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * The TC companion: what leaves. It records what this side opens, so that the
 * answers pass, sees which inbound connections are answered, and holds outbound
 * edges to the graph. Also for forwarded and container traffic.
 */
#ifndef KL_EGRESS_H
#define KL_EGRESS_H

#include "graph.h"

/* The destination as the source of what comes in. */
static __always_inline int kl_parse_leaving(void *data, void *end, struct kl_packet *pkt)
{
	__u64 l3 = pkt->l3 & KL_OFFSET_MASK;
	struct ipv6hdr *ip6 = data + l3;
	struct iphdr *ip4 = data + l3;
	__u32 frag;

	if (!kl_destination(data, end, pkt, pkt->addr))
		return 0;
	pkt->odd = pkt->more = 0;
	pkt->end = pkt->len;
	if (pkt->family == ETH_P_IP) {
		if ((void *)(ip4 + 1) > end)
			return 0;
		pkt->ttl = ip4->ttl;
		pkt->l4 = l3 + ip4->ihl * 4;
		pkt->proto = ip4->protocol;
		frag = bpf_ntohs(ip4->frag_off);
		if (!kl_fragment(pkt, frag & KL_FRAG4_OFFSET, frag & KL_FRAG4_MORE))
			pkt->proto = KL_IPPROTO_NONE;
	} else {
		if ((void *)(ip6 + 1) > end)
			return 0;
		pkt->ttl = ip6->hop_limit;
		pkt->l4 = l3 + sizeof(*ip6);
		pkt->proto = ip6->nexthdr;
		kl_identify6(pkt);
		kl_walk_ext(data, end, pkt);
	}
	return 1;
}

/* A stream socket of this host: its SYN was judged, or it is older than the graph. */
static __always_inline int kl_from_stream(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->type == KL_SOCK_STREAM && sk->protocol == IPPROTO_TCP;
}

/* Whether the graph allows the inbound edge that this packet would be an answer to. */
static __always_inline int kl_answers_allowed(const struct kl_packet *pkt,
					      struct kl_edge_scratch *e, __u32 word)
{
	kl_edge_key_of(pkt, e, e->flow.lport, KL_EDGE_IN);
	return kl_edge_judge(e, pkt, kl_group_of(pkt->addr, word) & 0xff, word) == KL_EDGE_ALLOWED;
}

/* Whether the packet answers, or goes on with, something; else it opens something. */
static __always_inline int kl_leaves_on(struct __sk_buff *skb, const struct kl_packet *pkt,
					struct kl_edge_scratch *e, __u32 word, __u32 jiffies)
{
	__u32 mode = word & KL_GRAPH_MODE, proto = pkt->proto;
	struct kl_flow *flow;

	if (proto == IPPROTO_TCP && kl_edge_opens(pkt, e))
		return 0;
	if (proto == IPPROTO_TCP && e->flags & KL_TCP_SYN && mode != KL_GRAPH_ENFORCE) {
		kl_flow_put(&kl_accepted, &e->flow, KL_FLOW_ANSWERED,
			    bpf_htonl(bpf_ntohl(e->ack) + 1), jiffies);
		return 1;
	}
	flow = bpf_map_lookup_elem(&kl_opened, &e->flow);
	if (flow && kl_flow_lives(flow, proto, jiffies)) {
		kl_flow_touch(flow, e, proto, jiffies);
		return 1;
	}
	flow = bpf_map_lookup_elem(&kl_accepted, &e->flow);
	if (flow && kl_flow_lives(flow, proto, jiffies)) {
		if (flow->stage == KL_FLOW_OPEN && proto != IPPROTO_TCP) {
			flow->stage = KL_FLOW_ANSWERED;
			kl_edge_key_of(pkt, e, e->flow.lport, KL_EDGE_IN);
			kl_edge_works(pkt, e, word, jiffies);
		}
		kl_flow_touch(flow, e, proto, jiffies);
		return 1;
	}
	if (kl_is_echo_reply(pkt, e))
		return 1;
	/* What is refused where nothing is enforced was let in, and is no edge of ours. */
	if (proto == IPPROTO_TCP && mode != KL_GRAPH_ENFORCE && e->flags & KL_TCP_RST)
		return 1;
	if (proto == IPPROTO_TCP && (mode == KL_GRAPH_LEARN || kl_from_stream(skb)))
		return 1;
	return mode != KL_GRAPH_LEARN && kl_answers_allowed(pkt, e, word);
}

static __always_inline enum kl_reason kl_edge_leaving(const struct kl_packet *pkt,
						      struct kl_edge_scratch *e, __u32 word,
						      __u32 jiffies, struct kl_counts *counts)
{
	enum kl_reason reason;
	struct kl_edge *way;

	kl_edge_key_of(pkt, e, e->flow.rport, KL_EDGE_OUT);
	way = kl_edge_entry(e, pkt, word, jiffies);
	if (!way)
		return kl_edge_missing(word, KL_REASON_EDGE_UNKNOWN);
	reason = kl_edge_reason(word, way->verdict);
	kl_edge_count(way, pkt, jiffies);
	way->connections++;
	if (reason != KL_REASON_PASS)
		kl_violation(pkt, e, way, jiffies, counts);
	if (!kl_edge_drops(reason))
		kl_flow_put(&kl_opened, &e->flow, KL_FLOW_OPEN, 0, jiffies);
	return reason;
}

static __always_inline enum kl_reason kl_edge_out(struct __sk_buff *skb, void *data, void *end,
						  struct kl_packet *pkt, struct kl_edge_scratch *e,
						  __u32 word, struct kl_counts *counts)
{
	__u32 jiffies = kl_jiffies();
	__u16 port;
	int cast;

	if (kl_parse_ether(data, end, pkt) != KL_IP_OK || !kl_parse_leaving(data, end, pkt))
		return KL_REASON_PASS;
	if (pkt->odd == KL_REASON_FRAGMENT_LATER)
		return KL_REASON_PASS;	/* worth nothing without its first */
	if (!kl_edge_ports(data, end, pkt, e, KL_TCP_SEQ))
		return kl_edge_missing(word, KL_REASON_EDGE_UNREAD);
	port = e->flow.rport;
	e->flow.rport = e->flow.lport;
	e->flow.lport = port;
	if (pkt->proto == IPPROTO_ICMP || pkt->proto == IPPROTO_ICMPV6) {
		e->flow.lport = e->flow.rport;
		e->flow.rport = 0;
	}
	cast = kl_is_cast(pkt, pkt->addr);
	if (kl_always(data, end, pkt, e, cast || kl_link_local(pkt->addr[0])))
		return KL_REASON_PASS;
	kl_flow_key_of(pkt, e);
	if (cast) {
		__builtin_memset(e->flow.remote, 0, sizeof(e->flow.remote));
		kl_flow_put(&kl_opened, &e->flow, KL_FLOW_OPEN, 0, jiffies);
		return KL_REASON_PASS;
	}
	if (kl_leaves_on(skb, pkt, e, word, jiffies))
		return KL_REASON_PASS;
	return kl_edge_leaving(pkt, e, word, jiffies, counts);
}

#endif
