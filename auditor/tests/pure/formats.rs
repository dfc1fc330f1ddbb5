//! What the tests of the formats share.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use auditor::classify::classify;
use auditor::report::{Report, report};
use auditor::snapshot::{Snapshot, Subject};

use crate::common::*;

pub(crate) fn made(host: &Snapshot) -> Report {
    report(host, &classify(host), false)
}

/// What every format has some character of that could get it out of its way: terminals, XML,
/// workflow commands, URIs and labels.
pub(crate) const HOSTILE: &str =
    "a\n::error::x\r\n::set-output name=y::z\x1b[31m\0\u{fffe}\u{202e}]]>&<\"'\\ %0A%25:,=#{}?é";

/// A leak and a gap whose names mean harm.
pub(crate) fn hostile() -> Snapshot {
    let mut host = orphan();
    let mut path = format!("/{HOSTILE}").into_bytes();
    path.push(0xff);
    host.look().attachments.last_mut().unwrap().cgroup = OsString::from_vec(path).into();
    host.look().programs.last_mut().unwrap().name = "chadthrottle\x1b\n:".into();
    host.hold(99, &[program(41)]);
    host.look().holders.last_mut().unwrap().comm = HOSTILE.into();
    host.gap(Subject::Pins);
    let gap = &mut host.look().coverage.gaps[0];
    (gap.what, gap.why) = (format!("/sys/fs/bpf/{HOSTILE}"), HOSTILE.to_owned());
    host.host.hostname = HOSTILE.into();
    host.host.kernel = HOSTILE.into();
    host.tool.version = HOSTILE.into();
    host.scope.programs = vec!["chad*".into()];
    host
}
