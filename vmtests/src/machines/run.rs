//! Runs all kernels, some at a time.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use quick_junit::Report;
use testkit::replay::KEPT;
use testkit::results;

use super::Args;
use super::accel::{self, Accel};
use super::command::{find, tail};
use super::kernels::{Bootable, Cache, Found};
use super::machine::{self, Files};
use super::matrix::{Kernel, Limits, Matrix, Way};
use super::progress::Progress;
use super::report;
use super::stop::Stop;
use super::suite::{Built, Part, Suite, named};
use super::verdict::{self, Problem, Run};
use super::vng::{Boot, Settings};

/// The folder for failed sequences, in each machine's folder.
const KEPT_DIR: &str = "kept";

/// The folder for results. Each machine has one for its tests, and the run has one for each kernel.
const RESULTS_DIR: &str = "results";

/// The number of console lines to show.
const CONSOLE_LINES: usize = 30;

/// The data that all machines of a run share.
struct Plan<'a> {
    args: &'a Args,
    workspace: PathBuf,
    out: PathBuf,
    vng: PathBuf,
    accel: Accel,
    limits: Limits,
    suite: Option<Suite>,
    /// The id of this run. All its results carry the id.
    id: String,
    stop: Stop,
    progress: Progress,
}

/// Runs what the arguments ask for and returns the exit status.
///
/// # Errors
/// Fails if nothing could be run at all.
pub fn run(args: &Args) -> Result<u8> {
    let stop = Stop::on_signals()?;
    let text =
        fs::read_to_string(&args.matrix).with_context(|| args.matrix.display().to_string())?;
    let matrix = Matrix::parse(&text).with_context(|| args.matrix.display().to_string())?;
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?.to_owned();
    let target = workspace.join("target");
    let vng = vng(args, &target);
    let cache = Cache {
        dir: target.join("kernels"),
        vng: vng.as_ref().map_or_else(|_| PathBuf::from("vng"), Clone::clone),
        refresh: args.refresh,
    };
    if args.list {
        print!("{}", matrix.to_string_for(&cache));
        return Ok(0);
    }
    let progress = Progress::new();
    let kernels = matrix.select(&args.kernels)?;
    let out = args.out.clone().unwrap_or_else(|| target.join("vm"));
    let out = std::path::absolute(&out).with_context(|| out.display().to_string())?;
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    // Results of an earlier run must not count for this one.
    let _ = fs::remove_file(out.join("junit.xml"));
    let _ = fs::remove_dir_all(out.join(RESULTS_DIR));
    let vng = vng?;
    let suite = if args.command.is_none() {
        // Without parallel jobs, each additional boot would only cost time.
        let apart = if args.jobs > 1 { matrix.apart.as_slice() } else { &[] };
        let built = built(args, &workspace, &out)?;
        let once = matrix.once.as_deref();
        let has_host = args.host_junit.is_some();
        Some(Suite::list(&workspace, &out, &built, &args.filter, apart, once, has_host)?)
    } else {
        None
    };

    let mut runs: Vec<Option<Run>> = Vec::new();
    let mut found = Vec::new();
    for kernel in kernels {
        match cache.get(kernel, |text| progress.say(&format!("{}: {text}", kernel.name))) {
            Ok(Found::Here(bootable)) => {
                found.push((runs.len(), kernel, bootable));
                runs.push(None);
            }
            // A kernel that did not boot has not passed.
            Ok(Found::NotHere(why)) => {
                runs.push(Some(Run::not_started(&kernel.name, Problem::CouldNot(why))));
            }
            Err(error) => {
                let problem = Problem::CouldNot(format!("{error:#}"));
                runs.push(Some(Run::not_started(&kernel.name, problem)));
            }
        }
    }
    let image =
        found.iter().map(|(_, _, bootable)| bootable.run.as_path()).find(|run| run.is_file());
    let accel = accel::choose(args.accel, image)?;
    if !found.is_empty() {
        progress.say(&accel.to_string());
    }
    let limits = Limits {
        run: args.limit.unwrap_or(matrix.limits.run),
        boot: args.limit.map_or(matrix.limits.boot, |limit| limit.min(matrix.limits.boot)),
    };
    let id = uuid()?;
    let plan = Plan { args, workspace, out, vng, accel, limits, suite, id, stop, progress };
    if plan.suite.is_some() {
        // Each kernel gets a folder, so that `proved` notices a kernel without results.
        for kernel in matrix.select(&args.kernels)? {
            let dir = plan.results(&kernel.name);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
    }
    plan.all(&Mutex::new(plan.queue(&found)), &Mutex::new(&mut runs));
    let runs = runs.into_iter().flatten().collect::<Vec<_>>();
    plan.show(&runs)?;
    Ok(verdict::exit_status(&runs))
}

/// Returns the path of virtme-ng: the one that `scripts/setup test` installed, or the system's.
fn vng(args: &Args, target: &Path) -> Result<PathBuf> {
    let own = target.join("tools/venv/bin/vng");
    let found = match &args.vng {
        Some(file) => Some(file.clone()),
        None if own.is_file() => Some(own),
        None => find("vng"),
    };
    found.context("virtme-ng is not here; `scripts/setup test` installs it")
}

fn built(args: &Args, workspace: &Path, out: &Path) -> Result<Built> {
    match (&args.binaries_metadata, &args.cargo_metadata) {
        (Some(binaries), Some(metadata)) => Ok(Built {
            binaries: binaries.canonicalize().with_context(|| binaries.display().to_string())?,
            metadata: metadata.canonicalize().with_context(|| metadata.display().to_string())?,
        }),
        _ => Built::make(workspace, out),
    }
}

/// One machine: its kernel, the place of that kernel among the runs, and what it runs.
#[derive(Clone, Copy)]
struct Machine<'a> {
    index: usize,
    kernel: &'a Kernel,
    bootable: &'a Bootable,
    /// The part of the tests, or `None` if the user gave a command.
    part: Option<&'a Part>,
}

