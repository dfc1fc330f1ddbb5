/* SPDX-License-Identifier: GPL-2.0-only */
/* libbpf's header of that name, for this machine: the types are what the sources say. */
#define bpf_core_field_exists(field) 1
