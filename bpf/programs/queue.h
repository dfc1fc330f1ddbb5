/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue for downloads. Part of throttle.bpf.c. Needs Linux 6.6 (tcx links) and fq.
 *
 * On each device that receives packets, one program finds a packet's socket. If the socket belongs to the cgroup, the
 * program redirects the packet to an ifb device with fq. There, another program sets the packet's departure time, or
 * drops the packet if the queue is too long. The packet then comes in again, past the first program.
 *
 * The program on the cgroup registers each socket of the cgroup with its first packet.
 *
 * Some packets are not redirected: first packets, fragments, IPv6 with extension headers, packets with a VLAN tag, and
 * packets of devices that came later. The bucket on the cgroup limits them; every packet passes through it.
 *
 * Only links hold both programs, so the programs end with their owner. The device is then idle.
 */
#ifndef CHADTHROTTLE_QUEUE_H
#define CHADTHROTTLE_QUEUE_H

#define TCX_NEXT (-1)
#define TCX_DROP 2

/* The offset of the IP header. The programs run only on devices with Ethernet headers. */
#define ETHERNET 14

/* This load has a queue, which charges the downloads. Set before loading. */
SETTING __u32 queued = 0;

/*
 * The download's state if there is a queue, at key 0. The map is a hash, because its update replaces the value as a
 * whole, so no packet sees half of it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct throttle_state);
} chad_queue SEC(".maps");

/* At key 0: the number of the queue's device. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} chad_redirect SEC(".maps");

/* At key 0: packets dropped because the queue was too long. The other counters never see them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct throttle_counters);
} chad_drops SEC(".maps");

/* The cgroup's sockets. A socket with an entry belongs to the cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u8);
} chad_members SEC(".maps");

/* Registers the packet's socket, so that its later packets are redirected. Runs on the cgroup. */
static __always_inline void enlist(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u32 key = 0;

	/* With this look-up, others find the map of drops among this program's maps. */
	bpf_map_lookup_elem(&chad_drops, &key);
	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (sk)
		bpf_sk_storage_get(&chad_members, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Returns the download's state. 0: there is none yet. */
static __always_inline struct throttle_state *download_of(struct throttle_cgroup *cgroup)
{
	__u32 key = 0;

	return queued ? bpf_map_lookup_elem(&chad_queue, &key) : &cgroup->download;
}

/* Returns the socket of a received packet, which the caller must release. 0: none was found. */
static __always_inline struct bpf_sock *receiver_of(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};
	__u32 ports = ETHERNET;
	__u8 protocol = 0;
	__u32 size;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be16 fragment = 0;
		__u8 first = 0;

		bpf_skb_load_bytes(skb, ETHERNET, &first, 1);
		bpf_skb_load_bytes(skb, ETHERNET + IPV4_FRAGMENT, &fragment, 2);
		bpf_skb_load_bytes(skb, ETHERNET + IPV4_PROTOCOL, &protocol, 1);
		bpf_skb_load_bytes(skb, ETHERNET + IPV4_SOURCE, &tuple.ipv4, 8);
		if (fragment & bpf_htons(IPV4_IS_FRAGMENT))
			return 0;
		ports += (first & 15) * 4;
		size = sizeof(tuple.ipv4);
		if (bpf_skb_load_bytes(skb, ports, &tuple.ipv4.sport, 4))
			return 0;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		bpf_skb_load_bytes(skb, ETHERNET + IPV6_NEXT_HEADER, &protocol, 1);
		bpf_skb_load_bytes(skb, ETHERNET + IPV6_SOURCE, &tuple.ipv6, 32);
		size = sizeof(tuple.ipv6);
		if (bpf_skb_load_bytes(skb, ports + IPV6_HEADER_BYTES, &tuple.ipv6.sport, 4))
			return 0;
	} else {
		return 0;
	}
	if (protocol == IPPROTO_TCP)
		return bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (protocol == IPPROTO_UDP)
		return bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	return 0;
}

/* Runs where packets come in. */
SEC("tcx/ingress")
int chadthrottle_redirect(struct __sk_buff *skb)
{
	struct throttle_state *state;
	struct bpf_sock *sk;
	int is_member;
	__u32 *device;
	__u32 key = 0;

	device = bpf_map_lookup_elem(&chad_redirect, &key);
	state = bpf_map_lookup_elem(&chad_queue, &key);
	if (!device || !state)
		return TCX_NEXT;
	if (!state->cost || skb->vlan_present)
		return TCX_NEXT;
	if (state->traffic != TRAFFIC_ALL && !limits_class(state, is_local(skb, ETHERNET, 0)))
		return TCX_NEXT;
	sk = receiver_of(skb);
	if (!sk)
		return TCX_NEXT;
	is_member = bpf_sk_storage_get(&chad_members, sk, 0, 0) != 0;
	bpf_sk_release(sk);
	return is_member ? bpf_redirect(*device, 0) : TCX_NEXT;
}

/* Runs where packets leave the queue's device, to come in again. */
SEC("tcx/egress")
int chadthrottle_queue(struct __sk_buff *skb)
{
	struct throttle_counters *counters;
	struct throttle_state *state;
	struct charge charge;
	__u32 tick_shift;
	__u32 key = 0;
	__u32 bytes;

	state = bpf_map_lookup_elem(&chad_queue, &key);
	if (!state || !state->cost)
		return TCX_NEXT;
	bytes = wire_bytes(skb, ETHERNET);
	tick_shift = state->tick_shift & 31;
	__sync_fetch_and_add(&state->flow.arrived, bytes);
	charge = charge_of(state, bytes);
	if (!admit(state, &charge, skb, ETHERNET, 0)) {
		counters = bpf_map_lookup_elem(&chad_drops, &key);
		if (counters) {
			__sync_fetch_and_add(&counters->dropped_packets, 1);
			__sync_fetch_and_add(&counters->dropped_bytes, bytes);
		}
		return TCX_DROP;
	}
	notify(skb, state->tolerance, charge.ahead);
	/* The receiving side treats only this kind of time as a departure time, not as the arrival time. */
	if (charge.ahead)
		bpf_skb_set_tstamp(skb, charge.now + (charge.ahead >> tick_shift),
				   BPF_SKB_TSTAMP_DELIVERY_MONO);
	return TCX_NEXT;
}

#endif
