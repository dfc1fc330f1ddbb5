//! Waits for a limit's end and follows its cgroup's path. A service that restarts gets a new cgroup at that path.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use bpf::LinuxBpf;
use bpf::advice::explained;
use bpf::limits::Traffic;
use kernel::CgroupId;
use kernel::cgroup::Cgroup;
use kernel::error::Kind;
use terminal::exit::not_done;
use throttle_core::mode::Tcp;
use throttle_core::neighbours::Neighbour;
use throttle_core::{Engine, Error, Health, Removed, Spec, Started, ThrottleId, ThrottleStatus};

use crate::adopted::tell_of_open_sockets;
use crate::course::Course;
use crate::former::Former;
use crate::hold::Holder;
use crate::in_force::Neighbours;
use crate::mount::Mount;
use crate::named::Named;
use crate::others;
use crate::signals::{Signals, Woken};
use crate::sockets;
use crate::sum::Sum;
use crate::summary::Ended;
use crate::watch::Watch;
use crate::words::shown;
use crate::words::{print, say, warn};

/// How often to check that the throttle is still attached.
const LOOK: Duration = Duration::from_secs(1);

/// How often to look for a cgroup while there is none. inotify does not report every new cgroup.
const LOOK_FOR_CGROUP: Duration = Duration::from_millis(100);

/// When a limit ends without a signal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// The limit ends after this time.
    pub(crate) duration: Option<Duration>,
    /// The limit ends when the cgroup is removed.
    pub(crate) once: bool,
    /// Programs on the cgroup above hold back a new cgroup's packets until it is limited.
    pub(crate) guard: bool,
}

/// How a limit ended.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The counts of all throttles.
    total: Removed,
    /// What is known about sockets that the limit did not cover.
    sockets: sockets::Watch,
    /// Why the limit fell short of the request, if it did.
    short: Option<anyhow::Error>,
}

impl Followed {
    /// Prints what the limit did. Returns an error if that fell short of the request.
    pub(crate) fn finish(self, traffic: Traffic) -> Result<()> {
        let total = &self.total;
        let ended = Ended {
            total,
            traffic,
            past_it: self.sockets.summary(total),
            has_held_nothing: self.sockets.has_held_nothing(total),
            short: self.short,
        };
        ended.told(print)
    }
}

/// A limit on whatever cgroup has the path.
pub(crate) struct Follow<'a> {
    engine: &'a mut Engine<LinuxBpf>,
    spec: &'a Spec,
    /// The mount that the path led through at the start.
    mount: Mount,
    /// The throttle on the current cgroup.
    current: Option<ThrottleId>,
    /// The throttles on earlier cgroups, which may still have open sockets. The last throttle keeps the programs
    /// loaded.
    former: Vec<Former>,
    /// Records whether the limit has held all the time.
    course: Course,
    /// Holds back the packets of a new cgroup until it is limited.
    holder: Holder,
    /// Looks for programs that the current throttle puts out of force.
    neighbours: Neighbours,
    /// The programs that the current throttle puts out of force without permission.
    displaced: Vec<Neighbour>,
    /// Looks for sockets that the current throttle does not cover.
    sockets: sockets::Watch,
    /// The process that the user named.
    named: Option<Named>,
    /// The counts of all throttles.
    sum: Sum,
}

impl<'a> Follow<'a> {
    pub(crate) fn new(
        engine: &'a mut Engine<LinuxBpf>,
        spec: &'a Spec,
        id: ThrottleId,
        sockets: sockets::Watch,
        named: Option<Named>,
        neighbours: Neighbours,
    ) -> Self {
        let mount = Mount { top: engine.top_of(id) };
        Self {
            engine,
            spec,
            mount,
            current: Some(id),
            former: Vec::new(),
            course: Course::default(),
            holder: Holder::new(spec, mount),
            neighbours,
            displaced: Vec::new(),
            sockets,
            named,
            sum: Sum::default(),
        }
    }

