//! What a program's own type information tells: its whole name, and who made it, from its `bpf_metadata_*` variables.
//!
//! These are constants in the program's `.rodata`. Names, places and sizes come from the type information, so that
//! programs of other versions can be read as well.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use libbpf_rs::btf::types::{DataSec, Func, Var};
use libbpf_rs::btf::{Btf, TypeId};
use libbpf_sys as kernel;

use crate::error::{Call, Error, Result};
use crate::owner::Owner;
use crate::program::{NAME_LEN, Program, open_map};
use crate::sys;

const PREFIX: &str = "bpf_metadata_";

impl Program {
    /// The owner that the program names. `None` when it names none, or not all of it.
    ///
    /// # Errors
    /// When the program's types or its map cannot be read. Needs `CAP_SYS_ADMIN`.
    pub fn owner(&self) -> Result<Option<Owner>> {
        Ok(self.metadata()?.and_then(|variables| parse_owner(&variables)))
    }

    /// The raw bytes of each metadata variable, by its name without the prefix.
    fn metadata(&self) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
        let info = self.info();
        if !info.has_btf {
            return Ok(None);
        }
        let Some(section) = self.rodata()? else { return Ok(None) };
        Ok(Some(metadata_variables(&self.btf()?, &section)))
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
        for id in &self.info().map_ids {
            let map = open_map(*id)?;
            if map.kind == kernel::BPF_MAP_TYPE_ARRAY && map.name.ends_with(".rodata") {
                return map
                    .lookup(&0_u32.to_ne_bytes())
                    .map_err(|errno| Error::new(Call::MapLookup, format!("map {id}"), errno));
            }
        }
        Ok(None)
    }
}

fn metadata_variables(btf: &Btf<'_>, section: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let Some(rodata) = btf.type_by_name::<DataSec<'_>>(".rodata") else { return BTreeMap::new() };
    rodata
        .iter()
        .filter_map(|variable| {
            let name = variable_name(btf, variable.ty)?;
            let start = usize::try_from(variable.offset).ok()?;
            let bytes = section.get(start..start.checked_add(variable.size)?)?;
            Some((name.strip_prefix(PREFIX)?.to_owned(), bytes.to_vec()))
        })
        .collect()
}

fn variable_name(btf: &Btf<'_>, id: TypeId) -> Option<String> {
    Some(btf.type_by_id::<Var<'_>>(id)?.name()?.to_str()?.to_owned())
}

pub(crate) fn parse_owner(variables: &BTreeMap<String, Vec<u8>>) -> Option<Owner> {
    let number = |name: &str| -> Option<u64> {
        let bytes = variables.get(name)?;
        match bytes.len() {
            4 => Some(u32::from_ne_bytes(bytes.as_slice().try_into().ok()?).into()),
            8 => Some(u64::from_ne_bytes(bytes.as_slice().try_into().ok()?)),
            _ => None,
        }
    };
    let text = |name: &str| -> Option<String> {
        let bytes = variables.get(name)?.split(|&byte| byte == 0).next()?;
        String::from_utf8(bytes.to_vec()).ok()
    };
    Some(Owner {
        pid: u32::try_from(number("owner_pid")?).ok().filter(|&pid| pid != 0)?,
        start_time: number("owner_start")?,
        pid_namespace: u32::try_from(number("owner_pidns")?).ok()?,
        boot_id: text("owner_boot")?,
        version: text("version")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, Vec<u8>> {
        [
            ("owner_pid", 42_u32.to_ne_bytes().to_vec()),
            ("owner_start", 4_242_u64.to_ne_bytes().to_vec()),
            ("owner_pidns", 7_u32.to_ne_bytes().to_vec()),
            ("owner_boot", b"a-b\0\0\0".to_vec()),
            ("version", b"1.2.3\0".to_vec()),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into()
    }

    #[test]
    fn an_owner_is_read_from_its_variables() {
        let owner = Owner {
            pid: 42,
            start_time: 4_242,
            pid_namespace: 7,
            boot_id: "a-b".to_owned(),
            version: "1.2.3".to_owned(),
        };
        assert_eq!(parse_owner(&variables()), Some(owner));
    }

    #[test]
    fn half_an_owner_is_none() {
        for name in variables().into_keys() {
            let mut some = variables();
            some.remove(&name);
            assert_eq!(parse_owner(&some), None, "without {name}");
        }
        let mut nobody = variables();
        nobody.insert("owner_pid".to_owned(), vec![0; 4]);
        assert_eq!(parse_owner(&nobody), None);
    }
}
