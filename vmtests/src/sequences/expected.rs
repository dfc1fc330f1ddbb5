//! Models the expected state. A second model of the kernel has the requested throttles, attached by the simplest means.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kernel::boundary::{Cgroups as _, Links as _, Programs as _};
use kernel::error::Call;
use kernel::list::{AttachFlags, Scope};
use kernel::{AttachType, ProgramId};
use nix::errno::Errno;
use sim::{Model, ModelCgroup, ModelLink, ModelProgram, Version, World};

use super::step::How;
use super::system::{Handle, Parts};

/// Who is responsible for a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// A living owner holds it.
    Held(usize),
    /// It is recorded to outlive its owner.
    Released,
    /// Its owner died. The next start removes it, or finds that it is recorded to stay.
    Orphaned,
    /// Its owner died and its record was destroyed. It stays until an operator cleans up.
    Lost,
}

/// A throttle.
#[derive(Debug)]
pub struct Throttle {
    /// Its number.
    pub handle: Handle,
    /// How to attach it.
    pub how: How,
    /// Who is responsible for it.
    pub ownership: Ownership,
    /// Its record was overwritten.
    pub torn: bool,
    /// An attempt to remove it failed.
    pub removing: bool,
    /// Its programs, also those that somebody else detached.
    pub parts: Vec<Part>,
}

/// A program of a throttle: for one direction, or for TCP.
#[derive(Debug)]
pub struct Part {
    /// The attach type.
    pub attach_type: AttachType,
    /// The path of the cgroup.
    pub path: PathBuf,
    /// The rates in bytes per second. Two while it is unknown whether a change took effect, none for the TCP program.
    pub rates: BTreeSet<u64>,
    cgroup: ModelCgroup,
    program: ModelProgram,
    link: Option<ModelLink>,
}

impl Part {
    /// Tells whether the part limits a direction and counts. The TCP program does not.
    pub fn limits(&self) -> bool {
        self.attach_type != AttachType::SOCK_OPS
    }

    /// Returns the id of its stand-in on the model.
    pub fn stand_in(&self) -> ProgramId {
        self.program.id()
    }
}

/// Everything that is expected.
#[derive(Debug)]
pub struct Expected {
    /// The kernel as it should be.
    pub model: Model,
    /// The existing throttles.
    pub throttles: Vec<Throttle>,
    /// The real program's id for each of the model's.
    pub real: BTreeMap<ProgramId, ProgramId>,
}

impl Expected {
    /// Expects nothing below this cgroup yet.
    pub fn new(version: Version, top: &Path) -> Self {
        let model = Model::boot(version, top, Path::new("/"));
        Self { model, throttles: Vec::new(), real: BTreeMap::new() }
    }

    /// Returns the expected list at a place, as the model's programs.
    pub fn list(&self, path: &Path, attach_type: AttachType, scope: Scope) -> Vec<ProgramId> {
        let cgroup = self.model.open_cgroup(path);
        cgroup.map_or_else(|_| Vec::new(), |cgroup| self.list_of(&cgroup, attach_type, scope))
    }

