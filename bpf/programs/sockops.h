/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sockops program makes TCP keep to the limit by itself, so that no packet need be dropped. Part of throttle.bpf.c.
 * It needs the kernel's type information (BTF) too.
 *
 * No change to a socket lasts. The kernel calls the program before each segment (the callbacks for header options,
 * 5.10). Then:
 *
 * - For a segment with data, the program lowers SO_MAX_PACING_RATE, and sets it back at once. The kernel takes the
 *   lower rate for this segment, and its own rate again with the next acknowledgement. The user's setting stays, and is
 *   respected.
 * - For a bare acknowledgement, the program clamps the next offered window. Four bytes of padding make the kernel call
 *   once more at the end, and the program then removes the clamp. The window grows by itself as data comes in.
 *
 * One change does last: pacing stays on (sk_pacing_status). A socket without a limit then paces at 1.2 to 2 times what
 * its congestion window allows, as with fq.
 *
 * So if the owner dies between any two segments, the sockets behave as they would without it.
 */
#ifndef CHADTHROTTLE_SOCKOPS_H
#define CHADTHROTTLE_SOCKOPS_H

#include "kernel_types.h"

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif
#define SOL_SOCKET 1
#define SO_MAX_PACING_RATE 47
#define SOL_TCP 6
#define TCP_WINDOW_CLAMP 10
#define TCP_FLAG_ACK 0x10
/* Bytes of an IP header and a TCP header with time stamps. */
#define IPV4_TCP_HEADERS 52
#define IPV6_TCP_HEADERS 72
/* A little more than the kernel's own minimum, SOCK_MIN_RCVBUF / 2. */
#define LEAST_CLAMP 1152
#define SK_PACING_NONE 0
#define UNLIMITED (~0U)
#define PADDING 4

/* The data of a receiving socket. */
struct throttle_socket {
	__u32 clamp; /* the socket's own clamp, while its next window is being chosen; 0 otherwise */
	__u32 segment; /* the segment that carries that window */
	__u32 broken; /* a clamp was not removed as it should be, so there will be no more */
	__u32 counted; /* the socket has got its share of the fair rate */
	__u64 used; /* bytes received in the last whole round trip */
	__u64 since; /* start of this round trip, in nanoseconds */
	__u64 received; /* bytes received before this round trip */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct throttle_socket);
} chad_sockets SEC(".maps");

/* Tells whether the socket's other side belongs to the limited class of traffic. */
static __always_inline int is_limited_socket(struct bpf_sock_ops *ops,
					     const struct throttle_state *state)
{
	if (!state->cost)
		return 0;
	if (state->traffic == TRAFFIC_ALL)
		return 1;
	if (ops->family == AF_INET6) {
		__u32 a[4] = {ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2],
			      ops->remote_ip6[3]};

		return limits_class(state, ipv6_is_local((__u8 *)a));
	}
	__u32 a = ops->remote_ip4;

	return limits_class(state, ipv4_is_local((__u8 *)&a));
}

static __always_inline __u64 ahead_at(const struct throttle_state *state, __u64 now_ns)
{
	__u64 now = gcra_ticks(now_ns, state->tick_shift & 31);

	return ticks_ahead(state, *(volatile __u64 *)&state->tat, now);
}

/* Upload: sets how long the socket waits after this segment. */
static __always_inline void pace(struct bpf_sock_ops *ops, const struct throttle_state *state,
				 struct tcp_sock *tcp)
{
	__u32 tick_shift = state->tick_shift & 31;
	__u32 payload = ops->skb_len;
	__u32 mss = ops->mss_cache;
	__u32 headers = ops->family == AF_INET6 ? IPV6_TCP_HEADERS : IPV4_TCP_HEADERS;
	__u64 most = tcp->inet_conn.icsk_inet.sk.sk_max_pacing_rate;
	__u64 own = tcp->inet_conn.icsk_inet.sk.sk_pacing_rate;
	__u64 leaves = tcp->tcp_wstamp_ns;
	__u64 now = bpf_ktime_get_ns();
	int is_pacing = tcp->inet_conn.icsk_inet.sk.sk_pacing_status != SK_PACING_NONE;
	__u64 ahead, rate;
	__u32 value;

