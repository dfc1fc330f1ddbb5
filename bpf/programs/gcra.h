/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The arithmetic of the limit: the Generic Cell Rate Algorithm in its virtual scheduling form (ITU-T I.371, Annex A),
 * on packets instead of cells.
 *
 * A packet conforms if the theoretical arrival time (TAT) is at most `tolerance` ahead of the clock. It then advances
 * the TAT by its own cost. So a packet of any size passes once the bucket has drained enough. The burst is `tolerance`
 * and one packet.
 *
 * The functions take only numbers, and use no map, helper or division. User space compiles them too, for tests.
 *
 * Times are in ticks of 2^-tick_shift ns, so that rounding does not lose the cost of a small packet at 100 GB/s. At a
 * high rate the tick counter wraps within weeks, which is harmless. A TAT is never more than `horizon` ahead, so any
 * other distance means the past.
 *
 * If an idle time is a whole number of wraps, to within the horizon, the bucket counts as full. It is right again after
 * the rest of that horizon.
 */
#ifndef CHADTHROTTLE_GCRA_H
#define CHADTHROTTLE_GCRA_H

#include <linux/types.h>

/* The number of fractional bits of throttle_state.cost. */
#define GCRA_COST_SHIFT 24

/*
 * The longest packet with a cost that cannot overflow at the lowest rate. It is twice as long as the largest packet of
 * BIG TCP.
 */
#define GCRA_MAX_BYTES (1U << 20)

/*
 * Two more buckets, for packets that must not wait behind large ones when the first bucket is full. Their packets are
 * charged to the first bucket too. So the rate is the same, and only the burst is larger.
 *
 * The reserve has half of the rate, and 50 ms of it at once (25 ms of the rate and one packet). It is for:
 *
 * - small packets: a ping, a DNS query, a keystroke, an acknowledgement;
 * - TCP segments of sockets with nothing in flight. If the kernel cannot send such a segment, it retries every half
 *   second, and gives up after 15 attempts (ETIMEDOUT).
 *
 * These segments may use the first half of the reserve. From 120 kB/s on, a segment of 1,500 bytes fits into that half.
 * The other half is for small packets.
 *
 * The share is half of the rate because many connections may restart at once, each with one segment every half second.
 * At 125 kB/s that is enough for 40 of them, and 50 ms are two such segments.
 */
#define GCRA_SMALL_BYTES 256
#define GCRA_RESERVE_SHIFT 1
#define GCRA_RESERVE_NS 50000000ULL

/*
 * The third bucket, for DNS messages that the reserve does not admit. A message has up to 1,232 bytes (the EDNS size
 * recommended since 2020), plus headers of UDP and IPv6.
 *
 * The bucket has an eighth of the rate, and 400 ms of it at once (50 ms of the rate and one packet). It passes at most
 * 200 packets a second. A flood from a DNS port gains little, and takes nothing from the reserve.
 * docs/benchmarks/limits.md has figures.
 */
#define GCRA_DNS_BYTES 1280
#define GCRA_DNS_SHIFT 3
#define GCRA_DNS_EACH_NS 5000000ULL
#define GCRA_DNS_NS 400000000ULL

static __attribute__((always_inline)) inline __u64 gcra_ticks(__u64 ns, __u32 tick_shift)
{
	return ns << tick_shift;
}

/* Returns the cost of a packet in ticks, rounded to the nearest. */
static __attribute__((always_inline)) inline __u64 gcra_cost(__u64 cost, __u32 tick_shift,
							     __u32 bytes)
{
	__u32 shift = GCRA_COST_SHIFT - tick_shift;

	if (bytes > GCRA_MAX_BYTES)
		bytes = GCRA_MAX_BYTES;
	return (bytes * cost + (1ULL << shift >> 1)) >> shift;
}

/* Tells whether a packet of this cost that arrives now (in ticks) conforms. If so, sets *next to the new TAT. */
static __attribute__((always_inline)) inline int gcra_admit(__u64 tat, __u64 now, __u64 cost,
							    __u64 tolerance, __u64 horizon,
							    __u64 *next)
{
	__u64 ahead = tat - now;

	if (ahead > horizon)
		ahead = 0;
	if (ahead > tolerance)
		return 0;
	*next = now + ahead + cost;
	return 1;
}

static __attribute__((always_inline)) inline int gcra_is_small(__u32 bytes)
{
	return bytes <= GCRA_SMALL_BYTES;
}

/* The next two functions return the cost of a packet in the reserve and the reserve's tolerance, in ticks. */
static __attribute__((always_inline)) inline __u64 gcra_reserve_cost(__u64 cost)
{
	return cost << GCRA_RESERVE_SHIFT;
}

static __attribute__((always_inline)) inline __u64 gcra_reserve_tolerance(__u32 tick_shift,
									  int is_small)
{
	return gcra_ticks(is_small ? GCRA_RESERVE_NS : GCRA_RESERVE_NS / 2, tick_shift);
}

static __attribute__((always_inline)) inline int gcra_is_dns_sized(__u32 bytes)
{
	return bytes <= GCRA_DNS_BYTES;
}

/* The next two functions return the cost of a packet in the bucket for DNS and its tolerance, in ticks. */
static __attribute__((always_inline)) inline __u64 gcra_dns_cost(__u64 cost, __u32 tick_shift)
{
	__u64 least = gcra_ticks(GCRA_DNS_EACH_NS, tick_shift);

	cost <<= GCRA_DNS_SHIFT;
	return cost < least ? least : cost;
}

static __attribute__((always_inline)) inline __u64 gcra_dns_tolerance(__u32 tick_shift)
{
	return gcra_ticks(GCRA_DNS_NS, tick_shift);
}

#endif
