/* SPDX-License-Identifier: (MIT OR Apache-2.0) OR GPL-2.0-only */
/*
 * Local addresses, which no packet from or to the internet carries, and the ports of DNS. The functions take bytes in
 * network order, and a port. User space compiles them too, for tests.
 */
#ifndef CHADTHROTTLE_TRAFFIC_H
#define CHADTHROTTLE_TRAFFIC_H

#include <linux/types.h>

/* Offsets from the IP header, where a cgroup_skb program's packet begins. */
#define IPV4_FRAGMENT 6
#define IPV4_IS_FRAGMENT 0x3fff /* an offset, or more to come */
#define IPV4_PROTOCOL 9
#define IPV4_SOURCE 12
#define IPV4_DESTINATION 16
#define IPV4_ADDRESS_BYTES 4
#define IPV4_HEADER_BYTES 20
#define IPV6_NEXT_HEADER 6
#define IPV6_SOURCE 8
#define IPV6_DESTINATION 24
#define IPV6_ADDRESS_BYTES 16
#define IPV6_HEADER_BYTES 40

/* UDP ports of DNS (RFC 1035), DNS over QUIC (RFC 9250) and multicast DNS (RFC 6762). */
static __attribute__((always_inline)) inline int is_dns_port(__u16 port)
{
	return port == 53 || port == 853 || port == 5353;
}

static __attribute__((always_inline)) inline int ipv4_is_local(const __u8 *a)
{
	return a[0] == 0 || /* unspecified, "this network" (RFC 791) */
	       a[0] == 10 || /* private (RFC 1918) */
	       (a[0] == 172 && (a[1] & 0xf0) == 16) || /* private */
	       (a[0] == 192 && a[1] == 168) || /* private */
	       a[0] == 127 || /* loopback (RFC 1122) */
	       (a[0] == 169 && a[1] == 254) || /* link-local (RFC 3927) */
	       (a[0] & 0xf0) == 224 || /* multicast (RFC 5771) */
	       (a[0] == 255 && a[1] == 255 && a[2] == 255 && a[3] == 255); /* broadcast */
}

static __attribute__((always_inline)) inline int ipv6_is_local(const __u8 *a)
{
	__u8 head = 0; /* the first ten bytes; zero in ::, ::1 and IPv4-mapped addresses */

	if ((a[0] & 0xfe) == 0xfc || /* unique-local (RFC 4193) */
	    (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || /* link-local (RFC 4291) */
	    a[0] == 0xff) /* multicast (RFC 4291) */
		return 1;

	for (int i = 0; i < 10; i++)
		head |= a[i];
	if (head)
		return 0;
	if (a[10] == 0xff && a[11] == 0xff) /* IPv4-mapped (RFC 4291) */
		return ipv4_is_local(a + 12);
	/* unspecified and loopback (RFC 4291) */
	return !(a[10] | a[11] | a[12] | a[13] | a[14]) && a[15] <= 1;
}

#endif
