//! Ways to look at a tree of cgroups.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use auditor::collect::{Method, Options, collect};
use auditor::facts::Timings;
use auditor::judge::{Verdict, classify};
use chadthrottle_audit::Cli;
use clap::Parser;
use kernel::AttachType;
use serde::Deserialize;

use crate::forest::OURS;

/// A process that finds this among its variables is the auditor; see [`be_the_auditor_if_asked`].
const ROLE: &str = "CHADTHROTTLE_BENCH_AUDIT";

/// The attach types of a throttle.
pub const TWO_TYPES: [AttachType; 2] = [AttachType::INET_INGRESS, AttachType::INET_EGRESS];

/// To be called first thing in `main`: runs the auditor's command line, if this process was started by
/// [`as_process`], and then returns its exit status.
///
/// A bench cannot count on another crate's binary having been built; this one contains all of it.
pub fn be_the_auditor_if_asked() -> Option<ExitCode> {
    env::var_os(ROLE)?;
    let status = chadthrottle_audit::run(&Cli::parse());
    // For whoever measures: the most memory that was in use.
    eprintln!("{}", peak_kilobytes().unwrap_or_default());
    Some(status.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Audits in this process. No attach type means all.
///
/// # Errors
/// When it cannot, or does not see everything.
pub fn in_process(root: &Path, types: &[AttachType], method: Method) -> anyhow::Result<()> {
    let options = Options {
        root: root.to_owned(),
        attach_types: types.to_vec(),
        method,
        programs: vec![OURS.to_owned()],
        ..Options::default()
    };
    let snapshot = collect(&options)?;
    let verdict = classify(&snapshot).verdict;
    ensure!(verdict != Verdict::Incomplete, "the audit is {verdict}");
    Ok(())
}

/// What a scan tells of itself.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// The most memory that it used, in kB.
    pub peak_kilobytes: u64,
    /// Where its time went.
    pub timings: Timings,
}

/// `chadthrottle-audit scan` as a process of its own.
///
/// # Errors
/// When it fails, or does not see everything.
pub fn as_process(root: &Path, types: &[AttachType], method: Method) -> anyhow::Result<Told> {
    #[derive(Deserialize)]
    struct Report {
        method: String,
        timings_ms: Timings,
    }
    let mut args: Vec<OsString> =
        vec!["scan".into(), "--program".into(), OURS.into(), "--root".into(), root.into()];
    args.extend(["--method".into(), method.to_string().into()]);
    args.extend(["--format".into(), "json".into()]);
    for attach_type in types {
        args.extend(["--attach-type".into(), attach_type.name().into()]);
    }
    let output = Command::new(env::current_exe()?)
        .args(args)
        .env(ROLE, "1")
        .output()
        .context("cannot start the auditor")?;
    let talk = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "the auditor failed: {talk}{said}");
    let peak_kilobytes = talk.trim().parse().with_context(|| talk.clone().into_owned())?;
    let report: Report = serde_json::from_slice(&output.stdout)?;
    ensure!(
        method == Method::Auto || report.method == method.to_string(),
        "it used {}",
        report.method
    );
    Ok(Told { peak_kilobytes, timings: report.timings_ms })
}

/// `bpftool cgroup tree`.
///
/// # Errors
/// When it is not installed or fails.
pub fn bpftool(root: &Path) -> anyhow::Result<()> {
    let status = Command::new("bpftool")
        .args(["cgroup", "tree"])
        .arg(root)
        .stdout(Stdio::null())
        .status()
        .context("cannot start bpftool: is it installed?")?;
    ensure!(status.success(), "bpftool failed: {status}");
    Ok(())
}

/// `VmHWM` of this process.
fn peak_kilobytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
