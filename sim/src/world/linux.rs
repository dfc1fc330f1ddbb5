//! The running kernel as a [`World`]. It needs root, cgroup2 and loopback up.
//!
//! The kernel puts a socket into the cgroup of the process that makes it. So this process moves into a cgroup to make a
//! socket there, and back. No other thread should make sockets meanwhile.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpf::{LinuxBpf, ThrottleProgram};
use kernel::cgroup::Cgroup;
use kernel::error::Kind;
use kernel::link::Link;
use kernel::list::{self, AttachFlags, AttachOptions, DetachOptions};
use kernel::{AttachType, Program, ProgramId, Result};
use nix::errno::Errno;

use super::{Attach, World};

/// The longest wait for a packet to oneself. A missing packet is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process with a socket.
#[derive(Debug)]
pub struct LinuxProcess {
    child: Child,
    socket: UdpSocket,
}

impl Drop for LinuxProcess {
    fn drop(&mut self) {
        // The process only sleeps, so it does no harm if it has ended already.
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

/// Creates something while this process is in a cgroup.
fn inside<T>(cgroup: &Path, make: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let own = kernel::cgroup::of_process(std::process::id()).map_err(|error| error.errno())?;
    let mount = kernel::cgroup::cgroup2_mount().map_err(|error| error.errno())?;
    let move_to = |cgroup: &Path| {
        std::fs::write(cgroup.join("cgroup.procs"), "0").map_err(|error| errno(&error))
    };
    move_to(cgroup)?;
    let done = make();
    move_to(&kernel::cgroup::below(&mount, &own))?;
    done
}

impl World for LinuxBpf {
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
        inside(cgroup, || {
            let socket = bound_socket()?;
            let mut sleep = Command::new("sleep");
            let child = sleep.arg("infinity").stdin(Stdio::null()).spawn();
            Ok(LinuxProcess { child: child.map_err(|error| errno(&error))?, socket })
        })
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
        inside(cgroup, || Ok(LinuxSocket { _socket: bound_socket()? }))
    }

    fn load_pass(&self, name: &str, attach_type: AttachType) -> Result<ThrottleProgram> {
        Program::load_pass(name, attach_type).map(ThrottleProgram::from)
    }

    fn attach_with(
        &self,
        program: &ThrottleProgram,
        cgroup: &Cgroup,
        attach_type: AttachType,
        asked: &Attach<'_, ThrottleProgram>,
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
        program: Option<&ThrottleProgram>,
        cgroup: &Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let options = DetachOptions { flags, expected_revision };
        list::detach_with(program.map(AsFd::as_fd), cgroup, attach_type, &options)
    }

    fn link_update(
        &self,
        link: &Link,
        new: &ThrottleProgram,
        old: Option<&ThrottleProgram>,
    ) -> Result<()> {
        link.update(new.as_fd(), old.map(AsFd::as_fd))
    }

    fn program_name(&self, id: ProgramId) -> Result<Option<String>> {
        match Program::open(id) {
            Ok(program) => Ok(Some(program.info().name.clone())),
            Err(error) if error.kind() == Kind::Vanished => Ok(None),
            Err(error) => Err(error),
        }
    }
}
