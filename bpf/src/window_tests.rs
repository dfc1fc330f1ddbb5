//! Runs the sockops program (`programs/sockops.h`) on this machine, and tests its windows, each time in its own unit.

use proptest::prelude::*;

use crate::limits::Departures;
use crate::native::flow_interval;
use crate::native::packets::Place;
use crate::native::windows::{Acknowledgement, first_window};
use crate::packet_tests::{RATES, any_rate, limits};
use crate::state::ThrottleState;
use crate::throttle::types;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
const MSS: u32 = 1_448;
const BURST: u64 = 250 * MILLI;

fn place(rate: u64, burst: u64) -> Place {
    Place::download(ThrottleState::armed(&limits(rate, burst, Departures::Never), SECOND))
}

/// Creates a socket that takes part in the sharing, with these bytes received in the last round trip.
fn socket(used: u64) -> types::throttle_socket {
    types::throttle_socket { counted: 1, used, since: SECOND, ..Default::default() }
}

/// Creates an acknowledgement with the receiver's estimate of the round trip time, in microseconds.
fn acknowledgement(rtt_us: u32) -> Acknowledgement {
    Acknowledgement { received: 1 << 40, rcv_rtt: 8 * rtt_us, srtt: 0, mss: MSS, random: 0 }
}

proptest! {
    #[test]
    fn a_window_is_what_the_rate_sends_in_a_round_trip_whoever_has_measured_that(
        rate in any_rate(), rtt_us in 1..5_000_000_u32, other in 1..5_000_000_u32, eighths in 0..8_u32, random: u32,
    ) {
        let rtt = u64::from(rtt_us) * 1_000;
        let it = Acknowledgement { random, ..acknowledgement(rtt_us) };
        let sender = Acknowledgement { rcv_rtt: 0, srtt: 8 * rtt_us + eighths, ..it };
        let both = Acknowledgement { rcv_rtt: 8 * rtt_us + eighths, srtt: 8 * other, ..it };
        let share = u128::from(rate) * u128::from(rtt) / u128::from(SECOND);
        let more = (u128::from(random) * u128::from(MSS)) >> 32;
        // Whole segments, at least two, minus what the kernel would round up.
        let meant = if share <= 2 * u128::from(MSS) { 2 * u128::from(MSS) } else { share + more };
        let whole = meant / u128::from(MSS) * u128::from(MSS) / 128 * 128;
        for it in [it, sender, both] {
            let mut place = place(rate, BURST);
            let window = it.window(&mut place.cgroup, &mut socket(1 << 60), SECOND + 1);
            let expected = u32::try_from(whole).ok().filter(|it| *it < i32::MAX.unsigned_abs());
            // The program may truncate one microsecond of the rate, which may cost a segment.
            let off = u128::from(rate / 1_000_000 + 1 + u64::from(MSS) + 128);
            match (window, expected) {
                (Some(window), _) => prop_assert!(u128::from(window).abs_diff(whole) <= off, "{window}, not {whole}"),
                (None, None) => {}
                (None, Some(_)) => prop_assert!(whole + off >= u128::from(i32::MAX.unsigned_abs()), "none, not {whole}"),
            }
            let flow = place.cgroup.download.flow;
            prop_assert_eq!((flow.rtt, flow.updated), (rtt, SECOND + 1));
            prop_assert_eq!(flow.bound, u32::from(share < 1 << 62));
        }
    }

    #[test]
    fn a_window_follows_how_much_of_the_burst_is_taken_at_every_rate(
        rate in any_rate(), thousandths in 0..=1_000_u64, used in 20..40_u64,
    ) {
        let mut place = place(rate, BURST);
        let state = &mut place.cgroup.download;
        let ahead = BURST * thousandths / 1_000;
        // The fair rate would allow any window.
        state.flow.fair_rate = 1 << 50;
        state.flow.updated = SECOND;
        state.tat = (SECOND + 1 + ahead) << state.tick_shift;
        let used = used * u64::from(MSS);
        let window = acknowledgement(20_000).window(&mut place.cgroup, &mut socket(used), SECOND + 1);
        let most = if ahead == 0 { 4 * used } else if ahead > BURST / 2 { used / 2 } else { 2 * used };
        let whole = most / u64::from(MSS) * u64::from(MSS) / 128 * 128;
        prop_assert_eq!(window.map(u64::from), Some(whole));
    }

    #[test]
    fn the_fair_rate_is_updated_once_in_a_round_trip(rate in any_rate(), rtt_us in 1..2_000_000_u32) {
        let mut place = place(rate, BURST);
        let interval = flow_interval(u64::from(rtt_us) * 1_000);
        let it = acknowledgement(rtt_us);
        let mut next = |now| {
            it.window(&mut place.cgroup, &mut socket(1 << 40), now);
            place.cgroup.download.flow.updated
        };
        prop_assert_eq!(next(SECOND), SECOND);
        prop_assert_eq!(next(SECOND + interval - 1), SECOND);
        prop_assert_eq!(next(SECOND + interval), SECOND + interval);
    }

    #[test]
    fn what_a_socket_has_used_is_what_came_in_a_round_trip(rtt_us in 1..6_000_000_u32, came in 1_u64..1 << 30) {
        let rtt = u64::from(rtt_us) * 1_000;
        let first = 10 * u64::from(MSS);
        let mut socket = types::throttle_socket { counted: 1, ..Default::default() };
        let mut place = place(1_000_000, BURST);
        let mut next = |received, now| {
            let it = Acknowledgement { received, ..acknowledgement(rtt_us) };
            it.window(&mut place.cgroup, &mut socket, now);
            socket.used
        };
        prop_assert_eq!(next(first, SECOND), first);
        prop_assert_eq!(next(first + came, SECOND + rtt - 1), first);
        prop_assert_eq!(next(first + came, SECOND + rtt), came);
        // After a pause of more than four round trips the socket starts again.
        prop_assert_eq!(next(first + 3 * came, SECOND + 5 * rtt), 2 * came);
        prop_assert_eq!(next(first + 4 * came, SECOND + 9 * rtt + 1), first);
    }
}

#[test]
fn a_connection_begins_with_a_thirty_second_part_of_the_burst_at_every_rate() {
    for rate in RATES {
        for burst in [0, 20 * MILLI, BURST, 3_600 * SECOND] {
            // At most ten seconds count.
            let part = u128::from((burst / 32).min(10 * SECOND));
            let packets = u128::from(rate) * part / u128::from(1_500 * SECOND);
            let meant = u32::try_from(packets.clamp(4, 10)).unwrap();
            assert_eq!(first_window(&mut place(rate, burst).cgroup), meant, "{rate} {burst}");
        }
    }
}

#[test]
fn without_any_round_trip_time_no_window_is_offered() {
    let it = acknowledgement(0);
    assert_eq!(it.window(&mut place(1_000, BURST).cgroup, &mut socket(1), SECOND), None);
    // Less than a microsecond counts as none.
    let short = Acknowledgement { rcv_rtt: 7, srtt: 7, ..it };
    assert_eq!(short.window(&mut place(1_000, BURST).cgroup, &mut socket(1), SECOND), None);
    let mut disarmed = types::throttle_cgroup::default();
    assert_eq!(acknowledgement(1_000).window(&mut disarmed, &mut socket(1), SECOND), None);
}
