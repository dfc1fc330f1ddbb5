//! Tests the packet programs on this machine: verdicts, traffic classes, and counters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use crate::limits::{Burst, Departures, Limits, Rate, Traffic};
use crate::native::packets::{Packet, Place};
use crate::native::shape::{FQ, Shape, TCP, UDP, any_shape};
use crate::state::{Count, Counters, ThrottleState};

pub(crate) const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
const RATE: u64 = 125_000;

pub(crate) fn state(burst_ms: u64, traffic: Traffic, departures: Departures) -> ThrottleState {
    let limits = Limits {
        rate: Rate::from_bytes_per_second(RATE).unwrap(),
        burst: Burst::new(Duration::from_millis(burst_ms)).unwrap(),
        traffic,
        departures,
    };
    ThrottleState::armed(&limits, SECOND)
}

pub(crate) fn limited(burst_ms: u64) -> ThrottleState {
    state(burst_ms, Traffic::All, Departures::Never)
}

pub(crate) fn place(state: ThrottleState, egress: bool) -> Place {
    if egress { Place::upload(state) } else { Place::download(state) }
}

/// Tells whether the packet passes.
pub(crate) fn passes(place: &mut Place, packet: &Packet, egress: bool, now: u64) -> bool {
    if egress { place.send(packet, now).passed } else { place.receive(packet, now).passed }
}

/// Creates a cgroup with the bucket, the reserve and the bucket for DNS all used up.
pub(crate) fn full(egress: bool) -> Place {
    let mut place = place(limited(0), egress);
    let dns = Shape { port: 53, ..Shape::of(1_280) }.packet();
    for packet in [&Shape::of(60_000).packet(), &Shape::of(100).packet(), &dns] {
        let passed = (0..1_000).take_while(|_| passes(&mut place, packet, egress, SECOND)).count();
        assert!(passed < 1_000, "it is never full");
    }
    place
}

