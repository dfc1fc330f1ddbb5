//! Network devices with a queue device's name, in all network namespaces: finding them, and removing one that was left
//! behind. See [`crate::queue`].

use std::path::PathBuf;

use kernel::netns::{self, Namespace, Unseen};
use kernel::rtnetlink::all_by;
use kernel::{Error, Result, links};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use crate::owner::Owner;
use crate::queue::pid_of;

/// A network device with a queue device's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The inode number of the device's network namespace.
    pub network_namespace: u64,
    /// A path to the network namespace, for people. `None` for this thread's own.
    pub path: Option<PathBuf>,
    /// The device's number in its network namespace.
    pub index: u32,
    /// The device's name.
    pub name: String,
    /// The device is an `ifb`.
    pub is_ifb: bool,
    /// The device's alias.
    pub alias: Option<String>,
}

/// The devices found, and the errors met.
#[derive(Debug, Default)]
pub struct Devices {
    /// Devices with a queue device's name, whoever created them.
    pub devices: Vec<Device>,
    /// The number of network namespaces searched.
    pub namespaces: u64,
    /// The number of those namespaces where devices came or went during every attempt to list them. A device is missing
    /// only if every list lacked it.
    pub changing: u64,
    /// Errors of known namespaces that could not be searched.
    pub unreadable: Vec<Error>,
    /// Errors of processes and mounts with an unknown namespace.
    pub unseen: Vec<Error>,
}

/// Returns the owner of a queue's device. The device must be an `ifb`, and its name and alias must name the same pid.
/// `None` for any other device.
pub fn owner_of(name: &str, is_ifb: bool, alias: Option<&str>) -> Option<Owner> {
    let pid = pid_of(name).filter(|_| is_ifb)?;
    let owner: Owner = serde_json::from_str(alias?).ok()?;
    (owner.pid == pid).then_some(owner)
}

/// Finds devices with a queue device's name in every network namespace that can be found. These are this thread's own,
/// those of all processes, and mounted ones (`ip netns`).
///
/// A namespace kept only by a descriptor, or by a mount in another mount namespace, is not found. Other namespaces need
/// `CAP_SYS_ADMIN`, and other users' processes need `CAP_SYS_PTRACE`.
///
/// # Errors
/// When this thread's own namespace cannot be searched, or processes cannot be listed.
pub fn devices() -> Result<Devices> {
    let mut found = Devices::default();
    let unseen = netns::in_every(None, |namespace| {
        match here(namespace) {
            Ok((devices, is_whole)) => {
                found.namespaces += 1;
                found.changing += u64::from(!is_whole);
                found.devices.extend(devices);
            }
            Err(error) if namespace.path.is_none() => return Err(error),
            Err(error) => found.unreadable.push(error),
        }
        Ok(())
    })?;
    for it in unseen {
        match it {
            Unseen::Closed(error) => found.unreadable.push(error),
            Unseen::Untold(error) => found.unseen.push(error),
        }
    }
    found.devices.sort_by_key(|it| (it.path.is_some(), it.network_namespace, it.index));
    Ok(found)
}

/// The result of removing a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The device was removed, and is gone.
    Removed,
    /// The device's namespace was not found, or no device there has the number.
    Gone,
    /// The number belongs to another device, or the name or alias has changed. Nothing was touched.
    Changed,
    /// The kernel reported success, but the device still exists.
    StillThere,
}

/// Removes a device by its number, and verifies that it is gone. First checks that the device is unchanged since it was
/// found, and that `is_left_behind` agrees.
///
/// Between check and removal no other device can get the number. A namespace reuses a number only after all others, or
/// when somebody requests that number.
///
/// Needs `CAP_NET_ADMIN`. Other namespaces need `CAP_SYS_ADMIN` too.
///
/// # Errors
/// Those of `is_left_behind`, and when the kernel refuses.
pub fn remove(
    device: &Device,
    is_left_behind: impl Fn(&Device) -> Result<bool> + Sync,
) -> Result<Removal> {
    let mut removal = None;
    let is_it = |it: &Device| it.index == device.index;
    let unseen = netns::in_every(Some(device.network_namespace), |namespace| {
        let found = here(namespace)?.0.into_iter().find(is_it);
        let is_there = || Ok(links::here()?.iter().any(|link| link.header.index == device.index));
        let remove = || links::remove(device.index);
        removal = Some(remove_found(device, found.as_ref(), &is_left_behind, is_there, remove)?);
        Ok(())
    })?;
    removal.map_or_else(|| not_met(unseen), Ok)
}

/// Decides the result for a device whose namespace was not entered. The namespace may be one that could not be entered.
fn not_met(unseen: Vec<Unseen>) -> Result<Removal> {
    let closed = unseen.into_iter().find_map(|it| match it {
        Unseen::Closed(error) => Some(error),
        // The namespace was visible when the device was found. No visible process or mount has it now.
        Unseen::Untold(_) => None,
    });
    closed.map_or(Ok(Removal::Gone), Err)
}

