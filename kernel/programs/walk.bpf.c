// SPDX-License-Identifier: GPL-2.0-only
/*
 * Iterates over a cgroup and its descendants inside the kernel, and reports the attached programs. The kernel holds its
 * cgroup lock meanwhile, so the result shows one moment. Needs Linux 6.1.
 *
 * The program declares only the parts of kernel types that it reads. libbpf finds their offsets in the running kernel's
 * type information. It finds the numbers of the lists there too, which differ from the attach types and between
 * kernels.
 *
 * libbpf searches all types for each type at which a read begins. That is most of the load time, so reads begin at few
 * types.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define KERNEL_TYPE __attribute__((preserve_access_index))
#define MOST_LISTS 64 /* the kernel has fewer than 40 */
#define MOST_PROGRAMS 64 /* BPF_CGROUP_MAX_PROGS */

struct hlist_node {
	struct hlist_node *next;
} KERNEL_TYPE;

struct hlist_head {
	struct hlist_node *first;
} KERNEL_TYPE;

struct bpf_prog_aux {
	__u32 id;
} KERNEL_TYPE;

struct bpf_prog {
	struct bpf_prog_aux *aux;
} KERNEL_TYPE;

struct bpf_link {
	struct bpf_prog *prog;
} KERNEL_TYPE;

struct bpf_cgroup_link {
	struct bpf_link link;
} KERNEL_TYPE;

struct bpf_prog_list {
	struct hlist_node node;
	struct bpf_prog *prog;
	struct bpf_cgroup_link *link;
} KERNEL_TYPE;

struct cgroup_bpf {
	struct hlist_head progs[MOST_LISTS];
	__u8 flags[MOST_LISTS];
} KERNEL_TYPE;

struct kernfs_node {
	__u64 id;
} KERNEL_TYPE;

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_bpf bpf;
} KERNEL_TYPE;

/* The context that the kernel passes. It is an interface, not a kernel type. */
struct bpf_iter__cgroup {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct cgroup *, cgroup);
};

/* The lists of a cgroup. Only the names matter here, not the numbers. */
enum cgroup_bpf_attach_type {
	CGROUP_INET_INGRESS,
	CGROUP_INET_EGRESS,
	CGROUP_INET_SOCK_CREATE,
	CGROUP_SOCK_OPS,
	CGROUP_DEVICE,
	CGROUP_INET4_BIND,
	CGROUP_INET6_BIND,
	CGROUP_INET4_CONNECT,
	CGROUP_INET6_CONNECT,
	CGROUP_UNIX_CONNECT,
	CGROUP_INET4_POST_BIND,
	CGROUP_INET6_POST_BIND,
	CGROUP_UDP4_SENDMSG,
	CGROUP_UDP6_SENDMSG,
	CGROUP_UNIX_SENDMSG,
	CGROUP_SYSCTL,
	CGROUP_UDP4_RECVMSG,
	CGROUP_UDP6_RECVMSG,
	CGROUP_UNIX_RECVMSG,
	CGROUP_GETSOCKOPT,
	CGROUP_SETSOCKOPT,
	CGROUP_INET4_GETPEERNAME,
	CGROUP_INET6_GETPEERNAME,
	CGROUP_UNIX_GETPEERNAME,
	CGROUP_INET4_GETSOCKNAME,
	CGROUP_INET6_GETSOCKNAME,
	CGROUP_UNIX_GETSOCKNAME,
	CGROUP_INET_SOCK_RELEASE,
	CGROUP_LSM_START,
	CGROUP_LSM_END,
};

/* Attach types that may be missing in the headers of the build. */
#define LSM_CGROUP 43
#define UNIX_CONNECT 49
#define UNIX_SENDMSG 50
#define UNIX_RECVMSG 51
#define UNIX_GETPEERNAME 52
#define UNIX_GETSOCKNAME 53

/* One program on one list. */
struct walk_record {
	__u64 cgroup;
	__u32 program;
	__u8 attach_type;
	__u8 flags;
	__u16 unused;
};

/* The wanted attach types: one bit for each number. Set before loading. */
const volatile __u64 wanted = 0;

/* The number of cgroups visited. */
__u64 visited = 0;
/* The number of records that did not fit. */
__u64 lost = 0;
/* The number of lists that could not be read, or were longer than the kernel allows. */
__u64 unreadable = 0;

/* The lists of the current cgroup: their first entries and their flags. */
static __u64 heads[MOST_LISTS];
static __u8 flags[MOST_LISTS];

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} records SEC(".maps");

/* One list and its next entry. */
struct place {
	struct walk_record record;
	void *node;
};

static long tell_entry(__u32 number, void *context)
{
	struct place *place = context;
	struct bpf_prog_list *entry =
		place->node - bpf_core_field_offset(struct bpf_prog_list, node);
	struct bpf_prog *program;

	if (!place->node)
		return 1;
	program = BPF_CORE_READ(entry, prog);
	if (!program)
		program = BPF_CORE_READ(entry, link, link.prog);
	place->node = BPF_CORE_READ(entry, node.next);
	/* An entry that waits for its removal has no program. A query does not report it either. */
	if (!program)
		return 0;
	place->record.program = BPF_CORE_READ(program, aux, id);
	if (bpf_ringbuf_output(&records, &place->record, sizeof(place->record), BPF_RB_NO_WAKEUP))
		lost++;
	return 0;
}

