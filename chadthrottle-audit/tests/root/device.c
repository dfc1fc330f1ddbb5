// SPDX-License-Identifier: MIT OR Apache-2.0
/* Attaches a program to a network device through a link, and leaves a process behind that holds the link, for two
 * minutes at most: device xdp|tcx IFINDEX NAME
 * Prints that process's pid. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of kernel headers that know no tcx (6.6). */
#define TCX_INGRESS 46

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return (int)syscall(__NR_bpf, command, attr, sizeof(*attr));
}

int main(int argc, char **argv)
{
	/* r0 = 2; exit: XDP_PASS. To tcx it is a packet that is dropped: nobody sends any here. */
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 2},
		{.code = BPF_JMP | BPF_EXIT},
	};
	const int is_xdp = argc > 1 && !strcmp(argv[1], "xdp");
	union bpf_attr load = {
		.prog_type = is_xdp ? BPF_PROG_TYPE_XDP : BPF_PROG_TYPE_SCHED_CLS,
		.insns = (__u64)(unsigned long)pass,
		.insn_cnt = sizeof(pass) / sizeof(*pass),
		.license = (__u64)(unsigned long)"MIT",
	};
	union bpf_attr create = {
		.link_create.attach_type = is_xdp ? BPF_XDP : TCX_INGRESS,
	};
	int program, link, pid;

	if (argc < 4) {
		fprintf(stderr, "usage: %s xdp|tcx IFINDEX NAME\n", argv[0]);
		return 2;
	}
	strncpy(load.prog_name, argv[3], BPF_OBJ_NAME_LEN - 1);
	program = bpf(BPF_PROG_LOAD, &load);
	if (program < 0) {
		fprintf(stderr, "BPF_PROG_LOAD: %s\n", strerror(errno));
		return 2;
	}
	create.link_create.target_fd = atoi(argv[2]);
	create.link_create.prog_fd = program;
	link = bpf(BPF_LINK_CREATE, &create);
	if (link < 0) {
		fprintf(stderr, "BPF_LINK_CREATE: %s\n", strerror(errno));
		return 2;
	}
	pid = fork();
	if (pid < 0)
		return 2;
	if (pid) {
		printf("%d\n", pid);
		return 0;
	}
	/* Whoever reads the output shall not wait for this one. */
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	alarm(120);
	for (;;)
		pause();
}
