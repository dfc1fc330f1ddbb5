//! Compares the arithmetic of `programs/flow.h` at every rate with 128 bit or real numbers. No product overflows, and
//! each result is within its rounding error.

use proptest::prelude::*;

use crate::native::{
    Queue, Seen, flow_counts, flow_first, flow_is_flooded, flow_most, flow_next, flow_pace,
    flow_rest, flow_share, flow_window, flow_with_another,
};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// The highest rate of a limit.
const HIGHEST: u64 = 100 * SECOND;

/// Generates limits of every magnitude, from the lowest on, and limits around the powers of two.
fn any_limit() -> impl Strategy<Value = u64> {
    let power = (10..37_u32, -2..=2_i64)
        .prop_map(|(power, off)| (1_u64 << power).saturating_add_signed(off));
    let other =
        (1_000..10_000_u64, 0..8_u32).prop_map(|(mantissa, power)| mantissa * 10_u64.pow(power));
    prop_oneof![power, other].prop_map(|limit| limit.clamp(1_000, HIGHEST))
}

/// Generates a limit and a fair rate within its bounds. The bounds themselves are likely.
fn any_rates() -> impl Strategy<Value = (u64, u64)> {
    let part = prop_oneof![Just(0_u32), Just(u32::MAX), any::<u32>()];
    (any_limit(), 0..14_u32, part).prop_map(|(limit, power, part)| {
        let (most, least) = (4 * limit, (limit >> 12).max(1));
        let low = (most >> (power + 1)).max(least);
        let high = (most >> power).max(low);
        let part = u128::from(high - low) * u128::from(part) / u128::from(u32::MAX);
        (limit, low + u64::try_from(part).unwrap())
    })
}

fn wide(number: u64) -> u128 {
    number.into()
}

fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap()
}

