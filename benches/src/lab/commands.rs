//! Executes the lab's command line.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nix::unistd::geteuid;

use super::cell::Way;
use super::cli::{Cli, Command, ReportArgs, RunArgs};
use super::machine::Machine;
use super::measure::Lab;
use super::network::Network;
use super::plan::{Entry, entries};
use super::planned::{Planned, planned};
use super::results::{self, Idle, NOT_QUIET, Results, SCHEMA_VERSION};
use super::setup::{Leftover, Refusal};
use super::stop::Stop;
use super::{goals, guest, markdown, nested, plots, table};

/// The exit status if some runs failed.
pub(super) const RUNS_FAILED: u8 = 1;
/// The exit status that a shell shows for a program ended by Ctrl-C.
const STOPPED: u8 = 130;

/// Executes the command line and returns the exit status.
///
/// # Errors
/// Fails if the command could not be executed, which is exit status 2.
pub fn run(cli: &Cli) -> Result<u8> {
    match &cli.command {
        Some(Command::Report(args)) => report(args),
        Some(Command::Runner(args)) => vmtests::machines::run::run(args),
        None => measure(&cli.run),
    }
}

fn report(args: &ReportArgs) -> Result<u8> {
    let all = args
        .files
        .iter()
        .map(|file| {
            let name = file.display();
            let text = fs::read_to_string(file).with_context(|| name.to_string())?;
            Results::parse(&text).with_context(|| name.to_string())
        })
        .collect::<Result<Vec<_>>>()?;
    let written = write_report(&all, &args.out, "lab")?;
    print(&markdown::goals(&goals::standings(&all)))?;
    tell(&written);
    Ok(0)
}

fn measure(args: &RunArgs) -> Result<u8> {
    let entries = entries(args.preset, &args.choice)?;
    let stop = Stop::on_signals()?;
    let results = match &args.vm {
        Some(kernel) => guest::measure(kernel, args, &stop),
        None => here(args, &entries, &stop),
    };
    // A user who stopped the lab still has to know what it left behind.
    if stop.is_wished() && !results.as_ref().is_err_and(anyhow::Error::is::<Leftover>) {
        eprintln!("lab: stopped; nothing was written");
        return Ok(STOPPED);
    }
    let results = results?;
    if args.json {
        print(&(serde_json::to_string(&results)? + "\n"))?;
    } else {
        print(&format!("{}\n\n{}\n", results.machine.told(), table::aligned(&results)))?;
        if args.nested() {
            print(&markdown::nested(&results))?;
        }
        let word = format!("lab-{}", results.machine.word());
        fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
        let json = args.out.join(format!("{word}.json"));
        let text = serde_json::to_string_pretty(&results)? + "\n";
        fs::write(&json, text).with_context(|| json.display().to_string())?;
        let mut written = vec![json];
        written.extend(write_report(std::slice::from_ref(&results), &args.out, &word)?);
        tell(&written);
    }
    let failures = results.failures();
    for failure in &failures {
        eprintln!("lab: failed: {failure}");
    }
    Ok(if failures.is_empty() { 0 } else { RUNS_FAILED })
}

/// Measures on this machine.
fn here(args: &RunArgs, entries: &[Entry], stop: &Stop) -> Result<Results> {
    ensure!(
        geteuid().is_root(),
        "measuring needs root, for namespaces, cgroups and BPF programs: sudo {}",
        std::env::args().next().unwrap_or_default()
    );
    for tool in ["ip", "tc", "iperf3", "sysctl"] {
        ensure!(
            vmtests::machines::command::find(tool).is_some(),
            "there is no {tool}; 'scripts/setup test' installs it"
        );
    }
    let machine = Machine::this()?;
    let span = args.span();
    let nested = nested_ways(args);
    let overhead = machine.overhead_seconds();
    let planned = planned(entries, nested.len(), span, args.runs(), overhead);
    let progress = Progress::new(&planned);
    let network = Network::new()?;
    let lab = Lab { network: &network, span, runs: args.runs(), stop };

    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        machine,
        seconds: span.seconds,
        omitted_seconds: span.omit,
        runs: args.runs(),
        idle: Vec::new(),
        rows: Vec::new(),
        nested: Vec::new(),
    };
    for entry in entries {
        let cell = &entry.cell;
        let known = results
            .idle
            .iter()
            .find(|idle| (idle.rtt_ms, idle.loss_percent) == (cell.rtt_ms, cell.loss_percent));
        let idle: Result<Idle, Refusal> = match known {
            Some(idle) => Ok(idle.clone()),
            None => match lab.idle(cell) {
                Err(Refusal::Failed(error)) if error.is::<Leftover>() => return Err(error),
                idle => idle,
            },
        };
        if let Ok(idle) = &idle
            && known.is_none()
        {
            let was_quiet = results.is_quiet();
            results.idle.push(idle.clone());
            if was_quiet && !results.is_quiet() {
                progress.bar.suspend(|| eprintln!("lab: {NOT_QUIET}"));
            }
        }
        ensure!(!stop.is_wished(), "stopped");
        results.rows.extend(lab.entry(entry, &idle, &|what| progress.begins(what))?);
    }
    for (way, rtt_ms) in nested {
        results.nested.push(nested::measure(&lab, way, rtt_ms, &|what| progress.begins(what))?);
    }
    progress.bar.finish_and_clear();
    Ok(results)
}

/// Returns the directions and round trips at which to measure limits within limits.
fn nested_ways(args: &RunArgs) -> Vec<(Way, u32)> {
    if !args.nested() {
        return Vec::new();
    }
    let or =
        |chosen: &[Way]| if chosen.is_empty() { vec![Way::Up, Way::Down] } else { chosen.to_vec() };
    let rtts = if args.choice.rtts.is_empty() { vec![0] } else { args.choice.rtts.clone() };
    or(&args.choice.ways)
        .into_iter()
        .flat_map(|way| rtts.iter().map(move |rtt| (way, *rtt)))
        .collect()
}

/// Shows progress as a bar on a terminal, and as lines elsewhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(planned: &Planned) -> Self {
        let bar = ProgressBar::new(planned.runs);
        let style = ProgressStyle::with_template("{pos}/{len} [{elapsed}, {eta} left] {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        eprintln!("lab: {planned}");
        Self { bar }
    }

    fn begins(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            self.bar.set_message(what.to_owned());
        } else {
            eprintln!("lab: {what}");
        }
        self.bar.inc(1);
    }
}

/// Writes the report of these results: `NAME.md` and its plots.
fn write_report(all: &[Results], dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut plots = Vec::new();
    let mut names = Vec::new();
    for (results, word) in all.iter().zip(results::names(all)) {
        let drawn = plots::all(results)?;
        let drawn = drawn.into_iter().map(|(kind, svg)| (format!("lab-{word}-{kind}.svg"), svg));
        let before = plots.len();
        plots.extend(drawn);
        names.push(plots[before..].iter().map(|(name, _)| name.clone()).collect());
    }
    let text = markdown::report(all, &names);
    let mut written = Vec::new();
    for (name, text) in std::iter::once((format!("{name}.md"), text)).chain(plots) {
        let file = dir.join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        written.push(file);
    }
    Ok(written)
}

fn tell(written: &[PathBuf]) {
    for file in written {
        eprintln!("lab: wrote {}", file.display());
    }
}

/// Prints text. A reader that closed the pipe is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}
