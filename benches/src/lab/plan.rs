//! Selects the cells and systems to measure, and their order.

use bpf::limits::Rate;

use super::cell::{Cell, Sender, Way};
use super::presets::{Block, CELL, Preset};
use super::systems::Name;

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

/// A cell and the systems to measure in it, side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The cell.
    pub cell: Cell,
    /// The systems. Their order rotates between runs.
    pub systems: Vec<Name>,
}

/// Returns what to measure, sorted, each cell once. With a preset, the choice filters its cells. Without one, the
/// choice is expanded to every combination, and defaults fill what it does not name.
///
/// # Errors
/// Fails if nothing is left.
pub fn entries(preset: Option<Preset>, choice: &Choice) -> Result<Vec<Entry>, NothingLeft> {
    let mut entries = Vec::new();
    if let Some(preset) = preset {
        for block in preset.blocks() {
            expand(block, &mut entries);
        }
        keep(&mut entries, choice);
    } else {
        let rates: Vec<_> = choice.rates.iter().map(|rate| rate.bytes_per_second()).collect();
        let block = Block {
            ways: or(&choice.ways, &[Way::Up, Way::Down]),
            senders: or(&choice.senders, CELL.senders),
            flows: or(&choice.flows, CELL.flows),
            rates: or(&rates, CELL.rates),
            rtts: or(&choice.rtts, CELL.rtts),
            losses: or(&choice.losses, CELL.losses),
            systems: or(&choice.systems, Name::ALL),
        };
        expand(&block, &mut entries);
    }
    entries.sort_by_key(|entry| entry.cell);
    if entries.is_empty() { Err(NothingLeft) } else { Ok(entries) }
}

/// The choice excludes every cell of the preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the preset has nothing of what was chosen; without --preset, every combination of the choice is measured"
)]
pub struct NothingLeft;

/// Returns the systems in the order of a run, counted from 0. Each system comes first once, so no system always profits
/// from caches that the one before has filled.
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

/// Adds every combination of a block.
fn expand(block: &Block<'_>, entries: &mut Vec<Entry>) {
    for &way in block.ways {
        for &sender in block.senders {
            for &rtt_ms in block.rtts {
                for &loss_percent in block.losses {
                    for rate in block.rates.iter().filter_map(|&rate| Rate::try_from(rate).ok()) {
                        for &flows in block.flows {
                            let cell = Cell { way, sender, rtt_ms, loss_percent, rate, flows };
                            add(entries, cell, block.systems);
                        }
                    }
                }
            }
        }
    }
}

/// Adds a cell. If several blocks have it, the lab measures it once with the systems of all.
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
