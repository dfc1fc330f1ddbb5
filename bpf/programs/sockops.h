/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sockops program: makes TCP keep to the limit by itself, so that nothing has to be dropped. Part of
 * throttle.bpf.c. Needs the kernel's type information (BTF) beside what the packet programs need.
 *
 * Nothing of what it does to a socket stays there. The kernel asks it before each segment (the callbacks
 * for header options, 5.10), and
 *
 * - for a segment that carries data it lowers the socket's pacing rate by setting SO_MAX_PACING_RATE and
 *   at once setting it back to what it was: the kernel takes the lower of the two for this segment, and
 *   its own rate again with the next acknowledgement. What the user has set stays set, and is respected.
 *   (That TCP paces at all, sk_pacing_status, stays on; a socket without a limit then paces at 1.2 to 2
 *   times what its congestion window allows, as with fq.)
 * - for a bare acknowledgement it clamps the window that is about to be offered, and takes the clamp back
 *   as soon as the window has been chosen: four bytes of padding make the kernel ask once more, at the
 *   end. The window then grows by itself as data comes in.
 *
 * So when the owner dies between any two segments, the sockets are as they would be without it.
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
/* Without scaling and with it: bytes of an IP and a TCP header with time stamps. */
#define IPV4_TCP_HEADERS 52
#define IPV6_TCP_HEADERS 72
/* What the kernel itself takes to be the smallest one, SOCK_MIN_RCVBUF / 2, is a little less. */
#define LEAST_CLAMP 1152
#define SK_PACING_NONE 0
#define UNLIMITED (~0U)
#define PADDING 4

/* What is kept of a socket that receives. */
struct throttle_socket {
	__u32 clamp; /* the one it had, while its next window is being chosen; 0 otherwise */
	__u32 segment; /* which segment that window goes with */
	__u32 broken; /* a clamp was not taken back as it should: there will be none any more */
	__u32 counted; /* it has taken its share of the fair rate */
	__u64 used; /* bytes that came in the last whole round trip */
	__u64 since; /* when this one began, in nanoseconds */
	__u64 received; /* bytes received until then */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct throttle_socket);
} chad_sockets SEC(".maps");

/* Is the socket's other side of the class of traffic that is limited? */
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

/* Upload: how long the socket waits after this segment. */
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

	/* One that cannot be set back, for it does not fit into the helper's 32 bits (5.12 to 7.x). */
	if (most >= UNLIMITED && most != ~0UL)
		return;
	if (mss && payload > mss)
		headers *= (payload + mss - 1) / mss;
	ahead = ahead_at(state, now) + gcra_cost(state->cost, tick_shift, payload + headers);
	rate = flow_pace(ahead >> tick_shift, leaves > now ? leaves - now : 0,
			 state->tolerance >> tick_shift, payload, mss);
	/* A socket that does not pace yet begins to when it is given any limit. */
	if (!rate || rate >= UNLIMITED || (rate >= own && is_pacing))
		return;
	value = rate;
	if (bpf_setsockopt(ops, SOL_SOCKET, SO_MAX_PACING_RATE, &value, sizeof(value)))
		return;
	value = most;
	bpf_setsockopt(ops, SOL_SOCKET, SO_MAX_PACING_RATE, &value, sizeof(value));
}

/* Download: brings the fair rate up to date, once in a round trip. */
static __always_inline __u64 fair_rate(struct throttle_state *state, __u64 ahead_ns,
				       __u64 tolerance_ns, __u64 rtt)
{
	struct throttle_flow *flow = &state->flow;
	__u64 updated = *(volatile __u64 *)&flow->updated;
	__u64 now = bpf_ktime_get_ns();
	__u64 arrived = *(volatile __u64 *)&flow->arrived;

	/* Signed: another processor may have come in between. */
	if ((__s64)(now - updated) < (__s64)flow_interval(flow->rtt))
		return flow->fair_rate ?: state->rate;
	/* One of several processors does it. */
	if (__sync_val_compare_and_swap(&flow->updated, updated, now) != updated)
		return flow->fair_rate ?: state->rate;
	flow->rtt = flow->rtt ? (flow->rtt * 7 + rtt) / 8 : rtt;
	/* After a longer pause there is nothing to be learnt from what came in it. */
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

/* Download: what came in the last round trip, for a socket that is to use its window. */
static __always_inline __u64 used_by(struct throttle_socket *socket, __u64 received, __u64 rtt,
				     __u32 mss)
{
	__u64 now = bpf_ktime_get_ns();

	if (!socket->since) {
		socket->used = FLOW_FIRST_WINDOW * mss;
	} else if (now - socket->since >= rtt) {
		/* After a pause it begins anew, as the sender does (RFC 9293, slow start after idle). */
		socket->used = now - socket->since > 4 * rtt ? FLOW_FIRST_WINDOW * mss
							     : received - socket->received;
	} else {
		return socket->used;
	}
	socket->since = now;
	socket->received = received;
	return socket->used;
}

/* Download: the window that the next acknowledgement offers. */
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

	/* Who receives has no other measure of the round trip time, who sends as well has this one. */
	if (!rtt)
		rtt = (__u64)(tcp->srtt_us >> 3) * 1000;
	if (!rtt)
		return;
	/* A closed window that is clamped stays closed, on kernels before 6.7. */
	if (tcp->rcv_wnd < LEAST_CLAMP)
		return;
	/* The authentication option covers the padding, which the kernel fills in too late for it. */
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
	/* Without the padding the clamp could not be taken back. */
	if (window >= clamp || bpf_reserve_hdr_opt(ops, PADDING, 0))
		return;
	/* Of several throttles with the same load the first one sees the socket's own. */
	if (!socket->clamp)
		socket->clamp = clamp;
	socket->segment = ops->segs_out;
	value = window;
	bpf_setsockopt(ops, SOL_TCP, TCP_WINDOW_CLAMP, &value, sizeof(value));
}

static __always_inline void restore(struct bpf_sock_ops *ops, struct throttle_socket *socket,
				    struct tcp_sock *tcp)
{
	/* Throttles of other loads have saved what one before them had set: the highest is the socket's. */
	int value = socket->clamp;

	socket->clamp = 0;
	if (tcp->window_clamp < value)
		bpf_setsockopt(ops, SOL_TCP, TCP_WINDOW_CLAMP, &value, sizeof(value));
}

/* The window has been chosen: the clamp goes back to what it was. */
static __always_inline void take_back(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				      struct tcp_sock *tcp)
{
	struct throttle_socket *socket = bpf_sk_storage_get(&chad_sockets, sk, 0, 0);

	if (socket && socket->clamp)
		restore(ops, socket, tcp);
}

/*
 * The next segment, and the clamp of the last one is still there: the kernel has not asked at the end,
 * because another program returned 0, say. On this socket that may happen again.
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
		/* For who is connected to, this could make the first window larger than it would be. */
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
