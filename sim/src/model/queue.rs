//! Models the devices of download queues. A device outlives its owner. The next queue to open removes the devices of
//! dead owners.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use bpf::Owner;
use bpf::queue::Swept;
use bpf::throttle::Loaded;
use kernel::boundary::Host as _;
use kernel::error::{Call, Error, Result};
use nix::errno::Errno;

use super::handles::{Model, ModelProgram};
use super::kernel::devices::Ifindex;
use super::kernel::{Kernel, Pid};

/// The queue of a process.
#[derive(Debug)]
pub struct ModelQueue {
    device: Option<Ifindex>,
    process: Pid,
    kernel: Rc<RefCell<Kernel>>,
}

impl ModelQueue {
    pub(super) fn works(&self) -> bool {
        self.device.is_some_and(|device| self.kernel.borrow().is_up(device))
    }

    pub(super) fn close(&mut self) -> Result<()> {
        let Some(device) = self.device else { return Ok(()) };
        match self.kernel.borrow_mut().remove_device(device) {
            Ok(()) | Err(Errno::ENODEV) => {}
            Err(errno) => {
                let target = format!("network device {device}");
                return Err(Error::new(Call::Netlink, target, errno));
            }
        }
        self.device = None;
        Ok(())
    }
}

impl Drop for ModelQueue {
    fn drop(&mut self) {
        // A killed process runs no destructor.
        let is_alive = self.process == 0 || self.kernel.borrow().is_alive(self.process);
        if is_alive {
            let _ = self.close();
        }
    }
}

impl Model {
    pub(super) fn open_queue(
        &self,
        programs: &Loaded<ModelProgram>,
        cgroup: &Path,
        owner: &Owner,
    ) -> Result<ModelQueue> {
        let fail = |call, errno| Error::new(call, cgroup.display().to_string(), errno);
        if programs.queue.is_none() {
            return Err(fail(Call::Load, Errno::ENOENT));
        }
        if !self.kernel.borrow().version().since(6, 6) {
            return Err(fail(Call::DeviceLink, Errno::EINVAL));
        }
        // A device that cannot be removed does not keep a new queue from opening.
        let _ = self.sweep();
        let device = self.kernel.borrow_mut().make_device(owner);
        let kernel = Rc::clone(&self.kernel);
        Ok(ModelQueue { device: Some(device), process: self.process, kernel })
    }

    /// Removes the queues of dead owners, as [`bpf::queue::sweep`] does.
    pub(super) fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        for (device, left_by) in self.queue_devices() {
            if self.is_alive(&left_by.process()) != Ok(Some(false)) {
                continue;
            }
            let name = format!("network device {device}");
            match self.remove_device(device) {
                Ok(()) => swept.removed.push(name),
                Err(errno) => swept.failed.push(Error::new(Call::Netlink, name, errno)),
            }
        }
        swept
    }

    /// Returns the devices of queues, each with its owner.
    pub fn queue_devices(&self) -> Vec<(Ifindex, Owner)> {
        let kernel = self.kernel.borrow();
        kernel.devices().map(|(device, found)| (device, found.owner.clone())).collect()
    }

    /// Removes any network device.
    ///
    /// # Errors
    /// `ENODEV` if there is no such device, or `EBUSY` if it is busy.
    pub fn remove_device(&self, device: Ifindex) -> nix::Result<()> {
        self.kernel.borrow_mut().remove_device(device)
    }

    /// Marks a network device as busy or not. A busy device cannot be removed.
    ///
    /// # Errors
    /// `ENODEV` if there is no such device.
    pub fn set_busy(&self, device: Ifindex, busy: bool) -> nix::Result<()> {
        self.kernel.borrow_mut().set_busy(device, busy)
    }

    /// Takes any network device down.
    ///
    /// # Errors
    /// `ENODEV` if there is no such device.
    pub fn take_down(&self, device: Ifindex) -> nix::Result<()> {
        self.kernel.borrow_mut().take_down(device)
    }
}
