//! Which cells are measured, with which systems, and in which order.

use bpf::limits::Rate;
use clap::ValueEnum;

use super::cell::{Cell, Sender, Way};
use super::systems::Name;

/// Chosen sets of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Two cells, to see whether all of it works: below a minute
    Smoke,
    /// What the table of goals needs: some 9 minutes here, and as long in a virtual machine (--rtt 20)
    Goals,
    /// Everything: hours
    Full,
}

/// What somebody named on the command line. Empty: nothing was said of it.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct Choice {
    /// Which way the traffic goes
    #[arg(long = "way", value_enum, value_delimiter = ',', value_name = "WAY")]
    pub ways: Vec<Way>,

    /// Who sends
    #[arg(long = "sender", value_enum, value_delimiter = ',', value_name = "SENDER")]
    pub senders: Vec<Sender>,

    /// How many connections at once
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub flows: Vec<u32>,

    /// The limit: bytes a second (500K, 1.5M, 10mbit)
    #[arg(long = "rate", value_delimiter = ',', value_name = "RATE")]
    pub rates: Vec<Rate>,

    /// The round trip that is added, in milliseconds
    #[arg(long = "rtt", value_delimiter = ',', value_name = "MS", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub rtts: Vec<u32>,

    /// What part of the packets is lost on the way, in percent
    #[arg(long = "loss", value_delimiter = ',', value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(..=50))]
    pub losses: Vec<u32>,

    /// What limits
    #[arg(long = "system", value_enum, value_delimiter = ',', value_name = "SYSTEM")]
    pub systems: Vec<Name>,
}

/// A cell, and what is tried in it, side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The cell.
    pub cell: Cell,
    /// In this order, which is rotated between runs.
    pub systems: Vec<Name>,
}

/// Every combination of these.
struct Block<'a> {
    ways: &'a [Way],
    senders: &'a [Sender],
    flows: &'a [u32],
    /// Bytes per second.
    rates: &'a [u64],
    rtts: &'a [u32],
    losses: &'a [u32],
    systems: &'a [Name],
}

const UP: &[Way] = &[Way::Up];
const DOWN: &[Way] = &[Way::Down];
const BOTH: &[Way] = &[Way::Up, Way::Down];
const TCP: &[Sender] = &[Sender::Cubic, Sender::Bbr];
const CUBIC: &[Sender] = &[Sender::Cubic];
const BBR: &[Sender] = &[Sender::Bbr];
const UDP: &[Sender] = &[Sender::Udp];
const NONE: &[u32] = &[0];
const RTT: &[u32] = &[20];

const SMOKE: &[Block<'_>] = &[Block {
    ways: BOTH,
    senders: CUBIC,
    flows: &[1],
    rates: &[1_250_000],
    rtts: NONE,
    losses: NONE,
    systems: &[Name::Ours, Name::Htb, Name::Police],
}];

