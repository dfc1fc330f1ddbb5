//! What is tried: one kind of traffic over one kind of way, against one limit.

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
    /// For people.
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
    /// As it is typed, and as the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
            Self::Udp => "udp",
        }
    }

    /// Whether it is TCP.
    pub fn is_tcp(self) -> bool {
        self != Self::Udp
    }
}

/// What is tried with each system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Which way.
    pub way: Way,
    /// Who sends.
    pub sender: Sender,
    /// The round trip that is added, in milliseconds.
    pub rtt_ms: u32,
    /// What part of the data's packets is lost, in percent: of uploads behind the limit, of downloads before it.
    pub loss_percent: u32,
    /// The limit, bytes per second.
    pub rate: Rate,
    /// How many connections (or streams of datagrams) at once.
    pub flows: u32,
}

impl Cell {
    /// Whether it needs packets to be delayed or lost.
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
