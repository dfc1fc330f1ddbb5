//! What the root tests share. They look at programs of their own only, so that others may work on the host
//! meanwhile: leaks have a name of ours that is this process's alone, the others are named `chadtest_...`.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use bpf::cgroup::Cgroup;
use bpf::list::{AttachFlags, Scope, attach, query};
use bpf::program::Program;
use bpf::release::running;
use bpf::{AttachType, ProgramId};
use serde_json::Value;
use tempfile::TempDir;
use vmtests::leak::{foreign_name, own_name};

pub(crate) const INGRESS: AttachType = AttachType::INET_INGRESS;
pub(crate) const EGRESS: AttachType = AttachType::INET_EGRESS;

/// Names of this test only: the kernel keeps 15 characters.
pub(crate) struct Names {
    /// Ours.
    pub(crate) leak: String,
    /// Somebody else's.
    pub(crate) foreign: String,
}

impl Names {
    /// Unique to this process, which nextest runs one test in.
    pub(crate) fn new() -> Self {
        Self { leak: own_name(), foreign: foreign_name() }
    }
}

pub(crate) fn audit(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("chadthrottle-audit").unwrap();
    command.args(args);
    command
}

/// The report of a scan, and its exit status.
pub(crate) fn scan(root: &Path, program: &str, more: &[&str]) -> (i32, Value) {
    let mut command = audit(&["scan", "--format", "json", "--all", "--program", program]);
    let output = command.arg("--root").arg(root).args(more).output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
    (output.status.code().unwrap(), report)
}

pub(crate) fn clean(root: &Path, program: &str) -> Output {
    let mut command = audit(&["clean", "--yes", "--program", program]);
    command.arg("--root").arg(root).output().unwrap()
}

pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The findings of a report's attachments that are not foreign, sorted.
pub(crate) fn findings(report: &Value) -> Vec<String> {
    let mut findings: Vec<String> = ["attachments", "programs"]
        .iter()
        .flat_map(|list| report[list].as_array().unwrap())
        .map(|it| it["finding"].as_str().unwrap().to_owned())
        .filter(|finding| finding != "foreign")
        .collect();
    findings.sort();
    findings
}

/// Attaches a new program, which the process does not keep open.
pub(crate) fn plant(
    cgroup: &Path,
    name: &str,
    attach_type: AttachType,
    flags: AttachFlags,
) -> ProgramId {
    vmtests::leak::plant_named(name, cgroup, attach_type, flags).unwrap()
}

/// Attaches a program that stays open in this process.
pub(crate) fn hold(cgroup: &Path, name: &str, attach_type: AttachType) -> Program {
    let program = Program::load_pass(name, attach_type).unwrap();
    let cgroup = Cgroup::open(cgroup).unwrap();
    attach(program.as_fd(), &cgroup, attach_type, AttachFlags::MULTI, None).unwrap();
    program
}

/// The programs on a cgroup, in order.
pub(crate) fn attached(cgroup: &Path, attach_type: AttachType) -> Vec<ProgramId> {
    let list = query(&Cgroup::open(cgroup).unwrap(), attach_type, Scope::Local, false).unwrap();
    list.programs.into_iter().map(|program| program.id).collect()
}

/// Linux has it since 6.1. Where it is missing an audit that is to use it has to say so.
pub(crate) fn has_iterator() -> bool {
    running() >= Some((6, 1))
}

/// Compiles a program; the folder keeps it.
pub(crate) fn compiled(folder: &TempDir, source: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let program = folder.path().join(source.file_stem().unwrap());
    let cc =
        std::process::Command::new("cc").arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(cc.status.success(), "{}", shown(&cc));
    program.into_os_string().into_string().unwrap()
}
