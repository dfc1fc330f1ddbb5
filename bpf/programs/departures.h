/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Departure times. If the qdisc is fq, an uploaded packet above the limit is not dropped. The program sets its
 * departure time (skb->tstamp), and the packet waits in fq. Part of throttle.bpf.c.
 *
 * Other qdiscs ignore that time. So a packet that leaves through another device is limited by the bucket alone, with
 * the whole burst.
 *
 * TCP queues little by itself, because it is paced and stops at a few segments for each socket. Other protocols do not,
 * so each of their sockets may have only a limited queue. A flooding socket must not delay the others for long. fq also
 * drops packets of a flow above 100 (flow_limit), after they were charged.
 */
#ifndef CHADTHROTTLE_DEPARTURES_H
#define CHADTHROTTLE_DEPARTURES_H

/*
 * A shorter wait is skipped, in ns of the limit (or half of a shorter burst). TCP keeps its own queue about as short,
 * so a small packet beside TCP need not wait at all.
 */
#define SHORTEST_WAIT (20 * FLOW_MILLIS)
/* The longest queue of a socket, in ns of the limit. tbf usually gets 50 ms. */
#define LONGEST_QUEUE (40 * FLOW_MILLIS)
/*
 * The longest queue of a socket, in packets. fq accepts more than that for each flow. A socket's default send buffer
 * holds less (92 packets of 1,500 bytes), so a sender with a full buffer waits instead of losing packets.
 */
#define MOST_WAITING 96
/* A power of two. */
#define RING 128

/* The departure times of a socket's last packets. */
struct throttle_waiting {
	__u64 leaves[RING]; /* nanoseconds */
	__u32 next;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct throttle_waiting);
} chad_waiting SEC(".maps");

/*
 * Tells whether the packet leaves through a device with fq. On egress, skb->ifindex is that device. In another network
 * namespace another device may have the same number.
 */
static __always_inline int leaves_through_fq(const struct __sk_buff *skb,
					     const struct throttle_state *state)
{
	__u32 device = skb->ifindex;

#pragma unroll
	for (int i = 0; i < FQ_DEVICES; i++) {
		if (device && state->fq[i] == device)
			return 1;
	}
	return 0;
}

static __always_inline int has_to_wait(const struct throttle_state *state,
				       const struct charge *charge)
{
	__u64 now = gcra_ticks(charge->now, state->tick_shift & 31);

	return ticks_ahead(state, *(volatile __u64 *)&state->tat, now) != 0;
}

/* Returns the waiting packets of the packet's socket. 0: no socket, or a socket that queues little by itself. */
static __always_inline struct throttle_waiting *waiting_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol == IPPROTO_TCP)
		return 0;
	return bpf_sk_storage_get(&chad_waiting, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/*
 * Tells whether one more packet may wait, as if all packets of the socket were as large as this one. One packet always
 * may.
 */
static __always_inline int has_room(const struct throttle_waiting *waiting,
				    const struct charge *charge, __u64 longest)
{
	__u64 most = charge->cost ? longest / charge->cost : MOST_WAITING;

	if (most > MOST_WAITING)
		most = MOST_WAITING;
	if (!most)
		most = 1;
	return waiting->leaves[(waiting->next - most) & (RING - 1)] <= charge->now;
}

/* Sets the packet's departure time, unless it already has a later one (another limit, SO_TXTIME). */
static __always_inline void depart(struct __sk_buff *skb, struct throttle_waiting *waiting,
				   const struct throttle_state *state, const struct charge *charge)
{
	__u32 tick_shift = state->tick_shift & 31;
	__u64 ahead = charge->ahead >> tick_shift;
	__u64 shortest = flow_min(SHORTEST_WAIT, state->tolerance >> tick_shift >> 1);
	__u64 when;

	if (ahead <= shortest)
		return;
	when = charge->now + ahead - shortest;
	if (waiting) {
		__u64 last = waiting->leaves[(waiting->next - 1) & (RING - 1)];

		waiting->leaves[waiting->next++ & (RING - 1)] = when;
		/*
		 * A small packet that overtakes no other packet of its socket leaves at once. The next one waits for
		 * its own time.
		 */
		if (gcra_is_small(charge->bytes) && last <= charge->now)
			return;
	}
	if (skb->tstamp < when)
		skb->tstamp = when;
}

#endif
