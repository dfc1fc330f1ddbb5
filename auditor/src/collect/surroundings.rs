//! Finds the host's files if the audit runs in another mount namespace or in a chroot.
//!
//! There the ledger and pins may be out of sight, so what they keep on purpose would look like a leak. The auditor can
//! read the host's ledger through a process in the host's own mount namespace. Hidden pins are a gap, which counts only
//! if a finding would depend on them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bpf::ledger::{DEFAULT_DIR, Ledger, read};
use kernel::pins::Pins;

use super::attachments::shown;
use crate::facts::{Gap, Subject};

/// The host's first processes: `init`, and `kthreadd`. A policy that hides the first one may show the second.
const AT_HOME: [u32; 2] = [1, 2];

/// Returns the root directory of the host if this process has another one. Returns `None` if both are the same, or if
/// that is unknown.
pub(super) fn host_elsewhere() -> Option<PathBuf> {
    if kernel::process::pid_namespace().ok()? != kernel::process::INITIAL_PID_NAMESPACE {
        // Pids 1 and 2 here are not the host's processes. A gap already covers everything that depends on them.
        return None;
    }
    first_told(AT_HOME.into_iter().map(|pid| differs(&format!("/proc/{pid}"))))
}

/// Returns the answer of the first process that can be inspected. The next process may have another root: `kthreadd`
/// does on a host that booted from an initramfs.
fn first_told(mut answers: impl Iterator<Item = io::Result<Option<PathBuf>>>) -> Option<PathBuf> {
    answers.find_map(Result::ok)?
}

/// Returns the root of that process if its mount namespace or its root differs from ours.
fn differs(process: &str) -> io::Result<Option<PathBuf>> {
    let namespace = |process: &str| fs::read_link(format!("{process}/ns/mnt"));
    let root =
        |process: &str| fs::metadata(format!("{process}/root/")).map(|it| (it.dev(), it.ino()));
    let is_same = namespace(process)? == namespace("/proc/thread-self")?
        && root(process)? == root("/proc/thread-self")?;
    Ok((!is_same).then(|| PathBuf::from(format!("{process}/root"))))
}

/// Returns the ledger, extended by the host's ledger if that is another one.
pub(super) fn ledger(host: Option<&Path>, gaps: &mut Vec<Gap>) -> Ledger {
    let here = Path::new(DEFAULT_DIR);
    both(here, host.map(|host| host.join(here.strip_prefix("/").unwrap_or(here))), gaps)
}

/// Reads the ledger `here` and the host's.
fn both(here: &Path, there: Option<PathBuf>, gaps: &mut Vec<Gap>) -> Ledger {
    let mut ledger = read(here).unwrap_or_else(|error| {
        let what = format!("the ledger {}", shown(here));
        gaps.push(Gap { about: Subject::Ledger, what, why: error.to_string() });
        Ledger::default()
    });
    let Some(there) = there else { return ledger };
    let id = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    if id(&there).is_some() && id(&there) == id(here) {
        return ledger;
    }
    match read(&there) {
        Ok(Ledger { entries, unreadable }) => {
            ledger.entries.extend(entries);
            ledger.unreadable.extend(unreadable);
        }
        Err(error) => gaps.push(Gap {
            about: Subject::HiddenLedger,
            what: format!("the ledger of the host, {}", shown(&there)),
            why: format!("{error}; the audit runs in another mount namespace or in a chroot: run it on the host"),
        }),
    }
    ledger
}

