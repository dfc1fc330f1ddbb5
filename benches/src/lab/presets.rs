//! Defines the preset cells.

use clap::ValueEnum;

use super::cell::{Sender, Way};
use super::systems::Name;

/// Chosen sets of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Two cells, to see whether all of it works: below a minute
    Smoke,
    /// What the table of goals needs: some 13 minutes here, and as long in a virtual machine (--rtt 20)
    Goals,
    /// Everything: hours
    Full,
}

impl Preset {
    /// Returns the blocks of the preset.
    pub(super) fn blocks(self) -> &'static [Block<'static>] {
        match self {
            Self::Smoke => SMOKE,
            Self::Goals => GOALS,
            Self::Full => FULL,
        }
    }
}

/// A block stands for every combination of its values.
pub(super) struct Block<'a> {
    pub(super) ways: &'a [Way],
    pub(super) senders: &'a [Sender],
    pub(super) flows: &'a [u32],
    /// The limits, in bytes per second.
    pub(super) rates: &'a [u64],
    pub(super) rtts: &'a [u32],
    pub(super) losses: &'a [u32],
    pub(super) systems: &'a [Name],
}

/// The defaults of a cell.
pub(super) const CELL: Block<'static> = Block {
    ways: &[Way::Up],
    senders: &[Sender::Cubic],
    flows: &[1],
    rates: &[1_250_000],
    rtts: &[0],
    losses: &[0],
    systems: &[Name::Ours],
};

/// The defaults of a download with a long round trip.
const FAR_DOWN: Block<'static> = Block {
    ways: &[Way::Down],
    rtts: &[20],
    systems: &[Name::Ours, Name::OursQueue, Name::Police, Name::Htb],
    ..CELL
};

const BOTH: &[Way] = &[Way::Up, Way::Down];
const TCP: &[Sender] = &[Sender::Cubic, Sender::Bbr];
const BBR: &[Sender] = &[Sender::Bbr];
const UDP: &[Sender] = &[Sender::Udp];

const SMOKE: &[Block<'_>] =
    &[Block { ways: BOTH, systems: &[Name::Ours, Name::Htb, Name::Police], ..CELL }];

/// The cells that the goals and the docs need. Round trips of 20 ms come only with rates that an emulated processor can
/// do. A host without netem measures those in a virtual machine (`--vm 6.12 --rtt 20`).
const GOALS: &[Block<'_>] = &[
    Block {
        senders: TCP,
        flows: &[1, 4, 16],
        rates: &[1_250_000, 12_500_000, 125_000_000],
        ..CELL
    },
    // These take three times as long.
    Block { senders: TCP, flows: &[1, 4], rates: &[125_000], ..CELL },
    Block { ways: BOTH, senders: UDP, rates: &[1_250_000, 12_500_000], ..CELL },
    // These compare the peers side by side.
    Block {
        flows: &[4],
        rates: &[12_500_000],
        systems: &[
            Name::Ours,
            Name::OursFq,
            Name::Bucket20,
            Name::Bucket250,
            Name::Htb,
            Name::Tbf,
            Name::Police,
            Name::Nft,
            Name::None,
        ],
        ..CELL
    },
    Block { systems: &[Name::Ours, Name::Htb, Name::Tbf], ..CELL },
    Block {
        ways: BOTH,
        flows: &[4],
        rates: &[1_000_000_000],
        systems: &[Name::Ours, Name::Htb],
        ..CELL
    },
    Block {
        ways: &[Way::Down],
        rates: &[12_500_000],
        systems: &[Name::Ours, Name::Bucket250, Name::Htb, Name::Tbf, Name::Nft],
        ..CELL
    },
    // Windows alone do not hold these 16 flows to the limit.
    Block { flows: &[1, 16], ..FAR_DOWN },
    Block { senders: BBR, flows: &[4], ..FAR_DOWN },
    Block { flows: &[4], rates: &[12_500_000], ..FAR_DOWN },
    Block { senders: UDP, systems: &[Name::Ours, Name::OursQueue], ..FAR_DOWN },
    Block { senders: UDP, rtts: &[20], systems: &[Name::Ours, Name::OursFq], ..CELL },
    Block { flows: &[4], rtts: &[20], systems: &[Name::Ours, Name::OursFq, Name::Tbf], ..CELL },
    // This path loses packets itself.
    Block { flows: &[4], losses: &[1], ..FAR_DOWN },
    Block { flows: &[4], rtts: &[20], losses: &[1], systems: &[Name::Ours, Name::Htb], ..CELL },
];

const FULL: &[Block<'_>] = &[Block {
    ways: BOTH,
    senders: &[Sender::Cubic, Sender::Bbr, Sender::Udp],
    flows: &[1, 4, 16],
    rates: &[125_000, 1_250_000, 12_500_000, 125_000_000, 1_000_000_000],
    rtts: &[0, 20],
    losses: &[0, 1],
    systems: Name::ALL,
}];
