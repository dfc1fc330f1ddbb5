//! Map values of this version and of others. Values grow only at their end (`programs/throttle.h`). Reading fills a
//! shorter value with zeros. Writing leaves the rest of a longer value alone.

use zerocopy::{FromBytes, IntoBytes};

use crate::throttle::types;

/// The size of one direction's state in version 0.1.0. A smaller state has another layout.
const OLDEST_STATE: usize = 152;
/// The size of the counters in version 0.1.0.
const OLDEST_COUNTERS: usize = 48;

/// Tells whether map values of this size are counters.
pub(crate) fn are_counters(value_size: usize) -> bool {
    value_size >= OLDEST_COUNTERS && value_size.is_multiple_of(8)
}

/// Tells whether map values of this size are the states of both directions.
pub(crate) fn are_states(value_size: usize) -> bool {
    value_size >= 2 * OLDEST_STATE && value_size.is_multiple_of(16)
}

/// Reads the part of a value that this version and the writer's version both know.
pub(crate) fn read<T: FromBytes + Default>(value: &[u8]) -> T {
    let mut bytes = value.to_vec();
    bytes.resize(bytes.len().max(size_of::<T>()), 0);
    T::read_from_prefix(&bytes).map(|(value, _)| value).unwrap_or_default()
}

/// Reads the states of both directions. Each is one half of the value.
pub(crate) fn read_both(value: &[u8]) -> types::throttle_cgroup {
    let (download, upload) = value.split_at(value.len() / 2);
    types::throttle_cgroup { download: read(download), upload: read(upload) }
}

/// Writes the states into a copy of `before`, and keeps the version's size.
pub(crate) fn write_both(before: &[u8], both: &types::throttle_cgroup) -> Vec<u8> {
    let mut value = before.to_vec();
    let (download, upload) = value.split_at_mut(before.len() / 2);
    for (half, state) in [(download, &both.download), (upload, &both.upload)] {
        half.iter_mut().zip(state.as_bytes()).for_each(|(to, from)| *to = *from);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> types::throttle_counters {
        types::throttle_counters {
            exempt_packets: 1,
            exempt_bytes: 2,
            passed_packets: 3,
            passed_bytes: 4,
            dropped_packets: 5,
            dropped_bytes: 6,
            held_back_packets: 7,
            held_back_bytes: 8,
        }
    }

    fn both() -> types::throttle_cgroup {
        let state = |rate| types::throttle_state { rate, cost: 9, ..Default::default() };
        types::throttle_cgroup { download: state(11), upload: state(12) }
    }

    #[test]
    fn counters_of_other_versions_are_read_as_far_as_both_know_them() {
        let all = counters();
        let bytes = all.as_bytes();
        let old: types::throttle_counters = read(&bytes[..OLDEST_COUNTERS]);
        assert_eq!((old.passed_packets, old.dropped_bytes), (3, 6));
        assert_eq!((old.held_back_packets, old.held_back_bytes), (0, 0));
        let longer = [bytes, &[0xff; 16]].concat();
        assert_eq!(read::<types::throttle_counters>(&longer).as_bytes(), bytes);
    }

    #[test]
    fn states_of_other_versions_are_read_and_written_where_they_lie() {
        let length = size_of::<types::throttle_state>();
        for half in [OLDEST_STATE, length, length + 24] {
            let mut value = vec![0xee; 2 * half];
            value = write_both(&value, &both());
            let read = read_both(&value);
            assert_eq!((read.download.rate, read.upload.rate), (11, 12), "{half} bytes");
            assert_eq!((read.download.cost, read.upload.cost), (9, 9), "{half} bytes");
            // The fields that only a newer version knows stay.
            assert_eq!(value.len(), 2 * half);
            assert!(value[half.min(length)..half].iter().all(|it| *it == 0xee), "{half} bytes");
        }
    }

    #[test]
    fn what_has_another_length_is_of_another_layout() {
        assert!(are_counters(48) && are_counters(size_of::<types::throttle_counters>()));
        assert!(!are_counters(40) && !are_counters(50));
        assert!(are_states(304) && are_states(size_of::<types::throttle_cgroup>()));
        assert!(!are_states(296) && !are_states(8));
    }
}
