//! The compiled packet programs, and loading them under an owner's name.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, unsafe_code, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/throttle.skel.rs"));
}

use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use kernel::error::{Call, Kind};
use kernel::{AttachType, Error, Map, Result, libbpf, probe, release};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::owner::Owner;
use crate::program::ThrottleProgram;
pub(crate) use skeleton::types;

/// The programs of one load, which share their maps. One load serves any number of cgroups, each of them once.
#[derive(Debug)]
pub struct Loaded<P = ThrottleProgram> {
    /// `chadthrottle_ingress`.
    pub ingress: P,
    /// `chadthrottle_egress`.
    pub egress: P,
    /// `chadthrottle_sockops`, if requested.
    pub sockops: Option<P>,
    /// The programs of a queue for downloads, if requested.
    pub queue: Option<Queued<P>>,
}

/// The programs of a queue for downloads.
#[derive(Debug)]
pub struct Queued<P = ThrottleProgram> {
    /// `chadthrottle_redirect`, for the devices that receive packets. Its settings map `chad_redirect` names the
    /// queue's device.
    pub redirect: P,
    /// `chadthrottle_queue`, for the egress of the queue's device.
    pub depart: P,
}

/// Selects the programs to load beside the ingress and egress programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// The program for TCP. Needs [`kernel::probe::Support::tcp`] and `CAP_PERFMON`.
    pub tcp: bool,
    /// The programs of a queue for downloads (6.6). Such a load serves only one cgroup.
    pub queue: bool,
}

impl Parts {
    /// Selects only the program for TCP.
    pub const TCP: Self = Self { tcp: true, queue: false };
}

impl<P> Loaded<P> {
    /// Returns the program for an attach type. For a type without a program, returns the egress program, which the
    /// kernel then refuses.
    pub fn program(&self, attach_type: AttachType) -> &P {
        match (attach_type, &self.sockops) {
            (AttachType::INET_INGRESS, _) => &self.ingress,
            (AttachType::SOCK_OPS, Some(sockops)) => sockops,
            _ => &self.egress,
        }
    }
}

/// The name of the programs in messages.
const WHAT: &str = "the packet programs";

