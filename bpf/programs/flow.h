/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * The arithmetic of pacing and of windows, for TCP. Plain functions of numbers, without a map or
 * helper; user space compiles them too, for tests.
 *
 * Upload: the bucket's TAT is a virtual queue. A segment that is sent joins it, and its sender waits
 * until what is in front of it, itself included, would have drained. So each sender has one segment in
 * the queue at a time; they take turns, whoever has nothing to send leaves its turn to the others, and
 * the sum is the rate, with any number of senders and without counting them.
 *
 * Download: the sender is somewhere else, but it sends no more in a round trip than the window that is
 * offered to it. All senders are offered the same rate times their round trip time, and that fair rate
 * follows what really arrives, as in RCP (N. Dukkipati, "Rate Control Protocol", 2007, equation 2.2):
 * up while less arrives than may, down while more does or the virtual queue is longer than it should be.
 */
#ifndef CHADTHROTTLE_FLOW_H
#define CHADTHROTTLE_FLOW_H

#include <linux/types.h>

#define FLOW_NANOS 1000000000ULL
#define FLOW_MILLIS 1000000ULL

/* What of the virtual queue may be filled at once, so that a late timer does not let it run empty. */
#define FLOW_LEAD (5 * FLOW_MILLIS)
/*
 * The longest that a socket waits. The kernel keeps to it whatever becomes of the throttle, so it is also how
 * long a socket may be silent after that is gone. What comes too early because of it, the bucket holds back.
 */
#define FLOW_LONGEST_WAIT FLOW_NANOS
/*
 * How long the virtual queue should be while receiving: long enough that it does not run empty while the
 * senders follow. Nobody waits in it.
 */
#define FLOW_QUEUE (60 * FLOW_MILLIS)
/* The fair rate is updated once in a round trip, and within these bounds. */
#define FLOW_SHORTEST_UPDATE (10 * FLOW_MILLIS)
#define FLOW_LONGEST_UPDATE (200 * FLOW_MILLIS)
/* In segments: the kernel's default for the first window of a sender (RFC 6928), and the one before (RFC 3390). */
#define FLOW_FIRST_WINDOW 10
#define FLOW_LEAST_FIRST_WINDOW 4
/* An Ethernet's packet. */
#define FLOW_PACKET 1500
/* The kernel rounds a window up to a multiple of this, with the scale that it chooses by default. */
#define FLOW_WINDOW_UNIT 128
/* Factors have this many fractional bits. */
#define FLOW_SHIFT 10
#define FLOW_ONE (1 << FLOW_SHIFT)
/*
 * RCP's alpha and beta, the gains on spare rate and on the queue. Lower than RCP's, for what a window allows
 * arrives a round trip later; src/flow_tests.rs tries them.
 */
#define FLOW_ALPHA (FLOW_ONE * 3 / 10)
#define FLOW_BETA (FLOW_ONE / 16)
/* Within one update it is not halved, but for a flood. */
#define FLOW_LEAST_FACTOR (FLOW_ONE * 5 / 8)
/* The fair rate stays between the limit's 4096th part and its fourfold. */
#define FLOW_LEAST_SHIFT 12
#define FLOW_MOST_SHIFT 2

