/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* What decides under which identity an address is tracked. */
#ifndef KL_IDENTITY_H
#define KL_IDENTITY_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* fe80::/10 (RFC 4291, 2.5.6), of the first word in network byte order. */
static __always_inline int kl_link_local(__u32 first)
{
	return (first & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

#endif
