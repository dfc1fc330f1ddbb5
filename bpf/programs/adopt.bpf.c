// SPDX-License-Identifier: GPL-2.0-only
/*
 * Iterates over the TCP sockets of a network namespace, and turns on the sockops callbacks for those of one cgroup. New
 * sockets turn them on by themselves. Needs Linux 6.12, where an iterator may do this.
 *
 * For each socket of the cgroup the program prints one letter: y, or n if the kernel refused.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel_types.h"

#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define SOL_TCP 6
#define SOCK_OPS_CB_FLAGS 1008 /* TCP_BPF_SOCK_OPS_CB_FLAGS, missing in older headers */

/* bpf_iter__tcp, as the kernel passes it. */
struct seq_file;
struct sock_common {
	unsigned char skc_state;
} KERNEL_TYPE;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} KERNEL_TYPE;

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	__u32 uid;
} KERNEL_TYPE;

/* The deepest cgroup level that occurs in practice. The kernel's default limit has no end. */
#define DEEPEST 64

/* The id of the limited cgroup. Set before loading. */
const volatile __u64 cgroup_id = 0;

static __always_inline int is_limited(struct tcp_sock *tcp)
{
	struct cgroup *cgroup = tcp->inet_conn.icsk_inet.sk.sk_cgrp_data.cgroup;
	int level;

	if (!cgroup)
		return 0;
	level = cgroup->level;
	for (int i = 0; i < DEEPEST && i <= level; i++) {
		struct cgroup *ancestor = 0;

		bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[i]);
		if (ancestor && BPF_CORE_READ(ancestor, kn, id) == cgroup_id)
			return 1;
	}
	return 0;
}

SEC("iter/tcp")
int chadthrottle_adopt(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tcp;
	int flags = 0;
	char told = 'n';

	/* Accepted sockets turn the callbacks on by themselves, and closed sockets send nothing. */
	if (!common || common->skc_state == TCP_CLOSE || common->skc_state == TCP_LISTEN)
		return 0;
	/* Sockets that nobody has accepted yet, or that only wait for the end, need no callbacks either. */
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp || !is_limited(tcp))
		return 0;
	if (!bpf_getsockopt(tcp, SOL_TCP, SOCK_OPS_CB_FLAGS, &flags, sizeof(flags))) {
		flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
		if (!bpf_setsockopt(tcp, SOL_TCP, SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
			told = 'y';
	}
	bpf_seq_write(ctx->meta->seq, &told, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
