//! Runs the lab in a virtual machine. The tests' runner starts the same binary, and the results come from its log.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cli::RunArgs;
use super::commands::RUNS_FAILED;
use super::results::Results;
use super::stop::Stop;

/// The directory for the runner's logs, apart from the logs of the tests.
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/vm-lab");
const LOOK: Duration = Duration::from_millis(100);
/// The beginning of the results, which are one line.
const BEGINS: &str = "{\"schema_version\":";

/// Boots this kernel, measures there, and reads the results from the log.
///
/// # Errors
/// Fails if the machine does not start or end, or if its log has no results.
pub fn measure(kernel: &str, args: &RunArgs, stop: &Stop) -> Result<Results> {
    let lab = std::env::current_exe().context("where the lab is")?;
    let mut words = vec![lab.display().to_string()];
    words.extend(for_the_guest(args));
    let log = Path::new(OUT).join(kernel).join("tests.log");
    begin_anew(&log)?;
    // The runner is a process of its own, because it prints tables and handles signals itself.
    let child = Command::new(&lab)
        .args(["runner", "--kernel", kernel, "--out", OUT])
        .args(["--limit", &args.limit.to_string(), "--command", &command(&words)])
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()))
        .spawn()
        .context("cannot start the runner")?;
    let status = wait(child, stop)?;
    ensure!(!stop.is_wished(), "stopped");
    ensure!(status.success(), "the runner failed ({status}); see {}", log.display());
    let text = fs::read(&log).with_context(|| log.display().to_string())?;
    found(&String::from_utf8_lossy(&text)).with_context(|| log.display().to_string())
}

/// Removes the log of an earlier run.
fn begin_anew(log: &Path) -> Result<()> {
    match fs::remove_file(log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| log.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Returns the command for the guest's shell. Failed runs are part of the results, so they are no error of the guest.
fn command(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
    format!("{} || [ $? -eq {RUNS_FAILED} ]", words.join(" "))
}

/// Waits for the runner, and tells it when somebody wants to stop.
fn wait(mut child: Child, stop: &Stop) -> Result<ExitStatus> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.is_wished() && !told {
            let pid = Pid::from_raw(i32::try_from(child.id()).context("its pid")?);
            // After Ctrl-C the runner knows already. A second signal changes nothing.
            kill(pid, Signal::SIGTERM).context("the runner")?;
            told = true;
        }
        sleep(LOOK);
    }
}

/// Finds the results in a guest's log.
fn found(log: &str) -> Result<Results> {
    let Some(line) = log.lines().rfind(|line| line.starts_with(BEGINS)) else {
        let said = vmtests::machines::command::tail(log.trim(), 5);
        bail!("no results in the guest's log, which ends with:\n{said}")
    };
    Results::parse(line)
}

/// Returns the arguments for the guest: the same ones, but with results on standard output and without a machine.
fn for_the_guest(args: &RunArgs) -> Vec<String> {
    let mut words = vec!["--json".to_owned()];
    let mut say = |option: &str, values: &[String]| {
        if !values.is_empty() {
            words.extend([format!("--{option}"), values.join(",")]);
        }
    };
    say("preset", &args.preset.iter().map(typed).collect::<Vec<_>>());
    let choice = &args.choice;
    say("way", &choice.ways.iter().map(typed).collect::<Vec<_>>());
    say("sender", &choice.senders.iter().map(typed).collect::<Vec<_>>());
    say("flows", &plain(&choice.flows));
    let rates: Vec<_> = choice.rates.iter().map(|rate| rate.bytes_per_second()).collect();
    say("rate", &plain(&rates));
    say("rtt", &plain(&choice.rtts));
    say("loss", &plain(&choice.losses));
    say("system", &choice.systems.iter().map(typed).collect::<Vec<_>>());
    let span = args.span();
    say("seconds", &plain(&[span.seconds]));
    say("omit", &plain(&[span.omit]));
    say("runs", &plain(&[args.runs()]));
    if args.nested {
        words.push("--nested".into());
    }
    words
}

fn typed<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn plain<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

/// Quotes a word for a POSIX shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::cli::Cli;
    use super::super::samples;
    use super::*;

    #[test]
    fn a_guest_is_told_all_that_was_said() {
        let said = "lab --preset goals --way up,down --sender bbr --flows 1,16 --rate 1.25M --rtt 20 --loss 0,1 \
                    --system ours,bucket-20ms --seconds 5 --omit 2 --runs 4 --nested";
        let args = Cli::parse_from(said.split_whitespace()).run;
        let words = for_the_guest(&args);
        let again = Cli::parse_from(std::iter::once("lab".to_owned()).chain(words)).run;
        assert!(again.json);
        assert_eq!(again.choice, args.choice);
        assert_eq!((again.preset, again.nested), (args.preset, true));
        assert_eq!((again.seconds, again.omit, again.runs), (Some(5), 2, Some(4)));
    }

    #[test]
    fn no_earlier_runs_results_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("tests.log");
        begin_anew(&log).unwrap();
        fs::write(&log, "old").unwrap();
        begin_anew(&log).unwrap();
        assert!(!log.exists());
        assert!(begin_anew(dir.path()).is_err());
    }

    #[test]
    fn failed_runs_are_no_failure_of_the_machine() {
        let succeeds = |status: u8| {
            let words = ["sh", "-c", &format!("exit {status}")].map(str::to_owned);
            Command::new("sh").args(["-c", &command(&words)]).status().unwrap().success()
        };
        assert_eq!([0, 1, 2, 130].map(succeeds), [true, true, false, false]);
    }

    #[test]
    fn results_are_found_between_what_else_is_said() {
        let line = serde_json::to_string(&samples::results()).unwrap();
        let log = format!("@w booted 6.12\nlab: talk\n{line}\nnothing of ours is left\n");
        assert_eq!(found(&log).unwrap(), samples::results());
        let error = found("@w booted\nlab: ip failed\n").unwrap_err().to_string();
        assert!(error.ends_with("lab: ip failed"), "{error}");
    }
}
