//! Both directions of a cgroup whose downloads wait in a queue.

use super::*;

const SLOW: u64 = 6_000;
const FAST: u64 = 100_000_000_000;

fn armed(rate: u64) -> ThrottleState {
    ThrottleState::armed(&limits(rate, Duration::from_millis(20)), 5 * NANOS + 7)
}

/// A cgroup of which each direction has used something up.
fn used(download: u64, upload: u64) -> types::throttle_cgroup {
    let used = |rate: u64, ahead: u64| {
        let mut state = armed(rate).0;
        state.tat += ahead << state.tick_shift;
        state.reserve = state.tat + (ahead << state.tick_shift);
        state.dns = state.tat + ((2 * ahead) << state.tick_shift);
        state
    };
    types::throttle_cgroup { download: used(download, 3_000_000), upload: used(upload, 5_000_000) }
}

fn bytes(state: types::throttle_state) -> Vec<u8> {
    ThrottleState(state).as_bytes().to_vec()
}

/// Its three times, in nanoseconds.
fn times(state: &types::throttle_state) -> [u64; 3] {
    [state.tat, state.reserve, state.dns].map(|ticks| ticks >> state.tick_shift)
}

#[test]
fn a_time_stays_the_same_in_other_ticks() {
    let [slow, fast] = [SLOW, FAST].map(|rate| armed(rate).0);
    assert_ne!(slow.tick_shift, fast.tick_shift);
    assert_eq!(in_other_ticks(slow.tat, &slow, &fast), fast.tat);
    assert_eq!(in_other_ticks(fast.tat, &fast, &slow), slow.tat);
    assert_eq!(in_other_ticks(fast.tat, &fast, &fast), fast.tat);
}

#[test]
fn writing_one_direction_leaves_the_other_as_it_is_with_a_queue_and_without() {
    type Put = fn(&ThrottleState, &mut types::throttle_cgroup, AttachType) -> Option<()>;
    for put in [ThrottleState::put_beside_queue as Put, ThrottleState::put] {
        for (download, upload) in [(SLOW, FAST), (FAST, SLOW), (SLOW, SLOW)] {
            for new in [armed(SLOW), armed(FAST), ThrottleState::disarmed()] {
                let (before, mut both) = (used(download, upload), used(download, upload));
                put(&new, &mut both, AttachType::INET_EGRESS).unwrap();
                assert_eq!(bytes(both.download), bytes(before.download));
                assert_eq!(bytes(both.upload), bytes(new.0));
                let mut both = used(download, upload);
                put(&new, &mut both, AttachType::INET_INGRESS).unwrap();
                assert_eq!(bytes(both.upload), bytes(before.upload));
                assert_eq!(put(&new, &mut both, AttachType::SOCK_OPS), None);
            }
        }
    }
}

#[test]
fn what_the_cgroup_has_used_up_stays_used_up_beside_a_queue() {
    for (old, new) in [(SLOW, FAST), (FAST, SLOW), (FAST, FAST)] {
        let (before, mut both) = (used(old, SLOW).download, used(old, SLOW));
        armed(new).put_beside_queue(&mut both, AttachType::INET_INGRESS).unwrap();
        assert_eq!(times(&both.download), times(&before));
        assert_eq!((both.download.rate, both.download.tick_shift), {
            let new = armed(new).0;
            (new.rate, new.tick_shift)
        });
        // Without one the state that is written says what is used up.
        armed(new).put(&mut both, AttachType::INET_INGRESS).unwrap();
        assert_eq!(bytes(both.download), bytes(armed(new).0));
    }
}

#[test]
fn disarmed_is_all_zero_beside_a_queue_as_well_and_the_next_limit_begins_anew() {
    let mut both = used(FAST, SLOW);
    ThrottleState::disarmed().put_beside_queue(&mut both, AttachType::INET_INGRESS).unwrap();
    assert_eq!(bytes(both.download), bytes(ThrottleState::disarmed().0));
    armed(SLOW).put_beside_queue(&mut both, AttachType::INET_INGRESS).unwrap();
    assert_eq!(bytes(both.download), bytes(armed(SLOW).0));
}
