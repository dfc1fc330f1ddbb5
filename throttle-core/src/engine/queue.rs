//! Queues for downloads, as far as the engine has to do with them: whether a throttle gets one, and when it is closed.

use bpf::CgroupBpf;

use super::{Engine, Throttle};
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::mode::{Mode, Refusal};
use crate::spec::Spec;

/// Whether a throttle is to have a queue.
///
/// # Errors
/// When it cannot have the one that was asked for.
pub(super) fn is_wanted(spec: &Spec, mode: Mode) -> Result<bool> {
    let is_wanted = spec.queue && spec.download.is_some();
    if is_wanted && mode != Mode::Link {
        return Err(Refusal::QueueNeedsLink.into());
    }
    Ok(is_wanted)
}

impl<B: CgroupBpf> Throttle<B> {
    /// Closes its queue, if it has one, and keeps it if that fails.
    pub(super) fn close_queue(&mut self, kernel: &B) -> Result<()> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        kernel.queue_close(queue)?;
        self.queue = None;
        Ok(())
    }
}

impl<B: CgroupBpf> Engine<B> {
    /// Closes the queue of a throttle, if it has one through which packets cannot go: because somebody has removed its
    /// device or taken it down, the kernel drops what is redirected there. Returns whether it did. The limit holds
    /// without it, by dropping what is above it.
    ///
    /// # Errors
    /// When there is no such throttle, or the kernel cannot be asked, or something of the queue stays.
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
