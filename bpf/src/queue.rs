//! A queue for the downloads of one cgroup: an ifb device with fq. Programs redirect the cgroup's received packets to
//! the device. See `programs/queue.h`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kernel::error::{Call, Kind};
use kernel::process::is_pid_in_use;
use kernel::rtnetlink::{all, tell};
use kernel::{Error, Link, Map, Result, Way, links, netns, release};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::errno::Errno;
use zerocopy::IntoBytes;

use crate::owner::Owner;
use crate::program::QUEUE_KEY;
use crate::throttle::Loaded;

/// The prefix of our devices' names. The owner's pid and one letter follow.
const NAME: &str = "chadq";
/// The number of letters.
const MOST: u8 = 26;

/// Replaces fq's own limits, which suit hosts that send: one for all flows together, and one for each flow. In packets,
/// as GRO has merged them.
const LIMIT: u32 = 100_000;
/// `TCA_OPTIONS`, `TCA_FQ_PLIMIT` and `TCA_FQ_FLOW_PLIMIT`.
const OPTIONS: u16 = 2;
const FQ_LIMITS: [u16; 2] = [1, 2];

/// An open queue for downloads.
///
/// If the process dies, its links end, and packets arrive as before. The device stays idle until somebody opens the
/// next queue in this network namespace or calls [`sweep`] there. The device also ends with the namespace.
#[must_use = "dropping a queue closes it, but does not tell of errors"]
#[derive(Debug)]
pub struct Queue {
    namespace: File,
    device: Option<u32>,
    links: Vec<Link>,
}

/// The programs to attach, and the map that names the queue's device.
struct Programs<'a> {
    redirect: BorrowedFd<'a>,
    depart: BorrowedFd<'a>,
    settings: &'a Map,
}

impl Queue {
    /// Creates the queue's device, and redirects the cgroup's received packets to it. Packets pass without a limit
    /// until the download's state is written.
    ///
    /// Redirects from each device that is up, has Ethernet headers and belongs to no other device (such as a bridge).
    /// Devices that come later are not redirected.
    ///
    /// The queue is in the network namespace of the cgroup's processes, or in the caller's if there are none. Needs
    /// Linux 6.6, fq, ifb, `CAP_NET_ADMIN` and `CAP_BPF`. Another namespace than the caller's needs `CAP_SYS_ADMIN`
    /// too.
    ///
    /// # Errors
    /// When the processes are in several network namespaces, or the kernel lacks a feature. Nothing stays behind then.
    pub fn open(programs: &Loaded, cgroup: &Path, owner: &Owner) -> Result<Self> {
        let missing = || {
            Error::found(Call::Load, "the programs of a queue", Errno::ENOENT)
                .with_detail("they were not asked for")
        };
        let programs = programs.queue.as_ref().ok_or_else(missing)?;
        let programs = Programs {
            redirect: programs.redirect.as_fd(),
            depart: programs.depart.as_fd(),
            settings: programs.redirect.settings().ok_or_else(missing)?,
        };
        let namespace = netns::only(cgroup)?;
        let again = namespace
            .try_clone()
            .map_err(|error| Error::from_io(Call::ReadProc, "a network namespace", &error))?;
        netns::inside(&again, || {
            // Dropping the queue undoes the steps so far, whichever step fails.
            let mut queue = Self { namespace, device: None, links: Vec::new() };
            let _ = sweep();
            let device = make_device(owner)?;
            queue.device = Some(device);
            prepare_device(device, owner)?;
            queue.redirect(&programs, device)?;
            Ok(queue)
        })
    }

    /// Attaches the programs. The caller must be in the queue's network namespace.
    fn redirect(&mut self, programs: &Programs<'_>, device: u32) -> Result<()> {
        programs.settings.update(QUEUE_KEY.as_bytes(), device.as_bytes())?;
        let link = |program, device: u32, way| {
            Link::create_on_device(program, device, way).map_err(|error| match error.errno() {
                Errno::EINVAL if release::running().is_some_and(|it| it < (6, 6)) => {
                    error.with_detail("a queue needs Linux 6.6 or newer (tcx links)")
                }
                _ => error,
            })
        };
        self.links.push(link(programs.depart, device, Way::Egress)?);
        let sources = sources(&all(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?);
        if sources.is_empty() {
            let error = Error::found(Call::Netlink, "network devices", Errno::ENODEV);
            return Err(error.with_detail("there is none with Ethernet headers that is up"));
        }
        for source in sources {
            self.links.push(link(programs.redirect, source, Way::Ingress)?);
        }
        Ok(())
    }

    /// Tells whether the queue's device still exists and is up. The kernel drops packets that are redirected to a
    /// device that is gone or down.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    pub fn works(&self) -> Result<bool> {
        let Some(device) = self.device else { return Ok(false) };
        netns::inside(&self.namespace, || {
            let is_up = |link: &LinkMessage| {
                link.header.index == device && link.header.flags.contains(LinkFlags::Up)
            };
            Ok(links::here()?.iter().any(is_up))
        })
    }

    /// Detaches the programs, removes the queue's device, and verifies that it is gone. The caller can call it again.
    ///
    /// Packets in the queue are lost, as they are when a queue is full.
    ///
    /// # Errors
    /// When the device cannot be removed, or cannot be shown to be gone.
    pub fn close(&mut self) -> Result<()> {
        self.links.clear();
        let namespace = &self.namespace;
        until_gone(&mut self.device, |device| {
            netns::inside(namespace, || {
                links::remove(device)?;
                Ok(links::here()?.iter().any(|link| link.header.index == device))
            })
        })
    }
}

