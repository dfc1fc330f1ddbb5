/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Admitting packets when the bucket is full (see gcra.h), and rejecting them. Part of throttle.bpf.c. A conforming
 * packet never runs this code.
 */
#ifndef CHADTHROTTLE_RESERVE_H
#define CHADTHROTTLE_RESERVE_H

#define TCP_FLAGS 13
#define TCP_FIN 0x01
#define TCP_SYN 0x02

/* Less than MAX_RACES, because more paths lead here, and the verifier checks each race for each path. */
#define MAX_RESERVE_RACES 8

/* Returns the TCP socket of a sent packet; 0 if there is none. */
static __always_inline struct bpf_sock *tcp_sender_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	/* bpf_tcp_sock() mistakes a raw socket with this protocol for a TCP socket. */
	if (!sk || sk->type != SOCK_STREAM || sk->protocol != IPPROTO_TCP)
		return 0;
	return sk;
}

/*
 * Tells whether this is a TCP segment of a socket that has nothing in flight, as the kernel counts. A segment sent by a
 * timer is then a single one.
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
 * Tells whether the socket will send the packet again. It will if the segment uses sequence numbers (data, SYN or FIN).
 * The kernel then treats a drop here as not sent, and keeps the segment in the socket's queue. A bare acknowledgement
 * or a reset is lost.
 *
 * The function is global, so that the verifier checks it once, and not again for each path that leads here.
 */
__noinline int is_held_back(struct __sk_buff *skb)
{
	__u8 protocol = 0, flags = 0;
	__u32 ip, extra;

	if (!tcp_sender_of(skb))
		return 0;
	ip = ip_header_bytes(skb, 0, &protocol, &extra);
	if (protocol != IPPROTO_TCP)
		return 0;
	bpf_skb_load_bytes(skb, ip + TCP_FLAGS, &flags, 1);
	return flags & (TCP_SYN | TCP_FIN) || skb->len > ip + tcp_header_bytes(skb, ip);
}

/* Tells whether this is a whole datagram from or to a DNS port, without IP options or extension headers. */
static __always_inline int is_dns(struct __sk_buff *skb, __u32 base)
{
	__u32 words[IPV4_HEADER_BYTES / 4 + 1] = {};
	const __u8 *bytes = (const __u8 *)words;
	__u32 ports;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		load_words(skb, base, words, sizeof(words));
		if (bytes[0] != 0x45 || bytes[IPV4_PROTOCOL] != IPPROTO_UDP)
			return 0;
		if (words[IPV4_FRAGMENT / 4] & bpf_htonl(IPV4_IS_FRAGMENT))
			return 0;
		ports = words[IPV4_HEADER_BYTES / 4];
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		load_words(skb, base + IPV6_NEXT_HEADER / 4 * 4, words, 4);
		if (bytes[IPV6_NEXT_HEADER % 4] != IPPROTO_UDP)
			return 0;
		load_words(skb, base + IPV6_HEADER_BYTES, words, 4);
		ports = words[0];
	} else {
		return 0;
	}
	ports = bpf_ntohl(ports);
	return is_dns_port(ports >> 16) || is_dns_port(ports & 0xffff);
}

/* Charges a packet `cost` ticks to one of the extra buckets, and its normal cost to the first bucket. */
static __always_inline int admit_to(struct throttle_state *state, struct charge *charge,
				    __u64 *bucket, __u64 now, __u64 cost, __u64 tolerance)
{
	__u64 tat = *(volatile __u64 *)bucket;

#pragma unroll
	for (int race = 0; race < MAX_RESERVE_RACES; race++) {
		__u64 next, found;

		if (!gcra_admit(tat, now, cost, tolerance, state->horizon, &next))
			return 0;
		found = __sync_val_compare_and_swap(bucket, tat, next);
		if (found == tat) {
			/*
			 * The bucket was full a moment ago, so its TAT is ahead, and there is no idle time to cut off.
			 */
			__sync_fetch_and_add(&state->tat, charge->cost);
			/* Nobody should wait longer than the burst. */
			charge->ahead = flow_min(charge->ahead, state->tolerance);
			return 1;
		}
		tat = found;
	}
	return 0;
}

/* Tries to admit a packet although the bucket is full. `base` is the offset of its IP header. */
static __always_inline int admit_reserved(struct throttle_state *state, struct charge *charge,
					  __u64 now, struct __sk_buff *skb, __u32 base, int egress)
{
	__u32 tick_shift = state->tick_shift & 31;
	int is_small = gcra_is_small(charge->bytes);

	if ((is_small || (egress && is_alone(skb))) &&
	    admit_to(state, charge, &state->reserve, now, gcra_reserve_cost(charge->cost),
		     gcra_reserve_tolerance(tick_shift, is_small)))
		return 1;
	if (!gcra_is_dns_sized(charge->bytes) || !is_dns(skb, base))
		return 0;
	return admit_to(state, charge, &state->dns, now, gcra_dns_cost(charge->cost, tick_shift),
			gcra_dns_tolerance(tick_shift));
}

#endif
