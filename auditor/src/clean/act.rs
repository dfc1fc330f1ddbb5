//! Taking one step: make sure, act, make sure that it worked.

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bpf::cgroup::{Cgroup, below};
use bpf::devices::{self, Device, Removal};
use bpf::error::{Error, Kind};
use bpf::link::Link;
use bpf::list::{AttachFlags, ProgramList, Scope, detach, query};
use bpf::probe::Support;
use bpf::program::Program;
use bpf::{AttachType, CgroupId, LinkId, ProgramId, pins};

use super::forced::may_go;
use crate::collect::object;
use crate::plan::{Action, Identity, Premise, Step, is_in_our_folder};
use crate::snapshot::{DeviceFact, Object};

/// How often to try again when somebody changes the list between our look at it and the detaching.
const ATTEMPTS: usize = 10;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken, and a query shows that it worked.
    Removed,
    /// There was nothing left to do, or no longer a reason; why.
    Gone(String),
    /// There is nothing that this program may do; why, and what does help.
    Left(String),
    /// It was not taken, or it did not work.
    Failed(Failure),
}

/// Why a step was not taken or did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A call failed.
    Call(Error),
    /// What was found right before acting is not what was judged. Nothing was touched.
    Changed(String),
    /// The call succeeded, but a query shows that it is still there.
    StillThere,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Changed(what) => write!(f, "{what}; nothing was touched: scan again"),
            Self::StillThere => f.write_str("the kernel reports success, but it is still there"),
        }
    }
}

/// Why a step ends before its end.
pub(super) enum Stop {
    Gone(String),
    Left(String),
    Failed(Failure),
}

impl From<Error> for Stop {
    /// Whatever vanished in the meantime is what was asked for.
    fn from(error: Error) -> Self {
        if error.kind() == Kind::Vanished {
            Self::Gone(format!("it has gone by itself ({error})"))
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
            Action::Cannot { why, .. } => return Outcome::Left(why.clone()),
        };
        match taken {
            Ok(()) => Outcome::Removed,
            Err(Stop::Gone(why)) => Outcome::Gone(why),
            Err(Stop::Left(why)) => Outcome::Left(why),
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
            // In such a list the kernel takes off whatever is there, whichever program is named. (In one of
            // the MULTI kind it takes the named one, and of that never what a link attaches.)
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

/// Tries again where somebody has changed the list between the look at it and the detaching: then `once` returns `None`.
fn again_if_it_changes(mut once: impl FnMut() -> Result<Option<()>, Stop>) -> Result<(), Stop> {
    for _ in 0..ATTEMPTS {
        if let Some(done) = once()? {
            return Ok(done);
        }
    }
    Err(changed("the list changed each time that it was looked at"))
}

/// Opens the step's program, makes sure that it is the one that was judged, and that what the step
/// presumes of its owner is still so. While it is open its id is its own.
fn identified(step: &Step) -> Result<Program, Stop> {
    let Some(Identity { id, tag, loaded_at_ns, .. }) = &step.program else {
        return Err(changed("no program is named"));
    };
    let program = Program::open(*id)?;
    let found = program.info().identity();
    if (&found.id, &found.tag, &found.loaded_at_ns) != (id, tag, loaded_at_ns) {
        return Err(gone(format!("program {id} has gone; another one has its id now")));
    }
    let owner = program.owner()?;
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

/// Other programs may be in the list, and stay in it. (For LSM lists only the programs' flags tell.)
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

/// Makes sure that the device is the one that was judged and that its owner has not turned up, right before it goes.
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

/// The program of a link on a cgroup or a network device.
fn program_of(link: &Link) -> bpf::Result<ProgramId> {
    link.info().map(|info| info.program_id).or_else(|_| Ok(link.device_info()?.program_id))
}

fn unpin(step: &Step, path: &Path, expected: Object) -> Result<(), Stop> {
    let program = identified(step)?;
    if step.premise == Premise::Unowned && !is_in_our_folder(path) {
        return Err(changed("the pin is not in the folder of our pins, so somebody keeps it"));
    }
    // What a symbolic link leads to is held by a pin of its own, which nobody has judged under this name.
    if path.is_symlink() {
        return Err(changed("the pin is a symbolic link now"));
    }
    match pins::held_by(path)?.map(object) {
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

/// Removes the folder that a throttle's pins were in, if it is empty now. Others' folders stay.
fn remove_folder_of(pin: &Path) -> bpf::Result<()> {
    if is_in_our_folder(pin) { pins::remove_empty_folder_of(pin) } else { Ok(()) }
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;
