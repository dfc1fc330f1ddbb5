//! A queue for the downloads of one cgroup: a device of ours (ifb) with fq, to which the cgroup's packets are redirected
//! as they come in. See `programs/queue.h`.

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

/// What the names of our devices begin with; their owner's pid and a letter follow.
const NAME: &str = "chadq";
/// How many letters.
const MOST: u8 = 26;

/// fq's own limits are for hosts that send: all flows together, and each, in packets (which GRO has put together).
const LIMIT: u32 = 100_000;
/// `TCA_OPTIONS`, `TCA_FQ_PLIMIT` and `TCA_FQ_FLOW_PLIMIT`.
const OPTIONS: u16 = 2;
const FQ_LIMITS: [u16; 2] = [1, 2];

/// A queue that packets go through.
///
/// If the process dies, the links go with it, so that packets come in as they did before; the device stays, idle, until
/// the next queue in that network namespace is opened, [`sweep`] is called there, or the namespace goes.
#[must_use = "dropping a queue closes it, but does not tell of errors"]
#[derive(Debug)]
pub struct Queue {
    namespace: File,
    device: Option<u32>,
    links: Vec<Link>,
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
            // Whatever fails from here on, dropping it takes back what was done.
            let mut queue = Self { namespace, device: None, links: Vec::new() };
            let _ = sweep();
            let device = make_device(owner)?;
            queue.device = Some(device);
            prepare_device(device, owner)?;
            queue.redirect(&programs, device)?;
            Ok(queue)
        })
    }

    /// In the queue's own namespace.
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

    /// Whether packets can go through it: what is redirected to a device that is gone or down is dropped.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn works(&self) -> Result<bool> {
        let Some(device) = self.device else { return Ok(false) };
        netns::inside(&self.namespace, || {
            let is_up = |link: &LinkMessage| {
                link.header.index == device && link.header.flags.contains(LinkFlags::Up)
            };
            Ok(links::here()?.iter().any(is_up))
        })
    }

    /// Takes the programs off the devices and removes ours, and looks whether it is gone. What waits in it is lost, as
    /// when a queue is full. Can be called again.
    ///
    /// # Errors
    /// When it could not be removed, or not be seen to be gone.
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

/// Removes a device. `remove` also tells whether it is there after all: it is known until it is seen to be gone, so
/// that who has failed can try again.
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
        // An error cannot be told from here; the next queue, or `sweep`, removes what stays.
        let _ = self.close();
    }
}

/// What became of devices of ours whose owners have died.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The names of those that were removed.
    pub removed: Vec<String>,
    /// Why others could not be, or not be told to be such.
    pub failed: Vec<Error>,
}

/// Removes devices of ours, in the caller's network namespace, whose owners have died.
///
/// # Errors
/// When devices cannot be listed. What goes wrong with one of them is in the [`Swept`].
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

/// Whether a device is one of ours whose owner has died. One in another pid namespace is not known to be dead.
fn is_left_behind(link: &LinkMessage) -> Result<bool> {
    let Some(pid) = links::name(link).filter(|_| links::is_ifb(link)).and_then(pid_of) else {
        return Ok(false);
    };
    match links::alias(link).map(serde_json::from_str::<Owner>) {
        Some(Ok(owner)) => Ok(owner.pid == pid && owner.is_alive()? == Some(false)),
        // An alias that is none of ours: nor is the device.
        Some(Err(_)) => Ok(false),
        // Its owner is just making it, or was killed then. The name has no pid namespace, so the pid counts in each.
        None => Ok(is_pid_in_use(pid)? == Some(false)),
    }
}

/// The owner's pid in the name of a device of ours.
pub(crate) fn pid_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NAME)?.strip_suffix(|last: char| last.is_ascii_lowercase())?;
    // As `make_device` writes it: no sign, and no zeros before it.
    digits.parse().ok().filter(|pid: &u32| pid.to_string() == digits)
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

/// Makes an ifb device, named after its owner; returns its number.
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

/// Writes its owner on a device, gives it fq, and takes it up.
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

/// An attribute as rtnetlink has it: length, kind, value.
fn attribute(kind: u16, value: u32) -> Vec<u8> {
    [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
