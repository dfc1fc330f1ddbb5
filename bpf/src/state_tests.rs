//! Tests the limit that the packet program computes. The encoding is from this crate, the arithmetic from the program's
//! own C headers.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{Burst, Departures, FqDevices, Rate};
use crate::native;

const DAY: u64 = 24 * 3_600 * NANOS;

fn limits(rate: u64, burst: Duration) -> Limits {
    Limits {
        rate: Rate::from_bytes_per_second(rate).unwrap(),
        burst: Burst::new(burst).unwrap(),
        traffic: Traffic::All,
        departures: Departures::Never,
    }
}

/// The kind of a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Plain,
    /// A TCP segment, sent while nothing of its socket is in flight.
    Lone,
    /// A datagram from or to a port of DNS.
    Dns,
}

/// Offers a packet of `bytes` at `now`. Returns whether it passes.
fn offer(state: &mut ThrottleState, now: u64, bytes: u32) -> bool {
    offer_what(state, now, bytes, What::Plain)
}

fn offer_what(state: &mut ThrottleState, now: u64, bytes: u32, what: What) -> bool {
    let raw = &mut state.0;
    let cost = native::gcra_cost(raw.cost, raw.tick_shift, bytes);
    let now = now << raw.tick_shift;
    if let Some(next) = native::gcra_admit(raw.tat, now, cost, raw.tolerance, raw.horizon) {
        raw.tat = next;
        return true;
    }
    let is_small = native::gcra_is_small(bytes);
    if is_small || what == What::Lone {
        let cost_there = native::gcra_reserve_cost(cost);
        let tolerance = native::gcra_reserve_tolerance(raw.tick_shift, is_small);
        let next = native::gcra_admit(raw.reserve, now, cost_there, tolerance, raw.horizon);
        if let Some(next) = next {
            raw.reserve = next;
            raw.tat += cost;
            return true;
        }
    }
    if what != What::Dns || !native::gcra_is_dns_sized(bytes) {
        return false;
    }
    let cost_there = native::gcra_dns_cost(cost, raw.tick_shift);
    let tolerance = native::gcra_dns_tolerance(raw.tick_shift);
    let next = native::gcra_admit(raw.dns, now, cost_there, tolerance, raw.horizon);
    if let Some(next) = next {
        raw.dns = next;
        raw.tat += cost;
    }
    next.is_some()
}

/// Returns the bytes that pass beyond the burst through the reserve: 50 ms of half the rate.
fn reserve(rate: u64) -> u64 {
    rate / 40
}

/// Generates rates of every magnitude with the same probability (log-uniform).
fn any_rate() -> impl Strategy<Value = u64> {
    (3.0..=11.0_f64).prop_map(|exponent| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate = 10_f64.powf(exponent) as u64;
        rate.clamp(Rate::MIN.bytes_per_second(), Rate::MAX.bytes_per_second())
    })
}

fn any_bytes() -> impl Strategy<Value = u32> {
    prop_oneof![Just(20), 20_u32..=1_500, 20_u32..=(1 << 20), Just(1 << 20)]
}

