//! Real packets, the real kernel: does the limit hold, in both directions, for IPv4 and IPv6?

mod dns;
mod gso;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bpf::ThrottleProgram;
use bpf::limits::{Burst, Departures, Limits, Rate, Traffic};
use bpf::state::{Counters, ThrottleState};
use bpf::throttle::{Loaded, load};
use bpf::{LinuxBpf, Owner};
use kernel::AttachType;
use kernel::boundary::Host as _;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::traffic::{Flood, PAYLOAD, Until, flood_above, flood_above_with, flood_until, socket};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// A quarter of what an emulated processor can send that is busy with other things.
const RATE: u64 = 250_000;
const SECOND: Duration = Duration::from_secs(1);
const BURST: Duration = Duration::from_millis(20);

fn limits(traffic: Traffic) -> Limits {
    Limits {
        rate: Rate::from_bytes_per_second(RATE).unwrap(),
        burst: Burst::new(BURST).unwrap(),
        traffic,
        departures: Departures::Never,
    }
}

/// A throttled cgroup.
struct Lab {
    cgroup: ScratchCgroup,
    open: Cgroup,
    programs: Loaded,
    _link: Link,
    attach_type: AttachType,
}

impl Lab {
    fn new(attach_type: AttachType, traffic: Traffic) -> Self {
        isolate();
        let kernel = LinuxBpf::new().unwrap();
        let cgroup = ScratchCgroup::new("packets");
        let open = Cgroup::open(cgroup.path()).unwrap();
        let programs =
            load(&Owner::this_process("test").unwrap(), 0, bpf::throttle::Parts::TCP).unwrap();
        let program = programs.program(attach_type);
        let link = Link::create(program.as_fd(), &open, attach_type).unwrap();
        let state = ThrottleState::armed(&limits(traffic), kernel.now_ns());
        program.set_state(open.id(), attach_type, &state).unwrap();
        Self { cgroup, open, programs, _link: link, attach_type }
    }

    fn program(&self) -> &ThrottleProgram {
        self.programs.program(self.attach_type)
    }

    fn counters(&self) -> Counters {
        self.program().counters(self.open.id(), self.attach_type).unwrap().unwrap()
    }

    /// Waits until something more was dropped: so the bucket is full.
    fn wait_for_drop(&self) {
        let dropped = || self.counters().dropped.packets;
        let (before, deadline) = (dropped(), Instant::now() + Duration::from_secs(30));
        while dropped() == before {
            assert!(Instant::now() < deadline, "nothing is dropped, so it is no flood");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Floods three times that rate with such datagrams, and does something for each number, after that time at least
    /// and only when the flood has lost a packet since. Returns how many datagrams of the flood arrived.
    fn beside_a_flood(
        &self,
        (payload, rate): (&[u8], u64),
        address: IpAddr,
        (numbers, pause): (Range<u8>, Duration),
        act: impl Fn(u8),
    ) -> u64 {
        let (sender, receiver) = self.sockets(address, address);
        let until = Until::new();
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let is_over = |_: &Flood, _| !until.goes_on();
                flood_until(payload, &sender, &receiver, 3 * rate, is_over)
            });
            for number in numbers {
                std::thread::sleep(pause);
                self.wait_for_drop();
                act(number);
            }
            until.end();
            flood.join().unwrap().received
        })
    }

    /// A sender and a receiver, of which the throttled one is in the cgroup and has the address `own`.
    fn sockets(&self, own: IpAddr, other: IpAddr) -> (UdpSocket, UdpSocket) {
        let outside = socket(other);
        let inside = {
            let _inside = self.cgroup.enter();
            socket(own)
        };
        if self.attach_type == AttachType::INET_EGRESS {
            (inside, outside)
        } else {
            (outside, inside)
        }
    }
}

/// Three times the rate is offered: what arrives must be the rate and the burst, to one percent.
fn the_limit_holds(attach_type: AttachType, address: IpAddr) {
    let lab = Lab::new(attach_type, Traffic::All);
    let (sender, receiver) = lab.sockets(address, address);
    let flood = flood_above(&sender, &receiver, (RATE, BURST), SECOND);

    flood.assert_limited(RATE, BURST);
    // A packet lost in the throttle is lost as on the wire: nobody is told that it is not permitted.
    assert_eq!(flood.refused, 0);
    let counters = lab.counters();
    assert_eq!(counters.passed.packets, flood.received);
    assert_eq!(counters.passed.bytes, flood.bytes());
    assert_eq!(counters.seen().packets, flood.sent());
    assert_eq!((counters.exempt, counters.held_back), Default::default());
}

