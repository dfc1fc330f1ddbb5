//! Defines what the lab measures: one kind of traffic over one kind of path, against one limit.

use std::fmt;

use bpf::limits::Rate;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which way the traffic goes, seen from the throttled cgroup.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Sent.
    Up,
    /// Received.
    Down,
}

impl Way {
    /// Returns the word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "upload",
            Self::Down => "download",
        }
    }
}

/// Who sends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// TCP that slows down for loss.
    Cubic,
    /// TCP that goes by the rate it measures, and does not slow down for loss.
    Bbr,
    /// Datagrams, half as much again as the limit.
    Udp,
}

impl Sender {
    /// Returns the name as typed on the command line and as the kernel knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
            Self::Udp => "udp",
        }
    }

    /// Tells whether the sender uses TCP.
    pub fn is_tcp(self) -> bool {
        self != Self::Udp
    }
}

/// One combination that is measured with each system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// The direction.
    pub way: Way,
    /// The sender.
    pub sender: Sender,
    /// The added round trip, in milliseconds.
    pub rtt_ms: u32,
    /// The lost part of the data packets, in percent. Uploads lose packets behind the limit, downloads before it.
    pub loss_percent: u32,
    /// The limit, in bytes per second.
    pub rate: Rate,
    /// The number of connections (or datagram streams) at once.
    pub flows: u32,
}

impl Cell {
    /// Tells whether the cell needs netem to delay or lose packets.
    pub fn needs_netem(&self) -> bool {
        self.rtt_ms > 0 || self.loss_percent > 0
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, sender, rtt_ms, loss_percent, rate, flows } = self;
        write!(f, "{} {} {rate} x{flows}, {rtt_ms} ms", way.name(), sender.name())?;
        if *loss_percent > 0 {
            write!(f, ", {loss_percent} % lost")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_told_in_one_line() {
        let rate = Rate::from_bytes_per_second(1_250_000).unwrap();
        let cell = Cell {
            way: Way::Down,
            sender: Sender::Bbr,
            rtt_ms: 20,
            loss_percent: 0,
            rate,
            flows: 4,
        };
        assert_eq!(cell.to_string(), "download bbr 1.25 MB/s x4, 20 ms");
        let lossy = Cell { loss_percent: 1, rtt_ms: 0, ..cell };
        assert_eq!(lossy.to_string(), "download bbr 1.25 MB/s x4, 0 ms, 1 % lost");
        assert!(cell.needs_netem() && lossy.needs_netem());
        assert!(!Cell { rtt_ms: 0, ..cell }.needs_netem());
    }
}
