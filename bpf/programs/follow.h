/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/* The data that user space and the programs of a followed path share. */
#ifndef CHADTHROTTLE_FOLLOW_H
#define CHADTHROTTLE_FOLLOW_H

#include <linux/types.h>

/* The longest name of a cgroup, including the NUL. */
#define FOLLOW_NAME 256

/* Only user space writes it. */
struct follow_wish {
	__u64 parent; /* the id of the parent cgroup */
	__u64 armed; /* the id of the cgroup that its own throttle limits */
};

/* Only the programs write it. */
struct follow_held {
	__u64 id; /* the id of the newest cgroup; 0: none yet */
	__u64 level; /* the cgroup's level */
	__u64 since; /* its creation time, in nanoseconds */
	__u64 bytes[2]; /* bytes received and sent until the limit was attached */
	__u64 passed[2]; /* packets of all held cgroups: within the burst */
	__u64 dropped[2]; /* packets of all held cgroups: above the burst */
};

#endif
