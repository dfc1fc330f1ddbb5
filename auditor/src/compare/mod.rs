//! Finds what is new and what is gone between two snapshots. Nothing here asks the host.
//!
//! Two things are the same if these properties are equal, which the kernel never changes:
//! - the id, tag and load time of a program;
//! - the id and type of a link;
//! - the id, name and type of a map;
//! - the path of a pin and the object that it holds;
//! - the cgroup id (not the path), attach type, program and link of an attachment.
//!
//! If the first snapshot may just have missed a thing, the thing is not new. It becomes a gap, and a gap makes the
//! comparison incomplete.

mod item;
mod moment;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use self::item::{DeviceRef, Item, Kind, LinkRef, MapRef, ProgramRef};
pub(crate) use self::moment::Moment;
use self::moment::{Key, Thing};
use crate::facts::{Gap, Look, Snapshot, Subject};
use crate::judge::{Ours, Verdict, gaps_of};

/// The differences between two snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Things that only the second snapshot has, by kind and id.
    pub new: Vec<Item>,
    /// Things that only the first snapshot has.
    pub gone: Vec<Item>,
    /// What could not be compared.
    pub gaps: Vec<Gap>,
}

impl Difference {
    /// Returns the verdict: [`Verdict::Leaks`] if something is new.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.new.len(), self.gaps.len())
    }
}

/// The reason why two snapshots cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// The snapshots are from different boots, so their ids have nothing to do with each other.
    #[error(
        "they are of different boots: the first one of {before}, the second one of {after}; take both during one"
    )]
    Boots {
        /// The host and boot of the first snapshot.
        before: String,
        /// The host and boot of the second snapshot.
        after: String,
    },
    /// The snapshots have different scopes, so one leaves out what the other covers.
    #[error(
        "they are of different scopes, as their options --root and --attach-type say; take both with the same"
    )]
    Scopes,
    /// A snapshot has no inventory, so there is nothing to compare.
    #[error(
        "the {which} one was taken without --all, so it has only programs that `scan` looks for; take both again, with \
         'chadthrottle-audit snapshot --all'"
    )]
    NoInventory {
        /// `first` or `second`.
        which: &'static str,
    },
    /// A snapshot has no look.
    #[error("the {which} one holds no look at the host")]
    Empty {
        /// `first` or `second`.
        which: &'static str,
    },
}

/// Compares two snapshots, limited to programs that the globs name. A link, a map or a pin counts if a program that
/// uses it does. A map also counts by its own name. Taking the snapshots needs root and Linux 5.8. Comparing them
/// needs no rights.
///
/// # Errors
/// The snapshots cannot be compared; [`Incomparable`] says why.
pub fn compare(
    before: &Snapshot,
    after: &Snapshot,
    globs: &[String],
) -> Result<Difference, Incomparable> {
    if before.host.host.boot_id != after.host.host.boot_id {
        let named = |it: &Snapshot| format!("{} ({})", it.host.host.hostname, it.host.host.boot_id);
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
    // A link that somebody was making during the first look is not new. Its attachment looked like a legacy one then.
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

/// Returns the gaps about things that a comparison covers. Holders are not compared, so a hidden process does not
/// matter.
pub fn unseen(look: &Look) -> Vec<Gap> {
    let mut gaps = gaps_of(look);
    gaps.retain(|gap| Kind::ALL.iter().any(|kind| rests_on(*kind).contains(&gap.about)));
    gaps
}

fn last<'a>(snapshot: &'a Snapshot, which: &'static str) -> Result<&'a Look, Incomparable> {
    snapshot.looks.last().ok_or(Incomparable::Empty { which })
}

/// Returns the things of one moment that the other one lacks. Leaves out kinds of thing that the other moment could not
/// see completely.
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

/// Returns the kinds of fact that comparing a kind of thing needs. Programs are always among them, because a program's
/// name decides whose a thing is.
fn rests_on(kind: Kind) -> &'static [Subject] {
    match kind {
        Kind::Attachment => &[Subject::Cgroups, Subject::Programs, Subject::Links],
        Kind::Link => &[Subject::Links, Subject::Programs],
        Kind::Pin => &[Subject::Pins, Subject::Links, Subject::Programs],
        Kind::Program | Kind::Map => &[Subject::Programs],
    }
}
