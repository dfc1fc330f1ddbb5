//! Waits for the signals that end the program.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use terminal::Ignored;

/// Blocks SIGINT (Ctrl-C), SIGTERM and SIGHUP, so that the program can wait for them.
///
/// Create this before anything is attached. Otherwise a signal could end the process with a throttle attached. The
/// first wait sees a signal that came earlier.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// One of the signals came.
    Signal,
    /// One of the other descriptors became readable.
    Told,
    /// The deadline passed.
    Timeout,
}

impl Signals {
    pub(crate) fn block() -> Result<Self> {
        let set: SigSet = awaited(Ignored::now()?).collect();
        set.thread_block().context("cannot block signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot wait for signals")?;
        Ok(Self { fd })
    }

    /// Waits until the deadline, for a signal, or until one of `beside` is readable.
    pub(crate) fn wait_until(&self, deadline: Instant, beside: &[BorrowedFd<'_>]) -> Result<Woken> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounding up avoids a busy loop in the last millisecond.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999))
                .unwrap_or(PollTimeout::MAX);
            let fds = std::iter::once(self.fd.as_fd()).chain(beside.iter().copied());
            let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_zero() => return Ok(Woken::Timeout),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => {
                    if self.fd.read_signal().context("cannot read a signal")?.is_some() {
                        return Ok(Woken::Signal);
                    }
                    if fds[1..].iter().any(|fd| fd.any() == Some(true)) {
                        return Ok(Woken::Told);
                    }
                }
                Err(errno) => return Err(errno).context("cannot wait for signals"),
            }
        }
    }
}

/// Returns the signals to wait for. A signal that was ignored at the start stays ignored (nohup, or `&` in a shell).
fn awaited(ignored: Ignored) -> impl Iterator<Item = Signal> {
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    all.into_iter().filter(move |&signal| !ignored.has(signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_from_the_start_is_not_waited_for() {
        use Signal::{SIGHUP, SIGINT, SIGTERM};
        let of = |mask: u64| {
            let ignored = Ignored::parse(&format!("SigIgn:\t{mask:x}\n")).unwrap();
            awaited(ignored).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [SIGINT, SIGTERM, SIGHUP]);
        // nohup(1) and `&` in a shell leave these masks: SIGHUP is 1, SIGINT 2, SIGQUIT 3, SIGTERM 15.
        assert_eq!(of(0b1), [SIGINT, SIGTERM]);
        assert_eq!(of(0b110), [SIGTERM, SIGHUP]);
        assert_eq!(of(1 << 14), [SIGINT, SIGHUP]);
        assert_eq!(of(!0), []);
    }

    #[test]
    fn the_time_is_up_when_it_is_and_not_when_a_poll_ends() {
        let signals = Signals::block().unwrap();
        let deadline = Instant::now() + Duration::from_millis(30);
        assert_eq!(signals.wait_until(deadline, &[]).unwrap(), Woken::Timeout);
        assert!(Instant::now() >= deadline);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        assert_eq!(signals.wait_until(Instant::now(), &[reader.as_fd()]).unwrap(), Woken::Told);
    }
}
