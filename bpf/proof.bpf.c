// SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only
/*
 * Who completed a TCP handshake with this host: proof that an address is not made
 * up. On the tracepoint sock:inet_sock_set_state, whose format is the kernel's
 * promise and is read at load, so this needs no BTF and runs on 5.10. It costs
 * per connection, never per packet.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define KL_AF_INET 2
#define KL_AF_INET6 10
#define KL_TCP_ESTABLISHED 1	/* include/net/tcp_states.h */

const volatile struct kl_proof_config kl_proof_config = {};

/* Written here, read by a running IQ. A source forgotten is proven again by its next connection. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct kl_identity);
	__type(value, __u64);
} kl_proofs SEC(".maps");

SEC("tracepoint/sock/inet_sock_set_state")
int kernloom_proof(void *ctx)
{
	const void *remote4 = ctx + kl_proof_config.remote4;
	const void *remote6 = ctx + kl_proof_config.remote6;
	__u16 family = *(const __u16 *)(ctx + kl_proof_config.family);
	__u64 now = bpf_ktime_get_ns();
	struct kl_identity id = {};

	if (*(const __u32 *)(ctx + kl_proof_config.new_state) != KL_TCP_ESTABLISHED)
		return 0;
	if (family != KL_AF_INET && family != KL_AF_INET6)
		return 0;
	if (family == KL_AF_INET) {
		id.addr[2] = bpf_htonl(0xffff);
		id.addr[3] = *(const __u32 *)remote4;
	} else {
#pragma unroll
		for (int i = 0; i < 4; i++)
			id.addr[i] = ((const __u32 *)remote6)[i];
	}
	/* An IPv6 socket may speak IPv4, in mapped form: that is one address, not a prefix. */
	if (id.addr[0] | id.addr[1] | (id.addr[2] ^ bpf_htonl(0xffff))) {
#pragma unroll
		for (int i = 0; i < 4; i++)
			id.addr[i] &= kl_proof_config.v6_mask[i];
	}
	bpf_map_update_elem(&kl_proofs, &id, &now, BPF_ANY);
	return 0;
}

struct kl_identity *kl_identity_type __attribute__((unused));

char LICENSE[] SEC("license") = "Dual MPL/GPL";
