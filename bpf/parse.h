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

#define KL_IPPROTO_NONE 255	/* no transport header to read */
#define KL_OFFSET_MASK 1023	/* any header start this parser accepts; for the verifier */

struct kl_vlan {
	__be16 tci;
	__be16 inner;
};

/* RFC 8200, 4.3-4.6; RFC 4302 counts AH in 4-byte units, the rest are in 8. */
struct kl_ext {
	__u8 next;
	__u8 len;
	__be16 frag_off;	/* fragment header only */
	__u32 id;
};

enum kl_ip_parse { KL_IP_OK, KL_IP_NONE, KL_IP_VLAN_DEPTH, KL_IP_TRUNCATED };

struct kl_packet {
	__u32 addr[4];		/* source address, IPv4 mapped */
	__u32 key[4];		/* its identity: the tracked prefix */
	__u64 l3;		/* offsets from the frame's start */
	__u64 l4;
	__u32 len;		/* frame length */
	__u32 family;		/* ETH_P_IP or ETH_P_IPV6 */
	__u32 proto;		/* transport protocol or KL_IPPROTO_NONE */
	__u32 malformed;
	__u32 ttl;
	/* transport, filled by kl_parse_l4 */
	__u32 opens;		/* would open something: SYN without ACK, UDP, ICMP */
	__u32 syn;
	__u32 port;		/* destination port counted by the sketch, 0 = none */
	__u32 stack;		/* SYN fingerprint, 0 = none */
	__u32 serial;		/* kl_next_source */
	/* for the edge stage */
	__u32 fragment;		/* enum kl_fragment */
	__u32 frag_id;
};

enum kl_fragment { KL_FRAGMENT_NONE, KL_FRAGMENT_FIRST, KL_FRAGMENT_LATER };

/* `word`: offset and flags in network byte order; `offset`, `more`: which bits are which. */
static __always_inline void kl_fragment(struct kl_packet *pkt, __be16 word, __be16 offset,
					__be16 more, __u32 id)
{
	pkt->fragment = word & offset ? KL_FRAGMENT_LATER :
			word & more   ? KL_FRAGMENT_FIRST :
					KL_FRAGMENT_NONE;
	pkt->frag_id = id;
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

static __always_inline enum kl_ip_parse kl_parse_ip4(void *data, void *end, struct kl_packet *pkt)
{
	__u64 l3 = pkt->l3 & KL_OFFSET_MASK;
	struct iphdr *ip = data + l3;
	__u32 ihl, total;

	if ((void *)(ip + 1) > end)
		return KL_IP_TRUNCATED;
	ihl = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	pkt->addr[0] = pkt->key[0] = 0;
	pkt->addr[1] = pkt->key[1] = 0;
	pkt->addr[2] = pkt->key[2] = bpf_htonl(0xffff);
	pkt->addr[3] = pkt->key[3] = ip->saddr;
	pkt->ttl = ip->ttl;
	/* RFC 791, 3.1: version 4, at least 5 words, a length that holds the header and fits. */
	pkt->malformed = ip->version != 4 || ihl < sizeof(*ip) || total < ihl ||
			 total > (__u64)(end - data) - l3;
	pkt->l4 = l3 + ihl;
	pkt->proto = pkt->malformed || (ip->frag_off & bpf_htons(0x1fff)) ? KL_IPPROTO_NONE :
									    ip->protocol;
	if (kl_config.graph)
		kl_fragment(pkt, ip->frag_off, bpf_htons(0x1fff), bpf_htons(0x2000), ip->id);
	return KL_IP_OK;
}

static __always_inline enum kl_ip_parse kl_parse_ip6(void *data, void *end, struct kl_packet *pkt)
{
	__u64 l3 = pkt->l3 & KL_OFFSET_MASK;
	struct ipv6hdr *ip = data + l3;

	if ((void *)(ip + 1) > end)
		return KL_IP_TRUNCATED;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		pkt->addr[i] = ip->saddr.in6_u.u6_addr32[i];
		pkt->key[i] = ip->saddr.in6_u.u6_addr32[i] & kl_config.v6_mask[i];
	}
	pkt->ttl = ip->hop_limit;
	pkt->fragment = KL_FRAGMENT_NONE;
	pkt->malformed = ip->version != 6 ||
			 bpf_ntohs(ip->payload_len) + sizeof(*ip) > (__u64)(end - data) - l3;
	pkt->l4 = l3 + sizeof(*ip);
	pkt->proto = pkt->malformed ? KL_IPPROTO_NONE : ip->nexthdr;
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
	if (pkt->family == ETH_P_IP)
		parsed = kl_parse_ip4(data, end, pkt);
	else
		parsed = kl_parse_ip6(data, end, pkt);
	if (kl_config.bench_sources)
		kl_next_source(pkt);
	return parsed;
}

