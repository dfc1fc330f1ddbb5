//! Reads lines from a process that may never send one.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The reading end of a pipe.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: BufReader<R>,
    patience: Duration,
}

impl<R: Read + AsFd> Lines<R> {
    /// Creates a reader that waits this long for each line.
    pub(super) fn new(from: R, patience: Duration) -> Self {
        Self { from: BufReader::new(from), patience }
    }

    /// Returns the next line with its line break, or an empty text at the end.
    ///
    /// # Errors
    /// `TimedOut` if no line came in time.
    pub(super) fn next(&mut self) -> io::Result<String> {
        let deadline = Instant::now() + self.patience;
        let mut line = Vec::new();
        loop {
            if self.from.buffer().is_empty() {
                self.wait(deadline)?;
            }
            let there = self.from.fill_buf()?;
            let end = there.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(there.len());
            line.extend_from_slice(&there[..taken]);
            self.from.consume(taken);
            if end.is_some() || taken == 0 {
                return String::from_utf8(line).map_err(io::Error::other);
            }
        }
    }

    /// Waits until there is something to read or the last writer has closed the pipe.
    fn wait(&self, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut end = [PollFd::new(self.from.get_ref().as_fd(), PollFlags::POLLIN)];
            match poll(&mut end, timeout) {
                Ok(0) => {
                    let what = format!("no line within {:?}", self.patience);
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what));
                }
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn pipe(patience: Duration) -> (Lines<File>, File) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (Lines::new(read.into(), patience), write.into())
    }

    #[test]
    fn lines_come_one_by_one_and_then_nothing() {
        let (mut lines, mut to) = pipe(Duration::from_secs(20));
        to.write_all(b"one\ntwo\nhal").unwrap();
        assert_eq!(lines.next().unwrap(), "one\n");
        assert_eq!(lines.next().unwrap(), "two\n");
        let writer = std::thread::spawn(move || to.write_all(b"f\nthe rest").unwrap());
        assert_eq!(lines.next().unwrap(), "half\n");
        writer.join().unwrap();
        assert_eq!(lines.next().unwrap(), "the rest");
        assert_eq!(lines.next().unwrap(), "");
    }

    #[test]
    fn who_says_nothing_is_not_waited_for_without_end() {
        let (mut lines, mut to) = pipe(Duration::from_millis(50));
        to.write_all(b"half a line").unwrap();
        assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
