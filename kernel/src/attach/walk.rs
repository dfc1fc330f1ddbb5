//! Reads the attached programs of a whole cgroup tree at one moment, inside the kernel.
//!
//! A query is one system call for each cgroup and attach type. The kernel runs this iterator program for each cgroup
//! instead. It is far quicker on many cgroups. It is also a second witness, because its answer does not come from
//! `BPF_PROG_QUERY`.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/walk.skel.rs"));
}

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use libbpf_rs::RingBufferBuilder;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use nix::errno::Errno;

use crate::attach::attach_type::AttachType;
use crate::attach::list::{AttachFlags, AttachedProgram, ProgramList};
use crate::error::{Call, Error, Result};
use crate::object::ids::{CgroupId, ProgramId};
use crate::sys;
use crate::sys::libbpf;

const WHAT: &str = "the iterator over cgroups";

/// The first size of the record buffer in the kernel, in bytes. The size doubles until all records fit.
const BYTES: u32 = 1 << 20;

/// The largest buffer size, in bytes. Beyond it, something other than size is wrong.
const MOST_BYTES: u32 = 1 << 28;

/// The result of a walk.
#[derive(Debug, Default)]
pub struct Walked {
    /// The attached programs, in the kernel's order. Cgroups without any are missing.
    pub lists: BTreeMap<CgroupId, BTreeMap<AttachType, ProgramList>>,
    /// The number of cgroups visited.
    pub visited: u64,
    /// The time spent on loading the program. The rest is the walk.
    pub load: Duration,
    /// The cgroups in the order in which the kernel visited them.
    order: Vec<CgroupId>,
}

/// The direction of a walk from its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

/// Reads a cgroup and all its descendants for these attach types, at one moment.
///
/// The kernel holds its cgroup lock for the walk, well below a microsecond for each cgroup. Nobody can create or remove
/// cgroups meanwhile. `program_flags` requests the flags of each program, as [`crate::attach::list::Query`] does.
///
/// Needs Linux 6.1 with type information (`CONFIG_DEBUG_INFO_BTF`), `CAP_BPF` and `CAP_PERFMON`. Leaves nothing behind
/// if the process dies.
///
/// # Errors
/// `Unsupported` without such an iterator or without type information. `Denied` without the capabilities. `EAGAIN` with
/// more than a million cgroups. An unreadable list is an error; it is never left out.
pub fn walk(root: BorrowedFd<'_>, types: &[AttachType], program_flags: bool) -> Result<Walked> {
    walk_with(root, types, program_flags, Way::Down, BYTES)
}

/// Reads a cgroup and its ancestors for these attach types, at one moment. Includes ancestors that no mount here shows.
///
/// Returns the lists of those with programs, nearest first. Needs the same as [`walk`].
///
/// # Errors
/// Those of [`walk`].
pub fn upwards(
    cgroup: BorrowedFd<'_>,
    types: &[AttachType],
) -> Result<Vec<(CgroupId, BTreeMap<AttachType, ProgramList>)>> {
    let mut walked = walk_with(cgroup, types, false, Way::Up, BYTES)?;
    let order = std::mem::take(&mut walked.order);
    Ok(order.into_iter().filter_map(|id| Some((id, walked.lists.remove(&id)?))).collect())
}

fn walk_with(
    root: BorrowedFd<'_>,
    types: &[AttachType],
    program_flags: bool,
    way: Way,
    mut bytes: u32,
) -> Result<Walked> {
    loop {
        match attempt(root, types, program_flags, way, bytes)? {
            Some(walked) => return Ok(walked),
            None if bytes < MOST_BYTES => bytes *= 2,
            None => {
                let error = Error::found(Call::Iterate, WHAT, Errno::ENOSPC);
                return Err(error.with_detail("there are more attachments than there is room for"));
            }
        }
    }
}

/// Walks once. Returns `None` if the buffer was too small.
fn attempt(
    root: BorrowedFd<'_>,
    types: &[AttachType],
    program_flags: bool,
    way: Way,
    bytes: u32,
) -> Result<Option<Walked>> {
    let start = Instant::now();
    let fail = |error: libbpf_rs::Error| Error::of_load(Call::Iterate, WHAT, &error);
    libbpf::listen();
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::WalkSkelBuilder::default().open(&mut storage).map_err(fail)?;
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(no_data)?;
    rodata.wanted = types.iter().map(|attach_type| 1_u64 << attach_type.kernel()).sum();
    open.maps.records.set_max_entries(bytes).map_err(fail)?;
    let skeleton = open.load().map_err(fail)?;
    let load = start.elapsed();

    let iterator = sys::iterate_cgroups(skeleton.progs.walk_cgroups.as_fd(), root, way == Way::Up)
        .map_err(|errno| Error::new(Call::Iterate, WHAT, errno))?;
    let mut file = File::from(iterator);
    // The program prints nothing. The whole walk happens in this one read.
    file.read_to_end(&mut Vec::new())
        .map_err(|error| Error::from_io(Call::Iterate, WHAT, &error))?;

    let mut walked = Walked { load, ..Walked::default() };
    let mut is_odd = false;
    let mut records = RingBufferBuilder::new();
    records
        .add(&skeleton.maps.records, |bytes| {
            is_odd |= keep(&mut walked, bytes, program_flags).is_none();
            0
        })
        .map_err(fail)?;
    records.build().map_err(fail)?.consume().map_err(fail)?;
    let told = skeleton.maps.bss_data.as_deref().ok_or_else(no_data)?;
    if told.lost > 0 {
        return Ok(None);
    }
    if told.unreadable > 0 || is_odd {
        let error = Error::found(Call::Iterate, WHAT, Errno::EIO);
        return Err(error.with_detail("it could not read lists of this kernel"));
    }
    walked.visited = told.visited;
    Ok(Some(walked))
}

