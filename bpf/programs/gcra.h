/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The arithmetic of the limit: the Generic Cell Rate Algorithm in its virtual scheduling form (ITU-T
 * I.371, Annex A), on packets instead of cells. A packet conforms if the theoretical arrival time (TAT)
 * is at most `tolerance` ahead of the clock; it then moves the TAT on by its own cost. So whatever its
 * size, a packet passes once the bucket has drained far enough: the burst is `tolerance` and one packet.
 *
 * Plain functions of numbers, without a map, helper or division; user space compiles them too, for
 * tests.
 *
 * Time is counted in ticks of 2^-tick_shift ns, so that the cost of a small packet at 100 GB/s is not
 * rounded away. At a high rate the tick counter wraps within weeks. That is no harm: a TAT never lies
 * more than `horizon` ahead, so any other distance means that it lies in the past, however far.
 * Should an idle time be a whole number of wraps, to within the horizon, the bucket is full for the
 * rest of that horizon and right again afterwards.
 */
#ifndef CHADTHROTTLE_GCRA_H
#define CHADTHROTTLE_GCRA_H

#include <linux/types.h>

/* throttle_state.cost has this many fractional bits. */
#define GCRA_COST_SHIFT 24

/* The longest packet whose cost cannot overflow at the lowest rate: twice the largest that BIG TCP makes. */
#define GCRA_MAX_BYTES (1U << 20)

/*
 * Where the bucket is full, there is still something left for what must not wait behind large packets: two more
 * buckets. What passes there is charged to the first as well, so the rate is the same; the burst is larger for these.
 *
 * The reserve has half of the rate, 50 ms of it at once (25 ms of the rate and one packet), for
 *
 * - small packets: a ping, a DNS query, a key typed, an acknowledgement;
 * - TCP's segments where nothing of the socket is in flight. If the kernel cannot send such a one, it tries again
 *   every half second, and ends the connection after 15 times (ETIMEDOUT). They begin in the first half of the
 *   reserve; from 120 kB/s on one of 1,500 bytes fits into it, and leaves the other to the small ones.
 *
 * Half, because many connections that begin anew want one segment each every half second: 40 of them at 125 kB/s.
 * 50 ms are two such segments there.
 */
#define GCRA_SMALL_BYTES 256
#define GCRA_RESERVE_SHIFT 1
#define GCRA_RESERVE_NS 50000000ULL

/*
 * The third bucket is for messages of DNS that the reserve does not take: up to 1,232 bytes (what EDNS is told to use
 * since 2020) behind headers of UDP and IPv6. An eighth of the rate, 400 ms of it at once (50 ms of the rate and one
 * packet), and at most 200 packets a second. Whoever floods from such a port gets little more by it, and takes nothing
 * of the reserve; docs/benchmarks/limits.md has figures.
 */
#define GCRA_DNS_BYTES 1280
#define GCRA_DNS_SHIFT 3
#define GCRA_DNS_EACH_NS 5000000ULL
#define GCRA_DNS_NS 400000000ULL

static __attribute__((always_inline)) inline __u64 gcra_ticks(__u64 ns, __u32 tick_shift)
{
	return ns << tick_shift;
}

/* The cost of a packet in ticks, rounded to the nearest. */
static __attribute__((always_inline)) inline __u64 gcra_cost(__u64 cost, __u32 tick_shift,
							     __u32 bytes)
{
	__u32 shift = GCRA_COST_SHIFT - tick_shift;

	if (bytes > GCRA_MAX_BYTES)
		bytes = GCRA_MAX_BYTES;
	return (bytes * cost + (1ULL << shift >> 1)) >> shift;
}

/*
 * Whether a packet of this cost that arrives now (in ticks) conforms; if so, *next is the new TAT,
 * if not, it is untouched.
 */
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

/* What a packet costs in the reserve, in ticks, and how far its TAT may be ahead of the clock for it. */
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

/* The same of the bucket for DNS. */
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
