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
#include "identity.h"

#define KL_AF_INET 2
#define KL_AF_INET6 10
#define KL_TCP_ESTABLISHED 1	/* include/net/tcp_states.h */

const volatile struct kl_proof_config kl_proof_config = {};

/* When, by source: written here, read by a running IQ, which renews those that keep sending. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct kl_identity);
	__type(value, __u64);
} kl_proofs SEC(".maps");

/* A field of the record. Not by load: the verifier wants offsets from the instruction itself. */
static __always_inline void kl_field(void *to, __u32 size, const void *ctx, __u32 offset)
{
	if (bpf_probe_read_kernel(to, size, ctx + offset))
		__builtin_memset(to, 0, size);
}

SEC("tracepoint/sock/inet_sock_set_state")
int kernloom_proof(void *ctx)
{
	struct kl_identity id = { .addr = { 0, 0, bpf_htonl(0xffff), 0 } };
	__u64 now = bpf_ktime_get_ns();
	__u32 state = 0;
	__u16 family = 0;

	kl_field(&state, sizeof(state), ctx, kl_proof_config.new_state);
	if (state != KL_TCP_ESTABLISHED)
		return 0;
	kl_field(&family, sizeof(family), ctx, kl_proof_config.family);
	if (family == KL_AF_INET)
		kl_field(&id.addr[3], sizeof(id.addr[3]), ctx, kl_proof_config.remote4);
	else if (family == KL_AF_INET6)
		kl_field(&id, sizeof(id), ctx, kl_proof_config.remote6);
	else
		return 0;
	/* An IPv6 socket may speak IPv4 in mapped form. */
	kl_identify(&id, kl_proof_config.v6_mask);
	bpf_map_update_elem(&kl_proofs, &id, &now, BPF_ANY);
	return 0;
}

struct kl_identity kl_identity_type __attribute__((unused));

char LICENSE[] SEC("license") = "Dual MPL/GPL";
