//! Defines the command line.

mod named;
mod report_args;
mod unusable;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use kernel::AttachType;

use self::named::ByName;
#[cfg(test)]
pub(crate) use self::report_args::Output;
use auditor::collect::{Breadth, Method, Options};
use auditor::judge::{DEFAULT_PROGRAMS, Finding, cannot_match};
use terminal::talk::Loudness;

pub(crate) use self::report_args::ReportArgs;
use self::report_args::{formats_but, outputs_but};
pub(crate) use self::unusable::Unusable;
use crate::documents::Document;
use crate::formats::Format;

const EXIT_STATUS: &str = "\
Exit status:
  0   clean
  1   leaks
  2   not everything could be seen
  64  bad usage, or something was named that does not exist
  70  the audit itself failed, or the cgroup2 hierarchy is not to be seen";

const CLEAN_EXIT_STATUS: &str = "\
Exit status:
  0   clean
  1   leaks are left, or something could not be removed
  2   not everything could be seen
  64  bad usage, or something was named that does not exist
  70  the audit itself failed, or the cgroup2 hierarchy is not to be seen";

const SNAPSHOT_EXIT_STATUS: &str = "\
Exit status:
  0   written
  2   written, but not everything could be seen
  64  bad usage, or something was named that does not exist
  70  it could not be taken or written";

const DIFF_EXIT_STATUS: &str = "\
Exit status:
  0   nothing is new
  1   something is new
  2   not everything can be compared
  64  bad usage, or the two cannot be compared
  70  the comparison itself failed";

const GATE_EXIT_STATUS: &str = "\
Exit status:
  0   nothing is left behind, and the command ended with 0
  1   something is left behind
  2   not everything could be seen; then the command may not have been run
  64  bad usage; the command was not run
  70  the gate itself failed
  *   else the command's own; 128 + N if signal N ended it, 127 if it was not found, 126 if it cannot be run";

const OTHER_EXIT_STATUS: &str = "\
Exit status:
  0   done
  64  bad usage
  70  the result could not be written";

const EXAMPLES: &str = "\
Exit status:
  0   clean
  1   leaks
  2   not everything could be seen
  64  bad usage, or something was named that does not exist
  70  the audit itself failed, or the cgroup2 hierarchy is not to be seen

Examples:
  chadthrottle-audit scan
  chadthrottle-audit scan --root /system.slice --program 'mythrottle*'
  chadthrottle-audit scan --output junit=report.xml --output json=report.json
  chadthrottle-audit scan --output prometheus=/var/lib/prometheus/node-exporter/chadthrottle.prom
  chadthrottle-audit scan --from snapshot.json --format sarif";

/// Finds leaked cgroup BPF programs, says why they are leaked, and removes just those.
#[derive(Debug, Parser)]
#[command(name = "chadthrottle-audit", version, after_help = EXIT_STATUS)]
pub struct Cli {
    /// How much to say beside the result.
    #[command(flatten, next_display_order = 900)]
    pub loudness: Loudness,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look for leaks
    #[command(after_help = EXIT_STATUS, after_long_help = EXAMPLES)]
    Scan(Scan),
    /// Remove what is leaked, and nothing else
    ///
    /// What nothing says the owner of (unowned) is no leak, and stays, but for what --force names.
    ///
    /// Each leak is judged once more right before it is removed, and each removal is verified. Then the
    /// host is scanned again: the exit status is that of the second scan.
    #[command(after_help = CLEAN_EXIT_STATUS)]
    Clean(Clean),
    /// Write down the facts, for `scan --from` to judge elsewhere, later, without root
    #[command(after_help = SNAPSHOT_EXIT_STATUS)]
    Snapshot(Snapshot),
    /// Say what is new in a snapshot, and what is gone: attachments, links, pins, programs and maps
    ///
    /// Both have to be taken with `snapshot --all`, and during one boot.
    #[command(after_help = DIFF_EXIT_STATUS)]
    Diff(Diff),
    /// Run a command, and say what of BPF it left behind: attachments, links, pins, programs and maps
    ///
    /// The command's input and output are left alone; the report goes to standard error after it has ended. Signals
    /// that are sent to the gate are passed on.
    #[command(after_help = GATE_EXIT_STATUS)]
    Gate(Gate),
    /// What `gate` starts to become the command
    #[command(name = crate::child::BECOME, hide = true)]
    Become {
        /// The descriptor that takes why the command could not be run.
        #[arg(long)]
        why_not: RawFd,
        /// The command and its arguments.
        #[arg(last = true)]
        argv: Vec<OsString>,
    },
    /// Say what a finding means, and what to do about it; without one, list them
    #[command(after_help = OTHER_EXIT_STATUS)]
    Explain(Explain),
    /// Write man pages, completions or JSON Schemas of this program
    #[command(subcommand, after_help = OTHER_EXIT_STATUS)]
    Generate(Generate),
}

