//! Properties of this crate's parsers that hold for any input. Each function checks one parser, and panics if a
//! property fails. The fuzzer (`fuzz/`) and the tests below call them.
// These functions panic by design.
#![allow(clippy::missing_panics_doc)]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{major, makedev, minor};

use crate::cgroup::{Mount, parse_mountinfo, parse_proc_cgroup};
use crate::host::process::parse_start_time;
use crate::object::holders::parse_fdinfo;
use crate::object::ids::{LinkId, MapId, ProgramId};
use crate::object::pins::Held;

/// Checks the parser of `/proc/PID/mountinfo`. Each line is parsed on its own, and a mount in the kernel's format is
/// read back unchanged.
pub fn mountinfo(text: &[u8]) {
    let mounts = parse_mountinfo(text);
    let one_by_one = text.split(|&byte| byte == b'\n').flat_map(parse_mountinfo);
    assert!(mounts.iter().cloned().eq(one_by_one), "a line depends on others");
    let written: Vec<u8> = mounts.iter().flat_map(mountinfo_line).collect();
    assert_eq!(parse_mountinfo(&written), mounts);
    // A mount point may contain any bytes.
    let mount = Mount {
        id: 36,
        root: "/".into(),
        point: std::ffi::OsStr::from_bytes(text).into(),
        kind: "bpf".to_owned(),
        device: makedev(0, 30),
    };
    assert_eq!(parse_mountinfo(&mountinfo_line(&mount)), [mount]);
}

/// Writes a mount in the format of the kernel's `show_mountinfo`.
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

/// Checks the parser of `/proc/PID/cgroup`. It finds the path of hierarchy 0 among any other lines, and mistakes no
/// other line for it.
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

/// Checks the parser of `/proc/PID/fdinfo/FD`. It finds a link, a program or a map whatever follows, even paths that
/// are not text. Only numbers count.
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

/// Checks the parser of `/proc/PID/stat`. No process name can change the parsed start time.
pub fn stat(name: &[u8]) {
    let _ = parse_start_time(name);
    let fields = b") S 1 7 7 0 -1 4 5 0 0 0 1 2 0 0 20 0 1 0 4242 99 1\n";
    assert_eq!(parse_start_time(&[b"7 (", name, fields].concat()), Some(4_242));
}

#[cfg(test)]
mod tests {
    use testkit::corpus::replay;

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
    }
}
