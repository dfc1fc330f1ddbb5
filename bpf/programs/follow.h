/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* What user space and the programs that follow a path tell each other. */
#ifndef CHADTHROTTLE_FOLLOW_H
#define CHADTHROTTLE_FOLLOW_H

#include <linux/types.h>

/* The longest name of a cgroup, and its NUL. */
#define FOLLOW_NAME 256

/* Written by user space alone. */
struct follow_wish {
	__u64 parent; /* the id of the cgroup above */
	__u64 armed; /* the id of the cgroup that is limited */
};

/* Written by the programs alone. */
struct follow_held {
	__u64 id; /* of the cgroup that was made last; 0: none yet */
	__u64 level; /* how deep it lies */
	__u64 since; /* when it was made, in nanoseconds */
	__u64 bytes[2]; /* what it has received and sent until the limit was attached */
	__u64 passed[2]; /* packets of all cgroups that were held: within the burst */
	__u64 dropped[2]; /* and above it */
};

#endif
