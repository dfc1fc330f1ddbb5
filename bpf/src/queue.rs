//! A queue for the downloads of one cgroup: a device of ours (ifb) with fq, to which the cgroup's packets are redirected
//! as they come in. See `programs/queue.h`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::errno::Errno;

use crate::error::{Call, Error, Kind, Result};
use crate::netns;
use crate::owner::Owner;
use crate::program::QUEUE_KEY;
use crate::rtnetlink::{all, tell};
use crate::sys::{self, Map, Tcx, bytes_of};
use crate::throttle::Loaded;

/// What the names of our devices begin with.
const NAME: &str = "chadq";

/// fq's own limits are for hosts that send: all flows together, and each, in packets (which GRO has put together).
const LIMIT: u32 = 100_000;
/// `TCA_OPTIONS`, `TCA_FQ_PLIMIT` and `TCA_FQ_FLOW_PLIMIT`.
const OPTIONS: u16 = 2;
const FQ_LIMITS: [u16; 2] = [1, 2];

/// A queue that packets go through.
///
/// If the process dies, the links go with it, so that packets come in as they did before; the device stays, idle, until
/// the next queue in that network namespace is opened, or [`sweep`] is called there.
#[must_use = "dropping a queue closes it, but does not tell of errors"]
#[derive(Debug)]
pub struct Queue {
    namespace: File,
    device: Option<u32>,
    links: Vec<OwnedFd>,
}

/// What is attached, and what tells it where to.
struct Programs<'a> {
    redirect: BorrowedFd<'a>,
    depart: BorrowedFd<'a>,
    settings: &'a Map,
}

impl Queue {
    /// Makes the device and redirects to it what comes in for the cgroup, on each device with Ethernet headers that is
    /// up and belongs to no other (a bridge, say). Devices that come later are not looked at. Packets pass unhindered
    /// until the download's state is written.
    ///
    /// In the network namespace of the cgroup's processes, or the caller's if there are none. Needs Linux 6.6, fq,
    /// ifb, `CAP_NET_ADMIN`, `CAP_BPF` and, for another namespace than the caller's, `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// When the processes live in several network namespaces, or the kernel lacks what is needed. Nothing stays behind then.
    pub fn open(programs: &Loaded, cgroup: &Path, owner: &Owner) -> Result<Self> {
        let missing = || Error::new(Call::Load, "the programs of a queue", Errno::ENOENT);
        let programs = programs.queue.as_ref().ok_or_else(missing)?;
        let programs = Programs {
            redirect: programs.redirect.as_fd(),
            depart: programs.depart.as_fd(),
            settings: &programs.settings,
        };
        let namespace = netns::only(cgroup)?;
        let again = namespace
            .try_clone()
            .map_err(|error| Error::from_io(Call::ReadProc, "a network namespace", &error))?;
        netns::inside(&again, || {
            // Whatever fails from here on, dropping it takes back what was done.
            let mut queue = Self { namespace, device: None, links: Vec::new() };
            let _ = sweep_here();
            let device = make_device()?;
            queue.device = Some(device);
            prepare_device(device, owner)?;
            queue.redirect(&programs, device)?;
            Ok(queue)
        })
    }

    /// In the queue's own namespace.
    fn redirect(&mut self, programs: &Programs<'_>, device: u32) -> Result<()> {
        programs
            .settings
            .update(bytes_of(&QUEUE_KEY), bytes_of(&device))
            .map_err(|errno| Error::new(Call::MapUpdate, "chad_redirect", errno))?;
        let link = |program, device: u32, place| {
            sys::link_on_device(program, device, place).map_err(|errno| {
                let error = Error::new(Call::LinkCreate, format!("network device {device}"), errno);
                match errno {
                    Errno::EINVAL => {
                        error.with_detail("a queue needs Linux 6.6 or newer (tcx links)")
                    }
                    _ => error,
                }
            })
        };
        self.links.push(link(programs.depart, device, Tcx::Egress)?);
        let sources = sources(&all(RouteNetlinkMessage::GetLink(LinkMessage::default()))?);
        if sources.is_empty() {
            let error = Error::new(Call::Netlink, "network devices", Errno::ENODEV);
            return Err(error.with_detail("there is none with Ethernet headers that is up"));
        }
        for source in sources {
            self.links.push(link(programs.redirect, source, Tcx::Ingress)?);
        }
        Ok(())
    }

    /// Takes the programs off the devices and removes ours, and looks whether it is gone. What waits in it is lost, as
    /// when a queue is full. Can be called again.
    ///
    /// # Errors
    /// When it could not be removed, or not be seen to be gone.
    pub fn close(&mut self) -> Result<()> {
        self.links.clear();
        let Some(device) = self.device else { return Ok(()) };
        netns::inside(&self.namespace, || {
            remove_device(device)?;
            if links_here()?.iter().any(|link| link.header.index == device) {
                let error =
                    Error::new(Call::Netlink, format!("network device {device}"), Errno::EEXIST);
                return Err(error.with_detail("it was removed, and is still there"));
            }
            Ok(())
        })?;
        self.device = None;
        Ok(())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // An error cannot be told from here; the next queue, or `sweep`, removes what stays.
        let _ = self.close();
    }
}

