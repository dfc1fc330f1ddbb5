//! Tests what the sockops program (`programs/sockops.h`) does to a socket, and what it leaves behind.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::limits::{Departures, Traffic};
use crate::native::windows::{
    AF_INET, AF_INET6, Answered, CHOSEN, Call, FIRST_WINDOW, SEGMENT, UNCLAMPED, about_nothing,
    first_window,
};
use crate::native::{
    Queue, Seen, flow_counts, flow_interval, flow_is_flooded, flow_most, flow_next, flow_pace,
    flow_rest, flow_share, flow_window, flow_with_another,
};
use crate::packet_tests::{any_rate, limits};
use crate::state::ThrottleState;
use crate::throttle::types::{throttle_cgroup, throttle_flow, throttle_socket, throttle_state};
use crate::verdict_tests::{SECOND, state};

const MILLI: u64 = 1_000_000;
const MSS: u32 = 1_448;
/// The smallest clamp.
const LEAST: u32 = 1_152;

fn limited(rate: u64, burst: u64) -> throttle_state {
    ThrottleState::armed(&limits(rate, burst, Departures::Never), SECOND).0
}

fn both(limit: throttle_state) -> throttle_cgroup {
    throttle_cgroup { upload: limit, download: limit }
}

/// Creates the call of a socket with a round trip time of 20 ms.
fn acknowledgement() -> Call {
    Call { rcv_rtt_us: 8 * 20_000, received: 1 << 40, ..about_nothing(SECOND) }
}

/// Creates the call of a segment that takes 1.052 ms at [`slow`].
fn segment() -> Call {
    Call { payload: 1_000, mss: 1_000, ..about_nothing(SECOND) }
}

fn slow() -> throttle_cgroup {
    both(limited(1_000_000, 0))
}

/// Creates a socket that takes part in the sharing and has used much.
fn used() -> throttle_socket {
    throttle_socket { counted: 1, used: 1 << 40, since: SECOND, ..Default::default() }
}

fn to(address: &str, call: Call) -> Call {
    match address.parse().unwrap() {
        IpAddr::V4(it) => {
            let remote = [u32::from_ne_bytes(it.octets()), 0, 0, 0];
            Call { family: AF_INET, remote, ..call }
        }
        IpAddr::V6(it) => {
            let mut remote = [0; 4];
            for (word, octets) in remote.iter_mut().zip(it.octets().chunks(4)) {
                *word = u32::from_ne_bytes(octets.try_into().unwrap());
            }
            Call { family: AF_INET6, remote, ..call }
        }
    }
}

#[test]
fn sockets_of_the_limited_class_alone_are_steered_in_each_direction_that_is_limited() {
    let local = ["192.168.0.1", "10.1.2.3", "::1", "fd00::1", "::ffff:10.0.0.1"];
    let internet = ["8.8.8.8", "1.0.0.10", "2606::1", "0:0:1::1", "0:0:0:1::1", "::1:0:0:1", "::2"];
    for traffic in [Traffic::All, Traffic::Internet, Traffic::Local] {
        let armed = state(0, traffic, Departures::Never).0;
        let is_meant = |is_local: bool| match traffic {
            Traffic::All => true,
            Traffic::Internet => !is_local,
            Traffic::Local => is_local,
        };
        let places = local.iter().map(|it| (it, true)).chain(internet.iter().map(|it| (it, false)));
        for (address, is_local) in places {
            for (upload, download) in [(true, true), (true, false), (false, true)] {
                let of = |is_limited| if is_limited { armed } else { throttle_state::default() };
                let cgroup = || throttle_cgroup { upload: of(upload), download: of(download) };
                let what = format!("{traffic:?} {address} {upload} {download}");
                let sent = to(address, segment()).answered(&mut cgroup(), Some(&mut used()));
                assert_eq!(sent.tried != 0, upload && is_meant(is_local), "{what}");
                let mut socket = used();
                let got = to(address, acknowledgement()).answered(&mut cgroup(), Some(&mut socket));
                assert_eq!(got.clamp != UNCLAMPED, download && is_meant(is_local), "{what}");
                let begins = Call { op: FIRST_WINDOW, ..to(address, acknowledgement()) };
                let begins = begins.answered(&mut cgroup(), None).reply;
                assert_eq!(begins != 0, download && is_meant(is_local), "{what}");
            }
        }
    }
}

