//! Collects the facts. Apart from cleaning, only this part of the auditor asks the host anything.

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

use kernel::cgroup::{Cgroup, View, below, find, relative_to};
use kernel::clocks::Shift;
use kernel::error::Kind;
use kernel::{AttachType, CgroupId, probe};
use nix::time::{ClockId, clock_gettime};

use self::attachments::shown;
use self::host::{Clock, host};
use self::look::{Extent, Eye};
pub use self::method::Method;
use crate::facts::{Gap, Look, SCHEMA_VERSION, Scope, Snapshot, Subject, Timings, Tool, Vantage};
use crate::judge::{DEFAULT_PROGRAMS, Key, Ours, unsettled};

/// The maximum number of looks before the audit stops waiting for suspects to settle.
const MAX_LOOKS: usize = 5;

/// The kernel's limit for a path, in bytes, including the final NUL (`limits.h`).
const PATH_MAX: usize = 4096;

/// The time between two looks, unless the caller sets another.
pub const DEFAULT_SETTLE: Duration = Duration::from_millis(200);

/// What to look at in addition to the attachments on cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// Pins and holders, but only if the look finds a program of ours.
    Ours,
    /// Pins and holders in any case, for other tools' programs as well.
    Everybody,
    /// An inventory: every program, link and map of any type, with all pins and holders.
    Everything,
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cgroup at the top of the audit: a path in the file system, or one relative to the cgroup2 mount. `/` means
    /// the whole hierarchy.
    pub root: PathBuf,
    /// The names of programs that count as ours, as globs. An empty list means [`DEFAULT_PROGRAMS`].
    pub programs: Vec<String>,
    /// The attach types to query. An empty list means every type that the kernel knows.
    pub attach_types: Vec<AttachType>,
    /// What to look at in addition to the attachments on cgroups.
    pub breadth: Breadth,
    /// The method for querying cgroups. (A look that covers only some cgroups always uses queries.)
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

/// The error for [`Options`] that name something that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The cgroup belongs to another hierarchy or another mount.
    #[error("{root} is not below the cgroup2 mount, {mount}")]
    Elsewhere {
        /// The cgroup.
        root: String,
        /// Where the cgroup2 hierarchy is mounted.
        mount: String,
    },
    /// The kernel knows none of the attach types. The string lists them, separated by commas.
    #[error("this kernel has none of these attach types: {0}")]
    UnknownTypes(String),
}

/// Takes a snapshot of this host. Needs root (`CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE`); without it the
/// snapshot has gaps that say so. Changes nothing and leaves nothing behind.
///
/// A look with suspects, or with programs that cannot be judged, leads to another look. The looks end when one shows
/// no suspect that is new. So the audit does not mistake a throttle that somebody is setting up or taking down for
/// a leak.
///
/// The later looks query only the suspects' cgroups, and take other attachments from the look before. The report
/// therefore misses programs that somebody attaches meanwhile to another cgroup. Every look reads everything else anew:
/// programs, links, processes, pins and the ledger. If a suspect is attached nowhere, the next look queries every
/// cgroup, because somebody may have attached the suspect to any of them.
///
/// # Errors
/// The host has no cgroup2 hierarchy, no such cgroup, or no procfs.
pub fn collect(options: &Options) -> anyhow::Result<Snapshot> {
    Collector::new(options)?.snapshot(options.settle)
}

/// Takes looks at the host.
pub struct Collector {
    mount: PathBuf,
    scope: Scope,
    /// The attach types in scope that the kernel knows.
    types: Vec<AttachType>,
    program_flags: bool,
    ours: Ours,
    breadth: Breadth,
    method: Method,
    host: Vantage,
    clock: Clock,
    gaps: Vec<Gap>,
}

