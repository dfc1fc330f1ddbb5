/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the packet programs are measured beside: what is paid for nothing at all, for the clock, and two
 * other ways to write a token bucket. Both begin with a full bucket and refill it at a rate that no packet
 * here uses up, so that they pass every packet.
 */
#ifndef CHADTHROTTLE_PEERS_H
#define CHADTHROTTLE_PEERS_H

#define NANOS 1000000000ULL
/* Bytes per second and bytes. */
#define PEER_RATE 100000000000ULL
#define PEER_BURST 1000000000ULL

SEC("cgroup_skb/egress")
int bench_empty(struct __sk_buff *skb)
{
	return PASS;
}

SEC("cgroup_skb/egress")
int bench_clock(struct __sk_buff *skb)
{
	/* Never 0, which the compiler does not know. */
	return bpf_ktime_get_ns() ? PASS : 0;
}

/*
 * The throttle that this project began with: limit, bucket and statistics in three hashes under one key,
 * the bucket copied in and out, and nothing that keeps two processors from doing so at once.
 */
struct old_limit {
	__u64 rate;
	__u64 burst;
};

struct old_bucket {
	__u64 tokens;
	__u64 updated;
};

struct old_statistics {
	__u64 packets;
	__u64 bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct old_limit);
} old_limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct old_bucket);
} old_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct old_statistics);
} old_counts SEC(".maps");

/* Puts the entries where bench_historical looks; run once before it. */
SEC("cgroup_skb/egress")
int bench_historical_setup(struct __sk_buff *skb)
{
	struct old_limit limit = {.rate = PEER_RATE, .burst = PEER_BURST};
	struct old_bucket bucket = {.tokens = PEER_BURST, .updated = bpf_ktime_get_ns()};
	struct old_statistics none = {};
	__u32 key = 0;

	return !bpf_map_update_elem(&old_limits, &key, &limit, BPF_ANY) &&
	       !bpf_map_update_elem(&old_buckets, &key, &bucket, BPF_ANY) &&
	       !bpf_map_update_elem(&old_counts, &key, &none, BPF_ANY);
}

SEC("cgroup_skb/egress")
int bench_historical(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct old_limit *limit = bpf_map_lookup_elem(&old_limits, &key);
	struct old_bucket *found = bpf_map_lookup_elem(&old_buckets, &key);
	struct old_statistics *statistics = bpf_map_lookup_elem(&old_counts, &key);
	struct old_bucket bucket;
	__u64 now;

	/* Missing entries would make it look cheap: 3 is no verdict that the bench takes. */
	if (!limit || !found || !statistics)
		return 3;
	bucket = *found;
	now = bpf_ktime_get_ns();
	bucket.tokens += (now - bucket.updated) * limit->rate / NANOS;
	if (bucket.tokens > limit->burst)
		bucket.tokens = limit->burst;
	bucket.updated = now;
	if (bucket.tokens < skb->len) {
		*found = bucket;
		statistics->dropped_packets++;
		statistics->dropped_bytes += skb->len;
		return 0;
	}
	bucket.tokens -= skb->len;
	*found = bucket;
	statistics->packets++;
	statistics->bytes += skb->len;
	return PASS;
}

/*
 * A token bucket with a lock, counters included. It lies in an array, whose look-up costs less than the call
 * for cgroup storage that it would need to be one for each cgroup.
 */
struct locked_bucket {
	struct bpf_spin_lock lock;
	__u64 tokens;
	__u64 updated;
	__u64 passed_packets;
	__u64 passed_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locked_bucket);
} locked_buckets SEC(".maps");

const volatile __u64 peer_rate = PEER_RATE;

SEC("cgroup_skb/egress")
int bench_locked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct locked_bucket *bucket = bpf_map_lookup_elem(&locked_buckets, &key);
	__u64 now = bpf_ktime_get_ns();
	__u32 bytes = skb->len;
	__u64 elapsed;
	int verdict = PASS;

	if (!bucket)
		return 3;
	bpf_spin_lock(&bucket->lock);
	elapsed = now - bucket->updated;
	/* Another processor may have come first, with a later clock. */
	if ((__s64)elapsed > 0) {
		if (elapsed > NANOS)
			elapsed = NANOS;
		bucket->tokens += elapsed * peer_rate / NANOS;
		if (bucket->tokens > PEER_BURST)
			bucket->tokens = PEER_BURST;
		bucket->updated = now;
	}
	if (bucket->tokens >= bytes) {
		bucket->tokens -= bytes;
		bucket->passed_packets++;
		bucket->passed_bytes += bytes;
	} else {
		bucket->dropped_packets++;
		bucket->dropped_bytes += bytes;
		verdict = 2;
	}
	bpf_spin_unlock(&bucket->lock);
	return verdict;
}

#endif