/// What the goals need, and no more: both halves are to take some nine minutes each. Round trips of 20 ms only at
/// rates that emulated processors can do: where this host has no netem, they are measured in a virtual machine
/// (`--vm 6.12 --rtt 20`).
const GOALS: &[Block<'_>] = &[
    Block {
        ways: UP,
        senders: TCP,
        flows: &[1, 4, 16],
        rates: &[12_500_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours],
    },
    Block {
        ways: UP,
        senders: TCP,
        flows: &[1, 16],
        rates: &[1_250_000, 125_000_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours],
    },
    // These take three times as long.
    Block {
        ways: UP,
        senders: CUBIC,
        flows: &[1],
        rates: &[125_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours],
    },
    Block {
        ways: UP,
        senders: BBR,
        flows: &[4],
        rates: &[125_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours],
    },
    Block {
        ways: BOTH,
        senders: UDP,
        flows: &[1],
        rates: &[1_250_000, 12_500_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours],
    },
    // The peers, side by side.
    Block {
        ways: UP,
        senders: CUBIC,
        flows: &[4],
        rates: &[12_500_000],
        rtts: NONE,
        losses: NONE,
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
    },
    Block {
        ways: UP,
        senders: CUBIC,
        flows: &[1],
        rates: &[1_250_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours, Name::Htb, Name::Tbf],
    },
    Block {
        ways: DOWN,
        senders: CUBIC,
        flows: &[1],
        rates: &[12_500_000],
        rtts: NONE,
        losses: NONE,
        systems: &[Name::Ours, Name::Htb],
    },
    // What windows alone do not hold among them: 16 flows.
    Block {
        ways: DOWN,
        senders: CUBIC,
        flows: &[1, 16],
        rates: &[1_250_000],
        rtts: RTT,
        losses: NONE,
        systems: &[Name::Ours, Name::OursQueue, Name::Police, Name::Htb],
    },
    Block {
        ways: DOWN,
        senders: BBR,
        flows: &[4],
        rates: &[1_250_000],
        rtts: RTT,
        losses: NONE,
        systems: &[Name::Ours, Name::OursQueue, Name::Police, Name::Htb],
    },
    Block {
        ways: DOWN,
        senders: CUBIC,
        flows: &[4],
        rates: &[12_500_000],
        rtts: RTT,
        losses: NONE,
        systems: &[Name::Ours, Name::OursQueue, Name::Police, Name::Htb],
    },
    Block {
        ways: BOTH,
        senders: UDP,
        flows: &[1],
        rates: &[1_250_000],
        rtts: RTT,
        losses: NONE,
        systems: &[Name::Ours],
    },
    Block {
        ways: UP,
        senders: CUBIC,
        flows: &[4],
        rates: &[1_250_000],
        rtts: RTT,
        losses: NONE,
        systems: &[Name::Ours, Name::Tbf],
    },
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

/// What is measured: of a preset, what the choice leaves of it; without one, every combination of the choice,
/// where the usual is taken of what it does not name. Sorted, each cell once.
///
/// # Errors
/// When nothing is left.
pub fn entries(preset: Option<Preset>, choice: &Choice) -> Result<Vec<Entry>, NothingLeft> {
    let mut entries = Vec::new();
    if let Some(preset) = preset {
        let blocks = match preset {
            Preset::Smoke => SMOKE,
            Preset::Goals => GOALS,
            Preset::Full => FULL,
        };
        for block in blocks {
            block.expand(&mut entries);
        }
        keep(&mut entries, choice);
    } else {
        let rates: Vec<_> = choice.rates.iter().map(|rate| rate.bytes_per_second()).collect();
        let block = Block {
            ways: or(&choice.ways, BOTH),
            senders: or(&choice.senders, CUBIC),
            flows: or(&choice.flows, &[1]),
            rates: or(&rates, &[1_250_000]),
            rtts: or(&choice.rtts, NONE),
            losses: or(&choice.losses, NONE),
            systems: or(&choice.systems, Name::ALL),
        };
        block.expand(&mut entries);
    }
    entries.sort_by_key(|entry| entry.cell);
    if entries.is_empty() { Err(NothingLeft) } else { Ok(entries) }
}

/// A choice that the preset has nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the preset has nothing of what was chosen; without --preset, every combination of the choice is measured"
)]
pub struct NothingLeft;

/// The systems in the order of that run (from 0): each comes first once, so that what a run leaves behind, in
/// caches say, is not always the same one's gain.
pub fn rotated(systems: &[Name], run: usize) -> Vec<Name> {
    let mut rotated = systems.to_vec();
    if !rotated.is_empty() {
        rotated.rotate_left(run % systems.len());
    }
    rotated
}

fn or<'a, T>(chosen: &'a [T], usual: &'a [T]) -> &'a [T] {
    if chosen.is_empty() { usual } else { chosen }
}

