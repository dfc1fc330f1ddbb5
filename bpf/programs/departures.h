/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Departure times: where the queueing discipline is fq, an uploaded packet above the limit is not dropped but
 * told when to leave (skb->tstamp), and waits there. Part of throttle.bpf.c. Other disciplines do not look
 * at that time; so packets that leave through another device are the bucket's alone, with all of its burst.
 *
 * TCP queues little by itself (it is paced, and stops at some segments a socket). Others do not, so of each of
 * their sockets only so much may wait: one that floods must not keep the others waiting for long, and of what is
 * more than 100 packets of a flow (flow_limit) fq throws away what has been charged already.
 */
#ifndef CHADTHROTTLE_DEPARTURES_H
#define CHADTHROTTLE_DEPARTURES_H

/*
 * Nobody waits for what comes to less, in ns of the limit (or half of a shorter burst). TCP keeps its queue about as short by itself, so beside it
 * a small packet need not wait at all.
 */
#define SHORTEST_WAIT (20 * FLOW_MILLIS)
/* How much of a socket may wait, in ns of the limit. tbf is usually given 50 ms. */
#define LONGEST_QUEUE (40 * FLOW_MILLIS)
/*
 * And in packets: less than fq takes of a flow, more than fit into a socket's send buffer as it is by default
 * (92 of 1,500 bytes), so that who sends to a full one waits instead of losing packets.
 */
#define MOST_WAITING 96
/* A power of two. */
#define RING 128

/* When a socket's last packets leave. */
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
 * Whether the device that the packet leaves through has fq. On its way out skb->ifindex is that device. In
 * another network namespace another device may have the same number.
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

/* What of the packet's socket waits already. 0: it has none, or one that queues little by itself. */
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

/* Whether one packet more may wait: as if all of its socket's were as large as this one. One always may. */
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

/* Tells the packet when to leave, unless it is to leave later anyway (another limit, SO_TXTIME). */
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
		/* A small one that overtakes nothing of its socket's goes at once; the next has to wait for its time. */
		if (gcra_is_small(charge->bytes) && last <= charge->now)
			return;
	}
	if (skb->tstamp < when)
		skb->tstamp = when;
}

#endif