/// Loads the packet programs, and the further programs that `parts` selects.
///
/// `mark` is a secret shared by cooperating loads. A program uses it to signal that it has already dropped a packet. 0
/// turns this off.
///
/// The programs are not attached yet. They end with their last holder, so nothing stays if the process dies. Needs
/// Linux 5.12, `CAP_BPF` and `CAP_NET_ADMIN`, and what [`Parts`] says.
///
/// # Errors
/// `Denied` without the capabilities; otherwise the error of libbpf or the verifier.
pub fn load(owner: &Owner, mark: u64, parts: Parts) -> Result<Loaded> {
    // libbpf reports through one callback for the whole process, so only one load runs at a time.
    static LOADING: Mutex<()> = Mutex::new(());
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    libbpf::listen();
    libbpf::take_log();

    let fail = |error: libbpf_rs::Error| {
        let failed = Error::of_load(Call::Load, WHAT, &error);
        let is_old = release::running().is_some_and(|running| running < (6, 6));
        if parts.queue && is_old && failed.kind() == Kind::Other {
            failed.with_detail("a queue for downloads needs Linux 6.6 or newer")
        } else {
            failed
        }
    };
    let mut storage = MaybeUninit::uninit();
    let mut builder = skeleton::ThrottleSkelBuilder::default();
    // Only the program for TCP needs the kernel's types, but libbpf wants them for the whole object.
    let no_types = if parts.tcp || probe::tells_types() { None } else { Some(no_types()?) };
    if let Some(file) = &no_types {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        builder.obj_builder.btf_custom_path(path).map_err(fail)?;
    }
    let mut open = builder.open(&mut storage).map_err(fail)?;
    open.progs.chadthrottle_sockops.set_autoload(parts.tcp);
    open.maps.chad_sockets.set_autocreate(parts.tcp).map_err(fail)?;
    open.progs.chadthrottle_redirect.set_autoload(parts.queue);
    open.progs.chadthrottle_queue.set_autoload(parts.queue);
    let Some(rodata) = open.maps.rodata_data.as_deref_mut() else {
        let error = Error::found(Call::Load, WHAT, Errno::EINVAL);
        return Err(error.with_detail("the object has no read-only data to write the owner into"));
    };
    let halves = [mark & u64::from(u32::MAX), mark >> 32];
    let [mark, priority] = halves.map(|half| u32::try_from(half).unwrap_or(0));
    (rodata.dropped_mark, rodata.dropped_priority) = (mark, priority);
    rodata.queued = parts.queue.into();
    rodata.bpf_metadata_owner_pid = owner.pid;
    rodata.bpf_metadata_owner_start = owner.start_time;
    rodata.bpf_metadata_owner_pidns = owner.pid_namespace;
    write_chars(&mut rodata.bpf_metadata_owner_boot, &owner.boot_id);
    write_chars(&mut rodata.bpf_metadata_version, &owner.version);

    let skeleton = open.load().map_err(fail)?;
    // These are descriptors of our own, because the skeleton closes its descriptors when it is dropped.
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd> {
        fd.try_clone_to_owned().map_err(|error| Error::from_io(Call::Load, WHAT, &error))
    };
    let counters = skeleton.maps.chad_counters.as_fd();
    let program = |program: std::os::fd::BorrowedFd<'_>, counters: Option<_>| {
        let program = ThrottleProgram::with_maps(
            own(program)?,
            own(skeleton.maps.chad_state.as_fd())?,
            counters.map(own).transpose()?,
            parts
                .queue
                .then(|| {
                    Ok::<_, Error>([
                        own(skeleton.maps.chad_queue.as_fd())?,
                        own(skeleton.maps.chad_drops.as_fd())?,
                    ])
                })
                .transpose()?,
        )?;
        // libbpf probes whether the kernel takes names. If that probe fails for any reason, libbpf loads without names.
        // Nobody could then recognise our programs and maps.
        if !program.info().name.starts_with("chadthrottle_") {
            let error = Error::found(Call::Load, WHAT, Errno::ENODATA);
            return Err(error.with_detail("they were loaded without their names: try again"));
        }
        Ok(program)
    };
    let queue = || -> Result<Queued> {
        let settings = Map::from_fd(own(skeleton.maps.chad_redirect.as_fd())?)?;
        let redirect = program(skeleton.progs.chadthrottle_redirect.as_fd(), None)?;
        let depart = program(skeleton.progs.chadthrottle_queue.as_fd(), None)?;
        Ok(Queued { redirect: redirect.with_settings(settings), depart })
    };
    Ok(Loaded {
        ingress: program(skeleton.progs.chadthrottle_ingress.as_fd(), Some(counters))?,
        egress: program(skeleton.progs.chadthrottle_egress.as_fd(), Some(counters))?,
        sockops: parts
            .tcp
            .then(|| program(skeleton.progs.chadthrottle_sockops.as_fd(), None))
            .transpose()?,
        queue: parts.queue.then(queue).transpose()?,
    })
}

/// Creates a file with empty type information in the kernel's format (BTF): a header and an empty string.
fn no_types() -> Result<File> {
    let header = [24_u32, 0, 0, 0, 1].map(u32::to_ne_bytes);
    let bytes = [&0xeb9f_u16.to_ne_bytes()[..], &[1, 0], header.as_flattened(), &[0]].concat();
    let made = memfd_create(c"chadthrottle_types", MFdFlags::MFD_CLOEXEC).map(File::from);
    let made = made.map_err(std::io::Error::from);
    made.and_then(|mut file| file.write_all(&bytes).map(|()| file))
        .map_err(|error| Error::from_io(Call::Load, WHAT, &error))
}

/// Copies as much of a text as fits, with a NUL at the end. `char` is signed in BPF on every architecture, but unsigned
/// in C on arm64.
pub(crate) fn write_chars(chars: &mut [i8], text: &str) {
    let room = chars.len().saturating_sub(1);
    for (to, from) in chars[..room].iter_mut().zip(text.bytes()) {
        *to = from.cast_signed();
    }
}
