//! The programs of one cgroup and attach type, and the rules for attaching and detaching.

use kernel::list::{AttachFlags, MAX_PROGRAMS};
use kernel::{LinkId, ProgramId};
use nix::errno::Errno;

/// What stands in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Hold {
    /// A program that was attached the legacy way.
    Program(ProgramId),
    /// A link, with whatever program it has at the time.
    Link(LinkId),
}

/// A place in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// What stands there.
    pub hold: Hold,
    /// It was attached with `BPF_F_PREORDER`.
    pub preorder: bool,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    /// NONE (empty), OVERRIDE or MULTI; empty too while there is nothing in it.
    pub flags: AttachFlags,
    /// In the order of attaching.
    pub entries: Vec<Entry>,
    /// Counts up with every change, from 1.
    pub revision: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { flags: AttachFlags::empty(), entries: Vec::new(), revision: 1 }
    }
}

/// The kinds of list.
const KINDS: AttachFlags = AttachFlags::OVERRIDE.union(AttachFlags::MULTI);

/// `BPF_F_BEFORE`: insert at the beginning (there is no naming a neighbour here).
pub(crate) const BEFORE: AttachFlags = AttachFlags::from_bits_retain(1 << 3);
/// `BPF_F_AFTER`: insert at the end, as without it.
pub(crate) const AFTER: AttachFlags = AttachFlags::from_bits_retain(1 << 4);
/// `BPF_F_ID`: the neighbour is named by its id.
pub(crate) const ID: AttachFlags = AttachFlags::from_bits_retain(1 << 5);
/// `BPF_F_LINK`: the neighbour is a link.
pub(crate) const LINK: AttachFlags = AttachFlags::from_bits_retain(1 << 13);
/// All that say where to insert (6.17).
pub(crate) const INSERTION: AttachFlags = BEFORE.union(AFTER).union(ID).union(LINK);

/// What is wrong with the flags themselves, whatever the list.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn check_flags(flags: AttachFlags) -> nix::Result<()> {
    let both_kinds = flags.contains(KINDS);
    let replaces = flags.contains(AttachFlags::REPLACE);
    let replace_alone = replaces && !flags.contains(AttachFlags::MULTI);
    let replace_and_insert = replaces && flags.intersects(BEFORE.union(AFTER));
    if both_kinds || replace_alone || replace_and_insert {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Where a new entry goes.
fn insertion_point(flags: AttachFlags, length: usize) -> nix::Result<usize> {
    let (before, after) = (flags.contains(BEFORE), flags.contains(AFTER));
    if flags.intersects(ID.union(LINK)) {
        if before == after || flags.contains(LINK) {
            return Err(Errno::EINVAL);
        }
        // No neighbour's id is ever given: it is 0, which no program has.
        return Err(Errno::ENOENT);
    }
    if before && after && length > 0 {
        return Err(Errno::EINVAL);
    }
    Ok(if before { 0 } else { length })
}

impl List {
    /// It runs beside its ancestors' and descendants' lists, not in place of them.
    pub(crate) fn is_multi(&self) -> bool {
        self.flags.contains(AttachFlags::MULTI)
    }

    /// Attaches. Returns the program whose place was taken, if any.
    ///
    /// # Errors
    /// `EPERM`: the list is of another kind. `E2BIG`: it is full. `EINVAL`: that is attached already.
    /// `ENOENT`: what is to be replaced is not there.
    ///
    /// The flags have passed [`check_flags`].
    pub(crate) fn attach(
        &mut self,
        hold: Hold,
        flags: AttachFlags,
        replace: Option<ProgramId>,
    ) -> nix::Result<()> {
        let kind = flags & KINDS;
        if !self.entries.is_empty() && self.flags != kind {
            return Err(Errno::EPERM);
        }
        // Before it is asked whether a place would be taken over: a full list cannot be changed so.
        if self.entries.len() >= MAX_PROGRAMS {
            return Err(Errno::E2BIG);
        }
        let taken_over = self.taken_over(hold, kind, replace)?;
        let entry = Entry { hold, preorder: flags.contains(AttachFlags::PREORDER) };
        match taken_over {
            Some(at) => self.entries[at] = entry,
            None => self.entries.insert(insertion_point(flags, self.entries.len())?, entry),
        }
        self.flags = kind;
        self.revision += 1;
        Ok(())
    }

    /// The place of another program that an attachment takes.
    fn taken_over(
        &self,
        hold: Hold,
        kind: AttachFlags,
        replace: Option<ProgramId>,
    ) -> nix::Result<Option<usize>> {
        if !kind.contains(AttachFlags::MULTI) {
            return Ok((!self.entries.is_empty()).then_some(0));
        }
        let replaced = replace.map(Hold::Program);
        if replaced != Some(hold) && self.entries.iter().any(|entry| entry.hold == hold) {
            return Err(Errno::EINVAL);
        }
        match replaced {
            None => Ok(None),
            Some(old) => self.position(old).map(Some).ok_or(Errno::ENOENT),
        }
    }

    fn position(&self, hold: Hold) -> Option<usize> {
        self.entries.iter().position(|entry| entry.hold == hold)
    }

    /// Detaches what is named; where the list is not MULTI, whatever is there.
    ///
    /// # Errors
    /// `EINVAL`: a MULTI list, and nothing is named. `ENOENT`: not there.
    pub(crate) fn detach(&mut self, named: Option<Hold>) -> nix::Result<Entry> {
        let at = if self.is_multi() {
            self.position(named.ok_or(Errno::EINVAL)?)
        } else {
            (!self.entries.is_empty()).then_some(0)
        };
        let entry = self.entries.remove(at.ok_or(Errno::ENOENT)?);
        if self.entries.is_empty() {
            self.flags = AttachFlags::empty();
        }
        self.revision += 1;
        Ok(entry)
    }
}

/// Whether the ancestors' lists, nearest first, let another one begin below them.
pub(crate) fn ancestors_allow<'a>(ancestors: impl IntoIterator<Item = &'a List>) -> bool {
    // Only the nearest that says anything matters: MULTI (which it is only while it holds something), or
    // one program.
    ancestors
        .into_iter()
        .find(|list| !list.entries.is_empty())
        .is_none_or(|list| !list.flags.is_empty())
}

/// What runs, in order, where these are the lists of a cgroup and its ancestors, nearest first. `T` says whose
/// list it is.
pub(crate) fn effective<'a, T: Copy>(
    lists: impl IntoIterator<Item = (T, &'a List)>,
) -> Vec<(T, Entry)> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (whose, list) in lists {
        let nothing_yet = before.is_empty() && after.is_empty();
        if !nothing_yet && !list.is_multi() {
            continue;
        }
        let (preorder, others): (Vec<_>, Vec<_>) =
            list.entries.iter().map(|&entry| (whose, entry)).partition(|(_, entry)| entry.preorder);
        // The furthest ancestor's come first, each list's own in the order of attaching.
        before.splice(0..0, preorder);
        after.extend(others);
    }
    before.append(&mut after);
    before
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
