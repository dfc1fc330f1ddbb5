//! The errors of the engine.

mod files;

use std::io;
use std::path::PathBuf;

use bpf::advice::explained;

pub use self::files::Action;
use self::files::why_not;
use crate::id::ThrottleId;
use crate::mode::Refusal;
use crate::neighbour::Neighbour;
use crate::spec::Direction;

/// The result of the engine's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kernel call failed.
    #[error("{}", explained(.0))]
    Kernel(kernel::Error),
    /// The host cannot grant the wished mode.
    #[error(transparent)]
    Mode(#[from] Refusal),
    /// Reading or writing the ledger failed.
    #[error("cannot {} {}: {}", action.words(), path.display(), why_not(*action, error))]
    Ledger {
        /// The failed action.
        action: Action,
        /// The file.
        path: PathBuf,
        /// The file system's error.
        error: io::Error,
    },
    /// The spec has neither a download nor an upload rate.
    #[error("nothing to limit: give a download rate, an upload rate, or both")]
    NothingToLimit,
    /// The process is in the root cgroup.
    #[error(
        "process {0} lives in the root cgroup, which is the whole host; put it into a cgroup of its own, \
         or name the root with --cgroup / if the whole host is what you mean"
    )]
    RootCgroup(u32),
    /// There is no such process.
    #[error("there is no process {0}")]
    NoSuchProcess(u32),
    /// The engine has no throttle with this number.
    #[error("there is no throttle {0}")]
    NoSuchThrottle(ThrottleId),
    /// The change names a direction that the throttle does not limit.
    #[error("throttle {0} does not limit {1}: remove it and add one that does")]
    NoSuchDirection(ThrottleId, Direction),
    /// The ledger has no throttle with this name.
    #[error("there is no pinned throttle '{0}'; 'chadthrottle list' shows those that there are")]
    NoSuchRecord(String),
    /// The ledger has no throttle with any of these names.
    #[error(
        "there are no pinned throttles {}; 'chadthrottle list' shows those that there are",
        quoted(.0)
    )]
    NoSuchRecords(Vec<String>),
    /// The entry's path comes from another namespace, where it may name another cgroup.
    #[error(
        "throttle '{0}' was made in another cgroup or pid namespace (a container's?), so its path may be another cgroup's here: arm \
         it there, or end it with 'chadthrottle rm {0}'"
    )]
    Elsewhere(String),
    /// The entry's path leads through another mount here, or the entry does not say through which mount it led.
    #[error(
        "throttle '{name}' was not armed, because {} may be another cgroup here: {}; run this where the throttle was made, \
         or end it with 'chadthrottle rm {name}'",
        path.display(),
        another_top(*recorded, *found)
    )]
    AnotherTop {
        /// The throttle's name.
        name: String,
        /// The recorded path.
        path: PathBuf,
        /// The recorded cgroup at the top of the mount.
        recorded: Option<kernel::CgroupId>,
        /// The cgroup at the top of the mount that now has the path.
        found: Option<kernel::CgroupId>,
    },
    /// The entry has no limits.
    #[error(
        "the record of throttle '{0}' does not say what it allows, because an older version wrote it: end it with \
         'chadthrottle rm {0}'"
    )]
    NoLimits(String),
    /// The throttle's owner is running and holds it.
    #[error(
        "throttle '{name}' is in the hands of process {pid}, which still runs: end that process"
    )]
    OwnerLives {
        /// The throttle's name.
        name: String,
        /// The owner's pid.
        pid: u32,
    },
    /// The throttle's owner may be running and may hold it.
    #[error(
        "throttle '{name}' cannot be removed here: {}; run 'chadthrottle rm {name}' where the throttle was made, or end its \
         owner there",
        unknown_owner(*pid, *elsewhere)
    )]
    OwnerUnknown {
        /// The throttle's name.
        name: String,
        /// The owner's pid.
        pid: u32,
        /// The pid comes from another pid namespace, so it may belong to another process here.
        elsewhere: bool,
    },
    /// The program is still on the cgroup's list after a successful detach.
    #[error(
        "program {program} is still attached to {cgroup} ({attach_type}) after it was detached; \
         somebody attached it again"
    )]
    StillAttached {
        /// The program's id.
        program: kernel::ProgramId,
        /// The cgroup, as far as known.
        cgroup: String,
        /// The attach type.
        attach_type: kernel::AttachType,
    },
    /// The throttle's links exist, but their pins are in a bpffs that is not mounted here.
    #[error(
        "throttle '{name}' was left as it is: program {program} still exists, and its pin is in a bpffs that is not mounted here \
         ({}); run this where it is mounted",
        pin.display()
    )]
    PinOutOfSight {
        /// The throttle's name.
        name: String,
        /// The id of one of the throttle's programs.
        program: kernel::ProgramId,
        /// The program's pin.
        pin: PathBuf,
    },
    /// The recorded program exists, but neither its cgroup nor its pin can be found.
    #[error(
        "program {program} still exists, but its cgroup cannot be found as {} ({}); 'chadthrottle-audit scan' \
         finds it wherever it is",
        cgroup.display(),
        instead(*another)
    )]
    OutOfSight {
        /// The program's id.
        program: kernel::ProgramId,
        /// The recorded path of the cgroup.
        cgroup: PathBuf,
        /// The cgroup that has this path here. The engine leaves it alone.
        another: Option<kernel::CgroupId>,
    },
    /// The process's cgroup was removed.
    #[error("the cgroup of process {0} has been removed: move the process into one that exists")]
    CgroupRemoved(u32),
    /// The process's cgroup cannot be seen from here.
    #[error(
        "the cgroup of process {pid} cannot be seen from here: it lives in {seen}; run this where that is \
         mounted, on the host, say"
    )]
    CgroupOutOfSight {
        /// The process's pid.
        pid: u32,
        /// A description of what was found instead.
        seen: String,
    },
    /// The process is a zombie.
    #[error("process {0} is a zombie: it has ended, and its parent has not waited for it yet")]
    Ended(u32),
    /// Another cgroup has the path now.
    #[error(
        "{} is another cgroup now (id {found}) than the one that was asked for (id {expected}); nothing was \
         limited: try again",
        path.display()
    )]
    AnotherCgroup {
        /// The cgroup's directory.
        path: PathBuf,
        /// The id of the requested cgroup.
        expected: kernel::CgroupId,
        /// The id of the cgroup at the path.
        found: kernel::CgroupId,
    },
    /// The list has 64 programs, the kernel's limit.
    #[error(
        "no limit can be attached to {}: all 64 places are taken ({attach_type}); 'chadthrottle-audit scan --all' shows by \
         whom",
        cgroup.display()
    )]
    Full {
        /// The cgroup.
        cgroup: PathBuf,
        /// The list's attach type.
        attach_type: kernel::AttachType,
    },
    /// A program on the cgroup or an ancestor accepts no other.
    #[error(
        "no limit can be attached to {}: another program takes the place for itself, because it was attached without \
         BPF_F_ALLOW_MULTI: {}; have its owner attach it with that flag, or detach it",
        cgroup.display(), list(programs)
    )]
    Exclusive {
        /// The cgroup.
        cgroup: PathBuf,
        /// The programs on that list.
        programs: Vec<Neighbour>,
    },
    /// An ancestor's program would go out of force.
    #[error(
        "a limit on {} would switch off another program there, because that was attached with BPF_F_ALLOW_OVERRIDE: {}; \
         have its owner attach it with BPF_F_ALLOW_MULTI, or {}",
        cgroup.display(), list(programs), all_the_same(recorded.as_deref())
    )]
    WouldDisplace {
        /// The cgroup.
        cgroup: PathBuf,
        /// The programs that would go out of force.
        programs: Vec<Neighbour>,
        /// The name of the pinned throttle, if it was being armed again.
        recorded: Option<String>,
    },
    /// An ancestor's program went out of force.
    #[error(
        "the limit on {} switched off another program there, so it was taken off again: {}; have its owner attach it \
         with BPF_F_ALLOW_MULTI, or {}",
        cgroup.display(), list(programs), all_the_same(recorded.as_deref())
    )]
    Displaced {
        /// The cgroup.
        cgroup: PathBuf,
        /// The programs that went out of force.
        programs: Vec<Neighbour>,
        /// The name of the pinned throttle, if it was being armed again.
        recorded: Option<String>,
    },
    /// The list changed during every attempt to detach.
    #[error("the programs of {0} keep changing: try again")]
    Contended(String),
    /// Several independent errors. What could not be removed stays, and the caller can try again.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
}

