//! What a world answers and shows, in numbers that mean the same on every world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Write};

use kernel::list::Scope;
use nix::errno::Errno;

use super::call::{Flags, On, PATHS, Place};

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was refused.
    Refused(Errno),
    /// So many were done, then one was refused, if any was.
    Counted(usize, Option<Errno>),
    /// The rate of the state that was found, if any.
    Rate(Option<u64>),
    /// An operand named nothing, so nothing was called.
    Nothing,
}

/// A list.
#[derive(Clone, PartialEq, Eq)]
pub struct ListView {
    /// Each program by its number in the order of loading, with its flags, where the kernel tells them.
    /// `None`: not one of this run.
    pub programs: Vec<(Option<usize>, Option<Flags>)>,
    /// Of the list.
    pub flags: Flags,
    /// Of the list.
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
    /// Its number in the order of making.
    pub link: Option<usize>,
    /// Its program, by its number in the order of loading.
    pub program: Option<usize>,
    /// Its cgroup, by its number in the order of making; `None`: defunct.
    pub cgroup: Option<Option<usize>>,
    /// Where on it.
    pub on: Option<On>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Each list, or why it cannot be asked for.
    pub lists: Vec<(Which, Result<ListView, Errno>)>,
    /// The open links.
    pub links: BTreeMap<usize, Result<LinkView, Errno>>,
    /// The programs that are still there.
    pub programs: BTreeSet<usize>,
    /// The pins, and the folder for them (the last one).
    pub pins: Vec<bool>,
    /// Rates of states that are there: of which program, for which cgroup (in the order of making) and
    /// attach type.
    pub rates: BTreeMap<(usize, usize, On), u64>,
}

/// Which list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// The path's number, or that of a cgroup that was kept.
    pub place: Place,
    /// The attach type.
    pub on: On,
    /// Its own, or what runs.
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
    /// What is not as in the other one of what calls change while they are made, a line for each thing: what,
    /// here, there.
    pub fn differences_in_lists(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        // Which lists there are depends on the calls alone, which are the same.
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

    /// The same of what also goes by itself, some time after the last that held it.
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
