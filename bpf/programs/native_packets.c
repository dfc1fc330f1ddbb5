// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet programs as a whole, compiled for this machine: the tests give them packets, sockets and a clock.
 * The kernel's helpers are below, as far as these ways through the programs call them.
 */
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
	__u32 in_flight; /* segments of a TCP socket that were sent and not acknowledged, */
	__u32 sacked; /* of which so many have arrived all the same, */
	__u32 lost; /* and so many have not; */
	__u32 sent_again; /* so many of those were sent again */
	__u32 mark; /* read and written, as skb->mark and skb->priority */
	__u32 priority;
	__u32 dropped_mark; /* what the load marks dropped packets with */
	__u32 dropped_priority;
	__u32 told; /* written: congestion was told */
	__u32 redirected; /* written: the device that it was redirected to, or 0 */
	__u32 looked_up; /* written: so many bytes of a socket's addresses and ports were looked for, */
	__u8 tuple[sizeof(struct bpf_sock_tuple)]; /* and these */
};

/* What a socket is asked for before it acknowledges what it has received. */
struct native_acknowledgement {
	__u64 now; /* nanoseconds */
	__u64 received; /* bytes */
	__u32 rcv_rtt_us; /* the receiver's estimate, as the kernel keeps it */
	__u32 srtt_us; /* the sender's */
	__u32 mss;
	__u32 random;
	__u32 clamp; /* the socket's own */
	__u32 offered; /* written: the clamp while the window is being chosen */
	__u32 left; /* written: the clamp afterwards */
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
	__u32 pacing; /* the lowest rate that was set */
	__u32 settings; /* how often one was set */
	struct throttle_socket *socket;
	struct tcp_sock receiver;
} world;

static __u64 bpf_ktime_get_ns(void)
{
	return world.packet->now;
}

static __u32 bpf_get_prandom_u32(void)
{
	return world.packet->random;
}

static void *bpf_get_local_storage(void *map, __u64 flags)
{
	return map == (void *)&chad_state ? (void *)world.cgroup : (void *)world.counters;
}

/* With a queue it has the state and the counters of the download. */
static void *bpf_map_lookup_elem(void *map, const void *key)
{
	if (map == (void *)&chad_queue)
		return &world.cgroup->download;
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

	if (map == (void *)&chad_members)
		return &member;
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
	__u32 rate = *(__u32 *)value;

	if (name == TCP_WINDOW_CLAMP) {
		world.receiver.window_clamp = rate;
		return 0;
	}
	if (!world.settings++ || rate < world.pacing)
		world.pacing = rate;
	return 0;
}

static long bpf_reserve_hdr_opt(struct bpf_sock_ops *ops, __u32 bytes, __u64 flags)
{
	return 0;
}

static long bpf_sock_ops_cb_flags_set(struct bpf_sock_ops *ops, int flags)
{
	return 0;
}

static struct tcp_sock *bpf_skc_to_tcp_sock(void *sk)
{
	return &world.receiver;
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
	packet->told = packet->redirected = packet->looked_up = 0;
	verdict = run(&skb, program);
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

/* The pacing rate that a segment's socket is given for a moment; 0: none. */
__u32 chad_pace(struct native_packet *packet, const struct throttle_state *state, __u32 payload,
		__u32 mss, int is_ipv6, __u64 own, __u64 leaves)
{
	struct bpf_sock_ops ops = {
		.skb_len = payload,
		.mss_cache = mss,
		.family = is_ipv6 ? AF_INET6 : AF_INET,
	};
	struct tcp_sock tcp = {.tcp_wstamp_ns = leaves};

	tcp.inet_conn.icsk_inet.sk.sk_max_pacing_rate = ~0UL;
	tcp.inet_conn.icsk_inet.sk.sk_pacing_rate = own;
	tcp.inet_conn.icsk_inet.sk.sk_pacing_status = SK_PACING_NONE + 1;
	world.packet = packet;
	world.settings = 0;
	pace(&ops, state, &tcp);
	return world.settings ? world.pacing : 0;
}

/* Has the sockops program look at an acknowledgement, before its window is chosen and afterwards. */
void chad_acknowledge(struct native_acknowledgement *it, struct throttle_cgroup *cgroup,
		      struct throttle_socket *socket)
{
	struct native_packet packet = {.now = it->now, .random = it->random};
	struct bpf_sock_ops ops = {
		.op = BPF_SOCK_OPS_HDR_OPT_LEN_CB,
		.skb_tcp_flags = TCP_FLAG_ACK,
		.mss_cache = it->mss,
		.bytes_received = it->received,
		.sk = &world.sock,
	};

	world.packet = &packet;
	world.cgroup = cgroup;
	world.socket = socket;
	world.receiver = (struct tcp_sock){.window_clamp = it->clamp, .rcv_wnd = it->clamp};
	world.receiver.rcv_rtt_est.rtt_us = it->rcv_rtt_us;
	world.receiver.srtt_us = it->srtt_us;
	chadthrottle_sockops(&ops);
	it->offered = world.receiver.window_clamp;
	ops.op = BPF_SOCK_OPS_WRITE_HDR_OPT_CB;
	chadthrottle_sockops(&ops);
	it->left = world.receiver.window_clamp;
}

/* The window, in segments, that a connection begins with. */
__u32 chad_first_window(struct throttle_cgroup *cgroup)
{
	struct bpf_sock_ops ops = {.op = BPF_SOCK_OPS_RWND_INIT, .is_fullsock = 1};

	world.cgroup = cgroup;
	chadthrottle_sockops(&ops);
	return ops.reply;
}
