// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet programs: whether a packet conforms. Needs Linux 5.12 (atomic compare-and-swap). And the
 * sockops program (sockops.h), which sees to it that TCP sends and is sent no more than that.
 *
 * One load serves every cgroup of its owner: state and counters lie in cgroup storage and are reached
 * without a look-up. There is one state for each cgroup, and counters for each (cgroup, attach type)
 * that a program is attached to.
 *
 * All but the sockops program load without CAP_PERFMON. Then the verifier also follows branches that are never taken,
 * because a processor may guess that they are. A loop whose counter it knows has no end there, so loops are unrolled.
 * And it refuses an offset from a pointer that differs by the way taken, so no two ways share the code that adds one.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "gcra.h"
#include "throttle.h"
#include "traffic.h"

/*
 * Verdicts. A dropped packet that is sent returns 2, not 0: with 0 a sendto() fails with EPERM, with 2
 * the packet is lost as in a full queue. TCP loses nothing: the segment was not sent, to its mind, and
 * stays in its queue (see is_held_back()).
 */

#define PASS 1
#define DROP_INGRESS 0
#define DROP_EGRESS 2

/* Of linux/socket.h, which is the kernel's own. */
#define SOCK_STREAM 1

/*
 * Lost races in a row before a packet is given up; each means that another CPU's packet went through within some
 * 30 ns: with 5 million packets a second in a cgroup a seventh of the races is lost, and 16 in a row never. The verifier
 * goes through each race for every way to get there, which is most of the time that loading takes: so no more of
 * them than that.
 */
#define MAX_RACES 16

/* What is set before loading and never after that. The tests, which run the programs without loading them, set it for a call. */
#ifndef SETTING
#define SETTING const volatile
#endif

/* Who loaded this; bpftool prints them, and the auditor reads them. Set before loading. */
const volatile __u32 bpf_metadata_owner_pid = 0;
const volatile __u64 bpf_metadata_owner_start = 0;
const volatile __u32 bpf_metadata_owner_pidns = 0;
const volatile char bpf_metadata_owner_boot[40] = "";
const volatile char bpf_metadata_version[24] = "";

/*
 * The mark of a packet that one of these programs has dropped. All programs of a cgroup and of those
 * above it run for every packet, whatever the others said; by this mark the later ones know that the
 * packet goes nowhere, and do not charge it. Nobody sees it, for the packet is freed, and nobody must
 * know it: whoever may set marks (CAP_NET_RAW suffices) could otherwise send what no throttle charges. So
 * it is a random number that the owners of this host's throttles share, and too long to be tried out: half of
 * it is the packet's priority. 0: drops are not marked.
 */
SETTING __u32 dropped_mark = 0;
SETTING __u32 dropped_priority = 0;

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64); /* the cgroup alone: shared by its attach types (5.9) */
	__type(value, struct throttle_cgroup);
} chad_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct throttle_counters);
} chad_counters SEC(".maps");

static __always_inline int limits_class(const struct throttle_state *state, int local)
{
	return state->traffic == TRAFFIC_ALL || local == (state->traffic == TRAFFIC_LOCAL);
}

/* What of the time that is to come packets have taken already, in ticks. */
static __always_inline __u64 ticks_ahead(const struct throttle_state *state, __u64 tat, __u64 now)
{
	__u64 ahead = tat - now;

	return ahead > state->horizon ? 0 : ahead;
}

/* Words of the packet. Headers lie in one piece, as a rule, and then it takes no call. */
static __always_inline void load_words(struct __sk_buff *skb, __u32 offset, __u32 *a, __u32 bytes)
{
	const __u32 *from = (const void *)(long)skb->data + offset;

	if ((const void *)from + bytes > (const void *)(long)skb->data_end) {
		bpf_skb_load_bytes(skb, offset, a, bytes);
		return;
	}
	for (__u32 i = 0; i < bytes / 4; i++)
		a[i] = from[i];
}

/*
 * Is the other side of this packet a local address? Anything that is neither IPv4 nor IPv6 is. `base`: where its
 * IP header begins, here and below.
 */
