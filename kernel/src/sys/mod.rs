//! `bpf(2)`: one safe function for each call that this project makes itself.
//!
//! Only this module and the skeletons of libbpf-cargo contain `unsafe`. The calls go through libbpf's low-level
//! functions. These fill in `union bpf_attr` and zero the unknown fields, so that older kernels accept the call. libbpf
//! 1.x returns the negated errno.

mod device;
mod function;
mod handle;
mod ids;
pub mod libbpf;
mod map;
mod names;
mod perf;
mod process;
mod room;
mod slots;
mod threads;
mod tree;
mod types;

use std::ffi::{CStr, CString, c_int, c_void};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libbpf_sys as sys;
use nix::errno::Errno;

pub(crate) use device::{DeviceHook, query_device};
pub(crate) use function::first_function;
pub(crate) use handle::open_cgroup_by_id;
pub(crate) use ids::{ObjectKind, fd_by_id, next_id};
pub(crate) use map::{Map, map_info};
pub(crate) use names::{link_type_name, map_type_name, program_type_name};
pub(crate) use perf::Records;
pub(crate) use process::{Task, task};
pub(crate) use room::until_all_fit;
pub(crate) use slots::slots;
pub(crate) use threads::share_files;
pub(crate) use tree::clone_mount;
pub(crate) use types::try_types;

type Result<T> = std::result::Result<T, Errno>;

/// The flag of `BPF_PROG_QUERY` for the programs in force, including those of ancestors.
pub(crate) const QUERY_EFFECTIVE: u32 = sys::BPF_F_QUERY_EFFECTIVE;

/// The tcx attach type for received packets.
pub(crate) const TCX_INGRESS: u32 = sys::BPF_TCX_INGRESS;
/// The tcx attach type for sent packets.
pub(crate) const TCX_EGRESS: u32 = sys::BPF_TCX_EGRESS;

fn check(ret: c_int) -> Result<c_int> {
    if ret < 0 { Err(Errno::from_raw(-ret)) } else { Ok(ret) }
}

/// Takes ownership of a descriptor that libbpf returned.
fn check_fd(ret: c_int) -> Result<OwnedFd> {
    let fd = check(ret)?;
    // SAFETY: the call succeeded, so `fd` is open, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Creates an options structure. All fields are zero except its size.
macro_rules! options {
    ($ty:ty) => {{
        let mut options = <$ty>::default();
        options.sz = mem::size_of::<$ty>() as sys::size_t;
        options
    }};
}

/// The answer of `BPF_PROG_QUERY`, without the ids.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Queried {
    /// The number of programs, even if the buffer was too small.
    pub count: u32,
    /// The list's flags.
    pub attach_flags: u32,
    /// The list's revision; 0 if the kernel has none.
    pub revision: u64,
}

/// `BPF_PROG_QUERY`. With `ENOSPC`, the first ids and the full count are valid.
pub(crate) fn prog_query(
    target: Option<BorrowedFd<'_>>,
    attach_type: u32,
    query_flags: u32,
    ids: &mut [u32],
    program_flags: Option<&mut [u32]>,
) -> (Queried, Result<()>) {
    let mut options = options!(sys::bpf_prog_query_opts);
    options.query_flags = query_flags;
    let mut room = ids.len();
    if !ids.is_empty() {
        options.prog_ids = ids.as_mut_ptr();
    }
    if let Some(flags) = program_flags {
        room = room.min(flags.len());
        options.prog_attach_flags = flags.as_mut_ptr();
    }
    options.__bindgen_anon_1.count = u32::try_from(room).unwrap_or(u32::MAX);
    // SAFETY: both buffers live across the call. They hold at least `room` ids, and the kernel gets this count and
    // writes no more.
    let ret = unsafe { sys::bpf_prog_query_opts(raw(target), attach_type, &raw mut options) };
    let queried = Queried {
        // SAFETY: both variants of the union are the same u32.
        count: unsafe { options.__bindgen_anon_1.count },
        attach_flags: options.attach_flags,
        revision: options.revision,
    };
    (queried, check(ret).map(drop))
}

