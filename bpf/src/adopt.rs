//! Sockets that are open already when their cgroup's TCP is to be shaped.
//!
//! The kernel asks the sockops program only about sockets that want it to, which they say when their
//! connection begins. Those that are open already are gone over by an iterator, which says it for them (6.12).
//! It goes over one network namespace at a time: that of the caller, and those of the processes in the cgroup.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/adopt.skel.rs"));
}

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::error::{Call, Error, Result, errno_of};
use crate::ids::CgroupId;
use crate::sys;
use crate::throttle::{listen_to_libbpf, take_log};

/// What became of the sockets that were open already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// So many are shaped from now on.
    pub shaped: u64,
    /// So many are not, because the kernel has no means for it (before 6.12): they are policed.
    pub policed: u64,
}

/// Has the kernel ask the sockops program of a cgroup about its sockets that are open already, and those of
/// the cgroups below. Needs `CAP_BPF`, `CAP_NET_ADMIN` and, for other network namespaces than the caller's,
/// `CAP_SYS_ADMIN`. What it does to a socket stays until that is closed, and is nothing without a program.
///
/// A socket in a network namespace in which no process of the cgroup lives (any more) is not found.
///
/// # Errors
/// When the iterator cannot be loaded (before 5.15) or run, or a namespace not be entered.
pub fn adopt(cgroup: CgroupId, path: &Path) -> Result<Adopted> {
    let fail = |error: libbpf_rs::Error| {
        let detail = format!("{error}\n{}", take_log());
        Error::new(Call::Load, "the iterator over open sockets", errno_of(&error))
            .with_detail(detail.trim_end())
    };
    listen_to_libbpf();
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::AdoptSkelBuilder::default().open(&mut storage).map_err(fail)?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.cgroup_id = cgroup.0;
    }
    let skeleton = open.load().map_err(fail)?;
    let program = skeleton.progs.chadthrottle_adopt.as_fd();

    let mut adopted = Adopted::default();
    let namespaces = namespaces(path);
    let visits = std::thread::scope(|scope| {
        // A thread of its own for each: a namespace that was entered is not left again.
        let visit = |namespace: File| {
            scope.spawn(move || -> Result<Vec<u8>> {
                setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| {
                    Error::new(Call::ReadProc, "a network namespace of the cgroup", errno)
                })?;
                run(program)
            })
        };
        let visits: Vec<_> = namespaces.into_values().map(visit).collect();
        visits.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for told in visits {
        let lost =
            |_| Error::new(Call::LinkCreate, "the iterator over open sockets", Errno::ECANCELED);
        for letter in told.map_err(lost)?? {
            match letter {
                b'y' => adopted.shaped += 1,
                _ => adopted.policed += 1,
            }
        }
    }
    Ok(adopted)
}

/// Goes over this thread's network namespace once; returns what the program printed.
fn run(program: std::os::fd::BorrowedFd<'_>) -> Result<Vec<u8>> {
    let fail = |errno| Error::new(Call::LinkCreate, "the iterator over open sockets", errno);
    let mut told = Vec::new();
    let mut file = File::from(sys::iterate(program).map_err(fail)?);
    file.read_to_end(&mut told).map_err(|error| {
        Error::from_io(Call::LinkCreate, "the iterator over open sockets", &error)
    })?;
    Ok(told)
}

/// The network namespaces of this thread and of the processes in a cgroup and below it, each once. A process
/// that ends meanwhile has no sockets any more.
fn namespaces(cgroup: &Path) -> BTreeMap<u64, File> {
    let mut found = BTreeMap::new();
    let mut add = |path: String| {
        if let Ok(file) = File::open(path)
            && let Ok(about) = file.metadata()
        {
            found.entry(about.ino()).or_insert(file);
        }
    };
    add("/proc/thread-self/ns/net".to_owned());
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
            add(format!("/proc/{pid}/ns/net"));
        }
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
        );
    }
    found
}
