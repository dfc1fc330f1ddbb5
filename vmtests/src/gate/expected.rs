//! What ought to be there: the throttles that were asked for, attached by the plainest means to a model of the
//! kernel of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bpf::error::Call;
use bpf::list::{AttachFlags, Scope};
use bpf::{AttachType, CgroupBpf, ProgramId};
use nix::errno::Errno;

use super::step::How;
use super::system::{Handle, Parts};
use crate::lab::Lab;
use crate::model::{Model, ModelCgroup, ModelLink, ModelProgram, Version};

/// Whose a throttle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// That owner's, which lives.
    Held(usize),
    /// Recorded to outlive its owner.
    Released,
    /// Its owner died; the next start removes it, or finds it recorded to stay.
    Adrift,
    /// Its owner died, and its record was destroyed: it stays until an operator cleans up.
    Lost,
}

/// A throttle.
#[derive(Debug)]
pub struct Throttle {
    /// Its number.
    pub handle: Handle,
    /// How it is attached.
    pub how: How,
    /// Whose it is.
    pub standing: Standing,
    /// Its record was overwritten.
    pub torn: bool,
    /// Removing it was tried, and failed.
    pub removing: bool,
    /// Its programs; one that somebody else detached is still among them.
    pub parts: Vec<Part>,
}

/// A program of a throttle: for one direction, or for TCP.
#[derive(Debug)]
pub struct Part {
    /// Where on the cgroup.
    pub attach_type: AttachType,
    /// Where.
    pub path: PathBuf,
    /// Bytes per second; two while it is not known whether a change took effect, none for TCP's.
    pub rates: BTreeSet<u64>,
    cgroup: ModelCgroup,
    program: ModelProgram,
    link: Option<ModelLink>,
}

impl Part {
    /// Whether it limits a direction, and counts: that for TCP does not.
    pub fn limits(&self) -> bool {
        self.attach_type != AttachType::SOCK_OPS
    }

    /// The number of the program that stands for it on the model.
    pub fn stand_in(&self) -> ProgramId {
        self.program.id()
    }
}

/// All that is expected.
#[derive(Debug)]
pub struct Expected {
    /// The kernel as it ought to be.
    pub model: Model,
    /// The throttles that there are.
    pub throttles: Vec<Throttle>,
    /// The program that the kernel really has, for each of the model's.
    pub real: BTreeMap<ProgramId, ProgramId>,
}

impl Expected {
    /// Nothing yet, below that cgroup.
    pub fn new(version: Version, top: &Path) -> Self {
        let model = Model::boot(version, top, Path::new("/"));
        Self { model, throttles: Vec::new(), real: BTreeMap::new() }
    }

    /// What the list at a place is expected to be: the model's programs.
    pub fn list(&self, path: &Path, attach_type: AttachType, scope: Scope) -> Vec<ProgramId> {
        let cgroup = self.model.open_cgroup(path);
        cgroup.map_or_else(|_| Vec::new(), |cgroup| self.list_of(&cgroup, attach_type, scope))
    }

    /// The same for a cgroup of the model's that is open.
    pub fn list_of(
        &self,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Vec<ProgramId> {
        let queried = self.model.query(cgroup, attach_type, scope);
        queried.unwrap_or_default().programs.iter().map(|program| program.id).collect()
    }

    /// Adds a throttle; all of its programs, or none. `keeps_neighbours`: not where it would put somebody else's
    /// program out of force.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn add(
        &mut self,
        owner: usize,
        handle: Handle,
        path: &Path,
        wanted: &Parts,
        how: How,
        keeps_neighbours: bool,
    ) -> bpf::Result<()> {
        let mut parts = Vec::new();
        for (&attach_type, &rate) in wanted {
            let before = self.list(path, attach_type, Scope::Effective);
            let attached =
                attach(&self.model, path, attach_type, rate, how).and_then(|mut part| {
                    let after = self.list(path, attach_type, Scope::Effective);
                    if !keeps_neighbours || before.iter().all(|id| after.contains(id)) {
                        return Ok(part);
                    }
                    detach(&self.model, &mut part);
                    Err(bpf::Error::new(Call::Attach, path.display().to_string(), Errno::EPERM)
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
        let standing = Standing::Held(owner);
        self.throttles.push(Throttle {
            handle,
            how,
            standing,
            torn: false,
            removing: false,
            parts,
        });
    }

    /// A throttle.
    pub fn throttle(&self, handle: Handle) -> Option<&Throttle> {
        self.throttles.iter().find(|throttle| throttle.handle == handle)
    }

    /// A throttle, to be changed.
    pub fn throttle_mut(&mut self, handle: Handle) -> Option<&mut Throttle> {
        self.throttles.iter_mut().find(|throttle| throttle.handle == handle)
    }

    /// Removes a throttle.
    pub fn remove(&mut self, handle: Handle) {
        self.detach_all(handle);
        self.throttles.retain(|throttle| throttle.handle != handle);
    }

    /// Takes one of our programs off, as somebody else would, or as an operation did that then failed.
    pub fn detach_stand_in(&mut self, stand_in: ProgramId) {
        for part in self.throttles.iter_mut().flat_map(|throttle| &mut throttle.parts) {
            if part.stand_in() == stand_in {
                detach(&self.model, part);
            }
        }
    }

    /// Takes all of a throttle's programs off.
    pub fn detach_all(&mut self, handle: Handle) {
        for throttle in self.throttles.iter_mut().filter(|it| it.handle == handle) {
            for part in &mut throttle.parts {
                detach(&self.model, part);
            }
        }
    }

    /// Whether a part's cgroup was not removed.
    pub fn is_online(&self, part: &Part) -> bool {
        self.model.query(&part.cgroup, part.attach_type, Scope::Local).is_ok()
    }

    /// The throttles of a living owner.
    pub fn held_by(&self, owner: usize) -> Vec<Handle> {
        let held = self.throttles.iter().filter(|it| it.standing == Standing::Held(owner));
        held.map(|throttle| throttle.handle).collect()
    }

    /// The throttles of that standing.
    pub fn standing(&self, standing: Standing) -> Vec<Handle> {
        let those = self.throttles.iter().filter(|throttle| throttle.standing == standing);
        those.map(|throttle| throttle.handle).collect()
    }

    /// An owner died: its links go with it, what was pinned stays as meant, and what was attached the legacy
    /// way is adrift. So is whatever was being worked on: who knows how far that came.
    pub fn owner_died(&mut self, owner: usize, in_work: &[Handle]) {
        for handle in self.held_by(owner) {
            let Some(throttle) = self.throttle_mut(handle) else { continue };
            throttle.standing = match throttle.how {
                How::Link => {
                    self.remove(handle);
                    continue;
                }
                _ if throttle.torn => Standing::Lost,
                How::Pinned if !throttle.removing && !in_work.contains(&handle) => {
                    Standing::Released
                }
                How::Pinned | How::Legacy => Standing::Adrift,
            };
        }
    }

    /// The throttle that a stand-in belongs to.
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
) -> bpf::Result<Part> {
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

/// That it is gone already, with its cgroup or by another's hand, is as good.
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
