/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* What decides under which identity an address is tracked. */
#ifndef KL_IDENTITY_H
#define KL_IDENTITY_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* fe80::/10 (RFC 4291, 2.5.6), of the first word in network byte order. */
static __always_inline int kl_link_local(__u32 first)
{
	return (first & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* 1 for IPv4 in mapped form. One address, not a prefix. */
static __always_inline int kl_is_mapped(const struct kl_identity *id)
{
	return !(id->addr[0] | id->addr[1] | (id->addr[2] ^ bpf_htonl(0xffff)));
}

/* Address to identity: what it is tracked under. */
static __always_inline void kl_identify(struct kl_identity *id, const volatile __u32 *v6_mask)
{
	if (kl_is_mapped(id) || kl_link_local(id->addr[0]))
		return;
#pragma unroll
	for (int i = 0; i < 4; i++)
		id->addr[i] &= v6_mask[i];
}

#endif