    /// Waits for a signal, for the end of the duration or, with `end.once`, until nothing is left to limit. Then it
    /// removes all throttles.
    pub(crate) fn until(mut self, signals: &Signals, end: End) -> Result<Followed> {
        let deadline = end.duration.and_then(|duration| Instant::now().checked_add(duration));
        let watch = Watch::new(&self.spec.cgroup);
        if let Err(errno) = &watch {
            say(&format!(
                "the limit looks for a removed cgroup ten times a second, because the kernel does not tell of it \
                 (inotify: {errno})"
            ));
        }
        let watch = watch.ok();
        let short = loop {
            self.look(end.once);
            if !self.displaced.is_empty() {
                let (cgroup, programs) =
                    (self.spec.cgroup.clone(), std::mem::take(&mut self.displaced));
                break Some(Error::Displaced { cgroup, programs, recorded: None }.into());
            }
            if end.guard {
                let armed = self.armed();
                self.holder.renew(armed);
            }
            if end.once && self.current.is_none() && self.former.is_empty() {
                let left = deadline.is_some_and(|deadline| Instant::now() < deadline);
                say("the cgroup was removed: there is nothing left to limit");
                let early = || not_done("the cgroup was removed before the duration was over");
                break left.then(|| early().into());
            }
            let is_settled = self.current.is_some() && self.former.iter().all(Former::is_told);
            let look = if is_settled && watch.is_some() { LOOK } else { LOOK_FOR_CGROUP };
            let look = Instant::now() + look;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            let told: Vec<_> = watch.iter().map(AsFd::as_fd).chain(self.holder.as_fd()).collect();
            match signals.wait_until(until, &told)? {
                Woken::Told => {
                    self.holder.heard();
                    if let Some(watch) = &watch {
                        watch.heard();
                    }
                }
                Woken::Timeout if deadline != Some(until) => {}
                Woken::Signal | Woken::Timeout => break None,
            }
        };
        self.holder.tell();
        self.sockets.finish();
        let armed = self.armed();
        self.named.iter_mut().for_each(|named| named.look_now(armed));
        let short = short.or_else(|| self.course.short());
        let short = short.or_else(|| self.named.as_ref()?.short());
        let asked = Instant::now();
        // The engine also lists throttles whose earlier removal failed.
        let ids: Vec<_> = self.engine.list().iter().map(|status| status.id).collect();
        let removed = self.sum.end_all(self.engine, ids.into_iter());
        if let (Err(_), Some(short)) = (&removed, &short) {
            warn(&short.to_string());
        }
        let short = removed.err().map(Into::into).or(short);
        tracing::debug!(took = ?asked.elapsed(), "the programs are off the cgroup's lists");
        Ok(Followed { total: self.sum.total(), sockets: self.sockets, short })
    }

    /// Looks at everything. The cgroup comes first, because a new cgroup has to be limited before anything else.
    fn look(&mut self, once: bool) {
        let had = self.current;
        if let Some(id) = self.current
            && matches!(
                self.engine.cgroup_health(id),
                Some(Health::CgroupVanished | Health::SocketsRemain) | None
            )
        {
            self.current = None;
            // Arming takes longer than the counters of a removed cgroup last.
            self.count();
            self.former.push(Former::new(id));
        }
        if self.current.is_none() && !once {
            self.arm_again(had.is_some());
        }
        let listed = self.count();
        match (self.current, had) {
            (Some(id), _) => {
                if let Some(status) = listed.iter().find(|status| status.id == id) {
                    self.look_after(status);
                }
            }
            (None, Some(_)) if !once => say(&format!(
                "the cgroup was removed: waiting for another one at {} ('--once' ends instead)",
                shown(&self.spec.cgroup)
            )),
            (None, _) => {}
        }
        self.look_at_former(once);
        let armed = self.armed();
        self.named.iter_mut().for_each(|named| named.look(armed));
    }

    /// Returns the cgroup that is limited now.
    fn armed(&self) -> Option<CgroupId> {
        self.current.and_then(|id| self.engine.cgroup_of(id))
    }

    /// Limits the cgroup that has the path now, if there is one.
    fn arm_again(&mut self, at_once: bool) {
        let started = match self.add() {
            Ok(Some(started)) => started,
            Ok(None) => return self.course.gone(),
            Err(why) => {
                if self.course.refused(&why) {
                    warn(&format!("the new cgroup cannot be limited, so it is tried again: {why}"));
                }
                return;
            }
        };
        self.holder.armed(self.engine.cgroup_of(started.id));
        // `--guard` programs on the cgroup above hide from the engine that the limit displaces somebody's program.
        if self.holder.had_to_go() {
            if let Err(error) = self.engine.remove(started.id) {
                warn(&format!("the limit cannot be taken off: {error}"));
            }
            return self.arm_again(at_once);
        }
        self.course.armed();
        self.current = Some(started.id);
        let was_removed =
            if at_once { "the cgroup was removed and made again" } else { "the cgroup is back" };
        say(&format!("{was_removed}: limiting {}", shown(&self.spec.cgroup)));
        started.notes.iter().for_each(|note| say(note));
        let ours = self.engine.programs_of(started.id);
        others::tell(&others::around(&self.spec.cgroup, &ours), self.spec, &started);
        self.neighbours = Neighbours::start(self.engine, self.spec, &started);
        if started.tcp == Tcp::Shape {
            tell_of_open_sockets(&self.engine.adopt(started.id));
        }
        self.sockets.start_again();
    }