/// Removes a device if the device found at its number is unchanged. `is_there` tells whether any device has the number.
fn remove_found(
    device: &Device,
    found: Option<&Device>,
    is_left_behind: impl Fn(&Device) -> Result<bool>,
    is_there: impl Fn() -> Result<bool>,
    remove: impl FnOnce() -> Result<()>,
) -> Result<Removal> {
    let Some(found) = found else {
        // The device is gone, or has another name now.
        return Ok(if is_there()? { Removal::Changed } else { Removal::Gone });
    };
    if (&found.name, found.is_ifb, &found.alias) != (&device.name, device.is_ifb, &device.alias)
        || !is_left_behind(found)?
    {
        return Ok(Removal::Changed);
    }
    remove()?;
    Ok(if is_there()? { Removal::StillThere } else { Removal::Removed })
}

/// Lists the devices of this thread's network namespace, and tells whether they stayed the same meanwhile.
fn here(namespace: &Namespace) -> Result<(Vec<Device>, bool)> {
    let mut asked = LinkMessage::default();
    // A kernel with ifb then lists ifb devices only. A host may have thousands of others.
    asked.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)])];
    let dump =
        all_by(&RouteNetlinkMessage::GetLink(asked), |it| link(it).map(|it| it.header.index))?;
    let device = |link: &LinkMessage| {
        let name = links::name(link).filter(|name| pid_of(name).is_some())?.to_owned();
        let alias = links::alias(link).map(str::to_owned);
        Some(Device {
            network_namespace: namespace.inode,
            path: namespace.path.clone(),
            index: link.header.index,
            name,
            is_ifb: links::is_ifb(link),
            alias,
        })
    };
    let devices = dump.answers.iter().filter_map(link).filter_map(device).collect();
    Ok((devices, dump.is_whole))
}

fn link(answer: &RouteNetlinkMessage) -> Option<&LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nix::errno::Errno;

    use super::*;
    use kernel::error::Call;

    #[test]
    fn a_device_is_gone_with_its_namespace_and_not_if_that_cannot_be_entered() {
        let error = || Error::new(Call::SetNs, "x", Errno::EPERM);
        assert_eq!(not_met(Vec::new()), Ok(Removal::Gone));
        assert_eq!(not_met(vec![Unseen::Untold(error())]), Ok(Removal::Gone));
        let closed = vec![Unseen::Untold(error()), Unseen::Closed(error())];
        assert_eq!(not_met(closed), Err(error()));
    }

    #[test]
    fn only_the_device_that_was_found_is_removed_and_only_if_it_is_left_behind() {
        let device = Device {
            network_namespace: 1,
            path: None,
            index: 7,
            name: "chadq4711a".to_owned(),
            is_ifb: true,
            alias: Some("{}".to_owned()),
        };
        // Returns the result, and whether the device was touched.
        let removed = |found: Option<&Device>, is_left_behind: bool, is_there: bool| {
            let touched = Cell::new(false);
            let remove = || {
                touched.set(true);
                Ok(())
            };
            let left_behind = |it: &Device| {
                assert_eq!(it, found.unwrap(), "as it is now");
                Ok(is_left_behind)
            };
            let removal = remove_found(&device, found, left_behind, || Ok(is_there), remove);
            (removal.unwrap(), touched.get())
        };
        assert_eq!(removed(None, true, false), (Removal::Gone, false));
        assert_eq!(removed(None, true, true), (Removal::Changed, false));
        assert_eq!(removed(Some(&device), true, false), (Removal::Removed, true));
        assert_eq!(removed(Some(&device), true, true), (Removal::StillThere, true));
        for is_there in [false, true] {
            assert_eq!(removed(Some(&device), false, is_there), (Removal::Changed, false));
            for other in [
                Device { name: "chadq4711b".to_owned(), ..device.clone() },
                Device { is_ifb: false, ..device.clone() },
                Device { alias: None, ..device.clone() },
                Device { alias: Some("{} ".to_owned()), ..device.clone() },
            ] {
                assert_eq!(removed(Some(&other), true, is_there), (Removal::Changed, false));
            }
            // The path to the namespace does not identify the device.
            let elsewhere = Device { path: Some("/run/netns/x".into()), ..device.clone() };
            assert!(removed(Some(&elsewhere), true, is_there).1);
        }
        let refused = || Err(Error::found(Call::Netlink, "7", Errno::EBUSY));
        let failed = remove_found(&device, Some(&device), |_| Ok(true), || Ok(false), refused);
        assert_eq!(failed.unwrap_err().errno(), Errno::EBUSY);
    }

    #[test]
    fn a_device_is_a_queues_only_by_name_kind_and_alias_together() {
        let owner = Owner::this_process("test").unwrap();
        let alias = serde_json::to_string(&owner).unwrap();
        let mine = format!("chadq{}a", owner.pid);
        let other = format!("chadq{}a", owner.pid + 1);
        assert_eq!(owner_of(&mine, true, Some(&alias)), Some(owner));
        for (name, is_ifb, alias) in [
            (&*mine, false, Some(&*alias)),
            ("ifb0", true, Some(&alias)),
            (&other, true, Some(&alias)),
            (&mine, true, Some("somebody's")),
            (&mine, true, None),
        ] {
            assert_eq!(owner_of(name, is_ifb, alias), None, "{name} {is_ifb} {alias:?}");
        }
    }
}