proptest! {
    #[test]
    fn each_packet_is_counted_once_with_its_bytes_on_the_wire(
        shapes in prop::collection::vec(any_shape(), 1..40), egress: bool, is_armed: bool,
    ) {
        let mut place = place(if is_armed { limited(20) } else { ThrottleState::disarmed() }, egress);
        let mut expected = Counters::default();
        let mut wire = 0;
        for shape in shapes {
            let bytes = u64::from(shape.on_the_wire());
            let count = Count { packets: 1, bytes };
            wire += bytes;
            let passed = passes(&mut place, &shape.packet(), egress, SECOND);
            let counter = match (is_armed, passed) {
                (false, _) => &mut expected.exempt,
                (true, true) => &mut expected.passed,
                (true, false) => &mut expected.dropped,
            };
            *counter = *counter + count;
            prop_assert!(passed || is_armed);
        }
        prop_assert_eq!(Counters::from(place.counters), expected);
        // Windows depend on the limited part of a download.
        let arrived = place.cgroup.download.flow.arrived;
        prop_assert_eq!(arrived, if is_armed && !egress { wire } else { 0 });
    }

    #[test]
    fn a_segment_that_its_socket_keeps_is_held_back_and_any_other_packet_is_lost(
        shape in any_shape(), flags in prop::sample::select(vec![0x10_u8, 0x11, 0x02, 0x04, 0x18]),
        socket in prop::sample::select(vec![0, TCP, TCP, UDP]), is_raw: bool, egress: bool, is_bare: bool,
    ) {
        let shape = if is_bare { Shape { payload: 0, ..shape } } else { shape };
        let mut packet = Packet { socket, is_raw, in_flight: 9, ..shape.packet() };
        if shape.tcp.is_some() {
            let transport = usize::try_from(shape.transport()).unwrap();
            let at = packet.headers.len() - transport + 13;
            packet.headers[at] = flags;
        }
        let mut place = full(egress);
        let before = Counters::from(place.counters);
        if passes(&mut place, &packet, egress, SECOND) {
            return Err(TestCaseError::fail("the bucket was not full"));
        }
        let told = Counters::from(place.counters).since(&before);
        let has_number = shape.payload > 0 || flags & 0x03 != 0;
        let is_kept = egress && socket == TCP && !is_raw && shape.tcp.is_some() && has_number;
        let count = Count { packets: 1, bytes: shape.on_the_wire().into() };
        let (held_back, dropped) = if is_kept { (count, Count::default()) } else { (Count::default(), count) };
        prop_assert_eq!((told.held_back, told.dropped), (held_back, dropped));
    }

    #[test]
    fn a_segment_is_alone_if_nothing_of_its_socket_is_on_its_way(
        sacked in 0..3_u32, lost in 0..3_u32, others in 0..3_u32, sent_again in 0..3_u32,
    ) {
        let mut place = place(limited(0), true);
        prop_assert!(place.send(&Shape::of(60_000).packet(), SECOND).passed);
        let segment = Shape { tcp: Some(3), payload: 1_000, ..Shape::DATAGRAM }.packet();
        let in_flight = sacked + lost + others;
        let packet = Packet { socket: TCP, in_flight, sacked, lost, sent_again, ..segment };
        // The kernel counts a segment that it has sent again as in flight.
        prop_assert_eq!(place.send(&packet, SECOND).passed, others + sent_again == 0);
    }

    #[test]
    fn only_packets_of_the_class_are_limited_by_the_address_of_the_other_side(
        is_ipv6: bool, is_local: bool, own_is_local: bool, egress: bool,
        traffic in prop::sample::select(vec![Traffic::All, Traffic::Internet, Traffic::Local]),
    ) {
        let address = |is_local| -> IpAddr {
            match (is_ipv6, is_local) {
                (false, true) => Ipv4Addr::new(192, 168, 7, 8).into(),
                (false, false) => Ipv4Addr::new(8, 8, 4, 4).into(),
                (true, true) => Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 7).into(),
                (true, false) => Ipv6Addr::new(0x2606, 1, 2, 3, 4, 5, 6, 7).into(),
            }
        };
        let (own, other) = (address(own_is_local), address(is_local));
        let (from, to) = if egress { (own, other) } else { (other, own) };
        let mut packet = Shape { is_ipv6, payload: 900, ..Shape::DATAGRAM }.packet();
        let bytes = |it| match it {
            IpAddr::V4(it) => it.octets().to_vec(),
            IpAddr::V6(it) => it.octets().to_vec(),
        };
        let at = if is_ipv6 { 8 } else { 12 };
        let addresses = [bytes(from), bytes(to)].concat();
        packet.headers.splice(at..at + addresses.len(), addresses);
        let mut place = place(state(0, traffic, Departures::Never), egress);
        passes(&mut place, &packet, egress, SECOND);
        let limited = match traffic {
            Traffic::All => true,
            Traffic::Internet => !is_local,
            Traffic::Local => is_local,
        };
        prop_assert_eq!(Counters::from(place.counters).passed.packets, u64::from(limited));
    }

    #[test]
    fn of_congestion_the_more_are_told_the_fuller_the_second_half_is(
        fill in 0..1_000_u64, random: u32,
    ) {
        // A burst of a second, filled in thousandths. 125 bytes are one thousandth.
        let mut place = place(limited(1_000), false);
        let filler = Packet { length: 125, ..Shape::of(125).packet() };
        for _ in 0..fill {
            prop_assert!(place.receive(&filler, SECOND).passed);
        }
        let outcome = place.receive(&Packet { random, ..Shape::of(125).packet() }, SECOND);
        // The probability is the part of the second half that is full.
        let least = u64::from(random >> 16) * 500 / 65_536;
        let above = fill.saturating_sub(500);
        if above > least + 1 {
            prop_assert!(outcome.told, "{fill} thousandths, {random:x}");
        } else if above + 1 < least || fill <= 500 {
            prop_assert!(!outcome.told, "{fill} thousandths, {random:x}");
        }
    }
}

/// Fills the bucket of an upload with departures at this device. Returns when the next packet leaves.
fn leaves(devices: &[u32], through: u32, packet: &Packet) -> u64 {
    let fq = Departures::Fq(devices.iter().copied().collect());
    let mut place = Place::upload(state(1_000, Traffic::All, fq));
    let filler = Packet { socket: TCP, in_flight: 9, ..Shape::of(12_500).packet() };
    for _ in 0..5 {
        assert!(place.send(&filler, SECOND).passed);
    }
    place.send(&Packet { device: through, ..packet.clone() }, SECOND).leaves
}

#[test]
fn a_packet_waits_where_the_device_has_fq_and_no_shorter_than_it_was_to_wait_anyway() {
    let packet = Shape::of(1_000).packet();
    let fq = SECOND + 480 * MILLI;
    let all: Vec<u32> = (1..=8).collect();
    for device in 1..=8 {
        assert_eq!(leaves(&all, device, &packet), fq, "{device}");
    }
    assert_eq!(leaves(&all, 9, &packet), 0);
    assert_eq!(leaves(&[FQ], 0, &packet), 0, "no device has that number");
    let later = Packet { leaves: fq + 1, ..packet.clone() };
    assert_eq!(leaves(&[FQ], FQ, &later), fq + 1);
    let sooner = Packet { leaves: fq - 1, ..packet };
    assert_eq!(leaves(&[FQ], FQ, &sooner), fq);
}

