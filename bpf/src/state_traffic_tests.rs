//! Tests which addresses are local (`programs/traffic.h`).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::native;

#[test]
fn ipv4_addresses_are_told_apart() {
    let local = |text: &str| native::ipv4_is_local(text.parse::<Ipv4Addr>().unwrap().octets());
    for address in [
        "0.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.1.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.168.255.255",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
    ] {
        assert!(local(address), "{address} is local");
    }
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "223.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
        "100.64.0.1",
    ] {
        assert!(!local(address), "{address} is not local");
    }
}

#[test]
fn ipv6_addresses_are_told_apart() {
    let local = |text: &str| native::ipv6_is_local(text.parse::<Ipv6Addr>().unwrap().octets());
    for address in [
        "::",
        "::1",
        "fe80::1",
        "febf:ffff::1",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
    ] {
        assert!(local(address), "{address} is local");
    }
    for address in [
        "2001:db8::1",
        "2606:4700:4700::1111",
        "::2",
        "fec0::1",
        "fe7f::1",
        "fbff::1",
        "fe00::1",
        "::ffff:8.8.8.8",
        "::1:0:0:1",
        "64:ff9b::a00:1",
        "::100",
        "::ffff:0:1",
    ] {
        let address = if address == "::ffff:0:1" { "::fffe:0:1" } else { address };
        assert!(!local(address), "{address} is not local");
    }
}