static __always_inline int is_local(struct __sk_buff *skb, __u32 base, int egress)
{
	__u32 a[IPV6_ADDRESS_BYTES / 4] = {};

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		load_words(skb, base + (egress ? IPV4_DESTINATION : IPV4_SOURCE), a,
			   IPV4_ADDRESS_BYTES);
		return ipv4_is_local((__u8 *)a);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		load_words(skb, base + (egress ? IPV6_DESTINATION : IPV6_SOURCE), a,
			   IPV6_ADDRESS_BYTES);
		return ipv6_is_local((__u8 *)a);
	}
	return 1;
}

/* Has another of these programs dropped it already? */
static __always_inline int is_dropped(struct __sk_buff *skb)
{
	return dropped_mark && skb->mark == dropped_mark && skb->priority == dropped_priority;
}

static __always_inline int is_limited(struct __sk_buff *skb, const struct throttle_state *state,
				      int egress)
{
	if (!state->cost || is_dropped(skb))
		return 0;
	return state->traffic == TRAFFIC_ALL || limits_class(state, is_local(skb, 0, egress));
}

/* BIG TCP has such a header behind that of IPv6, which no segment on the wire has. No other segment has extension headers. */
#define JUMBO_BYTES 8

/* Where the transport's header begins behind the IP header's beginning. `extra`: what of that no segment has. */
static __always_inline __u32 ip_header_bytes(struct __sk_buff *skb, __u32 base, __u8 *protocol,
					     __u32 *extra)
{
	__u8 byte = 0;

	*extra = 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		bpf_skb_load_bytes(skb, base, &byte, 1);
		bpf_skb_load_bytes(skb, base + IPV4_PROTOCOL, protocol, 1);
		return (byte & 15) * 4;
	}
	bpf_skb_load_bytes(skb, base + IPV6_NEXT_HEADER, protocol, 1);
	if (!*protocol) {
		bpf_skb_load_bytes(skb, base + IPV6_HEADER_BYTES, protocol, 1);
		*extra = JUMBO_BYTES;
	}
	return IPV6_HEADER_BYTES + *extra;
}

static __always_inline __u32 tcp_header_bytes(struct __sk_buff *skb, __u32 tcp)
{
	__u8 byte = 5 << 4;

	bpf_skb_load_bytes(skb, tcp + 12, &byte, 1);
	return (byte >> 4) * 4;
}

/* The headers that the packet has, from IP on. */
static __always_inline __u32 header_bytes(struct __sk_buff *skb, __u32 base, __u32 *extra)
{
	__u8 protocol = 0;
	__u32 ip = ip_header_bytes(skb, base, &protocol, extra);

	if (protocol == IPPROTO_UDP)
		return ip + 8;
	return ip + tcp_header_bytes(skb, base + ip);
}

/*
 * The bytes that go over the wire: what GSO or GRO has put together has one header here, and many there. What a virtual
 * machine's device has put together comes without the number of segments.
 */
static __always_inline __u32 wire_bytes(struct __sk_buff *skb, __u32 base)
{
	__u32 bytes = skb->len - base;
	__u32 segments = skb->gso_segs;
	__u32 size = skb->gso_size;
	__u32 headers, extra;

	if (segments == 1 || !size)
		return bytes;
	headers = header_bytes(skb, base, &extra) - extra;
	bytes -= extra;
	if (!segments && bytes > headers)
		segments = (bytes - headers + size - 1) / size;
	return segments > 1 ? bytes + (segments - 1) * headers : bytes;
}

/* A packet that is to be charged. */
struct charge {
	__u64 now; /* nanoseconds */
	__u32 bytes;
	__u64 cost; /* ticks */
	__u64 ahead; /* ticks that packets before it have taken of the time that is to come */
};

static __always_inline struct charge charge_of(const struct throttle_state *state, __u32 bytes)
{
	return (struct charge){
		.now = bpf_ktime_get_ns(),
		.bytes = bytes,
		.cost = gcra_cost(state->cost, state->tick_shift & 31, bytes),
	};
}

#include "reserve.h"

