//! Tests the arithmetic of pacing and of windows (`programs/flow.h`), also with simulated senders.

use proptest::prelude::*;

use crate::native::{
    Queue, Seen, flow_counts, flow_first, flow_interval, flow_is_flooded, flow_most, flow_next,
    flow_pace, flow_rest, flow_share, flow_window, flow_with_another,
};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MSS: u32 = 1_448;
const TOLERANCE: u64 = 250 * MILLI;

#[test]
fn a_segment_waits_until_it_has_left_the_queue_but_for_the_lead() {
    // 1,448 bytes in 15 ms, with a lead of 5 ms.
    assert_eq!(flow_pace(15 * MILLI, 0, TOLERANCE, 1_448, MSS), 144_800);
    assert_eq!(flow_pace(5 * MILLI, 0, TOLERANCE, 1_448, MSS), 0);
    assert_eq!(flow_pace(5 * MILLI + 1, 0, TOLERANCE, 1_448, MSS), 1_448 * SECOND);
    // If the burst is shorter than that, half of the burst is the lead.
    assert_eq!(flow_pace(3 * MILLI, 0, 2 * MILLI, 1_000, 1_000), 500_000);
    assert_eq!(
        flow_pace(u64::MAX, 0, TOLERANCE, 1_448, MSS),
        1_448,
        "a second is the longest wait"
    );
    assert_eq!(flow_pace(SECOND, 0, TOLERANCE, 0, 0), 1, "never 0, which would mean no waiting");
}

#[test]
fn after_a_segment_of_a_few_bytes_a_full_one_does_not_take_minutes() {
    let rate = flow_pace(25 * MILLI, 0, TOLERANCE, 2, MSS);
    assert_eq!(u64::from(MSS) * SECOND / rate, 20 * MILLI);
}

#[test]
fn what_is_handed_over_before_its_time_does_not_wait_twice() {
    // With fq, each segment takes 10 ms. The socket hands over the second and the third together with the first.
    let mut leaves = 0;
    for nth in 1..=3 {
        let rate = flow_pace(nth * 10 * MILLI, leaves, TOLERANCE, 1_000, 1_000);
        leaves += 1_000 * SECOND / rate;
        assert!((nth * 10 * MILLI - 5 * MILLI).abs_diff(leaves) < MILLI / 100, "{nth}: {leaves}");
    }
    assert_eq!(flow_pace(10 * MILLI, 6 * MILLI, TOLERANCE, 1_000, 1_000), 0);
}

#[test]
fn another_sender_gets_as_much_as_each_of_the_others() {
    let mut fair = 4_000_000;
    for senders in 1..=16 {
        fair = flow_with_another(fair, 1_000_000);
        // 1/R = 1/(4 C) + n/C.
        let expected = 4_000_000 / (1 + 4 * senders);
        assert!(fair.abs_diff(expected) <= 16, "{senders}: {fair}, not {expected}");
    }
    assert_eq!(flow_with_another(0, 0), 1, "never 0, which would mean that nothing is known");
    let huge = flow_with_another(100 * SECOND, 100 * SECOND);
    assert!(huge.abs_diff(50 * SECOND) < 10_000, "{huge}");
}

#[test]
fn the_interval_is_a_round_trip_within_bounds() {
    assert_eq!(
        [0, 30 * MILLI, 5 * SECOND].map(flow_interval),
        [10 * MILLI, 30 * MILLI, 200 * MILLI]
    );
}

#[test]
fn five_quarters_of_what_may_arrive_is_a_flood() {
    assert!(!flow_is_flooded(1_000_000, 12_500, 10 * MILLI));
    assert!(flow_is_flooded(1_000_000, 12_501, 10 * MILLI));
}

const CALM: Seen =
    Seen { arrived: 0, elapsed: 10 * MILLI, ahead_ns: 0, is_bound: true, may_cut: true };

#[test]
fn a_flood_cuts_the_rate_at_once_but_not_twice_for_the_same_packets() {
    let next = |may_cut| {
        flow_next(1_000_000, 1_000_000, Seen { arrived: 40_000, may_cut, ..CALM }, TOLERANCE)
    };
    // Four times as much arrives as allowed, so there are four times as many senders.
    assert!(next(true).abs_diff(250_000) < 1_000, "{}", next(true));
    assert!(next(false).abs_diff(625_000) < 1_000, "{}", next(false));
}

#[test]
fn the_rate_rises_while_little_arrives_because_of_it_and_the_queue_is_not_long() {
    let next = |seen| flow_next(500_000, 1_000_000, seen, TOLERANCE);
    assert!(next(CALM).abs_diff(680_000) < 2_000, "by alpha and beta: {}", next(CALM));
    assert!(next(Seen { arrived: 9_000, ..CALM }) > 500_000);
    assert_eq!(next(Seen { is_bound: false, ..CALM }), 500_000, "nobody is held back by it");
    assert_eq!(next(Seen { ahead_ns: 61 * MILLI, ..CALM }), 500_000, "it is to drain first");
    assert!(next(Seen { arrived: 10_000, ahead_ns: 100 * MILLI, ..CALM }) < 500_000);
}

