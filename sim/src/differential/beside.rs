//! Two worlds to compare: the model and the running kernel, or two models.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::LinuxBpf;
use kernel::Program;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use nix::errno::Errno;

use super::call::{Call, On};
use super::compare::{Compared, Difference, compare};
use crate::{Model, Version};

const PINS: &str = "/sys/fs/bpf/chadtest-differential";

/// The outcome of a comparison.
pub type Outcome = Result<Compared, Box<Difference>>;

/// The running kernel and the model of its version, for any number of sequences one after another.
#[derive(Debug)]
pub struct Beside {
    kernel: LinuxBpf,
    version: Version,
    top: PathBuf,
    /// The number of sequences so far, including those that differed.
    pub sequences: u64,
    /// The number of calls so far on which both agreed.
    pub calls: u64,
}

impl Beside {
    /// Prepares a comparison. Each sequence gets a new cgroup in the empty cgroup `top`. Pins go into a folder of the
    /// bpffs at `/sys/fs/bpf`.
    ///
    /// # Errors
    /// Fails if the kernel's features cannot be determined.
    pub fn new(top: &Path) -> kernel::Result<Self> {
        let (kernel, version) = (LinuxBpf::new()?, Version::running());
        let version = version.strict_updates(has_strict_updates(top)?);
        Ok(Self { kernel, version, top: top.to_owned(), sequences: 0, calls: 0 })
    }

    /// Runs a sequence on both. The kernel may take `later` to finish what it does after a call has returned.
    ///
    /// # Errors
    /// Returns the first difference.
    pub fn compare(&mut self, calls: &[Call], later: Duration) -> Outcome {
        self.sequences += 1;
        let root = self.top.join(self.sequences.to_string());
        let model = Model::boot(self.version, &self.top, Path::new(PINS));
        let compared = compare(model, self.kernel, &root, Path::new(PINS), calls, later)?;
        self.calls += u64::try_from(compared.calls).unwrap_or(u64::MAX);
        Ok(compared)
    }
}

/// Tells whether an update of a link refuses a program of another attach type. It tries this with socket programs,
/// because many kernels accept a packet program in either direction.
fn has_strict_updates(cgroup: &Path) -> kernel::Result<bool> {
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