/// Adds a record (`struct walk_record`) to its list. Returns `None` if the bytes are not a record.
fn keep(walked: &mut Walked, bytes: &[u8], program_flags: bool) -> Option<()> {
    let (&cgroup, rest) = bytes.split_first_chunk()?;
    let (&program, rest) = rest.split_first_chunk()?;
    let &[attach_type, flags, _, _] = rest else { return None };
    let attach_type = AttachType::from_kernel(attach_type.into())?;
    let cgroup = CgroupId(u64::from_ne_bytes(cgroup));
    if walked.order.last() != Some(&cgroup) {
        walked.order.push(cgroup);
    }
    let lists = walked.lists.entry(cgroup).or_default();
    let list = lists.entry(attach_type).or_default();
    let flags = AttachFlags::from_bits_retain(flags.into());
    // A query has one answer for all LSM lists together, and no flags with it.
    if attach_type != AttachType::LSM {
        list.flags = flags;
    }
    list.programs.push(AttachedProgram {
        id: ProgramId(u32::from_ne_bytes(program)),
        flags: program_flags.then_some(flags),
    });
    Some(())
}

fn no_data() -> Error {
    Error::found(Call::Iterate, WHAT, Errno::EINVAL).with_detail("the object has no data section")
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::attach::list::{Query, Scope, attach};
    use crate::cgroup::Cgroup;
    use crate::error::Kind;
    use crate::object::program::Program;
    use testkit::cgroup::ScratchCgroup;
    use testkit::iterator::has_cgroup_iterator;

    const INGRESS: AttachType = AttachType::INET_INGRESS;

    #[test]
    fn a_record_is_what_the_program_writes() {
        let mut walked = Walked::default();
        let record = [&7_u64.to_ne_bytes()[..], &41_u32.to_ne_bytes(), &[1, 2, 0, 0]].concat();
        assert_eq!(keep(&mut walked, &record, false), Some(()));
        let list = &walked.lists[&CgroupId(7)][&AttachType::INET_EGRESS];
        assert_eq!(list.flags, AttachFlags::MULTI);
        assert_eq!(list.programs, [AttachedProgram { id: ProgramId(41), flags: None }]);
        assert_eq!(keep(&mut walked, &record[..15], false), None, "too short");
        let no_type = [&record[..12], &[200, 2, 0, 0]].concat();
        assert_eq!(keep(&mut walked, &no_type, false), None);
    }

    #[test]
    fn of_lists_of_security_modules_only_the_programs_flags_are_told() {
        let mut walked = Walked::default();
        let record = [&7_u64.to_ne_bytes()[..], &41_u32.to_ne_bytes(), &[43, 2, 0, 0]].concat();
        assert_eq!(keep(&mut walked, &record, true), Some(()));
        let list = &walked.lists[&CgroupId(7)][&AttachType::LSM];
        assert_eq!(list.flags, AttachFlags::empty());
        assert_eq!(list.programs[0].flags, Some(AttachFlags::MULTI));
    }

    #[test]
    fn root_where_there_is_no_room_more_is_made() {
        let cgroup = ScratchCgroup::new("room");
        let open = Cgroup::open(cgroup.path()).unwrap();
        let types: Vec<AttachType> = AttachType::all().take(8).collect();
        for &attach_type in &types {
            for _ in 0..crate::attach::list::MAX_PROGRAMS {
                let program = Program::load_pass("chadtest_room", attach_type).unwrap();
                attach(program.as_fd(), &open, attach_type, AttachFlags::MULTI, None).unwrap();
            }
        }
        // One page. Eight lists of 64 programs need three.
        let walked = match attempt(open.as_fd(), &types, false, Way::Down, 4096) {
            Ok(tight) => {
                assert!(tight.is_none());
                walk_with(open.as_fd(), &types, false, Way::Down, 4096).unwrap()
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unsupported, "{error}");
                return assert!(!has_cgroup_iterator());
            }
        };
        assert_eq!(walked.visited, 1);
        for (attach_type, list) in &walked.lists[&open.id()] {
            let asked = Query::new(false).ask(open.as_fd(), *attach_type, Scope::Local).unwrap();
            assert_eq!(list.programs, asked.programs);
        }
    }

    #[test]
    fn root_what_is_no_cgroup_is_not_gone_over() {
        let folder: OwnedFd = std::fs::File::open("/proc").unwrap().into();
        let error = walk(folder.as_fd(), &[INGRESS], false).unwrap_err();
        assert_eq!(error.call(), Call::Iterate);
        let told = error.to_string();
        assert_eq!(told.contains("EBADF"), has_cgroup_iterator(), "{told}");
    }
}
