//! The running kernel as a lab.
//!
//! Its user is alone in its namespaces, with loopback up (see [`crate::isolation::isolate`]), and is a single
//! thread: it enters cgroups to make sockets in them.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpf::cgroup::Cgroup;
use bpf::error::{Call, Error, Kind};
use bpf::link::Link;
use bpf::list::{self, AttachFlags, AttachOptions, DetachOptions};
use bpf::program::Program;
use bpf::{AttachType, LinuxBpf, ProgramId, Result, objects};
use nix::errno::Errno;

use super::owners::Throttles;
use super::{Attach, Census, Lab};
use crate::cgroup::enter;

/// How long a packet to oneself may take: one that does not come is an error, and not waited for for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process with a socket.
#[derive(Debug)]
pub struct LinuxProcess {
    child: Child,
    socket: UdpSocket,
}

impl Drop for LinuxProcess {
    fn drop(&mut self) {
        // It does nothing but sleep: if it is gone already, so much the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket.
#[derive(Debug)]
pub struct LinuxSocket {
    _socket: UdpSocket,
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn bound_socket() -> nix::Result<UdpSocket> {
    let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let patient = bound.and_then(|socket| {
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    });
    patient.map_err(|error| errno(&error))
}

impl Lab for LinuxBpf {
    type Process = LinuxProcess;
    type Socket = LinuxSocket;

    fn create_cgroup(&self, path: &Path) -> nix::Result<()> {
        std::fs::create_dir(path).map_err(|error| errno(&error))
    }

    fn remove_cgroup(&self, path: &Path) -> nix::Result<()> {
        std::fs::remove_dir(path).map_err(|error| errno(&error))
    }

    fn spawn(&self, cgroup: &Path) -> nix::Result<LinuxProcess> {
        cgroup.symlink_metadata().map_err(|error| errno(&error))?;
        let _inside = enter(cgroup);
        let socket = bound_socket()?;
        let child = Command::new("sleep")
            .arg("infinity")
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| errno(&error))?;
        Ok(LinuxProcess { child, socket })
    }

    fn pid(&self, process: &LinuxProcess) -> u32 {
        process.child.id()
    }

    fn move_to(&self, process: &LinuxProcess, cgroup: &Path) -> nix::Result<()> {
        std::fs::write(cgroup.join("cgroup.procs"), process.child.id().to_string())
            .map_err(|error| errno(&error))
    }

    fn send(&self, process: &LinuxProcess) -> nix::Result<()> {
        let socket = &process.socket;
        let sent = socket.local_addr().and_then(|own| socket.send_to(&[0; 72], own));
        sent.and_then(|_| socket.recv(&mut [0; 72])).map(drop).map_err(|error| errno(&error))
    }

    fn open_socket(&self, cgroup: &Path) -> nix::Result<LinuxSocket> {
        cgroup.symlink_metadata().map_err(|error| errno(&error))?;
        let _inside = enter(cgroup);
        Ok(LinuxSocket { _socket: bound_socket()? })
    }

    fn load_pass(&self, name: &str, attach_type: AttachType) -> Result<Program> {
        Program::load_pass(name, attach_type)
    }

    fn attach_with(
        &self,
        program: &Program,
        cgroup: &Cgroup,
        attach_type: AttachType,
        asked: &Attach<'_, Program>,
    ) -> Result<()> {
        let options = AttachOptions {
            flags: asked.flags,
            replace: asked.replace.map(AsFd::as_fd),
            expected_revision: asked.expected_revision,
        };
        list::attach_with(program.as_fd(), cgroup, attach_type, &options)
    }

    fn detach_with(
        &self,
        program: Option<&Program>,
        cgroup: &Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let options = DetachOptions { flags, expected_revision };
        list::detach_with(program.map(AsFd::as_fd), cgroup, attach_type, &options)
    }

    fn link_update(&self, link: &Link, new: &Program, old: Option<&Program>) -> Result<()> {
        link.update(new.as_fd(), old.map(AsFd::as_fd))
    }

    fn program_name(&self, id: ProgramId) -> Result<Option<String>> {
        match Program::open(id) {
            Ok(program) => Ok(Some(program.info().name.clone())),
            Err(error) if error.kind() == Kind::Vanished => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn census(&self) -> Result<Census> {
        // Links first: a link keeps its program, so each link's program is in the later answer.
        let links = objects::cgroup_links()?.links;
        let Throttles { ours: programs, others_maps, .. } = Throttles::find()?;
        let pins = Path::new(bpf::pins::DEFAULT_BPFFS).join("chadthrottle");
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

/// Files and folders below a folder; none where there is no such folder.
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
