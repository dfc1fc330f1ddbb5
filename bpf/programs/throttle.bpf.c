// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet programs, which decide whether a packet conforms. They need Linux 5.12 (atomic compare-and-swap). The
 * sockops program (sockops.h) makes TCP send and receive no more than the limit.
 *
 * One load serves every cgroup of its owner. State and counters are in cgroup storage, which needs no look-up. Each
 * cgroup has one state. Each (cgroup, attach type) with an attached program has counters.
 *
 * All programs except the sockops program load without CAP_PERFMON. The verifier then also follows branches that are
 * never taken, because a CPU may speculate on them. That has two consequences:
 *
 * - On such a branch, a loop with a known counter never ends. So loops are unrolled.
 * - The verifier refuses a pointer offset that differs between paths. So no two paths share the code that adds one.
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
 * Verdicts. A dropped upload returns 2, not 0. With 0, sendto() fails with EPERM. With 2, the packet is lost, as in a
 * full queue. TCP loses nothing, because it counts the segment as not sent and keeps it in its queue (see
 * is_held_back()).
 */

#define PASS 1
#define DROP_INGRESS 0
#define DROP_EGRESS 2

/* From linux/socket.h, which is internal to the kernel. */
#define SOCK_STREAM 1

/*
 * The most lost races in a row before the packet is dropped. A race is lost when another CPU's packet passes within
 * some 30 ns. At 5 million packets a second in a cgroup, a seventh of the races is lost, and never 16 in a row.
 *
 * The verifier checks each race for each path that leads here. That is most of the load time, so the number is no
 * larger.
 */
#define MAX_RACES 16

/*
 * A setting is written before loading, and never after that. The tests run the programs without loading them, and set
 * it for a call.
 */
#ifndef SETTING
#define SETTING const volatile
#endif

/* The owner, for bpftool to print and the auditor to read. Set before loading. */
const volatile __u32 bpf_metadata_owner_pid = 0;
const volatile __u64 bpf_metadata_owner_start = 0;
const volatile __u32 bpf_metadata_owner_pidns = 0;
const volatile char bpf_metadata_owner_boot[40] = "";
const volatile char bpf_metadata_version[24] = "";

/*
 * The mark of a packet that one of these programs has dropped. The kernel runs all programs of a cgroup and its
 * ancestors for every packet, whatever the others returned. From the mark, later programs know that the packet is
 * dropped, and do not charge it.
 *
 * Nobody sees the mark, because the packet is freed. The mark must stay secret. Whoever knows it and may set marks
 * (CAP_NET_RAW is enough) could send packets that no throttle charges.
 *
 * So it is a random number that the owners of this host's throttles share. It is too long to guess, because half of it
 * is the packet's priority. 0: drops are not marked.
 */
SETTING __u32 dropped_mark = 0;
SETTING __u32 dropped_priority = 0;

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64); /* only the cgroup, so its attach types share the value (5.9) */
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

/* Returns the future time that earlier packets have already used, in ticks. */
static __always_inline __u64 ticks_ahead(const struct throttle_state *state, __u64 tat, __u64 now)
{
	__u64 ahead = tat - now;

	return ahead > state->horizon ? 0 : ahead;
}

/* Loads words of the packet. Headers are usually contiguous, and then no call is needed. */
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
 * Tells whether the other side of this packet has a local address. A packet that is neither IPv4 nor IPv6 counts as
 * local. Here and below, `base` is the offset of the IP header.
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

/* Tells whether another of these programs has already dropped the packet. */
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

/*
 * The size of BIG TCP's header after the IPv6 header. Segments on the wire do not have it. No other segment has
 * extension headers.
 */
#define JUMBO_BYTES 8

/*
 * Returns the bytes between the beginnings of the IP header and the transport header. `extra` is the part of them that
 * segments on the wire do not have.
 */
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

/* Returns the bytes of the packet's headers, from IP on. */
static __always_inline __u32 header_bytes(struct __sk_buff *skb, __u32 base, __u32 *extra)
{
	__u8 protocol = 0;
	__u32 ip = ip_header_bytes(skb, base, &protocol, extra);

	if (protocol == IPPROTO_UDP)
		return ip + 8;
	return ip + tcp_header_bytes(skb, base + ip);
}

/*
 * Returns the packet's bytes on the wire. A packet that GSO or GRO has merged has one header here, and many there. A
 * merged packet from a virtual machine's device has no number of segments.
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

/* A packet to charge. */
struct charge {
	__u64 now; /* nanoseconds */
	__u32 bytes;
	__u64 cost; /* ticks */
	__u64 ahead; /* future ticks that earlier packets have already used */
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

/* Tells whether a packet conforms, and charges it. `base` is the offset of its IP header. */
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
 * Tells senders with ECN (ECT) about congestion before packets are lost. The probability grows with the second half of
 * the queue. `ahead` and `tolerance` are in ticks.
 */
static __always_inline void notify(struct __sk_buff *skb, __u64 tolerance, __u64 ahead)
{
	__u64 half = tolerance / 2;

	if (ahead > half && ((half >> 16) * (bpf_get_prandom_u32() >> 16)) < ahead - half)
		bpf_skb_ecn_set_ce(skb);
}

/*
 * Adds to a counter of this CPU. A softirq that sends may interrupt a sending process between load and store, so
 * uploads need an atomic addition (5 ns). Downloads run only in softirqs, which do not interrupt each other.
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
		barrier(); /* each branch has its own pointer; see the head of this file */
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
