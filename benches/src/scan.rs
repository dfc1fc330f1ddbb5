//! Provides ways to scan a tree of cgroups.

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

/// The variable that makes a process the auditor; see [`be_the_auditor_if_asked`].
const ROLE: &str = "CHADTHROTTLE_BENCH_AUDIT";

/// The attach types of a throttle.
pub const TWO_TYPES: [AttachType; 2] = [AttachType::INET_INGRESS, AttachType::INET_EGRESS];

/// Runs the auditor's command line if [`as_process`] started this process, and returns the auditor's exit status. Call
/// it first in `main`.
///
/// A bench cannot rely on another crate's binary, so it contains the whole auditor.
pub fn be_the_auditor_if_asked() -> Option<ExitCode> {
    env::var_os(ROLE)?;
    let status = chadthrottle_audit::run(&Cli::parse());
    // The parent reads the peak memory from here.
    eprintln!("{}", peak_kilobytes().unwrap_or_default());
    Some(status.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Audits in this process. No attach type means all.
///
/// # Errors
/// Fails if the audit fails or does not see everything.
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

/// What a scan reports about itself.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// The most memory that the scan used, in kB.
    pub peak_kilobytes: u64,
    /// The time of each part of the scan.
    pub timings: Timings,
}

/// Runs `chadthrottle-audit scan` as a process of its own.
///
/// # Errors
/// Fails if the scan fails or does not see everything.
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

/// Runs `bpftool cgroup tree`.
///
/// # Errors
/// Fails if bpftool is not installed or fails.
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

/// Returns `VmHWM` of this process, in kB.
fn peak_kilobytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
