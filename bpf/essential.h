/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* What no default-deny may drop, or the host loses its network (RFC 4890, 4.4.1; RFC 792). */
#ifndef KL_ESSENTIAL_H
#define KL_ESSENTIAL_H

#include "parse.h"

/* Types, by number because linux/icmp.h wants a C library. */
enum {
	KL_ICMP_UNREACHABLE = 3,	/* fragmentation needed among them */
	KL_ICMP_TIME_EXCEEDED = 11,
	KL_ICMP_PARAMETER_PROBLEM = 12,
	KL_ICMP6_ERROR_FIRST = 1,	/* packet-too-big among them */
	KL_ICMP6_ERROR_LAST = 4,
	KL_ND_FIRST = 133,		/* router solicitation */
	KL_ND_LAST = 136,		/* neighbour advertisement */
	KL_INVERSE_ND_FIRST = 141,	/* RFC 3122 */
	KL_INVERSE_ND_LAST = 142,
	KL_SEND_FIRST = 148,		/* RFC 3971 */
	KL_SEND_LAST = 149,
	KL_ND_HOPS = 255,		/* RFC 4861, 6.1 and 7.1: sent on this link */
	KL_MLD_FIRST = 130,
	KL_MLD_LAST = 132,
	KL_MLD2_REPORT = 143,
	KL_MRD_FIRST = 151,		/* RFC 4286 */
	KL_MRD_LAST = 153,
	KL_MLD_HOPS = 1,		/* RFC 3810, 5 */
};

/* fe80::/10, or :: while the sender has no address yet (RFC 3590). */
static __always_inline int kl_on_link(const struct kl_packet *pkt)
{
	const __u32 *addr = pkt->addr;

	return (addr[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       !(addr[0] | addr[1] | addr[2] | addr[3]);
}

static __always_inline int kl_between(__u32 type, __u32 first, __u32 last)
{
	return type - first <= last - first;
}

static __always_inline int kl_essential_icmp6(__u32 type, const struct kl_packet *pkt)
{
	if (kl_between(type, KL_ICMP6_ERROR_FIRST, KL_ICMP6_ERROR_LAST))
		return 1;
	if (kl_between(type, KL_ND_FIRST, KL_ND_LAST) ||
	    kl_between(type, KL_INVERSE_ND_FIRST, KL_INVERSE_ND_LAST) ||
	    kl_between(type, KL_SEND_FIRST, KL_SEND_LAST))
		return pkt->ttl == KL_ND_HOPS;
	if (kl_between(type, KL_MLD_FIRST, KL_MLD_LAST) || type == KL_MLD2_REPORT ||
	    kl_between(type, KL_MRD_FIRST, KL_MRD_LAST))
		return pkt->ttl == KL_MLD_HOPS && kl_on_link(pkt);
	return 0;
}

/*
 * 1 for what passes where only allowed sources do. After kl_parse_l4; non-IP never
 * comes here. None of it is ever fragmented (RFC 6980; errors fit the least MTU).
 */
static __always_inline int kl_essential(void *data, void *end, const struct kl_packet *pkt)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	const __u8 *type = data + off;

	if (pkt->proto != kl_icmp(pkt) || pkt->more || !kl_has(data, end, pkt, off, KL_ICMP_LEAST))
		return 0;
	if (pkt->family == ETH_P_IPV6)
		return kl_essential_icmp6(*type, pkt);
	return *type == KL_ICMP_UNREACHABLE || *type == KL_ICMP_TIME_EXCEEDED ||
	       *type == KL_ICMP_PARAMETER_PROBLEM;
}

#endif
