// SPDX-License-Identifier: GPL-2.0-only
/*
 * Iterates over the open files of all processes, and reports those through which a process of one cgroup sends and
 * receives. These are network sockets with their cgroup, and tun and tap devices. Needs type information and Linux
 * 5.15, where a socket always knows its cgroup.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel_types.h"

#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define AF_XDP 44
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define TUN_DEVICE (10U << 20 | 200) /* /dev/net/tun */
#define NAME_BYTES 16 /* IFNAMSIZ, TASK_COMM_LEN */
#define DEEPEST_PIDS 33 /* MAX_PID_NS_LEVEL, plus the initial one */

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL_TYPE;

struct ns_common {
	unsigned int inum;
} KERNEL_TYPE;

struct pid_namespace {
	struct ns_common ns;
} KERNEL_TYPE;

struct upid {
	int nr;
	struct pid_namespace *ns;
} KERNEL_TYPE;

struct pid {
	unsigned int level;
	struct upid numbers[];
} KERNEL_TYPE;

struct css_set {
	struct cgroup *dfl_cgrp;
} KERNEL_TYPE;

struct task_struct {
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct css_set *cgroups;
	__u64 start_boottime;
	char comm[NAME_BYTES];
} KERNEL_TYPE;

struct inode {
	unsigned long i_ino;
	__u32 i_rdev;
} KERNEL_TYPE;

struct file {
	struct inode *f_inode;
} KERNEL_TYPE;

struct net_device {
	char name[NAME_BYTES];
} KERNEL_TYPE;

struct dst_entry {
	struct net_device *dev;
} KERNEL_TYPE;

struct net {
	struct ns_common ns;
} KERNEL_TYPE;

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__u16 skc_family;
	__u8 skc_state;
	possible_net_t skc_net;
} KERNEL_TYPE;

/* The fields of a socket that this program reads. kernel_types.h has those of the packet path. */
struct sock___files {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	struct sock_cgroup_data sk_cgrp_data;
	__u16 sk_type;
	__u16 sk_protocol;
} KERNEL_TYPE;

struct tcp_sock___files {
	__u64 bytes_sent;
	__u64 bytes_received;
} KERNEL_TYPE;

struct socket {
	struct sock *sk;
} KERNEL_TYPE;

/* Before 6.1 a cgroup had its ancestors' ids. */
struct cgroup___old {
	int level;
	__u64 ancestor_ids[];
} KERNEL_TYPE;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} KERNEL_TYPE;

/* The deepest cgroup level that occurs in practice. The kernel's default limit has no end. */
#define DEEPEST 64

/* One open file. */
struct file_record {
	__u64 inode;
	__u64 cgroup; /* the socket's cgroup; 0: none */
	__u64 sent; /* bytes of data, only for TCP */
	__u64 received;
	__u32 process;
	__u32 thread; /* the thread with this descriptor table */
	__u32 fd;
	__u32 network; /* inode number of the socket's network namespace */
	__u16 family; /* 0: a device */
	__u16 type;
	__u16 protocol;
	__u8 state;
	__u8 is_device;
	__u8 is_member; /* the process is in the cgroup or a descendant */
	__u8 is_inside; /* the socket belongs to the cgroup or a descendant */
	__u8 unused[6];
	char device[NAME_BYTES]; /* the device of the socket's last packet; empty: unknown */
	char name[NAME_BYTES]; /* the process's name */
};

/* The id of the cgroup, and the pid namespace of the reported pids. Set before loading. */
const volatile __u64 cgroup_id = 0;
const volatile __u32 pid_namespace = 0;
/* Report every process, because members may have their first thread elsewhere. */
const volatile __u8 everybody = 0;

/* The last task and its result. Another task may reuse its memory, so the start time is compared too. */
static __u64 known_task;
static __u64 known_start;
static __u8 known_member;

static __always_inline int is_below(struct cgroup *cgroup)
{
	int level;

	if (!cgroup)
		return 0;
	level = BPF_CORE_READ(cgroup, level);
	for (int i = 0; i < DEEPEST && i <= level; i++) {
		if (bpf_core_field_exists(cgroup->ancestors)) {
			struct cgroup *ancestor = 0;

			bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[i]);
			if (ancestor && BPF_CORE_READ(ancestor, kn, id) == cgroup_id)
				return 1;
		} else {
			struct cgroup___old *old = (void *)cgroup;
			__u64 id = 0;

			bpf_core_read(&id, sizeof(id), &old->ancestor_ids[i]);
			if (id == cgroup_id)
				return 1;
		}
	}
	return 0;
}

/* Returns the task's pid in the reader's pid namespace. */
static __always_inline __u32 pid_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	unsigned int level = BPF_CORE_READ(pid, level);

	for (unsigned int i = 0; i < DEEPEST_PIDS && i <= level; i++) {
		struct pid_namespace *ns = 0;
		int number = 0;

		bpf_core_read(&ns, sizeof(ns), &pid->numbers[i].ns);
		if (!ns || BPF_CORE_READ(ns, ns.inum) != pid_namespace)
			continue;
		bpf_core_read(&number, sizeof(number), &pid->numbers[i].nr);
		return number;
	}
	return 0;
}

static __always_inline int is_member(struct task_struct *task)
{
	__u64 start = BPF_CORE_READ(task, start_boottime);

	if ((__u64)task != known_task || start != known_start) {
		known_member = is_below(BPF_CORE_READ(task, cgroups, dfl_cgrp));
		known_task = (__u64)task;
		known_start = start;
	}
	return known_member;
}

/* Describes a socket. Returns 0 if it does not carry packets of a network. */
static __always_inline int describe(struct file_record *record, struct sock___files *sk)
{
	struct cgroup *cgroup;
	struct net_device *device;

	record->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (record->family != AF_INET && record->family != AF_INET6 &&
	    record->family != AF_PACKET && record->family != AF_XDP)
		return 0;
	record->type = BPF_CORE_READ(sk, sk_type);
	record->protocol = BPF_CORE_READ(sk, sk_protocol);
	record->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	record->network = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	if (cgroup)
		record->cgroup = BPF_CORE_READ(cgroup, kn, id);
	record->is_inside = is_below(cgroup);
	if (record->family == AF_PACKET || record->family == AF_XDP)
		return 1;
	device = BPF_CORE_READ(sk, sk_dst_cache, dev);
	if (device)
		bpf_core_read_str(record->device, sizeof(record->device), &device->name);
	if (record->type == SOCK_STREAM && record->protocol == IPPROTO_TCP) {
		struct tcp_sock___files *tcp = (void *)sk;

		record->sent = BPF_CORE_READ(tcp, bytes_sent);
		record->received = BPF_CORE_READ(tcp, bytes_received);
	}
	return 1;
}

SEC("iter/task_file")
int walk_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct file_record record = {};
	struct socket *socket;
	struct inode *inode;

	if (!task || !file)
		return 0;
	record.is_member = is_member(task);
	if (!record.is_member && !everybody)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	socket = bpf_sock_from_file(file);
	if (socket) {
		struct sock___files *sk = (void *)BPF_CORE_READ(socket, sk);

		if (!sk || !describe(&record, sk))
			return 0;
	} else {
		if (BPF_CORE_READ(inode, i_rdev) != TUN_DEVICE)
			return 0;
		record.is_device = 1;
	}
	record.inode = BPF_CORE_READ(inode, i_ino);
	record.thread = pid_of(task);
	record.process = pid_of(BPF_CORE_READ(task, group_leader));
	record.fd = ctx->fd;
	bpf_core_read(record.name, sizeof(record.name), &task->group_leader->comm);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
