//! Provides names that try to break each format.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use auditor::facts::{Snapshot, Subject};

use crate::story::*;

/// A name with a special character for each format: terminals, XML, workflow commands, URIs and labels.
pub(crate) const HOSTILE: &str =
    "a\n::error::x\r\n::set-output name=y::z\x1b[31m\0\u{fffe}\u{202e}]]>&<\"'\\ %0A%25:,=#{}?é";

/// Returns a host with a leak and a gap that have such names.
pub(crate) fn hostile() -> Snapshot {
    let mut host = orphan();
    let mut path = format!("/{HOSTILE}").into_bytes();
    path.push(0xff);
    host.look().attachments.last_mut().unwrap().cgroup = OsString::from_vec(path).into();
    host.look().programs.last_mut().unwrap().loaded.name = "chadthrottle\x1b\n:".into();
    host.hold(99, &[program(41)]);
    host.look().holders.last_mut().unwrap().process.comm = HOSTILE.into();
    host.gap(Subject::Pins);
    let gap = &mut host.look().coverage.gaps[0];
    (gap.what, gap.why) = (format!("/sys/fs/bpf/{HOSTILE}"), HOSTILE.to_owned());
    host.host.host.hostname = HOSTILE.into();
    host.host.host.kernel = HOSTILE.into();
    host.tool.version = HOSTILE.into();
    host.scope.programs = vec!["chad*".into()];
    host
}