/* Whether a packet conforms. `base`: where its IP header begins. */
static __always_inline int admit(struct throttle_state *state, struct charge *charge,
				 struct __sk_buff *skb, __u32 base, int egress)
{
	__u64 tat = *(volatile __u64 *)&state->tat;
	__u64 now = gcra_ticks(charge->now, state->tick_shift & 31);

#pragma unroll
	for (int race = 0; race < MAX_RACES; race++) {
		__u64 next, found;

		charge->ahead = ticks_ahead(state, tat, now);
		if (!gcra_admit(tat, now, charge->cost, state->tolerance, state->horizon, &next))
			goto full;
		found = __sync_val_compare_and_swap(&state->tat, tat, next);
		if (found == tat)
			return 1;
		tat = found;
	}
	return 0;
full:
	return admit_reserved(state, charge, now, skb, base, egress);
}

/*
 * Senders that understand it (ECT) are told of congestion before packets are lost: the more likely, the
 * fuller the second half of the queue. `ahead` and `tolerance` in ticks.
 */
static __always_inline void notify(struct __sk_buff *skb, __u64 tolerance, __u64 ahead)
{
	__u64 half = tolerance / 2;

	if (ahead > half && ((half >> 16) * (bpf_get_prandom_u32() >> 16)) < ahead - half)
		bpf_skb_ecn_set_ce(skb);
}

/*
 * Counters are this CPU's own, but what a process sends may be interrupted between load and store by a
 * softirq that sends as well: so it takes an atomic addition, 5 ns. Packets are received in softirqs alone,
 * which do not interrupt each other.
 */
static __always_inline void count(__u64 *counter, __u64 more, int egress)
{
	if (egress)
		__sync_fetch_and_add(counter, more);
	else
		*counter += more;
}

#include "departures.h"

static __always_inline int throttle(struct __sk_buff *skb, struct throttle_state *state, int egress)
{
	struct throttle_counters *counters = bpf_get_local_storage(&chad_counters, 0);
	__u32 tick_shift = state->tick_shift & 31;
	__u64 tolerance = state->tolerance;
	struct throttle_waiting *waiting = 0;
	__u32 bytes = wire_bytes(skb, 0);
	struct charge charge;
	int departs;

	if (!is_limited(skb, state, egress)) {
		count(&counters->exempt_packets, 1, egress);
		count(&counters->exempt_bytes, bytes, egress);
		return PASS;
	}
	if (!egress)
		__sync_fetch_and_add(&state->flow.arrived, bytes);
	charge = charge_of(state, bytes);
	departs = egress && state->departures && leaves_through_fq(skb, state);
	if (departs && has_to_wait(state, &charge)) {
		waiting = waiting_of(skb);
		if (waiting) {
			tolerance = gcra_ticks(LONGEST_QUEUE, tick_shift);
			if (!has_room(waiting, &charge, tolerance))
				goto drop;
		}
	}
	if (admit(state, &charge, skb, 0, egress)) {
		count(&counters->passed_packets, 1, egress);
		count(&counters->passed_bytes, bytes, egress);
		notify(skb, tolerance, charge.ahead);
		if (departs)
			depart(skb, waiting, state, &charge);
		return PASS;
	}
drop:
	if (egress && is_held_back(skb)) {
		count(&counters->held_back_packets, 1, egress);
		count(&counters->held_back_bytes, bytes, egress);
		barrier(); /* a pointer each; see the head of this file */
	} else {
		count(&counters->dropped_packets, 1, egress);
		count(&counters->dropped_bytes, bytes, egress);
	}
	if (dropped_mark) {
		skb->mark = dropped_mark;
		skb->priority = dropped_priority;
	}
	return egress ? DROP_EGRESS : DROP_INGRESS;
}

#include "queue.h"

SEC("cgroup_skb/ingress")
int chadthrottle_ingress(struct __sk_buff *skb)
{
	struct throttle_cgroup *cgroup = bpf_get_local_storage(&chad_state, 0);

	if (queued)
		enlist(skb);
	return throttle(skb, &cgroup->download, 0);
}

SEC("cgroup_skb/egress")
int chadthrottle_egress(struct __sk_buff *skb)
{
	struct throttle_cgroup *cgroup = bpf_get_local_storage(&chad_state, 0);

	return throttle(skb, &cgroup->upload, 1);
}

#include "sockops.h"

char LICENSE[] SEC("license") = "GPL";
