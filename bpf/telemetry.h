/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* Counting. Every function is void: telemetry cannot change a verdict. */
#ifndef KL_TELEMETRY_H
#define KL_TELEMETRY_H

#include "config.h"
#include "maps.h"
#include "parse.h"

static __always_inline void kl_count(struct kl_counts *counts, __u32 reason, __u32 len)
{
	/* This CPU's slot, inside one softirq: no atomic needed. */
	struct kl_count *count = &counts->reason[reason & (KL_REASONS - 1)];
	__u64 bin = len >> KL_LENGTH_SHIFT;

	count->packets++;
	count->bytes += len;
	bin = bin < KL_LENGTHS ? bin : KL_LENGTHS - 1;
	barrier_var(bin);	/* or the compiler drops the mask that the verifier wants */
	counts->length[bin & (KL_LENGTHS - 1)]++;
}

/*
 * A bit's number among 2^`bits`, the same for the same value, by a secret multiplier. Twice and folded
 * in between: one product would map consecutive ports to an arithmetic progression, which an unlucky
 * multiplier crowds into few bits.
 */
static __always_inline __u64 kl_sketch_hash(__u32 value, int bits)
{
	__u64 hash = kl_config.port_seed * (value + 1ULL);

	hash ^= hash >> 32;
	return (kl_config.port_seed * hash) >> (64 - bits);
}

static __always_inline __u32 kl_ones(__u64 word)
{
	word -= word >> 1 & 0x5555555555555555ULL;
	word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return word * 0x0101010101010101ULL >> 56;
}

static __always_inline void kl_alert(const struct kl_source *src, __u32 ones,
				     struct kl_counts *counts)
{
	struct kl_event event = {
		.time_ns = kl_now_ns(),
		.source = { src->key[0], src->key[1], src->key[2], src->key[3] },
		.kind = KL_EVENT_PORTS,
		.value = ones,
	};

	if (bpf_ringbuf_output(&kl_events, &event, sizeof(event), 0))
		counts->events_lost++;
}

static __always_inline void kl_sketch_port(struct kl_source *src, __u32 port,
					   struct kl_counts *counts)
{
	__u64 bit = 1ULL << kl_sketch_hash(port, 6), before = src->ports;
	__u32 ones;

	if (before & bit)
		return;
	src->ports = before | bit;
	ones = kl_ones(before | bit);
	if (ones == kl_control.port_alert)
		kl_alert(src, ones, counts);
}

static __always_inline void kl_count_port(const struct kl_packet *pkt)
{
	__u32 index = bpf_get_smp_processor_id() * KL_PORTS + pkt->port;
	struct kl_port *port = bpf_map_lookup_elem(&kl_ports, &index);

	if (!port)
		return;
	port->syns += pkt->syn;
	port->udp += pkt->proto == IPPROTO_UDP;
}

/* What a packet of a source that is not denied says about it. */
static __always_inline void kl_observe(struct kl_source *src, const struct kl_packet *pkt,
				       struct kl_counts *counts)
{
	src->syns += pkt->syn;
	src->acks += pkt->ack;
	if (!(kl_config.features & KL_FEATURE_LEARN))
		return;
	if (pkt->port) {
		kl_sketch_port(src, pkt->port, counts);
		kl_count_port(pkt);
	}
	if (pkt->stack)
		src->stacks |= 1U << kl_sketch_hash(pkt->stack, 5);
}

#endif
