/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The types of the map values that the packet programs and user space share. User space generates its types from the
 * object's BTF, so there is no second definition.
 */
#ifndef CHADTHROTTLE_THROTTLE_H
#define CHADTHROTTLE_THROTTLE_H

#include <linux/types.h>

/* The class of traffic to limit, by the address of the other side. */
enum throttle_traffic {
	TRAFFIC_ALL = 0,
	TRAFFIC_INTERNET = 1,
	TRAFFIC_LOCAL = 2,
};

/*
 * The data for the windows that TCP offers to senders (see flow.h). Only the programs write it. All zero means that
 * nothing is known yet.
 */
struct throttle_flow {
	__u64 arrived; /* bytes of limited packets, including dropped ones */
	__u64 arrived_before; /* `arrived` at the last update */
	__u64 updated; /* time of the last update, in nanoseconds; 0: never */
	__u64 fair_rate; /* bytes per second for each sender */
	__u64 rtt; /* nanoseconds, smoothed over all connections */
	__u32 cut; /* the last update has cut the fair rate */
	__u32 bound; /* since the last update, the fair rate has held a sender back */
};

/* The most devices with fq that a throttle knows. */
#define FQ_DEVICES 8

/*
 * The state of a throttle in one direction. User space writes it as a whole. The programs write only tat, reserve, flow
 * and dns.
 *
 * All zero means disarmed: every packet passes. The kernel zeroes the state when a program is attached. New fields go
 * to the end, as in the counters.
 */
struct throttle_state {
	__u64 rate; /* bytes per second, for people to read, and for flow.h; the rest uses cost */
	__u64 burst_ns; /* nanoseconds, for people to read; the program uses tolerance */
	__u64 cost; /* of one byte, in 2^-24 ns; 0 = disarmed */
	__u64 tolerance; /* ticks that tat may be ahead of the clock before packets are dropped */
	__u64 horizon; /* ticks; a tat that is further ahead lies in the past */
	__u64 tat; /* theoretical arrival time of the next packet, in ticks, modulo 2^64 */
	__u64 reserve; /* the TAT of the second bucket, for when the first is full (see gcra.h) */
	__u32 tick_shift; /* a tick is 2^-tick_shift ns */
	enum throttle_traffic traffic;
	__u64 departures; /* not 0: uploaded packets above the limit wait in fq, downloaded ones in the queue */
	__u32 fq[FQ_DEVICES]; /* upload only: the devices with fq, by ifindex; unused places are 0 */
	struct throttle_flow flow; /* download only */
	__u64 dns; /* the TAT of the third bucket, for DNS when the first is full (see gcra.h) */
};

/*
 * The states of both directions: the value of the map chad_state, one for each cgroup. They share a value because the
 * sockops program needs both: the upload's tat for pacing, and the download's for windows.
 */
struct throttle_cgroup {
	struct throttle_state download;
	struct throttle_state upload;
};

/*
 * The counters of packets: the value of the map chad_counters, one for each CPU and (cgroup, attach type). chad_drops
 * has the same type (see queue.h). Every packet counts in exactly one of the four pairs. Bytes count from the IP header
 * on, for each segment that GSO or GRO has merged.
 *
 * New fields go to the end. Readers of another version read the fields that both versions know.
 */
struct throttle_counters {
	__u64 exempt_packets; /* no limit: disarmed, other class, or already dropped by another throttle */
	__u64 exempt_bytes;
	__u64 passed_packets;
	__u64 passed_bytes;
	__u64 dropped_packets; /* lost */
	__u64 dropped_bytes;
	__u64 held_back_packets; /* not lost: TCP segments, counted at every failed attempt */
	__u64 held_back_bytes;
};

#endif
