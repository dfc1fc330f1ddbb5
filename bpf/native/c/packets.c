// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet programs as a whole, compiled for this machine: the tests give them packets, sockets and a clock.
 * The kernel's helpers are below, as far as these ways through the programs call them.
 */
#include <stddef.h>

#include "throttle.bpf.c"

/* A packet, and what the kernel knows beside it. */
struct native_packet {
	__u64 now; /* nanoseconds */
	__u64 tstamp; /* read and written, as skb->tstamp */
	const __u8 *bytes; /* from the link header on, if there is one */
	__u32 available; /* so many of them can be read */
	__u32 length; /* skb->len */
	__u32 gso_segs;
	__u32 gso_size;
	__u32 protocol; /* ETH_P_... */
	__u32 device;
	__u32 random;
	__u32 socket; /* IPPROTO_TCP, IPPROTO_UDP, or 0: it has none */
	__u32 is_raw; /* that socket is not the protocol's own */
	__u32 is_foreign; /* that socket is not the cgroup's */
	__u32 in_flight; /* segments of a TCP socket that were sent and not acknowledged, */
	__u32 sacked; /* of which so many have arrived all the same, */
	__u32 lost; /* and so many have not; */
	__u32 sent_again; /* so many of those were sent again */
	__u32 mark; /* read and written, as skb->mark and skb->priority */
	__u32 priority;
	__u32 dropped_mark; /* what the load marks dropped packets with */
	__u32 dropped_priority;
	__u32 queued; /* downloads have a queue */
	__u32 enlisted; /* written: its socket is the cgroup's from now on */
	__u32 told; /* written: congestion was told */
	__u32 redirected; /* written: the device that it was redirected to, or 0 */
	__u32 looked_up; /* written: so many bytes of a socket's addresses and ports were looked for, */
	__u8 tuple[sizeof(struct bpf_sock_tuple)]; /* and these */
};

/* A call of the sockops program: the TCP socket, and what the kernel asks about it. */
struct native_call {
	__u64 now; /* nanoseconds */
	__u64 received; /* bytes */
	__u64 most; /* sk_max_pacing_rate */
	__u64 own; /* sk_pacing_rate */
	__u64 leaves; /* tcp_wstamp_ns */
	__u32 op; /* BPF_SOCK_OPS_... */
	__u32 family;
	__u32 remote[4]; /* of IPv4 the first */
	__u32 payload;
	__u32 mss;
	__u32 rcv_mss;
	__u32 tcp_flags;
	__u32 segments; /* segs_out */
	__u32 window; /* rcv_wnd */
	__u32 rcv_rtt_us; /* the receiver's estimate, as the kernel keeps it */
	__u32 srtt_us; /* the sender's */
	__u32 random;
	__u32 is_pacing;
	__u32 is_full; /* not a request's socket */
	__u32 has_socket;
	__u32 is_tcp;
	__u32 is_authenticated; /* by TCP-AO */
	__u32 is_crowded; /* no room for another header option */
	__u32 is_fixed; /* no option can be set */
	__u32 queued; /* downloads have a queue, */
	__u32 is_early; /* of which nothing is known yet */
	__u32 clamp; /* read and written: window_clamp */
	__u32 callbacks; /* read and written: bpf_sock_ops_cb_flags */
	__u32 reply; /* written */
	__u32 made; /* written: what is kept of the socket was to be made */
	__u32 padding; /* written: bytes that were reserved in the header */
	__u32 tried; /* written: so often an option was set, or tried to be; */
	__u32 paced; /* written: so many of them were pacing rates, */
	__u32 rates[2]; /* and these */
};

/* What BPF programs return for a packet that bpf_redirect() sends elsewhere. */
#define TCX_REDIRECT 7

enum native_program {
	NATIVE_INGRESS,
	NATIVE_EGRESS,
	NATIVE_REDIRECT,
	NATIVE_QUEUE,
};

/* What one call of a program goes by. */
static __thread struct native_world {
	struct native_packet *packet;
	struct throttle_cgroup *cgroup;
	struct throttle_counters *counters;
	struct throttle_waiting *waiting;
	struct bpf_sock sock;
	struct bpf_tcp_sock tcp;
	struct native_call *call;
	struct throttle_socket *socket;
	struct tcp_sock own;
} world;

static __u64 bpf_ktime_get_ns(void)
{
	return world.call ? world.call->now : world.packet->now;
}

static __u32 bpf_get_prandom_u32(void)
{
	return world.call ? world.call->random : world.packet->random;
}

