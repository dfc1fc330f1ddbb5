//! Takes one look at the host.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bpf::{Owner, ledger};
use kernel::cgroup::{Cgroup, below, descendants};
use kernel::error::{Error, Kind};
use kernel::holders::{Holder, Holders, holders, still_holding};
use kernel::objects::Links;
use kernel::pins::{Pins, Sought, pins};
use kernel::{AttachType, CgroupId, LinkId, ProgramId, objects};

use super::attachments::{Attachments, shown};
use super::devices::{device_facts, device_links};
use super::host::{Clock, may_look_into_processes};
use super::inventory::inventory;
use super::method::{Method, iter_is_quicker};
use super::programs::Programs;
use super::surroundings::{hidden_pins, host_elsewhere, ledger as read_ledger};
use super::walk::{Visitor, walk};
use super::{Breadth, gap, milliseconds};
use crate::facts::{
    AttachmentFact, DeviceFact, Gap, HolderFact, Inventory, LinkFact, Look, Object, OwnerFact,
    PinFact, Process, Scope, Subject, Timings,
};
use crate::judge::{Ours, devices_in_scope};

/// The extent of a look. Paths are relative to the cgroup2 mount.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent<'a> {
    /// A cgroup and everything below it.
    Tree(&'a Path),
    /// One cgroup without its descendants, and only the programs attached to it.
    Alone(&'a Path),
    /// An earlier look, and the cgroups to query again. For other cgroups the earlier look still counts.
    Some(&'a Look, &'a HashSet<CgroupId>),
}

/// What all looks of one audit share.
pub(super) struct Eye<'a> {
    /// The cgroup where the extent begins.
    pub(super) cgroup: &'a Cgroup,
    /// Where the cgroup2 hierarchy is mounted.
    pub(super) mount: &'a Path,
    pub(super) extent: Extent<'a>,
    /// The requested attach types that the kernel knows.
    pub(super) types: &'a [AttachType],
    /// Whether the kernel reports each program's own flags.
    pub(super) program_flags: bool,
    pub(super) ours: &'a Ours,
    pub(super) breadth: Breadth,
    /// The method for querying a cgroup and its descendants.
    pub(super) method: Method,
    /// The requested scope; it also says whether to look at our queue devices.
    pub(super) scope: &'a Scope,
    pub(super) clock: &'a Clock,
    /// Gaps known before the first look.
    pub(super) gaps: &'a [Gap],
}

impl Eye<'_> {
    /// Takes one look. This never fails. What cannot be seen becomes a gap.
    pub(super) fn look(&self, timings: &mut Timings) -> Look {
        let taken_at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut programs = Programs::new(self.ours, self.clock);

        let start = Instant::now();
        let mut attachments = Attachments::new(self.types, self.program_flags, &mut programs);
        let mut method = Method::Query.to_string();
        let mut load = Duration::ZERO;
        match self.extent {
            Extent::Tree(path) => {
                method = self.go_over(path, &mut attachments, &mut load).to_string();
            }
            Extent::Alone(path) => {
                attachments.visit(self.cgroup.as_fd(), self.cgroup.id(), path);
            }
            Extent::Some(before, cgroups) => {
                attachments.revisit(self.mount, before, cgroups);
                // Most of the result still comes from the earlier look.
                method.clone_from(&before.method);
            }
        }
        let (mut attachments, mut coverage) = attachments.into_facts();
        timings.walk += milliseconds(start.elapsed().saturating_sub(programs.time + load));
        timings.load += milliseconds(load);
        coverage.gaps.extend_from_slice(self.gaps);

        let start = Instant::now();
        let walk_time = std::mem::take(&mut programs.time);
        if !matches!(self.extent, Extent::Alone(_)) {
            programs.loaded();
        }
        if let Extent::Some(before, cgroups) = self.extent {
            attachments.extend(elsewhere(before, cgroups, |program| programs.is_gone(program)));
            attachments.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
            coverage.continue_from(&before.coverage, self.gaps);
        }
        let is_host_wide = !matches!(self.extent, Extent::Alone(_));
        let devices = if is_host_wide && devices_in_scope(self.scope, self.ours) {
            device_facts(&mut coverage)
        } else {
            Vec::new()
        };
        let gaps = &mut coverage.gaps;
        let changing = &mut coverage.changing_links;
        let links = links(gaps, changing);
        // Every pin or process that keeps an object of ours keeps a program of ours loaded. Without such a program,
        // nobody needs to search thousands of processes.
        let is_searched = self.breadth != Breadth::Ours || programs.has_ours();
        let (programs, more) = programs.into_facts();
        gaps.extend(more);
        let device_links = device_links(&programs, gaps, changing);
        let host = host_elsewhere();
        let ledger = ledger_entries(host.as_deref(), gaps);
        let removed_cgroups = removed_cgroups(&ledger, |id| Cgroup::open_by_id(self.cgroup, id));
        let owned = programs.iter().filter_map(|program| program.owner.as_ref());
        let owned = owned.chain(ledger.iter().map(|entry| &entry.owner));
        let of_devices: Vec<Owner> = devices.iter().filter_map(DeviceFact::owner).collect();
        let owned = owned.chain(&of_devices);
        let owners = owners(owned, gaps);
        let is_everything = self.breadth == Breadth::Everything;
        let inventory = is_everything.then(|| inventory(self.clock, &mut coverage));
        // A link that one list has read is complete, even if another list found it still changing.
        let read: HashSet<LinkId> = links.iter().map(|link| link.id).collect();
        coverage.changing_links.retain(|id| !read.contains(id));
        coverage.changing_links.sort_unstable();
        coverage.changing_links.dedup();
        let gaps = &mut coverage.gaps;
        timings.objects += milliseconds(walk_time + start.elapsed());

        let known: HashSet<Object> = programs
            .iter()
            .map(|program| Object::Program(program.loaded.id))
            .chain(links.iter().map(|link| Object::Link(link.id)))
            .chain(device_links.iter().map(|link| Object::Link(link.id)))
            .chain(inventory.iter().flat_map(Inventory::objects))
            .collect();
        let sought = if inventory.is_some() { Sought::MapsToo } else { Sought::ProgramsAndLinks };
        let (mut pins, mut holders) = (Vec::new(), Vec::new());
        if is_searched {
            pins = timed(&mut timings.pins, || pin_facts(&known, sought, host.as_deref(), gaps));
            holders = timed(&mut timings.holders, || holder_facts(&known, sought, gaps));
        }
        coverage.programs_seen = programs.len() as u64;
        Look {
            taken_at,
            method,
            coverage,
            attachments,
            programs,
            links,
            device_links,
            pins,
            holders,
            owners,
            ledger,
            removed_cgroups,
            devices,
            inventory,
        }
    }
}