#[test]
fn a_segment_lowers_the_rate_for_a_moment_and_leaves_the_users_own() {
    let rate = 950_570;
    for (most, back) in [
        (u64::MAX, Some(u32::MAX)),
        (7_000_000, Some(7_000_000)),
        (0, Some(0)),
        (0xffff_fffe, Some(0xffff_fffe)),
        // A value above 32 bits could not be set back.
        (0xffff_ffff, None),
        (0x1_0000_0000, None),
        (u64::MAX - 1, None),
    ] {
        let paced = Call { most, ..segment() }.answered(&mut slow(), None);
        let expected = back.map_or((0, [0; 2]), |back| (2, [rate, back]));
        assert_eq!((paced.tried, paced.rates), expected, "{most}");
    }
    // The program leaves a socket alone that sends no faster by itself, unless the socket would not pace.
    for (own, is_pacing, is_set) in [
        (u64::from(rate), 1, false),
        (u64::from(rate) + 1, 1, true),
        (u64::from(rate), 0, true),
        (1, 0, true),
        (1 << 32, 1, true),
    ] {
        let paced = Call { own, is_pacing, ..segment() }.answered(&mut slow(), None);
        assert_eq!(paced.tried != 0, is_set, "{own} {is_pacing}");
    }
    // Bytes that fit into the burst need not wait.
    let mut free = both(limited(1_000_000, 250 * MILLI));
    assert_eq!(segment().answered(&mut free, None).tried, 0);
    let refused = Call { is_fixed: 1, ..segment() }.answered(&mut slow(), None);
    assert_eq!(refused.tried, 1, "nothing is set back that was not set");
}

#[test]
fn each_segment_has_headers_of_its_own() {
    for (payload, mss, segments) in [
        (500, 1_000, 1),
        (1_000, 1_000, 1),
        (1_000, 0, 1),
        (1_999, 1_000, 2),
        (2_000, 1_000, 2),
        (2_001, 1_000, 3),
    ] {
        let takes = u64::from(payload + segments * 52) * 1_000;
        let paced = Call { payload, mss, ..segment() }.answered(&mut slow(), None);
        assert_eq!(
            u64::from(paced.rates[0]),
            flow_pace(takes, 0, 0, payload, mss),
            "{payload} {mss}"
        );
    }
}

#[test]
fn a_rate_that_does_not_fit_into_32_bits_is_not_set() {
    let mut cgroup = both(limited(10_000_000_000, 0));
    let shift = cgroup.upload.tick_shift;
    // 60,000 bytes, after the queue in front of them: 6,000 ns and more.
    for ahead in [0, 10_000, 100_000] {
        cgroup.upload.tat = (SECOND + ahead) << shift;
        let call = Call { payload: 60_000, mss: 60_000, ..about_nothing(SECOND) };
        let takes = ahead + (60_052_000_u64 / 10_000);
        let rate = flow_pace(takes, 0, 0, 60_000, 60_000);
        let is_set = u32::try_from(rate).is_ok();
        assert_eq!(is_set, ahead != 0, "{rate}");
        let paced = call.answered(&mut cgroup, None);
        assert_eq!(paced.tried != 0, is_set, "{rate}");
    }
    // All ones mean no limit. No segment is that long, but whole seconds give exactly these rates.
    let mut late = both(limited(1_000, 3 * SECOND));
    late.upload.tat = (3 * SECOND) << late.upload.tick_shift;
    for (payload, tried) in [(u32::MAX, 0), (u32::MAX - 1, 2)] {
        let call = Call { payload, mss: payload, ..segment() };
        assert_eq!(call.answered(&mut late, None).tried, tried);
    }
}

