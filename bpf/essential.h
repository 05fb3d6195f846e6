/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* What no default-deny may drop, or the host loses its network (RFC 4890, 4.4.1; RFC 792). */
#ifndef KL_ESSENTIAL_H
#define KL_ESSENTIAL_H

#include "parse.h"

/*
 * Types, by number because linux/icmp.h wants a C library. RFC 792; RFC 4890, 4.4.1,
 * with the hop limits of RFC 4861, 6.1 and 7.1, and of RFC 3810, 5.
 */
enum {
	KL_ICMP_UNREACHABLE = 3,	/* fragmentation needed among them */
	KL_ICMP_TIME_EXCEEDED = 11,
	KL_ICMP_PARAMETER_PROBLEM = 12,
	KL_ICMP6_ERROR_FIRST = 1,	/* packet-too-big among them */
	KL_ICMP6_ERROR_LAST = 4,
	KL_ND_FIRST = 133,		/* router solicitation */
	KL_ND_LAST = 136,		/* neighbour advertisement */
	KL_ND_HOPS = 255,
	KL_MLD_FIRST = 130,
	KL_MLD_LAST = 132,
	KL_MLD2_REPORT = 143,
	KL_MLD_HOPS = 1,
};

static __always_inline int kl_essential_icmp6(__u32 type, __u32 hops)
{
	if (type >= KL_ICMP6_ERROR_FIRST && type <= KL_ICMP6_ERROR_LAST)
		return 1;
	if (type >= KL_ND_FIRST && type <= KL_ND_LAST)
		return hops == KL_ND_HOPS;
	if ((type >= KL_MLD_FIRST && type <= KL_MLD_LAST) || type == KL_MLD2_REPORT)
		return hops == KL_MLD_HOPS;
	return 0;
}

/* 1 for what passes where only allowed sources do. After kl_parse_l4; non-IP never comes here. */
static __always_inline int kl_always_pass(void *data, void *end, const struct kl_packet *pkt)
{
	__u64 off = pkt->l4 & KL_OFFSET_MASK;
	const __u8 *type = data + off;

	if (pkt->malformed || (void *)(type + 1) > end)
		return 0;
	if (pkt->proto == IPPROTO_ICMP)
		return *type == KL_ICMP_UNREACHABLE || *type == KL_ICMP_TIME_EXCEEDED ||
		       *type == KL_ICMP_PARAMETER_PROBLEM;
	return pkt->proto == IPPROTO_ICMPV6 && kl_essential_icmp6(*type, pkt->ttl);
}

#endif