#[test]
fn a_small_packet_waits_only_behind_one_of_its_own_socket() {
    let fq = Departures::Fq([FQ].into_iter().collect());
    let mut place = Place::upload(state(1_000, Traffic::All, fq));
    let other = Packet { socket: TCP, in_flight: 9, ..Shape::of(12_500).packet() };
    for _ in 0..5 {
        assert!(place.send(&other, SECOND).passed);
    }
    let [small, large] = [256, 257].map(|it| Packet { socket: UDP, ..Shape::of(it).packet() });
    assert_eq!(place.send(&small, SECOND).leaves, 0, "nothing of its socket waits");
    assert!(place.send(&small, SECOND).leaves > SECOND + 480 * MILLI, "the one before waits");
    let mut place = Place::upload(state(1_000, Traffic::All, fq));
    for _ in 0..5 {
        assert!(place.send(&other, SECOND).passed);
    }
    assert_eq!(place.send(&large, SECOND).leaves, SECOND + 480 * MILLI);
}

#[test]
fn what_waits_of_a_socket_leaves_room_again_when_it_has_left() {
    let fq = Departures::Fq([FQ].into_iter().collect());
    let mut place = Place::upload(state(1_000, Traffic::All, fq));
    let other = Packet { socket: TCP, in_flight: 9, ..Shape::of(12_500).packet() };
    for _ in 0..2 {
        assert!(place.send(&other, SECOND).passed);
    }
    // 8 ms each: five of them are 40 ms.
    let packet = Packet { socket: UDP, ..Shape::of(1_000).packet() };
    let first = place.send(&packet, SECOND).leaves;
    for _ in 1..5 {
        assert!(place.send(&packet, SECOND).passed);
    }
    assert!(!place.send(&packet, SECOND).passed);
    assert!(!place.send(&packet, first - 1).passed);
    assert!(place.send(&packet, first).passed);
    assert!(!place.send(&packet, first).passed);
}

#[test]
fn a_lone_segment_has_a_reserve_only_if_it_is_sent_and_nothing_is_in_flight() {
    let segment = Shape { tcp: Some(3), payload: 1_000, ..Shape::DATAGRAM };
    let filled = |egress| {
        let mut place = place(limited(0), egress);
        assert!(passes(&mut place, &Shape::of(60_000).packet(), egress, SECOND));
        place
    };
    let lone = Packet { socket: TCP, ..segment.packet() };
    assert!(passes(&mut filled(true), &lone, true, SECOND));
    // Of five segments two have arrived, and three are lost.
    let none = Packet { in_flight: 5, sacked: 2, lost: 3, ..lone.clone() };
    assert!(passes(&mut filled(true), &none, true, SECOND));
    for other in [
        Packet { sent_again: 1, ..none.clone() },
        Packet { sacked: 1, ..none.clone() },
        Packet { lost: 2, ..none.clone() },
        Packet { in_flight: 1, ..lone.clone() },
        Packet { socket: UDP, ..lone.clone() },
        Packet { socket: 0, ..lone.clone() },
        Packet { is_raw: true, ..lone.clone() },
        Packet { socket: TCP, ..Shape { mss: 500, ..segment }.packet() },
    ] {
        assert!(!passes(&mut filled(true), &other, true, SECOND), "{other:?}");
    }
    assert!(!passes(&mut filled(false), &lone, false, SECOND));
}

#[test]
fn dns_is_told_by_either_port_of_a_whole_datagram_without_options() {
    let filled = || {
        let mut place = place(limited(0), false);
        assert!(place.receive(&Shape::of(60_000).packet(), SECOND).passed);
        place
    };
    for is_ipv6 in [false, true] {
        let shape = Shape { is_ipv6, payload: 1_000, port: 53, ..Shape::DATAGRAM };
        let begins = if is_ipv6 { 40 } else { 20 };
        assert!(filled().receive(&shape.packet(), SECOND).passed);
        let mut to = Shape { port: 4_000, ..shape }.packet();
        assert!(!filled().receive(&to, SECOND).passed);
        to.headers[begins + 3] = 53;
        assert!(filled().receive(&to, SECOND).passed, "{is_ipv6}");
        let tcp = Shape { tcp: Some(0), ..shape }.packet();
        assert!(!filled().receive(&tcp, SECOND).passed, "of TCP");
        let odd = Packet { protocol: 0x0806, ..shape.packet() };
        assert!(!filled().receive(&odd, SECOND).passed, "of no IP");
    }
    let shape = Shape { payload: 1_000, port: 53, ..Shape::DATAGRAM };
    assert!(!filled().receive(&Shape { options: 1, ..shape }.packet(), SECOND).passed);
    for fragment in [[0x20, 0], [0, 1], [0x1f, 0xff]] {
        let mut packet = shape.packet();
        packet.headers[6..8].copy_from_slice(&fragment);
        assert!(!filled().receive(&packet, SECOND).passed, "{fragment:x?}");
    }
}