/*
 * The function is global, and the loop is a call, so the verifier checks each once. To check them for each list and
 * entry took longer than a walk over 10,000 cgroups.
 */
__attribute__((noinline)) int tell(__u64 cgroup, __u32 list, __u32 attach_type)
{
	struct place place = {
		.record.cgroup = cgroup,
		.record.attach_type = attach_type,
	};

	if (list >= MOST_LISTS || !heads[list])
		return 0;
	/* A query reports no flags for all LSM lists together. */
	place.record.flags = flags[list];
	place.node = (void *)heads[list];
	bpf_loop(MOST_PROGRAMS, tell_entry, &place, 0);
	if (place.node)
		unreadable++;
	return 0;
}

#define LIST(name) bpf_core_enum_value(enum cgroup_bpf_attach_type, name)
#define HAS(name) bpf_core_enum_value_exists(enum cgroup_bpf_attach_type, name)
#define TELL(name, attach_type)                                                                    \
	do {                                                                                       \
		if (wanted & 1ULL << (attach_type) && HAS(name))                                   \
			tell(id, LIST(name), attach_type);                                         \
	} while (0)

/* Reads a whole array. Its length differs between kernels. */
#define READ(array, field)                                                                         \
	(bpf_core_field_size(field) > sizeof(array) ||                                             \
	 bpf_probe_read_kernel(array, bpf_core_field_size(field), &(field)))

SEC("iter/cgroup")
int walk_cgroups(struct bpf_iter__cgroup *ctx)
{
	struct cgroup *cgroup = ctx->cgroup;
	__u64 any = 0;
	__u64 id;

	/* The last call marks the end. */
	if (!cgroup)
		return 0;
	visited++;
	if (READ(heads, cgroup->bpf.progs)) {
		unreadable++;
		return 0;
	}
	/* Most cgroups have no programs, so read more only for the others. */
	for (int i = 0; i < MOST_LISTS; i++)
		any |= heads[i];
	if (!any)
		return 0;
	if (READ(flags, cgroup->bpf.flags)) {
		unreadable++;
		return 0;
	}
	id = BPF_CORE_READ(cgroup, kn, id);
	TELL(CGROUP_INET_INGRESS, BPF_CGROUP_INET_INGRESS);
	TELL(CGROUP_INET_EGRESS, BPF_CGROUP_INET_EGRESS);
	TELL(CGROUP_INET_SOCK_CREATE, BPF_CGROUP_INET_SOCK_CREATE);
	TELL(CGROUP_SOCK_OPS, BPF_CGROUP_SOCK_OPS);
	TELL(CGROUP_DEVICE, BPF_CGROUP_DEVICE);
	TELL(CGROUP_INET4_BIND, BPF_CGROUP_INET4_BIND);
	TELL(CGROUP_INET6_BIND, BPF_CGROUP_INET6_BIND);
	TELL(CGROUP_INET4_CONNECT, BPF_CGROUP_INET4_CONNECT);
	TELL(CGROUP_INET6_CONNECT, BPF_CGROUP_INET6_CONNECT);
	TELL(CGROUP_INET4_POST_BIND, BPF_CGROUP_INET4_POST_BIND);
	TELL(CGROUP_INET6_POST_BIND, BPF_CGROUP_INET6_POST_BIND);
	TELL(CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP4_SENDMSG);
	TELL(CGROUP_UDP6_SENDMSG, BPF_CGROUP_UDP6_SENDMSG);
	TELL(CGROUP_SYSCTL, BPF_CGROUP_SYSCTL);
	TELL(CGROUP_UDP4_RECVMSG, BPF_CGROUP_UDP4_RECVMSG);
	TELL(CGROUP_UDP6_RECVMSG, BPF_CGROUP_UDP6_RECVMSG);
	TELL(CGROUP_GETSOCKOPT, BPF_CGROUP_GETSOCKOPT);
	TELL(CGROUP_SETSOCKOPT, BPF_CGROUP_SETSOCKOPT);
	TELL(CGROUP_INET4_GETPEERNAME, BPF_CGROUP_INET4_GETPEERNAME);
	TELL(CGROUP_INET6_GETPEERNAME, BPF_CGROUP_INET6_GETPEERNAME);
	TELL(CGROUP_INET4_GETSOCKNAME, BPF_CGROUP_INET4_GETSOCKNAME);
	TELL(CGROUP_INET6_GETSOCKNAME, BPF_CGROUP_INET6_GETSOCKNAME);
	TELL(CGROUP_INET_SOCK_RELEASE, BPF_CGROUP_INET_SOCK_RELEASE);
	TELL(CGROUP_UNIX_CONNECT, UNIX_CONNECT);
	TELL(CGROUP_UNIX_SENDMSG, UNIX_SENDMSG);
	TELL(CGROUP_UNIX_RECVMSG, UNIX_RECVMSG);
	TELL(CGROUP_UNIX_GETPEERNAME, UNIX_GETPEERNAME);
	TELL(CGROUP_UNIX_GETSOCKNAME, UNIX_GETSOCKNAME);
	/* One list for each hook with programs. */
	if (wanted & 1ULL << LSM_CGROUP && HAS(CGROUP_LSM_START)) {
		for (__u32 list = LIST(CGROUP_LSM_START);
		     list <= LIST(CGROUP_LSM_END) && list < MOST_LISTS; list++)
			tell(id, list, LSM_CGROUP);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