fn keep(entries: &mut Vec<Entry>, choice: &Choice) {
    fn is<T: PartialEq>(chosen: &[T], value: &T) -> bool {
        chosen.is_empty() || chosen.contains(value)
    }
    entries.retain_mut(|Entry { cell, systems }| {
        systems.retain(|system| is(&choice.systems, system));
        !systems.is_empty()
            && is(&choice.ways, &cell.way)
            && is(&choice.senders, &cell.sender)
            && is(&choice.flows, &cell.flows)
            && is(&choice.rates, &cell.rate)
            && is(&choice.rtts, &cell.rtt_ms)
            && is(&choice.losses, &cell.loss_percent)
    });
}

impl Block<'_> {
    fn expand(&self, entries: &mut Vec<Entry>) {
        for &way in self.ways {
            for &sender in self.senders {
                for &rtt_ms in self.rtts {
                    for &loss_percent in self.losses {
                        for rate in self.rates.iter().filter_map(|&rate| Rate::try_from(rate).ok())
                        {
                            for &flows in self.flows {
                                let cell = Cell { way, sender, rtt_ms, loss_percent, rate, flows };
                                add(entries, cell, self.systems);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A cell that several blocks have is measured once, with the systems of all.
fn add(entries: &mut Vec<Entry>, cell: Cell, systems: &[Name]) {
    let known = entries.iter_mut().find(|entry| entry.cell == cell);
    let Some(entry) = known else {
        return entries.push(Entry { cell, systems: systems.to_vec() });
    };
    for system in systems {
        if !entry.systems.contains(system) {
            entry.systems.push(*system);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u64) -> Rate {
        Rate::from_bytes_per_second(rate).unwrap()
    }

    #[test]
    fn without_a_preset_the_choice_is_multiplied_out() {
        let choice = Choice {
            ways: vec![Way::Down],
            senders: vec![Sender::Bbr, Sender::Cubic],
            flows: vec![16, 1],
            rates: vec![rate(5_000_000)],
            systems: vec![Name::Ours],
            ..Choice::default()
        };
        let entries = entries(None, &choice).unwrap();
        let told: Vec<_> = entries.iter().map(|entry| entry.cell.to_string()).collect();
        assert_eq!(
            told,
            [
                "download cubic 5 MB/s x1, 0 ms",
                "download cubic 5 MB/s x16, 0 ms",
                "download bbr 5 MB/s x1, 0 ms",
                "download bbr 5 MB/s x16, 0 ms",
            ]
        );
        assert!(entries.iter().all(|entry| entry.systems == [Name::Ours]));
    }

    #[test]
    fn of_a_preset_what_was_chosen_is_left() {
        let choice = Choice { ways: vec![Way::Up], systems: vec![Name::Htb], ..Choice::default() };
        let left = entries(Some(Preset::Smoke), &choice).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].cell.way, left[0].systems.as_slice()), (Way::Up, &[Name::Htb][..]));
        let choice = Choice { flows: vec![3], ..Choice::default() };
        assert_eq!(entries(Some(Preset::Full), &choice), Err(NothingLeft));
    }

    #[test]
    fn no_cell_of_a_preset_is_measured_twice() {
        for preset in [Preset::Smoke, Preset::Goals, Preset::Full] {
            let entries = entries(Some(preset), &Choice::default()).unwrap();
            for (at, entry) in entries.iter().enumerate() {
                assert!(entries[..at].iter().all(|other| other.cell != entry.cell), "{entry:?}");
                let mut systems = entry.systems.clone();
                systems.sort();
                systems.dedup();
                assert_eq!(systems.len(), entry.systems.len(), "{entry:?}");
            }
        }
    }

    #[test]
    fn each_system_comes_first_once() {
        let systems = [Name::Ours, Name::Htb, Name::Tbf];
        assert_eq!(rotated(&systems, 0), systems);
        assert_eq!(rotated(&systems, 1), [Name::Htb, Name::Tbf, Name::Ours]);
        assert_eq!(rotated(&systems, 3), systems);
        assert_eq!(rotated(&[], 1), []);
    }
}