static void *bpf_get_local_storage(void *map, __u64 flags)
{
	if (flags)
		__builtin_trap();
	return map == (void *)&chad_state ? (void *)world.cgroup : (void *)world.counters;
}

/* With a queue it has the state and the counters of the download. */
static void *bpf_map_lookup_elem(void *map, const void *key)
{
	if (map == (void *)&chad_queue)
		return world.call && world.call->is_early ? 0 : &world.cgroup->download;
	return map == (void *)&chad_drops ? (void *)world.counters : &world.packet->device;
}

static long bpf_skb_load_bytes(const void *skb, __u32 offset, void *to, __u32 bytes)
{
	if (offset > world.packet->available || bytes > world.packet->available - offset)
		return -1;
	__builtin_memcpy(to, world.packet->bytes + offset, bytes);
	return 0;
}

static long bpf_skb_ecn_set_ce(struct __sk_buff *skb)
{
	world.packet->told = 1;
	return 1;
}

static long bpf_skb_set_tstamp(struct __sk_buff *skb, __u64 tstamp, __u32 kind)
{
	skb->tstamp = tstamp;
	return 0;
}

static struct bpf_sock *bpf_sk_fullsock(struct bpf_sock *sk)
{
	return sk;
}

static struct bpf_tcp_sock *bpf_tcp_sock(struct bpf_sock *sk)
{
	return sk->protocol == IPPROTO_TCP ? &world.tcp : 0;
}

static void *bpf_sk_storage_get(void *map, void *sk, void *value, __u64 flags)
{
	static __u8 member;

	if (value)
		__builtin_trap();
	if (map == (void *)&chad_sockets)
		world.call->made |= flags;
	if (map == (void *)&chad_members) {
		world.packet->enlisted |= flags;
		return flags || !world.packet->is_foreign ? &member : 0;
	}
	return map == (void *)&chad_waiting ? (void *)world.waiting : world.socket;
}

static struct bpf_sock *look_up(struct bpf_sock_tuple *tuple, __u32 size, __u32 protocol)
{
	world.packet->looked_up = size;
	__builtin_memcpy(world.packet->tuple, tuple, size);
	return world.packet->socket == protocol ? &world.sock : 0;
}

static struct bpf_sock *bpf_sk_lookup_tcp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
					  __u64 netns, __u64 flags)
{
	return look_up(tuple, size, IPPROTO_TCP);
}

static struct bpf_sock *bpf_sk_lookup_udp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
					  __u64 netns, __u64 flags)
{
	return look_up(tuple, size, IPPROTO_UDP);
}

static long bpf_sk_release(void *sk)
{
	return 0;
}

static long bpf_redirect(__u32 device, __u64 flags)
{
	world.packet->redirected = device;
	return TCX_REDIRECT;
}

static long bpf_setsockopt(void *ctx, int level, int name, void *value, int bytes)
{
	struct native_call *call = world.call;

	call->tried++;
	if (call->is_fixed)
		return -1;
	if (level == SOL_TCP && name == TCP_WINDOW_CLAMP)
		world.own.window_clamp = *(__u32 *)value;
	else if (level == SOL_SOCKET && name == SO_MAX_PACING_RATE && call->paced < 2)
		call->rates[call->paced++] = *(__u32 *)value;
	else
		__builtin_trap();
	return 0;
}

static long bpf_reserve_hdr_opt(struct bpf_sock_ops *ops, __u32 bytes, __u64 flags)
{
	if (flags)
		__builtin_trap();
	if (world.call->is_crowded)
		return -1;
	world.call->padding += bytes;
	return 0;
}

static long bpf_sock_ops_cb_flags_set(struct bpf_sock_ops *ops, int flags)
{
	world.call->callbacks = flags;
	return 0;
}

static struct tcp_sock *bpf_skc_to_tcp_sock(void *sk)
{
	return world.call->is_tcp ? &world.own : 0;
}

static struct __sk_buff as_skb(struct native_packet *packet)
{
	/* No byte lies between `data` and `data_end`, so all are loaded by the helper. */
	struct __sk_buff skb = {
		.len = packet->length,
		.protocol = bpf_htons(packet->protocol),
		.gso_segs = packet->gso_segs,
		.gso_size = packet->gso_size,
		.ifindex = packet->device,
		.tstamp = packet->tstamp,
		.mark = packet->mark,
		.priority = packet->priority,
	};

