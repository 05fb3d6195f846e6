/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * Conversations: what is a reply, and what was under way before the graph was
 * frozen. Only asked for packets of edges the graph does not allow.
 */
#ifndef KL_FLOWS_H
#define KL_FLOWS_H

#include "edges.h"

/* Socket states, by number because they are no uapi (include/net/tcp_states.h). */
enum {
	KL_SK_ESTABLISHED = 1,
	KL_SK_SYN_RECV = 3,
	KL_SK_CLOSE = 7,
	KL_SK_LISTEN = 10,
	KL_SK_NEW_SYN_RECV = 12,
};

/* How far beyond our SYN an acknowledgment may be to complete it: a blind guess fails 65535 of 65536. */
#define KL_ACK_WINDOW 65536

static __always_inline __u32 kl_flow_life(const struct kl_flow *flow, __u32 proto)
{
	__u32 hz = kl_control.hz;

	if (proto != IPPROTO_TCP)
		return KL_FLOW_UDP_S * hz;
	return (flow->stage == KL_FLOW_CLOSING ? KL_FLOW_CLOSING_S : KL_FLOW_TCP_S) * hz;
}

static __always_inline int kl_flow_lives(const struct kl_flow *flow, __u32 proto, __u32 jiffies)
{
	return jiffies - flow->seen < kl_flow_life(flow, proto);
}

/* Notes that a conversation goes on; a store per packet would move the cache line about. */
static __always_inline void kl_flow_touch(struct kl_flow *flow, const struct kl_edge_scratch *e,
					  __u32 proto, __u32 jiffies)
{
	if (proto == IPPROTO_TCP && e->flags & (KL_TCP_FIN | KL_TCP_RST))
		flow->stage = KL_FLOW_CLOSING;
	if (flow->stage != KL_FLOW_CLOSING && jiffies - flow->seen > kl_control.hz)
		flow->seen = jiffies;
}

static __always_inline void kl_flow_put(void *map, const struct kl_flow_key *key, __u32 stage,
					__u32 next, __u32 jiffies)
{
	struct kl_flow flow = { .seen = jiffies, .next = next, .stage = stage };

	bpf_map_update_elem(map, key, &flow, BPF_ANY);
}

/* The rest of the flow's key: kl_edge_ports has read the ports. */
static __always_inline void kl_flow_key_of(const struct kl_packet *pkt, struct kl_edge_scratch *e)
{
	e->flow.remote[0] = pkt->addr[0];
	e->flow.remote[1] = pkt->addr[1];
	e->flow.remote[2] = pkt->addr[2];
	e->flow.remote[3] = pkt->addr[3];
	e->flow.proto = pkt->proto;
}

static __always_inline __u32 kl_tuple(const struct kl_packet *pkt, struct kl_edge_scratch *e)
{
	if (pkt->family == ETH_P_IP) {
		e->tuple.ipv4.saddr = pkt->addr[3];
		e->tuple.ipv4.daddr = e->local[3];
		e->tuple.ipv4.sport = e->flow.rport;
		e->tuple.ipv4.dport = e->flow.lport;
		return sizeof(e->tuple.ipv4);
	}
	__builtin_memcpy(e->tuple.ipv6.saddr, pkt->addr, sizeof(e->tuple.ipv6.saddr));
	__builtin_memcpy(e->tuple.ipv6.daddr, e->local, sizeof(e->tuple.ipv6.daddr));
	e->tuple.ipv6.sport = e->flow.rport;
	e->tuple.ipv6.dport = e->flow.lport;
	return sizeof(e->tuple.ipv6);
}

/* State of the TCP socket of exactly this connection, or of the listener; 0 = none. */
static __always_inline __u32 kl_tcp_state(void *ctx, const struct kl_packet *pkt,
					  struct kl_edge_scratch *e)
{
	__u32 size = kl_tuple(pkt, e), state;
	struct bpf_sock *sk;