#[test]
fn nothing_else_is_answered() {
    let others = (0..20).filter(|op| ![FIRST_WINDOW, 4, 5, SEGMENT, CHOSEN].contains(op));
    let idle = others.map(|op| Call { op, ..acknowledgement() }).chain([
        Call { op: FIRST_WINDOW, is_full: 0, ..acknowledgement() },
        Call { has_socket: 0, ..acknowledgement() },
        Call { is_tcp: 0, ..acknowledgement() },
        Call { has_socket: 0, ..segment() },
        Call { is_tcp: 0, ..segment() },
        // A segment without an acknowledgement.
        Call { tcp_flags: 0x02, ..acknowledgement() },
        Call { tcp_flags: 0xff & !0x10, ..acknowledgement() },
    ]);
    // The queue of downloads does not exist yet.
    let early = [segment(), acknowledgement(), Call { op: 4, ..acknowledgement() }];
    let early = early.map(|it| Call { queued: 1, is_early: 1, ..it });
    for call in idle.chain(early) {
        assert_eq!(call.answered(&mut slow(), Some(&mut used())), call);
    }
    // A segment with data is paced, and offers no window.
    let sent = Call { rcv_rtt_us: 8_000, ..segment() }.answered(&mut slow(), Some(&mut used()));
    assert_eq!((sent.tried, sent.clamp), (2, UNCLAMPED));
}

#[test]
fn who_is_connected_is_asked_for_each_segment_beside_what_others_asked_for() {
    for op in [4, 5] {
        for callbacks in [0, 1, 64, 0x3f] {
            let asked = Call { op, callbacks, ..acknowledgement() };
            let answered = asked.answered(&mut slow(), None);
            assert_eq!(answered, Call { callbacks: callbacks | 64, ..asked });
        }
    }
}

#[test]
fn a_first_window_goes_by_the_burst_in_nanoseconds_whatever_a_tick_is() {
    for rate in [1_000_000, 40_000_001, 10_000_000_000] {
        let armed = limited(rate, 3 * MILLI);
        let part = u128::from(rate) * u128::from(3 * MILLI / 32) / u128::from(1_500 * SECOND);
        assert_eq!(u128::from(first_window(&mut both(armed))), part.clamp(4, 10), "{rate}");
    }
}

#[test]
fn a_window_is_offered_where_the_clamp_can_be_taken_back() {
    let offers = |call: Call, socket: Option<&mut throttle_socket>| {
        let answered = call.answered(&mut slow(), socket);
        assert_eq!(answered.tried != 0, answered.clamp != call.clamp);
        answered.clamp != call.clamp
    };
    let it = acknowledgement();
    let offered = it.answered(&mut slow(), Some(&mut used()));
    assert_eq!((offered.padding, offered.made), (4, 1));
    let queued = Call { queued: 1, ..it }.answered(&mut slow(), Some(&mut used()));
    assert_eq!(queued.clamp, offered.clamp);
    assert!(!offers(it, None), "there is no room for what is kept of it");
    assert!(!offers(Call { is_crowded: 1, ..it }, Some(&mut used())));
    assert!(!offers(Call { is_authenticated: 1, ..it }, Some(&mut used())));
    assert!(!offers(it, Some(&mut throttle_socket { broken: 1, ..used() })));
    // A closed window stays closed.
    for (window, is_open) in [(0, false), (LEAST - 1, false), (LEAST, true), (LEAST + 1, true)] {
        assert_eq!(offers(Call { window, ..it }, Some(&mut used())), is_open, "{window}");
    }
    // A clamp that is no higher stays too. 20 ms of 1 MB/s, in whole segments, minus what the kernel rounds up.
    let window = 20_000 / MSS * MSS / 128 * 128;
    for (clamp, is_lowered) in [(window - 1, false), (window, false), (window + 1, true)] {
        let mut socket = used();
        assert_eq!(offers(Call { clamp, ..it }, Some(&mut socket)), is_lowered, "{clamp}");
        assert_eq!(socket.clamp, if is_lowered { clamp } else { 0 });
    }
    // The kernel accepts no lower clamp than the minimum.
    let small = Call { mss: 100, rcv_rtt_us: 8, ..it };
    assert_eq!(small.answered(&mut slow(), Some(&mut used())).clamp, LEAST);
    for (mss, expected) in [(575, LEAST), (576, LEAST), (640, 1_280)] {
        let answered = Call { mss, rcv_rtt_us: 8, ..it }.answered(&mut slow(), Some(&mut used()));
        assert_eq!(answered.clamp, expected, "{mss}");
    }
}

#[test]
fn the_segments_of_a_window_are_the_longer_of_those_sent_and_received() {
    for (mss, rcv_mss) in [(1_448, 536), (536, 1_448), (1_448, 1_448)] {
        let call = Call { mss, rcv_mss, rcv_rtt_us: 8, ..acknowledgement() };
        let answered = call.answered(&mut slow(), Some(&mut used()));
        assert_eq!(answered.clamp, 2 * 1_448 / 128 * 128);
    }
}