proptest! {
    #[test]
    fn the_cost_of_any_packet_at_any_rate_is_right_to_a_thousandth(rate in any_rate(), bytes in any_bytes()) {
        let state = ThrottleState::armed(&limits(rate, Duration::ZERO), 0).0;
        let ticks = u128::from(native::gcra_cost(state.cost, state.tick_shift, bytes));
        // The exact cost is bytes / rate seconds. So compare ticks * rate with bytes * 1e9 * 2^shift.
        let got = ticks * u128::from(rate);
        let exact = (u128::from(bytes) * u128::from(NANOS)) << state.tick_shift;
        prop_assert!(got.abs_diff(exact) * 1_000 <= exact, "{ticks} ticks of 2^-{} ns", state.tick_shift);
    }

    #[test]
    fn a_saturated_throttle_passes_its_rate_and_its_burst(
        rate in any_rate(), bytes in 20_u32..=65_536, burst_ms in 0_u64..=1_000, start in 0..=400 * DAY,
    ) {
        let burst = Duration::from_millis(burst_ms);
        let mut state = ThrottleState::armed(&limits(rate, burst), start);
        // Long enough for 2,000 packets, offered at twice the rate.
        let packet_ns = u64::from(bytes) * NANOS / rate;
        let step = (packet_ns / 2).max(1);
        let duration = 2_000 * packet_ns.max(2) + 4 * burst_ms * 1_000_000;
        let offers = (duration / step).min(50_000);
        let elapsed = offers * step;
        // If half of a packet's time is below a nanosecond, the offered load is below twice the rate.
        let passed = (0..=offers).filter(|i| offer(&mut state, start + i * step, bytes)).count() as u64;
        let allowed = u64::try_from(u128::from(elapsed) * u128::from(rate) / u128::from(NANOS)).unwrap()
            + burst_ms * rate / 1_000;
        let for_small = if bytes <= 256 { reserve(rate) } else { 0 };
        let got = passed * u64::from(bytes);
        let slack = allowed / 1_000 + 2 * u64::from(bytes);
        prop_assert!(got <= allowed + for_small + slack, "{got} bytes of {allowed}");
        let offered = (offers + 1) * u64::from(bytes);
        // If the tolerance is smaller than the gaps between offers, early offers are lost.
        if burst_ms * 1_000_000 >= packet_ns {
            prop_assert!(got + slack >= allowed.min(offered), "{got} bytes of {allowed}");
        }
    }

    #[test]
    fn after_any_idle_time_the_burst_is_whole_or_comes_back_within_its_horizon(
        rate in any_rate(), start in 0..=4_000 * DAY, idle in 1..=4_000 * DAY,
    ) {
        let mut state = ThrottleState::armed(&limits(rate, Duration::from_millis(100)), start);
        prop_assert!(offer(&mut state, start, 1_500));
        let later = start + idle + 100_000_000;
        let horizon_ns = state.0.horizon >> state.0.tick_shift;
        prop_assert!(
            offer(&mut state, later, 1_500) || offer(&mut state, later + horizon_ns, 1_500)
        );
    }

    #[test]
    fn a_change_gives_no_new_burst(
        old in any_rate(), new in any_rate(), now in NANOS..=400 * DAY, packets in 1..50_u32,
        bytes in prop_oneof![Just(84), Just(1_500)],
    ) {
        let burst = Duration::from_millis(20);
        let mut state = ThrottleState::armed(&limits(old, burst), now);
        while offer(&mut state, now, bytes) {}
        for _ in 0..packets {
            state = state.changed_to(&limits(new, burst), now);
            state = state.changed_to(&limits(old, burst), now);
        }
        // At most one packet passes, for the part that the other rate's limit has cut off.
        let again = (0..10).filter(|_| offer(&mut state, now, bytes)).count();
        prop_assert!(again <= 1, "{again} packets");
    }
}

#[test]
fn the_widest_numbers_do_not_overflow() {
    for rate in [Rate::MIN, Rate::MAX] {
        let limits = Limits {
            rate,
            burst: Burst::MAX,
            traffic: Traffic::All,
            departures: Departures::Never,
        };
        let state = ThrottleState::armed(&limits, 20 * 365 * DAY).0;
        assert!(state.tick_shift < COST_SHIFT);
        // Like gcra_cost(), but with overflow checks.
        assert!(MAX_BYTES.checked_mul(state.cost).is_some());
        assert!(state.horizon < u64::MAX / 2);
        assert_eq!(state.tolerance >> state.tick_shift, 3_600 * NANOS);
    }
}

#[test]
fn limits_are_encoded_in_the_finest_ticks_that_their_rate_needs() {
    let burst = Duration::from_millis(250);
    // At 6 kB/s the cost of a byte is not whole (…666.7). At 100 GB/s a nanosecond is too coarse for it.
    for (rate, tick_shift, cost, longest_packet) in
        [(6_000, 0, 2_796_202_666_667, 174_762_666_666), (100_000_000_000, 13, 167_772, 85_899_264)]
    {
        let state = ThrottleState::armed(&limits(rate, burst), DAY).0;
        assert_eq!((state.tick_shift, state.cost), (tick_shift, cost), "{rate}");
        assert_eq!(state.tolerance, 250_000_000 << tick_shift);
        assert_eq!(state.tat, DAY << tick_shift);
        assert_eq!(state.horizon, state.tolerance + longest_packet + (NANOS << tick_shift));
    }
}