static __always_inline int kl_is_ext(__u32 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT ||
	       proto == IPPROTO_AH || proto == IPPROTO_DSTOPTS || proto == IPPROTO_MH;
}

/* Moves l4 and proto behind the extension headers; proto NONE where they can't be followed. */
static __always_inline void kl_walk_ext(void *data, void *end, struct kl_packet *pkt)
{
	__u32 proto = pkt->proto;
	__u64 off = pkt->l4;

#pragma unroll
	for (int i = 0; i < KL_EXT_DEPTH; i++) {
		struct kl_ext *ext;

		if (!kl_is_ext(proto))
			break;
		off &= KL_OFFSET_MASK;
		ext = data + off;
		if ((void *)(ext + 1) > end) {
			proto = KL_IPPROTO_NONE;
			break;
		}
		if (proto == IPPROTO_FRAGMENT) {
			off += sizeof(*ext);
			proto = (ext->frag_off & bpf_htons(0xfff8)) ? KL_IPPROTO_NONE : ext->next;
			if (kl_config.graph)
				kl_fragment(pkt, ext->frag_off, bpf_htons(0xfff8), bpf_htons(1),
					    ext->id);
		} else {
			off += proto == IPPROTO_AH ? (ext->len + 2) * 4 : (ext->len + 1) * 8;
			proto = ext->next;
		}
		if (off > KL_OFFSET_MASK)
			proto = KL_IPPROTO_NONE;
	}
	pkt->proto = kl_is_ext(proto) ? KL_IPPROTO_NONE : proto;
	pkt->l4 = off;
}

/*
 * What a SYN says about the stack that sent it: TTL bucket, window, header length
 * and the first option, which is the MSS with every common stack. Never 0.
 */
static __always_inline __u32 kl_syn_stack(const struct tcphdr *tcp, void *end,
					  const struct kl_packet *pkt)
{
	const __u32 *option = (const void *)(tcp + 1);
	__u32 mss = 0;

	if (tcp->doff > 5 && (void *)(option + 1) <= end)
		mss = *option;
	return ((pkt->ttl >> 5) << 24 ^ (__u32)tcp->window << 8 ^ tcp->doff ^ mss) | 1;
}

static __always_inline void kl_parse_tcp(void *data, void *end, struct kl_packet *pkt)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	struct tcphdr *tcp = data + off;

	/* Ports and flags need 14 bytes; a first fragment may hold no more (W55). */
	if (data + off + 14 > end)
		return;
	if (!tcp->syn || tcp->ack)
		return;
	pkt->syn = 1;
	pkt->opens = 1;
	pkt->port = bpf_ntohs(tcp->dest);
	if ((void *)(tcp + 1) <= end)
		pkt->stack = kl_syn_stack(tcp, end, pkt);
}

static __always_inline void kl_parse_udp(void *data, void *end, struct kl_packet *pkt)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	struct udphdr *udp = data + off;
	__u32 source, dest;

	pkt->opens = 1;
	if (data + off + 4 > end)
		return;
	source = bpf_ntohs(udp->source);
	dest = bpf_ntohs(udp->dest);
	/* A reply goes from a service's low port to a client's high one: not a probe (W19). */
	if (dest < source)
		pkt->port = dest;
}

static __always_inline void kl_parse_l4(void *data, void *end, struct kl_packet *pkt)
{
	pkt->opens = pkt->syn = pkt->port = pkt->stack = 0;
	if (pkt->family == ETH_P_IPV6 && kl_is_ext(pkt->proto))
		kl_walk_ext(data, end, pkt);
	if (pkt->proto == IPPROTO_TCP)
		kl_parse_tcp(data, end, pkt);
	else if (pkt->proto == IPPROTO_UDP)
		kl_parse_udp(data, end, pkt);
	else if (pkt->proto == IPPROTO_ICMP || pkt->proto == IPPROTO_ICMPV6)
		pkt->opens = 1;
}

#endif
