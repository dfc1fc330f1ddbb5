//! Runs the packet programs on this machine, and compares them with the exact limit ([`crate::exact`]).

use std::time::Duration;

use proptest::prelude::*;

use crate::exact::{Bucket, Offer, Throttle, Way};
use crate::limits::{Burst, Departures, Limits, Rate, Traffic};
use crate::native::packets::{Outcome, Packet, Place};
use crate::native::shape::{FQ, Shape, TCP, UDP, any_shape};
use crate::native::windows::{Segment, pace};
use crate::native::{
    gcra_admit, gcra_cost, gcra_dns_cost, gcra_dns_tolerance, gcra_reserve_tolerance,
};
use crate::state::ThrottleState;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// The lowest rate, rates where ticks become finer than nanoseconds (20 MB/s), and high rates.
pub(crate) const RATES: [u64; 8] = [
    1_000,
    125_000,
    20_000_000,
    20_000_001,
    40_000_001,
    100_000_000,
    10_000_000_000,
    100_000_000_000,
];

pub(crate) fn limits(rate: u64, burst_ns: u64, departures: Departures) -> Limits {
    Limits {
        rate: Rate::from_bytes_per_second(rate).unwrap(),
        burst: Burst::new(Duration::from_nanos(burst_ns)).unwrap(),
        traffic: Traffic::All,
        departures,
    }
}

/// Generates one of [`RATES`], or any other rate.
pub(crate) fn any_rate() -> impl Strategy<Value = u64> {
    let mantissa_and_power = (1_000..10_000_u64, 0..8_u32);
    let other = mantissa_and_power.prop_map(|(mantissa, power)| mantissa * 10_u64.pow(power));
    prop_oneof![proptest::sample::select(RATES.to_vec()), other]
}

fn any_burst() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..50 * MILLI, Just(250 * MILLI), Just(HOUR)]
}

/// A throttle of the programs, and the exact one.
struct Both {
    place: Place,
    meant: Throttle,
    start: u64,
}

impl Both {
    fn new(limits: &Limits, start: u64) -> Self {
        let state = ThrottleState::armed(limits, start);
        // fq keeps no packet for longer than 10 s. The state allows half of that.
        let longest = if limits.departures.wait() { 5 * SECOND } else { HOUR };
        let burst = limits.burst.as_nanos().min(longest);
        let rate = limits.rate.bytes_per_second();
        let meant = Throttle::new(rate, burst, state.0.tick_shift);
        Self { place: Place::upload(state), meant, start }
    }

    /// Returns how far the TATs of the bucket, the reserve and the bucket for DNS are ahead.
    fn ticks_ahead(&self, now: u64) -> [u64; 3] {
        let state = &self.place.cgroup.upload;
        [state.tat, state.reserve, state.dns].map(|tat| {
            let ahead = tat.wrapping_sub(now << state.tick_shift);
            if ahead > state.horizon { 0 } else { ahead }
        })
    }

    /// Sends a packet at `start + at`, and compares the result with the exact limit.
    fn send(&mut self, shape: Shape, packet: &Packet, at: u64) -> Result<Outcome, TestCaseError> {
        let offer = Offer {
            bytes: shape.on_the_wire(),
            is_lone: packet.socket == TCP && packet.in_flight == 0 && packet.gso_segs < 2,
            is_dns: shape.tcp.is_none()
                && shape.options == 0
                && [53, 853, 5_353].contains(&shape.port),
        };
        let ways = self.meant.ways(at, offer);
        let before = self.place.cgroup.upload;
        let outcome = self.place.send(packet, self.start + at);
        let after = self.place.cgroup.upload;
        let way = match outcome.passed {
            false => Way::Refused,
            true if after.reserve != before.reserve => Way::Reserve,
            true if after.dns != before.dns => Way::Dns,
            true => Way::Bucket,
        };
        prop_assert!(ways.contains(&way), "{way:?} and not {ways:?}: {offer:?} after {at} ns");
        self.meant.charge(at, offer, way);
        let buckets: [&Bucket; 3] = [&self.meant.bucket, &self.meant.reserve, &self.meant.dns];
        for (which, (bucket, ticks)) in
            buckets.into_iter().zip(self.ticks_ahead(self.start + at)).enumerate()
        {
            let agrees = self.meant.agrees(bucket, at, ticks);
            prop_assert!(agrees, "bucket {which} is {ticks} ticks ahead: {bucket:?} after {at} ns");
        }
        Ok(outcome)
    }
}