// The kernel's error is not a source too, because this error already has its text.
impl From<kernel::Error> for Error {
    fn from(error: kernel::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Error {
    /// Adds the name of a recorded throttle, whose advice differs: arming it again takes no options.
    pub(crate) fn of_record(mut self, name: &str) -> Self {
        match &mut self {
            Self::WouldDisplace { recorded, .. } | Self::Displaced { recorded, .. } => {
                *recorded = Some(name.to_owned());
            }
            Self::Several(errors) => {
                let each = std::mem::take(errors).into_iter();
                *errors = each.map(|error| error.of_record(name)).collect();
            }
            _ => {}
        }
        self
    }

    /// Combines several errors into one; `Ok` for none. Merges the errors for throttles that do not exist.
    ///
    /// # Errors
    /// When there is at least one error.
    pub fn collect(mut errors: Vec<Error>) -> Result<()> {
        let missing: Vec<_> = errors
            .iter()
            .filter_map(|error| match error {
                Error::NoSuchRecord(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        if missing.len() > 1 {
            errors.retain(|error| !matches!(error, Error::NoSuchRecord(_)));
            errors.push(Error::NoSuchRecords(missing));
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and ")
}

/// Says what is at a recorded cgroup's path, perhaps in another namespace.
fn instead(another: Option<kernel::CgroupId>) -> String {
    match another {
        Some(id) => format!("that is another one here, id {id}, which is left alone"),
        None => "is cgroup2 mounted elsewhere now, or is the cgroup just going away?".to_owned(),
    }
}

fn unknown_owner(pid: u32, elsewhere: bool) -> String {
    if elsewhere {
        format!(
            "its owner is process {pid} of another pid namespace (a container's?), so whether it runs cannot be told here"
        )
    } else {
        format!(
            "whether its owner, process {pid}, runs cannot be told here, because /proc is of another pid namespace or the \
             owner's start time is not known"
        )
    }
}

fn another_top(recorded: Option<kernel::CgroupId>, found: Option<kernel::CgroupId>) -> String {
    let named = |id: kernel::CgroupId| format!("cgroup {id}");
    match recorded {
        None => "an older version wrote the record, which does not say of which mount the path is"
            .to_owned(),
        Some(id) => format!(
            "the top of the mount was {} and is {} now",
            named(id),
            found.map_or_else(|| "out of sight".to_owned(), named)
        ),
    }
}

/// Says how to add the limit even though it puts others' programs out of force.
fn all_the_same(recorded: Option<&str>) -> String {
    match recorded {
        None => "limit all the same with '--displace'".to_owned(),
        Some(name) => format!(
            "limit all the same: end this one with 'chadthrottle rm {name}', and make another one with 'chadthrottle limit … \
             --displace'"
        ),
    }
}

fn list(programs: &[Neighbour]) -> String {
    programs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_errors_every_one_is_told() {
        let several =
            Error::Several(vec![Error::NoSuchProcess(7), Error::RootCgroup(8)]).to_string();
        assert!(several.starts_with("there is no process 7; and process 8 lives in"), "{several}");
    }

    /// Ending the process with that pid here would end a stranger's process.
    #[test]
    fn nobody_is_told_to_end_a_process_whose_pid_is_of_another_namespace() {
        for elsewhere in [true, false] {
            let said = Error::OwnerUnknown { name: "2".to_owned(), pid: 7, elsewhere }.to_string();
            assert!(said.contains("runs cannot be told here"), "{said}");
            assert!(!said.contains("still runs") && !said.contains("end that process"), "{said}");
            assert_eq!(said.contains("process 7 of another pid namespace"), elsewhere, "{said}");
        }
    }

    #[test]
    fn one_error_is_itself_and_several_are_several() {
        Error::collect(Vec::new()).unwrap();
        let one = Error::collect(vec![Error::NothingToLimit]).unwrap_err();
        assert!(matches!(one, Error::NothingToLimit));
        let both = vec![Error::NothingToLimit, Error::NoSuchThrottle(ThrottleId(3))];
        let both = Error::collect(both).unwrap_err();
        assert!(both.to_string().ends_with("there is no throttle 3"), "{both}");
        let none = |name: &str| Error::NoSuchRecord(name.to_owned());
        let missing = Error::collect(vec![none("1"), Error::NothingToLimit, none("4")]);
        let missing = missing.unwrap_err().to_string();
        assert!(missing.ends_with("and there are no pinned throttles '1', '4'; 'chadthrottle list' shows those that there are"));
        assert_eq!(missing.matches("chadthrottle list").count(), 1, "{missing}");
    }
}
