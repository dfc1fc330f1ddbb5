//! Processes that a test starts.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits until a process that was just started is called what it will be: an exec gives the memory up, for which
/// its parent waits, before it takes the new name, and until then it is still called as the parent is.
///
/// # Panics
/// When there is no such process, or it is not called that within 20 seconds.
pub fn wait_for_name(pid: u32, name: &str) {
    let comm = format!("/proc/{pid}/comm");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = std::fs::read_to_string(&comm).unwrap_or_else(|error| panic!("{comm}: {error}"));
        if found.trim_end() == name {
            return;
        }
        assert!(Instant::now() < deadline, "{comm} says {found:?}, not {name:?}");
        sleep(Duration::from_millis(1));
    }
}
