//! Loaded programs: the kernel's information about them, and the contents of their own type information (BTF).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::btf::types::{DataSec, Func, Var};
use libbpf_rs::btf::{Btf, TypeId};
use libbpf_sys as kernel;
use nix::errno::Errno;

use crate::attach::attach_type::AttachType;
use crate::error::{Call, Error, Result};
use crate::object::ids::{MapId, ProgramId};
use crate::object::map::Map;
use crate::sys::{self, ObjectKind};

/// The number of characters of a program name that the kernel keeps.
pub const NAME_LEN: usize = 15;

/// The kernel's information about a program (`BPF_OBJ_GET_INFO_BY_FD`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The program's id.
    pub id: ProgramId,
    /// The program's name, cut to [`NAME_LEN`] characters.
    pub name: String,
    /// The program's tag: 16 hexadecimal digits, a hash of its instructions.
    pub tag: String,
    /// The program's type, under the name that bpftool uses.
    pub kind: String,
    /// The load time, in nanoseconds since boot.
    pub loaded_at_ns: u64,
    /// The uid of the user who loaded the program.
    pub uid: u32,
    /// The ids of the program's maps.
    pub map_ids: Vec<MapId>,
    /// The program has type information (BTF). A program without BTF has no readable metadata.
    pub has_btf: bool,
}

impl ProgramInfo {
    /// Returns the program's identity, which no other program of this boot has.
    pub fn identity(&self) -> ProgramIdentity {
        ProgramIdentity { id: self.id, tag: self.tag.clone(), loaded_at_ns: self.loaded_at_ns }
    }
}

/// Identifies one program of this boot, even after the kernel has reused the program's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgramIdentity {
    /// The program's id.
    pub id: ProgramId,
    /// The program's tag.
    pub tag: String,
    /// The load time, in nanoseconds since boot.
    pub loaded_at_ns: u64,
}

/// An open program. This process is one of its holders.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    info: ProgramInfo,
}

impl Program {
    /// Opens a program by its id. The kernel does not reuse the id while the program is open.
    ///
    /// Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// `Vanished` when no program has this id.
    pub fn open(id: ProgramId) -> Result<Self> {
        let fd = sys::fd_by_id(ObjectKind::Program, id.0)
            .map_err(|errno| Error::new(Call::FdById, format!("program {id}"), errno))?;
        Self::from_fd(fd)
    }

