// SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only
/*
 * Whom this host refuses, and whom it asks. At TC egress. It refuses with a TCP
 * reset or an ICMP unreachable: most kinds of scan show in nothing else, because
 * what they send belongs to no connection. It asks over UDP: without that a busy
 * resolver's answers are a flood.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "identity.h"

/* RFC 792, RFC 1812, 5.2.7.1: by the host, not by the network. */
#define KL_ICMP_UNREACHABLE 3
#define KL_ICMP_NO_PROTOCOL 2
#define KL_ICMP_NO_PORT 3
#define KL_ICMP_NET_PROHIBITED 9
#define KL_ICMP_HOST_PROHIBITED 10
#define KL_ICMP_PROHIBITED 13
/* RFC 4443, 3.1: nobody gets there; what else unreachable means is the network's doing. */
#define KL_ICMP6_UNREACHABLE 1
#define KL_ICMP6_PROHIBITED 1
#define KL_ICMP6_NO_PORT 4
#define KL_ICMP6_POLICY 5
#define KL_ICMP6_REJECTED 6
/* RFC 4443, 3.4: the answer to a protocol that nobody speaks. */
#define KL_ICMP6_PARAMETER 4
#define KL_ICMP6_NEXT_HEADER 1

const volatile struct kl_refusals_config kl_refusals_config = {};
volatile struct kl_refusals_state kl_refusals_state = {};

/* Written here, read by a running IQ. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct kl_identity);
	__type(value, struct kl_told);
} kl_refusals SEC(".maps");

/* The shield's, so that answers pass a limit of what opens something. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KL_QUESTIONS);
	__type(key, struct kl_question);
	__type(value, __u32);
} kl_questions SEC(".maps");

enum kl_leaves {
	KL_LEAVES,
	KL_REFUSES,		/* TCP that would have opened something, or that says nothing */
	KL_REFUSES_STRAY,	/* TCP with ACK */
	KL_REFUSES_DATAGRAM,	/* anything else */
	KL_ASKS,
};

/* RFC 791, 3.1: where in the datagram a fragment begins. */
#define KL_FRAGMENT_OFFSET 0x1fff

/*
 * What belongs to no connection: RFC 9293, 3.10.7.1. It is reset with an ACK if it had none, and without
 * if it had one. Whoever aborts a connection names its sequence number.
 */
static __always_inline enum kl_leaves kl_resets_stranger(struct __sk_buff *skb, __u32 off)
{
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(skb, off, &tcp, sizeof(tcp)) || !tcp.rst)
		return KL_LEAVES;
	if (!tcp.ack)
		return KL_REFUSES_STRAY;
	return tcp.seq ? KL_LEAVES : KL_REFUSES;
}

/* From a client's high port to a service's low one, as kl_parse_udp tells replies (W19). */
static __always_inline enum kl_leaves kl_asks(struct __sk_buff *skb, __u32 off,
					      const struct kl_identity *whom)
{
	struct kl_question question = {
		.addr = { whom->addr[0], whom->addr[1], whom->addr[2], whom->addr[3] },
	};
	__u32 now = (__u32)bpf_jiffies64();
	struct udphdr udp;

	if (bpf_skb_load_bytes(skb, off, &udp, sizeof(udp)))
		return KL_LEAVES;
	question.theirs = bpf_ntohs(udp.dest);
	question.ours = bpf_ntohs(udp.source);
	if (question.theirs >= question.ours)
		return KL_LEAVES;
	bpf_map_update_elem(&kl_questions, &question, &now, BPF_ANY);
	return KL_ASKS;
}

static __always_inline int kl_unreachable4(__u8 code)
{
	return code == KL_ICMP_NO_PROTOCOL || code == KL_ICMP_NO_PORT ||
	       code == KL_ICMP_NET_PROHIBITED || code == KL_ICMP_HOST_PROHIBITED ||
	       code == KL_ICMP_PROHIBITED;
}

