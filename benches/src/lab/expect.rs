//! What a limit lets through, if it is kept to the byte.
//!
//! Every limit counts packets, and what arrives is their payload. Who counts the Ethernet header too lets
//! less through at the same number, which is no error of his: each system is held to what *it* counts.

use serde::{Deserialize, Serialize};

use super::cell::Cell;

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
    /// The Ethernet header as well: 14 bytes more.
    Ethernet,
    /// Nothing: it does not limit.
    Nothing,
}

impl Counted {
    /// The length that it sees of a packet which has `ip` bytes from the IP header on.
    fn of(self, ip: f64) -> f64 {
        match self {
            Self::Ip => ip,
            Self::Ethernet => ip + ETHERNET,
            Self::Nothing => 0.0,
        }
    }
}

/// The payload that arrives in a second, in bytes, if the limit is kept exactly while `probes` small datagrams
/// of `probe` bytes of payload go through it in a second. `None` without a limit.
pub fn goodput(cell: &Cell, counted: Counted, probes: f64, probe: u32) -> Option<f64> {
    if counted == Counted::Nothing {
        return None;
    }
    let (payload, headers) = if cell.sender.is_tcp() {
        (SEGMENT, TCP_HEADERS)
    } else {
        (f64::from(DATAGRAM), UDP_HEADERS)
    };
    let rest =
        cell.rate.bytes_per_second() as f64 - probes * counted.of(f64::from(probe) + UDP_HEADERS);
    Some(rest * payload / counted.of(payload + headers))
}

#[cfg(test)]
mod tests {
    use bpf::limits::Rate;

    use super::super::cell::{Sender, Way};
    use super::*;

    fn cell(sender: Sender) -> Cell {
        let rate = Rate::from_bytes_per_second(1_500_000).unwrap();
        Cell { way: Way::Up, sender, rtt_ms: 0, loss_percent: 0, rate, flows: 1 }
    }

    fn near(value: Option<f64>, expected: f64) {
        let value = value.unwrap();
        assert!((value - expected).abs() < 0.5, "{value}, not {expected}");
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
    fn what_the_probes_take_is_not_missing() {
        // 10 a second of 8 + 28 bytes are 360 bytes, and 500 with their Ethernet headers.
        near(goodput(&cell(Sender::Cubic), Counted::Ip, 10.0, 8), 1_499_640.0 * 1448.0 / 1500.0);
        near(
            goodput(&cell(Sender::Cubic), Counted::Ethernet, 10.0, 8),
            1_499_500.0 * 1448.0 / 1514.0,
        );
    }
}
