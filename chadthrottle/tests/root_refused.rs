//! What is said where `bpf(2)` is refused: by a policy (EPERM), in a sandbox without it (ENOSYS), for want of a right.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chadthrottle");

/// Runs the program; each of its calls of `bpf(2)` is answered with an errno.
fn refused(errno: &str, args: &[&str]) -> Output {
    let mut strace = Command::new("strace");
    strace.args(["-qqq", "-f", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=bpf"]);
    strace.args(["-e", &format!("inject=bpf:error={errno}")]);
    strace.arg(PROGRAM).args(args);
    strace.output().expect("strace has to be here: run scripts/setup test")
}

const MAP_CREATE: u64 = 0;
const PROG_LOAD: u64 = 5;
const BTF_LOAD: u64 = 18;
const SYS_BPF: i64 = if cfg!(target_arch = "x86_64") { 321 } else { 280 };
const EPERM: u32 = 1;
const ENOMEM: u32 = 12;
const ENOSYS: u32 = 38;

/// Runs the program; one command of `bpf(2)` is answered with an errno. The filter stays with the thread, so the
/// thread ends with the run.
fn refused_command(command: u64, errno: u32, args: &[&str]) -> Output {
    let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command);
    let rule = SeccompRule::new(vec![is_it.unwrap()]).unwrap();
    let filter = SeccompFilter::new(
        BTreeMap::from([(SYS_BPF, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter = BpfProgram::try_from(filter.unwrap()).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            apply_filter(&filter).unwrap();
            Command::new(PROGRAM).args(args).output().unwrap()
        });
        run.join().unwrap()
    })
}

/// Runs the program as root without any capability.
fn bare(args: &[&str]) -> Output {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set=-all", "--inh-caps=-all", PROGRAM]).args(args).output().unwrap()
}

fn talk(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn limit(cgroup: &ScratchCgroup) -> [&str; 7] {
    let on = cgroup.path().to_str().unwrap();
    ["limit", "--cgroup", on, "--upload", "1M", "--duration", "1ms"]
}

#[test]
fn root_a_limit_that_a_policy_forbids_blames_no_other_program_and_does_not_tell_root_to_be_root() {
    isolate();
    let cgroup = ScratchCgroup::new("policy");
    let output = refused("EPERM", &limit(&cgroup));
    let said = talk(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: cannot find out what this kernel can do: "), "{said}");
    assert!(said.contains("a security policy") && said.ends_with(": EPERM)\n"), "{said}");
    assert!(!said.contains("join") && !said.contains("run as root"), "{said}");
    let said = talk(&refused("ENOSYS", &limit(&cgroup)));
    assert!(said.contains("this kernel or sandbox has no bpf() (gVisor, seccomp)"), "{said}");
    let output = bare(&limit(&cgroup));
    let said = talk(&output);
    assert_eq!(
        (output.status.code(), said.matches("CAP_NET_ADMIN").count()),
        (Some(1), 1),
        "{said}"
    );
}

#[test]
fn root_the_doctor_knows_nothing_where_a_policy_keeps_it_from_asking() {
    isolate();
    let output = refused("EPERM", &["doctor"]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}{}", talk(&output));
    let line = said.lines().find(|line| line.contains("packet programs  ")).unwrap();
    assert!(line.starts_with('?') && line.contains("a security policy"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("NO")), "{said}");
}

#[test]
fn root_the_command_of_bpf_is_named_that_a_policy_refuses_and_the_doctor_does_not_know() {
    isolate();
    let cgroup = ScratchCgroup::new("command");
    for (command, errno, named, why) in [
        (BTF_LOAD, EPERM, "(BPF_BTF_LOAD: EPERM)", "the seccomp filter of this process"),
        (BTF_LOAD, ENOSYS, "(BPF_BTF_LOAD: ENOSYS)", "refuses this call of bpf() alone"),
        (MAP_CREATE, EPERM, "(BPF_MAP_CREATE: EPERM)", "the seccomp filter of this process"),
        (MAP_CREATE, ENOMEM, "(BPF_MAP_CREATE: ENOMEM)", "Out of memory"),
        (PROG_LOAD, EPERM, "(BPF_PROG_LOAD: EPERM)", "the seccomp filter of this process"),
        (PROG_LOAD, ENOSYS, "(BPF_PROG_LOAD: ENOSYS)", "refuses this call of bpf() alone"),
    ] {
        let output = refused_command(command, errno, &limit(&cgroup));
        let said = talk(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named) && said.contains(why), "{said}");
        assert!(!said.contains("CONFIG_"), "{said}");

        let output = refused_command(command, errno, &["doctor"]);
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}{}", talk(&output));
        let line = said.lines().find(|line| line.contains("packet programs  ")).unwrap();
        assert!(line.starts_with('?') && said.contains(named), "{said}");
        assert!(!said.lines().any(|line| line.starts_with("NO")), "{said}");
    }
}

#[test]
fn root_a_list_that_cannot_look_does_not_say_that_there_is_nothing() {
    isolate();
    let list: &[&str] = &["list"];
    for (output, reason) in [
        (refused("EPERM", list), "a security policy"),
        (refused("ENOSYS", list), "has no bpf()"),
        (bare(list), "CAP_SYS_ADMIN"),
    ] {
        let said = talk(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.matches(reason).count(), 1, "{said}");
        // Others' throttles that wait are in the ledger, and are seen.
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let unknown = if listed.is_empty() {
            "error: whether there are throttles could not be seen\n"
        } else {
            "error: not everything could be seen, so there may be more throttles\n"
        };
        assert!(said.ends_with(unknown), "{said}\n{listed}");
    }
}

#[test]
fn root_v_tells_how_a_limit_is_held() {
    isolate();
    let cgroup = ScratchCgroup::new("loud");
    let output = Command::new(PROGRAM).arg("-v").args(limit(&cgroup)).output().unwrap();
    let told = talk(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let lines = ["debug: the cgroup was found", "(mode=link, ", "debug: the programs are off"];
    assert!(lines.iter().all(|it| told.contains(it)), "{told}");
}