    /// Takes ownership of a program's descriptor, and reads the program's information from the kernel.
    ///
    /// # Errors
    /// `EINVAL` when the descriptor is not a program's.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let raw = sys::program_info(fd.as_fd())
            .map_err(|errno| Error::new(Call::Info, "a program", errno))?;
        let info = ProgramInfo {
            id: ProgramId(raw.id),
            name: raw.name,
            tag: hex::encode(raw.tag),
            kind: sys::program_type_name(raw.kind),
            loaded_at_ns: raw.load_time,
            uid: raw.uid,
            map_ids: raw.map_ids.into_iter().map(MapId).collect(),
            has_btf: raw.btf_id != 0,
        };
        Ok(Self { fd, info })
    }

    /// Loads a program whose only instruction is `return 1`. The program passes everything, at every attach type.
    ///
    /// The function serves probes and tests. The program ends with its last holder. Needs `CAP_BPF` and
    /// `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `EINVAL` when the name contains a character other than letters, digits, `_` and `.`.
    pub fn load_pass(name: &str, attach_type: AttachType) -> Result<Self> {
        Self::load_return(1, name, attach_type, None)
    }

    /// Loads a program like [`Program::load_pass`] does, but with `return 0`. The program refuses everything, such as
    /// each packet.
    ///
    /// Tests use it to see what happens to other people's firewalls.
    ///
    /// # Errors
    /// Those of [`Program::load_pass`].
    pub fn load_refuse(name: &str, attach_type: AttachType) -> Result<Self> {
        Self::load_return(0, name, attach_type, None)
    }

    /// Loads a program like [`Program::load_pass`] does, but for [`AttachType::LSM`] and one hook, such as
    /// `socket_bind`.
    ///
    /// Also needs type information (`CONFIG_DEBUG_INFO_BTF`), `CONFIG_BPF_LSM` and `CAP_PERFMON`.
    ///
    /// # Errors
    /// `ESRCH` or `ENOENT` when the kernel has no such hook.
    pub fn load_pass_on_hook(name: &str, hook: &str) -> Result<Self> {
        Self::load_return(1, name, AttachType::LSM, Some(hook))
    }

    fn load_return(
        value: i32,
        name: &str,
        attach_type: AttachType,
        hook: Option<&str>,
    ) -> Result<Self> {
        let fail = |errno| Error::new(Call::Load, format!("{name} ({attach_type})"), errno);
        let cut: String = name.chars().take(NAME_LEN).collect();
        let refuse = |errno, why: &str| {
            Error::found(Call::Load, format!("{name} ({attach_type})"), errno).with_detail(why)
        };
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| refuse(Errno::EINVAL, "a name has no NUL in it"))
        };
        let (c_name, c_hook) = (c_string(&cut)?, hook.map(c_string).transpose()?);
        let kind = match attach_type.program_type() {
            "cgroup_skb" => kernel::BPF_PROG_TYPE_CGROUP_SKB,
            "cgroup_sock" => kernel::BPF_PROG_TYPE_CGROUP_SOCK,
            "sock_ops" => kernel::BPF_PROG_TYPE_SOCK_OPS,
            "cgroup_device" => kernel::BPF_PROG_TYPE_CGROUP_DEVICE,
            "cgroup_sock_addr" => kernel::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            "cgroup_sysctl" => kernel::BPF_PROG_TYPE_CGROUP_SYSCTL,
            "cgroup_sockopt" => kernel::BPF_PROG_TYPE_CGROUP_SOCKOPT,
            "lsm" if hook.is_some() => kernel::BPF_PROG_TYPE_LSM,
            _ => return Err(refuse(Errno::EOPNOTSUPP, "no such program is made here")),
        };
        let hook = c_hook.as_deref();
        let fd =
            sys::load_return(value, kind, attach_type.kernel(), &c_name, hook).map_err(fail)?;
        Self::from_fd(fd)
    }

    /// Returns the information that the kernel gave when the program was opened.
    pub fn info(&self) -> &ProgramInfo {
        &self.info
    }

    /// Returns the program's locked memory in bytes, without its maps. bpftool shows it as `bytes_memlock`.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn memlock_bytes(&self) -> Result<u64> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::from_io(Call::ReadProc, &path, &error))?;
        text.lines()
            .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
            .ok_or_else(|| Error::found(Call::ReadProc, path, Errno::ENODATA))
    }

    /// Returns the read-only variables whose names begin with `prefix`. The key is the rest of the name; the value is
    /// the raw bytes.
    ///
    /// Names, offsets and sizes come from the type information. Returns `None` for a program without type information
    /// or read-only data.
    ///
    /// # Errors
    /// When the program's types or its map cannot be read. Needs `CAP_SYS_ADMIN`.
    pub fn variables(&self, prefix: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
        if !self.info.has_btf {
            return Ok(None);
        }
        let Some(section) = self.rodata()? else { return Ok(None) };
        Ok(Some(variables(&self.btf()?, &section, prefix)))
    }

    fn btf(&self) -> Result<Btf<'static>> {
        let info = self.info();
        Btf::from_prog_id(info.id.0).map_err(|error| {
            let target = format!("program {} ({})", info.id, info.name);
            Error::from_libbpf(Call::BtfFdById, target, &error).with_log(&error.to_string())
        })
    }

    /// Returns the name to show to people: [`Self::full_name`] if known, else the kernel's name.
    pub fn whole_name(&self) -> String {
        self.full_name().ok().flatten().unwrap_or_else(|| self.info().name.clone())
    }

    /// Returns the author's full name for the program, if the kernel has cut it. bpftool does the same: the name is
    /// that of the program's first function.
    ///
    /// Returns `None` when the kernel's name is complete, or when the type information has no longer name.
    ///
    /// # Errors
    /// When the program's types cannot be read. Needs `CAP_SYS_ADMIN`; Linux 5.0.
    pub fn full_name(&self) -> Result<Option<String>> {
        let info = self.info();
        if info.name.len() < NAME_LEN || !info.has_btf {
            return Ok(None);
        }
        let function = sys::first_function(self.as_fd())
            .map_err(|errno| Error::new(Call::Info, format!("program {}", info.id), errno))?;
        let Some(function) = function else { return Ok(None) };
        let btf = self.btf()?;
        let name = btf.type_by_id::<Func<'_>>(TypeId::from(function));
        let name = name.and_then(|it| it.name()?.to_str().map(str::to_owned));
        // The loader may give a program another name than its first function has.
        Ok(name.filter(|it| it.len() > NAME_LEN && it.starts_with(&info.name)))
    }

    /// Returns the contents of the program's read-only data.
    fn rodata(&self) -> Result<Option<Vec<u8>>> {
        for id in &self.info.map_ids {
            let map = Map::open(*id)?;
            if map.kind() == kernel::BPF_MAP_TYPE_ARRAY && map.name().ends_with(".rodata") {
                return map.lookup(&0_u32.to_ne_bytes());
            }
        }
        Ok(None)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn variables(btf: &Btf<'_>, section: &[u8], prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let Some(rodata) = btf.type_by_name::<DataSec<'_>>(".rodata") else { return BTreeMap::new() };
    rodata
        .iter()
        .filter_map(|variable| {
            let name = variable_name(btf, variable.ty)?;
            let start = usize::try_from(variable.offset).ok()?;
            let bytes = section.get(start..start.checked_add(variable.size)?)?;
            Some((name.strip_prefix(prefix)?.to_owned(), bytes.to_vec()))
        })
        .collect()
}

fn variable_name(btf: &Btf<'_>, id: TypeId) -> Option<String> {
    Some(btf.type_by_id::<Var<'_>>(id)?.name()?.to_str()?.to_owned())
}