#[test]
fn the_clamp_is_what_it_was_once_the_window_has_been_chosen() {
    let mut socket = used();
    let offered =
        Call { segments: 7, ..acknowledgement() }.answered(&mut slow(), Some(&mut socket));
    assert_eq!((socket.clamp, socket.segment, socket.broken), (UNCLAMPED, 7, 0));
    // A second throttle of the same load sees a lower clamp, and remembers the first one.
    let lower = Call { rcv_rtt_us: 8 * 10_000, ..offered }.answered(&mut slow(), Some(&mut socket));
    assert!(lower.clamp < offered.clamp);
    assert_eq!(socket.clamp, UNCLAMPED);
    let chosen = Call { op: CHOSEN, ..lower }.answered(&mut slow(), Some(&mut socket));
    assert_eq!((chosen.clamp, socket.clamp, socket.broken), (UNCLAMPED, 0, 0));
    // The program restores a clamp only once, and only if it has set one.
    for (socket, clamp) in [(Some(&mut socket), 5_000), (None, 5_000)] {
        let again = Call { op: CHOSEN, clamp, ..lower }.answered(&mut slow(), socket);
        assert_eq!((again.clamp, again.tried, again.made), (clamp, 0, 0));
    }
    // A throttle of another load has already restored a higher clamp.
    for (clamp, is_set) in [(4_999, true), (5_000, false), (5_001, false)] {
        let mut socket = throttle_socket { clamp: 5_000, ..used() };
        let chosen = Call { op: CHOSEN, clamp, ..lower }.answered(&mut slow(), Some(&mut socket));
        assert_eq!((chosen.clamp, socket.clamp), (clamp.max(5_000), 0));
        assert_eq!(chosen.tried, u32::from(is_set));
    }
}

#[test]
fn a_clamp_that_was_not_taken_back_is_with_the_next_segment_and_never_set_again() {
    let kept = || throttle_socket { clamp: 9_000, segment: 7, ..used() };
    // The kernel calls once more for the same segment.
    let mut socket = kept();
    let same = Call { segments: 7, clamp: 8_000, ..acknowledgement() };
    same.answered(&mut slow(), Some(&mut socket));
    assert_eq!((socket.clamp, socket.broken), (9_000, 0));
    for segments in [6, 8] {
        for next in [acknowledgement(), segment()] {
            let mut socket = kept();
            let next = Call { segments, clamp: 8_000, ..next };
            let mended = next.answered(&mut slow(), Some(&mut socket));
            assert_eq!((mended.clamp, socket.clamp, socket.broken), (9_000, 0, 1));
        }
    }
    let mut fine = used();
    let sent = Call { segments: 8, ..segment() }.answered(&mut slow(), Some(&mut fine));
    assert_eq!((fine.broken, sent.made), (0, 0));
}

#[test]
fn who_is_offered_all_that_it_can_use_is_not_held_back() {
    // 1 MB/s sends 20,000 bytes in 20 ms, which is four times 5,000.
    for (used, bound) in [(4_999, 0), (5_000, 0), (5_001, 1)] {
        let mut cgroup = slow();
        let mut socket = throttle_socket { counted: 1, used, since: SECOND, ..Default::default() };
        acknowledgement().answered(&mut cgroup, Some(&mut socket));
        assert_eq!(cgroup.download.flow.bound, bound, "{used}");
    }
}

/// Returns the flow after `fair_rate`.
fn updated(
    before: throttle_flow,
    limit: &throttle_state,
    ahead: u64,
    rtt: u64,
    now: u64,
) -> throttle_flow {
    let since = i128::from(now) - i128::from(before.updated);
    if since < i128::from(flow_interval(before.rtt)) {
        return before;
    }
    let elapsed = now - before.updated;
    let mut after = before;
    after.rtt = if before.rtt == 0 { rtt } else { (7 * before.rtt + rtt) / 8 };
    after.updated = now;
    after.arrived_before = before.arrived;
    after.bound = 0;
    if elapsed <= SECOND && before.arrived > before.arrived_before {
        let arrived = before.arrived - before.arrived_before;
        let may_cut = before.cut == 0;
        let seen = Seen { arrived, elapsed, ahead_ns: ahead, is_bound: before.bound != 0, may_cut };
        let fair = if before.fair_rate == 0 { limit.rate } else { before.fair_rate };
        after.fair_rate = flow_next(fair, limit.rate, seen, limit.tolerance >> limit.tick_shift);
        after.cut = u32::from(may_cut && flow_is_flooded(limit.rate, arrived, elapsed));
    }
    after
}

