/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * The edge table: which edge a packet belongs to, and what the graph says of it.
 *
 * Shaped as the source table. An entry caches the graph's answer, stamped with
 * the word it was given under: a known edge costs one array access and no hash
 * lookup, whatever its group.
 */
#ifndef KL_EDGES_H
#define KL_EDGES_H

#include "config.h"
#include "graph_maps.h"
#include "sources.h"
#include "parse.h"

#define KL_SERVICE_ANY_KIND ((1u << KL_SERVICE_KIND_SHIFT) - 1)
#define KL_TCP_FIN 0x01
#define KL_TCP_SYN 0x02
#define KL_TCP_RST 0x04
#define KL_TCP_ACK 0x10
#define KL_ICMP_ECHO_REPLY 0
#define KL_ICMP_ECHO 8
#define KL_ICMP6_ECHO 128
#define KL_ICMP6_ECHO_REPLY 129
#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif
#ifndef IPPROTO_DCCP
#define IPPROTO_DCCP 33
#endif
#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

/* The mode and graph that apply now: an unconfirmed lease that ran out falls back. */
static __always_inline __u32 kl_graph_now(void)
{
	__u32 word = kl_graph.word;

	if (kl_graph.lease_ns && kl_now_ns() >= kl_graph.lease_ns)
		word = (word & ~(__u32)KL_GRAPH_NOW) |
		       ((word >> KL_GRAPH_AFTER_SHIFT) & KL_GRAPH_NOW);
	return word & ~((__u32)KL_GRAPH_NOW << KL_GRAPH_AFTER_SHIFT);
}

static __always_inline int kl_has_ports(__u32 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

static __always_inline int kl_is_echo_reply(const struct kl_packet *pkt,
					    const struct kl_edge_scratch *e)
{
	return (pkt->proto == IPPROTO_ICMP && e->flags == KL_ICMP_ECHO_REPLY) ||
	       (pkt->proto == IPPROTO_ICMPV6 && e->flags == KL_ICMP6_ECHO_REPLY);
}

/* Whether the packet would open something, rather than go on with it. */
static __always_inline int kl_edge_opens(const struct kl_packet *pkt,
					 const struct kl_edge_scratch *e)
{
	if (pkt->proto == IPPROTO_TCP)
		return (e->flags & (KL_TCP_SYN | KL_TCP_ACK | KL_TCP_RST)) == KL_TCP_SYN;
	return !kl_is_echo_reply(pkt, e);
}

/*
 * Ports, flags and the like into the scratch, as of a packet that comes in; 0 if
 * they are not all there. `number`: offset of the TCP number that is wanted.
 */
static __always_inline int kl_edge_ports(void *data, void *end, const struct kl_packet *pkt,
					 struct kl_edge_scratch *e, __u32 number)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	const __u8 *l4 = data + off;

	e->flags = 0;
	e->flow.rport = 0;
	e->flow.lport = 0;
	if (pkt->proto == KL_IPPROTO_NONE)
		return 0;
	if (pkt->proto == IPPROTO_ICMP || pkt->proto == IPPROTO_ICMPV6) {
		if (!kl_has(data, end, pkt, off, 8))
			return 0;
		e->flags = l4[0];
		e->flow.lport = *(const __u16 *)(l4 + 4);	/* the identifier of an echo */
		return 1;
	}
	if (!kl_has_ports(pkt->proto))
		return 1;
	if (!kl_has(data, end, pkt, off, 4))
		return 0;
	e->flow.rport = *(const __u16 *)l4;
	e->flow.lport = *(const __u16 *)(l4 + 2);
	if (pkt->proto == IPPROTO_TCP) {
		if (!kl_has(data, end, pkt, off, 14))
			return 0;
		e->flags = l4[13];
		e->ack = *(const __u32 *)(l4 + number);
	}
	return 1;
}

/* Of IPv6: an address is not its prefix, and none passes for the IPv4 that is mapped to it. */
static __always_inline __u32 kl_edge_host(const struct kl_packet *pkt)
{
	return (pkt->family == ETH_P_IPV6) * (KL_EDGE_HOST << KL_SERVICE_KIND_SHIFT);
}

