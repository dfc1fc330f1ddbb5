/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The arithmetic of pacing and of windows, for TCP. The functions take only numbers, and use no map or helper. User
 * space compiles them too, for tests.
 *
 * Upload: the bucket's TAT is a virtual queue. A sent segment joins the queue. Its sender then waits until the queue,
 * including this segment, would have drained. So each sender has one segment in the queue at a time, and they take
 * turns. A sender with nothing to send leaves its turn to the others. The sum is the rate for any number of senders,
 * without counting them.
 *
 * Download: the sender is on another host, but it sends at most the offered window in a round trip. Each sender is
 * offered the same fair rate times its round trip time.
 *
 * The fair rate follows the bytes that arrive, as in RCP (N. Dukkipati, "Rate Control Protocol", 2007, equation 2.2).
 * It rises while less arrives than allowed. It falls while more arrives, or while the virtual queue is too long.
 */
#ifndef CHADTHROTTLE_FLOW_H
#define CHADTHROTTLE_FLOW_H

#include <linux/types.h>

#define FLOW_NANOS 1000000000ULL
#define FLOW_MILLIS 1000000ULL

/* The part of the virtual queue that may fill at once, so that a late timer does not leave the queue empty. */
#define FLOW_LEAD (5 * FLOW_MILLIS)
/*
 * The longest wait of a socket. The kernel waits even if the throttle is gone, so this is also the longest silence
 * after that. If a segment comes too early because of this limit, the bucket holds it back.
 */
#define FLOW_LONGEST_WAIT FLOW_NANOS
/*
 * The wanted length of the virtual queue for downloads. The queue must not run empty while the senders react. No packet
 * waits in it.
 */
#define FLOW_QUEUE (60 * FLOW_MILLIS)
/* The bounds of the interval between updates of the fair rate, which is one round trip. */
#define FLOW_SHORTEST_UPDATE (10 * FLOW_MILLIS)
#define FLOW_LONGEST_UPDATE (200 * FLOW_MILLIS)
/* In segments: the kernel's default for a sender's first window (RFC 6928), and the earlier default (RFC 3390). */
#define FLOW_FIRST_WINDOW 10
#define FLOW_LEAST_FIRST_WINDOW 4
/* The size of a packet on Ethernet, in bytes. */
#define FLOW_PACKET 1500
/* The kernel rounds a window up to a multiple of this, with its default scale. */
#define FLOW_WINDOW_UNIT 128
/* The number of fractional bits of factors. */
#define FLOW_SHIFT 10
#define FLOW_ONE (1 << FLOW_SHIFT)
/*
 * RCP's alpha and beta, the gains for spare rate and for the queue. They are lower than in RCP, because the bytes that
 * a window allows arrive a round trip later. src/flow_tests.rs tries them.
 */
#define FLOW_ALPHA (FLOW_ONE * 3 / 10)
#define FLOW_BETA (FLOW_ONE / 16)
/* The smallest factor of one update, except in a flood. */
#define FLOW_LEAST_FACTOR (FLOW_ONE * 5 / 8)
/* The fair rate stays between 1/4096 of the limit and four times the limit. */
#define FLOW_LEAST_SHIFT 12
#define FLOW_MOST_SHIFT 2

