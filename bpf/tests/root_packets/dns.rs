//! DNS beside a flood: its messages pass, and a flood that looks like DNS gains nothing.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use bpf::LinuxBpf;
use bpf::limits::{Limits, Rate, Traffic};
use bpf::state::ThrottleState;
use kernel::AttachType;
use kernel::boundary::Host as _;
use testkit::traffic::{PAYLOAD, flood_above, socket};

use crate::{BURST, Lab, RATE, SECOND, V4, V6, limits};

/// The largest message, as EDNS is told to use.
const MESSAGE: usize = 1_232;
const ANSWERS: u8 = 25;

/// A socket at that port: of the throttled cgroup, if it is the one that sends.
fn server(lab: &Lab, address: IpAddr, port: u16) -> UdpSocket {
    let bind = || UdpSocket::bind((address, port)).unwrap();
    if lab.attach_type == AttachType::INET_EGRESS {
        let _inside = lab.cgroup.enter();
        return bind();
    }
    bind()
}

fn answers_come_beside_a_flood(attach_type: AttachType, address: IpAddr, port: u16) {
    let lab = Lab::new(attach_type, Traffic::All);
    come_beside_a_flood(&lab, address, port, &[1; MESSAGE], RATE, &[0; PAYLOAD]);
}

fn come_beside_a_flood(
    lab: &Lab,
    address: IpAddr,
    port: u16,
    message: &[u8],
    rate: u64,
    payload: &[u8],
) {
    let (_, resolver) = lab.sockets(address, address);
    let server = server(lab, address, port);
    let to = resolver.local_addr().unwrap();
    // One of them takes an eighth of the rate for 40 ms.
    let every = (0..ANSWERS, Duration::from_millis(60));
    let received = lab.beside_a_flood((payload, rate), address, every, |_| {
        server.send_to(message, to).unwrap();
    });
    let mut answer = [0; MESSAGE];
    let came = std::iter::from_fn(|| resolver.recv(&mut answer).ok()).count();
    let counters = lab.counters();
    assert_eq!(came, usize::from(ANSWERS), "answers that came: {counters:?}");
    assert_eq!(counters.passed.packets, received + u64::from(ANSWERS), "they are charged");
}

/// Small packets use up the reserve that a small message would have.
#[test]
fn root_small_dns_answers_are_received_beside_a_flood_of_small_packets() {
    let lab = Lab::new(AttachType::INET_INGRESS, Traffic::All);
    let rate = RATE / 5;
    let limits =
        Limits { rate: Rate::from_bytes_per_second(rate).unwrap(), ..limits(Traffic::All) };
    let state = ThrottleState::armed(&limits, LinuxBpf::new().unwrap().now_ns());
    lab.program().set_state(lab.open.id(), lab.attach_type, &state).unwrap();
    come_beside_a_flood(&lab, V4, 53, &[1; 72], rate, &[0; 200]);
}

#[test]
fn root_dns_answers_are_received_beside_a_flood_over_ipv4() {
    answers_come_beside_a_flood(AttachType::INET_INGRESS, V4, 53);
}

#[test]
fn root_dns_answers_are_received_beside_a_flood_over_ipv6() {
    answers_come_beside_a_flood(AttachType::INET_INGRESS, V6, 5_353);
}

#[test]
fn root_dns_answers_are_sent_beside_a_flood() {
    answers_come_beside_a_flood(AttachType::INET_EGRESS, V4, 53);
}

/// The allowance is charged: who floods from the port of DNS has the rate, the burst, and once 50 ms.
fn a_flood_from_its_port_gets_the_rate(attach_type: AttachType, address: IpAddr) {
    let lab = Lab::new(attach_type, Traffic::All);
    let sender = server(&lab, address, 53);
    sender.set_nonblocking(true).unwrap();
    let receiver = if attach_type == AttachType::INET_EGRESS {
        socket(address)
    } else {
        let _inside = lab.cgroup.enter();
        socket(address)
    };
    let reserve = Duration::from_millis(50);
    let flood = flood_above(&sender, &receiver, (RATE, BURST + reserve), SECOND);

    flood.assert_limited_with_reserve(RATE, BURST, reserve);
}

#[test]
fn root_a_flood_from_the_port_of_dns_is_sent_at_the_rate() {
    a_flood_from_its_port_gets_the_rate(AttachType::INET_EGRESS, V4);
}

#[test]
fn root_a_flood_from_the_port_of_dns_is_received_at_the_rate() {
    a_flood_from_its_port_gets_the_rate(AttachType::INET_INGRESS, V6);
}