/* `port` in network order; it does not count where the protocol has none. */
static __always_inline __u32 kl_service(const struct kl_packet *pkt, __u16 port, __u32 kind)
{
	return (kl_has_ports(pkt->proto) ? bpf_ntohs(port) : 0) |
	       (pkt->proto & 0xff) << KL_SERVICE_PROTO_SHIFT | kind << KL_SERVICE_KIND_SHIFT |
	       (kind == KL_EDGE_CAST ? 0 : kl_edge_host(pkt));
}

/* The key of the packet's edge. */
static __always_inline void kl_edge_key_of(const struct kl_packet *pkt, struct kl_edge_scratch *e,
					   __u16 port, __u32 kind)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		e->key.peer[i] = kind == KL_EDGE_CAST ? 0 : pkt->addr[i];
	e->key.service = kl_service(pkt, port, kind);
}

/* As kl_differs. */
static __always_inline __u64 kl_edge_differs(const struct kl_edge *way, const __u32 *peer,
					     __u32 service)
{
	const __u64 *a = (const __u64 *)way->key.peer, *b = (const __u64 *)peer;
	__u64 diff = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (way->key.service ^ service);
	__u64 unused = (__u64)way->stamp - 1;

	return (diff | -diff | unused) >> 63;
}

/* As kl_replaceable. */
static __always_inline __u64 kl_edge_replaceable(const struct kl_edge *way, __u32 jiffies,
						 __u64 number)
{
	__u64 age = (jiffies - way->seen) >> KL_AGE_SHIFT;
	__u64 unused = way->stamp == 0;

	return unused << 63 | age << 34 | (__u64)(__u32)~way->packets << 2 | number;
}

static __always_inline struct kl_edge_set *kl_edge_set_of(const __u32 *peer, __u32 service)
{
	__u64 sum = kl_hash_sum(peer) + kl_config.port_seed * service;
	__u32 index = bpf_get_smp_processor_id() * (kl_config.edge_mask + 1) +
		      ((__u32)(sum >> 32) & kl_config.edge_mask);

	return bpf_map_lookup_elem(&kl_edges, &index);
}

/* The way that holds the edge, or NULL. */
static __always_inline struct kl_edge *kl_edge_find(struct kl_edge_set *set, const __u32 *peer,
						    __u32 service)
{
	__u64 found = (1 - kl_edge_differs(&set->way[0], peer, service)) |
		      (1 - kl_edge_differs(&set->way[1], peer, service)) << 1 |
		      (1 - kl_edge_differs(&set->way[2], peer, service)) << 2 |
		      (1 - kl_edge_differs(&set->way[3], peer, service)) << 3;
	__u64 index = (found >> 1) - (found >> 3);

	barrier_var(index);	/* one state of the verifier's, not one per way */
	return found ? &set->way[index & (KL_WAYS - 1)] : NULL;
}

/* Takes a way over; in an order that lets userspace read without a lock, as kl_claim. */
static __always_inline struct kl_edge *kl_edge_claim(struct kl_edge_set *set,
						     const struct kl_edge_key *key, __u32 jiffies)
{
	__u64 a = kl_most(kl_edge_replaceable(&set->way[0], jiffies, 0),
			  kl_edge_replaceable(&set->way[1], jiffies, 1));
	__u64 b = kl_most(kl_edge_replaceable(&set->way[2], jiffies, 2),
			  kl_edge_replaceable(&set->way[3], jiffies, 3));
	__u64 index = kl_most(a, b);
	struct kl_edge *way;

	barrier_var(index);
	way = &set->way[index & (KL_WAYS - 1)];
	*(volatile __u32 *)&way->stamp = 0;
	barrier();
	way->bytes = 0;
	way->packets = 0;
	way->connections = 0;
	way->handshakes = 0;
	way->violations = 0;
	barrier();
	way->key.peer[0] = key->peer[0];
	way->key.peer[1] = key->peer[1];
	way->key.peer[2] = key->peer[2];
	way->key.peer[3] = key->peer[3];
	way->key.service = key->service;
	barrier();
	return way;
}

static __always_inline __u32 kl_group_of(const __u32 *addr, __u32 word)
{
	__u32 slot = (word & KL_GRAPH_SLOT) >> KL_GRAPH_SLOT_SHIFT;
	void *groups = bpf_map_lookup_elem(&kl_groups, &slot);
	struct kl_trie_key key = {
		.bits = 128,
		.addr = { addr[0], addr[1], addr[2], addr[3] },
	};
	__u32 *group;

	if (!groups)
		return KL_GROUP_NONE;	/* cannot happen: filled before the word says so */
	group = bpf_map_lookup_elem(groups, &key);
	return group ? *group : KL_GROUP_INTERNET;
}

