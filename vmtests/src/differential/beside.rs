//! Two machines to be compared: the model and the kernel that runs, or two models.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use bpf::LinuxBpf;
use bpf::cgroup::Cgroup;
use bpf::link::Link;
use bpf::program::Program;
use nix::errno::Errno;

use super::call::{Call, On};
use super::compare::{Compared, Difference, compare};
use crate::cgroup::ScratchCgroup;
use crate::isolation::isolate;
use crate::model::{Model, Version};

const PINS: &str = "/sys/fs/bpf/chadtest-differential";

/// What came of a comparison.
pub type Outcome = Result<Compared, Box<Difference>>;

/// The kernel that runs, and the model of its version, for any number of sequences one after another.
#[derive(Debug)]
pub struct Beside {
    kernel: LinuxBpf,
    version: Version,
    scratch: ScratchCgroup,
    /// Sequences so far, also those that differed.
    pub sequences: u64,
    /// Calls so far in which they agreed.
    pub calls: u64,
}

impl Beside {
    /// Gets ready: enters namespaces of its own (see [`isolate`]).
    ///
    /// # Errors
    /// When the kernel does not say what it can do.
    ///
    /// # Panics
    /// Without root.
    pub fn new() -> bpf::Result<Self> {
        isolate();
        let scratch = ScratchCgroup::new("differential");
        let (kernel, version) = (LinuxBpf::new()?, Version::running());
        let version = version.strict_updates(has_strict_updates(scratch.path())?);
        Ok(Self { kernel, version, scratch, sequences: 0, calls: 0 })
    }

    /// Runs a sequence on both; the kernel may take `later` for what it does after it has answered.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&mut self, calls: &[Call], later: Duration) -> Outcome {
        self.sequences += 1;
        let root = self.scratch.path().join(self.sequences.to_string());
        let model = Model::boot(self.version, self.scratch.path(), Path::new(PINS));
        let compared = compare(model, self.kernel, &root, Path::new(PINS), calls, later)?;
        self.calls += u64::try_from(compared.calls).unwrap_or(u64::MAX);
        Ok(compared)
    }
}

/// Whether a link refuses a program that could not be attached in its place. Tried with sockets: a program for packets may
/// often be attached in either direction.
fn has_strict_updates(cgroup: &Path) -> bpf::Result<bool> {
    let [of, other] = [On::SockCreate, On::PostBind].map(On::attach_type);
    let program = Program::load_pass("chadtest_update", of)?;
    let link = Link::create(program.as_fd(), &Cgroup::open(cgroup)?, of)?;
    match link.update(Program::load_pass("chadtest_update", other)?.as_fd(), None) {
        Err(error) if error.errno() == Errno::EINVAL => Ok(true),
        updated => updated.map(|()| false),
    }
}

/// Runs each sequence on two models.
pub fn models(one: Version, other: Version) -> impl FnMut(&[Call], Duration) -> Outcome {
    move |calls, _| {
        let (root, pins) = (Path::new("/cgroup"), Path::new(PINS));
        let boot = |version| Model::boot(version, root, pins);
        compare(boot(one), boot(other), &root.join("run"), pins, calls, Duration::ZERO)
    }
}