#[test]
fn root_upload_holds_over_ipv4() {
    the_limit_holds(AttachType::INET_EGRESS, V4);
}

#[test]
fn root_upload_holds_over_ipv6() {
    the_limit_holds(AttachType::INET_EGRESS, V6);
}

#[test]
fn root_download_holds_over_ipv4() {
    the_limit_holds(AttachType::INET_INGRESS, V4);
}

#[test]
fn root_download_holds_over_ipv6() {
    the_limit_holds(AttachType::INET_INGRESS, V6);
}

/// A flood keeps the bucket full; what is small still passes, and is charged: the rate stays the rate.
fn small_packets_pass_beside_a_flood(attach_type: AttachType) {
    let lab = Lab::new(attach_type, Traffic::All);
    let (pinging, pinged) = lab.sockets(V4, V4);
    let to = pinged.local_addr().unwrap();
    let every = (0..50, Duration::from_millis(30));
    let received = lab.beside_a_flood((&[0; PAYLOAD], RATE), V4, every, |number| {
        pinging.send_to(&[number; 56], to).unwrap();
    });

    let mut answer = [0; 64];
    let arrived = std::iter::from_fn(|| pinged.recv(&mut answer).ok()).count();
    assert_eq!(arrived, 50, "pings that arrived");
    assert_eq!(lab.counters().passed.packets, received + 50, "they are charged");
}

#[test]
fn root_small_packets_are_sent_beside_a_flood() {
    small_packets_pass_beside_a_flood(AttachType::INET_EGRESS);
}

#[test]
fn root_small_packets_are_received_beside_a_flood() {
    small_packets_pass_beside_a_flood(AttachType::INET_INGRESS);
}

/// What passes by the reserve is charged: small packets get the rate and the burst, and 25 ms once.
fn small_packets_get_no_more_than_the_rate(attach_type: AttachType) {
    let lab = Lab::new(attach_type, Traffic::All);
    let rate = RATE / 5;
    let slow = Limits { rate: Rate::from_bytes_per_second(rate).unwrap(), ..limits(Traffic::All) };
    let state = ThrottleState::armed(&slow, LinuxBpf::new().unwrap().now_ns());
    lab.program().set_state(lab.open.id(), attach_type, &state).unwrap();
    let (sender, receiver) = lab.sockets(V4, V4);
    let reserve = Duration::from_millis(25);
    let limit = (rate, BURST + reserve);
    let flood = flood_above_with(&[0; 200], &sender, &receiver, limit, SECOND);

    flood.assert_limited_with_reserve(rate, BURST, reserve);
}

#[test]
fn root_small_packets_are_sent_at_no_more_than_the_rate() {
    small_packets_get_no_more_than_the_rate(AttachType::INET_EGRESS);
}

#[test]
fn root_small_packets_are_received_at_no_more_than_the_rate() {
    small_packets_get_no_more_than_the_rate(AttachType::INET_INGRESS);
}

/// Of two addresses of the other side only the one in the class is limited, whatever our own address is.
fn only_the_class_is_limited(
    attach_type: AttachType,
    traffic: Traffic,
    local: IpAddr,
    internet: IpAddr,
) {
    let lab = Lab::new(attach_type, traffic);
    // An address of the internet, on our own loopback.
    let bits = if internet.is_ipv4() { 32 } else { 128 };
    let status = std::process::Command::new("ip")
        .args(["addr", "add", &format!("{internet}/{bits}"), "dev", "lo", "nodad"])
        .status();
    assert!(status.unwrap().success());

    let mut earlier = Counters::default();
    for (own, other, limited) in [
        (internet, local, traffic != Traffic::Internet),
        (local, internet, traffic != Traffic::Local),
    ] {
        let (sender, receiver) = lab.sockets(own, other);
        let time = Duration::from_millis(300);
        let flood = flood_above(&sender, &receiver, (RATE, BURST), time);
        let counters = lab.counters();
        let now = counters.since(&earlier);
        earlier = counters;
        if limited {
            flood.assert_limited(RATE, BURST);
            assert_eq!(now.exempt.packets, 0, "{other}");
        } else {
            assert_eq!(now.exempt.packets, flood.sent(), "{other} is free: {now:?}");
            assert_eq!(flood.received, flood.sent(), "{other}");
        }
    }
}

