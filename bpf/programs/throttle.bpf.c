// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet programs. Needs Linux 5.12 (atomic compare-and-swap).
 *
 * One load serves every cgroup of its owner: state and counters lie in cgroup storage, one of each for
 * every (cgroup, attach type) that the program is attached to, and reached without a look-up.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gcra.h"
#include "throttle.h"
#include "traffic.h"

/*
 * Verdicts. A dropped packet that is sent returns 2, not 0: with 0 the sender's sendto() fails with
 * EPERM, with 2 the packet is lost as in a full queue, and TCP is told of the congestion.
 */
#define PASS 1
#define DROP_INGRESS 0
#define DROP_EGRESS 2

/* Lost races in a row before a packet is given up; each means that another CPU's packet went through. */
#define MAX_RACES 32

/* Who loaded this; bpftool prints them, and the auditor reads them. Set before loading. */
const volatile __u32 bpf_metadata_owner_pid = 0;
const volatile __u64 bpf_metadata_owner_start = 0;
const volatile __u32 bpf_metadata_owner_pidns = 0;
const volatile char bpf_metadata_owner_boot[40] = "";
const volatile char bpf_metadata_version[24] = "";

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct throttle_state);
} chad_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct throttle_counters);
} chad_counters SEC(".maps");

/* Is the other side of this packet a local address? Anything that is neither IPv4 nor IPv6 is. */
static __always_inline int is_local(struct __sk_buff *skb, int egress)
{
	__u8 a[IPV6_ADDRESS_BYTES] = {};

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		bpf_skb_load_bytes(skb, egress ? IPV4_DESTINATION : IPV4_SOURCE, a,
				   IPV4_ADDRESS_BYTES);
		return ipv4_is_local(a);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		bpf_skb_load_bytes(skb, egress ? IPV6_DESTINATION : IPV6_SOURCE, a,
				   IPV6_ADDRESS_BYTES);
		return ipv6_is_local(a);
	}
	return 1;
}

static __always_inline int is_limited(struct __sk_buff *skb, struct throttle_state *state,
				      int egress)
{
	if (!state->cost)
		return 0;
	if (state->traffic == TRAFFIC_ALL)
		return 1;
	return is_local(skb, egress) == (state->traffic == TRAFFIC_LOCAL);
}

static __always_inline int admit(struct throttle_state *state, __u32 bytes)
{
	__u32 tick_shift = state->tick_shift & 31;
	__u64 cost = gcra_cost(state->cost, tick_shift, bytes);
	__u64 tat = *(volatile __u64 *)&state->tat;
	__u64 now = gcra_ticks(bpf_ktime_get_ns(), tick_shift);

	for (int race = 0; race < MAX_RACES; race++) {
		__u64 next, found;

		if (!gcra_admit(tat, now, cost, state->tolerance, state->horizon, &next))
			return 0;
		found = __sync_val_compare_and_swap(&state->tat, tat, next);
		if (found == tat)
			return 1;
		tat = found;
	}
	return 0;
}

static __always_inline int throttle(struct __sk_buff *skb, int egress)
{
	struct throttle_state *state = bpf_get_local_storage(&chad_state, 0);
	struct throttle_counters *counters = bpf_get_local_storage(&chad_counters, 0);
	__u32 bytes = skb->len;

	/* Atomic although they are this CPU's own: a softirq may interrupt between load and store. */
	if (!is_limited(skb, state, egress)) {
		__sync_fetch_and_add(&counters->exempt_packets, 1);
		__sync_fetch_and_add(&counters->exempt_bytes, bytes);
		return PASS;
	}
	if (admit(state, bytes)) {
		__sync_fetch_and_add(&counters->passed_packets, 1);
		__sync_fetch_and_add(&counters->passed_bytes, bytes);
		return PASS;
	}
	__sync_fetch_and_add(&counters->dropped_packets, 1);
	__sync_fetch_and_add(&counters->dropped_bytes, bytes);
	return egress ? DROP_EGRESS : DROP_INGRESS;
}

SEC("cgroup_skb/ingress")
int chadthrottle_ingress(struct __sk_buff *skb)
{
	return throttle(skb, 0);
}

SEC("cgroup_skb/egress")
int chadthrottle_egress(struct __sk_buff *skb)
{
	return throttle(skb, 1);
}

char LICENSE[] SEC("license") = "GPL";
