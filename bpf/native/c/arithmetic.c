/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* The plain functions of the packet programs, compiled for this machine: what the tests call. */
#include "flow.h"
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

int chad_gcra_is_small(__u32 bytes)
{
	return gcra_is_small(bytes);
}

__u64 chad_gcra_reserve_cost(__u64 cost)
{
	return gcra_reserve_cost(cost);
}

__u64 chad_gcra_reserve_tolerance(__u32 tick_shift, int is_small)
{
	return gcra_reserve_tolerance(tick_shift, is_small);
}

int chad_gcra_is_dns_sized(__u32 bytes)
{
	return gcra_is_dns_sized(bytes);
}

__u64 chad_gcra_dns_cost(__u64 cost, __u32 tick_shift)
{
	return gcra_dns_cost(cost, tick_shift);
}

__u64 chad_gcra_dns_tolerance(__u32 tick_shift)
{
	return gcra_dns_tolerance(tick_shift);
}

int chad_is_dns_port(__u16 port)
{
	return is_dns_port(port);
}

__u64 chad_flow_pace(__u64 ahead_ns, __u64 later_ns, __u64 tolerance_ns, __u32 payload, __u32 mss)
{
	return flow_pace(ahead_ns, later_ns, tolerance_ns, payload, mss);
}

__u64 chad_flow_with_another(__u64 fair_rate, __u64 limit)
{
	return flow_with_another(fair_rate, limit);
}

__u64 chad_flow_interval(__u64 rtt)
{
	return flow_interval(rtt);
}

int chad_flow_is_flooded(__u64 limit, __u64 arrived, __u64 elapsed)
{
	return flow_is_flooded(limit, arrived, elapsed);
}

__u64 chad_flow_next(__u64 fair_rate, __u64 limit, __u64 arrived, __u64 elapsed, __u64 ahead_ns,
		     __u64 tolerance_ns, int is_bound, int may_cut)
{
	return flow_next(fair_rate, limit, arrived, elapsed, ahead_ns, tolerance_ns, is_bound,
			 may_cut);
}

__u64 chad_flow_share(__u64 fair_rate, __u64 rtt)
{
	return flow_share(fair_rate, rtt);
}

__u64 chad_flow_most(__u64 used, __u64 ahead_ns, __u64 tolerance_ns)
{
	return flow_most(used, ahead_ns, tolerance_ns);
}

__u32 chad_flow_first(__u64 limit, __u64 tolerance_ns)
{
	return flow_first(limit, tolerance_ns);
}

int chad_flow_counts(__u64 received, __u32 mss)
{
	return flow_counts(received, mss);
}

__u64 chad_flow_rest(__u64 received, __u32 mss)
{
	return flow_rest(received, mss);
}

__u64 chad_flow_window(__u64 share, __u64 most, __u64 ahead_ns, __u64 tolerance_ns, __u32 mss,
		       __u32 random)
{
	return flow_window(share, most, ahead_ns, tolerance_ns, mss, random);
}

int chad_ipv4_is_local(const __u8 *address)
{
	return ipv4_is_local(address);
}

int chad_ipv6_is_local(const __u8 *address)
{
	return ipv6_is_local(address);
}
