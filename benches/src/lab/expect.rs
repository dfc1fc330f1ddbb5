//! What a limit lets through, if it is kept to the byte.
//!
//! Every limit counts packets, and what arrives is their payload. Who counts the Ethernet header too lets
//! less through at the same number, which is no error of his: each system is held to what *it* counts.

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Way};

/// The MTU of the lab's interfaces.
const MTU: f64 = 1500.0;
/// IPv4, TCP, and its time stamps.
const TCP_HEADERS: f64 = 20.0 + 20.0 + 12.0;
/// IPv4 and UDP.
const UDP_HEADERS: f64 = 20.0 + 8.0;
const ETHERNET: f64 = 14.0;
/// The payload of a datagram, which fits the MTU.
pub const DATAGRAM: u32 = 1448;
/// The payload of a full segment.
pub const SEGMENT: f64 = MTU - TCP_HEADERS;

/// What a system counts of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// From the IP header on.
    Ip,
    /// From the IP header on, but the headers once for all segments that GSO or GRO has put together.
    IpOncePerPacket,
    /// The Ethernet header as well: 14 bytes more.
    Ethernet,
    /// Nothing: it does not limit.
    Nothing,
}

impl Counted {
    /// The length that it sees of a packet which has `ip` bytes from the IP header on.
    fn of(self, ip: f64) -> f64 {
        match self {
            Self::Ip | Self::IpOncePerPacket => ip,
            Self::Ethernet => ip + ETHERNET,
            Self::Nothing => 0.0,
        }
    }
}

/// The rates of payload, in bytes a second, that are no error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// From this one,
    pub least: f64,
    /// to this one, which is the same but for [`Counted::IpOncePerPacket`].
    pub most: f64,
}

impl Expected {
    /// How far a rate is off the nearer end, in percent of that; negative: too little. 0 between them.
    pub fn off_percent(&self, rate: f64) -> f64 {
        (rate / rate.clamp(self.least, self.most) - 1.0) * 100.0
    }
}

/// The payload that arrives in a second, in bytes, if the limit is kept exactly while `probes` small datagrams
/// of `probe` bytes of payload go through it in a second. `None` without a limit.
///
/// What is lost of an upload is lost behind the limit, which has counted it; of a download, before it.
///
/// Who counts the headers once for a packet of many segments lets more through the more of them there are: from
/// a packet for each segment up to hardly any header at all. Nobody puts datagrams together.
pub fn goodput(cell: &Cell, counted: Counted, probes: f64, probe: u32) -> Option<Expected> {
    if counted == Counted::Nothing {
        return None;
    }
    let (payload, headers) = if cell.sender.is_tcp() {
        (SEGMENT, TCP_HEADERS)
    } else {
        (f64::from(DATAGRAM), UDP_HEADERS)
    };
    let arrives = match cell.way {
        Way::Up => 1.0 - f64::from(cell.loss_percent) / 100.0,
        Way::Down => 1.0,
    };
    let rest =
        cell.rate.bytes_per_second() as f64 - probes * counted.of(f64::from(probe) + UDP_HEADERS);
    let rest = rest * arrives;
    let least = rest * payload / counted.of(payload + headers);
    let is_open = counted == Counted::IpOncePerPacket && cell.sender.is_tcp();
    Some(Expected { least, most: if is_open { rest } else { least } })
}

#[cfg(test)]
mod tests {
    use bpf::limits::Rate;

    use super::super::cell::Sender;
    use super::*;

    fn cell(sender: Sender) -> Cell {
        let rate = Rate::from_bytes_per_second(1_500_000).unwrap();
        Cell { way: Way::Up, sender, rtt_ms: 0, loss_percent: 0, rate, flows: 1 }
    }

    fn near(value: Option<Expected>, expected: f64) {
        let Expected { least, most } = value.unwrap();
        assert!((least - expected).abs() < 0.5, "{least}, not {expected}");
        assert!((most - least).abs() < 0.5, "{least} to {most}");
    }

    #[test]
    fn headers_are_what_is_missing_of_the_limit() {
        near(goodput(&cell(Sender::Cubic), Counted::Ip, 0.0, 0), 1_448_000.0);
        near(goodput(&cell(Sender::Bbr), Counted::Ethernet, 0.0, 0), 1_500_000.0 * 1448.0 / 1514.0);
        near(goodput(&cell(Sender::Udp), Counted::Ip, 0.0, 0), 1_500_000.0 * 1448.0 / 1476.0);
        near(goodput(&cell(Sender::Udp), Counted::Ethernet, 0.0, 0), 1_500_000.0 * 1448.0 / 1490.0);
        assert_eq!(goodput(&cell(Sender::Udp), Counted::Nothing, 0.0, 0), None);
    }

    #[test]
    fn who_counts_headers_once_for_many_segments_is_held_to_a_range() {
        let open = goodput(&cell(Sender::Cubic), Counted::IpOncePerPacket, 0.0, 0).unwrap();
        assert_eq!(open, Expected { least: 1_448_000.0, most: 1_500_000.0 });
        near(
            goodput(&cell(Sender::Udp), Counted::IpOncePerPacket, 0.0, 0),
            1_500_000.0 * 1448.0 / 1476.0,
        );
        for (rate, off) in [(1_303_200.0, -10.0), (1_480_000.0, 0.0), (1_650_000.0, 10.0)] {
            assert!((open.off_percent(rate) - off).abs() < 1e-9, "{rate}");
        }
        assert!(open.off_percent(0.0).abs() > 99.0);
    }

    #[test]
    fn what_is_lost_behind_the_limit_does_not_arrive() {
        let lossy = |way| Cell { way, loss_percent: 2, ..cell(Sender::Cubic) };
        near(goodput(&lossy(Way::Up), Counted::Ip, 0.0, 0), 0.98 * 1_448_000.0);
        near(goodput(&lossy(Way::Down), Counted::Ip, 0.0, 0), 1_448_000.0);
    }

    #[test]
    fn what_the_probes_take_is_not_missing() {
        // 10 a second of 8 + 28 bytes are 360 bytes, and 500 with their Ethernet headers.
        near(goodput(&cell(Sender::Cubic), Counted::Ip, 10.0, 8), 1_499_640.0 * 1448.0 / 1500.0);
        near(
            goodput(&cell(Sender::Cubic), Counted::Ethernet, 10.0, 8),
            1_499_500.0 * 1448.0 / 1514.0,
        );
    }
}
