/* SPDX-License-Identifier: MPL-2.0 OR GPL-2.0-only */
/* Load-time configuration, shared control words, clocks. */
#ifndef KL_CONFIG_H
#define KL_CONFIG_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

const volatile struct kl_config kl_config = {};
volatile struct kl_control kl_control = {};

/* Monotonic nanoseconds. About 35 ns in a virtual machine: only limiters and ends pay it. */
static __always_inline __u64 kl_now_ns(void)
{
	if (kl_config.test_clock)
		return kl_control.test_now_ns;
	return bpf_ktime_get_ns();
}

/* Jiffies: next to free, of unknown frequency (100..1000 Hz). Good for ages, not for spans. */
static __always_inline __u32 kl_jiffies(void)
{
	if (kl_config.test_clock)
		return kl_control.test_jiffies;
	return (__u32)bpf_jiffies64();
}

#endif