    /// Returns the same for an open cgroup of the model.
    pub fn list_of(
        &self,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Vec<ProgramId> {
        let queried = self.model.query(cgroup, attach_type, scope);
        queried.unwrap_or_default().programs.iter().map(|program| program.id).collect()
    }

    /// Adds a throttle with all of its programs, or not at all. `keeps_others` refuses one that would disable somebody
    /// else's program.
    ///
    /// # Errors
    /// Returns the reason for a refusal.
    pub fn add(
        &mut self,
        owner: usize,
        handle: Handle,
        path: &Path,
        wanted: &Parts,
        how: How,
        keeps_others: bool,
    ) -> kernel::Result<()> {
        let mut parts = Vec::new();
        for (&attach_type, &rate) in wanted {
            let before = self.list(path, attach_type, Scope::Effective);
            let attached =
                attach(&self.model, path, attach_type, rate, how).and_then(|mut part| {
                    let after = self.list(path, attach_type, Scope::Effective);
                    if !keeps_others || before.iter().all(|id| after.contains(id)) {
                        return Ok(part);
                    }
                    detach(&self.model, &mut part);
                    Err(kernel::Error::new(Call::Attach, path.display().to_string(), Errno::EPERM)
                        .with_detail("it puts another program out of force"))
                });
            match attached {
                Ok(part) => parts.push(part),
                Err(error) => {
                    for part in &mut parts {
                        detach(&self.model, part);
                    }
                    return Err(error);
                }
            }
        }
        self.insert(owner, handle, how, parts);
        Ok(())
    }

    /// Adds those programs of a throttle that the kernel allows.
    pub fn add_what_can_be(
        &mut self,
        owner: usize,
        handle: Handle,
        path: &Path,
        wanted: &Parts,
        how: How,
    ) {
        let attached = wanted.iter().map(|(&at, &rate)| attach(&self.model, path, at, rate, how));
        let parts = attached.filter_map(Result::ok).collect();
        self.insert(owner, handle, how, parts);
    }

    fn insert(&mut self, owner: usize, handle: Handle, how: How, parts: Vec<Part>) {
        let ownership = Ownership::Held(owner);
        self.throttles.push(Throttle {
            handle,
            how,
            ownership,
            torn: false,
            removing: false,
            parts,
        });
    }

    /// Returns a throttle.
    pub fn throttle(&self, handle: Handle) -> Option<&Throttle> {
        self.throttles.iter().find(|throttle| throttle.handle == handle)
    }

    /// Returns a throttle for changing it.
    pub fn throttle_mut(&mut self, handle: Handle) -> Option<&mut Throttle> {
        self.throttles.iter_mut().find(|throttle| throttle.handle == handle)
    }

    /// Removes a throttle.
    pub fn remove(&mut self, handle: Handle) {
        self.detach_all(handle);
        self.throttles.retain(|throttle| throttle.handle != handle);
    }

    /// Detaches one of our programs. Somebody else did this, or an operation that failed afterwards.
    pub fn detach_stand_in(&mut self, stand_in: ProgramId) {
        for part in self.throttles.iter_mut().flat_map(|throttle| &mut throttle.parts) {
            if part.stand_in() == stand_in {
                detach(&self.model, part);
            }
        }
    }

    /// Detaches all of a throttle's programs.
    pub fn detach_all(&mut self, handle: Handle) {
        for throttle in self.throttles.iter_mut().filter(|it| it.handle == handle) {
            for part in &mut throttle.parts {
                detach(&self.model, part);
            }
        }
    }

    /// Tells whether a part's cgroup still exists.
    pub fn is_online(&self, part: &Part) -> bool {
        self.model.query(&part.cgroup, part.attach_type, Scope::Local).is_ok()
    }

    /// Returns the throttles of a living owner.
    pub fn held_by(&self, owner: usize) -> Vec<Handle> {
        let held = self.throttles.iter().filter(|it| it.ownership == Ownership::Held(owner));
        held.map(|throttle| throttle.handle).collect()
    }

    /// Returns the throttles with that ownership.
    pub fn ownership(&self, ownership: Ownership) -> Vec<Handle> {
        let those = self.throttles.iter().filter(|throttle| throttle.ownership == ownership);
        those.map(|throttle| throttle.handle).collect()
    }

    /// Notes that an owner died. Its links go with it, and pinned throttles stay as intended. Legacy attachments are
    /// orphaned, and so is the throttle of an unfinished operation, whose progress is unknown.
    pub fn owner_died(&mut self, owner: usize, in_work: &[Handle]) {
        for handle in self.held_by(owner) {
            let Some(throttle) = self.throttle_mut(handle) else { continue };
            throttle.ownership = match throttle.how {
                How::Link => {
                    self.remove(handle);
                    continue;
                }
                _ if throttle.torn => Ownership::Lost,
                How::Pinned if !throttle.removing && !in_work.contains(&handle) => {
                    Ownership::Released
                }
                How::Pinned | How::Legacy => Ownership::Orphaned,
            };
        }
    }

    /// Returns the throttle to which a stand-in belongs.
    pub fn whose(&self, stand_in: ProgramId) -> Option<&Throttle> {
        self.throttles.iter().find(|it| it.parts.iter().any(|part| part.stand_in() == stand_in))
    }
}

fn attach(
    model: &Model,
    path: &Path,
    attach_type: AttachType,
    rate: Option<u64>,
    how: How,
) -> kernel::Result<Part> {
    let cgroup = model.open_cgroup(path)?;
    let program = model.load_pass("expected", attach_type)?;
    let link = if how == How::Legacy {
        model.attach(&program, &cgroup, attach_type, AttachFlags::MULTI, None)?;
        None
    } else {
        Some(model.link_create(&program, &cgroup, attach_type)?)
    };
    let rates = rate.into_iter().collect();
    Ok(Part { attach_type, path: path.to_owned(), rates, cgroup, program, link })
}

/// Treats a program as detached if it is gone already, with its cgroup or by somebody else.
fn detach(model: &Model, part: &mut Part) {
    if let Some(link) = part.link.take() {
        let _ = model.link_detach(&link);
        return;
    }
    let multi = model
        .query(&part.cgroup, part.attach_type, Scope::Local)
        .is_ok_and(|list| list.count(part.stand_in()) > 0);
    if multi {
        let none = AttachFlags::empty();
        let _ = model.detach_with(Some(&part.program), &part.cgroup, part.attach_type, none, None);
    }
}
