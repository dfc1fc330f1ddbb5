//! Tests that DNS messages pass when the bucket is full, and that no other packets gain by looking like them.

use super::*;

/// The burst of these limits. Its bytes add to those of the rate.
const SHORT: Duration = Duration::from_millis(20);
const MILLI: u64 = 1_000_000;

fn armed(rate: u64) -> ThrottleState {
    ThrottleState::armed(&limits(rate, SHORT), NANOS)
}

/// Returns what DNS may use beside the shared limit: an eighth of the rate, and 200 packets a second.
fn allowance(rate: u64, packet: u32) -> u64 {
    (rate / 8).min(200 * u64::from(packet))
}

/// Floods with one kind of packet, beside a flood of large packets. Returns the bytes of both that passed in ten
/// seconds.
fn flooded_by(rate: u64, bytes: u32, what: What) -> (u64, u64) {
    let mut state = armed(rate);
    let (mut these, mut others) = (0, 0);
    // The others come first, so they get whatever the bucket has.
    let step = (u64::from(bytes) * NANOS / rate / 8).max(1_000);
    for at in (0..10 * NANOS).step_by(usize::try_from(step).unwrap()) {
        others += 1_500 * u64::from(offer(&mut state, NANOS + at, 1_500));
        these += u64::from(bytes) * u64::from(offer_what(&mut state, NANOS + at, bytes, what));
    }
    (these, others)
}

#[test]
fn answers_of_every_size_come_beside_a_flood_of_anything() {
    for rate in [50_000, 200_000, 12_500_000] {
        for flood in [1_500, 1_228, 65_536, 84] {
            for size in [100, 400, 1_232] {
                let mut state = armed(rate);
                let (mut asked, mut came) = (0, 0);
                // Four large messages a second, in pairs (one for each kind of address), are what 50 kB/s allow.
                for at in (0..20 * NANOS).step_by(200_000) {
                    offer(&mut state, NANOS + at, flood);
                    if at % (500 * MILLI) == 0 {
                        for _ in 0..2 {
                            asked += 1;
                            let bytes = size + 28;
                            came += u32::from(offer_what(&mut state, NANOS + at, bytes, What::Dns));
                        }
                    }
                }
                assert_eq!(came, asked, "of {size} bytes at {rate} B/s beside {flood}");
            }
        }
    }
}

#[test]
fn a_flood_from_a_port_of_dns_gains_the_allowance_at_the_most_and_both_have_the_rate() {
    for rate in [10_000, 200_000, 12_500_000] {
        for bytes in [300, 1_280] {
            let (plain, before) = flooded_by(rate, bytes, What::Plain);
            let (these, others) = flooded_by(rate, bytes, What::Dns);
            // Ten seconds, 400 ms, and one or two packets in each bucket.
            let most = 104 * allowance(rate, bytes) / 10;
            let slack = 4 * u64::from(bytes) + 3_000;
            assert!(these <= plain + most + slack, "{these}, not {plain}, at {rate} B/s");
            assert!(others + most + slack >= before, "{others}, not {before}, at {rate} B/s");
            let allowed = 10 * rate + rate / 50 + rate / 20 + slack;
            assert!(these + others <= allowed, "{these} and {others} of {allowed} bytes");
        }
    }
}

#[test]
fn it_takes_nothing_of_the_reserve_so_pings_pass_beside_it() {
    for rate in [10_000, 200_000] {
        let mut state = armed(rate);
        for at in (0..10 * NANOS).step_by(200_000) {
            offer(&mut state, NANOS + at, 1_500);
            offer_what(&mut state, NANOS + at, 1_280, What::Dns);
            if at % (100 * MILLI) == 0 {
                assert!(offer(&mut state, NANOS + at, 84), "a ping after {at} ns at {rate} B/s");
            }
        }
    }
}

#[test]
fn a_small_message_passes_where_small_packets_have_used_up_their_reserve() {
    let mut state = armed(200_000);
    while offer(&mut state, 2 * NANOS, 200) {}
    assert!(!offer(&mut state, 2 * NANOS, 100));
    assert!(offer_what(&mut state, 2 * NANOS, 100, What::Dns));
}

#[test]
fn only_what_has_the_size_and_the_port_of_dns_is_taken_for_it() {
    let mut state = armed(200_000);
    while offer(&mut state, 2 * NANOS, 1_500) {}
    assert!(!offer_what(&mut state, 2 * NANOS, 1_281, What::Dns));
    assert!(!offer(&mut state, 2 * NANOS, 1_280));
    assert!(offer_what(&mut state, 2 * NANOS, 1_280, What::Dns));
    for port in [53, 853, 5_353] {
        assert!(native::is_dns_port(port), "{port}");
    }
    for port in [0, 52, 54, 80, 443, 852, 854, 5_352, 13_568, 65_535] {
        assert!(!native::is_dns_port(port), "{port}");
    }
}

#[test]
fn a_change_gives_no_new_allowance() {
    let mut state = armed(200_000);
    while offer(&mut state, 2 * NANOS, 1_500) {}
    while offer_what(&mut state, 2 * NANOS, 1_280, What::Dns) {}
    for rate in [300_000, 200_000] {
        state = state.changed_to(&limits(rate, SHORT), 2 * NANOS);
        assert!(!offer_what(&mut state, 2 * NANOS, 1_280, What::Dns), "{rate}");
    }
}