#[test]
fn a_window_is_what_the_fair_rate_sends_in_a_round_trip_and_what_its_sender_can_use() {
    assert_eq!(flow_share(1_000_000, 20 * MILLI), 20_000);
    assert_eq!(flow_share(400 * SECOND, 3_600 * SECOND), 4_000 * SECOND, "ten seconds at most");
    let most = |ahead| flow_most(3_000, ahead, TOLERANCE);
    assert_eq!([0, 1, TOLERANCE / 2, TOLERANCE / 2 + 1].map(most), [12_000, 6_000, 6_000, 1_500]);
    assert_eq!(window(12_000, 50_000, 0, 0), 11_520, "eight segments");
    assert_eq!(window(50_000, 12_000, 0, 0), 11_520);
    assert_eq!(window(100, 50_000, TOLERANCE / 2, u32::MAX), 2_816, "two");
    assert_eq!(window(100, 50_000, TOLERANCE / 2 + 1, u32::MAX), 1_448, "one");
}

fn window(share: u64, most: u64, ahead_ns: u64, random: u32) -> u64 {
    flow_window(share, most, Queue { ahead_ns, tolerance_ns: TOLERANCE }, MSS, random)
}

#[test]
fn a_window_leaves_no_rest_that_would_be_sent_with_headers_of_its_own() {
    for share in 3_000..30_000 {
        for random in [0, u32::MAX / 2, u32::MAX] {
            let window = window(share, 50_000, 0, random);
            let short = window.next_multiple_of(MSS.into()) - window;
            assert!(short < 128, "{share}: {window}");
            assert_eq!(window % 128, 0, "{share}: {window} would be rounded up");
        }
    }
}

#[test]
fn windows_of_whole_segments_have_the_mean_of_what_may_be_sent() {
    let mut random = Random(1);
    for share in [3_100, 4_344, 10_000] {
        let segments: u64 =
            (0..10_000).map(|_| window(share, 50_000, 0, random.next()).div_ceil(MSS.into())).sum();
        let mean = segments as f64 / 1e4 * f64::from(MSS);
        assert!((mean - share as f64).abs() < 50.0, "{mean} instead of {share}");
    }
}

#[test]
fn first_windows_are_shorter_where_the_limit_is_low() {
    let first = |limit| flow_first(limit, TOLERANCE);
    assert_eq!([125_000, 1_250_000, 12_500_000].map(first), [4, 6, 10]);
    assert_eq!(flow_first(12_500_000, 0), 4);
    assert!(!flow_counts(9 * u64::from(MSS), MSS));
    assert!(flow_counts(9 * u64::from(MSS) + 1, MSS), "the tenth may be a small one");
    assert_eq!(flow_rest(4 * u64::from(MSS), MSS), 6 * u64::from(MSS));
    assert_eq!(flow_rest(u64::MAX, MSS), 0);
}

/// A linear congruential generator, which gives the same numbers each time.
struct Random(u64);

impl Random {
    #[allow(clippy::cast_possible_truncation)] // The upper half.
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 32) as u32
    }
}

/// Simulates senders in slow start that begin in the same round trip of 20 ms, with an acknowledgement for each
/// segment. Returns how many segments the bucket drops in the first few round trips. Dropped segments count as arrived,
/// so that their senders go on.
fn dropped_at_the_start(limit: u64, senders: usize) -> u32 {
    const RTT: u64 = 20 * MILLI;
    #[derive(Clone)]
    struct Sender {
        congestion: u64,
        sent: u64,
        received: u64,
        edge: u64,
        used: u64,
        counts: bool,
    }
    let mss = u64::from(MSS);
    let cost = 1_500 * SECOND / limit;
    let edge = u64::from(flow_first(limit, TOLERANCE)) * mss;
    let sender =
        Sender { congestion: 10, sent: 0, received: 0, edge, used: 10 * mss, counts: false };
    let mut senders = vec![sender; senders];
    let (mut fair, mut tat, mut dropped, mut random) = (limit, 0, 0, Random(1));
    for round in 1..=10 {
        let now = round * RTT;
        for it in &mut senders {
            let before = it.received;
            it.sent += (it.edge - it.sent).min(it.congestion * mss) / mss * mss;
            while it.received < it.sent {
                it.received += mss;
                it.congestion += 1;
                tat = now.max(tat);
                if tat + cost > now + TOLERANCE {
                    dropped += 1;
                } else {
                    tat += cost;
                }
                if !it.counts && flow_counts(it.received, MSS) {
                    it.counts = true;
                    fair = flow_with_another(fair, limit);
                }
                let mut most = flow_most(it.used, tat - now, TOLERANCE);
                if !it.counts {
                    most = most.min(flow_rest(it.received, MSS));
                }
                let window = window(flow_share(fair, RTT), most, tat - now, random.next());
                // The kernel rounds up in the same way.
                it.edge = it.edge.max(it.received + window.next_multiple_of(128));
            }
            it.used = it.received - before;
        }
    }
    dropped
}

