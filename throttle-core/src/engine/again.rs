//! Throttles that have lost their cgroup and wait for a new one at the same path.

use bpf::CgroupBpf;
use bpf::ledger::{self, Entry, RecordedAttachment, RecordedLimits, Stage};
use kernel::{AttachType, CgroupId, ProgramId};

use super::Engine;
use crate::attachment::{Attachment, identity};
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::spec::Direction;
use crate::status::Health;

impl<B: CgroupBpf> Engine<B> {
    /// Detaches a throttle from its removed cgroup, and keeps its programs loaded. [`Engine::add`] on a new cgroup at
    /// that path then only has to attach.
    ///
    /// The ledger records that the throttle is waiting, so that nobody removes its programs as leftovers.
    /// [`Engine::remove`] ends the wait.
    ///
    /// Returns whether sockets of the removed cgroup are still open; the throttle still limits them. Call it again
    /// until it returns false.
    ///
    /// # Errors
    /// When there is no such throttle, the kernel cannot be queried, or the ledger cannot be written. The throttle is
    /// then unchanged.
    pub fn wait_for_cgroup(&mut self, id: ThrottleId) -> Result<bool> {
        let throttle = self.throttles.get(&id).ok_or(Error::NoSuchThrottle(id))?;
        let entry = match &throttle.entry {
            Some(entry) if entry.waiting => None,
            Some(entry) => Some(Entry { waiting: true, ..entry.clone() }),
            None => Some(self.entry_of_waiting(id)?),
        };
        if let Some(mut entry) = entry {
            let lock = self.config.ledger.lock()?;
            // Somebody has removed the entry, and another throttle may have its name. The throttle gets a new name, and
            // waits only while its owner lives.
            if !entry.throttle.is_empty() && !self.config.ledger.has(&lock, &entry)? {
                entry.throttle.clear();
                entry.persist = false;
            }
            if entry.throttle.is_empty() {
                entry.throttle = self.free_name(&lock);
            }
            self.config.ledger.write(&lock, &entry)?;
            if let Some(throttle) = self.throttles.get_mut(&id) {
                throttle.entry = Some(entry);
            }
        }
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        let mut errors = Vec::new();
        for attachment in std::mem::take(&mut throttle.attachments) {
            match is_gone(&self.kernel, &attachment) {
                Ok(true) => {
                    let direction = Direction::of(attachment.attach_type());
                    match attachment.detach(&self.kernel) {
                        Ok(detached) => throttle.gone.extend(direction.map(|at| (at, detached))),
                        Err(stuck) => {
                            throttle.attachments.push(stuck.attachment);
                            errors.push(stuck.error);
                        }
                    }
                }
                Ok(false) => throttle.attachments.push(attachment),
                Err(error) => {
                    throttle.attachments.push(attachment);
                    errors.push(error);
                }
            }
        }
        let remain = !throttle.attachments.is_empty();
        Error::collect(errors)?;
        Ok(remain)
    }

    /// Returns the health of a throttle's cgroup: [`Health::Attached`], [`Health::SocketsRemain`],
    /// [`Health::CgroupVanished`] or [`Health::Unknown`].
    ///
    /// Returns `None` when there is no such throttle.
    pub fn cgroup_health(&self, id: ThrottleId) -> Option<Health> {
        let throttle = self.throttles.get(&id)?;
        let mut removed = throttle.attachments.is_empty();
        for attachment in &throttle.attachments {
            match attachment.is_attached(&self.kernel) {
                Ok(Some(_)) => return Some(Health::Attached),
                Ok(None) => removed = true,
                Err(error) => return Some(Health::Unknown(error)),
            }
            match attachment.lingers(&self.kernel) {
                Ok(true) => return Some(Health::SocketsRemain),
                Ok(false) => {}
                Err(error) => return Some(Health::Unknown(error)),
            }
        }
        removed.then_some(Health::CgroupVanished)
    }

    /// Returns the id of the cgroup that the throttle was added on. `None` when there is no such throttle.
    pub fn cgroup_of(&self, id: ThrottleId) -> Option<CgroupId> {
        self.throttles.get(&id)?.places.first().map(|(cgroup, _)| *cgroup)
    }

    /// Returns the throttle's attached programs and their attach types. The list is empty when there is no such
    /// throttle.
    pub fn programs_of(&self, id: ThrottleId) -> Vec<(AttachType, ProgramId)> {
        let Some(throttle) = self.throttles.get(&id) else { return Vec::new() };
        let attach_types = throttle.attachments.iter().map(Attachment::attach_type);
        attach_types.map(|at| (at, identity(&self.kernel, &throttle.load, at).id)).collect()
    }

    /// Returns the cgroup at the top of the mount through which the throttle's path led when it was added. Below
    /// another top, the same path is another cgroup.
    ///
    /// Returns `None` when the top is out of sight, or when there is no such throttle.
    pub fn top_of(&self, id: ThrottleId) -> Option<CgroupId> {
        self.throttles.get(&id)?.cgroup_top
    }

    /// Builds a ledger entry for a throttle that had none because a crash would undo it.
    fn entry_of_waiting(&self, id: ThrottleId) -> Result<Entry> {
        let throttle = self.throttles.get(&id).ok_or(Error::NoSuchThrottle(id))?;
        let recorded = |attachment: &Attachment<B>| {
            let attach_type = attachment.attach_type();
            let program = identity(&self.kernel, &throttle.load, attach_type);
            RecordedAttachment {
                attach_type,
                program_id: program.id,
                tag: program.tag,
                loaded_at_ns: program.loaded_at_ns,
                link_id: attachment.link_id(&self.kernel),
                pin: None,
                limits: attachment.limits().map(RecordedLimits::from),
                former_cgroup: None,
            }
        };
        let cgroup = throttle.places.first().map(|(cgroup, _)| *cgroup);
        Ok(Entry {
            schema_version: ledger::SCHEMA_VERSION,
            throttle: String::new(),
            owner: self.config.owner.clone(),
            stage: Stage::Attached,
            persist: false,
            cgroup_path: throttle.cgroup.clone(),
            cgroup_id: cgroup.ok_or(Error::NoSuchThrottle(id))?,
            attachments: throttle.attachments.iter().map(recorded).collect(),
            waiting: true,
            cgroup_namespace: self.config.cgroup_namespace,
            cgroup_top: throttle.cgroup_top,
            displace: throttle.displace,
        })
    }
}

/// Tells whether the kernel has detached the program together with the cgroup.
fn is_gone<B: CgroupBpf>(kernel: &B, attachment: &Attachment<B>) -> Result<bool> {
    Ok(attachment.is_attached(kernel)?.is_none() && !attachment.lingers(kernel)?)
}