fn raw(fd: Option<BorrowedFd<'_>>) -> c_int {
    fd.map_or(-1, |fd| fd.as_raw_fd())
}

/// `BPF_PROG_ATTACH`.
pub(crate) fn prog_attach(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
    flags: u32,
    replace: Option<BorrowedFd<'_>>,
    expected_revision: Option<u64>,
) -> Result<()> {
    let mut options = options!(sys::bpf_prog_attach_opts);
    options.flags = flags;
    if let Some(replace) = replace {
        options.__bindgen_anon_1.replace_fd = replace.as_raw_fd();
    }
    options.expected_revision = expected_revision.unwrap_or(0);
    // SAFETY: `options` lives across the call and carries its own size.
    check(unsafe {
        sys::bpf_prog_attach_opts(
            program.as_raw_fd(),
            target.as_raw_fd(),
            attach_type,
            &raw const options,
        )
    })
    .map(drop)
}

/// `BPF_PROG_DETACH`. Without a program, sends the descriptor -1.
pub(crate) fn prog_detach(
    program: Option<BorrowedFd<'_>>,
    target: Option<BorrowedFd<'_>>,
    attach_type: u32,
    flags: u32,
    expected_revision: Option<u64>,
) -> Result<()> {
    let mut options = options!(sys::bpf_prog_detach_opts);
    options.flags = flags;
    options.expected_revision = expected_revision.unwrap_or(0);
    // SAFETY: `options` lives across the call and carries its own size.
    check(unsafe {
        sys::bpf_prog_detach_opts(raw(program), raw(target), attach_type, &raw const options)
    })
    .map(drop)
}

/// `BPF_LINK_CREATE` without flags. A cgroup link is always MULTI and accepts none.
pub(crate) fn link_create(
    program: Option<BorrowedFd<'_>>,
    target: Option<BorrowedFd<'_>>,
    attach_type: u32,
) -> Result<OwnedFd> {
    let options = options!(sys::bpf_link_create_opts);
    // SAFETY: `options` lives across the call and carries its own size.
    check_fd(unsafe {
        sys::bpf_link_create(raw(program), raw(target), attach_type, &raw const options)
    })
}

/// `BPF_LINK_CREATE` on a network device (6.6), with its number in this thread's network namespace.
pub(crate) fn link_on_device(
    program: BorrowedFd<'_>,
    device: u32,
    attach_type: u32,
) -> Result<OwnedFd> {
    let options = options!(sys::bpf_link_create_opts);
    let device = c_int::try_from(device).map_err(|_| Errno::ENODEV)?;
    // SAFETY: `options` lives across the call and carries its own size.
    check_fd(unsafe {
        sys::bpf_link_create(program.as_raw_fd(), device, attach_type, &raw const options)
    })
}

/// Starts an iterator over this thread's namespaces with `BPF_LINK_CREATE` and `BPF_ITER_CREATE`. Returns the
/// descriptor to read the output from, which is the iterator's only holder.
pub(crate) fn iterate(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let link = check_fd(unsafe {
        sys::bpf_link_create(program.as_raw_fd(), 0, sys::BPF_TRACE_ITER, std::ptr::null())
    })?;
    // SAFETY: no memory is passed.
    check_fd(unsafe { sys::bpf_iter_create(link.as_raw_fd()) })
}

