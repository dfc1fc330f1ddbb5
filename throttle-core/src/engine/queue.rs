//! The engine's part in queues for downloads: whether a throttle gets one, and when to close it.

use bpf::CgroupBpf;

use super::{Engine, Throttle};
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::mode::{Mode, Refusal};
use crate::spec::Spec;

/// Tells whether a throttle gets a queue.
///
/// # Errors
/// When the spec asks for a queue, but the mode does not allow one.
pub(super) fn is_wanted(spec: &Spec, mode: Mode) -> Result<bool> {
    let is_wanted = spec.queue && spec.download.is_some();
    if is_wanted && mode != Mode::Link {
        return Err(Refusal::QueueNeedsLink.into());
    }
    Ok(is_wanted)
}

impl<B: CgroupBpf> Throttle<B> {
    /// Closes the throttle's queue, if it has one. The throttle keeps the queue if closing fails.
    pub(super) fn close_queue(&mut self, kernel: &B) -> Result<()> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        kernel.queue_close(queue)?;
        self.queue = None;
        Ok(())
    }
}

impl<B: CgroupBpf> Engine<B> {
    /// Closes a throttle's queue if the queue does not work, and returns whether it did.
    ///
    /// A queue stops working when somebody removes its device or takes it down. The kernel then drops every redirected
    /// packet. Without the queue the limit still holds, by dropping packets above it.
    ///
    /// # Errors
    /// When there is no such throttle, the kernel cannot be queried, or a part of the queue stays.
    pub fn close_broken_queue(&mut self, id: ThrottleId) -> Result<bool> {
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        let Some(queue) = &mut throttle.queue else { return Ok(false) };
        if self.kernel.queue_works(queue)? {
            return Ok(false);
        }
        throttle.close_queue(&self.kernel)?;
        Ok(true)
    }
}
