//! Defines the systems that limit traffic. One trait installs each, leaves it alone during the traffic, and removes it.
//!
//! The eBPF systems limit the cgroup. The others limit the whole interface, so the lab's traffic and both probes.

mod nft;
mod ours;
mod tc;

pub(super) use ours::{Throttles, spec};

use std::time::Duration;

use anyhow::Result;
use bpf::limits::Rate;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::cell::Way;
use super::expect::Counted;
use super::network::Network;
use super::setup::{Refusal, Setup};

/// A way to limit traffic.
pub trait System {
    /// Returns what a reader has to know about the system's figures, in a sentence.
    fn note(&self) -> &'static str;

    /// Returns what the system counts of a packet.
    fn counted(&self, way: Way) -> Counted;

    /// Tells whether the system limits only the cgroup, and not the interface.
    fn is_for_cgroups(&self) -> bool {
        false
    }

    /// Begins to limit.
    ///
    /// # Errors
    /// Returns [`Refusal::Missing`] if the kernel or the host lacks the system. A failure leaves nothing behind.
    fn install(
        &self,
        network: &Network,
        way: Way,
        rate: Rate,
    ) -> Result<Box<dyn Installed>, Refusal>;
}

/// A limit that is in force. Removing or dropping it ends the limit.
pub trait Installed {
    /// Returns the commands that were run, or the engine's messages.
    fn done(&self) -> Vec<String>;

    /// Ends the limit.
    ///
    /// # Errors
    /// Fails if a part of the limit stays.
    fn remove(self: Box<Self>) -> Result<()>;
}

impl Installed for Setup {
    fn done(&self) -> Vec<String> {
        Setup::done(self).to_vec()
    }

    fn remove(self: Box<Self>) -> Result<()> {
        Setup::remove(*self)
    }
}

/// The systems by name.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// chadthrottle, as it is without any option
    Ours,
    /// The same, with fq at the interface
    OursFq,
    /// chadthrottle with a queue for downloads
    OursQueue,
    /// chadthrottle with a burst of 20 ms
    #[serde(rename = "ours-20ms")]
    #[value(name = "ours-20ms")]
    Ours20,
    /// chadthrottle with a burst of 60 ms
    #[serde(rename = "ours-60ms")]
    #[value(name = "ours-60ms")]
    Ours60,
    /// chadthrottle with a burst of 1 s
    #[serde(rename = "ours-1s")]
    #[value(name = "ours-1s")]
    Ours1000,
    /// chadthrottle that only drops, burst 20 ms
    #[serde(rename = "bucket-20ms")]
    #[value(name = "bucket-20ms")]
    Bucket20,
    /// chadthrottle that only drops, burst 250 ms
    #[serde(rename = "bucket-250ms")]
    #[value(name = "bucket-250ms")]
    Bucket250,
    /// tc htb; downloads through an ifb
    Htb,
    /// tc tbf, latency 50 ms; downloads through an ifb
    Tbf,
    /// tc police
    Police,
    /// nft limit
    Nft,
    /// No limit
    None,
}

impl Name {
    /// All systems, in the order of tables.
    pub const ALL: &'static [Self] = &[
        Self::Ours,
        Self::OursFq,
        Self::OursQueue,
        Self::Ours20,
        Self::Ours60,
        Self::Ours1000,
        Self::Bucket20,
        Self::Bucket250,
        Self::Htb,
        Self::Tbf,
        Self::Police,
        Self::Nft,
        Self::None,
    ];

    /// Returns the name as typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursFq => "ours-fq",
            Self::OursQueue => "ours-queue",
            Self::Ours20 => "ours-20ms",
            Self::Ours60 => "ours-60ms",
            Self::Ours1000 => "ours-1s",
            Self::Bucket20 => "bucket-20ms",
            Self::Bucket250 => "bucket-250ms",
            Self::Htb => "htb",
            Self::Tbf => "tbf",
            Self::Police => "police",
            Self::Nft => "nft",
            Self::None => "none",
        }
    }

    /// Returns the system.
    pub fn system(self) -> Box<dyn System> {
        match self {
            Self::Ours => Box::new(ours::Ours::Default),
            Self::OursFq => Box::new(ours::Ours::BehindFq),
            Self::OursQueue => Box::new(ours::Ours::Queue),
            Self::Ours20 => Box::new(ours::Ours::Burst(Duration::from_millis(20))),
            Self::Ours60 => Box::new(ours::Ours::Burst(Duration::from_millis(60))),
            Self::Ours1000 => Box::new(ours::Ours::Burst(Duration::from_secs(1))),
            Self::Bucket20 => Box::new(ours::Ours::Bucket(Duration::from_millis(20))),
            Self::Bucket250 => Box::new(ours::Ours::Bucket(Duration::from_millis(250))),
            Self::Htb => Box::new(tc::Htb),
            Self::Tbf => Box::new(tc::Tbf),
            Self::Police => Box::new(tc::Police),
            Self::Nft => Box::new(nft::Nft),
            Self::None => Box::new(Unlimited),
        }
    }
}

/// The network without any system.
#[derive(Debug)]
struct Unlimited;

impl System for Unlimited {
    fn note(&self) -> &'static str {
        "No limit: what the machine can do, and what it costs."
    }

    fn counted(&self, _: Way) -> Counted {
        Counted::Nothing
    }

    fn install(&self, _: &Network, _: Way, _: Rate) -> Result<Box<dyn Installed>, Refusal> {
        Ok(Box::new(Setup::default()))
    }
}

/// Returns the burst of a peer that only drops, in bytes: 250 ms as ours, and at least two packets of 64 kB. With a
/// smaller burst it would drop every such packet.
fn policer_burst(rate: Rate) -> u64 {
    (rate.bytes_per_second() / 4).max(131_072)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_called_as_it_is_typed_and_written() {
        assert_eq!(Name::ALL, Name::value_variants());
        for name in Name::ALL {
            let typed = name.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), name.name());
            assert_eq!(serde_json::to_value(name).unwrap(), name.name());
        }
    }

    #[test]
    fn a_policer_lets_a_packet_of_any_size_through() {
        let burst = |rate| policer_burst(Rate::from_bytes_per_second(rate).unwrap());
        assert_eq!(burst(125_000), 131_072);
        assert_eq!(burst(12_500_000), 3_125_000);
    }
}
