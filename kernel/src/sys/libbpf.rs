//! libbpf's messages, kept off standard error.

use std::sync::{Mutex, Once, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// The messages since the last call of [`take_log`], such as the verifier's log of a refused program.
static LOG: Mutex<String> = Mutex::new(String::new());

/// Returns and clears the messages since the last call.
pub fn take_log() -> String {
    std::mem::take(&mut LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Keeps libbpf's messages off standard error, for the rest of this process.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_print(Some((PrintLevel::Warn, |_level, message| {
            LOG.lock().unwrap_or_else(PoisonError::into_inner).push_str(&message);
        })));
    });
}