/// Returns a moment near a wrap of the ticks of a rate's clock, if that is not too far off.
fn near_a_wrap(rate: u64, days: u64, before: u64) -> u64 {
    let shift = ThrottleState::armed(&limits(rate, 0, Departures::Never), 0).0.tick_shift;
    // 2^64 ticks, in nanoseconds.
    let wrap = (1_u128 << 64) >> shift;
    match u64::try_from(wrap) {
        Ok(wrap) if wrap < 10_000 * DAY => wrap - before.min(wrap),
        _ => days * DAY,
    }
}

proptest! {
    #[test]
    fn a_packet_is_charged_for_every_header_on_the_wire(shape in any_shape(), base in prop_oneof![Just(0), Just(14_u32)]) {
        prop_assert_eq!(shape.packet().behind(base).wire_bytes(base), shape.on_the_wire());
    }

    #[test]
    fn a_jumbogram_is_charged_without_the_header_that_no_segment_has(
        payload in 65_536..500_000_u32, mss in 1_220..9_000_u32, options in 0..=10_u8,
        is_counted: bool,
    ) {
        let shape = Shape {
            is_ipv6: true, tcp: Some(options), is_jumbo: true, payload, mss, is_counted, ..Shape::DATAGRAM
        };
        prop_assert_eq!(shape.packet().wire_bytes(0), shape.on_the_wire());
    }

    #[test]
    fn a_tick_is_a_thousandth_of_the_shortest_packet_at_the_most_and_no_finer_than_that_takes(
        rate in any_rate(),
    ) {
        let shift = ThrottleState::armed(&limits(rate, 0, Departures::Never), 0).0.tick_shift;
        // The number of ticks in the time of 20 bytes, times the rate.
        let ticks = |shift: u32| u128::from(20 * SECOND) << shift;
        let least = 1_000 * u128::from(rate);
        prop_assert!(ticks(shift) >= least, "2^-{shift} ns");
        prop_assert!(shift == 0 || ticks(shift - 1) < least, "2^-{shift} ns");
    }

    #[test]
    fn every_packet_passes_the_bucket_that_it_is_meant_to_pass(
        rate in any_rate(), burst in any_burst(), days in 0..400_u64, before in 0..10 * SECOND,
        offers in prop::collection::vec(
            (any_shape(), any::<bool>(), 0..3_u32, 0..2_000_u64, 0..100_u8), 1..200,
        ),
    ) {
        let start = near_a_wrap(rate, days, before);
        let mut both = Both::new(&limits(rate, burst, Departures::Never), start);
        let mut at = 0;
        for (shape, has_socket, in_flight, thousandths, idle) in offers {
            let mut packet = shape.packet();
            packet.socket = if !has_socket { 0 } else if shape.tcp.is_some() { TCP } else { UDP };
            packet.in_flight = in_flight;
            both.send(shape, &packet, at)?;
            // Up to twice the packet's time at the rate, and sometimes an hour, or an idle time.
            at += u64::from(shape.on_the_wire()) * SECOND / rate * thousandths / 1_000;
            at += match idle { 0 => HOUR, 1 => burst, 2 => 60 * MILLI, _ => 0 };
        }
    }

    #[test]
    fn a_flood_gets_what_the_rate_and_the_burst_come_to_and_not_a_packet_more(
        rate in any_rate(), burst in 0..50 * MILLI, bytes in 300..=65_000_u32, days in 0..400_u64,
        before in 0..SECOND,
    ) {
        let start = near_a_wrap(rate, days, before);
        let mut both = Both::new(&limits(rate, burst, Departures::Never), start);
        let packet = Shape::of(bytes).packet();
        let each = u64::from(bytes) * SECOND / rate;
        let (mut at, mut passed) = (0, 0_u64);
        for _ in 0..3_000 {
            passed += u64::from(both.place.send(&packet, start + at).passed);
            at += (each / 3).max(1);
        }
        let (most, error) = both.meant.most(at, passed, bytes);
        let got = u128::from(passed) * u128::from(bytes);
        prop_assert!(got <= most + error, "{got} bytes of {most}");
        // An offer comes at most a third of a packet's time after it would conform.
        let offered = 3_000 * u128::from(bytes);
        let least = most.saturating_sub(error + 2 * u128::from(bytes));
        let may_miss = u128::from(passed) * u128::from((each / 3).max(1)) * u128::from(rate) / u128::from(SECOND);
        prop_assert!(got + may_miss >= least.min(offered), "{got} bytes of {least}");
    }
}

#[test]
fn hours_of_a_flood_at_any_rate_lose_and_gain_nothing() {
    for rate in RATES {
        // 2,000 packets of 16 s at the lowest rate, or 655 ns at the highest, then a pause of an hour, 6 times.
        let start = near_a_wrap(rate, 30, HOUR);
        let mut both = Both::new(&limits(rate, 20 * MILLI, Departures::Never), start);
        let shape = Shape { payload: 16_000, mss: 1_448, tcp: Some(3), ..Shape::DATAGRAM };
        let packet = shape.packet();
        let each = u64::from(shape.on_the_wire()) * SECOND / rate;
        let mut at = 0;
        for _ in 0..6 {
            for _ in 0..4_000 {
                both.send(shape, &packet, at).unwrap();
                at += each / 2 + 1;
            }
            at += HOUR;
        }
    }
}

