//! Takes one step: checks its premise, acts, and checks the result.

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bpf::advice::explained;
use bpf::devices::{self, Device, Removal};
use kernel::cgroup::{Cgroup, below};
use kernel::error::{Error, Kind};
use kernel::link::Link;
use kernel::list::{AttachFlags, ProgramList, Scope, detach, query};
use kernel::probe::Support;
use kernel::{AttachType, CgroupId, LinkId, Program, ProgramId, pins};

use super::forced::may_go;
use crate::actions::{Action, Obstacle, Premise, Step, Target, is_in_our_folder};
use crate::facts::{DeviceFact, Object};

/// The number of attempts if somebody changes the list between the query and the detach.
const ATTEMPTS: usize = 10;

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The step worked, as a query confirms.
    Removed,
    /// Nothing was left to do, or the reason to do it is gone; why.
    Gone(String),
    /// Nothing may be done from here.
    Left(Obstacle),
    /// The step was not taken, or it did not work.
    Failed(Failure),
}

/// The reason why a step was not taken or did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A call failed.
    Call(Error),
    /// The state right before acting differs from the judged one. Nothing was touched.
    Changed(String),
    /// The call succeeded, but a query still shows the object.
    StillThere,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => f.write_str(&explained(error)),
            Self::Changed(what) => write!(f, "{what}; nothing was touched: scan again"),
            Self::StillThere => f.write_str("the kernel reports success, but it is still there"),
        }
    }
}

/// The reason why a step stops early.
pub(super) enum Stop {
    Gone(String),
    Left(Obstacle),
    Failed(Failure),
}

impl From<Error> for Stop {
    /// Treats an object that vanished meanwhile as gone, which is what the step wanted.
    fn from(error: Error) -> Self {
        if error.kind() == Kind::Vanished {
            Self::Gone(format!("it has gone by itself ({})", explained(&error)))
        } else {
            Self::Failed(Failure::Call(error))
        }
    }
}

fn changed(what: impl Into<String>) -> Stop {
    Stop::Failed(Failure::Changed(what.into()))
}

fn gone(why: impl Into<String>) -> Stop {
    Stop::Gone(why.into())
}

/// Takes steps.
pub(super) struct Act {
    mount: PathBuf,
    support: Support,
}

impl Act {
    pub(super) fn new(mount: &Path, support: Support) -> Self {
        Self { mount: mount.to_owned(), support }
    }

    pub(super) fn take(&self, step: &Step) -> Outcome {
        let taken = match &step.action {
            Action::DetachLegacy { cgroup, cgroup_id, attach_type } => {
                self.detach_legacy(step, cgroup, *cgroup_id, *attach_type)
            }
            Action::DetachLink { link, cgroup_id, attach_type } => {
                self.detach_link(step, *link, *cgroup_id, *attach_type)
            }
            Action::DetachFromDevice { link, device } => detach_from_device(step, *link, *device),
            Action::RemoveDevice(device) => remove_device(device),
            Action::Unpin { path, object } => unpin(step, path, *object),
            Action::Cannot(obstacle) => return Outcome::Left(obstacle.clone()),
        };
        match taken {
            Ok(()) => Outcome::Removed,
            Err(Stop::Gone(why)) => Outcome::Gone(why),
            Err(Stop::Left(obstacle)) => Outcome::Left(obstacle),
            Err(Stop::Failed(failure)) => Outcome::Failed(failure),
        }
    }

