//! Describes a world's answers and objects with numbers that mean the same on every world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Write};

use kernel::list::Scope;
use nix::errno::Errno;

use super::call::{Flags, On, PATHS, Place};

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The call succeeded.
    Done,
    /// The call failed.
    Refused(Errno),
    /// The call succeeded this many times, and then failed with this errno, if at all.
    Counted(usize, Option<Errno>),
    /// The rate of the state, if there is a state.
    Rate(Option<u64>),
    /// An operand named nothing, so the call was not made.
    Nothing,
}

/// A list, as the kernel reports it.
#[derive(Clone, PartialEq, Eq)]
pub struct ListView {
    /// The programs, by their number in the order of loading, with their flags if the kernel reports them. `None`
    /// stands for a program that is not of this run.
    pub programs: Vec<(Option<usize>, Option<Flags>)>,
    /// The flags of the list.
    pub flags: Flags,
    /// The revision of the list.
    pub revision: Option<u64>,
}

impl Debug for ListView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (at, (program, flags)) in self.programs.iter().enumerate() {
            let between = if at == 0 { "" } else { " " };
            match program {
                Some(program) => write!(f, "{between}p{program}")?,
                None => write!(f, "{between}foreign")?,
            }
            if let Some(flags) = flags.filter(|it| *it != self.flags) {
                write!(f, "({flags:?})")?;
            }
        }
        write!(f, "] {:?}", self.flags)?;
        self.revision.map_or(Ok(()), |revision| write!(f, " revision {revision}"))
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The link's number, in the order of creation.
    pub link: Option<usize>,
    /// The program's number, in the order of loading.
    pub program: Option<usize>,
    /// The cgroup's number, in the order of creation. The inner `None` stands for a defunct link.
    pub cgroup: Option<Option<usize>>,
    /// The attach type.
    pub on: Option<On>,
}

/// Everything that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The lists, each with the reason if it cannot be queried.
    pub lists: Vec<(Which, Result<ListView, Errno>)>,
    /// The open links.
    pub links: BTreeMap<usize, Result<LinkView, Errno>>,
    /// The programs that are still there.
    pub programs: BTreeSet<usize>,
    /// Whether each pin exists. The last entry is the folder for pins.
    pub pins: Vec<bool>,
    /// The rates of existing states, by program, cgroup (in the order of creation) and attach type.
    pub rates: BTreeMap<(usize, usize, On), u64>,
}

/// Identifies a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// The number of the path, or of a kept cgroup.
    pub place: Place,
    /// The attach type.
    pub on: On,
    /// The cgroup's own list, or the effective one.
    pub scope: Scope,
}

impl Debug for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Path(path) => f.write_str(PATHS[usize::from(path)])?,
            Place::Kept(kept) => write!(f, "kept {kept}")?,
        }
        write!(f, " {:?} {:?}", self.on, self.scope)
    }
}

impl View {
    /// Returns the differences in what calls change immediately. Each line names the object, its state here, and its
    /// state in the other view.
    pub fn differences_in_lists(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        // Both views have the same lists, because the calls are the same.
        for ((which, here), (_, there)) in self.lists.iter().zip(&other.lists) {
            if here != there {
                found.push(format!("{which:?}: {here:?} / {there:?}"));
            }
        }
        if self.pins != other.pins {
            found.push(format!("pins: {:?} / {:?}", self.pins, other.pins));
        }
        found
    }

    /// Returns the differences in what may also disappear later, some time after its last holder.
    pub fn differences_in_objects(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        both(&self.links, &other.links, &mut found);
        both(&self.rates, &other.rates, &mut found);
        if self.programs != other.programs {
            found.push(format!("programs: {:?} / {:?}", self.programs, other.programs));
        }
        found
    }
}

fn both<K: Ord + Debug, V: PartialEq + Debug>(
    here: &BTreeMap<K, V>,
    there: &BTreeMap<K, V>,
    found: &mut Vec<String>,
) {
    let keys: BTreeSet<&K> = here.keys().chain(there.keys()).collect();
    for key in keys {
        let (a, b) = (here.get(key), there.get(key));
        if a != b {
            found.push(format!("{key:?}: {} / {}", shown(a), shown(b)));
        }
    }
}

fn shown(value: Option<&impl Debug>) -> String {
    value.map_or_else(|| "not there".to_owned(), |value| format!("{value:?}"))
}