#[test]
fn small_packets_and_dns_have_the_same_allowance_at_every_rate() {
    for rate in RATES {
        // There is no burst, and one packet uses up the rest.
        let mut both = Both::new(&limits(rate, 0, Departures::Never), SECOND);
        let long = Shape::of(60_000);
        both.send(long, &long.packet(), 0).unwrap();
        let dns = Shape { port: 53, ..Shape::of(1_000) };
        for (way, shape) in [(Way::Reserve, Shape::of(200)), (Way::Dns, dns)] {
            let packet = shape.packet();
            let meant = both.meant.at_once(way, shape.on_the_wire());
            // The loop is bounded, in case the program admits everything.
            let admitted =
                (0..=*meant.end()).take_while(|_| both.place.send(&packet, SECOND).passed).count();
            assert!(
                meant.contains(&(admitted as u128)),
                "{way:?} at {rate} B/s: {admitted}, not {meant:?}"
            );
        }
    }
}

#[test]
fn times_are_the_same_in_ticks_of_every_length() {
    for shift in 0..=13 {
        let ticks = |ms: u64| (ms * MILLI) << shift;
        assert_eq!(gcra_reserve_tolerance(shift, true), ticks(50));
        assert_eq!(gcra_reserve_tolerance(shift, false), ticks(25));
        assert_eq!(gcra_dns_tolerance(shift), ticks(400));
        // At most 200 packets a second pass, even if the rate has room for more.
        let (least, more) = (ticks(5), ticks(1));
        assert_eq!(
            [0, more / 2, more].map(|it| gcra_dns_cost(it, shift)),
            [least, least, 8 * more]
        );
    }
}

#[test]
fn a_header_of_tcp_that_cannot_be_read_has_no_options() {
    let mut packet = Shape { tcp: Some(0), payload: 3_000, mss: 1_300, ..Shape::DATAGRAM }.packet();
    packet.headers.truncate(20);
    assert_eq!(packet.wire_bytes(0), 3_000 + 3 * 40);
}

#[test]
fn a_time_beyond_the_horizon_lies_in_the_past_and_one_at_it_does_not() {
    let admit = |ahead: u64| gcra_admit(DAY.wrapping_add(ahead), DAY, 3, 10, 1_000);
    assert_eq!([10, 11, 1_000].map(admit), [Some(DAY + 13), None, None]);
    assert_eq!([1_001, u64::MAX].map(admit), [Some(DAY + 3); 2]);
}

#[test]
fn no_packet_costs_more_than_the_longest() {
    for rate in RATES {
        let state = ThrottleState::armed(&limits(rate, 0, Departures::Never), 0).0;
        let cost = |bytes| gcra_cost(state.cost, state.tick_shift, bytes);
        let longest = cost(1 << 20);
        assert_eq!([(1 << 20) + 1, u32::MAX].map(cost), [longest; 2]);
        assert!(cost((1 << 20) - 100) < longest);
    }
}

/// With `fq`, a packet leaves when the packets before it have left at the rate, except for a short wait.
fn departing(rate: u64, burst_ns: u64) -> (Both, u64) {
    let devices = [FQ].into_iter().collect();
    let both = Both::new(&limits(rate, burst_ns, Departures::Fq(devices)), DAY);
    (both, burst_ns.min(40 * MILLI) / 2)
}

