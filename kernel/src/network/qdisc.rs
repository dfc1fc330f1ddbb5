//! The queueing disciplines (qdiscs) of network devices, read through rtnetlink.

use std::collections::BTreeMap;
use std::path::Path;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use serde::Serialize;

use crate::error::Result;
use crate::network::netns;
use crate::network::rtnetlink::all;

/// The most devices that the kernel allows on top of each other (`MAX_NEST_DEV`).
const MOST_BELOW: usize = 8;

/// A network device and its qdiscs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The device's number (ifindex) in its network namespace.
    pub number: u32,
    /// The device's name.
    pub name: String,
    /// The kinds of the device's qdiscs, without duplicates. For example `mq` and `fq`, if each hardware queue has its
    /// own.
    ///
    /// A VLAN or a macvlan without a qdisc has those of the device below, because packets keep their times on the way
    /// there.
    pub qdiscs: Vec<String>,
}

impl Device {
    /// Tells whether packets leave at the time that they carry (`skb->tstamp`). Only `fq` ensures that for any socket.
    pub fn keeps_departures(&self) -> bool {
        self.qdiscs.iter().any(|kind| kind == "fq")
    }
}

/// Lists the devices through which packets leave. The network namespaces are those of the processes of a cgroup and its
/// descendants. Without processes or a cgroup, it is the caller's.
///
/// Leaves out devices that are down, the loopback, ifb devices (where packets come in), and members of a bridge or a
/// bond. A bond or bridge has its own queue, and clears the packets' times.
///
/// The caller's namespace needs no capability; others need `CAP_SYS_ADMIN`.
///
/// # Errors
/// When a namespace is unknown or cannot be entered, or when the kernel cannot be queried.
pub fn devices(cgroup: Option<&Path>) -> Result<Vec<Device>> {
    match cgroup {
        Some(cgroup) => {
            of_all(&netns::told(cgroup)?, here, |namespace| netns::inside(namespace, here))
        }
        None => here(),
    }
}

/// Lists the devices of each of these namespaces, or of the caller's `own` if there are none.
fn of_all<N>(
    namespaces: &[N],
    own: impl FnOnce() -> Result<Vec<Device>>,
    of: impl FnMut(&N) -> Result<Vec<Device>>,
) -> Result<Vec<Device>> {
    if namespaces.is_empty() {
        return own();
    }
    let each: Result<Vec<_>> = namespaces.iter().map(of).collect();
    Ok(each?.concat())
}

/// Lists the devices of this thread's network namespace.
fn here() -> Result<Vec<Device>> {
    let links = all(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let qdiscs = all(&RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
    Ok(join(&links, &qdiscs))
}

/// Returns the device to which a device without a queue hands its packets, times included. `None` if it is not in this
/// network namespace.
fn below(link: &LinkMessage) -> Option<u32> {
    let (mut below, mut hands_on) = (None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                let kinds = [InfoKind::Vlan, InfoKind::MacVlan].map(LinkInfo::Kind);
                hands_on = kinds.iter().any(|kind| infos.contains(kind));
            }
            _ => {}
        }
    }
    below.filter(|_| hands_on)
}

