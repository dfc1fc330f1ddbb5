use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nix::libc::{EACCES, ENOENT, ESRCH};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::lasting::tests::{holder, programs};
use super::*;
use crate::error::Kind;
use crate::folder::Folder;

#[test]
fn who_has_something_open_only_for_a_moment_does_not_hold_it() {
    let still = |now: io::Result<Vec<Held>>| {
        holder((7, &[1, 2, 3])).still(|pid| {
            assert_eq!(pid, 7);
            now.as_ref().map(Clone::clone).map_err(|error| error.kind().into())
        })
    };
    assert_eq!(still(Ok(programs(&[2, 3, 4]))), programs(&[2, 3]));
    // The process has ended, or has closed everything.
    assert_eq!(still(Ok(Vec::new())), []);
    let refused = Err(io::ErrorKind::PermissionDenied.into());
    assert_eq!(still(refused), programs(&[1, 2, 3]));
}

#[test]
fn a_file_is_read_for_what_it_is() {
    let program = b"pos:\t0\nprog_type:\t8\nprog_jited:\t1\nprog_tag:\t6deef7357e7b4530\nmemlock:\t4096\nprog_id:\t17\n";
    let link = b"pos:\t0\nlink_type:\tcgroup\nlink_id:\t3\nprog_tag:\t6deef7357e7b4530\nprog_id:\t17\ncgroup_id:\t9\n";
    assert_eq!(parse_fdinfo(program), Some(Held::Program(ProgramId(17))));
    assert_eq!(parse_fdinfo(link), Some(Held::Link(LinkId(3))));
    let map = b"pos:\t0\nmap_type:\t1\nkey_size:\t4\nmemlock:\t4096\nmap_id:\t23\nfrozen:\t0\n";
    assert_eq!(parse_fdinfo(map), Some(Held::Map(MapId(23))));
    let of_a_map = b"link_type:\tstruct_ops\nlink_id:\t4\nprog_tag:\t0\nprog_id:\t0\nmap_id:\t23\n";
    assert_eq!(parse_fdinfo(of_a_map), Some(Held::Link(LinkId(4))));
    assert_eq!(parse_fdinfo(b"pos:\t0\n"), None);
    assert_eq!(parse_fdinfo(b"prog_id:\tx\n"), None);
    let with_path = b"link_type:\tuprobe_multi\nlink_id:\t3\nprog_id:\t17\npath:\t/a\xff\n";
    assert_eq!(parse_fdinfo(with_path), Some(Held::Link(LinkId(3))), "a path need not be text");
}

#[test]
fn a_process_holds_what_its_open_files_say_each_thing_once() {
    let process = Folder::new("holder");
    for (fd, target, info) in [
        ("3", "anon_inode:bpf-prog", "prog_id:\t17\n"),
        ("4", "anon_inode:bpf_link", "link_id:\t3\nprog_id:\t17\n"),
        ("5", "anon_inode:bpf-prog", "prog_id:\t17\n"),
        ("6", "anon_inode:bpf-map", "map_id:\t9\n"),
        ("8", "anon_inode:btf", "link_id:\t9\n"),
    ] {
        process.link(&format!("fd/{fd}"), target);
        process.file(&format!("fdinfo/{fd}"), info);
    }
    // The file was closed after its name was read, so it has no information.
    process.link("fd/7", "anon_inode:bpf-prog");
    std::fs::create_dir(process.path().join("task")).unwrap();
    let held = [Held::Program(ProgramId(17)), Held::Link(LinkId(3)), Held::Map(MapId(9))];
    let found = held_by_process(process.path(), 5_000_001, true, Sought::MapsToo).unwrap();
    assert_eq!(found, held);
}

#[test]
fn what_any_thread_holds_counts_although_the_first_has_ended() {
    let process = Folder::new("threads");
    // No thread has these numbers, so nobody can say who shares a descriptor table.
    for (thread, id) in [(5_000_002, 17), (5_000_003, 18), (5_000_004, 17)] {
        process.link(&format!("task/{thread}/fd/3"), "anon_inode:bpf-prog");
        process.file(&format!("task/{thread}/fdinfo/3"), format!("prog_id:\t{id}\n"));
    }
    std::fs::create_dir(process.path().join("fd")).unwrap();
    let held = [17, 18].map(|id| Held::Program(ProgramId(id)));
    for counts_as_we_do in [true, false] {
        let found = held_by_process(process.path(), 5_000_001, counts_as_we_do, Sought::MapsToo);
        assert_eq!(found.unwrap(), held);
    }
}

#[test]
fn threads_that_have_the_same_files_are_told_from_those_that_do_not() {
    let own = std::process::id();
    let thread = |unshares: bool| {
        std::thread::spawn(move || {
            if unshares {
                unshare(CloneFlags::CLONE_FILES).unwrap();
            }
            sys::share_files(own, u32::try_from(gettid().as_raw()).unwrap())
        })
    };
    assert_eq!([false, true].map(|it| thread(it).join().unwrap()), [true, false]);
    assert!(!sys::share_files(own, 5_000_001), "there is no such thread");
}

