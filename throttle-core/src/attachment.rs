//! One program on one cgroup: the value that stands for it, from attaching to the proof that it is gone.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::limits::Limits;
use bpf::state::{Counters, ThrottleState};
use kernel::error::Kind;
use kernel::list::{AttachFlags, Scope};
use kernel::{AttachType, CgroupId, LinkId, ProgramId, ProgramIdentity};

use crate::error::{Error, Result};
use crate::load::Load;
use crate::mode::Mode;

/// How often a detach is tried again because somebody else changed the list in between.
const MAX_RACES: usize = 16;

/// A program that is attached to a cgroup.
///
/// It remembers the cgroup (open, not as a path or a pid to be looked up again) and the program, and goes
/// away only through [`Attachment::detach`].
#[must_use = "an attachment that is not detached may outlive the process"]
pub struct Attachment<B: CgroupBpf> {
    cgroup: Rc<B::Cgroup>,
    cgroup_id: CgroupId,
    attach_type: AttachType,
    load: Rc<Load<B>>,
    program: ProgramId,
    hold: Hold<B::Link>,
    /// What it allows. `None` for the program for TCP, which goes by what the others allow.
    limits: Option<Limits>,
    /// What the counters showed when it was attached: an earlier throttle of the same load counted too.
    baseline: Counters,
}

/// An attachment that could not be shown to be gone, and why: it is still to be detached.
pub struct NotDetached<B: CgroupBpf> {
    /// The attachment.
    pub attachment: Attachment<B>,
    /// What went wrong.
    pub error: Error,
}

/// Why nothing was attached, and what could not be taken back.
pub(crate) struct NotAttached<B: CgroupBpf> {
    pub(crate) left_behind: Option<Attachment<B>>,
    pub(crate) error: Error,
}

impl<B: CgroupBpf, E: Into<Error>> From<E> for Box<NotAttached<B>> {
    fn from(error: E) -> Self {
        Box::new(NotAttached { left_behind: None, error: error.into() })
    }
}

enum Hold<L> {
    Link(L),
    Pinned(L, PathBuf),
    Legacy,
}

/// What was found when an attachment was detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// The cgroup had been removed, and every attachment with it.
    pub cgroup_vanished: bool,
    /// What the throttle did, to its last packet. `Ok(None)` when that went with the cgroup.
    pub counters: kernel::Result<Option<Counters>>,
}

impl<B: CgroupBpf> Attachment<B> {
    /// Attaches, and limits from the first packet on. If arming fails after attaching, the program is
    /// detached again; the attachment comes back with the error if even that fails.
    pub(crate) fn attach(
        kernel: &B,
        cgroup: Rc<B::Cgroup>,
        load: Rc<Load<B>>,
        attach_type: AttachType,
        limits: Option<&Limits>,
        mode: Mode,
        pin: Option<&Path>,
    ) -> std::result::Result<Self, Box<NotAttached<B>>> {
        let program = load.programs.program(attach_type);
        let id = kernel.identity(program).id;
        let cgroup_id = kernel.cgroup_id(&cgroup);
        let baseline = match limits {
            Some(_) => prepare(kernel, program, cgroup_id, attach_type)?,
            None => Counters::default(),
        };

        let hold = match mode {
            Mode::Link | Mode::Pinned => {
                Hold::Link(kernel.link_create(program, &cgroup, attach_type)?)
            }
            Mode::Legacy => {
                kernel.attach(program, &cgroup, attach_type, AttachFlags::MULTI, None)?;
                Hold::Legacy
            }
        };
        let limits = limits.copied();
        let mut attachment =
            Self { cgroup, cgroup_id, attach_type, load, program: id, hold, limits, baseline };
        match attachment.arm(kernel).and_then(|()| attachment.pin(kernel, pin)) {
            Ok(()) => Ok(attachment),
            Err(error) => match attachment.detach(kernel) {
                Ok(_) => Err(error.into()),
                Err(stuck) => Err(Box::new(NotAttached {
                    left_behind: Some(stuck.attachment),
                    error: Error::Several(vec![error, stuck.error]),
                })),
            },
        }
    }

