//! The packet programs, compiled in: loading them under an owner's name.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/throttle.skel.rs"));
}

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{PrintLevel, set_print};
use nix::errno::Errno;

use crate::error::{Call, Error, Result, errno_of};
use crate::owner::Owner;
use crate::program::Program;
pub(crate) use skeleton::types;

/// The two packet programs of one load. They share their maps: one load serves any number of cgroups,
/// each once.
#[derive(Debug)]
pub struct Loaded<P = Program> {
    /// `chadthrottle_ingress`.
    pub ingress: P,
    /// `chadthrottle_egress`.
    pub egress: P,
}

impl<P> Loaded<P> {
    /// The program for an attach type: ingress for one, egress for every other.
    pub fn program(&self, attach_type: crate::AttachType) -> &P {
        if attach_type == crate::AttachType::INET_INGRESS { &self.ingress } else { &self.egress }
    }
}

/// Loads the packet programs. Needs Linux 5.12, `CAP_BPF` and `CAP_NET_ADMIN`. They are attached nowhere
/// yet, and go with their last holder: nothing stays behind if the process dies.
///
/// # Errors
/// `Denied` without the rights; otherwise with what libbpf and the verifier said.
pub fn load(owner: &Owner) -> Result<Loaded> {
    // libbpf reports through one callback for the whole process: one load at a time.
    static LOADING: Mutex<()> = Mutex::new(());
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    listen_to_libbpf();
    take_log();

    let fail = |error: libbpf_rs::Error| {
        let detail = format!("{error}\n{}", take_log());
        Error::new(Call::Load, "the packet programs", errno_of(&error))
            .with_detail(detail.trim_end())
    };
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::ThrottleSkelBuilder::default().open(&mut storage).map_err(fail)?;
    let Some(rodata) = open.maps.rodata_data.as_deref_mut() else {
        let error = Error::new(Call::Load, "the packet programs", Errno::EINVAL);
        return Err(error.with_detail("the object has no read-only data to write the owner into"));
    };
    rodata.bpf_metadata_owner_pid = owner.pid;
    rodata.bpf_metadata_owner_start = owner.start_time;
    rodata.bpf_metadata_owner_pidns = owner.pid_namespace;
    write_c_chars(&mut rodata.bpf_metadata_owner_boot, &owner.boot_id);
    write_c_chars(&mut rodata.bpf_metadata_version, &owner.version);

    let skeleton = open.load().map_err(fail)?;
    // Descriptors of our own: the skeleton closes its own when it is dropped.
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd> {
        fd.try_clone_to_owned()
            .map_err(|error| Error::from_io(Call::Load, "the packet programs", &error))
    };
    let program = |program: std::os::fd::BorrowedFd<'_>| {
        let program = Program::with_maps(
            own(program)?,
            own(skeleton.maps.chad_state.as_fd())?,
            own(skeleton.maps.chad_counters.as_fd())?,
        )?;
        // libbpf asks the kernel whether it takes names, and where that one call fails for whatever reason it
        // loads without. Nobody would know such a program for ours, nor its maps.
        if !program.info().name.starts_with("chadthrottle_") {
            let error = Error::new(Call::Load, "the packet programs", Errno::ENODATA);
            return Err(error.with_detail("they were loaded without their names: try again"));
        }
        Ok(program)
    };
    Ok(Loaded {
        ingress: program(skeleton.progs.chadthrottle_ingress.as_fd())?,
        egress: program(skeleton.progs.chadthrottle_egress.as_fd())?,
    })
}

/// As much of a text as fits, with a NUL behind it.
fn write_c_chars(chars: &mut [c_char], text: &str) {
    let room = chars.len().saturating_sub(1);
    for (to, from) in chars[..room].iter_mut().zip(text.bytes()) {
        *to = from.cast_signed();
    }
}

/// What libbpf said since it was last asked: the verifier's log, when a program is refused.
static LOG: Mutex<String> = Mutex::new(String::new());

fn take_log() -> String {
    std::mem::take(&mut LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Keeps libbpf off stderr, which is the program's own.
fn listen_to_libbpf() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_print(Some((PrintLevel::Warn, |_level, message| {
            LOG.lock().unwrap_or_else(PoisonError::into_inner).push_str(&message);
        })));
    });
}
