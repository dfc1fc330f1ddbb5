/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is admitted where the bucket is full (see gcra.h), and what becomes of a packet that is not. Part of
 * throttle.bpf.c. A packet that conforms pays nothing of this.
 */
#ifndef CHADTHROTTLE_RESERVE_H
#define CHADTHROTTLE_RESERVE_H

#define TCP_FLAGS 13
#define TCP_FIN 0x01
#define TCP_SYN 0x02

/*
 * Fewer than MAX_RACES: there are more ways to get here, and the verifier goes through each race for each of them.
 */
#define MAX_RESERVE_RACES 8

/* The TCP socket of a packet that is sent; 0: it has none. */
static __always_inline struct bpf_sock *tcp_sender_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	/* bpf_tcp_sock() takes a raw socket of that protocol for one of TCP. */
	if (!sk || sk->type != SOCK_STREAM || sk->protocol != IPPROTO_TCP)
		return 0;
	return sk;
}

/*
 * Is it a TCP segment of whose socket nothing is in flight, to the kernel's mind? What it sends by a timer then is
 * one segment.
 */
static __always_inline int is_alone(struct __sk_buff *skb)
{
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *sk;

	if (skb->gso_segs > 1)
		return 0;
	sk = tcp_sender_of(skb);
	if (!sk)
		return 0;
	tcp = bpf_tcp_sock(sk);
	return tcp && tcp->packets_out - tcp->sacked_out - tcp->lost_out + tcp->retrans_out == 0;
}

/*
 * Does its socket send it again? So it is with a TCP segment that has a sequence number of its own (data, SYN or FIN):
 * the kernel takes one that is dropped here for not sent, and keeps it in the socket's queue. A bare acknowledgement or
 * a reset is lost.
 */
static __always_inline int is_held_back(struct __sk_buff *skb)
{
	__u8 protocol = 0, flags = 0;
	__u32 ip;

	if (!tcp_sender_of(skb))
		return 0;
	ip = ip_header_bytes(skb, 0, &protocol);
	if (protocol != IPPROTO_TCP)
		return 0;
	bpf_skb_load_bytes(skb, ip + TCP_FLAGS, &flags, 1);
	return flags & (TCP_SYN | TCP_FIN) || skb->len > ip + tcp_header_bytes(skb, ip);
}

/* A packet for which the bucket is full. `sent`: the packet, unless it is one that comes in. */
static __always_inline int admit_reserved(struct throttle_state *state, struct charge *charge,
					  __u64 now, struct __sk_buff *sent)
{
	__u64 reserve = *(volatile __u64 *)&state->reserve;
	int is_small = gcra_is_small(charge->bytes);

	if (!is_small && !(sent && is_alone(sent)))
		return 0;
	for (int race = 0; race < MAX_RESERVE_RACES; race++) {
		__u64 next, found;

		barrier_var(race); /* so that it stays a loop */
		if (!gcra_admit_reserved(reserve, now, charge->cost, state->tick_shift & 31,
					 is_small, state->horizon, &next))
			return 0;
		found = __sync_val_compare_and_swap(&state->reserve, reserve, next);
		if (found == reserve) {
			/* The bucket was full a moment ago, so its TAT is ahead and no idle time is to be cut off. */
			__sync_fetch_and_add(&state->tat, charge->cost);
			/* Nobody is told to wait for longer than the burst. */
			charge->ahead = flow_min(charge->ahead, state->tolerance);
			return 1;
		}
		reserve = found;
	}
	return 0;
}

#endif
