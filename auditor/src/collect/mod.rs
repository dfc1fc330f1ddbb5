//! Collecting the facts: the only part of the auditor, beside the cleaning, that asks the host anything.

mod attachments;
mod devices;
mod host;
mod inventory;
mod look;
mod method;
mod programs;
mod surroundings;
mod walk;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::cgroup::{Cgroup, View, below, find, relative_to};
use bpf::clocks::Shift;
use bpf::error::Kind;
use bpf::{AttachType, CgroupId, probe};
use nix::time::{ClockId, clock_gettime};

use self::attachments::shown;
use self::host::{Clock, host};
pub(crate) use self::look::object;
use self::look::{Extent, Eye};
pub use self::method::Method;
use crate::classify::{DEFAULT_PROGRAMS, Key, Ours, unsettled};
use crate::exit::usage;
use crate::snapshot::{Gap, Host, Look, SCHEMA_VERSION, Scope, Snapshot, Subject, Timings, Tool};

/// How often at most the host is looked at until nothing new is suspicious.
const MAX_LOOKS: usize = 5;

/// The longest path that the kernel takes, with its NUL (`limits.h`).
const PATH_MAX: usize = 4096;

/// The time between two looks, unless somebody says otherwise.
pub const DEFAULT_SETTLE: Duration = Duration::from_millis(200);

/// How much to look at beside what is attached to cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// Pins and holders, where a program of ours is.
    Ours,
    /// Those of others' programs, too.
    Everybody,
    /// Every program, link and map of any type, too, and the pins and holders of all of them: an inventory.
    Everything,
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only this cgroup and what is below it: a path in the file system, or one relative to the cgroup2
    /// mount. `/` is all.
    pub root: PathBuf,
    /// Names of programs that count as ours, as globs; none is [`DEFAULT_PROGRAMS`].
    pub programs: Vec<String>,
    /// Only these attach types; none is every one that the kernel knows.
    pub attach_types: Vec<AttachType>,
    /// How much to look at beside what is attached to cgroups.
    pub breadth: Breadth,
    /// How the cgroups are gone over. (Where a look is only at some of them they are always queried.)
    pub method: Method,
    /// The time between two looks.
    pub settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: "/".into(),
            programs: Vec::new(),
            attach_types: Vec::new(),
            breadth: Breadth::Ours,
            method: Method::default(),
            settle: DEFAULT_SETTLE,
        }
    }
}

/// Takes a snapshot of this host. Needs root (`CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE`);
/// without it the snapshot has gaps that say so. Changes nothing and leaves nothing behind.
///
/// A look that shows suspects, or programs that cannot be judged, is followed by another one, until it shows none that
/// the one before did not, so that a throttle that is just being set up or taken down is not taken for a leak. The later ones
/// ask only the cgroups of the suspects again, and take what is attached elsewhere from the look before:
/// what is attached meanwhile to another cgroup is not in the report. Everything else (programs, links,
/// processes, pins, the ledger) is read anew. Where a suspect is attached nowhere every cgroup is asked
/// again, because it may have been attached to any of them.
///
/// # Errors
/// When there is no cgroup2 hierarchy, no such cgroup, or no procfs.
pub fn collect(options: &Options) -> anyhow::Result<Snapshot> {
    Collector::new(options)?.snapshot(options.settle)
}

/// Looks at the host, as often as it is asked to.
pub(crate) struct Collector {
    mount: PathBuf,
    scope: Scope,
    /// The attach types of the scope that the kernel knows.
    types: Vec<AttachType>,
    program_flags: bool,
    ours: Ours,
    breadth: Breadth,
    method: Method,
    host: Host,
    clock: Clock,
    gaps: Vec<Gap>,
}

