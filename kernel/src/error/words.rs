//! Errors in words: what happened, why, and then the call with its errno.

use std::fmt;

use super::{Call, Error};

impl Error {
    /// Says what happened, in a clause without its reason: "cannot attach to /x".
    pub fn sentence(&self) -> String {
        let target = &self.target;
        if self.is_probe {
            return format!("cannot find out what {target} can do");
        }
        match self.call {
            Call::Attach | Call::LinkCreate | Call::DeviceLink => {
                format!("cannot attach to {target}")
            }
            Call::Detach => format!("cannot detach from {target}"),
            Call::LinkDetach => format!("cannot detach {target}"),
            Call::LinkUpdate => format!("cannot replace the program of {target}"),
            Call::Query => format!("cannot see what is attached to {target}"),
            Call::ObjPin => format!("cannot make the pin {target}"),
            Call::ObjGet | Call::FdById => format!("cannot open {target}"),
            Call::Unpin => format!("cannot remove {target}"),
            Call::NextId => format!("cannot list the {target}"),
            Call::Info => format!("cannot get the details of {target}"),
            Call::MapLookup | Call::ReadProc => format!("cannot read {target}"),
            Call::MapUpdate => format!("cannot write to {target}"),
            Call::Load | Call::LoadTracing => format!("cannot load {target}"),
            Call::BtfLoad => format!("cannot load the types of {target}"),
            Call::BtfFdById => format!("cannot read the types of {target}"),
            Call::EnableStats => format!("cannot measure {target}"),
            Call::OpenCgroup if self.is_no_cgroup() => format!("no such cgroup: {target}"),
            Call::OpenCgroup => format!("cannot open the cgroup {target}"),
            Call::FindCgroup2 => format!("cannot find {target}"),
            Call::OpenById => format!("cannot open {target} by its id"),
            Call::Iterate => format!("cannot use {target}"),
            Call::Netlink => format!("cannot read or change {target}"),
            Call::SetNs => format!("cannot enter {target}"),
            Call::Unshare | Call::MapCreate => format!("cannot make {target}"),
            Call::PerfEvent => format!("cannot follow {target}"),
        }
    }

    /// Names the call that failed with its errno: `BPF_PROG_ATTACH: EPERM`. `None` where no call failed.
    pub fn failed_call(&self) -> Option<String> {
        let call = self.step.unwrap_or(self.call);
        (!self.is_found).then(|| format!("{}: {:?}", call.name(), self.errno))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.detail().unwrap_or(self.errno.desc());
        write!(f, "{}: {reason}", self.sentence())?;
        match self.failed_call() {
            Some(call) => write!(f, " ({call})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn an_error_says_what_failed_why_and_last_the_call() {
        let none = Error::new(Call::ObjPin, "/x", Errno::ENOSPC).to_string();
        assert_eq!(none, "cannot make the pin /x: No space left on device (BPF_OBJ_PIN: ENOSPC)");
        let told = Error::new(Call::OpenCgroup, "/x", Errno::ENOENT).with_detail("it was removed");
        assert_eq!(told.to_string(), "no such cgroup: /x: it was removed (open: ENOENT)");
    }

    #[test]
    fn a_call_is_named_only_where_one_failed() {
        let found = Error::found(Call::OpenCgroup, "/x", Errno::EINVAL).with_detail("it is a file");
        assert_eq!(found.to_string(), "no such cgroup: /x: it is a file");
        let text = std::io::Error::new(std::io::ErrorKind::InvalidData, "no UTF-8");
        let text = Error::from_io(Call::ReadProc, "/x", &text).to_string();
        assert_eq!(text, "cannot read /x: no UTF-8");
    }

    #[test]
    fn what_libbpf_said_is_there_and_not_in_the_sentence() {
        let error = Error::new(Call::Load, "the programs", Errno::ENOMEM).with_log("R1\nR2\n\n");
        assert_eq!(error.log(), Some("R1\nR2"));
        assert!(!error.to_string().contains("R1"), "{error}");
        assert_eq!(error.with_log("\n").log(), None);
    }
}
