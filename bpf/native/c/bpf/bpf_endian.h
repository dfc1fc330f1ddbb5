/* SPDX-License-Identifier: GPL-2.0-only */
/* libbpf's header of that name, for this machine. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(number) __builtin_bswap16(number)
#define bpf_htonl(number) __builtin_bswap32(number)
#else
#define bpf_htons(number) ((__u16)(number))
#define bpf_htonl(number) ((__u32)(number))
#endif
#define bpf_ntohl(number) bpf_htonl(number)
