/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/*
 * Bytes to struct kl_packet. No map, no verdict.
 *
 * The result travels through a per-CPU scratch value: stored and reloaded, the
 * verifier sees unknown scalars instead of one state per header combination.
 */
#ifndef KL_PARSE_H
#define KL_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "identity.h"

#define KL_IPPROTO_NONE 255	/* no transport header to read */
#define KL_OFFSET_MASK 1023	/* any header start this parser accepts; for the verifier */
#define KL_ICMP_LEAST 8		/* bytes of the shortest message (RFC 792; RFC 4443, 2.1) */

struct kl_vlan {
	__be16 tci;
	__be16 inner;
};

/* RFC 8200, 4.3-4.6; RFC 4302 counts AH in 4-byte units, the rest are in 8. */
struct kl_ext {
	__u8 next;
	__u8 len;
	__be16 frag_off;	/* of a routing header: its type and segments left */
	__u32 id;
};

#define KL_FRAG4_MORE 0x2000
#define KL_FRAG4_OFFSET 0x1fff
#define KL_FRAG6_MORE 0x0001
#define KL_FRAG6_OFFSET 0xfff8

enum kl_ip_parse { KL_IP_OK, KL_IP_NONE, KL_IP_VLAN_DEPTH, KL_IP_TRUNCATED };

struct kl_packet {
	__u32 addr[4];		/* source address, IPv4 mapped */
	__u32 key[4];		/* its identity: the tracked prefix */
	__u32 own_bits;		/* length of that prefix */
	__u64 l3;		/* offsets from the frame's start */
	__u64 l4;
	__u64 end;		/* of the IP packet: what follows is padding */
	__u32 len;		/* frame length, which may be more than is readable here */
	__u32 family;		/* ETH_P_IP or ETH_P_IPV6 */
	__u32 proto;		/* transport protocol or KL_IPPROTO_NONE */
	__u32 odd;		/* highest class of odd header met (enum kl_reason), 0 = none */
	__u32 more;		/* first of several fragments */
	__u32 frag_id;		/* identification, where it is a fragment */
	__u32 ttl;
	__u32 cast;		/* to a multicast or the limited broadcast address */
	/* transport, filled by kl_parse_l4 */
	__u32 opens;		/* anything but TCP with ACK and neither SYN nor RST: no connection has it under way */
	__u32 syn;		/* TCP SYN without ACK */
	__u32 ack;		/* TCP ACK without SYN or RST */
	__u32 ports;		/* dport was read */
	__u32 dport;		/* destination port, network order */
	__u32 answers;		/* source port of UDP to a higher one, host order; 0 = none */
	__u32 port;		/* destination port opened, 0 = none */
	__u32 stack;		/* SYN fingerprint, 0 = none */
	__u32 serial;		/* kl_next_source */
	__u32 way;		/* of the source's set; KL_WAYS = not there */
	__u32 reason;		/* so far (enum kl_reason) */
	__u32 probe;		/* 1: a question, leaves no trace */
	__u32 decided;		/* bits of the entry that decided, KL_NO_ENTRY = none */
};

/* Both sides of the compare come from memory: the verifier then has one state behind it. */
static __always_inline void kl_mark(struct kl_packet *pkt, __u32 odd)
{
	barrier();
	if (pkt->odd < odd)
		pkt->odd = odd;
	barrier();
}

static __always_inline enum kl_ip_parse kl_parse_ether(void *data, void *end, struct kl_packet *pkt)
{
	struct ethhdr *eth = data;
	__u32 off = sizeof(*eth);
	__be16 type;

	if ((void *)(eth + 1) > end)
		return KL_IP_NONE;
	type = eth->h_proto;
#pragma unroll
	for (int i = 0; i < KL_VLAN_DEPTH; i++) {
		struct kl_vlan *tag = data + off;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return KL_IP_NONE;
		type = tag->inner;
		off += sizeof(*tag);
	}
	if (type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD))
		return KL_IP_VLAN_DEPTH;
	pkt->l3 = off;
	if (type == bpf_htons(ETH_P_IP))
		pkt->family = ETH_P_IP;
	else if (type == bpf_htons(ETH_P_IPV6))
		pkt->family = ETH_P_IPV6;
	else
		return KL_IP_NONE;
	return KL_IP_OK;
}