#[test]
fn a_map_that_is_not_sought_is_not_even_opened() {
    let process = Folder::new("maps");
    process.link("fd/6", "anon_inode:bpf-map");
    // Opening this file would be an error.
    process.file("fdinfo/6/x", "");
    assert_eq!(held_by_thread(process.path(), Sought::ProgramsAndLinks).unwrap(), []);
    assert!(held_by_thread(process.path(), Sought::MapsToo).is_err());
}

#[test]
fn a_file_that_is_closed_while_it_is_looked_at_is_passed_over() {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                drop(std::fs::File::open("/proc/self/stat"));
            }
        });
        // Certain to meet many processes that have ended since they were listed.
        let answers =
            [(); 2_000].map(|()| held_by_thread(Path::new("/proc/self"), Sought::ProgramsAndLinks));
        is_done.store(true, Relaxed);
        assert!(answers.iter().all(|held| held.as_ref().is_ok_and(Vec::is_empty)));
    });
}

#[test]
fn what_is_open_beside_a_file_that_is_closed_meanwhile_is_held() {
    let process = Folder::new("closing");
    process.link("fd/20", "anon_inode:bpf-prog");
    process.file("fdinfo/20", "prog_id:\t17\n");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let closing = (0..40).map(|fd| process.path().join(format!("fd/1{fd}")));
            let closing: Vec<_> = closing.collect();
            while !is_done.load(Relaxed) {
                for fd in &closing {
                    std::os::unix::fs::symlink("socket:[1]", fd).unwrap();
                }
                for fd in &closing {
                    std::fs::remove_file(fd).unwrap();
                }
            }
        });
        // Certain to meet many processes that have ended since they were listed.
        let answers =
            [(); 2_000].map(|()| held_by_thread(process.path(), Sought::ProgramsAndLinks));
        is_done.store(true, Relaxed);
        let held = [Held::Program(ProgramId(17))];
        assert!(answers.iter().all(|it| it.as_ref().is_ok_and(|it| it[..] == held)));
    });
}

#[test]
fn a_process_that_ends_while_it_is_looked_at_is_passed_over() {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                drop(Command::new("true").status());
            }
        });
        let found = [(); 50].map(|()| holders(Sought::MapsToo));
        is_done.store(true, Relaxed);
        let mut unreadable = found.iter().flat_map(|found| &found.as_ref().unwrap().unreadable);
        assert_eq!(unreadable.find(|error| error.kind() == Kind::Vanished), None);
    });
}

#[test]
fn who_ends_while_it_is_looked_at_holds_nothing_whatever_errno_says_so() {
    let denied = || Err(io::Error::from_raw_os_error(EACCES));
    let here = Folder::new("here");
    let gone = here.path().join("gone");
    assert_eq!(unless_gone(&gone, denied).unwrap(), []);
    assert_eq!(unless_gone(here.path(), || Err(io::Error::from_raw_os_error(ESRCH))).unwrap(), []);
    // Another process has got the number, and its files are readable.
    let mut answers = vec![Ok(vec![Held::Map(MapId(7))]), denied()];
    let held = unless_gone(here.path(), || answers.pop().unwrap()).unwrap();
    assert_eq!(held, [Held::Map(MapId(7))]);
    let mut looks = 0;
    let hidden = unless_gone(here.path(), || {
        looks += 1;
        denied()
    });
    assert_eq!((hidden.unwrap_err().raw_os_error(), looks), (Some(EACCES), LOOKS));
}

#[test]
fn an_open_file_that_cannot_be_read_is_an_error_and_not_nothing() {
    let no_link = Folder::new("no-link");
    no_link.file("fd/3", "");
    assert!(held_by_thread(no_link.path(), Sought::MapsToo).is_err());

    let no_info = Folder::new("no-info");
    no_info.link("fd/3", "anon_inode:bpf-prog");
    no_info.file("fdinfo/3/x", "");
    assert!(held_by_thread(no_info.path(), Sought::MapsToo).is_err());
}

#[test]
fn the_name_of_a_process_is_read_without_its_newline() {
    let process = Folder::new("comm");
    process.file("comm", "a b\n");
    assert_eq!(comm(process.path()), "a b");
}

#[test]
fn only_what_went_away_is_gone() {
    let is_gone = |errno| is_gone(&io::Error::from_raw_os_error(errno));
    assert_eq!([ENOENT, ESRCH, EACCES].map(is_gone), [true, true, false]);
}

#[test]
fn who_holds_nothing_is_no_holder() {
    // This holds on a host without holders too, because this process's parent is readable and holds nothing.
    assert!(holders(Sought::MapsToo).unwrap().holders.iter().all(|holder| !holder.held.is_empty()));
}
