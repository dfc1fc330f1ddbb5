//! Where packets above a limit wait for their turn.

/// The network devices that keep to departure times, by their numbers (ifindex); at most [`FqDevices::MOST`].
///
/// A number tells a device from others in its network namespace, not on the host: of several namespaces it stands for
/// each device that has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FqDevices([u32; Self::MOST]);

impl FqDevices {
    /// So many a throttle knows: `FQ_DEVICES`.
    pub const MOST: usize = 8;

    /// None.
    pub const NONE: Self = Self([0; Self::MOST]);

    /// Those of a throttle's state.
    pub(crate) fn from_state(numbers: [u32; Self::MOST]) -> Self {
        Self(numbers)
    }

    /// As they lie in a throttle's state: zeros where there is none.
    pub(crate) fn for_state(self) -> [u32; Self::MOST] {
        self.0
    }

    /// Whether this is one of them.
    pub fn contains(&self, number: u32) -> bool {
        self.numbers().any(|it| it == number)
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.numbers().next().is_none()
    }

    /// Their numbers, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied().filter(|&number| number != 0)
    }
}

/// Of more than [`FqDevices::MOST`] those with the lowest numbers.
impl FromIterator<u32> for FqDevices {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let numbers: std::collections::BTreeSet<_> =
            numbers.into_iter().filter(|&it| it != 0).collect();
        let mut kept = Self::NONE;
        kept.0.iter_mut().zip(numbers).for_each(|(kept, number)| *kept = number);
        kept
    }
}

/// Where packets above the rate wait instead of being dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Departures {
    /// Nowhere.
    #[default]
    Never,
    /// Those that are received: in the throttle's own queue (for people to read; the queue works by itself).
    Queue,
    /// Those that are sent: in `fq`, where they leave through one of these devices. They carry the time at which they
    /// are to leave. Through others they leave at once or are dropped.
    Fq(FqDevices),
}

impl Departures {
    /// Whether any packet waits.
    pub fn wait(self) -> bool {
        self.devices().is_some_and(|devices| !devices.is_empty()) || self == Self::Queue
    }

    /// The devices with `fq`, if it is these that packets wait for.
    pub fn devices(self) -> Option<FqDevices> {
        match self {
            Self::Fq(devices) => Some(devices),
            Self::Never | Self::Queue => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_kept_each_once_and_of_too_many_the_first() {
        let devices: FqDevices = [7, 2, 7, 0, 40].into_iter().collect();
        assert_eq!(devices.numbers().collect::<Vec<_>>(), [2, 7, 40]);
        assert!(devices.contains(7) && !devices.contains(3));
        assert!(!devices.contains(0), "no device has the number 0");
        let many: FqDevices = (1..=9).rev().collect();
        assert_eq!(many.numbers().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        assert!(!devices.is_empty() && FqDevices::NONE.is_empty());
        assert_eq!(FqDevices::from_state(devices.for_state()), devices);
    }

    #[test]
    fn packets_wait_in_a_queue_or_where_a_device_has_fq() {
        let one: FqDevices = [2].into_iter().collect();
        assert!(Departures::Queue.wait() && Departures::Fq(one).wait());
        assert!(!Departures::Never.wait() && !Departures::Fq(FqDevices::NONE).wait());
    }
}
