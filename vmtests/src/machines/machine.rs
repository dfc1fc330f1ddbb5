//! Boots one kernel: starts virtme-ng, listens to the guest, and ends it at its time limit.

use std::fs::File;
use std::io;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::group::Group;
use super::matrix::Limits;
use super::protocol::{self, Closing, Line};

/// How often to check the time limits and the stop flag.
const TICK: Duration = Duration::from_millis(100);

/// How long to wait for lines after virtme-ng has ended while somebody still holds the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a guest may take to power off after its closing line.
const POWER_OFF: Duration = Duration::from_secs(20);

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest printed its closing line.
    Closed(Closing),
    /// virtme-ng ended without a closing line. This is how it ended.
    Died(String),
    /// It reached a time limit and was killed.
    Hung(&'static str, Duration),
    /// It was killed because the user stopped the run.
    Stopped,
}

/// What a guest did.
#[derive(Debug)]
pub struct Transcript {
    /// How it ended.
    pub end: End,
    /// The kernel release that it reported.
    pub release: Option<String>,
    /// The tests' `JUnit` XML.
    pub junit: Option<String>,
    /// Files that the tests want to be kept: name and text.
    pub kept: Vec<(String, String)>,
    /// The results that tests have written: name and text of each file.
    pub results: Vec<(String, String)>,
    /// From the start to its script's first line.
    pub booted: Option<Duration>,
    /// From the start to its end.
    pub took: Duration,
}

/// The files for a guest's output.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The file for the kernel's console and virtme-ng's own messages.
    pub console: &'a Path,
    /// The file for everything that the guest's script prints.
    pub log: &'a Path,
}

/// Runs a guest to its end.
///
/// # Errors
/// Fails if virtme-ng cannot be started, a file cannot be written, or a process of the machine stays.
pub fn run(
    command: &mut Command,
    word: &str,
    limits: Limits,
    files: Files<'_>,
    stop: &AtomicBool,
    mut heard: impl FnMut(&Line),
) -> Result<Transcript> {
    let create = |path: &Path| File::create(path).with_context(|| path.display().to_string());
    let mut console = create(files.console)?;
    let mut log = BufWriter::new(create(files.log)?);
    let began = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::start(command)?;
    let lines = listen(&mut group)?;
    // A pipe is necessary. QEMU opens its standard error again, and would overwrite what virtme-ng and virtiofsd have
    // written to a file.
    let mut errors = group.stderr().context("no standard error")?;
    let console = std::thread::spawn(move || io::copy(&mut errors, &mut console));
    let mut transcript = Transcript {
        end: End::Stopped,
        release: None,
        junit: None,
        kept: Vec::new(),
        results: Vec::new(),
        booted: None,
        took: began.elapsed(),
    };
    let mut file: Option<String> = None;
    let mut silent_since = None;
    transcript.end = loop {
        if stop.load(Ordering::Relaxed) {
            break End::Stopped;
        }
        let (what, limit) = match transcript.booted {
            None => ("its script has not begun", limits.boot()),
            Some(_) => ("its script has not ended", limits.run()),
        };
        if began.elapsed() > limit {
            break End::Hung(what, limit);
        }
        let line = match lines.recv_timeout(TICK) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) if !group.has_ended()? => {
                heard(&Line::Other);
                continue;
            }
            // The last lines may still be on their way.
            Err(RecvTimeoutError::Timeout) => {
                if silent_since.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS {
                    break died();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break died(),
        };
        let read = protocol::read(&line, word);
        match (&read, &mut file) {
            (Line::JunitEnds, file) => transcript.junit = file.take(),
            (Line::KeptEnds, file) => fill_last(&mut transcript.kept, file.take()),
            (Line::ResultEnds, file) => fill_last(&mut transcript.results, file.take()),
            (_, Some(text)) => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            (Line::JunitBegins, file) => *file = Some(String::new()),
            (Line::KeptBegins { name }, file) => {
                transcript.kept.push((name.clone(), String::new()));
                *file = Some(String::new());
            }
            (Line::ResultBegins { name }, file) => {
                transcript.results.push((name.clone(), String::new()));
                *file = Some(String::new());
            }
            _ => writeln!(log, "{line}").context("cannot write the log")?,
        }
        heard(&read);
        match read {
            Line::Booted { release } => {
                transcript.release = Some(release);
                transcript.booted = Some(began.elapsed());
            }
            Line::Closing(closing) => break End::Closed(closing),
            _ => {}
        }
    };
    transcript.took = began.elapsed();
    if let End::Closed(_) = transcript.end {
        let deadline = Instant::now() + POWER_OFF;
        while !group.has_ended()? && Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK / 4);
        }
    }
    let status = group.end()?;
    if let End::Died(how) = &mut transcript.end {
        *how = status.to_string();
    }
    log.flush().context("cannot write the log")?;
    // All writers have ended by now.
    if let Ok(copied) = console.join() {
        copied.context("cannot write the console's file")?;
    }
    Ok(transcript)
}

