//! What must hold of this crate's parsers, whatever they are given: one function for each, which panics where it does not.
//! The fuzzer calls them with what it makes up (`fuzz/`), and the tests below with what is kept of it.
// To panic is what they are for.
#![allow(clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{major, makedev, minor};

use crate::cgroup::{Mount, parse_mountinfo, parse_proc_cgroup};
use crate::devices::owner_of;
use crate::holders::parse_fdinfo;
use crate::ids::{LinkId, MapId, ProgramId};
use crate::ledger::{self, Entry};
use crate::limits::{Burst, Rate, RateError};
use crate::metadata::parse_owner;
use crate::owner::{Owner, parse_start_time};
use crate::pins::Held;

/// `/proc/PID/mountinfo`: a line is a mount or none, whatever stands on the others, and a mount that is written as the
/// kernel writes it is read as what it is.
pub fn mountinfo(text: &[u8]) {
    let mounts = parse_mountinfo(text);
    let one_by_one = text.split(|&byte| byte == b'\n').flat_map(parse_mountinfo);
    assert!(mounts.iter().cloned().eq(one_by_one), "a line depends on others");
    let written: Vec<u8> = mounts.iter().flat_map(mountinfo_line).collect();
    assert_eq!(parse_mountinfo(&written), mounts);
    // Any bytes may be a mount's point.
    let mount = Mount {
        id: 36,
        root: "/".into(),
        point: std::ffi::OsStr::from_bytes(text).into(),
        kind: "bpf".to_owned(),
        device: makedev(0, 30),
    };
    assert_eq!(parse_mountinfo(&mountinfo_line(&mount)), [mount]);
}

/// As `show_mountinfo` in the kernel writes it.
fn mountinfo_line(mount: &Mount) -> Vec<u8> {
    let escaped = |path: &Path| {
        let mut escaped = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => {
                    escaped.extend(format!("\\{byte:03o}").into_bytes());
                }
                other => escaped.push(other),
            }
        }
        escaped
    };
    let device = format!("{} 35 {}:{} ", mount.id, major(mount.device), minor(mount.device));
    [
        device.as_bytes(),
        &escaped(&mount.root),
        b" ",
        &escaped(&mount.point),
        b" rw,relatime shared:9 - ",
        mount.kind.as_bytes(),
        b" none rw\n",
    ]
    .concat()
}

/// `/proc/PID/cgroup`: the path of hierarchy 0 is found among any other lines, and nothing else is taken for it.
pub fn proc_cgroup(text: &[u8]) {
    match parse_proc_cgroup(text) {
        Some(path) => {
            let path = path.as_os_str().as_bytes();
            assert!(!path.contains(&b'\n'), "a path goes over the end of its line");
            let line = [b"\n0::", path, b"\n"].concat();
            let framed = [b"\n", text, b"\n"].concat();
            assert!(framed.windows(line.len()).any(|part| part == line));
        }
        None => assert!(!text.starts_with(b"0::")),
    }
    let line: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'\n').collect();
    let hybrid = [b"9:name=systemd:/a\n0::/", &*line, b"\n1::/b\n"].concat();
    let expected = [b"/", &*line].concat();
    let found = parse_proc_cgroup(&hybrid).map(|path| path.into_os_string().into_encoded_bytes());
    assert_eq!(found, Some(expected));
}

/// `/proc/PID/fdinfo/FD`: a link, a program or a map is found whatever the kernel writes behind it (also the paths of files, which
/// need not be text), and only a number counts.
pub fn fdinfo(text: &[u8]) {
    let told = |line: &str| text.windows(line.len()).any(|part| part == line.as_bytes());
    match parse_fdinfo(text) {
        Some(Held::Link(_)) => assert!(told("link_id:")),
        Some(Held::Program(_)) => assert!(told("prog_id:")),
        Some(Held::Map(_)) => assert!(told("map_id:")),
        None => {}
    }
    let id = u32::try_from(text.len()).unwrap_or_default() * 7_919;
    let of_link = [format!("link_type:\tperf\nlink_id:\t{id}\n").as_bytes(), text].concat();
    assert_eq!(parse_fdinfo(&of_link), Some(Held::Link(LinkId(id))));
    if !told("link_id:") {
        let of_program = [format!("prog_type:\t8\nprog_id:\t{id}\n").as_bytes(), text].concat();
        assert_eq!(parse_fdinfo(&of_program), Some(Held::Program(ProgramId(id))));
        if !told("prog_id:") {
            let of_map = [format!("map_type:\t1\nmap_id:\t{id}\n").as_bytes(), text].concat();
            assert_eq!(parse_fdinfo(&of_map), Some(Held::Map(MapId(id))));
        }
    }
}

/// `/proc/PID/stat`: no name of a process can change when it was started.
pub fn stat(name: &[u8]) {
    let _ = parse_start_time(name);
    let fields = b") S 1 7 7 0 -1 4 5 0 0 0 1 2 0 0 20 0 1 0 4242 99 1\n";
    assert_eq!(parse_start_time(&[b"7 (", name, fields].concat()), Some(4_242));
}