/// Starts an iterator over a cgroup and its descendants, parents first; otherwise like [`iterate`].
pub(crate) fn iterate_cgroups(
    program: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    upwards: bool,
) -> Result<OwnedFd> {
    let mut info = sys::bpf_iter_link_info::default();
    info.cgroup.order = if upwards {
        sys::BPF_CGROUP_ITER_ANCESTORS_UP
    } else {
        sys::BPF_CGROUP_ITER_DESCENDANTS_PRE
    };
    info.cgroup.cgroup_fd = root.as_raw_fd().cast_unsigned();
    let mut options = options!(sys::bpf_link_create_opts);
    options.iter_info = &raw mut info;
    options.iter_info_len = u32::try_from(mem::size_of_val(&info)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `options`, which carries its own size, and `info` live across the call.
    let link = check_fd(unsafe {
        sys::bpf_link_create(program.as_raw_fd(), 0, sys::BPF_TRACE_ITER, &raw const options)
    })?;
    // SAFETY: no memory is passed.
    check_fd(unsafe { sys::bpf_iter_create(link.as_raw_fd()) })
}

/// `BPF_LINK_DETACH`.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { sys::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// `BPF_LINK_UPDATE`. With `old`, updates only if `old` is the link's current program.
pub(crate) fn link_update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut options = options!(sys::bpf_link_update_opts);
    if let Some(old) = old {
        options.flags = sys::BPF_F_REPLACE;
        options.old_prog_fd = old.as_raw_fd().cast_unsigned();
    }
    // SAFETY: `options` lives across the call and carries its own size.
    check(unsafe { sys::bpf_link_update(link.as_raw_fd(), new.as_raw_fd(), &raw const options) })
        .map(drop)
}

