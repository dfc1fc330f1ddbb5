//! Settling: removing what dead owners left behind, as the ledger records it.

use std::io;
use std::path::{Path, PathBuf};

use bpf::CgroupBpf;
use bpf::ledger::{Entry, RecordedAttachment, Stage};
use kernel::CgroupId;
use kernel::link::LinkInfo;
use kernel::list::Scope;

use crate::attachment::detach_legacy;
use crate::error::{Action, Error, Result};
use crate::ledger::{LedgerDir, Locked, fail};
pub use crate::settlement::Settlement;

/// Tells whether the throttle of an entry, written in this boot, should be in force.
///
/// `owner_alive` is `None` when that cannot be told from here, which counts as alive. `cgroup_exists` means that the
/// cgroup is still the entry's. Without its cgroup a throttle waits for a new one, if it can be armed there.
pub fn is_meant(entry: &Entry, owner_alive: Option<bool>, cgroup_exists: bool) -> bool {
    let persists = entry.is_kept() && (cgroup_exists || entry.can_be_armed());
    owner_alive != Some(false) || persists
}

/// Settles the ledger and the queues of this network namespace. Removes what dead owners left, and touches nothing
/// else.
///
/// # Errors
/// When the ledger cannot be read or locked. The [`Settlement`] has the errors of single entries.
pub fn settle<B: CgroupBpf>(kernel: &B, ledger: &LedgerDir, boot_id: &str) -> Result<Settlement> {
    let mut settlement = Settlement { queues: kernel.sweep_queues(), ..Settlement::default() };
    if !ledger.exists() {
        return Ok(settlement);
    }
    let lock = ledger.lock()?;
    ledger.sweep(&lock)?;
    let found = ledger.read()?;
    settlement.unreadable = found.unreadable;
    for (path, entry) in found.entries {
        match settle_entry(kernel, ledger, &lock, &path, &entry, boot_id) {
            Ok(Fate::Removed) => settlement.removed.push((entry.throttle, entry.cgroup_path)),
            Ok(Fate::Forgotten) => settlement.forgotten.push((entry.throttle, entry.cgroup_path)),
            Ok(Fate::Kept) => {}
            Err(error) => settlement.failed.push((entry.throttle, error)),
        }
    }
    Ok(settlement)
}

/// The fate of one entry.
enum Fate {
    Kept,
    /// Nothing of the throttle was left to remove.
    Forgotten,
    Removed,
}

fn settle_entry<B: CgroupBpf>(
    kernel: &B,
    ledger: &LedgerDir,
    lock: &Locked,
    path: &Path,
    entry: &Entry,
    boot_id: &str,
) -> Result<Fate> {
    if entry.owner.boot_id != boot_id {
        // An entry of another boot stands for nothing.
        return ledger.remove(path).map(|()| Fate::Forgotten);
    }
    let cgroup_exists =
        open_same_cgroup(kernel, entry)?.same().is_some() || is_linked_still(kernel, entry)?;
    let owner_alive = kernel.is_alive(&entry.owner.process())?;
    // A caller without the capability to look at programs leaves the entry to others.
    let may_stand = owner_alive.is_some() || may_have_something(kernel, entry).unwrap_or(true);
    if is_meant(entry, owner_alive, cgroup_exists) && may_stand {
        forget_former(kernel, ledger, lock, entry)?;
        return Ok(Fate::Kept);
    }
    let removed = remove_entry(kernel, ledger, lock, path, entry)?;
    Ok(if removed { Fate::Removed } else { Fate::Forgotten })
}