/// An entry of the ledger: what was read is written so that it is read as the same, and what is refused is refused with
/// words.
pub fn ledger(text: &[u8]) {
    match ledger::parse(text) {
        Ok(entry) => {
            assert_eq!(entry.schema_version, ledger::SCHEMA_VERSION);
            let written = serde_json::to_vec(&entry).unwrap();
            assert_eq!(ledger::parse(&written), Ok(entry.clone()));
            not_torn(&entry, &written);
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// Of a file that was written in part nothing is believed.
fn not_torn(entry: &Entry, written: &[u8]) {
    for end in [0, 1, written.len() / 2, written.len() - 1] {
        assert!(ledger::parse(&written[..end]).is_err(), "{end} bytes of {entry:?}");
    }
}

/// A rate and a burst, as they are typed: within their bounds, and as they are printed they are read again.
pub fn limits(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match text.parse::<Rate>() {
        Ok(rate) => printed_rate_is_read(rate),
        Err(error @ RateError::Malformed { .. }) => assert!(error.to_string().contains("mbit")),
        Err(RateError::OutOfRange(_)) => assert!(text.contains(|c: char| c.is_ascii_digit())),
    }
    if let Ok(burst) = text.parse::<Burst>() {
        assert!(burst <= Burst::MAX);
        assert_eq!(burst.to_string().parse(), Ok(burst));
    }
}

fn printed_rate_is_read(rate: Rate) {
    assert!((Rate::MIN..=Rate::MAX).contains(&rate));
    assert_eq!(rate.bytes_per_second().to_string().parse(), Ok(rate));
    // Three digits behind the point are printed: never more than the rate, and less by a thousandth at most.
    let printed = rate.to_string();
    let read: Rate = printed.parse().unwrap();
    assert_eq!(read.to_string(), printed);
    let (rate, read) = (rate.bytes_per_second(), read.bytes_per_second());
    assert!(read <= rate && rate - read <= rate / 1_000, "{printed}: {read} of {rate}");
}

/// A program's metadata: five variables, of whatever sizes, make an owner or none, and never one without a pid.
pub fn metadata(bytes: &[u8]) {
    let names = ["owner_pid", "owner_start", "owner_pidns", "owner_boot", "version"];
    let Some((sizes, mut rest)) = bytes.split_first_chunk::<5>() else { return };
    let mut variables = BTreeMap::new();
    for (name, &size) in names.iter().zip(sizes) {
        // One that is there has its size; a large number says that it is not.
        if let Some((bytes, others)) = rest.split_at_checked(size.into()) {
            variables.insert((*name).to_owned(), bytes.to_vec());
            rest = others;
        }
    }
    let Some(owner) = parse_owner(&variables) else { return };
    assert_ne!(owner.pid, 0);
    assert!(!owner.boot_id.contains('\0') && !owner.version.contains('\0'));
    assert_eq!(parse_owner(&as_variables(&owner)), Some(owner));
}

fn as_variables(owner: &Owner) -> BTreeMap<String, Vec<u8>> {
    [
        ("owner_pid", owner.pid.to_ne_bytes().to_vec()),
        ("owner_start", owner.start_time.to_ne_bytes().to_vec()),
        ("owner_pidns", owner.pid_namespace.to_ne_bytes().to_vec()),
        ("owner_boot", [owner.boot_id.as_bytes(), b"\0\0"].concat()),
        ("version", [owner.version.as_bytes(), b"\0"].concat()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// A network device, its name in the first line and its alias behind: only one that is named just as a queue of the
/// owner that its alias names is ours.
pub fn device(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (name, alias) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(owner_of(name, false, Some(alias)), None);
    assert_eq!(owner_of(name, true, None), None);
    let Some(owner) = owner_of(name, true, Some(alias)) else { return };
    let mut names = ('a'..='z').map(|last| format!("chadq{}{last}", owner.pid));
    assert!(names.any(|ours| ours == name), "{name:?} is no name that a queue gets");
    let written = serde_json::to_string(&owner).unwrap();
    assert_eq!(owner_of(name, true, Some(&written)), Some(owner));
}

#[cfg(test)]
mod tests {
    use vmtests::corpus::replay;

    macro_rules! corpora {
        ($($test:ident: $target:ident,)*) => {
            $(#[test] fn $test() { replay(stringify!($target), super::$target); })*
        };
    }

    corpora! {
        what_holds_of_mountinfo_holds_of_all_that_is_kept: mountinfo,
        what_holds_of_proc_cgroup_holds_of_all_that_is_kept: proc_cgroup,
        what_holds_of_fdinfo_holds_of_all_that_is_kept: fdinfo,
        what_holds_of_stat_holds_of_all_that_is_kept: stat,
        what_holds_of_the_ledger_holds_of_all_that_is_kept: ledger,
        what_holds_of_limits_holds_of_all_that_is_kept: limits,
        what_holds_of_metadata_holds_of_all_that_is_kept: metadata,
        what_holds_of_devices_holds_of_all_that_is_kept: device,
    }
}