/* Multicast or limited broadcast, by the IP address: a frame's own address proves nothing. */
static __always_inline int kl_is_cast4(__u32 addr)
{
	return (addr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || addr == ~0U;
}

/* By the first word. */
static __always_inline int kl_is_cast6(__u32 first)
{
	return (first & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

/* A fragment's place, from its host-order field: 1 where a transport header may follow. */
static __always_inline int kl_fragment(struct kl_packet *pkt, __u32 offset, __u32 more)
{
	if (offset) {
		kl_mark(pkt, KL_REASON_FRAGMENT_LATER);
		return 0;
	}
	if (more) {
		pkt->more = 1;
		kl_mark(pkt, KL_REASON_FRAGMENT_FIRST);
	}
	return 1;
}

static __always_inline enum kl_ip_parse kl_parse_ip4(void *data, void *end, struct kl_packet *pkt)
{
	__u64 l3 = pkt->l3 & KL_OFFSET_MASK;
	struct iphdr *ip = data + l3;
	__u32 ihl, total, frag, proto;

	if ((void *)(ip + 1) > end)
		return KL_IP_TRUNCATED;
	ihl = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	frag = bpf_ntohs(ip->frag_off);
	proto = ip->protocol;
	pkt->addr[0] = pkt->key[0] = 0;
	pkt->addr[1] = pkt->key[1] = 0;
	pkt->addr[2] = pkt->key[2] = bpf_htonl(0xffff);
	pkt->own_bits = 128;
	pkt->addr[3] = pkt->key[3] = ip->saddr;
	pkt->cast = kl_is_cast4(ip->daddr);
	pkt->ttl = ip->ttl;
	pkt->l4 = l3 + ihl;
	pkt->end = l3 + total;
	/* RFC 791, 3.1: version 4, at least 5 words, a length that holds the header and fits. */
	if (ip->version != 4 || ihl < sizeof(*ip) || total < ihl || pkt->end > pkt->len) {
		pkt->odd = KL_REASON_MALFORMED;
		proto = KL_IPPROTO_NONE;
	} else if (ihl > sizeof(*ip) || frag & (KL_FRAG4_OFFSET | KL_FRAG4_MORE)) {
		if (ihl > sizeof(*ip))
			pkt->odd = KL_REASON_OPTIONS;
		pkt->frag_id = ip->id;
		if (!kl_fragment(pkt, frag & KL_FRAG4_OFFSET, frag & KL_FRAG4_MORE))
			proto = KL_IPPROTO_NONE;
	}
	pkt->proto = proto;
	return KL_IP_OK;
}

/* All neighbours share fe80::/64, the gateway among them: each is a source of its own. */
static __always_inline void kl_identify6(struct kl_packet *pkt)
{
	__u32 whole = kl_link_local(pkt->addr[0]) ? ~0U : 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		pkt->key[i] = pkt->addr[i] & (kl_config.v6_mask[i] | whole);
	pkt->own_bits = whole ? 128 : kl_config.v6_bits;
}

static __always_inline enum kl_ip_parse kl_parse_ip6(void *data, void *end, struct kl_packet *pkt)
{
	__u64 l3 = pkt->l3 & KL_OFFSET_MASK;
	struct ipv6hdr *ip = data + l3;
	__u32 proto;

	if ((void *)(ip + 1) > end)
		return KL_IP_TRUNCATED;
	proto = ip->nexthdr;
#pragma unroll
	for (int i = 0; i < 4; i++)
		pkt->addr[i] = ip->saddr.in6_u.u6_addr32[i];
	kl_identify6(pkt);
	pkt->cast = kl_is_cast6(ip->daddr.in6_u.u6_addr32[0]);
	pkt->ttl = ip->hop_limit;
	pkt->l4 = l3 + sizeof(*ip);
	pkt->end = pkt->l4 + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || pkt->end > pkt->len) {
		pkt->odd = KL_REASON_MALFORMED;
		proto = KL_IPPROTO_NONE;
	}
	pkt->proto = proto;
	return KL_IP_OK;
}

/*
 * Measuring only: BPF_PROG_TEST_RUN repeats one frame, so the mix of sources is
 * made here, in the floor program alike. A linear congruential generator visits
 * every source once per period.
 */
static __always_inline void kl_next_source(struct kl_packet *pkt)
{
	__u32 word = pkt->family == ETH_P_IP ? 3 : 1;

	pkt->serial = pkt->serial * 1664525 + 1013904223;
	pkt->addr[word] = pkt->key[word] = pkt->serial & (kl_config.bench_sources - 1);
}

/* Frame to source: enough to judge. kl_parse_l4 reads the rest once the source has passed. */
static __always_inline enum kl_ip_parse kl_parse_source(void *data, void *end,
							struct kl_packet *pkt)
{
	enum kl_ip_parse parsed = kl_parse_ether(data, end, pkt);

	if (parsed != KL_IP_OK)
		return parsed;
	pkt->odd = pkt->more = 0;
	if (pkt->family == ETH_P_IP)
		parsed = kl_parse_ip4(data, end, pkt);
	else
		parsed = kl_parse_ip6(data, end, pkt);
	if (kl_config.bench_sources)
		kl_next_source(pkt);
	barrier();
	return parsed;
}

static __always_inline int kl_is_ext(__u32 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT ||
	       proto == IPPROTO_AH || proto == IPPROTO_DSTOPTS || proto == IPPROTO_MH;
}

/* 1 if the IP packet has `size` bytes at `off` and the frame has them in reach. */
static __always_inline int kl_has(const void *data, const void *end, const struct kl_packet *pkt,
				  __u64 off, __u64 size)
{
	return off + size <= pkt->end && data + off + size <= end;
}

/* Nothing behind this header can be read, and why. */
static __always_inline void kl_lose_l4(struct kl_packet *pkt, __u32 odd)
{
	kl_mark(pkt, odd);
	pkt->proto = KL_IPPROTO_NONE;
}

/* Moves l4 and proto behind one extension header. All results through memory, as everywhere. */
static __always_inline void kl_step_ext(void *data, void *end, struct kl_packet *pkt)
{
	__u32 proto = pkt->proto, field;
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	struct kl_ext *ext = data + off;

	if (!kl_has(data, end, pkt, off, sizeof(*ext))) {
		kl_lose_l4(pkt, KL_REASON_L4_TRUNCATED);
		return;
	}
	field = bpf_ntohs(ext->frag_off);
	pkt->proto = ext->next;
	if (proto == IPPROTO_FRAGMENT) {
		off += sizeof(*ext);
		pkt->frag_id = ext->id;
		if (!kl_fragment(pkt, field & KL_FRAG6_OFFSET, field & KL_FRAG6_MORE))
			pkt->proto = KL_IPPROTO_NONE;
	} else {
		if (proto == IPPROTO_ROUTING && field >> 8 == 0)
			kl_mark(pkt, KL_REASON_ROUTING_0);
		off += proto == IPPROTO_AH ? (ext->len + 2) * 4 : (ext->len + 1) * 8;
	}
	pkt->l4 = off;
	if (off > KL_OFFSET_MASK)
		kl_lose_l4(pkt, KL_REASON_EXT_DEPTH);
}

/* Moves l4 and proto behind the extension headers; proto NONE where they can't be followed. */
static __always_inline void kl_walk_ext(void *data, void *end, struct kl_packet *pkt)
{
	kl_mark(pkt, KL_REASON_OPTIONS);
#pragma unroll
	for (int i = 0; i < KL_EXT_DEPTH; i++) {
		if (!kl_is_ext(pkt->proto))
			return;
		kl_step_ext(data, end, pkt);
		barrier();
	}
	if (kl_is_ext(pkt->proto))
		kl_lose_l4(pkt, KL_REASON_EXT_DEPTH);
}

/* The packet ends inside its headers: a first fragment made so, or a packet cut short. */
static __always_inline void kl_mark_short(struct kl_packet *pkt)
{
	kl_mark(pkt, pkt->more ? KL_REASON_FRAGMENT_TINY : KL_REASON_L4_TRUNCATED);
}

/*
 * What a SYN says about the stack that sent it: TTL bucket, window, header length
 * and the first option, which is the MSS with every common stack. Never 0.
 */
static __always_inline __u32 kl_syn_stack(void *data, void *end, const struct kl_packet *pkt,
					  __u64 off, const struct tcphdr *tcp)
{
	const __u32 *option = (const void *)(tcp + 1);
	__u32 mss = 0;

	if (tcp->doff > 5 && kl_has(data, end, pkt, off, sizeof(*tcp) + sizeof(*option)))
		mss = *option;
	return ((pkt->ttl >> 5) << 24 ^ (__u32)tcp->window << 8 ^ tcp->doff ^ mss) | 1;
}

/* Ports and flags. Flags stand in byte 13: a tiny fragment must not hide a SYN (W55). */
static __always_inline void kl_parse_tcp(void *data, void *end, struct kl_packet *pkt)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	struct tcphdr *tcp = data + off;

	if (!kl_has(data, end, pkt, off, 14)) {
		kl_mark_short(pkt);
		return;
	}
	pkt->ports = 1;
	pkt->dport = tcp->dest;
	pkt->syn = tcp->syn & !tcp->ack;
	pkt->ack = tcp->ack & !tcp->syn & !tcp->rst;
	pkt->opens = !pkt->ack;
	if (tcp->doff < sizeof(*tcp) / 4)
		kl_mark(pkt, KL_REASON_L4_MALFORMED);
	if (!kl_has(data, end, pkt, off, sizeof(*tcp)) || off + tcp->doff * 4 > pkt->end)
		kl_mark_short(pkt);
	/* A FIN, or no flag at all, tries a port as a SYN does where it has no ACK. */
	if (!pkt->syn && (tcp->ack | tcp->rst))
		return;
	pkt->port = bpf_ntohs(tcp->dest);
	if (pkt->syn && kl_has(data, end, pkt, off, sizeof(*tcp)))
		pkt->stack = kl_syn_stack(data, end, pkt, off, tcp);
}

static __always_inline void kl_parse_udp(void *data, void *end, struct kl_packet *pkt)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	struct udphdr *udp = data + off;
	__u32 source, dest, len;

	if (!kl_has(data, end, pkt, off, sizeof(*udp))) {
		kl_mark_short(pkt);
		return;
	}
	pkt->ports = 1;
	pkt->dport = udp->dest;
	len = bpf_ntohs(udp->len);
	if (len < sizeof(*udp) || (!pkt->more && off + len > pkt->end))
		kl_mark(pkt, KL_REASON_L4_MALFORMED);
	source = bpf_ntohs(udp->source);
	dest = bpf_ntohs(udp->dest);
	/* A reply goes from a service's low port to a client's high one: not a probe (W19). */
	if (dest < source)
		pkt->port = dest;
	else if (source < dest)
		pkt->answers = source;
}

static __always_inline void kl_parse_icmp(void *data, void *end, struct kl_packet *pkt)
{
	if (!kl_has(data, end, pkt, pkt->l4 & KL_OFFSET_MASK, KL_ICMP_LEAST))
		kl_mark_short(pkt);
}

static __always_inline __u32 kl_icmp(const struct kl_packet *pkt)
{
	return pkt->family == ETH_P_IP ? IPPROTO_ICMP : IPPROTO_ICMPV6;
}

static __always_inline void kl_parse_l4(void *data, void *end, struct kl_packet *pkt)
{
	pkt->opens = 1;
	pkt->syn = pkt->ack = pkt->ports = pkt->port = pkt->stack = pkt->answers = 0;
	if (pkt->family == ETH_P_IPV6 && kl_is_ext(pkt->proto))
		kl_walk_ext(data, end, pkt);
	barrier();
	if (pkt->proto == IPPROTO_TCP)
		kl_parse_tcp(data, end, pkt);
	else if (pkt->proto == IPPROTO_UDP)
		kl_parse_udp(data, end, pkt);
	else if (pkt->proto == kl_icmp(pkt))
		kl_parse_icmp(data, end, pkt);
	barrier();
}

#endif
