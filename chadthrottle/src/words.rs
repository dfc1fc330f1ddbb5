//! Prints the messages of the commands, and maps errors to exit statuses.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bpf::limits::Bytes;
use bpf::state::Count;
use terminal::escape_bytes;
use terminal::exit::{self, FAILED, NOT_DONE, USAGE};
pub(crate) use terminal::print;
use terminal::talk;
use throttle_core::Error;

/// Returns the exit status for an error. If the kernel or the state of the system refused, nothing was done.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return USAGE;
    }
    match (error.downcast_ref::<Error>(), error.downcast_ref::<kernel::Error>()) {
        (Some(Error::Kernel(error)), _) | (None, Some(error)) => of_kernel(error),
        (Some(error), _) => {
            if is_the_users(error) {
                USAGE
            } else {
                NOT_DONE
            }
        }
        (None, None) => exit::status_of(error),
    }
}

/// Returns the status for an error of the kernel. Without the cgroup2 hierarchy, no command can work.
fn of_kernel(error: &kernel::Error) -> u8 {
    if error.is_no_hierarchy() {
        FAILED
    } else if error.is_no_cgroup() {
        USAGE
    } else {
        NOT_DONE
    }
}

/// Returns a path as a terminal may show it.
pub(crate) fn shown(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_bytes())
}

/// Tells whether the user named something that does not exist or cannot be meant.
fn is_the_users(error: &Error) -> bool {
    match error {
        Error::NothingToLimit
        | Error::RootCgroup(_)
        | Error::NoSuchProcess(_)
        | Error::NoSuchThrottle(_)
        | Error::CgroupRemoved(_)
        | Error::Ended(_)
        | Error::NoSuchRecord(_)
        | Error::NoSuchRecords(_) => true,
        Error::Kernel(error) => error.is_no_cgroup(),
        Error::Several(errors) => errors.iter().all(is_the_users),
        _ => false,
    }
}

/// A mistake on the command line that clap cannot detect.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) &'static str);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Usage {}

/// Returns each id once.
pub(crate) fn once(ids: &[String]) -> Vec<&String> {
    let mut seen = std::collections::BTreeSet::new();
    ids.iter().filter(|id| seen.insert(*id)).collect()
}

/// Prints information beside the result.
pub(crate) fn say(text: &str) {
    talk::note(text);
}

/// Prints a warning that the user may want to act on.
pub(crate) fn warn(text: &str) {
    talk::warning(text);
}

/// Formats a count, such as `12.3 MB (8412 packets)`.
pub(crate) fn count(count: Count) -> String {
    let packets = if count.packets == 1 { "packet" } else { "packets" };
    format!("{} ({} {packets})", Bytes(count.bytes), count.packets)
}

#[cfg(test)]
mod tests {
    use kernel::error::Call;
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_count_reads_well() {
        assert_eq!(count(Count { packets: 1, bytes: 1_500 }), "1.5 kB (1 packet)");
        assert_eq!(count(Count { packets: 0, bytes: 0 }), "0 B (0 packets)");
    }

    #[test]
    fn what_is_named_twice_counts_once_and_in_its_order() {
        let ids = ["2", "1", "2"].map(str::to_owned);
        assert_eq!(once(&ids), ["2", "1"]);
    }

    #[test]
    fn what_is_named_wrongly_what_is_refused_and_what_fails_end_differently() {
        assert_eq!(exit_status(&Error::NoSuchProcess(1).into()), 64);
        assert_eq!(exit_status(&Usage("x").into()), 64);
        let none = || Error::NoSuchRecord("7".to_owned());
        assert_eq!(exit_status(&Error::Several(vec![none(), none()]).into()), 64);
        assert_eq!(exit_status(&Error::collect(vec![none(), none()]).unwrap_err().into()), 64);
        let contended = || Error::Contended("x".to_owned());
        assert_eq!(exit_status(&contended().into()), 1);
        assert_eq!(exit_status(&Error::Several(vec![none(), contended()]).into()), 1);
        let kernel = |call, errno| kernel::Error::new(call, "x", errno);
        let open = || kernel(Call::OpenCgroup, Errno::ENOENT);
        assert_eq!(exit_status(&open().into()), 64);
        assert_eq!(exit_status(&Error::from(open()).into()), 64);
        assert_eq!(exit_status(&kernel(Call::Load, Errno::EPERM).into()), 1);
        let blind = || kernel(Call::FindCgroup2, Errno::ENOENT);
        assert_eq!(exit_status(&blind().into()), 70);
        assert_eq!(exit_status(&Error::from(blind()).into()), 70);
        assert_eq!(exit_status(&exit::incomplete("x").into()), 2);
        assert_eq!(exit_status(&anyhow::anyhow!("x")), 70);
    }
}
