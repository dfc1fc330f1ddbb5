//! Changing the limits of a throttle.

use bpf::CgroupBpf;
use bpf::ledger::{Entry, RecordedAttachment, RecordedLimits};

use super::Engine;
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::spec::{Change, Direction};

impl<B: CgroupBpf> Engine<B> {
    /// Changes limits in place, from the next packet on. Nothing is detached, and the counters continue.
    ///
    /// Needs `CAP_BPF`. A throttle that outlives a crash also needs write access to the ledger.
    ///
    /// # Errors
    /// When there is no such throttle or direction; nothing has changed then. When a state or the ledger cannot be
    /// written; other directions may have changed then, and the caller can try again.
    pub fn change(&mut self, id: ThrottleId, change: &Change) -> Result<()> {
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        for direction in [Direction::Download, Direction::Upload] {
            let attach_type = direction.attach_type();
            let exists = throttle.attachments.iter().any(|a| a.attach_type() == attach_type);
            if change.rate(direction).is_some() && !exists {
                return Err(Error::NoSuchDirection(id, direction));
            }
        }
        let mut errors = Vec::new();
        for attachment in &mut throttle.attachments {
            let direction = Direction::of(attachment.attach_type());
            if let (Some(direction), Some(limits)) = (direction, attachment.limits()) {
                let limits = change.apply(direction, limits);
                errors.extend(attachment.change(&self.kernel, &limits).err());
            }
        }
        errors.extend(self.record_limits(id).err());
        Error::collect(errors)
    }

    /// Records the throttle's limits in the ledger. Arming it again uses them.
    fn record_limits(&mut self, id: ThrottleId) -> Result<()> {
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        let Some(entry) = &throttle.entry else { return Ok(()) };
        let limits_of = |recorded: &RecordedAttachment| {
            let mut its = throttle.attachments.iter();
            let its = its.find(|it| it.attach_type() == recorded.attach_type)?;
            its.limits().map(RecordedLimits::from)
        };
        let updated = |mut entry: Entry| {
            for recorded in entry.attachments.iter_mut().filter(|it| it.former_cgroup.is_none()) {
                recorded.limits = limits_of(recorded).or(recorded.limits.take());
            }
            entry
        };
        let changed = updated(entry.clone());
        if changed == *entry {
            return Ok(());
        }
        let lock = self.config.ledger.lock()?;
        // Somebody may have removed the entry by name, or part of it. That must stay so.
        if let Some(found) = self.config.ledger.find(&lock, entry)? {
            self.config.ledger.write(&lock, &updated(found))?;
        }
        throttle.entry = Some(changed);
        Ok(())
    }
}