impl Collector {
    /// Finds out what the kernel supports, and which requested attach types it knows.
    ///
    /// # Errors
    /// The host has no cgroup2 hierarchy, no such cgroup, or no procfs.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
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
                // List each type once, in the kernel's order.
                types => types.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
            },
        };
        let mut gaps: Vec<Gap> = hidden_root(&view, &scope.root).into_iter().collect();
        let support = probe::support();
        let program_flags = support.as_ref().is_ok_and(|support| support.program_flags);
        let types = known_types(&root, &scope.attach_types, program_flags, &mut gaps)?;
        // If the kernel refuses every query, a gap already says so.
        if let (Err(error), false) = (&support, types.is_empty()) {
            gaps.push(gap(Subject::Cgroups, "what this kernel can do", error));
        }
        // An unknown shift makes wall-clock load times wrong, but no finding depends on them.
        let shift = Shift::of_this_process().unwrap_or_default();
        Ok(Self {
            mount,
            types,
            program_flags,
            // Classifying the snapshot reports globs that are invalid.
            ours: Ours::new(&scope.programs).0,
            breadth: options.breadth,
            method: options.method,
            host: host()?,
            clock: Clock::now(shift.boottime)?,
            gaps,
            scope,
        })
    }

    /// Returns the time since boot, in nanoseconds, on the clock of programs' load times. No time namespace shifts that
    /// clock. Returns `None` if the shift of this process's time namespace is unknown.
    pub fn now_ns() -> Option<u64> {
        let shift = Shift::of_this_process()?.boottime;
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
        let seconds = u64::try_from(now.tv_sec()).ok()?.checked_mul(1_000_000_000)?;
        let now = seconds.checked_add(u64::try_from(now.tv_nsec()).ok()?)?;
        now.checked_add_signed(shift.checked_neg()?)
    }

    /// Returns the mount point of the cgroup2 hierarchy.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Takes looks until no suspect is new.
    ///
    /// # Errors
    /// `Vanished` if somebody has removed the cgroup at the top of the scope.
    pub fn snapshot(&self, settle: Duration) -> anyhow::Result<Snapshot> {
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

    /// Tells whether every suspect's cgroup has a path that the kernel accepts. (A walk works with longer paths as
    /// well.)
    fn can_be_opened(&self, look: &Look, cgroups: &HashSet<CgroupId>) -> bool {
        let longest = PATH_MAX - self.mount.as_os_str().len() - 1;
        let mut suspects = look.attachments.iter().filter(|it| cgroups.contains(&it.cgroup_id));
        suspects.all(|it| it.cgroup.as_os_str().len() < longest)
    }

    /// Takes one more look at a single cgroup without its descendants, or, with `None`, at the whole scope.
    ///
    /// # Errors
    /// `Vanished` if somebody has removed that cgroup.
    pub fn again(&self, cgroup: Option<&Path>) -> kernel::Result<Snapshot> {
        let start = Instant::now();
        let mut timings = Timings::default();
        let extent = cgroup.map_or(Extent::Tree(&self.scope.root), Extent::Alone);
        let look = self.look(extent, &mut timings)?;
        let root = cgroup.unwrap_or(&self.scope.root).to_owned();
        Ok(self.told(Scope { root, ..self.scope.clone() }, vec![look], timings, start))
    }

    fn look(&self, extent: Extent<'_>, timings: &mut Timings) -> kernel::Result<Look> {
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

/// Says how long each part took.
fn in_words(timings: &Timings) -> String {
    let Timings { load, walk, objects, holders, pins, settle } = timings;
    format!(
        "of that, loading took {load:.1} ms, the cgroups {walk:.1} ms, programs and links {objects:.1} ms, processes \
         {holders:.1} ms, pins {pins:.1} ms, and waiting {settle:.1} ms"
    )
}

/// Returns the cgroups that the suspects are attached to; `None` if a program is attached nowhere. Network devices
/// have nothing to do with cgroups.
fn cgroups_of(suspects: &BTreeSet<Key>) -> Option<HashSet<CgroupId>> {
    suspects.iter().filter(|suspect| !suspect.is_device()).map(Key::cgroup).collect()
}

/// Opens the cgroup that the user named. Also returns its path relative to the mount.
fn begin(view: &View, named: &Path) -> anyhow::Result<(PathBuf, Cgroup)> {
    if named == Path::new("/") {
        // `/` means everything visible, even where the path means something else in a cgroup namespace.
        return Ok((named.to_owned(), Cgroup::open(view.point())?));
    }
    let root = find(named)?;
    let path = relative_to(view.point(), root.path()).ok_or_else(|| {
        let (root, mount) = (shown(root.path()), shown(view.point()));
        Unusable::Elsewhere { root, mount }
    })?;
    Ok((path, root))
}

/// Returns a gap if a look at "everything" does not begin at the true root of the hierarchy.
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

/// Returns the attach types that the kernel knows. If the kernel refuses to answer, returns none and adds a gap.
fn known_types(
    root: &Cgroup,
    asked: &[AttachType],
    program_flags: bool,
    gaps: &mut Vec<Gap>,
) -> anyhow::Result<Vec<AttachType>> {
    let known = match probe::attach_types(root, asked.iter().copied(), program_flags) {
        Ok(known) => known,
        Err(error) if error.kind() == Kind::Denied || error.has_no_bpf() => {
            // Add one gap for the reason, not one for each of thousands of cgroups.
            gaps.push(gap(Subject::Cgroups, "the programs attached to cgroups", &error));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    if known.is_empty() {
        let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
        let asked = asked.join(", ");
        return Err(Unusable::UnknownTypes(asked).into());
    }
    Ok(known)
}

/// Makes a gap. The gap already names its subject, so it needs only the error's reason.
fn gap(about: Subject, what: impl Into<String>, why: &kernel::Error) -> Gap {
    Gap { about, what: what.into(), why: bpf::advice::why(why) }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
