// SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only
/* The floor every measurement is given above: frame parsed, nothing looked up. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "config.h"
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kl_packet);
} kl_floor_scratch SEC(".maps");

SEC("xdp")
int kernloom_floor(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct kl_packet *pkt = bpf_map_lookup_elem(&kl_floor_scratch, &zero);

	if (!pkt)
		return XDP_PASS;
	pkt->len = end - data;
	if (kl_parse_source(data, end, pkt) == KL_IP_OK)
		kl_parse_l4(data, end, pkt);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual MPL/GPL";
