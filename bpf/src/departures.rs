//! Where packets above a limit wait.

use kernel::qdisc::Device;

/// The network devices that keep departure times, as interface numbers (ifindex); at most [`FqDevices::MOST`].
///
/// A number is unique only in one network namespace. With several namespaces it stands for each device with that
/// number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FqDevices([u32; Self::MOST]);

impl FqDevices {
    /// The most devices that a throttle's state can hold (`FQ_DEVICES`).
    pub const MOST: usize = 8;

    /// No device.
    pub const NONE: Self = Self([0; Self::MOST]);

    /// Reads the devices from a throttle's state.
    pub(crate) fn from_state(numbers: [u32; Self::MOST]) -> Self {
        Self(numbers)
    }

    /// Returns the devices for a throttle's state, with zeros in unused places.
    pub(crate) fn for_state(self) -> [u32; Self::MOST] {
        self.0
    }

    /// Tells whether the device with this number is included.
    pub fn contains(&self, number: u32) -> bool {
        self.numbers().any(|it| it == number)
    }

    /// Tells whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.numbers().next().is_none()
    }

    /// Returns the numbers of the devices, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied().filter(|&number| number != 0)
    }
}

/// Keeps the lowest numbers if there are more than [`FqDevices::MOST`].
impl FromIterator<u32> for FqDevices {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let numbers: std::collections::BTreeSet<_> =
            numbers.into_iter().filter(|&it| it != 0).collect();
        let mut kept = Self::NONE;
        kept.0.iter_mut().zip(numbers).for_each(|(kept, number)| *kept = number);
        kept
    }
}

/// Returns the devices with `fq` in two lists: first those that a throttle's state can hold, then those beyond
/// [`FqDevices::MOST`]. Packets do not wait in the latter.
pub fn with_fq(devices: &[Device]) -> (Vec<&Device>, Vec<&Device>) {
    let with = devices.iter().filter(|device| device.keeps_departures());
    let known: FqDevices = with.clone().map(|device| device.number).collect();
    with.partition(|device| known.contains(device.number))
}

/// Where packets above the rate wait, if the program does not drop them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Departures {
    /// Packets do not wait.
    #[default]
    Never,
    /// Received packets wait in the throttle's own queue. The value is for people to read; the queue works without it.
    Queue,
    /// Sent packets that leave through one of these devices wait in its `fq`. They carry their departure time. Through
    /// other devices packets leave at once, or the program drops them.
    Fq(FqDevices),
}

impl Departures {
    /// Tells whether any packet waits.
    pub fn wait(self) -> bool {
        self.devices().is_some_and(|devices| !devices.is_empty()) || self == Self::Queue
    }

    /// Returns the devices with `fq`; `None` unless sent packets wait.
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

    fn device(number: u32, name: &str, qdiscs: &[&str]) -> Device {
        let qdiscs = qdiscs.iter().map(|&it| it.to_owned()).collect();
        Device { number, name: name.to_owned(), qdiscs }
    }

    #[test]
    fn of_too_many_devices_with_fq_those_that_no_throttle_knows_are_told_apart() {
        let count = u32::try_from(FqDevices::MOST).unwrap();
        let numbers = |devices: &[&Device]| devices.iter().map(|it| it.number).collect::<Vec<_>>();
        for beyond in 0..3 {
            // The devices come in descending order, and one has no fq.
            let mut devices: Vec<_> =
                (1..=count + beyond).rev().map(|it| device(it, "eth", &["mq", "fq"])).collect();
            devices.insert(1, device(99, "wg0", &["fq_codel"]));
            let (known, unknown) = with_fq(&devices);
            assert_eq!(numbers(&known), (1..=count).rev().collect::<Vec<_>>());
            assert_eq!(numbers(&unknown), (count + 1..=count + beyond).rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn packets_wait_in_a_queue_or_where_a_device_has_fq() {
        let one: FqDevices = [2].into_iter().collect();
        assert!(Departures::Queue.wait() && Departures::Fq(one).wait());
        assert!(!Departures::Never.wait() && !Departures::Fq(FqDevices::NONE).wait());
    }
}