fn any_flow() -> impl Strategy<Value = throttle_flow> {
    let late = Just(1_001 * MILLI);
    let times = (prop_oneof![late, 0..=1_100 * MILLI], prop_oneof![Just(0), 1..300 * MILLI]);
    let parts = (prop_oneof![Just(0), 0..4_000_u64], 0..8_000_u64, any::<bool>(), any::<bool>());
    (times, parts).prop_map(|((ago, rtt), (arrived, fair, cut, bound))| throttle_flow {
        arrived: 5_000 + arrived,
        arrived_before: 5_000,
        // Another CPU may have updated the flow in between.
        updated: 10 * SECOND + MILLI - ago,
        fair_rate: fair,
        rtt,
        cut: cut.into(),
        bound: bound.into(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_window_comes_of_the_fair_rate_of_what_was_used_and_of_the_queue(
        rate in any_rate(), burst in prop_oneof![Just(0), Just(250 * MILLI), Just(4_300 * MILLI), Just(20 * SECOND)], flow in any_flow(),
        thousandths in prop_oneof![Just(0), 0..=1_000_u64], rtt_us in 1..400_000_u32, counted: bool, random: u32,
        received in prop_oneof![0..20_000_u64, Just(1 << 40)], used in 0..100_000_u64,
        since in prop_oneof![Just(0), 9 * SECOND..=10 * SECOND],
    ) {
        let now = 10 * SECOND;
        let limit = limited(rate, burst);
        let mut cgroup = both(limit);
        // In thousandths of what the limit passes in a second.
        let scaled = |it: u64| rate / 1_000 * it;
        let flow = throttle_flow {
            arrived: scaled(flow.arrived),
            arrived_before: scaled(flow.arrived_before),
            fair_rate: scaled(flow.fair_rate),
            ..flow
        };
        let ahead = burst * thousandths / 1_000;
        cgroup.download.flow = flow;
        cgroup.download.tat = (now + ahead) << limit.tick_shift;
        let rtt = 1_000 * u64::from(rtt_us);
        let before = received / 2;
        let mut socket =
            throttle_socket { counted: counted.into(), used, since, received: before, ..Default::default() };
        let call = Call { received, rcv_rtt_us: 8 * rtt_us, random, ..about_nothing(now) };
        let answered = call.answered(&mut cgroup, Some(&mut socket));

        let mut meant = flow;
        let takes_part = counted || flow_counts(received, MSS);
        let or_all = |fair: u64| if fair == 0 { limit.rate } else { fair };
        if takes_part && !counted {
            meant.fair_rate = flow_with_another(or_all(meant.fair_rate), limit.rate);
        }
        meant = updated(meant, &limit, ahead, rtt, now);
        let first = 10 * u64::from(MSS);
        let used = match now - since {
            _ if since == 0 => first,
            passed if passed < rtt => used,
            passed if passed > 4 * rtt => first,
            _ => received - before,
        };
        let tolerance_ns = limit.tolerance >> limit.tick_shift;
        let share = flow_share(or_all(meant.fair_rate), rtt);
        let mut most = flow_most(used, ahead, tolerance_ns);
        if !takes_part {
            most = most.min(flow_rest(received, MSS));
        }
        if share < most {
            meant.bound = 1;
        }
        let queue = Queue { ahead_ns: ahead, tolerance_ns };
        let window = flow_window(share, most, queue, MSS, random).max(LEAST.into());
        let [has, meant] = [cgroup.download.flow, meant].map(|it| {
            (it.fair_rate, it.rtt, it.updated, it.arrived, it.arrived_before, it.bound, it.cut)
        });
        prop_assert_eq!(has, meant);
        prop_assert_eq!(socket.used, used);
        prop_assert_eq!(socket.counted != 0, takes_part);
        prop_assert_eq!(u64::from(answered.clamp), window.min(UNCLAMPED.into()));
    }
}