/// Returns the factor by which `flow_next` multiplies the fair rate, for this part of the limit.
fn factor(load: f64, seen: Seen, tolerance_ns: u64) -> f64 {
    if load > 1.25 && seen.may_cut {
        return 1.0 / load.min(16.0);
    }
    let wanted = (60 * MILLI).min(tolerance_ns / 4);
    let scale = seen.elapsed.min(SECOND).max(wanted) as f64;
    let queue = (seen.ahead_ns as f64 - wanted as f64) / scale;
    let factor = 1.0 + 0.3 * (1.0 - load.min(16.0)) - queue.clamp(-1.0, 1.0) / 16.0;
    let grows = seen.is_bound && seen.ahead_ns <= wanted;
    factor.max(0.625).min(if grows { 2.0 } else { 1.0 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_sender_more_leaves_each_its_part((limit, fair) in any_rates()) {
        let part = wide(fair) * wide(limit) / (wide(fair) + wide(limit));
        let got = flow_with_another(fair, limit);
        // From 1 GB/s on, the function computes in units of 4,096 bytes a second.
        let off = if limit < 1 << 30 { 0 } else { 3 * 4_096 };
        prop_assert!(got.abs_diff(narrow(part).max(1)) <= off, "{got}, not {part}");
    }

    #[test]
    fn a_share_is_what_the_rate_sends_in_that_time((limit, fair) in any_rates(), rtt in 0..20 * SECOND) {
        for rate in [limit, fair] {
            let sent = narrow(wide(rate) * wide(rtt.min(10 * SECOND)) / wide(SECOND));
            let got = flow_share(rate, rtt);
            // The function truncates the time to microseconds.
            let off = rate / 1_000_000 + 1;
            prop_assert!((sent.saturating_sub(off)..=sent).contains(&got), "{got}, not {sent}");
        }
    }

    #[test]
    fn a_flood_is_a_quarter_more_than_may_arrive(
        limit in any_limit(), elapsed in 10 * MILLI..10 * SECOND, thousandths in 0..4_000_u64,
    ) {
        let may = wide(limit) * wide(elapsed.min(SECOND)) / wide(SECOND);
        let arrived = narrow(may * wide(thousandths) / 1_000);
        let (least, most) = (may * 5 / 4, wide(arrived));
        let off = wide(limit) / 500_000 + 3;
        if most > least + off {
            prop_assert!(flow_is_flooded(limit, arrived, elapsed));
        } else if most + off < least {
            prop_assert!(!flow_is_flooded(limit, arrived, elapsed));
        }
    }

    #[test]
    fn the_fair_rate_follows_what_arrives_at_every_limit(
        (limit, fair) in any_rates(), elapsed in 10 * MILLI..2 * SECOND,
        thousandths in prop_oneof![0..3_000_u64, 0..100_000_u64],
        ahead_ns in prop_oneof![Just(0), 0..200 * MILLI, 0..HOUR],
        tolerance_ns in prop_oneof![0..400 * MILLI, Just(HOUR)], is_bound: bool, may_cut: bool,
    ) {
        let may = wide(limit) * wide(elapsed.min(SECOND)) / wide(SECOND);
        let arrived = narrow(may * wide(thousandths) / 1_000);
        let seen = Seen { arrived, elapsed, ahead_ns, is_bound, may_cut };
        let got = flow_next(fair, limit, seen, tolerance_ns);
        // The function truncates the allowed bytes to microseconds of the limit and to bytes, and the load to 1,024ths.
        let off = wide(limit) / 1_000_000 + 1;
        let load = |may: u128| arrived as f64 / may.max(1) as f64;
        let loads = [load(may + 1) - 2.0 / 1_024.0, load(may.saturating_sub(off)) + 2.0 / 1_024.0];
        let [high, low] = loads.map(|load| factor(load.max(0.0), seen, tolerance_ns));
        let bound = |factor: f64, off: f64| {
            let rate = fair as f64 * (factor + off) + 2.0 * off.signum();
            rate.clamp((limit >> 12).max(1) as f64, 4.0 * limit as f64)
        };
        let expected = bound(low, -4.0 / 1_024.0)..=bound(high, 4.0 / 1_024.0);
        prop_assert!(expected.contains(&(got as f64)), "{got}, not {expected:?}");
    }

    #[test]
    fn a_segment_is_paced_for_what_is_ahead(
        ahead in 0..HOUR, later in prop_oneof![0..SECOND, 0..20 * SECOND], tolerance in 0..HOUR, payload: u32, mss in 0..65_536_u32,
    ) {
        for ahead in [ahead, ahead % (20 * SECOND), ahead % SECOND, ahead % (10 * MILLI)] {
            let before = (5 * MILLI).min(tolerance / 2) + later;
            let expected = match ahead.saturating_sub(before) {
                0 => 0,
                waits => (u128::from(payload.max(mss)) * wide(SECOND) / wide(waits.min(SECOND))).max(1),
            };
            prop_assert_eq!(wide(flow_pace(ahead, later, tolerance, payload, mss)), expected);
        }
    }

    #[test]
    fn windows_are_whole_segments_around_what_may_be_sent(
        (limit, fair) in any_rates(), rtt in 0..10 * SECOND, used in 0..1_u64 << 42,
        ahead_ns in prop_oneof![Just(0), 0..HOUR], tolerance_ns in 0..=HOUR, mss in 536..65_536_u32, random: u32,
    ) {
        let is_long = ahead_ns > tolerance_ns / 2;
        let most = flow_most(used, ahead_ns, tolerance_ns);
        let times = if ahead_ns == 0 { 8 } else if is_long { 1 } else { 4 };
        prop_assert_eq!(wide(most), wide(used) * times / 2);
        let share = flow_share(fair, rtt);
        let segment = u64::from(mss);
        let least = if is_long { segment } else { 2 * segment };
        let more = narrow((u128::from(random) * u128::from(mss)) >> 32);
        let meant = share.min(most);
        let meant = if meant <= least { least } else { meant + more };
        let whole = meant / segment * segment;
        let got = flow_window(share, most, Queue { ahead_ns, tolerance_ns }, mss, random);
        // A single segment is not rounded.
        let unit = if whole > segment { whole / 128 * 128 } else { segment };
        prop_assert_eq!(got, unit);
        let first = flow_first(limit, tolerance_ns);
        let part = flow_share(limit, tolerance_ns / 32) / 1_500;
        prop_assert_eq!(u64::from(first), part.clamp(4, 10));
    }

    #[test]
    fn a_first_window_is_ten_segments_of_any_length(received in 0..1_u64 << 50, mss: u32) {
        for received in [received, received % (11 * u64::from(mss) + 1)] {
            let first = 10 * wide(mss.into());
            prop_assert_eq!(flow_counts(received, mss), wide(received) + wide(mss.into()) > first);
            prop_assert_eq!(wide(flow_rest(received, mss)), first.saturating_sub(wide(received)));
        }
    }
}