/// Tells whether an entry's throttle may still exist, whoever owns it.
///
/// Unless the throttle is kept, its owner loads the programs before it writes the entry. If none of the programs
/// exists, the owner has ended.
fn may_have_something<B: CgroupBpf>(kernel: &B, entry: &Entry) -> Result<bool> {
    if entry.is_kept() || entry.attachments.is_empty() {
        return Ok(true);
    }
    for recorded in &entry.attachments {
        if matches!(find_program(kernel, recorded)?, Found::Ours(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A throttle removed by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedRecord {
    /// The throttle's ledger entry.
    pub entry: Entry,
    /// The entry was unfinished or not pinned, and nothing but the entry was left to remove.
    pub was_only_record: bool,
}

/// Removes a pinned throttle by its name, whoever added it. For other throttles, removes only the entry, and only if no
/// program of it exists or its owner is dead.
///
/// # Errors
/// When no throttle has this name, or when it is not pinned and its owner may be alive. When something cannot be
/// removed; its entry then stays, and the caller can try again.
pub fn remove_recorded<B: CgroupBpf>(
    kernel: &B,
    ledger: &LedgerDir,
    name: &str,
    boot_id: &str,
) -> Result<RemovedRecord> {
    let none = || Error::NoSuchRecord(name.to_owned());
    if !ledger.exists() {
        return Err(none());
    }
    let lock = ledger.lock()?;
    let (path, entry) = find_recorded(ledger, name, boot_id)?.ok_or_else(none)?;
    // A legacy throttle, or one that is half made or half removed, belongs to its owner while the owner lives.
    let owner_alive =
        if entry.is_kept() { Some(false) } else { kernel.is_alive(&entry.owner.process())? };
    if owner_alive != Some(false) && may_have_something(kernel, &entry)? {
        return Err(in_the_hands_of_its_owner(entry, owner_alive)?);
    }
    // A pin is out of sight. Removing the rest would leave half of the throttle, with an entry that calls it unwanted.
    for recorded in &entry.attachments {
        if is_attached_out_of_sight(kernel, recorded)? {
            return Err(pin_out_of_sight(&entry, recorded));
        }
    }
    // The mark comes first. If this process dies half way, the next start finishes the removal.
    ledger.write(&lock, &Entry { stage: Stage::Removing, ..entry.clone() })?;
    let was_left = remove_entry(kernel, ledger, &lock, &path, &entry)?;
    Ok(RemovedRecord { was_only_record: !was_left && !entry.is_kept(), entry })
}

/// Says why a throttle is left to its owner. A pid from another pid namespace means nothing here.
fn in_the_hands_of_its_owner(entry: Entry, alive: Option<bool>) -> Result<Error> {
    let (name, pid) = (entry.throttle, entry.owner.pid);
    if alive.is_some() {
        return Ok(Error::OwnerLives { name, pid });
    }
    let elsewhere = entry.owner.pid_namespace != kernel::process::pid_namespace()?;
    Ok(Error::OwnerUnknown { name, pid, elsewhere })
}

/// Finds the entry of a throttle of this boot. An unreadable entry is an error.
///
/// The caller must hold the lock to change the entry.
pub(crate) fn find_recorded(
    ledger: &LedgerDir,
    name: &str,
    boot_id: &str,
) -> Result<Option<(PathBuf, Entry)>> {
    let found = ledger.read()?;
    let is_it = |entry: &Entry| entry.throttle == name && entry.owner.boot_id == boot_id;
    if let Some(entry) = found.entries.into_iter().find(|(_, entry)| is_it(entry)) {
        return Ok(Some(entry));
    }
    let its = ledger.path(name);
    match found.unreadable.into_iter().find(|(path, _)| *path == its) {
        Some((path, why)) => Err(fail(Action::Read, &path, io::Error::other(why))),
        None => Ok(None),
    }
}

/// Removes a throttle's former attachments, and returns the updated entry. Attachments that sockets of a removed cgroup
/// keep stay until the last of these sockets is closed.
pub(crate) fn forget_former<B: CgroupBpf>(
    kernel: &B,
    ledger: &LedgerDir,
    lock: &Locked,
    entry: &Entry,
) -> Result<Entry> {
    let mut kept = entry.clone();
    kept.attachments.clear();
    for recorded in &entry.attachments {
        if is_needed(kernel, entry, recorded)? {
            kept.attachments.push(recorded.clone());
        } else if let Some(pin) = &recorded.pin {
            remove_pinned(kernel, false, recorded, pin)?;
        }
    }
    if kept != *entry {
        ledger.write(lock, &kept)?;
    }
    Ok(kept)
}

fn is_needed<B: CgroupBpf>(
    kernel: &B,
    entry: &Entry,
    recorded: &RecordedAttachment,
) -> Result<bool> {
    match recorded.former_cgroup {
        None => Ok(true),
        // Removal is left to a process that sees the pin.
        Some(_) if is_attached_out_of_sight(kernel, recorded)? => Ok(true),
        // The throttle was armed again on the same cgroup after somebody had detached a part of it.
        Some(cgroup) if cgroup == entry.cgroup_id => Ok(entry.waiting),
        Some(_) => lingers(kernel, recorded),
    }
}

/// Tells whether a pinned link is attached to a cgroup. The cgroup may be removed, if its sockets are still open.
pub(crate) fn lingers<B: CgroupBpf>(kernel: &B, recorded: &RecordedAttachment) -> Result<bool> {
    let Some(pin) = &recorded.pin else { return Ok(false) };
    match kernel.link_open_pinned(pin).and_then(|link| kernel.link_info(&link)) {
        Ok(info) => Ok(info.program_id == recorded.program_id && info.cgroup_id.is_some()),
        Err(error) if error.is_vanished() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Detaches what is left of an entry's throttle, then removes the entry. Returns whether anything was left.
///
/// The caller holds the lock, because two processes settling at once would report each other's successes as failures.
fn remove_entry<B: CgroupBpf>(
    kernel: &B,
    ledger: &LedgerDir,
    _lock: &Locked,
    path: &Path,
    entry: &Entry,
) -> Result<bool> {
    let cgroup = open_same_cgroup(kernel, entry)?;
    let (mut was_left, mut errors) = (false, Vec::new());
    for recorded in &entry.attachments {
        match remove_attachment(kernel, entry, &cgroup, recorded) {
            Ok(removed) => was_left |= removed,
            Err(error) => errors.push(error),
        }
    }
    Error::collect(errors)?;
    ledger.remove(path).map(|()| was_left)
}

/// Finds the link of a pin in a bpffs that is not mounted here, so that even the pin's folder is missing. Returns
/// `None` if the folder is here, or if the link is gone.
pub(crate) fn link_out_of_sight<B: CgroupBpf>(
    kernel: &B,
    recorded: &RecordedAttachment,
) -> Result<Option<LinkInfo>> {
    let folder = recorded.pin.as_deref().and_then(Path::parent);
    if folder.is_none_or(|folder| kernel.pin_exists(folder)) {
        return Ok(None);
    }
    recorded_link(kernel, recorded)
}

pub(crate) fn is_attached_out_of_sight<B: CgroupBpf>(
    kernel: &B,
    recorded: &RecordedAttachment,
) -> Result<bool> {
    Ok(link_out_of_sight(kernel, recorded)?.is_some_and(|link| link.cgroup_id.is_some()))
}

pub(crate) fn pin_out_of_sight(entry: &Entry, recorded: &RecordedAttachment) -> Error {
    Error::PinOutOfSight {
        name: entry.throttle.clone(),
        program: recorded.program_id,
        pin: recorded.pin.clone().unwrap_or_default(),
    }
}

/// The cgroup at an entry's path. In another namespace than the owner's it may be any cgroup, so the id decides.
enum AtPath<C> {
    Same(C),
    Another(CgroupId),
    Nothing,
}

impl<C> AtPath<C> {
    fn same(&self) -> Option<&C> {
        match self {
            Self::Same(cgroup) => Some(cgroup),
            Self::Another(_) | Self::Nothing => None,
        }
    }
}

fn open_same_cgroup<B: CgroupBpf>(kernel: &B, entry: &Entry) -> Result<AtPath<B::Cgroup>> {
    match kernel.open_cgroup(&entry.cgroup_path) {
        Ok(cgroup) if kernel.cgroup_id(&cgroup) == entry.cgroup_id => Ok(AtPath::Same(cgroup)),
        Ok(another) => Ok(AtPath::Another(kernel.cgroup_id(&another))),
        Err(error) if error.is_vanished() => Ok(AtPath::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether a pinned link of the entry is attached to the entry's cgroup. If so, the cgroup exists, wherever it is
/// mounted.
fn is_linked_still<B: CgroupBpf>(kernel: &B, entry: &Entry) -> Result<bool> {
    for pin in entry.attachments.iter().filter_map(|recorded| recorded.pin.as_ref()) {
        match kernel.link_open_pinned(pin).and_then(|link| kernel.link_info(&link)) {
            Ok(info) if info.cgroup_id == Some(entry.cgroup_id) => return Ok(true),
            Err(error) if !error.is_vanished() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(false)
}

/// The program that now has a recorded program's id.
enum Found<P> {
    Ours(P),
    /// The kernel has given the id to another program, so ours is gone.
    Anothers,
    None,
}

fn find_program<B: CgroupBpf>(
    kernel: &B,
    recorded: &RecordedAttachment,
) -> Result<Found<B::Program>> {
    match kernel.open_program(recorded.program_id) {
        Ok(program) if kernel.identity(&program) == recorded.identity() => Ok(Found::Ours(program)),
        Ok(_) => Ok(Found::Anothers),
        Err(error) if error.is_vanished() => Ok(Found::None),
        Err(error) => Err(error.into()),
    }
}

/// Removes one attachment of an entry. Returns whether this call detached or unpinned anything.
///
/// `Ok` means that the program is gone, a query showed it off the cgroup, or its link is defunct.
fn remove_attachment<B: CgroupBpf>(
    kernel: &B,
    entry: &Entry,
    at_path: &AtPath<B::Cgroup>,
    recorded: &RecordedAttachment,
) -> Result<bool> {
    let (program, id_is_anothers) = match find_program(kernel, recorded)? {
        Found::Ours(program) => (Some(program), false),
        Found::Anothers => (None, true),
        Found::None => (None, false),
    };
    let unpinned = match &recorded.pin {
        Some(pin) => remove_pinned(kernel, id_is_anothers, recorded, pin)?,
        None => false,
    };
    if id_is_anothers {
        return Ok(false);
    }
    let Some(cgroup) = at_path.same() else {
        // A missing cgroup proves nothing about the program. Only a missing link does.
        let (id, cgroup) = (recorded.program_id, entry.cgroup_path.clone());
        let is_gone = program.is_none() || unpinned || is_link_gone(kernel, recorded)?;
        let another = match at_path {
            AtPath::Another(id) => Some(*id),
            _ => None,
        };
        return if is_gone {
            Ok(unpinned)
        } else {
            Err(Error::OutOfSight { program: id, cgroup, another })
        };
    };
    let detached = match (&program, &recorded.pin) {
        (Some(program), None) => {
            detach_legacy(kernel, program, recorded.program_id, cgroup, recorded.attach_type)?
        }
        _ => false,
    };
    match kernel.query(cgroup, recorded.attach_type, Scope::Local) {
        Ok(list)
            if list.count(recorded.program_id) > 0
                && is_attached_out_of_sight(kernel, recorded)? =>
        {
            Err(pin_out_of_sight(entry, recorded))
        }
        Ok(list) if list.count(recorded.program_id) > 0 => Err(Error::StillAttached {
            program: recorded.program_id,
            cgroup: format!("cgroup {}", kernel.cgroup_id(cgroup)),
            attach_type: recorded.attach_type,
        }),
        Err(error) if !error.is_vanished() => Err(error.into()),
        _ => Ok(unpinned || detached),
    }
}

/// Detaches the link pinned there and removes the pin, if they are the recorded ones. Returns whether it did.
pub(crate) fn remove_pinned<B: CgroupBpf>(
    kernel: &B,
    id_is_anothers: bool,
    recorded: &RecordedAttachment,
    pin: &Path,
) -> Result<bool> {
    let link = match kernel.link_open_pinned(pin) {
        Ok(link) => link,
        Err(error) if error.is_vanished() => {
            // The pin's folder may still be there.
            kernel.unpin(pin)?;
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    if id_is_anothers || kernel.link_info(&link)?.program_id != recorded.program_id {
        // The pin has our name but holds somebody else's link.
        return Ok(false);
    }
    kernel.link_detach(&link)?;
    kernel.unpin(pin)?;
    Ok(kernel.link_info(&link)?.cgroup_id.is_none())
}

/// Tells whether the recorded link is gone or defunct. `false` without a recorded link, because there may be one.
fn is_link_gone<B: CgroupBpf>(kernel: &B, recorded: &RecordedAttachment) -> Result<bool> {
    if recorded.link_id.is_none() {
        return Ok(false);
    }
    Ok(recorded_link(kernel, recorded)?.is_none_or(|link| link.cgroup_id.is_none()))
}

/// Reads the recorded link. `None` when the link is gone or none was recorded.
fn recorded_link<B: CgroupBpf>(
    kernel: &B,
    recorded: &RecordedAttachment,
) -> Result<Option<LinkInfo>> {
    let Some(id) = recorded.link_id else { return Ok(None) };
    match kernel.link_open(id).and_then(|link| kernel.link_info(&link)) {
        Ok(info) => Ok(Some(info).filter(|info| info.program_id == recorded.program_id)),
        Err(error) if error.is_vanished() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