#[test]
fn limits_are_read_back_as_they_were_written() {
    for traffic in [Traffic::All, Traffic::Internet, Traffic::Local] {
        let limits = Limits { traffic, ..limits(125_000, Duration::from_millis(20)) };
        let state = ThrottleState::armed(&limits, NANOS);
        assert_eq!((state.rate(), state.burst_ns()), (125_000, 20_000_000));
        assert_eq!(state.traffic(), Some(traffic));
        assert_eq!(state, ThrottleState::armed(&limits, NANOS));
        assert_ne!(state, ThrottleState::armed(&limits, NANOS + 1));
    }
    let devices: FqDevices = (2..=9).collect();
    for departures in [Departures::Never, Departures::Queue, Departures::Fq(devices)] {
        let limits = Limits { departures, ..limits(125_000, Duration::from_millis(20)) };
        assert_eq!(ThrottleState::armed(&limits, NANOS).departures(), departures);
    }
    let mut newer = ThrottleState::disarmed();
    newer.0.traffic = types::throttle_traffic(9);
    assert_eq!(newer.traffic(), None);
}

#[test]
fn a_change_keeps_as_time_what_was_used_up_as_far_as_the_new_limits_allow() {
    let burst = Duration::from_millis(250);
    let now = DAY;
    let (slow, fast) = (limits(6_000, burst), limits(100_000_000_000, burst));
    for (old, new) in [(slow, fast), (fast, slow), (slow, slow)] {
        let armed = ThrottleState::armed(&old, now);
        let types::throttle_state { tick_shift, horizon, .. } = armed.0;
        // Returns how far the TAT is ahead after the change, in nanoseconds.
        let kept = |ahead: u64| {
            let mut state = armed;
            state.0.tat += ahead;
            let changed = state.changed_to(&new, now).0;
            (changed.tat - (now << changed.tick_shift)) >> changed.tick_shift
        };
        assert_eq!(kept(0), 0);
        assert_eq!(kept(100_000_000 << tick_shift), 100_000_000);
        let limit = ThrottleState::armed(&new, now).0;
        let furthest = (limit.horizon >> limit.tick_shift) - NANOS;
        assert_eq!(kept(horizon), furthest.min(horizon >> tick_shift), "at the horizon");
        assert_eq!(kept(horizon + 1), 0, "beyond it a TAT lies in the past");
    }
    let disarmed = ThrottleState::disarmed().changed_to(&slow, now);
    assert_eq!(disarmed, ThrottleState::armed(&slow, now));
}

#[test]
fn counters_add_up_and_what_is_counted_since_is_never_below_zero() {
    let count = |packets, bytes| Count { packets, bytes };
    let one = Counters::from(types::throttle_counters {
        exempt_packets: 1,
        exempt_bytes: 20,
        passed_packets: 3,
        passed_bytes: 400,
        dropped_packets: 5,
        dropped_bytes: 6_000,
        held_back_packets: 7,
        held_back_bytes: 80_000,
    });
    assert_eq!(
        (one.exempt, one.passed, one.dropped, one.held_back),
        (count(1, 20), count(3, 400), count(5, 6_000), count(7, 80_000))
    );
    assert_eq!(one.seen(), count(16, 86_420));
    let three: Counters = [one; 3].into_iter().sum();
    assert_eq!(three.seen(), [one.seen(); 3].into_iter().sum());
    assert_eq!(three.since(&one), one + one);
    assert_eq!((one + one).dropped, count(10, 12_000));
    assert_eq!(one.since(&three), Counters::default(), "the counters of another program");
}

#[test]
fn a_packet_larger_than_the_burst_passes_and_is_paid_for() {
    // 20 ms at 125 kB/s are 2,500 bytes. A GSO packet has 64 kB, a BIG TCP packet up to 512 kB.
    let mut state = ThrottleState::armed(&limits(125_000, Duration::from_millis(20)), NANOS);
    for bytes in [65_536, 524_280] {
        let mut now = NANOS * u64::from(bytes);
        assert!(offer(&mut state, now, bytes));
        now += u64::from(bytes) * NANOS / 125_000 - 21_000_000;
        assert!(!offer(&mut state, now, 300), "too early");
        now += 2_000_000;
        assert!(offer(&mut state, now, 300), "paid for");
    }
}

#[test]
fn small_packets_pass_beside_a_flood_of_large_ones_and_are_charged() {
    for rate in [10_000, 125_000, 12_500_000] {
        for large in [1_500, 65_536] {
            let mut state = ThrottleState::armed(&limits(rate, Duration::from_millis(20)), NANOS);
            let (mut passed, mut pings) = (0, 0);
            // A flood at 64 times the rate for a minute, and a ping every 100 ms.
            let step = (u64::from(large) * NANOS / rate / 64).max(1);
            let mut next_ping = 0;
            for at in (0..60 * NANOS).step_by(usize::try_from(step).unwrap()) {
                if at >= next_ping {
                    next_ping += 100_000_000;
                    pings += u64::from(offer(&mut state, NANOS + at, 84));
                }
                passed += u64::from(large) * u64::from(offer(&mut state, NANOS + at, large));
            }
            let sent = (60 * NANOS).div_ceil(step.max(100_000_000));
            assert_eq!(pings, sent, "of {sent} pings at {rate} B/s beside {large} bytes");
            let allowed = 60 * rate + rate / 50 + reserve(rate) + u64::from(large);
            let got = passed + 84 * pings;
            assert!(got <= allowed, "{got} bytes of {allowed} at {rate} B/s");
            assert!(got >= 60 * rate * 99 / 100, "{got} bytes of {allowed} at {rate} B/s");
        }
    }
}