/*
 * What the graph of this word says of the edge in e->key: by the peer itself, by the tracked prefix
 * that holds it, by its group, by whether it speaks about the service.
 */
static __always_inline __u32 kl_edge_judge(struct kl_edge_scratch *e, const struct kl_packet *pkt,
					   __u32 group, __u32 word)
{
	__u32 slot = (word & KL_GRAPH_SLOT) >> KL_GRAPH_SLOT_SHIFT;
	__u32 host = e->key.service & KL_EDGE_HOST << KL_SERVICE_KIND_SHIFT;
	void *graph = bpf_map_lookup_elem(&kl_graphs, &slot);
	__u32 *permit;

	e->by = KL_EDGE_BY_NONE;
	if (!graph)
		return KL_EDGE_UNKNOWN;
	permit = bpf_map_lookup_elem(graph, &e->key);
	if (permit) {
		e->by = KL_EDGE_BY_SOURCE;
		return *permit;
	}
	e->wider.service = e->key.service ^ host;
	if (host) {
#pragma unroll
		for (int i = 0; i < 4; i++)
			e->wider.peer[i] = pkt->key[i];
		permit = bpf_map_lookup_elem(graph, &e->wider);
		if (permit) {
			e->by = KL_EDGE_BY_PREFIX;
			return *permit;
		}
	}
	__builtin_memset(e->wider.peer, 0, sizeof(e->wider.peer));
	if (group) {
		e->wider.peer[3] = group;
		e->wider.service |= KL_EDGE_GROUP << KL_SERVICE_KIND_SHIFT;
		permit = bpf_map_lookup_elem(graph, &e->wider);
		if (permit) {
			e->by = KL_EDGE_BY_GROUP;
			return *permit;
		}
		e->wider.peer[3] = 0;
	}
	if (word & KL_GRAPH_SCOPED) {
		e->wider.service = (e->key.service & KL_SERVICE_ANY_KIND) |
				   KL_EDGE_SCOPE << KL_SERVICE_KIND_SHIFT;
		if (!bpf_map_lookup_elem(graph, &e->wider)) {
			e->by = KL_EDGE_BY_SCOPE;
			return KL_EDGE_ALLOWED;
		}
	}
	return KL_EDGE_UNKNOWN;
}

/* The graph's answer to e->key and the number of its peer's group, which is above it. */
static __always_inline __u32 kl_edge_answer(struct kl_edge_scratch *e, const struct kl_packet *pkt,
					    const struct kl_edge *way, __u32 word)
{
	__u32 group = 0;

	if (way && way->stamp == word)
		return way->verdict | (__u32)way->group << 8;
	if (e->key.service >> KL_SERVICE_KIND_SHIFT != KL_EDGE_CAST)
		group = kl_group_of(pkt->addr, word) & 0xff;
	return kl_edge_judge(e, pkt, group, word) | group << 8;
}

/* Keeps an answer in the edge's entry, which is made if `way` is NULL. */
static __always_inline struct kl_edge *kl_edge_keep(struct kl_edge_scratch *e, struct kl_edge *way,
						    __u32 answer, __u32 word, __u32 jiffies)
{
	struct kl_edge_set *set;

	if (!way) {
		set = kl_edge_set_of(e->key.peer, e->key.service);
		if (!set)
			return NULL;
		way = kl_edge_claim(set, &e->key, jiffies);
	}
	way->verdict = answer;
	way->group = answer >> 8;
	way->stamp = word;
	return way;
}

/* The edge's entry with an answer that holds, made if it is not there. */
static __always_inline struct kl_edge *kl_edge_entry(struct kl_edge_scratch *e,
						     const struct kl_packet *pkt, __u32 word,
						     __u32 jiffies)
{
	struct kl_edge_set *set = kl_edge_set_of(e->key.peer, e->key.service);
	struct kl_edge *way;

	if (!set)
		return NULL;
	way = kl_edge_find(set, e->key.peer, e->key.service);
	if (way && way->stamp == word)
		return way;
	return kl_edge_keep(e, way, kl_edge_answer(e, pkt, way, word), word, jiffies);
}

#endif