/// Sets the text of the file that began last.
fn fill_last(files: &mut [(String, String)], text: Option<String>) {
    if let (Some(text), Some(last)) = (text, files.last_mut()) {
        last.1 = text;
    }
}

/// Marks a death. How it ended is known only after the group has ended.
fn died() -> End {
    End::Died(String::new())
}

/// Reads the lines of standard output until it closes.
fn listen(group: &mut Group) -> Result<mpsc::Receiver<String>> {
    let stdout = group.stdout().context("no standard output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Runs a shell script in place of virtme-ng.
    fn play(script: &str, limits: Limits, stop: &AtomicBool) -> (Transcript, String) {
        let dir = tempfile::tempdir().unwrap();
        let (console, log) = (dir.path().join("console"), dir.path().join("log"));
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let files = Files { console: &console, log: &log };
        let transcript = run(&mut command, "w", limits, files, stop, |_| {}).unwrap();
        (transcript, fs::read_to_string(console).unwrap() + &fs::read_to_string(log).unwrap())
    }

    const LIMITS: Limits = Limits { boot: 20, run: 20 };

    #[test]
    fn a_closing_line_is_the_verdict_and_not_the_exit_status() {
        let script = "echo oops >&2; echo @w booted 6.1; echo @w junit; echo '<a>'; echo '</a>'; \
                      echo @w junit-end; echo words; echo @w kept a.json; echo '{}'; echo @w kept-end; \
                      echo @w result b.json; echo '[]'; echo @w result-end; \
                       echo @w closing tests=0 leftovers=0; exit 255";
        let (transcript, said) = play(script, LIMITS, &AtomicBool::new(false));
        assert_eq!(transcript.end, End::Closed(Closing { tests: 0, leftovers: 0 }));
        assert_eq!(transcript.release.as_deref(), Some("6.1"));
        assert_eq!(transcript.junit.as_deref(), Some("<a>\n</a>\n"));
        assert_eq!(transcript.kept, [("a.json".to_owned(), "{}\n".to_owned())]);
        assert_eq!(transcript.results, [("b.json".to_owned(), "[]\n".to_owned())]);
        assert!(transcript.booted.unwrap() <= transcript.took);
        assert!(said.starts_with("oops\n") && said.contains("words\n"), "{said}");
    }

    #[test]
    fn an_end_without_a_closing_line_is_a_death_even_with_exit_status_0() {
        let (transcript, _) = play("echo @w booted 6.1; exit 0", LIMITS, &AtomicBool::new(false));
        assert_eq!(transcript.end, End::Died("exit status: 0".into()));
        // Somebody else may still hold the pipe.
        let (transcript, _) = play("sleep 1000 & exit 255", LIMITS, &AtomicBool::new(false));
        assert_eq!(transcript.end, End::Died("exit status: 255".into()));
    }

    #[test]
    fn a_guest_that_hangs_is_ended_at_its_limit() {
        let limits = Limits { boot: 1, run: 2 };
        let (transcript, _) = play("sleep 1000", limits, &AtomicBool::new(false));
        assert_eq!(transcript.end, End::Hung("its script has not begun", limits.boot()));
        let (transcript, _) =
            play("echo @w booted 6.1; sleep 1000", limits, &AtomicBool::new(false));
        assert_eq!(transcript.end, End::Hung("its script has not ended", limits.run()));
        assert!(transcript.took < Duration::from_secs(10));
    }

    #[test]
    fn a_guest_that_talks_without_end_hangs_too() {
        let limits = Limits { boot: 1, run: 1 };
        let (transcript, _) =
            play("while :; do echo words; sleep 0.01; done", limits, &AtomicBool::new(false));
        assert_eq!(transcript.end, End::Hung("its script has not begun", limits.boot()));
    }

    #[test]
    fn who_wishes_to_stop_does_not_wait() {
        let (transcript, _) = play("sleep 1000", LIMITS, &AtomicBool::new(true));
        assert_eq!(transcript.end, End::Stopped);
    }
}