#[test]
fn what_has_a_reserve_has_half_beside_a_flood_and_no_more_than_the_rate() {
    let rate = 125_000;
    for (bytes, what) in [(256, What::Plain), (1_500, What::Lone)] {
        let mut state = ThrottleState::armed(&limits(rate, Duration::from_millis(20)), NANOS);
        let (mut reserved, mut others) = (0, 0);
        for at in (0..60 * NANOS).step_by(100_000) {
            // The others come first, so they get whatever the bucket has.
            others += 1_400 * u64::from(offer(&mut state, NANOS + at, 1_400));
            reserved +=
                u64::from(bytes) * u64::from(offer_what(&mut state, NANOS + at, bytes, what));
        }
        assert!(reserved + others <= 60 * rate + rate / 50 + reserve(rate) + 2 * 1_500);
        assert!(reserved >= 60 * rate / 2 * 99 / 100, "{reserved} bytes of {bytes}");
        assert!(others >= 60 * rate / 8, "{others} bytes beside {bytes}");
        while offer(&mut state, 62 * NANOS, 1_500) {}
        assert!(offer(&mut state, 62 * NANOS, 256) && !offer(&mut state, 62 * NANOS, 257));
    }
}

#[test]
fn lone_segments_leave_room_for_small_packets() {
    let rate = 125_000;
    let mut state = ThrottleState::armed(&limits(rate, Duration::from_millis(20)), NANOS);
    for at in (0..10 * NANOS).step_by(1_000_000) {
        offer(&mut state, NANOS + at, 65_536);
        offer_what(&mut state, NANOS + at, 1_500, What::Lone);
        if at % 100_000_000 == 0 {
            assert!(offer(&mut state, NANOS + at, 84), "a ping after {at} ns");
        }
    }
}

#[path = "state_dns_tests.rs"]
mod dns;
#[path = "state_places_tests.rs"]
mod places;
#[path = "state_traffic_tests.rs"]
mod traffic;

#[test]
fn a_disarmed_state_is_what_the_kernel_makes() {
    assert!(ThrottleState::disarmed().0.as_bytes().iter().all(|byte| *byte == 0));
    assert!(!ThrottleState::disarmed().is_armed());
    assert!(ThrottleState::armed(&limits(1_000_000, Duration::ZERO), 5).is_armed());
}

#[test]
fn what_waits_in_fq_is_never_to_leave_beyond_its_horizon() {
    let long = limits(125_000, Duration::from_secs(60));
    let ahead = |limits: &Limits| {
        let state = ThrottleState::armed(limits, 0).0;
        Duration::from_nanos(state.tolerance >> state.tick_shift)
    };
    assert_eq!(ahead(&long), Duration::from_secs(60));
    let fq = Departures::Fq([2].into_iter().collect());
    for departures in [fq, Departures::Queue] {
        assert_eq!(ahead(&Limits { departures, ..long }), Duration::from_secs(5));
    }
}

#[test]
fn devices_with_fq_lie_where_the_program_looks_for_them() {
    let limits = |devices: &[u32]| Limits {
        departures: Departures::Fq(devices.iter().copied().collect()),
        ..limits(125_000, Duration::from_millis(20))
    };
    let state = ThrottleState::armed(&limits(&[40, 2]), NANOS).0;
    assert_eq!((state.departures, state.fq), (1, [2, 40, 0, 0, 0, 0, 0, 0]));
    let none = ThrottleState::armed(&limits(&[]), NANOS);
    assert_eq!(
        none,
        ThrottleState::armed(&Limits { departures: Departures::Never, ..limits(&[]) }, NANOS)
    );
    let kept = ThrottleState::armed(&limits(&[2]), NANOS).changed_to(&limits(&[2]), NANOS);
    assert_eq!(kept.departures(), limits(&[2]).departures);
}
