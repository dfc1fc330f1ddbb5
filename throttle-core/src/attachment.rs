//! One program attached to one cgroup, from attaching to the proof that it is gone.

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

/// The most attempts at a detach while others keep changing the list.
const MAX_RACES: usize = 16;

/// A program attached to a cgroup.
///
/// It keeps the cgroup open, and never looks it up again by path or pid. Only [`Attachment::detach`] ends it.
#[must_use = "an attachment that is not detached may outlive the process"]
pub struct Attachment<B: CgroupBpf> {
    cgroup: Rc<B::Cgroup>,
    cgroup_id: CgroupId,
    attach_type: AttachType,
    load: Rc<Load<B>>,
    program: ProgramId,
    hold: Hold<B::Link>,
    /// The limits. `None` for the program for TCP, which reads the limits of the others.
    limits: Option<Limits>,
    /// The counters at the time of attaching. An earlier throttle of the same load has counted too.
    baseline: Counters,
}

/// An attachment that could not be shown to be gone. The caller must detach it again.
pub struct NotDetached<B: CgroupBpf> {
    /// The attachment, which may still be in force.
    pub attachment: Attachment<B>,
    /// The error that stopped the detach.
    pub error: Error,
}

/// A failed attach, with the attachment if it could not be undone.
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

/// The result of a detach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// The cgroup had been removed, and every attachment with it.
    pub cgroup_vanished: bool,
    /// The throttle's counters up to its last packet. `Ok(None)` when they went with the cgroup.
    pub counters: kernel::Result<Option<Counters>>,
}

impl<B: CgroupBpf> Attachment<B> {
    /// Attaches a program and arms it, so that it limits from the first packet. If arming fails, detaches the program.
    /// If even that fails, returns the attachment with the error.
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
        // Packets between attaching and arming do not count for this throttle.
        if let Some(counters) = kernel.counters(self.program(), self.cgroup_id, self.attach_type)? {
            self.baseline.exempt = counters.exempt;
        }
        Ok(())
    }

    fn pin(&mut self, kernel: &B, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        // The link moves from one variant to the other. Nothing can fail in between.
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

    /// Returns the open cgroup.
    pub(crate) fn cgroup(&self) -> &B::Cgroup {
        &self.cgroup
    }

    /// Returns the attach type.
    pub fn attach_type(&self) -> AttachType {
        self.attach_type
    }

    /// Returns the limits. `None` for the program for TCP.
    pub fn limits(&self) -> Option<&Limits> {
        self.limits.as_ref()
    }

    /// Returns the link's id, `None` for a legacy attachment.
    pub fn link_id(&self, kernel: &B) -> Option<LinkId> {
        match &self.hold {
            Hold::Link(link) | Hold::Pinned(link, _) => Some(kernel.link_id(link)),
            Hold::Legacy => None,
        }
    }

    fn program(&self) -> &B::Program {
        self.load.programs.program(self.attach_type)
    }

    /// Returns what the program counted since it was attached. `None` when the cgroup is gone.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn counters(&self, kernel: &B) -> Result<Option<Counters>> {
        let counters = kernel.counters(self.program(), self.cgroup_id, self.attach_type)?;
        Ok(counters.map(|counters| counters.since(&self.baseline)))
    }

    /// Tells whether the program is on the cgroup's list. `None` when the cgroup is gone.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    pub fn is_attached(&self, kernel: &B) -> Result<Option<bool>> {
        match kernel.query(&self.cgroup, self.attach_type, Scope::Local) {
            Ok(list) => Ok(Some(list.count(self.program) > 0)),
            Err(error) if error.kind() == Kind::Vanished => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether the kernel still runs the program for sockets of its removed cgroup.
    ///
    /// Open sockets keep the cgroup's programs until the last socket is closed. The kernel needs a few milliseconds
    /// more to free them.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    pub(crate) fn lingers(&self, kernel: &B) -> Result<bool> {
        match &self.hold {
            Hold::Link(link) | Hold::Pinned(link, _) => {
                Ok(kernel.link_info(link)?.cgroup_id.is_some())
            }
            // The kernel frees the state together with the cgroup's programs.
            Hold::Legacy => {
                let state = kernel.state(self.program(), self.cgroup_id, self.attach_type)?;
                Ok(state.is_some())
            }
        }
    }

    /// Changes the limits in place. Nothing is detached, the counters continue, and the used part of the burst stays
    /// used.
    ///
    /// Packets that pass during the write itself (microseconds) are not charged.
    ///
    /// # Errors
    /// When the state cannot be read or written. The old limits then hold.
    pub fn change(&mut self, kernel: &B, limits: &Limits) -> Result<()> {
        let program = self.load.programs.program(self.attach_type);
        let old = kernel.state(program, self.cgroup_id, self.attach_type)?.unwrap_or_default();
        let new = old.changed_to(limits, kernel.now_ns());
        kernel.set_state(program, self.cgroup_id, self.attach_type, &new)?;
        self.limits = Some(*limits);
        Ok(())
    }

    /// Disarms and detaches the program, then verifies that. Returns `Ok` only after a query has shown that the program
    /// or the cgroup is gone.
    ///
    /// # Errors
    /// Any failure, together with the attachment, so that the caller can try again.
    pub fn detach(self, kernel: &B) -> std::result::Result<Detached, Box<NotDetached<B>>> {
        // Disarming ends the limit even if the detach fails, and tells the auditor that nobody wants the program. A
        // failure to disarm matters only if the detach fails too.
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

    /// Verifies that the program is gone: `true` if the cgroup is gone too, `false` if only the program is.
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

/// Disarms the state that an earlier throttle of this load left at this place, and returns its counters. Otherwise the
/// program would limit with the old state when it arrives there again.
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

/// Removes a link's pin, unless somebody has pinned another object at that path. What cannot be shown to be this link
/// stays.
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

/// Detaches a program that was attached the legacy way. Returns `true` if this call detached it, `false` if the program
/// is not on the list or the cgroup is gone.
///
/// The list is queried first: from a list that is not MULTI, the kernel detaches whatever program is there. Since 6.17
/// the kernel checks that the list has not changed since the query.
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
            // The program is not attached the legacy way any more, or the cgroup has just gone. Only the query after
            // this can tell which.
            Err(error) if error.kind() == Kind::Vanished => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(format!("cgroup {} ({attach_type})", kernel.cgroup_id(cgroup))))
}

/// Returns the identity of a load's program for an attach type.
pub(crate) fn identity<B: CgroupBpf>(
    kernel: &B,
    load: &Load<B>,
    attach_type: AttachType,
) -> ProgramIdentity {
    kernel.identity(load.programs.program(attach_type))
}