	if (size == sizeof(e->tuple.ipv4))
		sk = bpf_skc_lookup_tcp(ctx, &e->tuple, sizeof(e->tuple.ipv4), BPF_F_CURRENT_NETNS,
					0);
	else
		sk = bpf_skc_lookup_tcp(ctx, &e->tuple, sizeof(e->tuple.ipv6), BPF_F_CURRENT_NETNS,
					0);
	if (!sk)
		return 0;
	state = sk->state;
	bpf_sk_release(sk);
	return state;
}

static __always_inline int kl_tcp_connected(__u32 state)
{
	return state && state != KL_SK_SYN_RECV && state != KL_SK_CLOSE &&
	       state != KL_SK_LISTEN && state != KL_SK_NEW_SYN_RECV;
}

/* Whether a local UDP socket is connected to exactly this remote end. */
static __always_inline int kl_udp_connected(void *ctx, const struct kl_packet *pkt,
					    struct kl_edge_scratch *e)
{
	__u32 size = kl_tuple(pkt, e), remote;
	struct bpf_sock *sk;

	if (size == sizeof(e->tuple.ipv4))
		sk = bpf_sk_lookup_udp(ctx, &e->tuple, sizeof(e->tuple.ipv4), BPF_F_CURRENT_NETNS,
				       0);
	else
		sk = bpf_sk_lookup_udp(ctx, &e->tuple, sizeof(e->tuple.ipv6), BPF_F_CURRENT_NETNS,
				       0);
	if (!sk)
		return 0;
	remote = (__u16)(sk->dst_port);
	bpf_sk_release(sk);
	return remote != 0;
}

/* Counts that the edge e->key is one that works: what was opened along it was answered. */
static __always_inline void kl_edge_works(const struct kl_packet *pkt, struct kl_edge_scratch *e,
					  __u32 word, __u32 jiffies)
{
	struct kl_edge *way;

	if ((word & KL_GRAPH_MODE) == KL_GRAPH_ENFORCE)
		return;
	way = kl_edge_entry(e, pkt, word, jiffies);
	if (way)
		way->handshakes++;
}

/* The first answer to what this side opened. */
static __always_inline void kl_answered(const struct kl_packet *pkt, struct kl_edge_scratch *e,
					struct kl_flow *flow, __u32 word, __u32 jiffies)
{
	if (flow->stage != KL_FLOW_OPEN || (word & KL_GRAPH_MODE) == KL_GRAPH_ENFORCE)
		return;
	if (pkt->proto == IPPROTO_TCP && !(e->flags & KL_TCP_SYN))
		return;
	flow->stage = KL_FLOW_ANSWERED;
	e->key.service = kl_service(pkt, e->flow.rport, KL_EDGE_OUT);
	kl_edge_works(pkt, e, word, jiffies);
}

/* Whether the packet answers what this side opened. */
static __always_inline int kl_answers(const struct kl_packet *pkt, struct kl_edge_scratch *e,
				      __u32 word, __u32 jiffies)
{
	struct kl_flow *flow;

	if (pkt->proto == IPPROTO_TCP && kl_edge_opens(pkt, e))
		return 0;
	kl_flow_key_of(pkt, e);
	flow = bpf_map_lookup_elem(&kl_opened, &e->flow);
	if (!flow || !kl_flow_lives(flow, pkt->proto, jiffies))
		return 0;
	kl_answered(pkt, e, flow, word, jiffies);
	kl_flow_touch(flow, e, pkt->proto, jiffies);
	return 1;
}

/* Whether it belongs to a conversation that was under way before, as far as flows and sockets know. */
static __always_inline int kl_goes_on(void *ctx, const struct kl_packet *pkt,
				      struct kl_edge_scratch *e, __u32 jiffies)
{
	__u32 proto = pkt->proto, least = KL_FLOW_ANSWERED;
	struct kl_flow *flow;

