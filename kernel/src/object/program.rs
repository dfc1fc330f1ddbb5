//! Loaded programs: what the kernel says of them, and what their own type information tells.

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

/// The kernel keeps this many characters of a name.
pub const NAME_LEN: usize = 15;

/// What the kernel says of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its id.
    pub id: ProgramId,
    /// Its name, at most [`NAME_LEN`] characters of what its author called it.
    pub name: String,
    /// Its tag: 16 hexadecimal digits that depend on its instructions.
    pub tag: String,
    /// Its type, as bpftool names it.
    pub kind: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
    /// The user who loaded it.
    pub uid: u32,
    /// Its maps.
    pub map_ids: Vec<MapId>,
    /// Whether it came with type information, without which it has no readable metadata.
    pub has_btf: bool,
}

impl ProgramInfo {
    /// What tells it from every other program of this boot.
    pub fn identity(&self) -> ProgramIdentity {
        ProgramIdentity { id: self.id, tag: self.tag.clone(), loaded_at_ns: self.loaded_at_ns }
    }
}

/// Tells a program from every other one of this boot, also after the kernel gave its id to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgramIdentity {
    /// Its id.
    pub id: ProgramId,
    /// Its tag.
    pub tag: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
}

/// A loaded program, held by this process.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    info: ProgramInfo,
}

impl Program {
    /// Opens a program by its id. Needs `CAP_SYS_ADMIN`. While it is open, no other program gets the id.
    ///
    /// # Errors
    /// `Vanished` when there is none with that id.
    pub fn open(id: ProgramId) -> Result<Self> {
        let fd = sys::fd_by_id(ObjectKind::Program, id.0)
            .map_err(|errno| Error::new(Call::FdById, format!("program {id}"), errno))?;
        Self::from_fd(fd)
    }

    /// Takes over a descriptor of a program, and asks the kernel what it says of it.
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

    /// Loads the smallest program of a type, `return 1`, under a name of one's choice; it does nothing
    /// wherever it is attached. For trying out and testing what the kernel does. It goes with its last
    /// holder. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `EINVAL` when the name has other characters than letters, digits, `_` and `.`.
    pub fn load_pass(name: &str, attach_type: AttachType) -> Result<Self> {
        Self::load_return(1, name, attach_type, None)
    }

    /// The same with `return 0`: it refuses whatever it is asked about, a packet say. For testing what becomes of
    /// other people's firewalls.
    ///
    /// # Errors
    /// As [`Program::load_pass`].
    pub fn load_refuse(name: &str, attach_type: AttachType) -> Result<Self> {
        Self::load_return(0, name, attach_type, None)
    }

    /// The same for [`AttachType::LSM`], on one of the hooks of security modules, such as `socket_bind`. Needs
    /// type information (`CONFIG_DEBUG_INFO_BTF`), `CONFIG_BPF_LSM`, and `CAP_PERFMON`.
    ///
    /// # Errors
    /// `ESRCH` or `ENOENT` when there is no such hook.
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

    /// What the kernel said of it when it was opened.
    pub fn info(&self) -> &ProgramInfo {
        &self.info
    }

    /// What it takes of locked memory in bytes, as bpftool's `bytes_memlock`: the program alone, not its
    /// maps.
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

    /// Returns the variables in the program's read-only data whose names begin with `prefix`, as raw bytes by the rest of
    /// their names. Names, places and sizes come from the type information. `None` without type information or data.
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

    /// Its name for people: [`Self::full_name`] where that is known, else the kernel's.
    pub fn whole_name(&self) -> String {
        self.full_name().ok().flatten().unwrap_or_else(|| self.info().name.clone())
    }

    /// The name that its author gave it, where the kernel has kept only the beginning: that of its first function, as
    /// bpftool shows it. `None` when the kernel's name is whole, or nothing tells more.
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
        // Whoever loads a program may give it another name than its function's.
        Ok(name.filter(|it| it.len() > NAME_LEN && it.starts_with(&info.name)))
    }

    /// The contents of the program's read-only data.
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
