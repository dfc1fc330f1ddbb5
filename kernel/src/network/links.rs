//! Network devices in rtnetlink: names and kinds, removing a device, and the devices that the `ifb` module creates.

use std::fs::File;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use crate::error::{Call, Error, Kind, Result};
use crate::network::netns;
use crate::network::rtnetlink::{all, tell};

/// Returns the name of a device.
pub fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Tells whether a device is an `ifb`.
pub fn is_ifb(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Ifb)),
        _ => false,
    })
}

/// Returns a device's alias (`ip link set alias`).
pub fn alias(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

/// Lists the devices of this thread's network namespace. Needs no capability.
///
/// # Errors
/// `EAGAIN` when devices came or went during every attempt.
pub fn here() -> Result<Vec<LinkMessage>> {
    let answers = all(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

/// Removes a device of this thread's network namespace by its number. Removing a device that is already gone succeeds.
///
/// Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(device: u32) -> Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = device;
    let target = format!("network device {device}");
    match tell(RouteNetlinkMessage::DelLink(link), 0, &target) {
        Err(error) if error.kind() != Kind::Vanished => Err(error),
        _ => Ok(()),
    }
}

/// The names of the two devices that the kernel's ifb module creates in the first network namespace when it is loaded.
/// Nobody has asked for them.
const MADE_BY_THE_MODULE: [&str; 2] = ["ifb0", "ifb1"];

/// Returns the numbers of devices with these names in the first network namespace. `None` if that namespace is not
/// visible.
///
/// # Errors
/// When that namespace cannot be entered or its devices cannot be listed, unless a capability is missing.
pub fn left_by_the_module() -> Result<Option<Vec<u32>>> {
    let Ok(first) = File::open("/proc/1/ns/net") else { return Ok(None) };
    let listed = netns::inside(&first, || {
        let links = here()?.into_iter();
        let is_one = |link: &LinkMessage| {
            is_ifb(link) && name(link).is_some_and(|name| MADE_BY_THE_MODULE.contains(&name))
        };
        Ok(links.filter(is_one).map(|link| link.header.index).collect())
    });
    match listed {
        Err(error) if error.kind() == Kind::Denied => Ok(None),
        listed => listed.map(Some),
    }
}

/// Removes the module's devices that did not exist `before`.
///
/// # Errors
/// When the devices cannot be listed or removed.
pub fn take_back_the_modules(before: Option<&Vec<u32>>) -> Result<()> {
    let (Some(before), Some(after)) = (before, left_by_the_module()?) else { return Ok(()) };
    let new: Vec<_> = after.into_iter().filter(|device| !before.contains(device)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let first = File::open("/proc/1/ns/net")
        .map_err(|error| Error::from_io(Call::ReadProc, "/proc/1/ns/net", &error))?;
    netns::inside(&first, || new.iter().try_for_each(|device| remove(*device)))
}
