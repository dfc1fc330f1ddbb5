//! Packets in the format of their protocols, for the packet programs.

use proptest::prelude::*;

use super::packets::Packet;

/// The number of UDP; TCP's follows.
pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;
/// The number of a device with `fq`.
pub(crate) const FQ: u32 = 7;

/// The format of a packet, in terms of its protocols.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) is_ipv6: bool,
    /// Words of options after the IPv4 header.
    pub(crate) options: u8,
    /// Words of options after the TCP header. `None` for a UDP datagram.
    pub(crate) tcp: Option<u8>,
    /// The packet has the header for lengths above 64 kB.
    pub(crate) is_jumbo: bool,
    pub(crate) payload: u32,
    /// The payload of a segment.
    pub(crate) mss: u32,
    /// The kernel has counted the segments. It does not if a virtual machine's host has merged them.
    pub(crate) is_counted: bool,
    pub(crate) port: u16,
}

impl Shape {
    pub(crate) const DATAGRAM: Self = Self {
        is_ipv6: false,
        options: 0,
        tcp: None,
        is_jumbo: false,
        payload: 0,
        mss: u32::MAX,
        is_counted: true,
        port: 4_000,
    };

    /// Creates a single packet with `bytes` on the wire.
    pub(crate) fn of(bytes: u32) -> Self {
        Self { payload: bytes - 28, ..Self::DATAGRAM }
    }

    pub(crate) fn segments(self) -> u32 {
        self.payload.div_ceil(self.mss).max(1)
    }

    pub(crate) fn transport(self) -> u32 {
        self.tcp.map_or(8, |options| 20 + 4 * u32::from(options))
    }

    /// Returns the bytes on the wire. Each segment has the IP and transport headers, but never that of a jumbogram.
    pub(crate) fn on_the_wire(self) -> u32 {
        let ip = if self.is_ipv6 { 40 } else { 20 + 4 * u32::from(self.options) };
        self.payload + self.segments() * (ip + self.transport())
    }

    pub(crate) fn packet(self) -> Packet {
        let protocol = if self.tcp.is_some() { TCP } else { UDP };
        let mut headers = if self.is_ipv6 {
            let next = if self.is_jumbo { 0 } else { protocol };
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, next, 64];
            ip.extend([0xff; 32]);
            if self.is_jumbo {
                ip.extend([protocol, 0, 0xc2, 4, 0, 1, 0, 0]);
            }
            ip
        } else {
            let mut ip = vec![0x45 + self.options, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol];
            ip.resize(20 + 4 * usize::from(self.options), 0xff);
            ip
        };
        let begins = headers.len();
        headers.extend(self.port.to_be_bytes());
        headers.resize(begins + usize::try_from(self.transport()).unwrap(), 0);
        if let Some(options) = self.tcp {
            headers[begins + 12] = (5 + options) << 4;
        }
        let is_many = self.segments() > 1;
        Packet {
            length: self.payload + u32::try_from(headers.len()).unwrap(),
            headers,
            gso_segs: if is_many && self.is_counted { self.segments() } else { 0 },
            gso_size: if is_many { self.mss } else { 0 },
            protocol: if self.is_ipv6 { 0x86dd } else { 0x0800 },
            device: FQ,
            ..Packet::default()
        }
    }
}

pub(crate) fn any_shape() -> impl Strategy<Value = Shape> {
    let payload = prop_oneof![0..300_u32, 0..1_500_u32, 0..=65_000_u32, Just(1_204), Just(228)];
    let mss = prop_oneof![Just(1_448), Just(1_460), 500..9_000_u32, Just(u32::MAX)];
    let tcp = prop_oneof![Just(None), (0..=10_u8).prop_map(Some)];
    let port = prop_oneof![Just(53), Just(853), Just(5_353), Just(4_000)];
    (any::<bool>(), 0..=10_u8, tcp, payload, mss, any::<bool>(), port).prop_map(
        |(is_ipv6, options, tcp, payload, mss, is_counted, port)| Shape {
            is_ipv6,
            options: if is_ipv6 { 0 } else { options },
            tcp,
            is_jumbo: false,
            payload,
            mss,
            is_counted,
            port,
        },
    )
}
