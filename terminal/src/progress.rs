//! Shows that the program is alive while something takes long.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use indicatif::ProgressBar;

/// Work that ends sooner shows no spinner.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows a spinner on standard error, if that is a terminal, until it is dropped.
#[must_use = "dropping this takes the spinner away"]
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Starts the spinner. `what` names the work in one to three words.
    pub fn start(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (end, ended) = channel();
        let thread = spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let spinner = ProgressBar::new_spinner().with_message(what);
                spinner.enable_steady_tick(Duration::from_millis(100));
                // Wait until `drop` closes the other end.
                let _ = ended.recv();
                spinner.finish_and_clear();
            }
        });
        Self(Some((end, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            // A panic of the spinner is no reason to fail.
            let _ = thread.join();
        }
    }
}
