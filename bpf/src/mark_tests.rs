//! Tests the mark of dropped packets. If a packet meets several throttles, those after the one that drops it do not
//! charge it.

use proptest::prelude::*;

use crate::native::packets::{Mark, Packet, Place};
use crate::native::shape::{Shape, TCP, UDP, any_shape};
use crate::state::{Count, Counters, ThrottleState};
use crate::verdict_tests::{SECOND, full, limited, place};

/// The secret that the owners of this host's throttles share.
const SECRET: Mark = Mark { mark: 0x1234_5678, priority: 0x9abc_def0 };
const NONE: Mark = Mark { mark: 0, priority: 0 };

/// Generates the secret, similar values, and others.
fn any_mark() -> impl Strategy<Value = Mark> {
    let half = [Mark { mark: 0, ..SECRET }, Mark { priority: 0, ..SECRET }];
    let swapped = Mark { mark: SECRET.priority, priority: SECRET.mark };
    let near = Mark { priority: SECRET.priority ^ 1, ..SECRET };
    let other = (any::<u32>(), any::<u32>()).prop_map(|(mark, priority)| Mark { mark, priority });
    prop_oneof![
        3 => Just(NONE), 3 => Just(SECRET), 1 => Just(half[0]), 1 => Just(half[1]), 1 => Just(swapped),
        1 => Just(near), 1 => other,
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Disarmed,
    Idle,
    Full,
}

/// Creates a throttle of this kind. Its load has this mark.
fn throttle(kind: Kind, dropped: Mark, egress: bool) -> Place {
    let place = match kind {
        Kind::Disarmed => place(ThrottleState::disarmed(), egress),
        Kind::Idle => place(limited(0), egress),
        Kind::Full => full(egress),
    };
    Place { dropped, ..place }
}

proptest! {
    #[test]
    fn a_packet_that_was_dropped_is_charged_nowhere_else(
        shape in any_shape(), socket in prop::sample::select(vec![0, TCP, TCP, UDP]), egress: bool,
        mark in any_mark(),
        throttles in prop::collection::vec(
            (prop::sample::select(vec![Kind::Disarmed, Kind::Idle, Kind::Full, Kind::Full]), any_mark()), 1..5,
        ),
    ) {
        let mut packet = Packet { socket, in_flight: 9, mark, ..shape.packet() };
        // An upload passes the cgroup and then its ancestors, a download the other way round. All programs see it.
        for (kind, dropped) in throttles {
            let mut place = throttle(kind, dropped, egress);
            let (states, before) = (place.cgroup, Counters::from(place.counters));
            let outcome = if egress { place.send(&packet, SECOND) } else { place.receive(&packet, SECOND) };
            let told = Counters::from(place.counters).since(&before);
            let goes_nowhere = dropped.mark != 0 && packet.mark == dropped;
            let is_exempt = kind == Kind::Disarmed || goes_nowhere;
            prop_assert_eq!(outcome.passed, is_exempt || kind == Kind::Idle);
            let count = Count { packets: 1, bytes: shape.on_the_wire().into() };
            let lost = told.dropped + told.held_back;
            let expected = match (is_exempt, outcome.passed) {
                (true, _) => [count, Count::default(), Count::default()],
                (_, true) => [Count::default(), count, Count::default()],
                (_, false) => [Count::default(), Count::default(), count],
            };
            prop_assert_eq!([told.exempt, told.passed, lost], expected);
            let [was, is] = [states, place.cgroup].map(|it| [it.upload.tat, it.download.tat]);
            prop_assert_eq!(was == is, is_exempt || !outcome.passed);
            // A packet carries its own mark until a program drops it.
            let is_marked = !outcome.passed && dropped.mark != 0;
            prop_assert_eq!(outcome.mark, if is_marked { dropped } else { packet.mark });
            packet.mark = outcome.mark;
        }
    }
}

#[test]
fn what_a_child_refuses_its_parent_does_not_charge_whoever_keeps_it() {
    let segment = Shape { tcp: Some(3), payload: 1_000, ..Shape::DATAGRAM };
    let lost = Shape { payload: 0, ..segment };
    for (egress, shape, held_back) in [(true, segment, 1), (true, lost, 0), (false, segment, 0)] {
        let [mut child, mut parent] =
            [Kind::Full, Kind::Idle].map(|kind| throttle(kind, SECRET, egress));
        let mut packet = Packet { socket: TCP, in_flight: 9, ..shape.packet() };
        // A small packet has a reserve, so the test uses that up too.
        for place in [&mut child, &mut parent] {
            let run = |place: &mut Place, packet: &Packet| {
                if egress { place.send(packet, SECOND) } else { place.receive(packet, SECOND) }
            };
            packet.mark = run(place, &packet).mark;
        }
        assert_eq!(packet.mark, SECRET);
        let told = Counters::from(child.counters).held_back.packets;
        assert_eq!(told, held_back, "{egress} {shape:?}");
        let told = Counters::from(parent.counters);
        assert_eq!((told.exempt.packets, told.seen().packets), (1, 1), "{egress} {shape:?}");
    }
}
