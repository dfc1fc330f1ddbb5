// SPDX-License-Identifier: MIT OR Apache-2.0
/* Attaches a program to a cgroup through a link, and leaves a process behind that holds it, for two
 * minutes at most: daemon CGROUP NAME [leaderless|unshared].
 * Prints that process's pid. Leaderless: its first thread has ended. Unshared: its first thread has
 * other files than the one that holds the link. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return (int)syscall(__NR_bpf, command, attr, sizeof(*attr));
}

static int unshared;

static void *hold(void *unused)
{
	if (unshared && unshare(CLONE_FILES))
		_exit(2);
	unshared = 0;
	for (;;)
		pause();
	return unused;
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
	union bpf_attr create = {.link_create.attach_type = BPF_CGROUP_INET_EGRESS};
	int cgroup, program, link, pid;
	pthread_t thread;

	if (argc < 3) {
		fprintf(stderr, "usage: %s CGROUP NAME\n", argv[0]);
		return 2;
	}
	strncpy(load.prog_name, argv[2], BPF_OBJ_NAME_LEN - 1);
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
	create.link_create.target_fd = cgroup;
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
	/* Nor shall it stay if nobody ends it. */
	alarm(120);
	if (argc > 3) {
		unshared = !strcmp(argv[3], "unshared");
		if (pthread_create(&thread, NULL, hold, NULL))
			return 2;
		/* Until the thread has files of its own, in which the link stays open. */
		while (*(volatile int *)&unshared)
			usleep(1000);
		if (!strcmp(argv[3], "leaderless"))
			pthread_exit(NULL);
		close(link);
		close(program);
	}
	for (;;)
		pause();
}