/// Joins the devices that are up with their qdiscs.
fn join(links: &[RouteNetlinkMessage], qdiscs: &[RouteNetlinkMessage]) -> Vec<Device> {
    let mut kinds: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for message in qdiscs {
        let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = message else { continue };
        let of_device = kinds.entry(qdisc.header.index.cast_unsigned()).or_default();
        for attribute in &qdisc.attributes {
            match attribute {
                TcAttribute::Kind(kind) if !of_device.contains(kind) => {
                    of_device.push(kind.clone());
                }
                _ => {}
            }
        }
    }
    let below: BTreeMap<u32, u32> = links
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some((link.header.index, below(link)?)),
            _ => None,
        })
        .collect();
    let disciplines = |number: u32| {
        let has_queue = |number: &u32| {
            // `clsact` and `ingress` hold filters, not packets.
            let queues = |kind: &String| !["noqueue", "clsact", "ingress"].contains(&kind.as_str());
            kinds.get(number).is_some_and(|kinds| kinds.iter().any(queues))
        };
        std::iter::successors(Some(number), |number| below.get(number).copied())
            .take(MOST_BELOW)
            .find(has_queue)
            .or(Some(number))
            .and_then(|number| kinds.get(&number).cloned())
            .unwrap_or_default()
    };
    let device = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let flags = link.header.flags;
        let ifb = LinkInfo::Kind(InfoKind::Ifb);
        let passes_by = link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::Controller(_) => true,
            LinkAttribute::LinkInfo(infos) => infos.contains(&ifb),
            _ => false,
        });
        if !flags.contains(LinkFlags::Up) || flags.contains(LinkFlags::Loopback) || passes_by {
            return None;
        }
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let number = link.header.index;
        Some(Device { number, name, qdiscs: disciplines(number) })
    };
    links.iter().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use nix::errno::Errno;

    use super::*;
    use crate::error::{Call, Error};

    fn link(index: u32, name: &str, flags: LinkFlags) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        RouteNetlinkMessage::NewLink(link)
    }

    fn with(mut message: RouteNetlinkMessage, attribute: LinkAttribute) -> RouteNetlinkMessage {
        if let RouteNetlinkMessage::NewLink(link) = &mut message {
            link.attributes.push(attribute);
        }
        message
    }

    fn qdisc(index: i32, kind: &str) -> RouteNetlinkMessage {
        let mut qdisc = TcMessage::with_index(index);
        qdisc.attributes.push(TcAttribute::Kind(kind.to_owned()));
        RouteNetlinkMessage::NewQueueDiscipline(qdisc)
    }

    fn device(number: u32, name: &str, kinds: &[&str]) -> Device {
        let qdiscs = kinds.iter().map(|&kind| kind.to_owned()).collect();
        Device { number, name: name.to_owned(), qdiscs }
    }

    #[test]
    fn the_devices_of_every_namespace_are_told_or_an_error() {
        let own = || Ok(vec![device(9, "own", &[])]);
        let closed = Error::found(Call::SetNs, "3", Errno::EPERM);
        // Namespace 2 has no device, 3 cannot be entered, and each other one has two devices of its own.
        let of = |namespace: &u32| match namespace {
            2 => Ok(vec![]),
            3 => Err(closed.clone()),
            &it => Ok(vec![device(it, "eth0", &["fq"]), device(it + 10, "eth1", &[])]),
        };
        let numbers = |namespaces: &[u32]| {
            let found = of_all(namespaces, own, of);
            found.map(|it| it.into_iter().map(|it| it.number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&[]), Ok(vec![9]));
        assert_eq!(numbers(&[1]), Ok(vec![1, 11]));
        assert_eq!(numbers(&[1, 4, 5]), Ok(vec![1, 11, 4, 14, 5, 15]));
        assert_eq!(numbers(&[2, 4]), Ok(vec![4, 14]));
        assert_eq!(numbers(&[2]), Ok(vec![]), "not those of the caller");
        for several in [[3, 1], [1, 3]] {
            assert_eq!(numbers(&several), Err(closed.clone()));
        }
    }

    #[test]
    fn a_device_has_the_disciplines_of_all_its_queues_each_once() {
        let links = [
            link(1, "lo", LinkFlags::Up | LinkFlags::Loopback),
            link(2, "eth0", LinkFlags::Up),
            link(3, "eth1", LinkFlags::empty()),
            link(4, "wg0", LinkFlags::Up),
            with(link(5, "eth2", LinkFlags::Up), LinkAttribute::Controller(9)),
            with(
                link(6, "chadq0", LinkFlags::Up),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
            ),
        ];
        let qdiscs = [
            qdisc(5, "fq"),
            qdisc(6, "fq"),
            qdisc(2, "mq"),
            qdisc(2, "fq"),
            qdisc(1, "noqueue"),
            qdisc(2, "fq"),
        ];
        let expected = [device(2, "eth0", &["mq", "fq"]), device(4, "wg0", &[])];
        assert_eq!(join(&links, &qdiscs), expected);
        assert!(expected[0].keeps_departures() && !expected[1].keeps_departures());
    }

    #[test]
    fn a_vlan_without_a_queue_has_that_of_the_device_below() {
        let on = |number, kind, below| {
            let upper = link(number, "upper", LinkFlags::Up);
            let upper = with(upper, LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            with(upper, LinkAttribute::Link(below))
        };
        let links = [
            link(2, "eth0", LinkFlags::Up),
            on(3, InfoKind::Vlan, 2),
            on(4, InfoKind::MacVlan, 3),
            with(on(5, InfoKind::Vlan, 2), LinkAttribute::LinkNetNsId(0)),
            on(6, InfoKind::Veth, 2),
            on(7, InfoKind::Vlan, 2),
            // An impossible case: the device is on top of itself.
            on(8, InfoKind::Vlan, 8),
            on(9, InfoKind::Vlan, 2),
        ];
        let qdiscs = [
            qdisc(2, "fq"),
            qdisc(3, "noqueue"),
            qdisc(5, "noqueue"),
            qdisc(7, "pfifo"),
            // Another program's filters.
            qdisc(9, "noqueue"),
            qdisc(9, "clsact"),
        ];
        let found = join(&links, &qdiscs);
        let kinds: Vec<_> = found.iter().map(|it| (it.number, it.qdiscs.concat())).collect();
        let expected = [
            (2, "fq"),
            (3, "fq"),
            (4, "fq"),
            (5, "noqueue"),
            (6, ""),
            (7, "pfifo"),
            (8, ""),
            (9, "fq"),
        ];
        assert_eq!(kinds, expected.map(|(number, kind)| (number, kind.to_owned())));
    }

    #[test]
    fn root_the_devices_of_a_network_are_those_that_are_up_but_for_the_loopback() {
        testkit::isolation::isolate();
        assert_eq!(devices(None).unwrap(), []);
        for words in [
            &["ip", "link", "add", "chadtest0", "type", "veth", "peer", "name", "chadtest1"][..],
            &["ip", "link", "set", "chadtest0", "up"],
            &[
                "tc",
                "qdisc",
                "replace",
                "dev",
                "chadtest0",
                "root",
                "tbf",
                "rate",
                "1mbit",
                "burst",
                "5k",
                "latency",
                "50ms",
            ],
        ] {
            let status = std::process::Command::new(words[0]).args(&words[1..]).status().unwrap();
            assert!(status.success(), "{words:?}");
        }
        let found = devices(None).unwrap();
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (one.name.as_str(), one.qdiscs.as_slice()),
            ("chadtest0", &["tbf".to_owned()][..])
        );
    }

    /// A process in its own network namespace, which has one device that is up.
    struct Apart(std::process::Child);

    impl Apart {
        fn new(cgroup: &Path, device: &str) -> Self {
            let script = format!(
                "ip link add {device} type veth peer name chadtest9 && ip link set {device} up && echo ready && \
                 exec sleep 1000"
            );
            let mut process = std::process::Command::new("unshare");
            process.args(["--net", "sh", "-c", &script]).stdout(std::process::Stdio::piped());
            let mut process = Self(process.spawn().unwrap());
            let mut ready = [0; 6];
            process.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
            fs::write(cgroup.join("cgroup.procs"), process.0.id().to_string()).unwrap();
            process
        }
    }

    impl Drop for Apart {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn root_of_a_cgroup_the_devices_of_all_its_network_namespaces_are_told() {
        testkit::isolation::isolate();
        let cgroup = testkit::cgroup::ScratchCgroup::new("namespaces");
        let names = || {
            let found = devices(Some(cgroup.path())).unwrap();
            let mut names: Vec<_> = found.into_iter().map(|device| device.name).collect();
            names.sort();
            names
        };
        assert_eq!(names(), [""; 0], "those of this process");
        let _first = Apart::new(cgroup.path(), "chadtest1");
        assert_eq!(names(), ["chadtest1"]);
        assert!(netns::only(cgroup.path()).is_ok());
        let _second = Apart::new(cgroup.path(), "chadtest2");
        let _below = Apart::new(&cgroup.child("x/y"), "chadtest3");
        assert_eq!(names(), ["chadtest1", "chadtest2", "chadtest3"]);
        assert_eq!(netns::only(cgroup.path()).unwrap_err().errno(), Errno::EINVAL);
        // This process's own namespace counts too.
        let (visited, untold) = netns::in_each(cgroup.path(), here).unwrap();
        assert_eq!((visited.len(), visited.concat().len(), untold), (4, 3, 0));
    }
}