	/* This value cannot be set back, because it does not fit into the helper's 32 bits (5.12 to 7.x). */
	if (most >= UNLIMITED && most != ~0UL)
		return;
	if (mss && payload > mss)
		headers *= (payload + mss - 1) / mss;
	ahead = ahead_at(state, now) + gcra_cost(state->cost, tick_shift, payload + headers);
	rate = flow_pace(ahead >> tick_shift, leaves > now ? leaves - now : 0,
			 state->tolerance >> tick_shift, payload, mss);
	/* A socket that does not pace yet starts to when it gets any limit. */
	if (!rate || rate >= UNLIMITED || (rate >= own && is_pacing))
		return;
	value = rate;
	if (bpf_setsockopt(ops, SOL_SOCKET, SO_MAX_PACING_RATE, &value, sizeof(value)))
		return;
	value = most;
	bpf_setsockopt(ops, SOL_SOCKET, SO_MAX_PACING_RATE, &value, sizeof(value));
}

/* Download: updates the fair rate once in a round trip, and returns it. */
static __always_inline __u64 fair_rate(struct throttle_state *state, __u64 ahead_ns,
				       __u64 tolerance_ns, __u64 rtt)
{
	struct throttle_flow *flow = &state->flow;
	__u64 updated = *(volatile __u64 *)&flow->updated;
	__u64 now = bpf_ktime_get_ns();
	__u64 arrived = *(volatile __u64 *)&flow->arrived;

	/* Signed, because another CPU may have updated it in between. */
	if ((__s64)(now - updated) < (__s64)flow_interval(flow->rtt))
		return flow->fair_rate ?: state->rate;
	/* One of several CPUs does the update. */
	if (__sync_val_compare_and_swap(&flow->updated, updated, now) != updated)
		return flow->fair_rate ?: state->rate;
	flow->rtt = flow->rtt ? (flow->rtt * 7 + rtt) / 8 : rtt;
	/* The bytes of a longer pause say nothing about the senders. */
	if (now - updated <= FLOW_NANOS && arrived > flow->arrived_before) {
		__u64 came = arrived - flow->arrived_before;
		int may_cut = !flow->cut;

		flow->fair_rate =
			flow_next(flow->fair_rate ?: state->rate, state->rate, came, now - updated,
				  ahead_ns, tolerance_ns, flow->bound, may_cut);
		flow->cut = may_cut && flow_is_flooded(state->rate, came, now - updated);
	}
	flow->bound = 0;
	flow->arrived_before = arrived;
	return flow->fair_rate ?: state->rate;
}

/* Download: returns the bytes of the last round trip, for a socket that should use its window. */
static __always_inline __u64 used_by(struct throttle_socket *socket, __u64 received, __u64 rtt,
				     __u32 mss)
{
	__u64 now = bpf_ktime_get_ns();

	if (!socket->since) {
		socket->used = FLOW_FIRST_WINDOW * mss;
	} else if (now - socket->since >= rtt) {
		/* After a pause the socket starts again, as its sender does (RFC 9293, slow start after idle). */
		socket->used = now - socket->since > 4 * rtt ? FLOW_FIRST_WINDOW * mss
							     : received - socket->received;
	} else {
		return socket->used;
	}
	socket->since = now;
	socket->received = received;
	return socket->used;
}

/* Download: sets the window that the next acknowledgement offers. */
static __always_inline void offer(struct bpf_sock_ops *ops, struct throttle_state *state,
				  struct bpf_sock *sk, struct tcp_sock *tcp)
{
	__u32 tick_shift = state->tick_shift & 31;
	__u64 ahead_ns = ahead_at(state, bpf_ktime_get_ns()) >> tick_shift;
	__u64 tolerance_ns = state->tolerance >> tick_shift;
	__u64 rtt = (__u64)(tcp->rcv_rtt_est.rtt_us >> 3) * 1000;
	__u32 clamp = tcp->window_clamp;
	struct throttle_socket *socket;
	__u32 mss = ops->mss_cache;
	__u64 received = ops->bytes_received;
	__u64 share, most, window;
	int value;