/// Removes devices of ours, in the caller's network namespace, whose owners have died. Returns their names.
///
/// # Errors
/// When devices cannot be listed or removed.
pub fn sweep() -> Result<Vec<String>> {
    sweep_here()
}

fn sweep_here() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for link in links_here()? {
        let Some((name, owner)) = ours(&link) else { continue };
        // One in another pid namespace cannot be told to be dead.
        if owner.is_alive()? == Some(false) {
            remove_device(link.header.index)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The name and the owner of a device, if it is one of ours.
fn ours(link: &LinkMessage) -> Option<(String, Owner)> {
    let name = name(link).filter(|name| name.starts_with(NAME) && is_ifb(link))?;
    let alias = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias),
        _ => None,
    })?;
    Some((name.to_owned(), serde_json::from_str(alias).ok()?))
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn is_ifb(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Ifb)),
        _ => false,
    })
}

/// The devices from which a host gets packets: those with Ethernet headers that are up, but for the loopback, ours and
/// other ifb devices, and those that only hand on to another device.
fn sources(links: &[RouteNetlinkMessage]) -> Vec<u32> {
    let is_source = |link: &LinkMessage| {
        let flags = link.header.flags;
        let handed_on = |it: &LinkAttribute| matches!(it, LinkAttribute::Controller(_));
        link.header.link_layer_type == LinkLayerType::Ether
            && flags.contains(LinkFlags::Up)
            && !flags.contains(LinkFlags::Loopback)
            && !link.attributes.iter().any(handed_on)
            && !is_ifb(link)
    };
    links
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) if is_source(link) => Some(link.header.index),
            _ => None,
        })
        .collect()
}

fn links_here() -> Result<Vec<LinkMessage>> {
    let answers = all(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

/// Makes an ifb device under the first free name; returns its number.
fn make_device() -> Result<u32> {
    let before = links_here()?;
    let name = (0..=before.len())
        .map(|n| format!("{NAME}{n}"))
        .find(|free| before.iter().all(|link| self::name(link) != Some(free)))
        .unwrap_or_else(|| NAME.to_owned());
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.clone()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    match tell(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, &name) {
        Ok(()) => {}
        // Somebody was faster.
        Err(error) if error.errno() == Errno::EEXIST => return make_device(),
        Err(error) if error.errno() == Errno::EOPNOTSUPP => {
            return Err(error.with_detail("this kernel has no ifb devices (CONFIG_IFB)"));
        }
        Err(error) => return Err(error),
    }
    let after = links_here()?;
    // The kernel's module, when it is loaded, makes two that nobody has asked for.
    for link in &after {
        let is_new = before.iter().all(|it| it.header.index != link.header.index);
        if is_new && is_ifb(link) && matches!(self::name(link), Some("ifb0" | "ifb1")) {
            remove_device(link.header.index)?;
        }
    }
    let ours = after.iter().find(|link| self::name(link) == Some(&name));
    ours.map(|link| link.header.index).ok_or_else(|| Error::new(Call::Netlink, name, Errno::ENODEV))
}

/// Writes its owner on a device, gives it fq, and takes it up.
fn prepare_device(device: u32, owner: &Owner) -> Result<()> {
    let target = format!("network device {device}");
    let alias = serde_json::to_string(owner).map_err(|error| {
        Error::new(Call::Netlink, &*target, Errno::EINVAL).with_detail(error.to_string())
    })?;
    let mut link = LinkMessage::default();
    link.header.index = device;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![LinkAttribute::IfAlias(alias)];
    tell(RouteNetlinkMessage::SetLink(link), 0, &target)?;

    let mut qdisc = TcMessage::with_index(device.cast_signed());
    qdisc.header.parent = TcHandle::ROOT;
    let limits = FQ_LIMITS.into_iter().flat_map(|kind| attribute(kind, LIMIT));
    qdisc.attributes = vec![
        TcAttribute::Kind("fq".to_owned()),
        TcAttribute::Other(DefaultNla::new(OPTIONS, limits.collect())),
    ];
    tell(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL, &target)
        .map_err(|error| match error.kind() {
            Kind::Vanished => error.with_detail("this kernel has no fq (CONFIG_NET_SCH_FQ)"),
            _ => error,
        })
}

/// An attribute as rtnetlink has it: length, kind, value.
fn attribute(kind: u16, value: u32) -> Vec<u8> {
    [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
}

/// Removes a device. That it is gone already is no error.
fn remove_device(device: u32) -> Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = device;
    let target = format!("network device {device}");
    match tell(RouteNetlinkMessage::DelLink(link), 0, &target) {
        Err(error) if error.kind() != Kind::Vanished => Err(error),
        _ => Ok(()),
    }
}