impl Eye<'_> {
    /// Queries a cgroup and everything below it. Returns the method used.
    fn go_over(
        &self,
        path: &Path,
        attachments: &mut Attachments<'_, '_>,
        load: &mut Duration,
    ) -> Method {
        let is_worth_it = || {
            // If the number of cgroups is unknown, assume there are few.
            let descendants = descendants(&below(self.mount, path)).unwrap_or(0);
            iter_is_quicker(descendants, self.types.len())
        };
        let is_asked = self.method == Method::Iter;
        if self.types.is_empty() || !(is_asked || self.method == Method::Auto && is_worth_it()) {
            walk(self.cgroup.as_fd(), path, attachments);
            return Method::Query;
        }
        match attachments.iterate(self.cgroup, self.mount, load) {
            Ok(()) => Method::Iter,
            Err(error) if is_asked => {
                attachments.cannot_iterate(&error);
                Method::Iter
            }
            Err(error) => {
                attachments.do_without_iterator(&error);
                walk(self.cgroup.as_fd(), path, attachments);
                Method::Query
            }
        }
    }
}

fn timed<T>(total: &mut f64, part: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = part();
    *total += milliseconds(start.elapsed());
    result
}

fn links(gaps: &mut Vec<Gap>, changing: &mut Vec<LinkId>) -> Vec<LinkFact> {
    known(objects::cgroup_links(), "links", gaps, changing)
        .into_iter()
        .map(|link| LinkFact {
            id: link.id,
            program_id: link.program_id,
            cgroup_id: link.cgroup_id.unwrap_or(kernel::CgroupId(0)),
            attach_type: link.attach_type,
        })
        .collect()
}

/// Returns the links that could be read. Adds a gap if the list could not be read.
pub(super) fn known<T>(
    read: kernel::Result<Links<T>>,
    what: &str,
    gaps: &mut Vec<Gap>,
    changing: &mut Vec<LinkId>,
) -> Vec<T> {
    match read {
        Ok(links) => {
            changing.extend(links.changing);
            links.links
        }
        Err(error) => {
            gaps.push(gap(Subject::Links, what, &error));
            Vec::new()
        }
    }
}

/// Returns the earlier look's attachments on other cgroups than these, without those of programs that are gone.
fn elsewhere(
    before: &Look,
    cgroups: &HashSet<CgroupId>,
    is_gone: impl Fn(ProgramId) -> bool,
) -> Vec<AttachmentFact> {
    let elsewhere = before.attachments.iter().filter(|it| !cgroups.contains(&it.cgroup_id));
    elsewhere.filter(|it| !is_gone(it.program_id)).cloned().collect()
}

/// Returns the removed cgroups of throttles that are meant to stay. A cgroup whose state is unknown does not count.
fn removed_cgroups<T>(
    ledger: &[ledger::Entry],
    open_by_id: impl Fn(CgroupId) -> kernel::Result<T>,
) -> Vec<CgroupId> {
    let is_removed = |entry: &&ledger::Entry| match open_by_id(entry.cgroup_id) {
        Err(error) => error.kind() == Kind::Vanished,
        // The kernel does not reuse a cgroup id while the host runs.
        Ok(_) => false,
    };
    let kept = ledger.iter().filter(|entry| entry.is_kept());
    let removed: BTreeSet<_> = kept.filter(is_removed).map(|entry| entry.cgroup_id).collect();
    removed.into_iter().collect()
}