static __attribute__((always_inline)) inline __u64 flow_min(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

/*
 * The pacing rate, in bytes per second, at which the kernel waits until this segment has left the
 * virtual queue; 0: it need not wait. `ahead_ns` is what is in the queue, with this segment; `later_ns`
 * is how much later than now the segment leaves anyway: with fq a socket hands over its segments before
 * their time, and waits after the last one only for what was not in the queue when it handed over that.
 *
 * The rate stays until the next acknowledgement, so the next segment may be sent at it as well, and nothing
 * can raise it before. For a segment of a few bytes it would be so low that a full one after it takes
 * minutes; so it is that of a full one at the least, and the small one waits less than its turn.
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

/* How long to wait between updates of the fair rate. */
static __attribute__((always_inline)) inline __u64 flow_interval(__u64 rtt)
{
	if (rtt < FLOW_SHORTEST_UPDATE)
		return FLOW_SHORTEST_UPDATE;
	return flow_min(rtt, FLOW_LONGEST_UPDATE);
}

/* The fair rate with one sender more, who gets as much as each of the others: 1/R' = 1/R + 1/limit. */
static __attribute__((always_inline)) inline __u64 flow_with_another(__u64 fair_rate, __u64 limit)
{
	__u64 shift = limit >> 30 ? 12 : 0; /* 100 GB/s squared has more than 64 bits */
	__u64 a = fair_rate >> shift;
	__u64 b = limit >> shift;
	__u64 shared = a + b ? a * b / (a + b) << shift : 0;

	return shared ? shared : 1;
}

/* Whether far more arrives than may: there are more senders than was thought. */
static __attribute__((always_inline)) inline int flow_is_flooded(__u64 limit, __u64 arrived,
								 __u64 elapsed)
{
	return arrived > limit * (flow_min(elapsed, FLOW_NANOS) / 1000) / 1000000 * 5 / 4;
}

/*
 * The next fair rate, after `arrived` bytes in `elapsed` ns, with `ahead_ns` in the virtual queue. It does
 * not grow unless there was a sender whom it held back (`is_bound`). And what a window has allowed still
 * arrives a round trip later: to cut the rate at once to what arrives should be is right only if that was
 * not done in the update before (`may_cut`).
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
	/* What arrived, relative to what may: at most 16 times, so that nothing overflows. */
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
	/* Never 0, which would mean that nothing is known. */
	return fair_rate ? flow_min(fair_rate, most) : 1;
}

/* What the fair rate sends in a round trip, in bytes. */
static __attribute__((always_inline)) inline __u64 flow_share(__u64 fair_rate, __u64 rtt)
{
	return fair_rate * (flow_min(rtt, 10 * FLOW_NANOS) / 1000) / 1000000;
}

/*
 * The most that a sender is offered who sent that many bytes in the last round trip: what it cannot use at
 * once would come later, all together. Four times as much while there is room, and half while there is
 * far too much in the queue.
 */
static __attribute__((always_inline)) inline __u64 flow_most(__u64 used, __u64 ahead_ns,
							     __u64 tolerance_ns)
{
	if (!ahead_ns)
		return 4 * used;
	return ahead_ns > tolerance_ns / 2 ? used / 2 : 2 * used;
}

/*
 * The first window of a connection, in segments: what is granted before anything is known of it, or of those
 * that begin at the same time. So 32 of them fit into the burst, down to the least.
 */
static __attribute__((always_inline)) inline __u32 flow_first(__u64 limit, __u64 tolerance_ns)
{
	__u64 first = flow_share(limit, tolerance_ns / 32) / FLOW_PACKET;

	if (first < FLOW_LEAST_FIRST_WINDOW)
		return FLOW_LEAST_FIRST_WINDOW;
	return flow_min(first, FLOW_FIRST_WINDOW);
}

/*
 * Whether a connection takes part in the sharing: it has received a first window, but for its last segment,
 * which may be a small one.
 */
static __attribute__((always_inline)) inline int flow_counts(__u64 received, __u32 mss)
{
	return received + mss > (__u64)FLOW_FIRST_WINDOW * mss;
}

/* What is left of the first window while a connection does not take part: no more is offered to it. */
static __attribute__((always_inline)) inline __u64 flow_rest(__u64 received, __u32 mss)
{
	__u64 first = (__u64)FLOW_FIRST_WINDOW * mss;

	return received < first ? first - received : 0;
}

/*
 * The window to offer, in bytes. A sender that may not send two whole segments waits for its peer's delayed
 * acknowledgement (RFC 9293, 3.8.6.3), so there are two, unless the queue is far too long already.
 *
 * It is whole segments, the one or the other number by chance (`random`) so that the mean is right: what is
 * left of a window is sent too, as a small segment with headers of its own. A few bytes less than whole ones do
 * not matter, but with one segment they do, as the sender would wait for room for it.
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