impl Collector {
    /// Finds out what the kernel can do, and what of it is asked for.
    ///
    /// # Errors
    /// When there is no cgroup2 hierarchy, no such cgroup, or no procfs.
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        let view = View::best()?;
        let mount = view.point().to_owned();
        let (path, root) = begin(&view, &options.root)?;
        let scope = Scope {
            root: path,
            programs: match &options.programs[..] {
                [] => vec![DEFAULT_PROGRAMS.to_owned()],
                globs => globs.to_vec(),
            },
            attach_types: match &options.attach_types[..] {
                [] => AttachType::all().collect(),
                // Each once, in the kernel's order.
                types => types.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
            },
        };
        let mut gaps: Vec<Gap> = hidden_root(&view, &scope.root).into_iter().collect();
        let support = probe::support();
        let program_flags = support.as_ref().is_ok_and(|support| support.program_flags);
        let types = known_types(&root, &scope.attach_types, program_flags, &mut gaps)?;
        // Where nothing may be asked at all there is a gap that says so already.
        if let (Err(error), false) = (&support, types.is_empty()) {
            gaps.push(gap(Subject::Cgroups, "what this kernel can do", error));
        }
        // Where it is unknown, wall times of loads are off by it; nothing is judged by them.
        let shift = Shift::of_this_process().unwrap_or_default();
        Ok(Self {
            mount,
            types,
            program_flags,
            // What is no glob is told of when the snapshot is classified.
            ours: Ours::new(&scope.programs).0,
            breadth: options.breadth,
            method: options.method,
            host: host()?,
            clock: Clock::now(shift.boottime)?,
            gaps,
            scope,
        })
    }

    /// The time since boot, in nanoseconds, as the load times of programs have it, which no time namespace shifts; none where
    /// the shift of this process's own is not known.
    pub(crate) fn now_ns() -> Option<u64> {
        let shift = Shift::of_this_process()?.boottime;
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
        let seconds = u64::try_from(now.tv_sec()).ok()?.checked_mul(1_000_000_000)?;
        let now = seconds.checked_add(u64::try_from(now.tv_nsec()).ok()?)?;
        now.checked_add_signed(shift.checked_neg()?)
    }

    /// Where the cgroup2 hierarchy is mounted.
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    /// Looks until nothing new is suspicious.
    ///
    /// # Errors
    /// `Vanished` when the cgroup where the scope begins has gone.
    pub(crate) fn snapshot(&self, settle: Duration) -> anyhow::Result<Snapshot> {
        let start = Instant::now();
        let mut timings = Timings::default();
        let whole = Extent::Tree(&self.scope.root);
        let mut looks = vec![self.look(whole, &mut timings)?];
        let unsettled = |look: &Look| unsettled(look, &self.host, &self.scope);
        let mut suspected = unsettled(&looks[0]);
        let mut taken = 1;
        while !suspected.is_empty() && taken < MAX_LOOKS {
            let settling = Instant::now();
            let suspects = suspected.len();
            tracing::debug!(suspects, "not all is settled: looking again in {settle:?}");
            sleep(settle);
            timings.settle += milliseconds(settling.elapsed());
            let before = &looks[looks.len() - 1];
            let cgroups = cgroups_of(&suspected).filter(|it| self.can_be_opened(before, it));
            let extent = cgroups.as_ref().map_or(whole, |cgroups| Extent::Some(before, cgroups));
            let look = self.look(extent, &mut timings)?;
            looks.push(look);
            looks.drain(..looks.len() - 2);
            taken += 1;
            let before = std::mem::replace(&mut suspected, unsettled(&looks[1]));
            let is_making_links = !looks[1].coverage.changing_links.is_empty();
            if suspected.is_subset(&before) && !is_making_links {
                break;
            }
        }
        Ok(self.told(self.scope.clone(), looks, timings, start))
    }

    /// None of the cgroups has a path that is longer than the kernel takes. (A walk gets there all the same.)
    fn can_be_opened(&self, look: &Look, cgroups: &HashSet<CgroupId>) -> bool {
        let longest = PATH_MAX - self.mount.as_os_str().len() - 1;
        let mut suspects = look.attachments.iter().filter(|it| cgroups.contains(&it.cgroup_id));
        suspects.all(|it| it.cgroup.as_os_str().len() < longest)
    }

    /// Looks once more at one cgroup, without what is below it; or, at None, at the whole scope.
    ///
    /// # Errors
    /// `Vanished` when that cgroup has gone.
    pub(crate) fn again(&self, cgroup: Option<&Path>) -> bpf::Result<Snapshot> {
        let start = Instant::now();
        let mut timings = Timings::default();
        let extent = cgroup.map_or(Extent::Tree(&self.scope.root), Extent::Alone);
        let look = self.look(extent, &mut timings)?;
        let root = cgroup.unwrap_or(&self.scope.root).to_owned();
        Ok(self.told(Scope { root, ..self.scope.clone() }, vec![look], timings, start))
    }

    fn look(&self, extent: Extent<'_>, timings: &mut Timings) -> bpf::Result<Look> {
        let path = match extent {
            Extent::Tree(path) | Extent::Alone(path) => path,
            Extent::Some(..) => &self.scope.root,
        };
        let cgroup = Cgroup::open(&below(&self.mount, path))?;
        Ok(Eye {
            cgroup: &cgroup,
            mount: &self.mount,
            extent,
            types: &self.types,
            program_flags: self.program_flags,
            ours: &self.ours,
            breadth: self.breadth,
            method: self.method,
            scope: &self.scope,
            clock: &self.clock,
            gaps: &self.gaps,
        }
        .look(timings))
    }

    fn told(&self, scope: Scope, looks: Vec<Look>, timings: Timings, start: Instant) -> Snapshot {
        if let Some(last) = looks.last() {
            tracing::debug!(
                method = %last.method,
                cgroups = last.coverage.cgroups_visited,
                programs = last.programs.len(),
                pins = last.pins.len(),
                holders = last.holders.len(),
                took = ?start.elapsed(),
                "the host was looked at"
            );
            tracing::debug!("{}", in_words(&timings));
        }
        Snapshot {
            schema_version: SCHEMA_VERSION,
            tool: Tool::this(),
            host: self.host.clone(),
            scope,
            looks,
            duration_ms: milliseconds(start.elapsed()),
            timings_ms: timings,
        }
    }
}

