// SPDX-License-Identifier: GPL-2.0-only
/*
 * Follows the path of a cgroup. A tracing program sees a new cgroup there before mkdir(2) returns. From then on, two
 * programs on the parent cgroup hold its packets to one burst, until user space has attached the limit. Needs Linux 6.1
 * with type information.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "follow.h"
#include "kernel_types.h"

#define PASS 1
#define DROP_INGRESS 0
#define DROP_EGRESS 2

/* The longest hold, in nanoseconds, because user space may have been stopped. */
#define LONGEST 1000000000

/* The owner, as in throttle.bpf.c. */
const volatile __u32 bpf_metadata_owner_pid = 0;
const volatile __u64 bpf_metadata_owner_start = 0;
const volatile __u32 bpf_metadata_owner_pidns = 0;
const volatile char bpf_metadata_owner_boot[40] = "";
const volatile char bpf_metadata_version[24] = "";

/* The last part of the path, and the burst in bytes: download, upload; 0 for no limit. Set before loading. */
const volatile char name[FOLLOW_NAME] = "";
const volatile __u64 most[2] = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct follow_wish);
} chad_wish SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct follow_held);
} chad_held SEC(".maps");

/* The ids of new cgroups. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} chad_made SEC(".maps");

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(chadthrottle_await, struct cgroup *made)
{
	char is[FOLLOW_NAME] = {};
	struct follow_wish *wish;
	struct follow_held *held;
	__u32 zero = 0;
	__u64 id;

	wish = bpf_map_lookup_elem(&chad_wish, &zero);
	held = bpf_map_lookup_elem(&chad_held, &zero);
	if (!wish || !held)
		return 0;
	/* Not through ancestors[], because the verifier wants a bound for an index, and cgroup levels have none. */
	if (BPF_CORE_READ(made, self.parent, cgroup, kn, id) != wish->parent)
		return 0;
	bpf_probe_read_kernel_str(is, sizeof(is), BPF_CORE_READ(made, kn, name));
	for (int i = 0; i < FOLLOW_NAME; i++) {
		if (is[i] != name[i])
			return 0;
		if (!is[i])
			break;
	}
	id = BPF_CORE_READ(made, kn, id);
	held->id = 0;
	held->level = made->level;
	held->since = bpf_ktime_get_ns();
	held->bytes[0] = 0;
	held->bytes[1] = 0;
	barrier();
	*(volatile __u64 *)&held->id = id;
	bpf_ringbuf_output(&chad_made, &id, sizeof(id), 0);
	return 0;
}

static __always_inline int is_above(struct __sk_buff *skb, int egress)
{
	struct follow_wish *wish;
	struct follow_held *held;
	__u32 zero = 0;
	__u64 id;

	held = bpf_map_lookup_elem(&chad_held, &zero);
	wish = bpf_map_lookup_elem(&chad_wish, &zero);
	if (!held || !wish)
		return 0;
	id = *(volatile __u64 *)&held->id;
	/* The usual case: there is no new cgroup, or its own throttle limits it by now. */
	if (!id || id == *(volatile __u64 *)&wish->armed || !most[egress])
		return 0;
	if (bpf_skb_ancestor_cgroup_id(skb, held->level) != id)
		return 0;
	if (bpf_ktime_get_ns() - held->since > LONGEST)
		return 0;
	if (__sync_fetch_and_add(&held->bytes[egress], skb->len) <= most[egress]) {
		__sync_fetch_and_add(&held->passed[egress], 1);
		return 0;
	}
	__sync_fetch_and_add(&held->dropped[egress], 1);
	return 1;
}

SEC("cgroup_skb/ingress")
int chadthrottle_hold_in(struct __sk_buff *skb)
{
	return is_above(skb, 0) ? DROP_INGRESS : PASS;
}

SEC("cgroup_skb/egress")
int chadthrottle_hold_out(struct __sk_buff *skb)
{
	return is_above(skb, 1) ? DROP_EGRESS : PASS;
}

char LICENSE[] SEC("license") = "GPL";
