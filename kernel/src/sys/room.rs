//! Buffers for answers of unknown size.

use super::Result;

/// Calls `ask` with a buffer size, and again with a larger one until everything fits. `ask` returns the number of items
/// beside its answer. An answer that did not fit is discarded.
pub(crate) fn until_all_fit<T>(
    mut room: usize,
    mut ask: impl FnMut(usize) -> (usize, Result<T>),
) -> Result<(usize, T)> {
    loop {
        let (count, answer) = ask(room);
        if count <= room {
            return answer.map(|answer| (count, answer));
        }
        room = count.next_power_of_two();
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// Queries a kernel that has these numbers of items, one for each call. Returns the final result, and the room at
    /// each call.
    fn asked(
        room: usize,
        counts: &[usize],
        short: Result<()>,
    ) -> (Result<(usize, ())>, Vec<usize>) {
        let (mut counts, mut rooms) = (counts.iter().copied(), Vec::new());
        let answer = until_all_fit(room, |room| {
            rooms.push(room);
            let count = counts.next().expect("asked once too often");
            (count, if count > room { short } else { Ok(()) })
        });
        (answer, rooms)
    }

    #[test]
    fn what_has_no_room_is_asked_for_again_whatever_the_kernel_calls_that() {
        // BPF_PROG_QUERY answers ENOSPC, but BPF_OBJ_GET_INFO_BY_FD reports success.
        for short in [Err(Errno::ENOSPC), Ok(())] {
            assert_eq!(asked(64, &[0], short), (Ok((0, ())), vec![64]));
            assert_eq!(asked(64, &[64], short), (Ok((64, ())), vec![64]));
            assert_eq!(asked(64, &[65, 65], short), (Ok((65, ())), vec![64, 128]));
            // The number of items grows and shrinks meanwhile.
            assert_eq!(asked(64, &[70, 300, 5], short), (Ok((5, ())), vec![64, 128, 512]));
        }
    }

    #[test]
    fn an_error_of_who_was_given_room_is_one() {
        let answer = until_all_fit(2, |room| (room, Err::<(), _>(Errno::EPERM)));
        assert_eq!(answer, Err(Errno::EPERM));
    }
}