/// `BPF_OBJ_PIN`.
pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that lives across the call.
    check(unsafe { sys::bpf_obj_pin(fd.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// `BPF_OBJ_GET`.
pub(crate) fn obj_get(path: &Path) -> Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that lives across the call.
    check_fd(unsafe { sys::bpf_obj_get(path.as_ptr()) })
}

/// Reads a structure of plain numbers with `BPF_OBJ_GET_INFO_BY_FD`.
///
/// # Safety
/// `T` must be the one of libbpf's `bpf_*_info` structures that fits `fd`. Every pointer in `info` must be null or
/// point to as many elements as its count says.
unsafe fn info<T>(fd: BorrowedFd<'_>, info: &mut T) -> Result<()> {
    let mut size = u32::try_from(mem::size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `size` bytes into `info`. It writes through the pointers in it only what the
    // caller vouches for.
    check(unsafe {
        sys::bpf_obj_get_info_by_fd(
            fd.as_raw_fd(),
            std::ptr::from_mut(info).cast::<c_void>(),
            &raw mut size,
        )
    })
    .map(drop)
}

/// `BPF_ENABLE_STATS`. The kernel counts run time while the descriptor is open.
pub(crate) fn count_run_time() -> Result<OwnedFd> {
    // SAFETY: the call takes a number and touches no memory of ours.
    check_fd(unsafe { sys::bpf_enable_stats(sys::BPF_STATS_RUN_TIME) })
}

/// The kernel's information about a program.
#[derive(Debug, Clone)]
pub(crate) struct RawProgram {
    pub id: u32,
    pub kind: u32,
    pub name: String,
    pub tag: [u8; 8],
    pub load_time: u64,
    pub uid: u32,
    pub btf_id: u32,
    pub run_count: u64,
    pub run_time_ns: u64,
    pub map_ids: Vec<u32>,
}

/// Reads the information about a program, with the ids of its maps.
pub(crate) fn program_info(fd: BorrowedFd<'_>) -> Result<RawProgram> {
    // Most programs have few maps. The first call has room for those, and a second one follows only if there are more.
    let (count, (raw, mut map_ids)) = until_all_fit(16, |room| {
        let mut map_ids = vec![0_u32; room];
        let mut raw = sys::bpf_prog_info {
            nr_map_ids: u32::try_from(room).unwrap_or(u32::MAX),
            map_ids: map_ids.as_mut_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: `fd` is a program's, or the kernel says EINVAL; `map_ids` has `nr_map_ids` elements (no program has
        // 2^32 maps), and the other pointers are null.
        let told = unsafe { info(fd, &mut raw) };
        (raw.nr_map_ids as usize, told.map(|()| (raw, map_ids)))
    })?;
    map_ids.truncate(count);
    Ok(RawProgram {
        id: raw.id,
        kind: raw.type_,
        name: c_chars(&raw.name),
        tag: raw.tag,
        load_time: raw.load_time,
        uid: raw.created_by_uid,
        btf_id: raw.btf_id,
        run_count: raw.run_cnt,
        run_time_ns: raw.run_time_ns,
        map_ids,
    })
}

/// The kernel's information about a link, with its place if it is on a cgroup or a network device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawLink {
    pub id: u32,
    pub kind: u32,
    pub program_id: u32,
    /// The map's id, for a link of a `struct_ops` map. Such a link has no program.
    pub map_id: Option<u32>,
    /// The cgroup's id (0 for a defunct link) and the attach type, for a cgroup link.
    pub cgroup: Option<(u64, u32)>,
    /// The device's number (0 if the device is gone) and the attach type, for a tcx link.
    pub device: Option<(u32, u32)>,
    /// The device's number (0 if the device is gone), for any link on a network device.
    pub on_device: Option<u32>,
}

/// Reads the information about a link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> Result<RawLink> {
    let mut raw = sys::bpf_link_info::default();
    // SAFETY: `fd` is a link's, or the kernel says EINVAL; every pointer in `raw` is null.
    unsafe { info(fd, &mut raw) }?;
    let cgroup = (raw.type_ == sys::BPF_LINK_TYPE_CGROUP).then(|| {
        // SAFETY: the kernel filled in the variant of this type of link; both fields are plain numbers.
        let cgroup = unsafe { raw.__bindgen_anon_1.cgroup };
        (cgroup.cgroup_id, cgroup.attach_type)
    });
    let device = (raw.type_ == sys::BPF_LINK_TYPE_TCX).then(|| {
        // SAFETY: as above.
        let tcx = unsafe { raw.__bindgen_anon_1.tcx };
        (tcx.ifindex, tcx.attach_type)
    });
    let on_device = match raw.type_ {
        // SAFETY: as above.
        sys::BPF_LINK_TYPE_XDP => Some(unsafe { raw.__bindgen_anon_1.xdp.ifindex }),
        // SAFETY: as above.
        sys::BPF_LINK_TYPE_NETKIT => Some(unsafe { raw.__bindgen_anon_1.netkit.ifindex }),
        _ => device.map(|(index, _)| index),
    };
    let map_id = (raw.type_ == sys::BPF_LINK_TYPE_STRUCT_OPS)
        // SAFETY: every variant begins with plain numbers, and this is the one that the kernel filled in.
        .then_some(unsafe { raw.__bindgen_anon_1.struct_ops.map_id });
    Ok(RawLink {
        id: raw.id,
        kind: raw.type_,
        program_id: raw.prog_id,
        map_id,
        cgroup,
        device,
        on_device,
    })
}

/// Returns the text before the first NUL. The kernel allows only ASCII letters, digits, `_` and `.` in names.
fn c_chars(chars: &[std::ffi::c_char]) -> String {
    chars.iter().flat_map(|c| c.to_ne_bytes()).take_while(|&c| c != 0).map(char::from).collect()
}

/// Loads the smallest program of a type, `return value`. For every cgroup hook, 1 means "go on" and 0 means "refuse".
///
/// `hook` is the function of a security module's hook (`socket_bind` for `bpf_lsm_socket_bind`).
pub(crate) fn load_return(
    value: i32,
    kind: u32,
    attach_type: u32,
    name: &CStr,
    hook: Option<&CStr>,
) -> Result<OwnedFd> {
    // r0 = value; exit
    let mut instructions = [sys::bpf_insn::default(), sys::bpf_insn::default()];
    instructions[0].code = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K, to r0
    instructions[0].imm = value;
    instructions[1].code = 0x95; // BPF_JMP | BPF_EXIT
    let mut options = options!(sys::bpf_prog_load_opts);
    options.expected_attach_type = attach_type;
    if let Some(hook) = hook {
        // SAFETY: `hook` is a C string that lives across the call.
        let id = check(unsafe { sys::libbpf_find_vmlinux_btf_id(hook.as_ptr(), attach_type) })?;
        options.attach_btf_id = id.cast_unsigned();
    }
    // SAFETY: the instructions, their count, the C strings and the options fit and live across the call.
    check_fd(unsafe {
        sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as sys::size_t,
            &raw mut options,
        )
    })
}
