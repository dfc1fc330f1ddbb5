//! The facts that the doctor judges.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bpf::advice::explained;
use bpf::throttle::{self, Parts};
use bpf::{LinuxBpf, Owner};
use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::cgroup::View;
use kernel::lineage::Lineage;
use kernel::offered::{Offered, offered};
use kernel::probe::Support;
use kernel::qdisc::{self, Device};
use kernel::{AttachType, ProgramId, pins, probe};

/// An answer, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// The answer.
    Is(T),
    /// This host does not have it.
    No(String),
    /// The caller lacks the right to ask, or the kernel refused the question.
    Unknown(String),
}

impl<T> Answer<T> {
    /// Converts a result. A refused call says nothing about the kernel, so it becomes `Unknown`. Of libbpf's page of
    /// text only the first line is kept.
    fn of(result: kernel::Result<T>) -> Self {
        match result {
            Ok(answer) => Self::Is(answer),
            Err(error) => {
                let said = first_line(&explained(&error)).to_owned();
                if error.is_no_answer() { Self::Unknown(said) } else { Self::No(said) }
            }
        }
    }

    pub(super) fn is(&self) -> Option<&T> {
        match self {
            Self::Is(answer) => Some(answer),
            Self::No(_) | Self::Unknown(_) => None,
        }
    }
}

pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// All facts.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) release: String,
    pub(super) cgroup2: Answer<Mounted>,
    pub(super) support: Answer<Support>,
    /// Whether the packet programs load.
    pub(super) packets: Answer<()>,
    /// Whether they load together with the program for TCP.
    pub(super) tcp: Answer<()>,
    /// Whether they load together with the programs of a download queue.
    pub(super) queue: Answer<()>,
    pub(super) bpffs: Answer<bool>,
    pub(super) devices: Answer<Vec<Device>>,
    pub(super) offered: Answer<Offered>,
    /// The cgroup that the user named, if any.
    pub(super) place: Option<Place>,
}

impl Facts {
    /// Tells whether no cgroup2 hierarchy is visible.
    pub(super) fn is_blind(&self) -> bool {
        matches!(self.cgroup2, Answer::No(_))
    }
}

/// The cgroup2 mount that shows the largest part of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) on: PathBuf,
    /// What the top of the mount is, unless the mount shows the whole hierarchy.
    pub(super) top: Option<&'static str>,
}

fn mounted() -> kernel::Result<Mounted> {
    let view = View::best()?;
    Ok(Mounted { on: view.point().to_owned(), top: view.top_in_words() })
}

/// The name and tag of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) tag: String,
}

/// The cgroup to be limited.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) lineages: Answer<Vec<Lineage>>,
    /// The names of the programs in these lists, as far as they could be read.
    pub(super) called: BTreeMap<ProgramId, Called>,
}

/// The attach types that a limit uses.
const ATTACH_TYPES: [AttachType; 3] =
    [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS];

pub(super) fn gather(cgroup: Option<&Path>) -> Facts {
    let load = |parts| -> kernel::Result<()> {
        let owner = Owner::this_process(env!("CARGO_PKG_VERSION"))?;
        throttle::load(&owner, 0, parts).map(drop)
    };
    let queue = Parts { tcp: false, queue: true };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    Facts {
        release: release.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
        cgroup2: Answer::of(mounted()),
        support: Answer::of(probe::support()),
        packets: Answer::of(LinuxBpf::new().and_then(|_| load(Parts::default()))),
        tcp: Answer::of(load(Parts::TCP)),
        queue: Answer::of(load(queue)),
        bpffs: Answer::of(pins::is_on_bpffs(Path::new(pins::DEFAULT_BPFFS))),
        devices: Answer::of(qdisc::devices(cgroup)),
        offered: Answer::of(offered()),
        place: cgroup.map(place),
    }
}

fn place(path: &Path) -> Place {
    let lists = || -> kernel::Result<_> {
        let kernel = LinuxBpf::new()?;
        let lineages = kernel.lineages(&kernel.open_cgroup(path)?, &ATTACH_TYPES)?;
        let called = called(&kernel, &lineages);
        Ok((lineages, called))
    };
    let (lineages, called) = match lists() {
        Ok((lineages, called)) => (Answer::Is(lineages), called),
        Err(error) => (Answer::of(Err(error)), BTreeMap::new()),
    };
    Place { path: path.to_owned(), lineages, called }
}

/// Reads the names of the programs. A program that disappears or cannot be opened has none.
fn called(kernel: &LinuxBpf, lineages: &[Lineage]) -> BTreeMap<ProgramId, Called> {
    let levels = lineages.iter().flat_map(|lineage| &lineage.levels);
    let listed = levels.flat_map(|level| level.list.programs.iter().map(|program| program.id));
    let ids = listed.chain(lineages.iter().flat_map(|lineage| lineage.in_force.iter().copied()));
    ids.filter_map(|id| {
        let info = kernel.program_info(id).ok()?;
        Some((id, Called { name: info.name, tag: info.tag }))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use kernel::error::{Call, Error};
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn what_the_kernel_does_not_have_is_no_and_is_told_in_a_line() {
        let refused = Error::new(Call::Load, "x", Errno::EINVAL).with_detail("why\nand more");
        let Answer::No(said) = Answer::<()>::of(Err(refused)) else { panic!() };
        assert!(said.ends_with("why"), "{said}");
        assert_eq!(Answer::of(Ok(7)), Answer::Is(7));
    }
}
