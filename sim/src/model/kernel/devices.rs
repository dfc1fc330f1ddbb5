//! Models the network devices of download queues: whether each exists and is up.

use bpf::Owner;
use nix::errno::Errno;

use super::Kernel;

/// The number of a network device.
pub(crate) type Ifindex = u32;

/// The device of a queue. It has no holder, so it stays when its owner ends.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// The owner that the device's alias names.
    pub(crate) owner: Owner,
    up: bool,
    busy: bool,
}

impl Kernel {
    pub(crate) fn make_device(&mut self, owner: &Owner) -> Ifindex {
        let number = self.number();
        self.devices.insert(number, Device { owner: owner.clone(), up: true, busy: false });
        number
    }

    /// Models `RTM_DELLINK`.
    pub(crate) fn remove_device(&mut self, device: Ifindex) -> nix::Result<()> {
        match self.devices.get(&device) {
            None => Err(Errno::ENODEV),
            Some(found) if found.busy => Err(Errno::EBUSY),
            Some(_) => {
                self.devices.remove(&device);
                Ok(())
            }
        }
    }

    pub(crate) fn take_down(&mut self, device: Ifindex) -> nix::Result<()> {
        self.device(device).map(|it| it.up = false)
    }

    /// Marks a device as busy or not. A busy device cannot be removed.
    pub(crate) fn set_busy(&mut self, device: Ifindex, busy: bool) -> nix::Result<()> {
        self.device(device).map(|it| it.busy = busy)
    }

    fn device(&mut self, device: Ifindex) -> nix::Result<&mut Device> {
        self.devices.get_mut(&device).ok_or(Errno::ENODEV)
    }

    /// Tells whether a device is up. The kernel drops packets redirected to a device that is gone or down.
    pub(crate) fn is_up(&self, device: Ifindex) -> bool {
        self.devices.get(&device).is_some_and(|it| it.up)
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = (Ifindex, &Device)> {
        self.devices.iter().map(|(&number, device)| (number, device))
    }
}