	/* A socket that only receives has no other measure of the round trip time. One that also sends has this one. */
	if (!rtt)
		rtt = (__u64)(tcp->srtt_us >> 3) * 1000;
	if (!rtt)
		return;
	/* On kernels before 6.7, a closed window with a clamp stays closed. */
	if (tcp->rcv_wnd < LEAST_CLAMP)
		return;
	/* The authentication option covers the padding, but the kernel fills the padding in too late for it. */
	if (bpf_core_field_exists(tcp->ao_info) && tcp->ao_info)
		return;
	socket = bpf_sk_storage_get(&chad_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket || socket->broken)
		return;
	if (mss < tcp->inet_conn.icsk_ack.rcv_mss)
		mss = tcp->inet_conn.icsk_ack.rcv_mss;
	if (!socket->counted && flow_counts(received, mss)) {
		socket->counted = 1;
		state->flow.fair_rate =
			flow_with_another(state->flow.fair_rate ?: state->rate, state->rate);
	}
	share = flow_share(fair_rate(state, ahead_ns, tolerance_ns, rtt), rtt);
	most = flow_most(used_by(socket, received, rtt, mss), ahead_ns, tolerance_ns);
	if (!socket->counted)
		most = flow_min(most, flow_rest(received, mss));
	if (share < most)
		state->flow.bound = 1;
	window = flow_window(share, most, ahead_ns, tolerance_ns, mss, bpf_get_prandom_u32());
	if (window < LEAST_CLAMP)
		window = LEAST_CLAMP;
	/* Without the padding, the clamp could not be removed. */
	if (window >= clamp || bpf_reserve_hdr_opt(ops, PADDING, 0))
		return;
	/* If several throttles share a load, the first one sees the socket's own clamp. */
	if (!socket->clamp)
		socket->clamp = clamp;
	socket->segment = ops->segs_out;
	value = window;
	bpf_setsockopt(ops, SOL_TCP, TCP_WINDOW_CLAMP, &value, sizeof(value));
}

static __always_inline void restore(struct bpf_sock_ops *ops, struct throttle_socket *socket,
				    struct tcp_sock *tcp)
{
	/* Throttles of other loads have saved each other's clamps. The highest value is the socket's own. */
	int value = socket->clamp;

	socket->clamp = 0;
	if (tcp->window_clamp < value)
		bpf_setsockopt(ops, SOL_TCP, TCP_WINDOW_CLAMP, &value, sizeof(value));
}

/* Removes the clamp after the kernel has chosen the window. */
static __always_inline void take_back(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				      struct tcp_sock *tcp)
{
	struct throttle_socket *socket = bpf_sk_storage_get(&chad_sockets, sk, 0, 0);

	if (socket && socket->clamp)
		restore(ops, socket, tcp);
}

/*
 * Removes a clamp that is still there at the next segment. The kernel has not made the last call, for example because
 * another program returned 0. That may happen again on this socket.
 */
static __always_inline void mend(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				 struct tcp_sock *tcp)
{
	struct throttle_socket *socket = bpf_sk_storage_get(&chad_sockets, sk, 0, 0);

	if (!socket || !socket->clamp || socket->segment == ops->segs_out)
		return;
	restore(ops, socket, tcp);
	socket->broken = 1;
}

SEC("sockops")
int chadthrottle_sockops(struct bpf_sock_ops *ops)
{
	struct throttle_cgroup *cgroup = bpf_get_local_storage(&chad_state, 0);
	struct throttle_state *download = download_of(cgroup);
	struct bpf_sock *sk;
	struct tcp_sock *tcp;

	if (!download)
		return 1;
	switch (ops->op) {
	case BPF_SOCK_OPS_RWND_INIT:
		/* For an accepted connection, this could enlarge the first window. */
		if (ops->is_fullsock && is_limited_socket(ops, download))
			ops->reply = flow_first(download->rate,
						download->tolerance >> (download->tick_shift & 31));
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags |
						       BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		break;
	default:
		return 1;
	}
	sk = ops->sk;
	if (!sk)
		return 1;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 1;
	if (ops->op == BPF_SOCK_OPS_WRITE_HDR_OPT_CB) {
		take_back(ops, sk, tcp);
		return 1;
	}
	mend(ops, sk, tcp);
	if (ops->skb_len && is_limited_socket(ops, &cgroup->upload))
		pace(ops, &cgroup->upload, tcp);
	else if (!ops->skb_len && ops->skb_tcp_flags & TCP_FLAG_ACK &&
		 is_limited_socket(ops, download))
		offer(ops, download, sk, tcp);
	return 1;
}

#endif