static __attribute__((always_inline)) inline __u64 flow_min(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

/*
 * Returns the pacing rate, in bytes per second, at which the kernel waits until this segment has left the virtual
 * queue. 0: no wait.
 *
 * `ahead_ns` is the length of the queue, including this segment. `later_ns` is how much later than now the segment
 * leaves anyway. With fq a socket hands over segments before their time. After the last one it waits only for segments
 * that joined the queue later.
 *
 * The rate stays until the next acknowledgement, so the next segment may use it too. For a tiny segment the rate would
 * be so low that a full one takes minutes. So the rate is at least that of a full segment, and a small one waits less
 * than its turn.
 */
static __attribute__((always_inline)) inline __u64 flow_pace(__u64 ahead_ns, __u64 later_ns,
							     __u64 tolerance_ns, __u32 payload,
							     __u32 mss)
{
	__u64 before = flow_min(FLOW_LEAD, tolerance_ns / 2) + later_ns;
	__u64 rate;

	if (ahead_ns <= before)
		return 0;
	if (payload < mss)
		payload = mss;
	rate = payload * FLOW_NANOS / flow_min(ahead_ns - before, FLOW_LONGEST_WAIT);
	return rate ? rate : 1;
}

/* Returns the interval between updates of the fair rate. */
static __attribute__((always_inline)) inline __u64 flow_interval(__u64 rtt)
{
	if (rtt < FLOW_SHORTEST_UPDATE)
		return FLOW_SHORTEST_UPDATE;
	return flow_min(rtt, FLOW_LONGEST_UPDATE);
}

/* Returns the fair rate with one more sender, which gets the same share as the others: 1/R' = 1/R + 1/limit. */
static __attribute__((always_inline)) inline __u64 flow_with_another(__u64 fair_rate, __u64 limit)
{
	__u64 shift = limit >> 30 ? 12 : 0; /* 100 GB/s squared has more than 64 bits */
	__u64 a = fair_rate >> shift;
	__u64 b = limit >> shift;
	__u64 shared = a + b ? a * b / (a + b) << shift : 0;

	return shared ? shared : 1;
}

/* Tells whether far more arrives than allowed, because there are more senders than estimated. */
static __attribute__((always_inline)) inline int flow_is_flooded(__u64 limit, __u64 arrived,
								 __u64 elapsed)
{
	return arrived > limit * (flow_min(elapsed, FLOW_NANOS) / 1000) / 1000000 * 5 / 4;
}

/*
 * Returns the next fair rate, after `arrived` bytes in `elapsed` ns, with `ahead_ns` in the virtual queue.
 *
 * The rate rises only if it has held a sender back (`is_bound`). Bytes that a window has allowed still arrive a round
 * trip later. So the rate may drop to the right value at once only if the last update has not done so (`may_cut`).
 */
static __attribute__((always_inline)) inline __u64 flow_next(__u64 fair_rate, __u64 limit,
							     __u64 arrived, __u64 elapsed,
							     __u64 ahead_ns, __u64 tolerance_ns,
							     int is_bound, int may_cut)
{
	__u64 most = limit << FLOW_MOST_SHIFT;
	__u64 least = limit >> FLOW_LEAST_SHIFT;
	__u64 wanted = flow_min(FLOW_QUEUE, tolerance_ns / 4);
	__u64 load, queue, scale;
	__s64 factor = FLOW_ONE;

	elapsed = flow_min(elapsed, FLOW_NANOS);
	/* The ratio of arrived to allowed bytes, at most 16, so that nothing overflows. */
	load = limit * (elapsed / 1000) / 1000000;
	load = (arrived << FLOW_SHIFT) / (load ? load : 1);
	load = flow_min(load, 16 * FLOW_ONE);

	factor += ((__s64)FLOW_ONE - (__s64)load) * FLOW_ALPHA >> FLOW_SHIFT;
	scale = elapsed > wanted ? elapsed : wanted;
	scale = scale ? scale : 1;
	if (ahead_ns > wanted) {
		queue = ((ahead_ns - wanted) << FLOW_SHIFT) / scale;
		factor -= (__s64)(flow_min(queue, FLOW_ONE) * FLOW_BETA >> FLOW_SHIFT);
		is_bound = 0;
	} else {
		queue = ((wanted - ahead_ns) << FLOW_SHIFT) / scale;
		factor += (__s64)(flow_min(queue, FLOW_ONE) * FLOW_BETA >> FLOW_SHIFT);
	}
	if (!is_bound && factor > FLOW_ONE)
		factor = FLOW_ONE;
	if (factor < FLOW_LEAST_FACTOR)
		factor = FLOW_LEAST_FACTOR;
	if (load > FLOW_ONE + FLOW_ONE / 4 && may_cut)
		factor = (__u64)FLOW_ONE * FLOW_ONE / load;

	fair_rate = (fair_rate >> FLOW_SHIFT) * (__u64)factor +
		    ((fair_rate & (FLOW_ONE - 1)) * (__u64)factor >> FLOW_SHIFT);
	if (fair_rate < least)
		fair_rate = least;
	/* Never 0, because 0 means that nothing is known. */
	return fair_rate ? flow_min(fair_rate, most) : 1;
}

/* Returns the bytes that the fair rate allows in a round trip. */
static __attribute__((always_inline)) inline __u64 flow_share(__u64 fair_rate, __u64 rtt)
{
	return fair_rate * (flow_min(rtt, 10 * FLOW_NANOS) / 1000) / 1000000;
}

/*
 * Returns the largest window for a sender that sent `used` bytes in the last round trip. A larger window would be of no
 * use now, and could come later all at once.
 *
 * The window is four times as much if the queue is empty, and half if the queue is far too long.
 */
static __attribute__((always_inline)) inline __u64 flow_most(__u64 used, __u64 ahead_ns,
							     __u64 tolerance_ns)
{
	if (!ahead_ns)
		return 4 * used;
	return ahead_ns > tolerance_ns / 2 ? used / 2 : 2 * used;
}

/*
 * Returns the first window of a connection, in segments. It is granted before anything is known about this connection,
 * or about others that begin at the same time. So 32 first windows fit into the burst, down to the minimum.
 */
static __attribute__((always_inline)) inline __u32 flow_first(__u64 limit, __u64 tolerance_ns)
{
	__u64 first = flow_share(limit, tolerance_ns / 32) / FLOW_PACKET;

	if (first < FLOW_LEAST_FIRST_WINDOW)
		return FLOW_LEAST_FIRST_WINDOW;
	return flow_min(first, FLOW_FIRST_WINDOW);
}

/*
 * Tells whether a connection takes part in the sharing. It does after it has received a first window, except for the
 * last segment, which may be small.
 */
static __attribute__((always_inline)) inline int flow_counts(__u64 received, __u32 mss)
{
	return received + mss > (__u64)FLOW_FIRST_WINDOW * mss;
}

/* Returns the rest of the first window. A connection that does not take part yet is offered no more than that. */
static __attribute__((always_inline)) inline __u64 flow_rest(__u64 received, __u32 mss)
{
	__u64 first = (__u64)FLOW_FIRST_WINDOW * mss;

	return received < first ? first - received : 0;
}

/*
 * Returns the window to offer, in bytes. If a sender may not send two full segments, it waits for its peer's delayed
 * acknowledgement (RFC 9293, 3.8.6.3). So there are at least two, unless the queue is far too long.
 *
 * The window is a number of full segments, rounded up or down at random (`random`) so that the mean is right. The rest
 * of a window would be sent as a small segment with its own headers. A few bytes less do not matter, except with one
 * segment, because its sender would wait for room.
 */
static __attribute__((always_inline)) inline __u64 flow_window(__u64 share, __u64 most,
							       __u64 ahead_ns, __u64 tolerance_ns,
							       __u32 mss, __u32 random)
{
	__u64 window = flow_min(share, most);
	__u64 least = ahead_ns > tolerance_ns / 2 ? mss : 2 * mss;

	if (window <= least)
		window = least;
	else
		window += (__u64)random * mss >> 32;
	if (window < 2 * mss)
		return mss;
	window -= window % mss;
	return window - window % FLOW_WINDOW_UNIT;
}

#endif