fn ledger_entries(host: Option<&Path>, gaps: &mut Vec<Gap>) -> Vec<ledger::Entry> {
    let ledger = read_ledger(host, gaps);
    entries_of(ledger, gaps)
}

/// Returns the ledger's entries, and adds a gap for each unreadable one.
fn entries_of(ledger: ledger::Ledger, gaps: &mut Vec<Gap>) -> Vec<ledger::Entry> {
    gaps.extend(ledger.unreadable.into_iter().map(|(path, why)| Gap {
        about: Subject::Ledger,
        what: shown(&path),
        why: format!("{why}; remove the file if no throttle needs it"),
    }));
    ledger.entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Returns each owner once, and whether it is running.
fn owners<'a>(owners: impl Iterator<Item = &'a Owner>, gaps: &mut Vec<Gap>) -> Vec<OwnerFact> {
    let mut seen = HashSet::new();
    owners
        .filter(|owner| seen.insert(*owner))
        .map(|owner| {
            let alive = owner.is_alive().unwrap_or_else(|error| {
                gaps.push(gap(Subject::Processes, format!("process {}", owner.pid), &error));
                None
            });
            OwnerFact { owner: owner.clone(), alive }
        })
        .collect()
}

fn pin_facts(
    known: &HashSet<Object>,
    sought: Sought,
    host: Option<&Path>,
    gaps: &mut Vec<Gap>,
) -> Vec<PinFact> {
    pins_among(known, pins(sought), host, gaps)
}

/// Returns the pins of known objects, and adds a gap for each reason why there may be more.
fn pins_among(
    known: &HashSet<Object>,
    found: kernel::Result<Pins>,
    host: Option<&Path>,
    gaps: &mut Vec<Gap>,
) -> Vec<PinFact> {
    let found = found.unwrap_or_else(|error| {
        gaps.push(gap(Subject::Pins, "pins", &error));
        Pins::default()
    });
    gaps.extend(merged(Subject::Pins, &found.unreadable));
    gaps.extend(hidden_pins(host, &found));
    found
        .pins
        .into_iter()
        .map(|pin| PinFact { path: pin.path, object: pin.held.into() })
        .filter(|pin| known.contains(&pin.object))
        .collect()
}

fn holder_facts(known: &HashSet<Object>, sought: Sought, gaps: &mut Vec<Gap>) -> Vec<HolderFact> {
    let about =
        if may_look_into_processes() { Subject::HiddenProcesses } else { Subject::Processes };
    let still = |found| still_holding(found, sought);
    let found = holders_among(known, holders(sought), still, about, gaps);
    if kernel::process::pid_namespace().ok() != Some(kernel::process::INITIAL_PID_NAMESPACE) {
        gaps.push(Gap {
            about: Subject::Processes,
            what: "processes outside of this pid namespace".to_owned(),
            why: "they cannot be seen from here: run the audit on the host".to_owned(),
        });
    }
    found
}

/// Returns the processes that `still` hold known objects. Adds a gap, `about` that subject, for processes that could
/// not be inspected.
fn holders_among(
    known: &HashSet<Object>,
    found: kernel::Result<Holders>,
    still: impl FnOnce(Vec<Holder>) -> kernel::Result<Vec<Holder>>,
    about: Subject,
    gaps: &mut Vec<Gap>,
) -> Vec<HolderFact> {
    let found = found.unwrap_or_else(|error| {
        gaps.push(gap(Subject::Processes, "processes", &error));
        Holders::default()
    });
    gaps.extend(merged(about, &found.unreadable));
    // Check relevant holders only, because each check takes time.
    let relevant = found.holders.into_iter().filter_map(|holder| {
        let held: Vec<_> =
            holder.held.into_iter().filter(|held| known.contains(&Object::from(*held))).collect();
        (!held.is_empty()).then_some(Holder { held, ..holder })
    });
    let holders = still(relevant.collect()).unwrap_or_else(|error| {
        gaps.push(gap(Subject::Processes, "processes", &error));
        Vec::new()
    });
    let fact = |holder: Holder| HolderFact {
        process: Process { pid: holder.pid, comm: holder.comm },
        objects: holder.held.into_iter().map(Object::from).collect(),
    };
    holders.into_iter().map(fact).collect()
}

/// Merges errors that probably have the same cause into one gap.
pub(super) fn merged(about: Subject, errors: &[Error]) -> Option<Gap> {
    let (first, others) = errors.split_first()?;
    let what = match others.len() {
        0 => first.target().to_owned(),
        others => format!("{} and {others} more", first.target()),
    };
    Some(gap(about, what, first))
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
