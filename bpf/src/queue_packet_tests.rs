//! Runs the programs of a download's queue (`programs/queue.h`) on this machine. Packets begin with an Ethernet header,
//! but are charged from the IP header on.

use proptest::prelude::*;

use crate::limits::{Departures, Traffic};
use crate::native::packets::{Packet, Place};
use crate::native::shape::{Shape, TCP, UDP, any_shape};
use crate::packet_tests::{any_rate, limits};
use crate::state::{Counters, ThrottleState};
use crate::verdict_tests::{SECOND, limited, state};

const ETHERNET: u32 = 14;

proptest! {
    #[test]
    fn a_queue_charges_and_drops_what_the_cgroup_would(
        rate in any_rate(), burst in 0..50_000_000_u64, random: u32,
        shapes in prop::collection::vec((any_shape(), 0..2_000_u64), 1..100),
    ) {
        let state = ThrottleState::armed(&limits(rate, burst, Departures::Never), SECOND);
        let [mut queue, mut cgroup] = [(); 2].map(|()| Place::download(state));
        let mut now = SECOND;
        for (shape, thousandths) in shapes {
            let packet = Packet { random, ..shape.packet() };
            let ahead = cgroup.cgroup.download.tat.wrapping_sub(now << state.0.tick_shift);
            let ahead = if ahead > state.0.horizon { 0 } else { ahead };
            let there = cgroup.receive(&packet, now);
            let here = queue.queue(&packet.behind(ETHERNET), now);
            prop_assert_eq!((here.passed, here.told), (there.passed, there.told));
            let [has, meant] = [&queue, &cgroup].map(|it| {
                let download = &it.cgroup.download;
                (download.tat, download.reserve, download.dns, download.flow.arrived)
            });
            prop_assert_eq!(has, meant);
            // The packet leaves when those before it have left. Packets beyond the bucket's end wait no longer than the
            // burst.
            let waits = ahead.min(state.0.tolerance);
            let leaves = if waits == 0 { 0 } else { now + (waits >> state.0.tick_shift) };
            prop_assert_eq!(here.leaves, if here.passed { leaves } else { 0 });
            now += u64::from(shape.on_the_wire()) * SECOND / rate * thousandths / 1_000;
        }
        let [has, meant] = [&queue, &cgroup].map(|it| Counters::from(it.counters));
        prop_assert_eq!(has.dropped, meant.dropped);
        prop_assert_eq!(has.passed.packets, 0, "the program on the cgroup counts those");
    }

    #[test]
    fn the_socket_is_looked_for_by_the_addresses_and_ports_of_the_packet(
        shape in any_shape(), source: [u8; 16], destination: [u8; 16], ports: [u8; 4], is_jumbo: bool,
        is_local: bool, has_socket: bool, is_foreign: bool,
        traffic in prop::sample::select(vec![Traffic::All, Traffic::Internet, Traffic::Local]),
    ) {
        let shape = Shape { is_jumbo: is_jumbo && shape.is_ipv6 && shape.tcp.is_some(), ..shape };
        let transport = if shape.tcp.is_some() { TCP } else { UDP };
        let mut packet = shape.packet();
        let (at, length) = if shape.is_ipv6 { (8, 16) } else { (12, 4) };
        let mut addresses = [&source[..length], &destination[..length]].concat();
        let head: &[u8] = match (shape.is_ipv6, is_local) {
            (false, true) => &[192, 168],
            (false, false) => &[8, 8],
            (true, true) => &[0xfd, 0],
            (true, false) => &[0x26, 6],
        };
        addresses[..2].copy_from_slice(head);
        packet.headers[at..at + 2 * length].copy_from_slice(&addresses);
        let begins = packet.headers.len() - shape.transport() as usize;
        packet.headers[begins..begins + 4].copy_from_slice(&ports);
        packet.socket = if has_socket { transport } else { 0 };
        packet.is_foreign = is_foreign;
        let mut place = Place::download(state(0, traffic, Departures::Never));
        let (is_redirected, looked_for) = place.redirect(&packet.behind(ETHERNET));
        let is_limited = match traffic {
            Traffic::All => true,
            Traffic::Internet => !is_local,
            Traffic::Local => is_local,
        };
        let expected = if is_limited && !shape.is_jumbo { [&addresses[..], &ports].concat() } else { Vec::new() };
        prop_assert_eq!(is_redirected, has_socket && !is_foreign && !expected.is_empty());
        prop_assert_eq!(looked_for, expected);
    }
}

#[test]
fn where_downloads_have_a_queue_the_socket_of_what_comes_in_is_redirected_from_then_on() {
    for (queued, socket) in [(false, UDP), (true, UDP), (true, TCP), (true, 0)] {
        let mut place = Place { queued, ..Place::download(limited(0)) };
        let packet = Packet { socket, ..Shape::of(1_000).packet() };
        assert_eq!(place.enlists(&packet), queued && socket != 0, "{queued} {socket}");
    }
}

#[test]
fn fragments_and_what_is_no_tcp_nor_udp_are_left_to_the_bucket_on_the_cgroup() {
    let mut place = Place::download(limited(0));
    let whole = Packet { socket: UDP, ..Shape::of(1_000).packet() };
    assert!(place.redirect(&whole.behind(ETHERNET)).0);
    for fragment in [[0x20, 0], [0, 1], [0x1f, 0xff]] {
        let mut packet = whole.clone();
        packet.headers[6..8].copy_from_slice(&fragment);
        assert_eq!(place.redirect(&packet.behind(ETHERNET)), (false, vec![]), "{fragment:x?}");
    }
    let mut other = whole.clone();
    other.headers[9] = 1;
    assert_eq!(place.redirect(&other.behind(ETHERNET)), (false, vec![]), "ICMP");
    let odd = Packet { protocol: 0x0806, ..whole.clone() };
    assert_eq!(place.redirect(&odd.behind(ETHERNET)), (false, vec![]), "ARP");
    let mut idle = Place::download(ThrottleState::disarmed());
    assert_eq!(idle.redirect(&whole.behind(ETHERNET)), (false, vec![]), "disarmed");
    assert!(idle.queue(&whole.behind(ETHERNET), SECOND).passed);
    assert_eq!(idle.cgroup.download.flow.arrived, 0);
}

#[test]
fn a_packet_that_ends_before_its_ports_is_for_no_socket() {
    for (is_ipv6, headers) in [(false, 20), (true, 40)] {
        let shape = Shape { is_ipv6, ..Shape::of(1_000) };
        let mut packet = Packet { socket: UDP, ..shape.packet() };
        packet.headers.truncate(headers);
        let mut place = Place::download(limited(0));
        assert_eq!(place.redirect(&packet.behind(ETHERNET)), (false, vec![]), "{is_ipv6}");
    }
}
