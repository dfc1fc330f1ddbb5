// SPDX-License-Identifier: MIT OR Apache-2.0
/* Attaches a program to a cgroup the legacy way, and forgets it: it stays until somebody detaches it or the cgroup goes.
 * tidy.c is the same with the call that is missing here.
 *
 *	cc -o leak leak.c && sudo ./leak /sys/fs/cgroup/somewhere [NAME]
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return (int)syscall(__NR_bpf, command, attr, sizeof(*attr));
}

int main(int argc, char **argv)
{
	/* r0 = 1; exit: every packet may pass. */
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SKB,
		.expected_attach_type = BPF_CGROUP_INET_EGRESS,
		.insns = (__u64)(unsigned long)pass,
		.insn_cnt = sizeof(pass) / sizeof(*pass),
		.license = (__u64)(unsigned long)"MIT",
	};
	union bpf_attr attach = {
		.attach_type = BPF_CGROUP_INET_EGRESS,
		.attach_flags = BPF_F_ALLOW_MULTI,
	};
	int cgroup, program;

	if (argc < 2) {
		fprintf(stderr, "usage: %s CGROUP [NAME]\n", argv[0]);
		return 2;
	}
	strncpy(load.prog_name, argc > 2 ? argv[2] : "leaky", BPF_OBJ_NAME_LEN - 1);
	cgroup = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup < 0) {
		fprintf(stderr, "open %s: %s\n", argv[1], strerror(errno));
		return 2;
	}
	program = bpf(BPF_PROG_LOAD, &load);
	if (program < 0) {
		fprintf(stderr, "BPF_PROG_LOAD: %s\n", strerror(errno));
		return 2;
	}
	attach.target_fd = cgroup;
	attach.attach_bpf_fd = program;
	if (bpf(BPF_PROG_ATTACH, &attach)) {
		fprintf(stderr, "BPF_PROG_ATTACH: %s\n", strerror(errno));
		return 2;
	}
	printf("attached to %s\n", argv[1]);
	return 0;
}