    fn detach_legacy(
        &self,
        step: &Step,
        path: &Path,
        id: CgroupId,
        attach_type: AttachType,
    ) -> Result<(), Stop> {
        let program = identified(step)?;
        let cgroup = Cgroup::open(&below(&self.mount, path))?;
        if cgroup.id() != id {
            return Err(gone("its cgroup has been removed; another one has its name now"));
        }
        let ask = || query(&cgroup, attach_type, Scope::Local, self.support.program_flags);
        again_if_it_changes(|| {
            let list = ask()?;
            let before = list.count(program.info().id);
            if before == 0 {
                return Err(gone("it has been detached in the meantime"));
            }
            // In a list without MULTI the kernel detaches whatever is there, whichever program the call names. (In a
            // MULTI list it detaches the named program, but never a link's attachment.)
            if !is_multi(&list) && list.programs.len() != 1 {
                return Err(changed("the list is not of the MULTI kind, and has more than this"));
            }
            if step.premise == Premise::Unowned {
                may_go(&cgroup, attach_type, &list)?;
            }
            let revision = list.revision.filter(|_| self.support.expected_revision);
            match detach(program.as_fd(), &cgroup, attach_type, revision) {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Changed => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let after = ask()?.count(program.info().id);
            if after < before { Ok(Some(())) } else { Err(Stop::Failed(Failure::StillThere)) }
        })
    }

    fn detach_link(
        &self,
        step: &Step,
        id: LinkId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<(), Stop> {
        let link = Link::open(id)?;
        let program = identified(step)?;
        let info = link.info()?;
        let Some(at) = info.cgroup_id else {
            return Err(gone("the link has been detached in the meantime"));
        };
        if (info.program_id, at, info.attach_type) != (program.info().id, cgroup, Some(attach_type))
        {
            return Err(changed(format!("link {id} is another one now")));
        }
        if step.premise == Premise::Unowned {
            let cgroup = Cgroup::open_by_id(&Cgroup::open(&self.mount)?, cgroup)?;
            let list = query(&cgroup, attach_type, Scope::Local, self.support.program_flags)?;
            may_go(&cgroup, attach_type, &list)?;
        }
        link.detach()?;
        match link.info()?.cgroup_id {
            None => Ok(()),
            Some(_) => Err(Stop::Failed(Failure::StillThere)),
        }
    }
}

/// Repeats `once` while it returns `None`, which means that somebody changed the list before the detach.
fn again_if_it_changes(mut once: impl FnMut() -> Result<Option<()>, Stop>) -> Result<(), Stop> {
    for _ in 0..ATTEMPTS {
        if let Some(done) = once()? {
            return Ok(done);
        }
    }
    Err(changed("the list changed each time that it was looked at"))
}

/// Opens the step's program. Checks that it is the judged program and that the premise about its owner still holds.
/// The kernel cannot reuse the id while the program is open.
fn identified(step: &Step) -> Result<Program, Stop> {
    let Some(Target { identity, .. }) = &step.program else {
        return Err(changed("no program is named"));
    };
    let (id, program) = (identity.id, Program::open(identity.id)?);
    if program.info().identity() != *identity {
        return Err(gone(format!("program {id} has gone; another one has its id now")));
    }
    let owner = bpf::owner_of(&program)?;
    if step.premise == Premise::Unowned && owner.is_some() {
        return Err(changed("it names an owner"));
    }
    let lives = match owner {
        Some(owner) => owner.is_alive()?,
        None => None,
    };
    match (step.premise, lives) {
        (Premise::OwnerGone, Some(true)) => Err(changed("its owner lives")),
        (Premise::OwnerLives, Some(false)) => Err(changed("its owner has ended")),
        _ => Ok(program),
    }
}

/// Tells whether the list may hold several programs, so that a detach leaves the others. (For LSM lists only the
/// programs' flags tell.)
fn is_multi(list: &ProgramList) -> bool {
    let is_multi = |flags: AttachFlags| flags.contains(AttachFlags::MULTI);
    is_multi(list.flags) || list.programs.iter().all(|it| it.flags.is_some_and(is_multi))
}

fn detach_from_device(step: &Step, id: LinkId, device: u32) -> Result<(), Stop> {
    let link = Link::open(id)?;
    let program = identified(step)?;
    let info = link.device_info()?;
    let Some(at) = info.device else {
        return Err(gone("the link has been detached in the meantime"));
    };
    if (info.program_id, at) != (program.info().id, device) {
        return Err(changed(format!("link {id} is another one now")));
    }
    link.detach()?;
    match link.device_info()?.device {
        None => Ok(()),
        Some(_) => Err(Stop::Failed(Failure::StillThere)),
    }
}

/// Removes a network device. Checks right before that it is the judged device and that its owner is not running.
fn remove_device(fact: &DeviceFact) -> Result<(), Stop> {
    let device = Device {
        network_namespace: fact.network_namespace,
        path: None,
        index: fact.index,
        name: fact.name.clone(),
        is_ifb: fact.is_ifb,
        alias: fact.alias.clone(),
    };
    let is_left_behind =
        |found: &Device| match devices::owner_of(&found.name, found.is_ifb, found.alias.as_deref())
        {
            Some(owner) => Ok(owner.is_alive()? != Some(true)),
            None => Ok(false),
        };
    match devices::remove(&device, is_left_behind)? {
        Removal::Removed => Ok(()),
        Removal::Gone => Err(gone("it has been removed in the meantime")),
        Removal::Changed => Err(changed("it is another device now, or its owner lives")),
        Removal::StillThere => Err(Stop::Failed(Failure::StillThere)),
    }
}

/// Returns the program of a link on a cgroup or a network device.
fn program_of(link: &Link) -> kernel::Result<ProgramId> {
    link.info().map(|info| info.program_id).or_else(|_| Ok(link.device_info()?.program_id))
}

fn unpin(step: &Step, path: &Path, expected: Object) -> Result<(), Stop> {
    let program = identified(step)?;
    if step.premise == Premise::Unowned && !is_in_our_folder(path) {
        return Err(changed("the pin is not in the folder of our pins, so somebody keeps it"));
    }
    // A symbolic link leads to another pin, which nobody has judged under this name.
    if path.is_symlink() {
        return Err(changed("the pin is a symbolic link now"));
    }
    match pins::held_by(path)?.map(Object::from) {
        None => return Err(gone("the pin has been removed in the meantime")),
        Some(found) if found != expected => {
            return Err(changed("the pin holds something else now"));
        }
        Some(_) => {}
    }
    if let Object::Link(id) = expected
        && program_of(&Link::open(id)?)? != program.info().id
    {
        return Err(changed(format!("link {id} is another one now")));
    }
    pins::unpin(path)?;
    match pins::held_by(path)? {
        None => {
            remove_folder_of(path)?;
            Ok(())
        }
        Some(_) => Err(Stop::Failed(Failure::StillThere)),
    }
}

/// Removes the folder of a throttle's pins if it is empty now. Folders of other tools stay.
fn remove_folder_of(pin: &Path) -> kernel::Result<()> {
    if is_in_our_folder(pin) { pins::remove_empty_folder_of(pin) } else { Ok(()) }
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;