const NET_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));
const NET_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 1));

#[test]
fn root_internet_upload_leaves_local_traffic_alone_over_ipv4() {
    only_the_class_is_limited(AttachType::INET_EGRESS, Traffic::Internet, V4, NET_V4);
}

#[test]
fn root_internet_upload_leaves_local_traffic_alone_over_ipv6() {
    only_the_class_is_limited(AttachType::INET_EGRESS, Traffic::Internet, V6, NET_V6);
}

#[test]
fn root_local_download_leaves_internet_traffic_alone_over_ipv4() {
    only_the_class_is_limited(AttachType::INET_INGRESS, Traffic::Local, V4, NET_V4);
}

#[test]
fn root_local_download_leaves_internet_traffic_alone_over_ipv6() {
    only_the_class_is_limited(AttachType::INET_INGRESS, Traffic::Local, V6, NET_V6);
}

/// The history: one map entry for all cgroups, so that the second throttle overwrote the first one's rate.
#[test]
fn root_one_load_serves_two_cgroups_without_sharing_a_bucket() {
    let lab = Lab::new(AttachType::INET_EGRESS, Traffic::All);
    let other = ScratchCgroup::new("other");
    let open = Cgroup::open(other.path()).unwrap();
    let program = lab.program();
    let _link = Link::create(program.as_fd(), &open, AttachType::INET_EGRESS).unwrap();
    let slow =
        Limits { rate: Rate::from_bytes_per_second(RATE / 5).unwrap(), ..limits(Traffic::All) };
    let now = LinuxBpf::new().unwrap().now_ns();
    program
        .set_state(open.id(), AttachType::INET_EGRESS, &ThrottleState::armed(&slow, now))
        .unwrap();

    let (fast_sender, receiver) = lab.sockets(V4, V4);
    let slow_sender = {
        let _inside = other.enter();
        socket(V4)
    };
    for (sender, rate) in [(fast_sender, RATE), (slow_sender, RATE / 5)] {
        // Three times the higher rate for both.
        let flood = flood_above(&sender, &receiver, (RATE, BURST), SECOND);
        flood.assert_limited(rate, BURST);
    }
    assert_eq!(
        program.state(lab.open.id(), AttachType::INET_EGRESS).unwrap().unwrap().rate(),
        RATE
    );
}

/// Datagrams: about 200 ms of 100 kB/s. The departure rule lets 60 ms of them pass.
const HEAP: u64 = 20;

/// How many of a heap of datagrams over loopback pass a limit that has the departure rule at this device, and else a
/// burst of 250 ms.
fn passed_of_a_heap(device: u32, address: IpAddr) -> u64 {
    let lab = Lab::new(AttachType::INET_EGRESS, Traffic::All);
    let limits = Limits {
        rate: Rate::from_bytes_per_second(100_000).unwrap(),
        burst: Burst::DEFAULT,
        departures: Departures::Fq([1_000, device].into_iter().collect()),
        ..limits(Traffic::All)
    };
    let state = ThrottleState::armed(&limits, LinuxBpf::new().unwrap().now_ns());
    lab.program().set_state(lab.open.id(), lab.attach_type, &state).unwrap();
    let (sender, receiver) = lab.sockets(address, address);
    let to = receiver.local_addr().unwrap();
    for _ in 0..HEAP {
        sender.send_to(&[7; PAYLOAD], to).unwrap();
    }
    lab.counters().passed.packets
}

#[test]
fn root_the_departure_rule_is_for_the_devices_that_were_named() {
    for address in [V4, V6] {
        // The loopback's number is 1 in any network namespace.
        assert_eq!(passed_of_a_heap(2, address), HEAP, "{address}");
        let named = passed_of_a_heap(1, address);
        assert!((3..HEAP - 5).contains(&named), "{named} over {address}");
    }
}