/// Removes a device. `remove` also returns whether the device still exists. `device` keeps its number until it is gone,
/// so that a caller can try again after an error.
fn until_gone(device: &mut Option<u32>, remove: impl FnOnce(u32) -> Result<bool>) -> Result<()> {
    let Some(number) = *device else { return Ok(()) };
    if remove(number)? {
        let error = Error::found(Call::Netlink, format!("network device {number}"), Errno::EEXIST);
        return Err(error.with_detail("it was removed, and is still there"));
    }
    *device = None;
    Ok(())
}

impl Drop for Queue {
    fn drop(&mut self) {
        // A drop cannot report an error. The next queue or `sweep` removes the device.
        let _ = self.close();
    }
}

/// The result of sweeping queue devices of dead owners.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The names of the removed devices.
    pub removed: Vec<String>,
    /// Errors of devices that could not be removed, or could not be checked.
    pub failed: Vec<Error>,
}

/// Removes our queue devices of dead owners from the caller's network namespace.
///
/// # Errors
/// When the devices cannot be listed. [`Swept`] has the errors of single devices.
pub fn sweep() -> Result<Swept> {
    Ok(sweep_each(&links::here()?, is_left_behind, |link| links::remove(link.header.index)))
}

fn sweep_each(
    links: &[LinkMessage],
    is_left_behind: impl Fn(&LinkMessage) -> Result<bool>,
    remove: impl Fn(&LinkMessage) -> Result<()>,
) -> Swept {
    let mut swept = Swept::default();
    for link in links {
        match is_left_behind(link) {
            Ok(true) => match remove(link) {
                Ok(()) => swept.removed.push(links::name(link).unwrap_or_default().to_owned()),
                Err(error) => swept.failed.push(error),
            },
            Ok(false) => {}
            Err(error) => swept.failed.push(error),
        }
    }
    swept
}

/// Tells whether a device is one of ours with a dead owner. An owner in another pid namespace counts as alive.
fn is_left_behind(link: &LinkMessage) -> Result<bool> {
    let Some(pid) = links::name(link).filter(|_| links::is_ifb(link)).and_then(pid_of) else {
        return Ok(false);
    };
    match links::alias(link).map(serde_json::from_str::<Owner>) {
        Some(Ok(owner)) => Ok(owner.pid == pid && owner.is_alive()? == Some(false)),
        // The alias is not ours, so neither is the device.
        Some(Err(_)) => Ok(false),
        // The owner is just creating the device, or was killed while doing so. The name has no pid namespace, so a
        // process with this pid in any of them counts.
        None => Ok(is_pid_in_use(pid)? == Some(false)),
    }
}

/// Parses the owner's pid from the name of a queue device.
pub(crate) fn pid_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NAME)?.strip_suffix(|last: char| last.is_ascii_lowercase())?;
    // `make_device` writes no sign and no leading zeros.
    digits.parse().ok().filter(|pid: &u32| pid.to_string() == digits)
}

/// Returns the devices from which a host receives packets: those that are up and have Ethernet headers. Leaves out the
/// loopback, every ifb device, and devices that belong to another device.
fn sources(links: &[RouteNetlinkMessage]) -> Vec<u32> {
    let is_source = |link: &LinkMessage| {
        let flags = link.header.flags;
        let handed_on = |it: &LinkAttribute| matches!(it, LinkAttribute::Controller(_));
        link.header.link_layer_type == LinkLayerType::Ether
            && flags.contains(LinkFlags::Up)
            && !flags.contains(LinkFlags::Loopback)
            && !link.attributes.iter().any(handed_on)
            && !links::is_ifb(link)
    };
    links
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) if is_source(link) => Some(link.header.index),
            _ => None,
        })
        .collect()
}

/// Creates an ifb device named after its owner, and returns its number.
fn make_device(owner: &Owner) -> Result<u32> {
    let ours = format!("{NAME}{}", owner.pid);
    let (mut last, before) = (Errno::EEXIST, links::left_by_the_module()?);
    for n in 0..MOST {
        let name = format!("{ours}{}", char::from(b'a' + n));
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.clone()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
        ];
        match tell(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, &name) {
            Ok(()) => {
                let links = links::here()?;
                let made = links.iter().find(|link| links::name(link) == Some(&name));
                let missing = || {
                    Error::found(Call::Netlink, name, Errno::ENODEV)
                        .with_detail("it was made, and is not there")
                };
                let device = made.map(|link| link.header.index).ok_or_else(missing)?;
                return links::take_back_the_modules(before.as_ref()).map(|()| device).inspect_err(
                    |_| {
                        let _ = links::remove(device);
                    },
                );
            }
            Err(error) if error.errno() == Errno::EEXIST => last = error.errno(),
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {
                return Err(error.with_detail("this kernel has no ifb devices (CONFIG_IFB)"));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(Call::Netlink, ours, last))
}

/// Writes the owner into the device's alias, gives the device fq, and sets it up.
fn prepare_device(device: u32, owner: &Owner) -> Result<()> {
    let target = format!("network device {device}");
    let alias = serde_json::to_string(owner).map_err(|error| {
        Error::found(Call::Netlink, &*target, Errno::EINVAL).with_detail(error.to_string())
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

/// Encodes an rtnetlink attribute: length, kind, value.
fn attribute(kind: u16, value: u32) -> Vec<u8> {
    [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
