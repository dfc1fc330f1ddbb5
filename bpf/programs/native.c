/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* The plain functions of the packet programs, compiled for this machine: what the tests call. */
#include "gcra.h"
#include "traffic.h"

__u64 chad_gcra_cost(__u64 cost, __u32 tick_shift, __u32 bytes)
{
	return gcra_cost(cost, tick_shift, bytes);
}

int chad_gcra_admit(__u64 tat, __u64 now, __u64 cost, __u64 tolerance, __u64 horizon, __u64 *next)
{
	return gcra_admit(tat, now, cost, tolerance, horizon, next);
}

int chad_ipv4_is_local(const __u8 *address)
{
	return ipv4_is_local(address);
}

int chad_ipv6_is_local(const __u8 *address)
{
	return ipv6_is_local(address);
}