	if (proto == IPPROTO_TCP && kl_edge_opens(pkt, e))
		return 0;
	if (proto == IPPROTO_TCP)
		least = KL_FLOW_COMPLETE;
	kl_flow_key_of(pkt, e);
	flow = bpf_map_lookup_elem(&kl_accepted, &e->flow);
	if (flow && flow->stage >= least && flow->stage != KL_FLOW_VIOLATION &&
	    kl_flow_lives(flow, proto, jiffies)) {
		kl_flow_touch(flow, e, proto, jiffies);
		return 1;
	}
	if (proto == IPPROTO_TCP)
		return kl_tcp_connected(kl_tcp_state(ctx, pkt, e));
	if (proto != IPPROTO_UDP)
		return 0;
	if (kl_udp_connected(ctx, pkt, e))
		return 1;
	__builtin_memset(e->flow.remote, 0, sizeof(e->flow.remote));
	flow = bpf_map_lookup_elem(&kl_opened, &e->flow);
	return flow && kl_flow_lives(flow, proto, jiffies);
}

/* Notes a conversation that the other side opened, so that our answers are answers. */
static __always_inline void kl_flow_note(const struct kl_packet *pkt, struct kl_edge_scratch *e,
					 struct kl_edge *way, __u32 stage, __u32 jiffies)
{
	struct kl_flow *flow;

	kl_flow_key_of(pkt, e);
	flow = bpf_map_lookup_elem(&kl_accepted, &e->flow);
	if (flow && kl_flow_lives(flow, pkt->proto, jiffies)) {
		kl_flow_touch(flow, e, pkt->proto, jiffies);
		return;
	}
	kl_flow_put(&kl_accepted, &e->flow, stage, 0, jiffies);
	way->connections++;
}

/* Whether this packet is what completes the connection that our side answered; once for each. */
static __always_inline __u32 kl_completes(const struct kl_edge_scratch *e, struct kl_flow *flow)
{
	if (flow->stage != KL_FLOW_ANSWERED ||
	    bpf_ntohl(e->ack) - bpf_ntohl(flow->next) >= KL_ACK_WINDOW)
		return 0;
	flow->stage = KL_FLOW_COMPLETE;
	return 1;
}

/*
 * What an inbound packet of an edge that may be used says of its connection:
 * whether both ends completed it, and that our answers to it are answers.
 */
static __always_inline void kl_accept(void *ctx, const struct kl_packet *pkt,
				      struct kl_edge_scratch *e, struct kl_edge *way, __u32 stage,
				      __u32 jiffies)
{
	struct kl_flow *flow;
	__u32 done = 0;

	if (pkt->proto != IPPROTO_TCP) {
		kl_flow_note(pkt, e, way, stage, jiffies);
		return;
	}
	if (kl_edge_opens(pkt, e)) {
		way->connections++;
		return;
	}
	if (way->handshakes >= way->connections)
		return;
	kl_flow_key_of(pkt, e);
	flow = bpf_map_lookup_elem(&kl_accepted, &e->flow);
	if (flow)
		done = kl_completes(e, flow);
	else
		done = kl_tcp_connected(kl_tcp_state(ctx, pkt, e));
	way->handshakes += done;
}

/*
 * A connection that was met in its middle. Where its beginning is known, another
 * CPU saw and counted it; only its completion may be left to count.
 */
static __always_inline void kl_accept_middle(const struct kl_packet *pkt,
					     struct kl_edge_scratch *e, struct kl_edge *way)
{
	struct kl_flow *flow;

	kl_flow_key_of(pkt, e);
	flow = bpf_map_lookup_elem(&kl_accepted, &e->flow);
	if (flow) {
		way->handshakes += kl_completes(e, flow);
		return;
	}
	way->connections++;
	way->handshakes++;
}

/*
 * A connection older than the program, seen in its middle: an edge if this host
 * listens on the port, for then the other side opened it. Asked with port 0 for
 * the remote one, which only a listener answers.
 */
static __always_inline int kl_was_accepted(void *ctx, const struct kl_packet *pkt,
					   struct kl_edge_scratch *e)
{
	__u16 rport = e->flow.rport;
	__u32 state;

	if (pkt->proto != IPPROTO_TCP || !kl_tcp_connected(kl_tcp_state(ctx, pkt, e)))
		return 0;
	e->flow.rport = 0;
	state = kl_tcp_state(ctx, pkt, e);
	e->flow.rport = rport;
	return state == KL_SK_LISTEN;
}

#endif