/// Which part took how long.
fn in_words(timings: &Timings) -> String {
    let Timings { load, walk, objects, holders, pins, settle } = timings;
    format!(
        "of that, loading took {load:.1} ms, the cgroups {walk:.1} ms, programs and links {objects:.1} ms, processes \
         {holders:.1} ms, pins {pins:.1} ms, and waiting {settle:.1} ms"
    )
}

/// The cgroups that the suspects are attached to; none if a program is attached nowhere. Network devices have nothing
/// to do with cgroups.
fn cgroups_of(suspects: &BTreeSet<Key>) -> Option<HashSet<CgroupId>> {
    suspects.iter().filter(|suspect| !suspect.is_device()).map(Key::cgroup).collect()
}

/// The cgroup that a user named, and its path relative to the mount.
fn begin(view: &View, named: &Path) -> anyhow::Result<(PathBuf, Cgroup)> {
    if named == Path::new("/") {
        // All that is to be seen, whatever else the path may mean in a cgroup namespace.
        return Ok((named.to_owned(), Cgroup::open(view.point())?));
    }
    let root = find(named)?;
    let path = relative_to(view.point(), root.path()).ok_or_else(|| {
        let (root, mount) = (shown(root.path()), shown(view.point()));
        usage(format!("{root} is not below the cgroup2 mount, {mount}"))
    })?;
    Ok((path, root))
}

/// A look at "everything" that does not begin at the hierarchy's true root is not one.
fn hidden_root(view: &View, path: &Path) -> Option<Gap> {
    let top = view.top_in_words().filter(|_| path == Path::new("/"))?;
    Some(Gap {
        about: Subject::Cgroups,
        what: "the rest of the cgroup2 hierarchy".to_owned(),
        why: format!(
            "the top of {} is {top}, and paths are relative to it; run it on the host, or look at this part alone with \
             'chadthrottle-audit scan --root PATH'",
            shown(view.point())
        ),
    })
}

/// Which of the attach types the kernel knows. Where it does not let us ask there are none, and a gap.
fn known_types(
    root: &Cgroup,
    asked: &[AttachType],
    program_flags: bool,
    gaps: &mut Vec<Gap>,
) -> anyhow::Result<Vec<AttachType>> {
    let known = match probe::attach_types(root, asked.iter().copied(), program_flags) {
        Ok(known) => known,
        Err(error) if error.kind() == Kind::Denied || error.has_no_bpf() => {
            // One gap for the reason, not one for each of thousands of cgroups.
            gaps.push(gap(Subject::Cgroups, "the programs attached to cgroups", &error));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    if known.is_empty() {
        let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
        let asked = asked.join(", ");
        return Err(usage(format!("this kernel has none of these attach types: {asked}")).into());
    }
    Ok(known)
}

/// What it is about is said already, so the error's reason will do.
fn gap(about: Subject, what: impl Into<String>, why: &bpf::Error) -> Gap {
    Gap { about, what: what.into(), why: why.why() }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
