//! Shows progress on standard error: one moving line for each machine on a terminal, plain lines elsewhere. Standard
//! output has only the table.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::protocol::Line;

/// How often a plain line appears, even without a failure.
const PLAIN: Duration = Duration::from_secs(20);

/// The display.
#[derive(Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    /// Creates the display. On a terminal its lines move.
    pub fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Prints a message once.
    pub fn say(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => eprintln!("vmtests: {text}"),
        }
    }

    /// Adds a line for a kernel that boots, with the number of its tests.
    pub fn kernel(&self, name: &str, tests: usize) -> KernelProgress<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(tests as u64));
            let style = ProgressStyle::with_template("{prefix:>8} {elapsed:>4} {wide_bar} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        let now = Instant::now();
        let state = State { tests, booted: false, done: 0, failed: 0, said: now, began: now };
        if bar.is_none() {
            self.say(&format!("{name}: {state}"));
        }
        KernelProgress { progress: self, bar, name: name.into(), state: Mutex::new(state) }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// One kernel's part of the display.
#[derive(Debug)]
pub struct KernelProgress<'a> {
    progress: &'a Progress,
    bar: Option<ProgressBar>,
    name: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tests: usize,
    booted: bool,
    done: usize,
    failed: usize,
    said: Instant,
    began: Instant,
}

impl KernelProgress<'_> {
    /// Shows what a line of the guest means. Call it from time to time, even if the guest is silent.
    pub fn heard(&self, line: &Line) {
        let Ok(mut state) = self.state.lock() else { return };
        match line {
            Line::Booted { release } => {
                let took = state.began.elapsed().as_secs_f64();
                self.progress.say(&format!("{}: booted {release} in {took:.1} s", self.name));
                state.booted = true;
            }
            // nextest's summary repeats all failures.
            Line::Test(test) if state.booted && test.done > state.done => {
                state.done = test.done;
                if !test.passed {
                    state.failed += 1;
                    self.progress.say(&format!("{}: FAILED {}", self.name, test.name));
                }
            }
            _ => {}
        }
        if let Some(bar) = &self.bar {
            bar.set_position(state.done as u64);
            bar.set_message(state.to_string());
        } else if state.said.elapsed() > PLAIN {
            state.said = Instant::now();
            self.progress.say(&format!("{}: {state}", self.name));
        }
    }

    /// Ends the kernel's line with these words.
    pub fn done(&self, words: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.state.lock().map_or(0.0, |state| state.began.elapsed().as_secs_f64());
        self.progress.say(&format!("{}: {words} ({took:.1} s)", self.name));
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.booted, self.tests) {
            (false, _) => write!(f, "booting"),
            (true, 0) => write!(f, "running"),
            (true, tests) => write!(f, "{} of {tests} tests, {} failed", self.done, self.failed),
        }
    }
}