/// What to look at.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Only this cgroup and what is below it: its directory, or its path below the cgroup2 mount
    #[arg(long, value_name = "CGROUP", default_value = "/", value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    /// Programs to look for, by name; may be given several times. `''` are those without a name. The kernel keeps
    /// only the first 15 characters of a name. What nothing says whose it is is listed as unowned, and is no leak
    #[arg(long = "program", value_name = "GLOB", default_value = DEFAULT_PROGRAMS, value_parser = glob)]
    pub programs: Vec<String>,
    /// Only this attach type, such as `cgroup_inet_ingress`; may be given several times [default: every one that
    /// the kernel knows]
    #[arg(long = "attach-type", value_name = "TYPE", value_parser = ByName::<AttachType>::new())]
    pub attach_types: Vec<AttachType>,
    /// How to go over the cgroups
    #[arg(long, value_parser = method(), default_value_t = Method::Auto)]
    pub method: Method,
    /// How long to wait before looking at suspects a second time: a throttle that is just being set up or
    /// taken down is no leak
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = settle, allow_hyphen_values = true)]
    pub settle: humantime::Duration,
}

impl ScopeArgs {
    /// Returns the same scope for the collector.
    pub fn options(&self, breadth: Breadth) -> Options {
        Options {
            root: self.root.clone(),
            programs: self.programs.clone(),
            attach_types: self.attach_types.clone(),
            breadth,
            method: self.method,
            settle: self.settle.into(),
        }
    }
}

/// The arguments of `scan`.
#[derive(Debug, Args)]
pub struct Scan {
    /// What to look at.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// List other people's programs, too, not only count them
    #[arg(long)]
    pub all: bool,
    /// How to print the report.
    #[command(flatten)]
    pub report: ReportArgs,
    /// Leaks that are in this snapshot already are known, and do not count; `chadthrottle-audit snapshot` writes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub baseline: Option<PathBuf>,
    /// Judge a snapshot that `chadthrottle-audit snapshot` wrote, instead of this host; needs no root
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["root", "programs", "attach_types", "method", "settle"]
    )]
    pub from: Option<PathBuf>,
}

/// The arguments of `clean`.
#[derive(Debug, Args)]
pub struct Clean {
    /// What to look at.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For people or for programs: `json` is one object, printed in the end
    #[arg(long, value_enum, default_value_t = CleanFormat::Text)]
    pub format: CleanFormat,
    /// Do it without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Also remove the program with this id, which `scan` with the same options lists as unowned; may be given several
    /// times. Each is asked for by itself, and with --yes named. What a process holds, what is pinned elsewhere than
    /// in our folder, and the last program of a place on a cgroup with processes stay all the same
    #[arg(
        long,
        value_name = "ID",
        requires = "programs",
        value_parser = program_id,
        allow_hyphen_values = true
    )]
    pub force: Vec<u32>,
}

/// How `clean` prints what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CleanFormat {
    /// A line for each step, and the report
    Text,
    /// One object
    Json,
}

/// The arguments of `snapshot`.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// What to look at.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Write down other people's, too: every program, link and map of any type, with their pins and holders; what
    /// `diff` compares
    #[arg(long)]
    pub all: bool,
    /// Write it to this file, in one go, instead of standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// The globs of `diff` and `gate`: a command may leave programs with any name.
const EVERYTHING: &str = "*";

/// The formats that `diff` and `gate` do not have.
const NOT_FOR_COMPARISONS: &[Format] = &[Format::Prometheus];

/// The arguments of `diff`.
#[derive(Debug, Args)]
#[command(mut_arg("format", |it| it.value_parser(formats_but(NOT_FOR_COMPARISONS))))]
#[command(mut_arg("outputs", |it| it.value_parser(outputs_but(NOT_FOR_COMPARISONS))))]
pub struct Diff {
    /// The snapshot that was taken first
    #[arg(value_name = "BEFORE", value_hint = ValueHint::FilePath)]
    pub before: PathBuf,
    /// The one that was taken later
    #[arg(value_name = "AFTER", value_hint = ValueHint::FilePath)]
    pub after: PathBuf,
    /// Programs to compare, by name, with what is theirs; may be given several times, and `*` is everything. A map
    /// belongs to a program that uses it, and is compared by its own name as well
    #[arg(long = "program", value_name = "GLOB", default_value = EVERYTHING, value_parser = glob)]
    pub programs: Vec<String>,
    /// How to print the result.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// The arguments of `gate`.
#[derive(Debug, Args)]
#[command(mut_arg("format", |it| it.value_parser(formats_but(NOT_FOR_COMPARISONS))))]
#[command(mut_arg("outputs", |it| it.value_parser(outputs_but(NOT_FOR_COMPARISONS))))]
pub struct Gate {
    /// How long to wait at most for what goes away by itself; as soon as nothing is left it is over
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = settle, allow_hyphen_values = true)]
    pub settle: humantime::Duration,
    /// Programs to look for, by name, with what is theirs; may be given several times, and `*` is everything. A map
    /// belongs to a program that uses it, and is looked for by its own name as well
    #[arg(long = "program", value_name = "GLOB", default_value = EVERYTHING, value_parser = glob)]
    pub programs: Vec<String>,
    /// How to print the report.
    #[command(flatten)]
    pub report: ReportArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandName)]
    pub command: Vec<OsString>,
}