type Queue<'a> = Mutex<VecDeque<Machine<'a>>>;

impl Plan<'_> {
    /// Queues every machine, the slowest first, so that the last ones end together. The newer a kernel is, the slower
    /// it is when emulated.
    fn queue<'a>(&'a self, found: &'a [(usize, &'a Kernel, Bootable)]) -> VecDeque<Machine<'a>> {
        let newest_first = || found.iter().rev().enumerate();
        let parts_of = |place: usize| match &self.suite {
            Some(suite) if place == 0 => suite.whole.iter().map(Some).collect(),
            Some(suite) => suite.each.iter().map(Some).collect(),
            None => vec![None],
        };
        let count = newest_first().map(|(place, _)| parts_of(place).len()).max().unwrap_or(0);
        let nth_of_kernels = |nth: usize| {
            newest_first().filter_map(move |(place, (index, kernel, bootable))| {
                let part = *parts_of(place).get(nth)?;
                Some(Machine { index: *index, kernel, bootable, part })
            })
        };
        (0..count).flat_map(nth_of_kernels).collect()
    }

    /// Runs the whole queue, several machines at once.
    fn all(&self, queue: &Queue<'_>, runs: &Mutex<&mut Vec<Option<Run>>>) {
        self.stop.machines_run();
        let work = || {
            while let Some(machine) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                let name = &machine.kernel.name;
                let run = if self.stop.flag().load(Ordering::Relaxed) {
                    Run::not_started(name, Problem::Stopped)
                } else {
                    self.one(machine).unwrap_or_else(|error| {
                        Run::not_started(name, Problem::CouldNot(format!("{error:#}")))
                    })
                };
                if let Ok(mut runs) = runs.lock() {
                    let of_kernel = &mut runs[machine.index];
                    *of_kernel = Some(match of_kernel.take() {
                        None => run,
                        Some(other) => other.together_with(run),
                    });
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.args.jobs {
                scope.spawn(work);
            }
        });
    }

    /// Boots a kernel and runs its part of the tests.
    fn one(&self, Machine { kernel, bootable, part, .. }: Machine<'_>) -> Result<Run> {
        let name = named(&kernel.name, part.and_then(|part| part.name.as_deref()));
        let dir = self.out.join(&name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let tmp = tempfile::Builder::new()
            .prefix("vmtests-")
            .tempdir()
            .context("a temporary directory")?;
        let word = format!("vm{}", uuid()?);
        let file = dir.join("settings");
        self.settings(kernel, part, &dir, &word)?.write(&file)?;
        let boot = Boot {
            vng: &self.vng,
            kernel: &bootable.run,
            accel: &self.accel,
            cpus: self.args.cpus,
            memory: &self.args.memory,
            tmp: tmp.path(),
        };
        let mut visible = vec![self.workspace.as_path(), file.as_path(), bootable.run.as_path()];
        visible.extend(self.suite.iter().flat_map(|suite| &suite.reads).map(PathBuf::as_path));
        let (console, log) = (dir.join("console.log"), dir.join("tests.log"));
        let expected = part.map(|part| &part.expected);
        let shown = self.progress.kernel(&name, expected.map_or(0, BTreeSet::len));
        let transcript = machine::run(
            &mut boot.command(&file, &visible),
            &word,
            self.limits,
            Files { console: &console, log: &log },
            self.stop.flag(),
            |line| shown.heard(line),
        );
        let transcript = transcript.inspect_err(|_| shown.done("could not be run"))?;
        if let Some(xml) = &transcript.junit {
            fs::write(dir.join("junit.xml"), xml)?;
        }
        let kept = transcript.kept.iter().map(|it| (dir.join(KEPT_DIR), it));
        let results = transcript.results.iter().map(|it| (self.results(&kernel.name), it));
        for (dir, (name, text)) in kept.chain(results) {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        let run = Run::judge(kernel, expected, transcript, last_words(&said));
        let end = match run.problems.as_slice() {
            [] => "passed".into(),
            problems => problems[0].to_string().lines().next().unwrap_or_default().to_owned(),
        };
        shown.done(&end);
        Ok(run)
    }

    /// Returns the host's folder for the results of a kernel's tests.
    fn results(&self, kernel: &str) -> PathBuf {
        self.out.join(RESULTS_DIR).join(kernel)
    }

    /// Makes the settings for the guest's script.
    fn settings(
        &self,
        kernel: &Kernel,
        part: Option<&Part>,
        dir: &Path,
        word: &str,
    ) -> Result<Settings> {
        let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/bin");
        let path = format!(
            "{}:{}/target/tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            guest.display(),
            self.workspace.display()
        );
        let mut env = vec![
            ("PATH", path),
            // The test compares this with what the kernel supports.
            ("VMTESTS_KERNEL", serde_json::to_string(kernel)?),
            ("INSTA_UPDATE", "no".into()),
            // This saves one exec for each test, a tenth of a second on an emulated processor.
            ("NEXTEST_DOUBLE_SPAWN", "0".into()),
        ];
        if !self.accel.kvm && std::env::var_os("GATE_WITNESS_EVERY").is_none() {
            env.push(("GATE_WITNESS_EVERY", "10".into()));
        }
        // These go into the guest. The length of the gate does not, because a guest has a time limit.
        for name in ["HOME", "SUDO_USER", "GATE_SEED", "GATE_WITNESS_EVERY"] {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            env.extend(value.map(|value| (name, value)));
        }
        let mut scratch = self.suite.as_ref().map(|it| it.scratch.clone()).unwrap_or_default();
        // A user's command may read there what earlier tests have left.
        let kept = self.suite.is_some().then(|| dir.join(KEPT_DIR));
        if let Some(kept) = &kept {
            fs::create_dir_all(kept).with_context(|| kept.display().to_string())?;
            scratch.push(kept.clone());
            env.push((KEPT, kept.display().to_string()));
        }
        let results = self.suite.is_some().then(|| dir.join(RESULTS_DIR));
        if let Some(results) = &results {
            fs::create_dir_all(results).with_context(|| results.display().to_string())?;
            scratch.push(results.clone());
            env.push((results::FOLDER, results.display().to_string()));
            env.push((results::RUN, self.id.clone()));
        }
        let command = self.args.command.clone().unwrap_or_default();
        let shell = || vec!["bash".into(), "-c".into(), command];
        Ok(Settings {
            word: word.into(),
            workspace: self.workspace.clone(),
            tests: part.map_or_else(shell, |part| part.command.clone()),
            junit: self.suite.as_ref().map(|suite| suite.junit.clone()),
            kept,
            results,
            scratch,
            env,
        })
    }

    /// Returns what the user's command has printed on a kernel.
    fn printed(&self, kernel: &str) -> Result<String> {
        let log = self.out.join(kernel).join("tests.log");
        let text = fs::read(&log).with_context(|| log.display().to_string())?;
        let text = String::from_utf8_lossy(&text);
        // These lines of the script are for the host.
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("@vm")).collect();
        Ok(lines.join("\n"))
    }

    /// Prints the table, the problems, and a closing line.
    fn show(&self, runs: &[Run]) -> Result<()> {
        let file = self.out.join("junit.xml");
        let text = report::junit(runs).to_string().context("the JUnit file")?;
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        let host = self.args.host_junit.as_deref().map(host_run).transpose()?;
        println!("{}", report::table(host.iter().chain(runs)));
        if runs.iter().any(|run| run.took.is_some()) {
            println!("{}", self.accel);
        }
        for run in runs {
            for problem in &run.problems {
                println!("{}: {problem}", run.kernel);
            }
            for failure in report::failures(run) {
                println!("{failure}");
            }
            if self.args.command.is_some() && run.took.is_some() {
                println!("{}: what it printed:\n{}", run.kernel, self.printed(&run.kernel)?);
            }
            if !run.console.is_empty() {
                println!("{}: the end of its console:\n{}", run.kernel, run.console);
            }
        }
        println!(
            "details: {}/KERNEL/{{tests,console}}.log, {}",
            self.out.display(),
            file.display()
        );
        println!("{}", report::closing_line(runs));
        Ok(())
    }
}