	world.packet = packet;
	world.sock = (struct bpf_sock){
		.protocol = packet->socket,
		.type = packet->socket == IPPROTO_TCP && !packet->is_raw ? SOCK_STREAM : 2,
	};
	world.tcp = (struct bpf_tcp_sock){
		.packets_out = packet->in_flight,
		.sacked_out = packet->sacked,
		.lost_out = packet->lost,
		.retrans_out = packet->sent_again,
	};
	if (packet->socket)
		skb.sk = &world.sock;
	return skb;
}

static int run(struct __sk_buff *skb, enum native_program program)
{
	switch (program) {
	case NATIVE_INGRESS:
		return chadthrottle_ingress(skb);
	case NATIVE_EGRESS:
		return chadthrottle_egress(skb);
	case NATIVE_REDIRECT:
		return chadthrottle_redirect(skb);
	case NATIVE_QUEUE:
		return chadthrottle_queue(skb);
	}
	__builtin_trap();
}

/* Has a program look at a packet; returns its verdict. */
int chad_packet(struct native_packet *packet, struct throttle_cgroup *cgroup,
		struct throttle_counters *counters, struct throttle_waiting *waiting,
		enum native_program program)
{
	struct __sk_buff skb = as_skb(packet);
	int verdict;

	world.cgroup = cgroup;
	world.counters = counters;
	world.waiting = waiting;
	dropped_mark = packet->dropped_mark;
	dropped_priority = packet->dropped_priority;
	queued = packet->queued;
	packet->told = packet->redirected = packet->looked_up = packet->enlisted = 0;
	verdict = run(&skb, program);
	queued = 0;
	packet->tstamp = skb.tstamp;
	packet->mark = skb.mark;
	packet->priority = skb.priority;
	return verdict;
}

__u32 chad_wire_bytes(struct native_packet *packet, __u32 base)
{
	struct __sk_buff skb = as_skb(packet);

	return wire_bytes(&skb, base);
}

/* Has the sockops program answer; returns what it returns. Without `socket` there is no room for what is kept of one. */
int chad_sockops(struct native_call *it, struct throttle_cgroup *cgroup,
		 struct throttle_socket *socket)
{
	struct bpf_sock_ops ops = {
		.op = it->op,
		.family = it->family,
		.remote_ip4 = it->remote[0],
		.remote_ip6 = {it->remote[0], it->remote[1], it->remote[2], it->remote[3]},
		.skb_len = it->payload,
		.skb_tcp_flags = it->tcp_flags,
		.mss_cache = it->mss,
		.bytes_received = it->received,
		.segs_out = it->segments,
		.is_fullsock = it->is_full,
		.bpf_sock_ops_cb_flags = it->callbacks,
		.sk = it->has_socket ? &world.sock : 0,
	};
	int returned;

	world.call = it;
	world.cgroup = cgroup;
	world.socket = socket;
	world.own = (struct tcp_sock){
		.window_clamp = it->clamp,
		.rcv_wnd = it->window,
		.srtt_us = it->srtt_us,
		.tcp_wstamp_ns = it->leaves,
		.rcv_rtt_est.rtt_us = it->rcv_rtt_us,
		.ao_info = it->is_authenticated ? (void *)it : 0,
	};
	world.own.inet_conn.icsk_ack.rcv_mss = it->rcv_mss;
	world.own.inet_conn.icsk_inet.sk = (struct sock){
		.sk_pacing_rate = it->own,
		.sk_max_pacing_rate = it->most,
		.sk_pacing_status = it->is_pacing ? SK_PACING_NONE + 1 : SK_PACING_NONE,
	};
	it->tried = it->padding = it->made = it->paced = it->rates[0] = it->rates[1] = 0;
	queued = it->queued;
	returned = chadthrottle_sockops(&ops);
	queued = 0;
	it->clamp = world.own.window_clamp;
	it->reply = ops.reply;
	world.call = 0;
	return returned;
}

/* What lies in maps. */
enum native_kind {
	NATIVE_CGROUP,
	NATIVE_COUNTERS,
	NATIVE_WAITING,
	NATIVE_SOCKET,
};

size_t chad_size(enum native_kind kind)
{
	switch (kind) {
	case NATIVE_CGROUP:
		return sizeof(struct throttle_cgroup);
	case NATIVE_COUNTERS:
		return sizeof(struct throttle_counters);
	case NATIVE_WAITING:
		return sizeof(struct throttle_waiting);
	case NATIVE_SOCKET:
		return sizeof(struct throttle_socket);
	}
	__builtin_trap();
}