static __always_inline int kl_unreachable6(__u8 type, __u8 code)
{
	if (type == KL_ICMP6_PARAMETER)
		return code == KL_ICMP6_NEXT_HEADER;
	return type == KL_ICMP6_UNREACHABLE &&
	       (code == KL_ICMP6_PROHIBITED || code == KL_ICMP6_NO_PORT ||
		code == KL_ICMP6_POLICY || code == KL_ICMP6_REJECTED);
}

static __always_inline enum kl_leaves kl_leaves4(struct __sk_buff *skb, struct kl_identity *to)
{
	struct iphdr ip;
	__u8 icmp[2];
	__u32 off;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return KL_LEAVES;
	off = ETH_HLEN + ip.ihl * 4;
	to->addr[0] = to->addr[1] = 0;
	to->addr[2] = bpf_htonl(0xffff);
	to->addr[3] = ip.daddr;
	if (ip.protocol == IPPROTO_TCP)
		return kl_resets_stranger(skb, off);
	if (ip.protocol == IPPROTO_UDP && !(ip.frag_off & bpf_htons(KL_FRAGMENT_OFFSET)))
		return kl_asks(skb, off, to);
	if (ip.protocol != IPPROTO_ICMP || bpf_skb_load_bytes(skb, off, icmp, sizeof(icmp)))
		return KL_LEAVES;
	return icmp[0] == KL_ICMP_UNREACHABLE && kl_unreachable4(icmp[1]) ? KL_REFUSES_DATAGRAM
									  : KL_LEAVES;
}

static __always_inline enum kl_leaves kl_leaves6(struct __sk_buff *skb, struct kl_identity *to)
{
	__u32 off = ETH_HLEN + sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 icmp[2];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return KL_LEAVES;
	__builtin_memcpy(to->addr, &ip.daddr, sizeof(to->addr));
	if (ip.nexthdr == IPPROTO_TCP)
		return kl_resets_stranger(skb, off);
	if (ip.nexthdr == IPPROTO_UDP)
		return kl_asks(skb, off, to);
	if (ip.nexthdr != IPPROTO_ICMPV6 || bpf_skb_load_bytes(skb, off, icmp, sizeof(icmp)))
		return KL_LEAVES;
	return kl_unreachable6(icmp[0], icmp[1]) ? KL_REFUSES_DATAGRAM : KL_LEAVES;
}

static __always_inline enum kl_leaves kl_look(struct __sk_buff *skb, struct kl_identity *to)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return kl_leaves4(skb, to);
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? kl_leaves6(skb, to) : KL_LEAVES;
}

SEC("tc")
int kernloom_refusals(struct __sk_buff *skb)
{
	struct kl_told fresh = { .epoch = kl_refusals_state.epoch }, *known;
	struct kl_identity to;
	enum kl_leaves what = kl_look(skb, &to);

	if (what == KL_LEAVES)
		return TC_ACT_UNSPEC;
	kl_identify(&to, kl_refusals_config.v6_mask);
	fresh.asked = what == KL_ASKS;
	fresh.refused = !fresh.asked;
	fresh.strays = what == KL_REFUSES_STRAY;
	fresh.datagrams = what == KL_REFUSES_DATAGRAM;
	known = bpf_map_lookup_elem(&kl_refusals, &to);
	/* Two CPUs at once may lose one: a count of many needs no lock. */
	if (known && known->epoch == fresh.epoch) {
		known->refused += fresh.refused;
		known->strays += fresh.strays;
		known->datagrams += fresh.datagrams;
		known->asked += fresh.asked;
	} else {
		if (known && known->epoch + 1 == fresh.epoch) {
			fresh.refused_before = known->refused;
			fresh.strays_before = known->strays;
			fresh.datagrams_before = known->datagrams;
			fresh.asked_before = known->asked;
		}
		bpf_map_update_elem(&kl_refusals, &to, &fresh, BPF_ANY);
	}
	kl_refusals_state.sent++;
	return TC_ACT_UNSPEC;
}

struct kl_identity kl_identity_type __attribute__((unused));

char LICENSE[] SEC("license") = "Dual MPL/GPL";
