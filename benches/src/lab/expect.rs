//! Computes what a limit lets through if it is exact.
//!
//! Every limit counts packets, but the measured goodput is payload. A system that counts the Ethernet header lets less
//! payload through at the same rate, and rightly so. So each system is compared with what that system counts.

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Way};

/// The MTU of the lab's interfaces.
const MTU: f64 = 1500.0;
/// The headers of IPv4 and TCP, with time stamps.
const TCP_HEADERS: f64 = 20.0 + 20.0 + 12.0;
/// The headers of IPv4 and UDP.
const UDP_HEADERS: f64 = 20.0 + 8.0;
const ETHERNET: f64 = 14.0;
/// The payload of a datagram, which fits the MTU.
pub const DATAGRAM: u32 = 1448;
/// The payload of a full segment.
pub const SEGMENT: f64 = MTU - TCP_HEADERS;

/// The part of a packet that a system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// The packet from the IP header on.
    Ip,
    /// The packet from the IP header on, with one set of headers for all segments that GSO or GRO has merged.
    IpOncePerPacket,
    /// The Ethernet header as well, which adds 14 bytes.
    Ethernet,
    /// Nothing, because the system does not limit.
    Nothing,
}

impl Counted {
    /// Returns the counted length of a packet that has `ip` bytes from the IP header on.
    fn of(self, ip: f64) -> f64 {
        match self {
            Self::Ip | Self::IpOncePerPacket => ip,
            Self::Ethernet => ip + ETHERNET,
            Self::Nothing => 0.0,
        }
    }
}

/// The payload rates that are exact, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The lowest exact rate.
    pub least: f64,
    /// The highest exact rate. It differs from `least` only for [`Counted::IpOncePerPacket`].
    pub most: f64,
}

impl Expected {
    /// Returns how far a rate is outside the range, in percent of the nearer end. Negative means too little, 0 means
    /// inside.
    pub fn off_percent(&self, rate: f64) -> f64 {
        (rate / rate.clamp(self.least, self.most) - 1.0) * 100.0
    }
}

/// Returns the payload that arrives per second, in bytes, under an exact limit. `probes` datagrams per second, each
/// with `probe` bytes of payload, share the limit. `None` without a limit.
///
/// Lost upload packets are lost behind the limit, which has counted them. Lost download packets are lost before it.
///
/// A system that counts headers once per merged packet lets more through the more segments are merged. The range goes
/// from one segment per packet to almost no headers. Nothing merges datagrams.
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
        // 10 probes per second of 8 + 28 bytes are 360 bytes, and 500 bytes with their Ethernet headers.
        near(goodput(&cell(Sender::Cubic), Counted::Ip, 10.0, 8), 1_499_640.0 * 1448.0 / 1500.0);
        near(
            goodput(&cell(Sender::Cubic), Counted::Ethernet, 10.0, 8),
            1_499_500.0 * 1448.0 / 1514.0,
        );
    }
}