    fn arm(&mut self, kernel: &B) -> Result<()> {
        let Some(limits) = &self.limits else { return Ok(()) };
        let state = ThrottleState::armed(limits, kernel.now_ns());
        kernel.set_state(self.program(), self.cgroup_id, self.attach_type, &state)?;
        // What came by between attaching and arming is none of this throttle's doing.
        if let Some(counters) = kernel.counters(self.program(), self.cgroup_id, self.attach_type)? {
            self.baseline.exempt = counters.exempt;
        }
        Ok(())
    }

    fn pin(&mut self, kernel: &B, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        // The link is moved from one variant to the other; in between there is nothing that can fail.
        match std::mem::replace(&mut self.hold, Hold::Legacy) {
            Hold::Link(link) => {
                let pinned = kernel.link_pin(&link, path);
                self.hold = match &pinned {
                    Ok(()) => Hold::Pinned(link, path.to_owned()),
                    Err(_) => Hold::Link(link),
                };
                Ok(pinned?)
            }
            other => {
                self.hold = other;
                Ok(())
            }
        }
    }

    /// The cgroup.
    pub(crate) fn cgroup(&self) -> &B::Cgroup {
        &self.cgroup
    }

    /// Where on the cgroup.
    pub fn attach_type(&self) -> AttachType {
        self.attach_type
    }

    /// What it allows. `None` for the program for TCP.
    pub fn limits(&self) -> Option<&Limits> {
        self.limits.as_ref()
    }

    /// Its link, if it has one.
    pub fn link_id(&self, kernel: &B) -> Option<LinkId> {
        match &self.hold {
            Hold::Link(link) | Hold::Pinned(link, _) => Some(kernel.link_id(link)),
            Hold::Legacy => None,
        }
    }

    fn program(&self) -> &B::Program {
        self.load.programs.program(self.attach_type)
    }

    /// What it did since it was attached. `None` when the cgroup is gone.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn counters(&self, kernel: &B) -> Result<Option<Counters>> {
        let counters = kernel.counters(self.program(), self.cgroup_id, self.attach_type)?;
        Ok(counters.map(|counters| counters.since(&self.baseline)))
    }

    /// Whether the program is on the cgroup's list. `None` when the cgroup is gone.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn is_attached(&self, kernel: &B) -> Result<Option<bool>> {
        match kernel.query(&self.cgroup, self.attach_type, Scope::Local) {
            Ok(list) => Ok(Some(list.count(self.program) > 0)),
            Err(error) if error.kind() == Kind::Vanished => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the kernel still runs the program for sockets of its cgroup, which was removed. They keep the cgroup's
    /// programs until the last of them is closed. A few milliseconds pass before the kernel lets go.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) fn lingers(&self, kernel: &B) -> Result<bool> {
        match &self.hold {
            Hold::Link(link) | Hold::Pinned(link, _) => {
                Ok(kernel.link_info(link)?.cgroup_id.is_some())
            }
            // Its state goes with the cgroup's programs.
            Hold::Legacy => {
                let state = kernel.state(self.program(), self.cgroup_id, self.attach_type)?;
                Ok(state.is_some())
            }
        }
    }

    /// Changes what it allows, in place: nothing is detached, the counters go on, and what was used up of
    /// the burst stays used up. (Packets that pass during the write itself, microseconds, are not charged.)
    ///
    /// # Errors
    /// When the state cannot be read or written; the old limits hold then.
    pub fn change(&mut self, kernel: &B, limits: &Limits) -> Result<()> {
        let program = self.load.programs.program(self.attach_type);
        let old = kernel.state(program, self.cgroup_id, self.attach_type)?.unwrap_or_default();
        let new = old.changed_to(limits, kernel.now_ns());
        kernel.set_state(program, self.cgroup_id, self.attach_type, &new)?;
        self.limits = Some(*limits);
        Ok(())
    }

    /// Detaches, and asks the kernel whether that is so. Ok means that the program was seen to be gone, or
    /// the cgroup was.
    ///
    /// # Errors
    /// Any failure, with the attachment, so that it can be tried again.
    pub fn detach(self, kernel: &B) -> std::result::Result<Detached, Box<NotDetached<B>>> {
        // Throttling ends here whatever comes, and should the detach fail, the auditor sees that this one
        // is not meant any more. That it could not be written matters only if the rest fails as well.
        let disarmed = match &self.limits {
            Some(_) => kernel.set_state(
                self.program(),
                self.cgroup_id,
                self.attach_type,
                &ThrottleState::disarmed(),
            ),
            None => Ok(()),
        };
        let detached = match &self.hold {
            Hold::Link(link) => kernel.link_detach(link).map_err(Error::from),
            Hold::Pinned(link, path) => kernel
                .link_detach(link)
                .and_then(|()| unpin_if_ours(kernel, link, path))
                .map_err(Error::from),
            Hold::Legacy => {
                detach_legacy(kernel, self.program(), self.program, &self.cgroup, self.attach_type)
                    .map(drop)
            }
        };
        match detached.and_then(|()| self.verify_gone(kernel)) {
            Ok(cgroup_vanished) => {
                let counters = match &self.limits {
                    Some(_) => kernel.counters(self.program(), self.cgroup_id, self.attach_type),
                    None => Ok(None),
                };
                let since = |counters: Counters| counters.since(&self.baseline);
                Ok(Detached { cgroup_vanished, counters: counters.map(|read| read.map(since)) })
            }
            Err(error) => {
                let error = match disarmed {
                    Err(second) if second.kind() != Kind::Vanished => {
                        Error::Several(vec![error, second.into()])
                    }
                    _ => error,
                };
                Err(Box::new(NotDetached { attachment: self, error }))
            }
        }
    }

    /// Whether it is gone with its cgroup (true) or from its cgroup.
    fn verify_gone(&self, kernel: &B) -> Result<bool> {
        match self.is_attached(kernel)? {
            None => Ok(true),
            Some(false) => Ok(false),
            Some(true) => Err(Error::StillAttached {
                program: self.program,
                cgroup: format!("cgroup {}", self.cgroup_id),
                attach_type: self.attach_type,
            }),
        }
    }
}

