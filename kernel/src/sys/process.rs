//! Process data from a pidfd: `pidfd_open(2)` and `PIDFD_GET_INFO`.

use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::Result;

/// A process or a thread as the kernel reports it, whatever `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Task {
    /// The pid of the thread's process.
    pub process: u32,
    /// The id of the thread's cgroup.
    pub cgroup: u64,
}

/// Queries a process or a thread of this pid namespace (6.13).
///
/// `ESRCH` when there is none; `EOPNOTSUPP` when the kernel does not support the call.
pub(crate) fn task(id: u32) -> Result<Task> {
    let pidfd = match open(id, 0) {
        // The kernel answers like this for a thread that is not the first of its process.
        Err(Errno::ENOENT | Errno::EINVAL) => open(id, libc::PIDFD_THREAD),
        opened => opened,
    };
    let pidfd = pidfd.map_err(|errno| match errno {
        Errno::ESRCH => Errno::ESRCH,
        // The kernel is older than 5.3 (6.9 for a thread), or a sandbox refuses the call.
        _ => Errno::EOPNOTSUPP,
    })?;
    // SAFETY: the structure holds only numbers.
    let mut info: libc::pidfd_info = unsafe { mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_CGROUPID);
    // SAFETY: `info` lives across the call and has the size that the request's number carries.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    let told = match Errno::result(asked) {
        Ok(_) => info.mask & u64::from(libc::PIDFD_INFO_CGROUPID) != 0,
        Err(Errno::ESRCH) => return Err(Errno::ESRCH),
        Err(_) => false,
    };
    if !told {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(Task { process: info.tgid, cgroup: info.cgroupid })
}

fn open(id: u32, flags: libc::c_uint) -> Result<OwnedFd> {
    let id = libc::pid_t::try_from(id).map_err(|_| Errno::ESRCH)?;
    // SAFETY: numbers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, id, flags) })?;
    let fd = libc::c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call succeeded, so `fd` is open, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If the kernel does not report it, the function claims nothing.
    #[test]
    fn a_thread_and_its_process_are_told_as_one_process() {
        let own = std::process::id();
        let thread = std::thread::spawn(|| {
            let id = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
            (id, task(id))
        });
        let (id, of_thread) = thread.join().unwrap();
        assert_ne!(id, own);
        match (task(own), of_thread) {
            (Ok(process), Ok(thread)) => {
                assert_eq!((process.process, thread.process), (own, own));
                assert_eq!(process.cgroup, thread.cgroup);
            }
            told => assert_eq!(told, (Err(Errno::EOPNOTSUPP), Err(Errno::EOPNOTSUPP))),
        }
        assert_eq!(task(u32::MAX), Err(Errno::ESRCH));
    }
}
