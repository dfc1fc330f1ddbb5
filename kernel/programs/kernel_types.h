/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of kernel types that the programs read. libbpf finds their offsets in the running kernel's type
 * information.
 */
#ifndef CHADTHROTTLE_KERNEL_TYPES_H
#define CHADTHROTTLE_KERNEL_TYPES_H

#include <linux/types.h>

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct kernfs_node {
	const char *name;
	__u64 id;
} KERNEL_TYPE;

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} KERNEL_TYPE;

struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[];
} KERNEL_TYPE;

struct sock_cgroup_data {
	struct cgroup *cgroup;
} KERNEL_TYPE;

struct sock {
	unsigned long sk_pacing_rate;
	unsigned long sk_max_pacing_rate;
	__u32 sk_pacing_status;
	struct sock_cgroup_data sk_cgrp_data;
} KERNEL_TYPE;

struct inet_sock {
	struct sock sk;
} KERNEL_TYPE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct {
		__u16 rcv_mss;
	} icsk_ack;
} KERNEL_TYPE;

struct tcp_ao_info;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 window_clamp;
	__u32 rcv_wnd;
	__u32 srtt_us;
	__u64 tcp_wstamp_ns;
	struct {
		__u32 rtt_us;
	} rcv_rtt_est;
	struct tcp_ao_info *ao_info; /* 6.7 */
} KERNEL_TYPE;

#endif