/// Returns a gap if there may be pins that were not seen.
pub(super) fn hidden_pins(host: Option<&Path>, found: &Pins) -> Option<Gap> {
    let covered = found.covered.first().map(|point| {
        format!("something else is mounted on top of the bpffs on {}: unmount that", shown(point))
    });
    let elsewhere = || {
        let why = "the audit runs in another mount namespace than the host's, or in a chroot";
        host.map(|_| format!("{why}: run it on the host"))
    };
    let none = || {
        let why =
            "no bpffs is mounted here: if there is none anywhere else either, nothing is pinned";
        (found.walked == 0).then(|| why.to_owned())
    };
    Some(Gap {
        about: Subject::HiddenPins,
        what: "pins in a bpffs that cannot be seen from here".to_owned(),
        why: covered.or_else(elsewhere).or_else(none)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bpffs_is_missed_where_it_is_covered_elsewhere_or_not_there_at_all() {
        let pins = |walked, covered: &[&str]| Pins {
            walked,
            covered: covered.iter().map(PathBuf::from).collect(),
            ..Pins::default()
        };
        let why = |host, pins| hidden_pins(host, &pins).map(|gap| gap.why);
        assert_eq!(why(None, pins(1, &[])), None);
        assert!(
            why(None, pins(1, &["/sys/fs/bpf\x1b"])).unwrap().contains(r"/sys/fs/bpf\x1b: unmount")
        );
        assert!(
            why(Some(Path::new("/proc/1/root")), pins(1, &[])).unwrap().contains("on the host")
        );
        assert!(why(None, pins(0, &[])).unwrap().contains("no bpffs is mounted"));
    }

    #[test]
    fn the_first_process_that_can_be_looked_at_tells_where_home_is() {
        let told = |answers: [Option<Option<&str>>; 2]| {
            let answers = answers.into_iter().map(|it| {
                let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
                it.map(|root| root.map(PathBuf::from)).ok_or_else(denied)
            });
            first_told(answers)
        };
        let (one, two) = (Some(Some("/1")), Some(Some("/2")));
        assert_eq!(told([one, two]), Some("/1".into()));
        assert_eq!(told([None, two]), Some("/2".into()));
        // The first process has our root, whatever the second one says.
        assert_eq!(told([Some(None), two]), None);
        assert_eq!(told([None, None]), None);
    }

    #[test]
    fn a_process_is_at_home_where_it_is_itself() {
        assert_eq!(differs("/proc/self").unwrap(), None);
        assert!(differs("/proc/no such process").is_err());
    }

    /// The contents of a folder of records.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Stock {
        /// No folder.
        Nothing,
        /// One complete record.
        Whole,
        /// One torn record.
        Torn,
        /// One complete record and one torn record.
        Both,
        /// A file instead of a folder.
        Unlisted,
    }

    impl Stock {
        fn lay(self, folder: &Path) {
            let entry = r#"{"schema_version": 1, "throttle": "t", "owner": {"pid": 1, "start_time": 1,
                "pid_namespace": 1, "boot_id": "x", "version": "1"}, "stage": "attached", "persist": true,
                "cgroup_path": "/x", "cgroup_id": 1, "attachments": []}"#;
            if self == Self::Unlisted {
                return fs::write(folder, "").unwrap();
            }
            if self != Self::Nothing {
                fs::create_dir(folder).unwrap();
            }
            if matches!(self, Self::Whole | Self::Both) {
                fs::write(folder.join("1.json"), entry).unwrap();
            }
            if matches!(self, Self::Torn | Self::Both) {
                fs::write(folder.join("2.json"), &entry[..entry.len() / 2]).unwrap();
            }
        }

        /// Returns the number of complete records and of torn ones.
        fn count(self) -> (usize, usize) {
            match self {
                Self::Nothing | Self::Unlisted => (0, 0),
                Self::Whole => (1, 0),
                Self::Torn => (0, 1),
                Self::Both => (1, 1),
            }
        }
    }

    #[test]
    fn the_ledger_of_the_host_is_read_beside_the_own_one() {
        use Stock::{Both, Nothing, Torn, Unlisted, Whole};
        for own in [Nothing, Whole, Torn, Both, Unlisted] {
            for hosts in [Nothing, Whole, Torn, Both, Unlisted].map(Some).into_iter().chain([None])
            {
                let folder = tempfile::tempdir().unwrap();
                let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
                own.lay(&here);
                if let Some(hosts) = hosts {
                    hosts.lay(&there);
                }
                let mut gaps = Vec::new();
                let told = both(&here, hosts.map(|_| there), &mut gaps);
                let (whole, torn) = own.count();
                let (more, more_torn) = hosts.map_or((0, 0), Stock::count);
                let what = format!("{own:?} and {hosts:?}");
                assert_eq!(told.entries.len(), whole + more, "{what}: {told:?}");
                assert_eq!(told.unreadable.len(), torn + more_torn, "{what}: {told:?}");
                let unlisted = [
                    (own == Unlisted).then_some(Subject::Ledger),
                    (hosts == Some(Unlisted)).then_some(Subject::HiddenLedger),
                ];
                let expected: Vec<_> = unlisted.into_iter().flatten().collect();
                let gaps: Vec<_> = gaps.iter().map(|gap| gap.about).collect();
                assert_eq!(gaps, expected, "{what}");
            }
        }
    }

    #[test]
    fn a_ledger_that_is_the_hosts_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("here");
        Stock::Both.lay(&here);
        std::os::unix::fs::symlink(&here, folder.path().join("there")).unwrap();
        let told = both(&here, Some(folder.path().join("there")), &mut Vec::new());
        assert_eq!((told.entries.len(), told.unreadable.len()), (1, 1));
    }

    #[test]
    fn the_ledger_of_the_host_is_where_it_is_here_below_the_hosts_root() {
        let host = tempfile::tempdir().unwrap();
        let folder = host.path().join(DEFAULT_DIR.strip_prefix('/').unwrap());
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        Stock::Torn.lay(&folder);
        let unreadable = ledger(Some(host.path()), &mut Vec::new()).unreadable;
        assert!(unreadable.iter().any(|(path, _)| path.starts_with(&folder)), "{unreadable:?}");
    }
}