/// Makes a unique id.
fn uuid() -> Result<String> {
    let file = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(file).context(file)?.trim().to_owned())
}

/// Reads the results of the root tests on the host's kernel.
fn host_run(file: &Path) -> Result<Run> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let report = Report::deserialize_from_str(&text).with_context(|| file.display().to_string())?;
    let uname = nix::sys::utsname::uname().context("uname")?;
    Ok(Run::of_host(&uname.release().to_string_lossy(), report))
}

/// Returns the end of a console's output, without control characters.
fn last_words(console: &str) -> String {
    let lines = console.lines().map(|line| {
        line.chars().filter(|char| !char.is_control() || *char == '\t').collect::<String>()
    });
    let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
    // The beginning of a panic is what matters. The trace follows it.
    let panic = lines.iter().rposition(|line| line.contains("Kernel panic"));
    let from = panic.map_or(0, |line| line.saturating_sub(CONSOLE_LINES / 2));
    let upto = panic.map_or(lines.len(), |line| lines.len().min(line + CONSOLE_LINES / 2));
    tail(&lines[from..upto].join("\n"), CONSOLE_LINES)
}

impl Matrix {
    /// Describes the matrix and what this system has of it.
    fn to_string_for(&self, cache: &Cache) -> String {
        let line = |kernel: &Kernel| {
            let ways: Vec<_> = kernel.get.iter().map(Way::to_string).collect();
            let default = if kernel.default { "*" } else { " " };
            format!("{default} {:8} {}: {}", kernel.name, ways.join(", or "), cache.state(kernel))
        };
        let lines: Vec<_> = self.kernels.iter().map(line).collect();
        format!("{}\n* run when no --kernel is named\n", lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_lines_without_control_characters() {
        assert_eq!(last_words("a\u{1b}[2J\r\n\n  \nb\tc\n"), "a[2J\nb\tc");
    }

    #[test]
    fn last_words_hold_the_panic_however_long_its_trace_is() {
        let text = ["before\n".repeat(50), "Kernel panic\n".into(), "trace\n".repeat(50)].concat();
        let words = last_words(&text);
        assert!(words.contains("before\nKernel panic\ntrace\n"), "{words}");
        assert!(words.lines().count() <= CONSOLE_LINES);
    }
}
