//! Finds the first system call of a run that matters. The calls before it load libraries, probe the kernel and load
//! programs. They are many, differ between kernels and versions of libbpf, and leave nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::Pid;
use testkit::cgroup::ScratchCgroup;

/// The number of calls of each kind to skip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Skip {
    pub(super) bpf: u16,
    pub(super) open: u16,
}

/// The calls to skip in a run that settles, and in a run that adds a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skips {
    pub(super) settling: Skip,
    pub(super) adding: Skip,
}

impl Skips {
    /// Measures two runs of the program without anything to settle. It does so once per process.
    pub(super) fn of(program: &Path) -> Result<Self, String> {
        static MEASURED: OnceLock<Result<Skips, String>> = OnceLock::new();
        MEASURED.get_or_init(|| Self::measure(program)).clone()
    }

    fn measure(program: &Path) -> Result<Self, String> {
        let limit = |cgroup: &Path, how: &str| {
            let cgroup = cgroup.display().to_string();
            let words = ["limit", "--cgroup", &cgroup, "--upload", "1M", "--attach", how];
            calls(program, &words)
        };
        let settling = limit(Path::new(super::system::NOWHERE), "link")?;
        let scratch = ScratchCgroup::new("calls");
        // The program ends once a pinned throttle is armed.
        let adding = limit(scratch.path(), "pinned")?;
        let removed = Command::new(program).args(["rm", "1"]).output();
        match removed {
            Ok(output) if output.status.success() => {}
            other => return Err(format!("the throttle that was only looked at stays: {other:?}")),
        }
        Self::from_calls(&settling, &adding)
    }

    fn from_calls(settling: &str, adding: &str) -> Result<Self, String> {
        let adding: Vec<_> = adding.lines().collect();
        // The iterators over sockets are loaded later, after everything is attached.
        let loads = |line: &&str| {
            line.starts_with("bpf(BPF_PROG_LOAD")
                && ["CGROUP_SKB", "SOCK_OPS"].iter().any(|kind| line.contains(kind))
        };
        let last = adding.iter().rposition(loads);
        let last = last.ok_or("strace shows no BPF_PROG_LOAD of the program")?;
        let skips = Self {
            settling: Skip::over(settling.lines()),
            adding: Skip::over(adding[..last].iter().copied()),
        };
        // If there were nothing to skip, strace would have seen nothing.
        if skips.settling.bpf == 0 || skips.settling.open == 0 {
            return Err(format!("strace shows too little: {skips:?}"));
        }
        Ok(skips)
    }
}

impl Skip {
    fn over<'a>(calls: impl Iterator<Item = &'a str>) -> Self {
        let mut skip = Self::default();
        for call in calls {
            match call.split_once('(') {
                Some(("bpf", _)) => skip.bpf += 1,
                Some(("openat", _)) => skip.open += 1,
                _ => {}
            }
        }
        skip
    }
}

/// Returns the calls of a run, as strace writes them.
fn calls(program: &Path, words: &[&str]) -> Result<String, String> {
    let report = Path::new("/run").join(format!("strace-calls-{}", Pid::this()));
    let output = Command::new("strace")
        .arg("-o")
        .arg(&report)
        .args(["-e", "trace=bpf,openat", "-e", "signal=none"])
        .arg(program)
        .args(words)
        .output()
        .map_err(|error| format!("strace: {error}; install the package strace"))?;
    let calls = fs::read_to_string(&report);
    // A missing report needs no removal.
    let _ = fs::remove_file(&report);
    calls.map_err(|error| format!("strace: {error}: {output:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_last_load_is_skipped() {
        let settling =
            "openat(AT_FDCWD, \"/etc/ld.so.cache\") = 3\nbpf(BPF_PROG_QUERY, ..) = -1 EBADF\n";
        let adding = format!(
            "{settling}bpf(BPF_PROG_LOAD, {{BPF_PROG_TYPE_CGROUP_SKB}}) = 4\nbpf(BPF_MAP_CREATE, b) = 5\n\
             bpf(BPF_PROG_LOAD, {{BPF_PROG_TYPE_SOCK_OPS}}) = 6\n\
             openat(AT_FDCWD, \"/run/chadthrottle/lock\") = 7\nbpf(BPF_LINK_CREATE, d) = 8\n\
             bpf(BPF_PROG_LOAD, {{BPF_PROG_TYPE_TRACING}}) = 9\n+++ exited +++\n"
        );
        let skips = Skips::from_calls(settling, &adding).unwrap();
        assert_eq!(skips.settling, Skip { bpf: 1, open: 1 });
        assert_eq!(skips.adding, Skip { bpf: 3, open: 1 });
        assert!(Skips::from_calls(settling, settling).is_err(), "nothing was loaded");
        assert!(Skips::from_calls("", &adding).is_err(), "nothing was seen");
    }
}
