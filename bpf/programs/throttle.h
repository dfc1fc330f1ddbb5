/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The wire format between the packet programs and user space: what lies in the maps. User space gets
 * these types from the object's BTF, so there is no second definition to keep in step.
 */
#ifndef CHADTHROTTLE_THROTTLE_H
#define CHADTHROTTLE_THROTTLE_H

#include <linux/types.h>

/* Whose packets a throttle limits, by the address of the other side. */
enum throttle_traffic {
	TRAFFIC_ALL = 0,
	TRAFFIC_INTERNET = 1,
	TRAFFIC_LOCAL = 2,
};

/*
 * What the windows that are offered to senders are steered by (see flow.h). Written by the programs
 * alone; all zero: nothing is known yet.
 */
struct throttle_flow {
	__u64 arrived; /* bytes of limited packets, also of those that were dropped */
	__u64 arrived_before; /* the same at the last update */
	__u64 updated; /* when that was, in nanoseconds; 0: never */
	__u64 fair_rate; /* bytes per second for each sender */
	__u64 rtt; /* nanoseconds, smoothed over all connections */
	__u32 cut; /* the last update has cut the fair rate */
	__u32 bound; /* since the last update it has held a sender back */
};

/* How many devices with fq a throttle knows. */
#define FQ_DEVICES 8

/*
 * One throttle in one direction. Written by user space as a whole; the programs write nothing but tat,
 * reserve, flow and dns. All zero, as the kernel makes it when a program is attached: disarmed, every packet passes.
 * Grows at its end alone, as the counters do.
 */
struct throttle_state {
	__u64 rate; /* bytes per second, for people to read, and for flow.h; the rest uses cost */
	__u64 burst_ns; /* nanoseconds, for people to read; the program uses tolerance */
	__u64 cost; /* of one byte, in 2^-24 ns; 0 = disarmed */
	__u64 tolerance; /* ticks that tat may run ahead of the clock before packets are dropped */
	__u64 horizon; /* ticks; a tat further ahead than this is one that lies in the past */
	__u64 tat; /* theoretical arrival time of the next packet, in ticks, modulo 2^64 */
	__u64 reserve; /* the same of the second bucket, for when the other is full (see gcra.h) */
	__u32 tick_shift; /* a tick is 2^-tick_shift ns */
	enum throttle_traffic traffic;
	__u64 departures; /* not 0: packets above the limit wait in fq, of a download in that of its queue */
	__u32 fq[FQ_DEVICES]; /* of an upload: the devices that have fq, by ifindex; the rest is 0 */
	struct throttle_flow flow; /* of the download */
	__u64 dns; /* the TAT of the third bucket, for DNS when the first is full (see gcra.h) */
};

/*
 * Both directions: the value of the map chad_state, one for each cgroup. In one value, because the
 * sockops program paces by the upload's tat and offers windows by the download's.
 */
struct throttle_cgroup {
	struct throttle_state download;
	struct throttle_state upload;
};

/*
 * What became of the packets: the value of the map chad_counters, one for each CPU and (cgroup, attach
 * type), and of chad_drops (see queue.h). Every packet seen is in exactly one of the four pairs. Bytes count from the
 * IP header on, for each segment that GSO or GRO has put together.
 *
 * Grows at its end alone: other versions' values are read as far as both know them.
 */
struct throttle_counters {
	__u64 exempt_packets; /* not limited: disarmed, of another class, dropped by another throttle */
	__u64 exempt_bytes;
	__u64 passed_packets;
	__u64 passed_bytes;
	__u64 dropped_packets; /* lost */
	__u64 dropped_bytes;
	__u64 held_back_packets; /* not lost: attempts of TCP's, each segment as often as it was tried in vain */
	__u64 held_back_bytes;
};

#endif
