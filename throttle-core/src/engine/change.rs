//! Changing what a throttle allows.

use bpf::CgroupBpf;
use bpf::ledger::{Entry, RecordedAttachment, RecordedLimits};

use super::Engine;
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::spec::{Change, Direction};

impl<B: CgroupBpf> Engine<B> {
    /// Changes limits in place: nothing is detached, the counters go on. Takes effect with the next packet.
    /// Needs `CAP_BPF`; for a throttle that outlives a crash also the right to write the ledger.
    ///
    /// # Errors
    /// When there is no such throttle or direction (nothing is changed then), or a direction's state or the
    /// ledger cannot be written (the rest may be changed; try again).
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

    /// Writes down what a throttle allows now: it is armed again from its record.
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
        // Somebody may have removed it by its name, or half of it: that stays so.
        if let Some(found) = self.config.ledger.find(&lock, entry)? {
            self.config.ledger.write(&lock, &updated(found))?;
        }
        throttle.entry = Some(changed);
        Ok(())
    }
}
