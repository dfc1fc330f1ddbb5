//! Lists what throttles have left in a world.

use std::io;
use std::path::Path;

use bpf::LinuxBpf;
use kernel::error::{Call, Error};
use kernel::{Result, objects};
use nix::errno::Errno;
use sim::{Census, Model, World};

use super::owners::Throttles;

/// A world that can list what throttles have left in it.
pub trait Surveyed: World {
    /// Lists the programs of this run's throttles, and what belongs to them.
    ///
    /// # Errors
    /// Returns errors of the kernel.
    fn census(&self) -> Result<Census>;
}

impl Surveyed for Model {
    fn census(&self) -> Result<Census> {
        Ok(Model::census(self))
    }
}

impl Surveyed for LinuxBpf {
    fn census(&self) -> Result<Census> {
        // Links come first. A link keeps its program, so the later answer has each link's program.
        let links = objects::cgroup_links()?.links;
        let Throttles { ours: programs, others_maps, .. } = Throttles::find()?;
        let pins = Path::new(kernel::pins::DEFAULT_BPFFS).join("chadthrottle");
        let pins = files_below(&pins).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            Error::new(Call::ObjGet, pins.display().to_string(), errno)
        })?;
        let maps = objects::maps()?.into_iter().filter(|map| map.name.starts_with("chad"));
        let maps = maps.map(|map| map.id).filter(|id| !others_maps.contains(id)).collect();
        let links = links.iter().filter(|link| programs.contains(&link.program_id));
        Ok(Census { links: links.map(|link| link.id).collect(), programs, pins, maps })
    }
}

/// Returns files and folders below a folder, or nothing if the folder does not exist.
fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let gone = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    };
    let listing = match std::fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(found),
        listing => listing?,
    };
    for entry in listing {
        let path = entry?.path();
        found.extend(files_below(&path)?);
        found.push(path.display().to_string());
    }
    Ok(found)
}