/// The arguments of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Which
    #[arg(value_parser = ByName::<Finding>::new())]
    pub finding: Option<Finding>,
}

/// What to generate.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Write the man pages, one for each command, to a directory, which is made if it is not there
    Man {
        /// The directory
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the JSON Schema of what is written for programs
    Schema {
        /// Of what
        document: Document,
    },
}

fn method() -> impl TypedValueParser<Value = Method> {
    let about = |method| match method {
        Method::Auto => {
            "`query`, or `iter` where there are so many cgroups that it is quicker, and the kernel has it"
        }
        Method::Query => "Open each cgroup and ask it for each attach type: works everywhere",
        Method::Iter => {
            "Have the kernel run a program on each cgroup, which reads the same lists (Linux 6.1 and newer)"
        }
    };
    let offered = Method::ALL.map(|it| PossibleValue::new(it.name()).help(about(it)));
    PossibleValuesParser::new(offered).map(|name| {
        let method = Method::ALL.into_iter().find(|it| it.name() == name);
        method.expect("only the methods' names are taken")
    })
}

fn glob(glob: &str) -> Result<String, String> {
    globset::Glob::new(glob).map_err(|error| error.kind().to_string())?;
    match cannot_match(glob) {
        Some(why) => Err(why),
        None => Ok(glob.to_owned()),
    }
}

/// The longest time to settle. Nobody wants to wait longer, and adding it to the time of day must not overflow.
const LONGEST_SETTLE: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time to settle. In less time nothing settles, so a program that is just going would look like a leak.
const SHORTEST_SETTLE: Duration = Duration::from_millis(1);

fn program_id(text: &str) -> Result<u32, String> {
    let id = text.parse().ok().filter(|&id| id > 0);
    id.ok_or_else(|| {
        "this is no program id; give a whole number from 1 on, as scan shows it".to_owned()
    })
}

fn settle(time: &str) -> Result<humantime::Duration, String> {
    if bpf::limits::has_sign(time) {
        return Err(
            "a time has no sign; write a number with a unit, such as 500ms or 2s".to_owned()
        );
    }
    let time: humantime::Duration = time.parse().map_err(|error: humantime::DurationError| {
        format!("{error}; write a number with a unit, such as 500ms or 2s")
    })?;
    if *time > LONGEST_SETTLE {
        return Err("more than a day".to_owned());
    }
    if *time < SHORTEST_SETTLE {
        return Err("too short for anything to go away by itself; give at least 1ms".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// Returns the scope that a command line asks for, whichever the command.
    fn scope(words: &[&str]) -> ScopeArgs {
        match Cli::parse_from([&["chadthrottle-audit"], words].concat()).command {
            Command::Scan(it) => it.scope,
            Command::Clean(it) => it.scope,
            Command::Snapshot(it) => it.scope,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_of_the_scope_is_asked_for_in_every_command_that_has_it() {
        for command in ["scan", "clean", "snapshot"] {
            let of = |options: &[&str]| scope(&[&[command], options].concat());
            let types = ["--attach-type", "cgroup_inet_egress", "--attach-type", "cgroup_sock_ops"];
            let globs = ["--program", "a*", "--program", "b"];
            let rest = ["--root", "/a", "--method", "iter", "--settle", "3s"];
            let options = of(&[&types[..], &globs, &rest].concat()).options(Breadth::Everybody);
            assert_eq!(options.attach_types, [AttachType::INET_EGRESS, AttachType::SOCK_OPS]);
            assert_eq!(options.programs, ["a*", "b"], "{command}");
            assert_eq!(options.root, PathBuf::from("/a"));
            assert_eq!((options.method, options.breadth), (Method::Iter, Breadth::Everybody));
            assert_eq!(options.settle, Duration::from_secs(3));
        }
    }

    #[test]
    fn without_options_everything_is_asked_for() {
        let Command::Scan(scan) = Cli::parse_from(["chadthrottle-audit", "scan"]).command else {
            panic!("not a scan");
        };
        let options = scan.scope.options(Breadth::Ours);
        assert_eq!(options.root, PathBuf::from("/"));
        assert_eq!(options.programs, [DEFAULT_PROGRAMS]);
        assert_eq!(options.attach_types, []);
        assert_eq!(options.settle, auditor::collect::DEFAULT_SETTLE);
    }
}
