//! Processes that a test starts.

use std::ops::{Deref, DerefMut};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A process that is killed when this is dropped, so a failed test leaves none behind. A limit would not end with the
/// test's cgroups, because it waits for its cgroup to come back.
#[derive(Debug)]
pub struct Mortal(Child);

impl From<Child> for Mortal {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for Mortal {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Mortal {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // A process that was waited for cannot be killed any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a condition holds. The kernel detaches a moment after a process is killed, and a limit looks only once a
/// second.
///
/// # Panics
/// Panics at the caller's location if the condition does not hold within 30 seconds.
#[track_caller]
pub fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until a new process has its own name. For a moment after exec, the process still has the name of its parent.
///
/// # Panics
/// Panics if the process does not exist or lacks the name after 20 seconds.
pub fn wait_for_name(pid: u32, name: &str) {
    let comm = format!("/proc/{pid}/comm");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found =
            std::fs::read_to_string(&comm).unwrap_or_else(|error| panic!("{comm}: {error}"));
        if found.trim_end() == name {
            return;
        }
        assert!(Instant::now() < deadline, "{comm} says {found:?}, not {name:?}");
        sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_does_not_outlive_the_test_that_fails() {
        let child = Mortal::from(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
        let process = std::path::PathBuf::from(format!("/proc/{}", child.id()));
        assert!(process.exists());
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _child = child;
            panic!("as an assertion does");
        }));
        assert!(failed.is_err() && !process.exists());
    }
}
