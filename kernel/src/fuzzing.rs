//! What must hold of this crate's parsers, whatever they are given: one function for each, which panics where it does not.
//! The fuzzer calls them with what it makes up (`fuzz/`), and the tests below with what is kept of it.
// To panic is what they are for.
#![allow(clippy::missing_panics_doc)]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{major, makedev, minor};

use crate::cgroup::{Mount, parse_mountinfo, parse_proc_cgroup};
use crate::host::process::parse_start_time;
use crate::object::holders::parse_fdinfo;
use crate::object::ids::{LinkId, MapId, ProgramId};
use crate::object::pins::Held;

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
