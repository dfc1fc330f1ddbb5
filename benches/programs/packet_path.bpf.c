// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the bench packet_path runs: the packet programs themselves, and peers.h beside them.
 *
 * BPF_PROG_TEST_RUN makes fresh cgroup storage for each call, all zero, so the real programs would only
 * ever be seen disarmed. These here call the same throttle() with the state in a variable that user space
 * writes. What it costs to find the state is paid all the same: the call is made, and its answer thrown
 * away. The counters are where they always are.
 */
#include "../../bpf/programs/throttle.bpf.c"
#include "peers.h"

/* Alone in .bss, so that the map's value is this. */
struct throttle_cgroup bench_limits;

static __always_inline struct throttle_cgroup *limits(void)
{
	bpf_get_local_storage(&chad_state, 0);
	return &bench_limits;
}

SEC("cgroup_skb/ingress")
int bench_download(struct __sk_buff *skb)
{
	return throttle(skb, &limits()->download, 0);
}

SEC("cgroup_skb/egress")
int bench_upload(struct __sk_buff *skb)
{
	return throttle(skb, &limits()->upload, 1);
}

/* The same packet comes by again and again, and one that is marked as dropped would be passed over. */
SEC("cgroup_skb/egress")
int bench_dropping(struct __sk_buff *skb)
{
	int verdict = throttle(skb, &limits()->upload, 1);

	skb->mark = 0;
	return verdict;
}

SEC("cgroup_skb/ingress")
int bench_dropping_download(struct __sk_buff *skb)
{
	int verdict = throttle(skb, &limits()->download, 0);

	skb->mark = 0;
	return verdict;
}
