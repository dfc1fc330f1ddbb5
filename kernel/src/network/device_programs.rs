//! Programs attached to network devices in every network namespace that can be found: XDP, tcx and netkit, with links
//! and without.
//!
//! A link's information has the number of its device, but not the device's network namespace. Each namespace numbers
//! its own devices. So this module lists the programs on the devices of each namespace.

use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage, LinkXdp,
};
use nix::errno::Errno;

use crate::error::{Call, Error, Result};
use crate::network::links::name;
use crate::network::netns::{self, Namespace, Unseen};
use crate::network::rtnetlink::all_by;
use crate::object::ids::{LinkId, ProgramId};
use crate::sys::{self, DeviceHook};

/// A program attached to a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProgram {
    /// The inode number of the device's network namespace.
    pub network_namespace: u64,
    /// A path to the network namespace, for people. `None` for this thread's own.
    pub namespace_path: Option<PathBuf>,
    /// The device's number in its network namespace.
    pub device: u32,
    /// The device's name.
    pub name: String,
    /// The hook: `xdp`, or an attach type as bpftool names it.
    pub hook: &'static str,
    /// The program's id.
    pub program_id: ProgramId,
    /// The link's id. `None` without a link, and for XDP, because the kernel does not report it.
    pub link_id: Option<LinkId>,
}

/// The programs found, and the errors met.
#[derive(Debug, Default)]
pub struct DevicePrograms {
    /// The programs, ordered by namespace and device.
    pub programs: Vec<DeviceProgram>,
    /// Errors of namespaces that could not be read, and of processes and mounts with an unknown namespace.
    pub unseen: Vec<Error>,
}

/// Lists the programs on every device in every network namespace that can be found (see
/// [`crate::netns::in_every`]).
///
/// tcx exists since 6.6, netkit since 6.7. Needs `CAP_NET_ADMIN`. Other namespaces than this thread's own need
/// `CAP_SYS_ADMIN`.
///
/// # Errors
/// When this thread's own namespace cannot be read, or processes cannot be listed.
pub fn device_programs() -> Result<DevicePrograms> {
    let mut found = DevicePrograms::default();
    let unseen = netns::in_every(None, |namespace| {
        match here(namespace) {
            Ok(programs) => found.programs.extend(programs),
            Err(error) if namespace.path.is_none() => return Err(error),
            Err(error) => found.unseen.push(error),
        }
        Ok(())
    })?;
    found.unseen.extend(unseen.into_iter().map(|it| match it {
        Unseen::Closed(error) | Unseen::Untold(error) => error,
    }));
    found.programs.sort_by_key(|it| (it.namespace_path.is_some(), it.network_namespace, it.device));
    Ok(found)
}

/// Lists the programs in this thread's network namespace.
fn here(namespace: &Namespace) -> Result<Vec<DeviceProgram>> {
    let mut asked = LinkMessage::default();
    // The counters would take most of the time, and nobody needs them here.
    asked.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let asked = RouteNetlinkMessage::GetLink(asked);
    let devices = all_by(&asked, |it| link(it).map(|it| it.header.index))?.answers;
    let mut found = Vec::new();
    for device in devices.iter().filter_map(link) {
        let on_it = |hook, (program, link): (u32, u32)| DeviceProgram {
            network_namespace: namespace.inode,
            namespace_path: namespace.path.clone(),
            device: device.header.index,
            name: name(device).unwrap_or_default().to_owned(),
            hook,
            program_id: ProgramId(program),
            link_id: (link != 0).then_some(LinkId(link)),
        };
        found.extend(xdp_programs(device).into_iter().map(|id| on_it("xdp", (id, 0))));
        for hook in hooks_of(device) {
            let programs = programs_on(device.header.index, *hook)?;
            found.extend(programs.into_iter().map(|it| on_it(hook.name(), it)));
        }
    }
    Ok(found)
}

fn programs_on(device: u32, hook: DeviceHook) -> Result<Vec<(u32, u32)>> {
    match sys::query_device(device, hook) {
        Ok(programs) => Ok(programs),
        // The device is gone, the kernel lacks this hook, or the device belongs to its peer's namespace.
        Err(Errno::ENODEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EACCES | Errno::ENOENT) => {
            Ok(Vec::new())
        }
        Err(errno) => Err(Error::new(Call::Query, format!("network device {device}"), errno)),
    }
}

/// Returns a device's XDP programs without duplicates, whatever mode they are attached in.
fn xdp_programs(device: &LinkMessage) -> Vec<u32> {
    let attributes = device.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    });
    let ids = attributes.flatten().filter_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    let mut ids: Vec<u32> = ids.filter(|id| *id != 0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn hooks_of(device: &LinkMessage) -> &'static [DeviceHook] {
    let is_netkit = device.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| match info {
            LinkInfo::Kind(InfoKind::Netkit) => true,
            LinkInfo::Kind(InfoKind::Other(kind)) => kind == "netkit",
            _ => false,
        }),
        _ => false,
    });
    if is_netkit { &DeviceHook::ALL } else { &DeviceHook::TCX }
}

fn link(answer: &RouteNetlinkMessage) -> Option<&LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_xdp_is_told_once_for_all_its_modes() {
        let mut device = LinkMessage::default();
        assert!(xdp_programs(&device).is_empty());
        device.attributes = vec![LinkAttribute::Xdp(vec![
            LinkXdp::ProgId(7),
            LinkXdp::SkbProgId(7),
            LinkXdp::DrvProgId(0),
        ])];
        assert_eq!(xdp_programs(&device), [7]);
        device.attributes.push(LinkAttribute::Xdp(vec![
            LinkXdp::HwProgId(9),
            LinkXdp::DrvProgId(8),
            LinkXdp::ProgId(0),
            LinkXdp::SkbProgId(7),
        ]));
        assert_eq!(xdp_programs(&device), [7, 8, 9], "each has programs of its own");
    }

    #[test]
    fn a_netkit_device_has_hooks_of_its_own_by_whichever_name_it_is_known() {
        let of = |kinds: &[InfoKind]| {
            let mut device = LinkMessage::default();
            let infos = kinds.iter().cloned().map(LinkInfo::Kind).collect();
            device.attributes = vec![LinkAttribute::Mtu(1_500), LinkAttribute::LinkInfo(infos)];
            hooks_of(&device).len()
        };
        let other = |kind: &str| InfoKind::Other(kind.to_owned());
        assert_eq!([of(&[InfoKind::Netkit]), of(&[other("netkit")])], [4, 4]);
        assert_eq!([of(&[]), of(&[InfoKind::Veth]), of(&[other("netkit2")])], [2, 2, 2]);
    }
}