    /// Adds a throttle to the cgroup that has the path now. Returns `None` if there is no cgroup.
    ///
    /// # Errors
    /// Returns why the cgroup cannot be limited.
    fn add(&mut self) -> Result<Option<Started>, String> {
        let found = match Cgroup::open(&self.spec.cgroup) {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::Vanished => return Ok(None),
            Err(error) => return Err(explained(&error)),
        };
        self.mount.check(&found)?;
        let again = Spec { cgroup_id: Some(found.id()), ..self.spec.clone() };
        match self.engine.add(&again) {
            Ok(started) => Ok(Some(started)),
            Err(Error::Kernel(error)) if error.kind() == Kind::Vanished => Ok(None),
            // This cgroup disappeared and another one came. The next look finds it.
            Err(Error::AnotherCgroup { .. }) => Ok(None),
            Err(error) => {
                // The guard must not block a cgroup that cannot be limited.
                self.holder.armed(Some(found.id()));
                Err(error.to_string())
            }
        }
    }

    /// Reads all counters. The counters of a removed cgroup disappear a few milliseconds later, or with its last
    /// socket.
    fn count(&mut self) -> Vec<ThrottleStatus> {
        let listed = self.engine.list();
        for status in &listed {
            self.sum.note(status);
        }
        listed
    }

    fn look_after(&mut self, status: &ThrottleStatus) {
        self.sockets.look(&self.sum.total());
        let displaced = self.neighbours.look();
        if self.spec.displace {
            others::tell_of_displaced(&displaced);
        } else {
            self.displaced = displaced;
        }
        let is_lost = |health: &Health| matches!(health, Health::DetachedByOthers);
        if status.tcp_health.as_ref().is_some_and(is_lost) && self.course.lost_tcp() {
            warn(
                "somebody else has detached the program that shapes TCP: its packets above the limit are \
                 dropped now",
            );
        }
        match self.engine.close_broken_queue(status.id) {
            Ok(is_closed) => {
                self.course.queue_is_well();
                if is_closed {
                    warn(
                        "somebody else has removed the queue's network device or taken it down: downloads above the \
                         limit are dropped now",
                    );
                }
            }
            Err(error) => {
                let error = error.to_string();
                if self.course.queue_failed(&error) {
                    warn(&format!("the queue for downloads: {error}"));
                }
            }
        }
        let mut healths = status.directions.iter().map(|direction| &direction.health);
        if healths.any(is_lost) && self.course.lost_packets() {
            warn(
                "somebody else has detached a program of this throttle: it does not limit any more",
            );
        }
    }

    /// Looks at the throttles of removed cgroups. It keeps those that still have sockets and removes the others.
    /// Without a current throttle, it keeps the programs of the last one loaded.
    fn look_at_former(&mut self, once: bool) {
        let is_armed = self.current.is_some();
        let mut last = true;
        let mut kept = Vec::new();
        for mut former in std::mem::take(&mut self.former).into_iter().rev() {
            let keeps_programs = std::mem::take(&mut last) && !is_armed && !once;
            if former.is_fresh() {
                kept.push(former);
                continue;
            }
            let health = self.engine.cgroup_health(former.id);
            let is_gone = matches!(health, Some(Health::CgroupVanished) | None);
            let done = if is_gone && !keeps_programs {
                self.engine.remove(former.id).map(|removed| {
                    self.sum.end(former.id, &removed);
                    None
                })
            } else {
                // The kernel may not have released everything yet. The next look tries again.
                self.engine.wait_for_cgroup(former.id).map(Some)
            };
            if let Some(news) = former.news(&done) {
                say(&news);
            }
            if !matches!(done, Ok(None)) {
                kept.push(former);
            }
        }
        kept.reverse();
        self.former = kept;
    }
}
