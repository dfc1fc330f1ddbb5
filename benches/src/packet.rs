//! Creates packets for the programs.

use std::net::IpAddr;

/// The length from the IP header on, which fills an Ethernet frame.
pub const LENGTH: usize = 1_500;

const ETHERNET_HEADER: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;

/// An ordinary packet without GSO and options, with the Ethernet header that the kernel removes. The rest is what a
/// `cgroup_skb` program sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet(Vec<u8>);

impl Packet {
    /// Creates a UDP packet from and to the same address, so its class of traffic is the same in both directions.
    pub fn between(address: IpAddr) -> Self {
        Self::with_length(address, LENGTH)
    }

    /// Creates such a packet with this length from the IP header on.
    pub fn with_length(address: IpAddr, bytes: usize) -> Self {
        let mut frame = vec![0; ETHERNET_HEADER];
        let protocol = if address.is_ipv4() { IPV4 } else { IPV6 };
        frame[12..].copy_from_slice(&protocol.to_be_bytes());
        let length = bytes.to_be_bytes();
        let length = &length[length.len() - 2..];
        match address {
            IpAddr::V4(address) => {
                frame.extend([0x45, 0]);
                frame.extend(length);
                frame.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
                frame.extend(address.octets().repeat(2));
            }
            IpAddr::V6(address) => {
                frame.extend([0x60, 0, 0, 0]);
                let payload = (bytes - 40).to_be_bytes();
                frame.extend(&payload[payload.len() - 2..]);
                frame.extend([UDP, 64]);
                frame.extend(address.octets().repeat(2));
            }
        }
        frame.resize(ETHERNET_HEADER + bytes, 0);
        Self(frame)
    }

    /// Returns the packet with its Ethernet header.
    pub fn frame(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_where_the_programs_look_for_them() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let packet = Packet::between(v4);
        assert_eq!(packet.frame().len(), 1_514);
        assert_eq!(packet.frame()[12..16], [8, 0, 0x45, 0]);
        assert_eq!(packet.frame()[16..18], [0x05, 0xdc]);
        assert_eq!(packet.frame()[14 + 12..14 + 20], [192, 0, 2, 1, 192, 0, 2, 1]);

        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let packet = Packet::between(v6);
        assert_eq!(packet.frame()[12..15], [0x86, 0xdd, 0x60]);
        assert_eq!(packet.frame()[14 + 4..14 + 7], [0x05, 0xb4, UDP]);
        assert_eq!(packet.frame()[14 + 8..14 + 12], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(packet.frame()[14 + 24..14 + 28], [0x20, 0x01, 0x0d, 0xb8]);
        let small = Packet::with_length(v4, 84);
        assert_eq!((small.frame().len(), &small.frame()[16..18]), (98, &[0, 84][..]));
    }
}