proptest! {
    #[test]
    fn packets_leave_at_the_rate_whatever_it_is(
        rate in any_rate(), burst in prop_oneof![0..400 * MILLI, Just(HOUR)], bytes in 300..=1_500_u32,
        thousandths in 0..1_500_u64,
    ) {
        let (mut both, shortest) = departing(rate, burst);
        let shape = Shape::of(bytes);
        // TCP queues little by itself.
        let packet = Packet { socket: TCP, in_flight: 9, ..shape.packet() };
        let each = u64::from(bytes) * SECOND / rate;
        let mut at = 0;
        for _ in 0..300 {
            let ahead = both.ticks_ahead(DAY + at)[0] >> both.place.cgroup.upload.tick_shift;
            let outcome = both.send(shape, &packet, at)?;
            let expected = if ahead > shortest { DAY + at + ahead - shortest } else { 0 };
            prop_assert_eq!(outcome.leaves, if outcome.passed { expected } else { 0 });
            at += each * thousandths / 1_000;
        }
    }

    #[test]
    fn of_several_limits_and_its_own_time_a_packet_leaves_by_the_latest(
        rates in prop::collection::vec(any_rate(), 1..4), bytes in 300..=1_500_u32, own in prop::option::of(0..10 * SECOND),
        thousandths in 0..1_500_u64,
    ) {
        let mut all: Vec<_> = rates.iter().map(|rate| departing(*rate, HOUR)).collect();
        let shape = Shape::of(bytes);
        let each = u64::from(bytes) * SECOND / rates.iter().min().unwrap();
        let mut at = 0;
        for _ in 0..50 {
            let mut packet = Packet { socket: TCP, in_flight: 9, ..shape.packet() };
            packet.leaves = own.map_or(0, |own| DAY + own);
            // The packet passes the cgroup and then its ancestors, each with its own limit.
            for (both, shortest) in &mut all {
                let ahead = both.ticks_ahead(DAY + at)[0] >> both.place.cgroup.upload.tick_shift;
                let outcome = both.send(shape, &packet, at)?;
                let waits = outcome.passed && ahead > *shortest;
                let when = if waits { DAY + at + ahead - *shortest } else { 0 };
                prop_assert_eq!(outcome.leaves, packet.leaves.max(when));
                packet.leaves = outcome.leaves;
            }
            at += each * thousandths / 1_000;
        }
    }

    #[test]
    fn of_a_socket_that_floods_so_much_waits_as_forty_milliseconds_and_at_most_96_packets(
        rate in any_rate(), bytes in prop_oneof![300..=1_500_u32, 300..=65_000_u32],
    ) {
        let (mut both, _) = departing(rate, HOUR);
        let shape = Shape::of(bytes);
        // Nobody counts TCP's queue here. The loop runs until a packet has to wait for more than 60 ms.
        let length = u32::try_from(rate / 40).unwrap().clamp(300, 65_000);
        let tcp = Packet { socket: TCP, in_flight: 9, length, ..shape.packet() };
        // At 100 GB/s that takes 92,000 packets.
        for _ in 0..100_000 {
            if both.ticks_ahead(DAY)[0] >> both.place.cgroup.upload.tick_shift > 60 * MILLI {
                break;
            }
            prop_assert!(both.place.send(&tcp, DAY).passed);
        }
        let packet = Packet { socket: UDP, ..shape.packet() };
        let waiting = (0..200).take_while(|_| both.place.send(&packet, DAY).passed).count() as u64;
        // As many whole packets as fit, and at least one. The cost of a packet is rounded to a tick.
        let longest = u128::from(40 * MILLI) * u128::from(rate);
        let whole = |bytes: u128| u64::try_from(longest / (bytes * u128::from(SECOND))).unwrap().clamp(1, 96);
        let (least, most) = (whole(u128::from(bytes) + 1), whole(u128::from(bytes)));
        prop_assert!((least..=most).contains(&waiting), "{waiting}, not {least} to {most}");
    }

    #[test]
    fn a_segment_is_paced_by_the_bytes_that_it_has_on_the_wire(
        rate in any_rate(), payload in 1..=65_000_u32, mss in 500..9_000_u32, is_ipv6: bool,
        burst in prop_oneof![Just(0), 0..10 * MILLI, Just(250 * MILLI)], later in 0..MILLI,
    ) {
        let state = ThrottleState::armed(&limits(rate, burst, Departures::Never), DAY);
        let headers = if is_ipv6 { 72 } else { 52 };
        let wire = payload + payload.div_ceil(mss) * headers;
        let segment = Segment { payload, mss, is_ipv6, own: u64::MAX, leaves: DAY + later };
        let paced = u128::from(pace(&state, segment, DAY));
        // The packet's time at the rate, minus the lead and a later departure, and at most one second. The cost has an
        // error of half a tick (and 2^-25 ns a byte). The cost and the lead are truncated to nanoseconds.
        let takes = u128::from(wire) * u128::from(SECOND) / u128::from(rate);
        let lead = u128::from((5 * MILLI).min(burst / 2) + later);
        let rate_for = |waits: u128| {
            let bytes = u128::from(payload.max(mss)) * u128::from(SECOND);
            bytes / waits.clamp(1, u128::from(SECOND))
        };
        let off = 2;
        let (low, high) =
            (rate_for((takes + off).saturating_sub(lead)), rate_for(takes.saturating_sub(lead + off)));
        let is_free = takes <= lead + off;
        // A rate above 32 bits counts as no rate.
        let is_fast = high >= u128::from(u32::MAX);
        let expected = (low..=high).contains(&paced) || paced == 0 && (is_free || is_fast);
        prop_assert!(expected, "{paced}, not {low} to {high}");
        prop_assert!(paced == 0 || takes + off > lead, "it need not wait");
    }
}
