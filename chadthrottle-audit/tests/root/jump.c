// SPDX-License-Identifier: MIT OR Apache-2.0
/* Puts a program into slot 3 of a prog_array, and pins that: jump NAME PIN
 * What keeps the program then is the slot alone. */
#include <errno.h>
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
	union bpf_attr make = {
		.map_type = BPF_MAP_TYPE_PROG_ARRAY,
		.key_size = sizeof(__u32),
		.value_size = sizeof(__u32),
		.max_entries = 8,
	};
	union bpf_attr put = {0}, pin = {0};
	const __u32 slot = 3;
	__u32 program;
	int map;

	if (argc < 3) {
		fprintf(stderr, "usage: %s NAME PIN\n", argv[0]);
		return 2;
	}
	strncpy(load.prog_name, argv[1], BPF_OBJ_NAME_LEN - 1);
	strncpy(make.map_name, argv[1], BPF_OBJ_NAME_LEN - 1);
	program = (__u32)bpf(BPF_PROG_LOAD, &load);
	map = bpf(BPF_MAP_CREATE, &make);
	if ((int)program < 0 || map < 0) {
		fprintf(stderr, "BPF_PROG_LOAD, BPF_MAP_CREATE: %s\n", strerror(errno));
		return 2;
	}
	put.map_fd = (__u32)map;
	put.key = (__u64)(unsigned long)&slot;
	put.value = (__u64)(unsigned long)&program;
	pin.bpf_fd = (__u32)map;
	pin.pathname = (__u64)(unsigned long)argv[2];
	if (bpf(BPF_MAP_UPDATE_ELEM, &put) || bpf(BPF_OBJ_PIN, &pin)) {
		fprintf(stderr, "BPF_MAP_UPDATE_ELEM, BPF_OBJ_PIN: %s\n", strerror(errno));
		return 2;
	}
	return 0;
}
