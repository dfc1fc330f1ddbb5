//! What came and what went between two snapshots. Nothing here asks the host anything.
//!
//! Two things are the same if what the kernel never changes about them is: a program by id, tag and load time, a
//! link by id and type, a map by id, name and type, a pin by its path and what it holds, an attachment by its cgroup
//! (the id, not the path), its attach type, its program and its link.
//!
//! What one of the snapshots could not see is not compared: a thing that is in the second one only is not called new
//! if the first one may just have missed it. That is a gap, and a gap makes the comparison incomplete.

mod checks;
mod item;
mod moment;
mod report;
mod text;

use std::collections::BTreeSet;

use crate::classify::{Ours, Verdict, gaps_of};
use crate::snapshot::{Gap, Look, Snapshot, Subject};

pub use self::checks::rule;
pub(crate) use self::checks::{checks, remedy};
pub use self::item::{DeviceRef, Item, Kind, LinkRef, MapRef, ProgramRef};
pub(crate) use self::moment::Moment;
use self::moment::{Key, Thing};
pub use self::report::{DiffReport, SCHEMA_VERSION, Taken, report};
pub(crate) use self::text::{Lines, blind, counted, entry, named};

/// What came and what went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What only the second snapshot has, by kind and id.
    pub new: Vec<Item>,
    /// What only the first one has.
    pub gone: Vec<Item>,
    /// What could not be compared.
    pub gaps: Vec<Gap>,
}

impl Difference {
    /// What it comes to: [`Verdict::Leaks`] where something is new.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.new.len(), self.gaps.len())
    }
}

/// Why two snapshots cannot be compared at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// No id of one boot means anything in another.
    #[error(
        "they are of different boots: the first one of {before}, the second one of {after}; take both during one"
    )]
    Boots {
        /// The first one's host and boot.
        before: String,
        /// The second one's.
        after: String,
    },
    /// What one of them has in full the other one has not.
    #[error(
        "they are of different scopes, as their options --root and --attach-type say; take both with the same"
    )]
    Scopes,
    /// There is nothing to compare by.
    #[error(
        "the {which} one was taken without --all, so it has only programs that `scan` looks for; take both again, with \
         'chadthrottle-audit snapshot --all'"
    )]
    NoInventory {
        /// `first` or `second`.
        which: &'static str,
    },
    /// A snapshot without a look.
    #[error("the {which} one holds no look at the host")]
    Empty {
        /// `first` or `second`.
        which: &'static str,
    },
}

/// Compares two snapshots, as far as programs are concerned that the globs name. A link, a map or a pin belongs to a
/// program that uses it; a map also by its own name. Taking the snapshots needs root and Linux 5.8, comparing them nothing.
///
/// # Errors
/// When they cannot be compared.
pub fn compare(
    before: &Snapshot,
    after: &Snapshot,
    globs: &[String],
) -> Result<Difference, Incomparable> {
    if before.host.boot_id != after.host.boot_id {
        let named = |it: &Snapshot| format!("{} ({})", it.host.hostname, it.host.boot_id);
        return Err(Incomparable::Boots { before: named(before), after: named(after) });
    }
    let scope = |it: &Snapshot| (it.scope.root.clone(), it.scope.attach_types.clone());
    if scope(before) != scope(after) {
        return Err(Incomparable::Scopes);
    }
    let (ours, mut gaps) = Ours::new(globs);
    let (first, second) = (last(before, "first")?, last(after, "second")?);
    let moment = |look, which| Moment::new(look, &ours).ok_or(Incomparable::NoInventory { which });
    let (old, now) = (moment(first, "first")?, moment(second, "second")?);
    let (old_keys, new_keys) = (old.keys(), now.keys());
    let (unseen_before, unseen_after) = (unseen(first), unseen(second));
    // A link that was being made at the first look was there; so was what it attaches, though it looked otherwise.
    let making = &first.coverage.changing_links;
    let is_known = |thing: &Thing<'_>| thing.key.is_of_link(making);
    let new = only(&now, &old_keys, &is_known, &unseen_before, &mut gaps);
    let is_there = |thing: &Thing<'_>| match &thing.key {
        Key::Attachment(cgroup, attach_type, program, None) => making.iter().any(|id| {
            new_keys.contains(&Key::Attachment(*cgroup, *attach_type, *program, Some(*id)))
        }),
        _ => false,
    };
    let gone = only(&old, &new_keys, &is_there, &unseen_after, &mut Vec::new());
    for gap in unseen_before.into_iter().chain(unseen_after) {
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
    Ok(Difference { new, gone, gaps })
}

/// What a look could not see of what is compared. Who holds what is not: that a process is hidden does not matter.
pub(crate) fn unseen(look: &Look) -> Vec<Gap> {
    let mut gaps = gaps_of(look);
    gaps.retain(|gap| Kind::ALL.iter().any(|kind| rests_on(*kind).contains(&gap.about)));
    gaps
}

fn last<'a>(snapshot: &'a Snapshot, which: &'static str) -> Result<&'a Look, Incomparable> {
    snapshot.looks.last().ok_or(Incomparable::Empty { which })
}

/// The things of one moment that the other one does not have, but none of a kind that the other one could not see
/// all of.
fn only(
    here: &Moment<'_>,
    there: &BTreeSet<Key<'_>>,
    is_known: &dyn Fn(&Thing<'_>) -> bool,
    unseen_there: &[Gap],
    gaps: &mut Vec<Gap>,
) -> Vec<Item> {
    let mut items = Vec::new();
    let mut doubted = 0;
    for thing in here.things().filter(|it| !there.contains(&it.key) && !is_known(it)) {
        if unseen_there.iter().any(|gap| rests_on(thing.item.kind()).contains(&gap.about)) {
            doubted += 1;
        } else {
            items.push(thing.item.clone());
        }
    }
    if doubted > 0 {
        gaps.push(Gap {
            about: unseen_there[0].about,
            what: format!("whether {doubted} of what is there now are new"),
            why: "the snapshot before did not see everything, and may have missed them".to_owned(),
        });
    }
    items
}

/// The kinds of fact without which a kind of thing cannot be compared. Whose anything is, its program's name says.
fn rests_on(kind: Kind) -> &'static [Subject] {
    match kind {
        Kind::Attachment => &[Subject::Cgroups, Subject::Programs, Subject::Links],
        Kind::Link => &[Subject::Links, Subject::Programs],
        Kind::Pin => &[Subject::Pins, Subject::Links, Subject::Programs],
        Kind::Program | Kind::Map => &[Subject::Programs],
    }
}
