/* SPDX-License-Identifier: GPL-2.0-only */
/* libbpf's header of that name, for this machine: packets.c defines the helpers, for itself: libbpf has functions of the same names. */
#ifndef CHADTHROTTLE_NATIVE_HELPERS_H
#define CHADTHROTTLE_NATIVE_HELPERS_H

#include <linux/bpf.h>

#undef __always_inline
#define SEC(name)
#define __uint(name, value) int(*name)[value]
#define __type(name, value) __typeof__(value) *name
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define SETTING static __thread
#define barrier() __asm__ volatile("" ::: "memory")

static __u64 bpf_ktime_get_ns(void);
static __u32 bpf_get_prandom_u32(void);
static void *bpf_get_local_storage(void *map, __u64 flags);
static void *bpf_map_lookup_elem(void *map, const void *key);
static long bpf_skb_load_bytes(const void *skb, __u32 offset, void *to, __u32 bytes);
static long bpf_skb_ecn_set_ce(struct __sk_buff *skb);
static long bpf_skb_set_tstamp(struct __sk_buff *skb, __u64 tstamp, __u32 kind);
static struct bpf_sock *bpf_sk_fullsock(struct bpf_sock *sk);
static struct bpf_tcp_sock *bpf_tcp_sock(struct bpf_sock *sk);
static void *bpf_sk_storage_get(void *map, void *sk, void *value, __u64 flags);
static struct bpf_sock *bpf_sk_lookup_tcp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
					  __u64 netns, __u64 flags);
static struct bpf_sock *bpf_sk_lookup_udp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
					  __u64 netns, __u64 flags);
static long bpf_sk_release(void *sk);
static long bpf_redirect(__u32 device, __u64 flags);
static long bpf_setsockopt(void *ctx, int level, int name, void *value, int bytes);
static long bpf_reserve_hdr_opt(struct bpf_sock_ops *ops, __u32 bytes, __u64 flags);
static long bpf_sock_ops_cb_flags_set(struct bpf_sock_ops *ops, int flags);
static struct tcp_sock *bpf_skc_to_tcp_sock(void *sk);

#endif
