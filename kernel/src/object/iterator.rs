//! Reads the output of an iterator over the kernel's objects.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::error::{Call, Error, Result};
use crate::sys;

/// The bytes read at once. The kernel's buffer for them has eight pages.
const AT_ONCE: usize = 1 << 15;

/// The most reads without output. Each has skipped a million objects.
const MOST_PAUSES: u32 = 1_000;

/// Runs a program for each object in this thread's namespaces, and returns its whole output. Errors name `target`.
///
/// # Errors
/// Those of the kernel. The output before an error is no answer.
pub fn all_printed(program: BorrowedFd<'_>, target: &str) -> Result<Vec<u8>> {
    let iterator =
        sys::iterate(program).map_err(|errno| Error::new(Call::Iterate, target, errno))?;
    read_to_end(&mut File::from(iterator))
        .map_err(|error| Error::from_io(Call::Iterate, target, &error))
}

/// Reads to the end, past pauses. After a million objects without output the kernel answers `EAGAIN`, and the next read
/// goes on from there.
fn read_to_end(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut printed = Vec::new();
    let mut buffer = vec![0; AT_ONCE];
    let mut pauses = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(printed),
            Ok(read) => printed.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error)
                if error.raw_os_error() == Some(Errno::EAGAIN as i32) && pauses < MOST_PAUSES =>
            {
                pauses += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use super::*;

    /// An iterator with these answers, followed by the end.
    struct Script(VecDeque<io::Result<Vec<u8>>>);

    impl Read for Script {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let Some(answer) = self.0.pop_front() else { return Ok(0) };
            let bytes = answer?;
            to[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn read(script: Vec<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
        read_to_end(&mut Script(script.into()))
    }

    fn fails<T>(errno: Errno) -> io::Result<T> {
        Err(io::Error::from_raw_os_error(errno as i32))
    }

    #[test]
    fn what_is_printed_before_and_after_a_pause_is_there_once() {
        let script = vec![
            fails(Errno::EAGAIN),
            Ok(vec![1, 2]),
            fails(Errno::EAGAIN),
            fails(Errno::EINTR),
            fails(Errno::EAGAIN),
            Ok(vec![3; AT_ONCE]),
            Ok(vec![4]),
        ];
        let expected = [vec![1, 2], vec![3; AT_ONCE], vec![4]].concat();
        assert_eq!(read(script).unwrap(), expected);
    }

    #[test]
    fn after_an_error_nothing_counts_that_was_printed_before() {
        let script = vec![Ok(vec![1, 2]), fails(Errno::EOPNOTSUPP), Ok(vec![3])];
        assert_eq!(read(script).unwrap_err().raw_os_error(), Some(Errno::EOPNOTSUPP as i32));
    }

    #[test]
    fn one_that_only_pauses_is_given_up() {
        let pauses = |many| (0..many).map(|_| fails(Errno::EAGAIN)).collect();
        assert!(read(pauses(MOST_PAUSES)).unwrap().is_empty());
        let error = read(pauses(MOST_PAUSES + 1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EAGAIN as i32));
    }
}
