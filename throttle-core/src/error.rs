//! What can go wrong in the engine.

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

/// What can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call into the kernel failed.
    #[error("{}", explained(.0))]
    Kernel(kernel::Error),
    /// The wished mode cannot be had.
    #[error(transparent)]
    Mode(#[from] Refusal),
    /// The ledger could not be read or written.
    #[error("cannot {} {}: {}", action.words(), path.display(), why_not(*action, error))]
    Ledger {
        /// What was tried.
        action: Action,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Neither a download nor an upload rate.
    #[error("nothing to limit: give a download rate, an upload rate, or both")]
    NothingToLimit,
    /// A process in the root cgroup.
    #[error(
        "process {0} lives in the root cgroup, which is the whole host; put it into a cgroup of its own, \
         or name the root with --cgroup / if the whole host is what you mean"
    )]
    RootCgroup(u32),
    /// No such process.
    #[error("there is no process {0}")]
    NoSuchProcess(u32),
    /// The engine has no throttle of that id.
    #[error("there is no throttle {0}")]
    NoSuchThrottle(ThrottleId),
    /// A change names a direction that the throttle does not limit.
    #[error("throttle {0} does not limit {1}: remove it and add one that does")]
    NoSuchDirection(ThrottleId, Direction),
    /// The ledger has no throttle of that name.
    #[error("there is no pinned throttle '{0}'; 'chadthrottle list' shows those that there are")]
    NoSuchRecord(String),
    /// The ledger has no throttle of any of these names.
    #[error(
        "there are no pinned throttles {}; 'chadthrottle list' shows those that there are",
        quoted(.0)
    )]
    NoSuchRecords(Vec<String>),
    /// A record whose path may be another cgroup's here.
    #[error(
        "throttle '{0}' was made in another cgroup or pid namespace (a container's?), so its path may be another cgroup's here: arm \
         it there, or end it with 'chadthrottle rm {0}'"
    )]
    Elsewhere(String),
    /// A record whose path leads through another mount here, or nobody knows through which it led.
    #[error(
        "throttle '{name}' was not armed, because {} may be another cgroup here: {}; run this where the throttle was made, \
         or end it with 'chadthrottle rm {name}'",
        path.display(),
        another_top(*recorded, *found)
    )]
    AnotherTop {
        /// The throttle.
        name: String,
        /// The recorded path.
        path: PathBuf,
        /// The cgroup at the top of the mount when the throttle was made.
        recorded: Option<kernel::CgroupId>,
        /// The one at the top of the mount which has the path now.
        found: Option<kernel::CgroupId>,
    },
    /// The ledger does not say what a throttle allows.
    #[error(
        "the record of throttle '{0}' does not say what it allows, because an older version wrote it: end it with \
         'chadthrottle rm {0}'"
    )]
    NoLimits(String),
    /// A recorded throttle whose process lives and holds it.
    #[error(
        "throttle '{name}' is in the hands of process {pid}, which still runs: end that process"
    )]
    OwnerLives {
        /// The throttle.
        name: String,
        /// Its owner.
        pid: u32,
    },
    /// A recorded throttle whose process may live and hold it.
    #[error(
        "throttle '{name}' cannot be removed here: {}; run 'chadthrottle rm {name}' where the throttle was made, or end its \
         owner there",
        unknown_owner(*pid, *elsewhere)
    )]
    OwnerUnknown {
        /// The throttle.
        name: String,
        /// Its owner.
        pid: u32,
        /// The pid is of another pid namespace, so that a stranger has it here.
        elsewhere: bool,
    },
    /// Detaching did not do it: the program is still on the cgroup's list.
    #[error(
        "program {program} is still attached to {cgroup} ({attach_type}) after it was detached; \
         somebody attached it again"
    )]
    StillAttached {
        /// The program.
        program: kernel::ProgramId,
        /// Where, as far as is known.
        cgroup: String,
        /// Where on it.
        attach_type: kernel::AttachType,
    },
    /// A pinned throttle has links, but their pins are in a bpffs that is not here.
    #[error(
        "throttle '{name}' was left as it is: program {program} still exists, and its pin is in a bpffs that is not mounted here \
         ({}); run this where it is mounted",
        pin.display()
    )]
    PinOutOfSight {
        /// The throttle.
        name: String,
        /// One of its programs.
        program: kernel::ProgramId,
        /// The program's pin.
        pin: PathBuf,
    },
    /// A recorded program exists, but neither its cgroup nor its pin can be found where they were.
    #[error(
        "program {program} still exists, but its cgroup cannot be found as {} ({}); 'chadthrottle-audit scan' \
         finds it wherever it is",
        cgroup.display(),
        instead(*another)
    )]
    OutOfSight {
        /// The program.
        program: kernel::ProgramId,
        /// Where its cgroup was.
        cgroup: PathBuf,
        /// The cgroup that has this path here. It is left alone.
        another: Option<kernel::CgroupId>,
    },
    /// The cgroup of a process was removed under it.
    #[error("the cgroup of process {0} has been removed: move the process into one that exists")]
    CgroupRemoved(u32),
    /// The process lives in a cgroup that cannot be seen from here.
    #[error(
        "the cgroup of process {pid} cannot be seen from here: it lives in {seen}; run this where that is \
         mounted, on the host, say"
    )]
    CgroupOutOfSight {
        /// The process.
        pid: u32,
        /// What was seen.
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
        /// The id of the cgroup that was asked for.
        expected: kernel::CgroupId,
        /// That of the one which is there.
        found: kernel::CgroupId,
    },
    /// A list of 64, which is all that the kernel takes.
    #[error(
        "no limit can be attached to {}: all 64 places are taken ({attach_type}); 'chadthrottle-audit scan --all' shows by \
         whom",
        cgroup.display()
    )]
    Full {
        /// The cgroup.
        cgroup: PathBuf,
        /// Which list.
        attach_type: kernel::AttachType,
    },
    /// A program that was attached so that no other may join it, on the cgroup or above.
    #[error(
        "no limit can be attached to {}: another program takes the place for itself, because it was attached without \
         BPF_F_ALLOW_MULTI: {}; have its owner attach it with that flag, or detach it",
        cgroup.display(), list(programs)
    )]
    Exclusive {
        /// The cgroup.
        cgroup: PathBuf,
        /// The program.
        programs: Vec<Neighbour>,
    },
    /// A program above would go out of force.
    #[error(
        "a limit on {} would switch off another program there, because that was attached with BPF_F_ALLOW_OVERRIDE: {}; \
         have its owner attach it with BPF_F_ALLOW_MULTI, or {}",
        cgroup.display(), list(programs), all_the_same(recorded.as_deref())
    )]
    WouldDisplace {
        /// The cgroup.
        cgroup: PathBuf,
        /// The programs.
        programs: Vec<Neighbour>,
        /// The pinned throttle that was to be armed again, if it was one.
        recorded: Option<String>,
    },
    /// A program above went out of force.
    #[error(
        "the limit on {} switched off another program there, so it was taken off again: {}; have its owner attach it \
         with BPF_F_ALLOW_MULTI, or {}",
        cgroup.display(), list(programs), all_the_same(recorded.as_deref())
    )]
    Displaced {
        /// The cgroup.
        cgroup: PathBuf,
        /// The programs.
        programs: Vec<Neighbour>,
        /// The pinned throttle that was to be armed again, if it was one.
        recorded: Option<String>,
    },
    /// A list that changes faster than it can be read.
    #[error("the programs of {0} keep changing: try again")]
    Contended(String),
    /// Several things went wrong, each on its own. What could not be removed is kept, and can be tried
    /// again.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
}

// Not a source as well: its words are this error's own.
impl From<kernel::Error> for Error {
    fn from(error: kernel::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Error {
    /// Advises as fits a recorded throttle, which has no options to be given when it is armed again.
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

    /// One error for several; `Ok` for none. Of throttles that do not exist it is said once.
    ///
    /// # Errors
    /// When there is at least one.
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

/// What there is instead of a cgroup that was recorded, maybe in another namespace.
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

/// How to limit though that puts others' programs out of force.
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

    /// Whoever ended that process here would end a stranger's.
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
