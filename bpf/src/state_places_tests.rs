//! Tests the states of both directions in one value, and the numbers that user space shares with the packet program.

use super::*;

/// Two rates with different ticks.
const RATES: [u64; 2] = [6_000, 100_000_000_000];

fn armed(rate: u64, now: u64) -> ThrottleState {
    ThrottleState::armed(&limits(rate, Duration::from_millis(20)), now)
}

/// Creates the states of a download and an upload, both partly used up. The reserve and DNS differ.
fn used(download: u64, upload: u64) -> types::throttle_cgroup {
    let of = |rate| {
        let mut state = armed(rate, DAY).0;
        state.tat += 3 << state.tick_shift;
        state.reserve += 5 << state.tick_shift;
        state.dns += 7 << state.tick_shift;
        state
    };
    types::throttle_cgroup { download: of(download), upload: of(upload) }
}

fn nanos(state: &types::throttle_state) -> [u64; 3] {
    [state.tat, state.reserve, state.dns].map(|ticks| ticks >> state.tick_shift)
}

#[test]
fn a_state_is_put_into_its_own_direction_and_leaves_the_other_as_it_is() {
    for old in RATES {
        for new in RATES.map(|rate| armed(rate, 2 * DAY)).into_iter().chain([<_>::default()]) {
            for has_queue in [false, true] {
                let before = used(old, old);
                let mut both = before;
                new.put(&mut both, AttachType::INET_EGRESS, has_queue).unwrap();
                assert_eq!(both.download.as_bytes(), before.download.as_bytes(), "{has_queue}");
                assert_eq!(ThrottleState(both.upload), new);
                let mut both = before;
                new.put(&mut both, AttachType::INET_INGRESS, has_queue).unwrap();
                assert_eq!(both.upload.as_bytes(), before.upload.as_bytes(), "{has_queue}");
            }
        }
    }
}

#[test]
fn a_download_with_a_queue_keeps_the_times_of_what_has_come_to_the_cgroup() {
    for (old, new) in [(RATES[0], RATES[1]), (RATES[1], RATES[0]), (RATES[0], RATES[0])] {
        let before = used(old, old);
        let put = |state: ThrottleState, has_queue| {
            let mut both = before;
            state.put(&mut both, AttachType::INET_INGRESS, has_queue).unwrap();
            ThrottleState(both.download)
        };
        let new = armed(new, 2 * DAY);
        assert_eq!(put(new, false), new);
        let kept = put(new, true);
        assert_eq!(nanos(&kept.0), [DAY + 3, DAY + 5, DAY + 7]);
        // All other fields are those of the new state.
        let types::throttle_state { tat, reserve, dns, .. } = new.0;
        assert_eq!(ThrottleState(types::throttle_state { tat, reserve, dns, ..kept.0 }), new);
        // The limit is, or was, disarmed.
        assert_eq!(put(ThrottleState::disarmed(), true), ThrottleState::disarmed());
        let mut both = types::throttle_cgroup::default();
        new.put(&mut both, AttachType::INET_INGRESS, true).unwrap();
        assert_eq!(ThrottleState(both.download), new);
    }
}

#[test]
fn what_is_known_of_the_senders_stays_known_in_proportion_when_a_limit_changes() {
    let limits = |rate| limits(rate, Duration::from_millis(20));
    let mut state = armed(1_000_000, DAY);
    let flow = types::throttle_flow {
        arrived: 1,
        arrived_before: 2,
        updated: 3,
        fair_rate: 250_000,
        rtt: 4,
        cut: 5,
        bound: 6,
    };
    state.0.flow = flow;
    for (rate, fair_rate) in [(1_000_000, 250_000), (4_000_000, 1_000_000), (2_000, 500)] {
        let changed = state.changed_to(&limits(rate), DAY);
        let mut expected = armed(rate, DAY);
        expected.0.flow = types::throttle_flow { fair_rate, ..flow };
        assert_eq!(changed, expected, "{rate}");
    }
    // An impossible value counts as unknown.
    state.0.flow.fair_rate = u64::MAX;
    assert_eq!(state.changed_to(&limits(100_000_000_000), DAY).0.flow.fair_rate, 0);
    let off = ThrottleState::disarmed().changed_to(&limits(1_000), DAY);
    assert_eq!(off, armed(1_000, DAY), "nothing is known");
}

#[test]
fn only_the_two_directions_have_a_state_of_their_own() {
    let with_state = [AttachType::INET_INGRESS, AttachType::INET_EGRESS];
    for place in AttachType::all() {
        let (before, mut both) = (used(RATES[0], RATES[1]), used(RATES[0], RATES[1]));
        let put = armed(RATES[0], 2 * DAY).put(&mut both, place, false);
        assert_eq!(put.is_some(), with_state.contains(&place), "{place}");
        assert_eq!(put.is_some(), both.as_bytes() != before.as_bytes(), "{place}");
    }
}

#[test]
fn the_state_of_a_place_is_that_of_its_direction_and_that_of_tcp_whichever_limits() {
    let (download, upload) = (armed(RATES[0], DAY), armed(RATES[1], DAY));
    let off = ThrottleState::disarmed();
    let of = |download: ThrottleState, upload: ThrottleState, place| {
        let both = types::throttle_cgroup { download: download.0, upload: upload.0 };
        ThrottleState::of(&both, place)
    };
    assert_eq!(of(download, upload, AttachType::INET_INGRESS), download);
    assert_eq!(of(download, upload, AttachType::INET_EGRESS), upload);
    assert_eq!(of(download, off, AttachType::INET_EGRESS), off);
    assert_eq!(of(off, upload, AttachType::INET_INGRESS), off);
    let tcp = AttachType::SOCK_OPS;
    assert_eq!(
        [(download, upload), (download, off), (off, upload), (off, off)]
            .map(|(a, b)| of(a, b, tcp)),
        [upload, download, upload, off]
    );
}

#[test]
fn user_space_and_the_packet_program_have_the_same_numbers() {
    let of_a_byte = 1 << COST_SHIFT;
    assert_eq!(native::gcra_cost(of_a_byte, 0, 1), 1);
    assert_eq!(native::gcra_cost(of_a_byte, 0, u32::MAX), MAX_BYTES);
    assert_eq!(native::gcra_reserve_tolerance(0, true), RESERVE_NS);
    assert_eq!(native::gcra_dns_tolerance(0), DNS_NS);
}
