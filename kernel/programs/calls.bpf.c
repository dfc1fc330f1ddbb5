// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records which process asks bpf(2) for a map, a pin, an attachment or a link. A recorded call may have failed. Needs
 * Linux 5.8 with type information.
 *
 * Every such call passes security_bpf(). If functions cannot be traced, the program runs at the start of every system
 * call, which slows all processes of the host.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel_types.h"

/*
 * The first argument of a system call, on x86 and on arm64. libbpf ignores the part of a name after ___. Its own
 * headers have a pt_regs___arm64.
 */
struct pt_regs {
	unsigned long di;
} KERNEL_TYPE;

struct pt_regs___on_arm64 {
	__u64 orig_x0;
} KERNEL_TYPE;

struct call_record {
	__u64 at; /* CLOCK_MONOTONIC, in nanoseconds */
	__u32 pid; /* the process's pid in the initial pid namespace */
	__u32 command;
};

/* The number of bpf(2). Set before loading. */
const volatile long bpf_call = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} calls SEC(".maps");

/* The number of records that did not fit. */
__u64 lost = 0;

static __always_inline int tell(__u32 command)
{
	struct call_record record = {};

	if (command != BPF_MAP_CREATE && command != BPF_OBJ_PIN && command != BPF_PROG_ATTACH &&
	    command != BPF_LINK_CREATE && command != BPF_RAW_TRACEPOINT_OPEN)
		return 0;
	record.at = bpf_ktime_get_ns();
	record.pid = bpf_get_current_pid_tgid() >> 32;
	record.command = command;
	/* The reader polls often enough. */
	if (bpf_ringbuf_output(&calls, &record, sizeof(record), BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

SEC("fentry/security_bpf")
int BPF_PROG(see_bpf, int command)
{
	return tell(command);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(see_system_call, struct pt_regs *regs, long call)
{
	if (call != bpf_call)
		return 0;
	if (bpf_core_field_exists(regs->di))
		return tell(BPF_CORE_READ(regs, di));
	return tell(BPF_CORE_READ((struct pt_regs___on_arm64 *)regs, orig_x0));
}

char LICENSE[] SEC("license") = "GPL";