/// A place that this load was attached to before still has its old state: make sure that it limits
/// nothing when the program arrives there again. Returns what it counted.
pub(crate) fn prepare<B: CgroupBpf>(
    kernel: &B,
    program: &B::Program,
    cgroup: CgroupId,
    attach_type: AttachType,
) -> kernel::Result<Counters> {
    if kernel.state(program, cgroup, attach_type)?.is_some_and(|state| state.is_armed()) {
        kernel.set_state(program, cgroup, attach_type, &ThrottleState::disarmed())?;
    }
    Ok(kernel.counters(program, cgroup, attach_type)?.unwrap_or_default())
}

/// Removes the pin of a link. Not what somebody has pinned there since it was unpinned: what was not seen to be this
/// link stays.
fn unpin_if_ours<B: CgroupBpf>(kernel: &B, link: &B::Link, path: &Path) -> kernel::Result<()> {
    match kernel.link_open_pinned(path) {
        Ok(found) if kernel.link_id(&found) == kernel.link_id(link) => kernel.unpin(path),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Kind::Vanished && !kernel.pin_exists(path) => {
            kernel.remove_empty_folder_of(path)
        }
        Err(error) => Err(error),
    }
}

/// Takes a program off that was attached the legacy way. Ok if it is not on the list (any more), or the
/// cgroup is gone: whether this took it off.
///
/// The list is looked at first: where it is not of the MULTI kind, the kernel takes off whatever program
/// is there. Since 6.17 the kernel makes sure that the list is still the one looked at.
pub(crate) fn detach_legacy<B: CgroupBpf>(
    kernel: &B,
    program: &B::Program,
    id: ProgramId,
    cgroup: &B::Cgroup,
    attach_type: AttachType,
) -> Result<bool> {
    for _ in 0..MAX_RACES {
        let list = match kernel.query(cgroup, attach_type, Scope::Local) {
            Ok(list) if list.count(id) == 0 => return Ok(false),
            Ok(list) => list,
            Err(error) if error.kind() == Kind::Vanished => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match kernel.detach(program, cgroup, attach_type, list.revision) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == Kind::Changed => {}
            // Not attached the legacy way (any more), or the cgroup has just gone. Which of them, and
            // whether the program is gone, only the verifying query can tell.
            Err(error) if error.kind() == Kind::Vanished => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(format!("cgroup {} ({attach_type})", kernel.cgroup_id(cgroup))))
}

/// The identity of the program that a load has for an attach type.
pub(crate) fn identity<B: CgroupBpf>(
    kernel: &B,
    load: &Load<B>,
    attach_type: AttachType,
) -> ProgramIdentity {
    kernel.identity(load.programs.program(attach_type))
}
