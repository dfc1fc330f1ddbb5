//! What libbpf says, kept off standard error.

use std::sync::{Mutex, Once, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// What libbpf said since somebody asked last: the verifier's log, when a program is refused.
static LOG: Mutex<String> = Mutex::new(String::new());

/// Returns what libbpf said since the last call, and forgets it.
pub fn take_log() -> String {
    std::mem::take(&mut LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Keeps libbpf off standard error, which belongs to the program, for the rest of this process.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_print(Some((PrintLevel::Warn, |_level, message| {
            LOG.lock().unwrap_or_else(PoisonError::into_inner).push_str(&message);
        })));
    });
}