#[test]
fn nothing_is_dropped_when_many_begin_at_once() {
    for senders in [1, 4, 16] {
        assert_eq!(dropped_at_the_start(1_250_000, senders), 0, "{senders} senders");
    }
    assert_eq!(dropped_at_the_start(12_500_000, 64), 0);
}

/// Simulates senders that evenly send the window offered a round trip before, and grow by at most `growth` in each.
/// Returns the part of the limit that arrives after a while, and the longest virtual queue then.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Bytes, below 2^53.
fn simulate(limit: u64, rtt: u64, senders: usize, growth: f64) -> (f64, u64) {
    const STEP: u64 = MILLI;
    let delay = usize::try_from(rtt / STEP).unwrap();
    let (mut fair, mut cut, mut bound) = (limit, false, false);
    for _ in 0..senders {
        fair = flow_with_another(fair, limit);
    }
    let first = f64::from(10 * MSS);
    let mut random = Random(1);
    // For each step: the offered window, the bytes sent in a round trip, and the bytes of the last one.
    let mut offered = std::collections::VecDeque::from(vec![first; delay]);
    let (mut sends, mut used, mut came) = (first, first, 0.0);
    let (mut arrived, mut tat, mut measured, mut longest) = (0.0, 0_u64, 0.0, 0);
    for step in 1..=20_000 {
        let now = step * STEP;
        let allowed = offered.pop_front().unwrap();
        sends = allowed.min(sends * growth.powf(STEP as f64 / rtt as f64));
        let bytes = sends * senders as f64 * STEP as f64 / rtt as f64;
        came += bytes;
        arrived += bytes;
        tat = tat.max(now) + (bytes * 1e9 / limit as f64) as u64;
        let ahead = tat - now;
        if step > 5_000 {
            measured += bytes;
            longest = longest.max(ahead);
        }
        if now % rtt < STEP {
            used = std::mem::take(&mut came) / senders as f64;
        }
        let interval = flow_interval(rtt);
        if now % interval < STEP {
            let came = std::mem::take(&mut arrived) as u64;
            let seen = Seen {
                arrived: came,
                elapsed: interval,
                ahead_ns: ahead,
                is_bound: std::mem::take(&mut bound),
                may_cut: !cut,
            };
            fair = flow_next(fair, limit, seen, TOLERANCE);
            cut = !cut && flow_is_flooded(limit, came, interval);
        }
        let (share, most) = (flow_share(fair, rtt), flow_most(used as u64, ahead, TOLERANCE));
        bound |= share < most;
        offered.push_back(window(share, most, ahead, random.next()) as f64);
    }
    (measured / (limit as f64 * 15.0), longest)
}

#[test]
fn senders_that_double_or_grow_by_a_quarter_come_to_the_limit() {
    for growth in [2.0, 1.25] {
        for (limit, senders) in [(1_250_000, 1), (1_250_000, 4), (12_500_000, 16), (125_000_000, 4)]
        {
            for rtt in [20, 50, 100] {
                let (share, longest) = simulate(limit, rtt * MILLI, senders, growth);
                let case =
                    format!("{limit} B/s, {rtt} ms, {senders} senders that grow by {growth}");
                assert!((0.98..=1.02).contains(&share), "{case}: {share:.3} of the limit arrives");
                assert!(longest < TOLERANCE, "{case}: the queue is {longest} ns long");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_numbers_lead_out_of_bounds(
        fair in 0..400 * SECOND,
        limit in 1_000..=100 * SECOND,
        arrived in 0..1_u64 << 40,
        elapsed in 0..100 * SECOND,
        ahead in 0..3_600 * SECOND,
        tolerance in 0..=3_600 * SECOND,
        is_bound: bool,
        may_cut: bool,
        random: u32,
    ) {
        let seen = Seen { arrived, elapsed, ahead_ns: ahead, is_bound, may_cut };
        let next = flow_next(fair, limit, seen, tolerance);
        prop_assert!(next >= (limit >> 12).max(1) && next <= limit << 2, "{next}");
        // The rate at most doubles, except up to the lower bound.
        prop_assert!(next <= (2 * fair).max(limit >> 12).max(1), "{next} after {fair}");
        let another = flow_with_another(fair, limit);
        prop_assert!(another <= fair.max(1) && another <= limit);
        let most = flow_most(arrived, ahead, tolerance);
        let queue = Queue { ahead_ns: ahead, tolerance_ns: tolerance };
        let window = flow_window(flow_share(next, elapsed), most, queue, MSS, random);
        prop_assert!(window >= u64::from(MSS));
    }
}
