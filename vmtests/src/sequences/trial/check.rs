//! Compares the actual state with the expected state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::state::Counters;
use kernel::boundary::Cgroups as _;
use kernel::list::Scope;
use kernel::{AttachType, CgroupId, ProgramId};
use sim::ModelCgroup;

use super::{Checked, Property, Trial, Violation};
use crate::sequences::census::Surveyed;
use crate::sequences::expected::{Ownership, Part, Throttle};
use crate::sequences::step::{ATTACH_TYPES, Place};
use crate::sequences::system::{Claim, Counted, Handle, System};

/// The rates in the kernel's state, by throttle and attach type.
type RatesOf = BTreeMap<(Handle, AttachType), u64>;

fn unasked(error: &kernel::Error) -> Violation {
    Violation::new(Property::GateIsRight, format!("the kernel cannot be asked: {error}"))
}

/// An existing cgroup, opened in the tested world and in the model of what is expected.
struct Opened<C> {
    path: PathBuf,
    real: C,
    expected: ModelCgroup,
}

impl<W: Surveyed, S: System> Trial<W, S> {
    /// Checks everything. The lists may take up to `patience` to match.
    pub(super) fn check(&mut self, patience: Duration) -> Checked {
        self.settle_within(patience, |trial| trial.check_lists(&BTreeSet::new()))?;
        let rates = self.check_throttles()?;
        self.check_claims(&rates)
    }

    /// Repeats a look until it succeeds or the patience ends, because the kernel finishes some work later.
    pub(super) fn settle_to<T>(&mut self, look: impl Fn(&mut Self) -> Checked<T>) -> Checked<T> {
        self.settle_within(self.patience, look)
    }

    fn settle_within<T>(
        &mut self,
        patience: Duration,
        look: impl Fn(&mut Self) -> Checked<T>,
    ) -> Checked<T> {
        let deadline = Instant::now() + patience;
        loop {
            match look(self) {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)),
                looked => return looked,
            }
        }
    }

    /// Returns the paths of the existing cgroups.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let below = Place::ALL.iter().map(|place| place.below(&self.top));
        let exists = |path: &PathBuf| self.expected.model.open_cgroup(path).is_ok();
        std::iter::once(self.top.clone()).chain(below.filter(exists)).collect()
    }

    pub(super) fn programs_above(&self) -> kernel::Result<Vec<ProgramId>> {
        let top = self.world.open_cgroup(&self.top)?;
        let mut above = Vec::new();
        for attach_type in ATTACH_TYPES {
            above.extend(self.real_list(&top, attach_type, Scope::Effective)?);
        }
        Ok(above)
    }

    /// Returns the list of a cgroup, without programs that existed before the trial.
    fn real_list(
        &self,
        cgroup: &W::Cgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> kernel::Result<Vec<ProgramId>> {
        let list = self.world.query(cgroup, attach_type, scope)?;
        let ids = list.programs.iter().map(|program| program.id);
        Ok(ids.filter(|id| !self.above.contains(id)).collect())
    }

    /// Opens all existing cgroups once for all of their lists, because opening costs most of a look.
    fn opened(&self) -> Checked<Vec<Opened<W::Cgroup>>> {
        let open = |path: PathBuf| {
            let expected =
                self.expected.model.open_cgroup(&path).map_err(|error| unasked(&error))?;
            let real = self.world.open_cgroup(&path).map_err(|error| unasked(&error))?;
            Ok(Opened { path, real, expected })
        };
        self.places().into_iter().map(open).collect()
    }

    /// Checks every list, local and effective. For uncertain throttles it adopts what it finds.
    fn check_lists(&mut self, uncertain: &BTreeSet<Handle>) -> Checked {
        let opened = self.opened()?;
        for cgroup in &opened {
            for attach_type in ATTACH_TYPES {
                self.check_list(cgroup, attach_type, uncertain)?;
            }
        }
        for cgroup in &opened {
            for attach_type in ATTACH_TYPES {
                self.check_effective(cgroup, attach_type)?;
            }
        }
        Ok(())
    }

    fn check_list(
        &mut self,
        Opened { path, real, expected }: &Opened<W::Cgroup>,
        attach_type: AttachType,
        uncertain: &BTreeSet<Handle>,
    ) -> Checked {
        let real =
            self.real_list(real, attach_type, Scope::Local).map_err(|error| unasked(&error))?;
        let stand_ins = self.expected.list_of(expected, attach_type, Scope::Local);
        let mut rest = real.iter().copied().peekable();
        let (mut bound, mut missing) = (Vec::new(), Vec::new());
        let known: BTreeSet<_> =
            stand_ins.iter().filter_map(|id| self.expected.real.get(id)).copied().collect();
        for &stand_in in &stand_ins {
            let fits = |id: &ProgramId| match self.expected.real.get(&stand_in) {
                Some(expected) => expected == id,
                None => !known.contains(id),
            };
            if let Some(id) = rest.next_if(fits) {
                bound.push((stand_in, id));
                continue;
            }
            let whose = self.expected.whose(stand_in).map(|throttle| throttle.handle);
            if !whose.is_some_and(|handle| uncertain.contains(&handle)) {
                return Err(match whose {
                    None => Violation::new(
                        Property::OthersStay,
                        format!(
                            "others' program is not where it was on {}: {real:?}",
                            path.display()
                        ),
                    ),
                    Some(handle) => self.list_differs(handle, &stand_ins, path, attach_type, &real),
                });
            }
            missing.push(stand_in);
        }
        if let Some(extra) = rest.next() {
            return Err(self.explain_extra(extra, path, attach_type));
        }
        self.expected.real.extend(bound);
        for stand_in in missing {
            self.expected.detach_stand_in(stand_in);
        }
        Ok(())
    }

    /// Describes why a program of ours is not where it should be: missing, or another one in its place.
    fn list_differs(
        &self,
        handle: Handle,
        stand_ins: &[ProgramId],
        path: &Path,
        attach_type: AttachType,
        real: &[ProgramId],
    ) -> Violation {
        let path = path.display();
        let ours: BTreeSet<_> =
            stand_ins.iter().filter_map(|id| self.expected.real.get(id)).collect();
        match real.iter().find(|id| self.is_former(**id) && !ours.contains(id)) {
            Some(&extra) => Violation::new(
                Property::GoneMeansGone,
                format!("program {extra} of ours is still on {path} ({attach_type})"),
            ),
            None => Violation::new(
                Property::LimitsHold,
                format!("throttle {handle} is not on {path} ({attach_type}): {real:?}"),
            ),
        }
    }

    /// Tells whether the program was expected at some time.
    fn is_former(&self, id: ProgramId) -> bool {
        self.expected.real.values().any(|real| *real == id)
    }

    fn explain_extra(&self, id: ProgramId, path: &Path, attach_type: AttachType) -> Violation {
        let (property, how) = if self.is_former(id) {
            (Property::GoneMeansGone, "is still there")
        } else {
            (Property::NothingUnaccounted, "is there, and nobody answers for it")
        };
        let name = self.world.program_name(id).ok().flatten().unwrap_or_default();
        let path = path.display();
        Violation::new(property, format!("program {id} {name} on {path} ({attach_type}) {how}"))
    }

    fn check_effective(
        &self,
        Opened { path, real, expected }: &Opened<W::Cgroup>,
        attach_type: AttachType,
    ) -> Checked {
        let real =
            self.real_list(real, attach_type, Scope::Effective).map_err(|error| unasked(&error))?;
        let expected: Vec<_> = self
            .expected
            .list_of(expected, attach_type, Scope::Effective)
            .iter()
            .filter_map(|id| self.expected.real.get(id).copied())
            .collect();
        if real == expected {
            return Ok(());
        }
        let path = path.display();
        Err(Violation::new(
            Property::OthersStay,
            format!("on {path} ({attach_type}) run {real:?}, not {expected:?}"),
        ))
    }

    /// Finds out how much exists of throttles whose state is uncertain.
    pub(super) fn resolve(&mut self, uncertain: &[Handle]) -> Checked {
        let uncertain: BTreeSet<_> = uncertain.iter().copied().collect();
        self.settle_to(|trial| trial.check_lists(&uncertain))
    }

    /// Returns the attached programs of a throttle.
    pub(super) fn attached_parts(&self, throttle: &Throttle) -> Vec<ProgramId> {
        let attached = throttle.parts.iter().filter(|part| self.is_attached(part));
        attached.filter_map(|part| self.expected.real.get(&part.stand_in())).copied().collect()
    }

    /// Tells whether a part should be on its cgroup's list.
    pub(super) fn is_attached(&self, part: &Part) -> bool {
        let list = self.expected.list(&part.path, part.attach_type, Scope::Local);
        list.contains(&part.stand_in())
    }

    /// Returns the throttle that has, or once had, one of these programs on that cgroup. A current one takes
    /// precedence. One load serves a cgroup again after a throttle left it, or after the cgroup was removed and made
    /// again. In the second case only the cgroup's id tells the two apart.
    pub(super) fn handle_of(
        &self,
        cgroup: &Path,
        id: CgroupId,
        programs: &[ProgramId],
    ) -> Option<Handle> {
        let is_online =
            self.world.open_cgroup(cgroup).is_ok_and(|it| self.world.cgroup_id(&it) == id);
        let has = |throttle: &&Throttle, now: bool| {
            throttle.parts.iter().any(|part| {
                let real = self.expected.real.get(&part.stand_in());
                part.path == cgroup
                    && self.expected.is_online(part) == is_online
                    && real.is_some_and(|id| programs.contains(id))
                    && (!now || self.is_attached(part))
            })
        };
        let mut throttles = self.expected.throttles.iter().filter(|throttle| !throttle.torn);
        let found = throttles.clone().find(|it| has(it, true));
        found.or_else(|| throttles.find(|it| has(it, false))).map(|throttle| throttle.handle)
    }

    /// Checks that every wanted throttle limits to the requested rate and that its counters grow. Returns the rates.
    fn check_throttles(&mut self) -> Checked<RatesOf> {
        let mut rates = RatesOf::new();
        let mut seen = Vec::new();
        for throttle in &self.expected.throttles {
            if !matches!(throttle.ownership, Ownership::Held(_) | Ownership::Released) {
                continue;
            }
            for part in throttle.parts.iter().filter(|part| part.limits()) {
                let stand_in = part.stand_in();
                let Some(&id) = self.expected.real.get(&stand_in) else { continue };
                if !self.is_attached(part) {
                    continue;
                }
                let (rate, counted) = self.read(id, part).map_err(|error| unasked(&error))?;
                // A removal that failed half way may have disarmed the throttle already.
                let disarmed = throttle.removing && rate == 0;
                if !disarmed {
                    rates.insert((throttle.handle, part.attach_type), rate);
                }
                if !disarmed && !part.rates.contains(&rate) {
                    let (handle, rates) = (throttle.handle, &part.rates);
                    let what = format!("throttle {handle} limits to {rate}, not {rates:?}");
                    return Err(Violation::new(Property::LimitsHold, what));
                }
                seen.push((throttle.handle, part.attach_type, rate, counted));
            }
        }
        for (handle, attach_type, rate, counted) in seen {
            grown(&mut self.counted, handle, attach_type, counted)?;
            let parts = self.expected.throttle_mut(handle).map(|it| &mut it.parts);
            for part in parts.into_iter().flatten().filter(|it| it.attach_type == attach_type) {
                part.rates.retain(|known| *known == rate || rate == 0);
            }
        }
        Ok(rates)
    }

    /// Reads a program's rate and counters.
    fn read(&self, id: ProgramId, part: &Part) -> kernel::Result<(u64, Counters)> {
        let cgroup = self.world.cgroup_id(&self.world.open_cgroup(&part.path)?);
        let program = self.world.open_program(id)?;
        let state = self.world.state(&program, cgroup, part.attach_type)?;
        let counters = self.world.counters(&program, cgroup, part.attach_type)?;
        Ok((state.map_or(0, |state| state.rate()), counters.unwrap_or_default()))
    }

    /// Checks that every owner lists exactly its throttles.
    fn check_claims(&mut self, rates: &RatesOf) -> Checked {
        for owner in 0..self.running.len() {
            if !self.running[owner] {
                continue;
            }
            let claims = self.system.claims(owner);
            let claimed: BTreeSet<_> = claims.iter().map(|claim| claim.handle).collect();
            let held: BTreeSet<_> = self.expected.held_by(owner).into_iter().collect();
            if claimed != held {
                return Err(Violation::new(
                    Property::AnswersAreTrue,
                    format!("owner {owner} lists {claimed:?}, and has {held:?}"),
                ));
            }
            for claim in claims {
                self.check_rates(&claim, rates)?;
                self.check_counters(&claim)?;
            }
        }
        Ok(())
    }

    /// Checks that an owner reports each throttle's rate as the kernel has it, even after a failed call.
    fn check_rates(&self, claim: &Claim, rates: &RatesOf) -> Checked {
        let handle = claim.handle;
        let its =
            rates.range((handle, AttachType::INET_INGRESS)..).take_while(|it| it.0.0 == handle);
        for (&(_, at), rate) in its.filter(|_| self.system.reports_counters()) {
            let said = claim.rates.get(&at);
            if said != Some(rate) {
                let what = format!("throttle {handle} ({at}) limits to {rate}, and says {said:?}");
                return Err(Violation::new(Property::AnswersAreTrue, what));
            }
        }
        Ok(())
    }

    /// Checks that the final counters equal the last reported ones, because nothing was sent since. Counters disappear
    /// with their cgroup. If a call failed, it may have been the read of one counter.
    pub(super) fn check_final(&self, handle: Handle, counted: &Counted) -> Checked {
        let throttle = self.expected.throttle(handle);
        let parts = throttle.into_iter().flat_map(|it| &it.parts);
        let online = parts.filter(|part| self.expected.is_online(part)).map(|it| it.attach_type);
        let told = online.filter_map(|at| Some((at, self.reported.get(&(handle, at))?)));
        let (ends, lacking): (Vec<_>, Vec<_>) = told.partition(|(at, _)| counted.contains_key(at));
        if lacking.len() > usize::from(self.system.fault_struck()) {
            let what =
                format!("what throttle {handle} has counted is not told at its end: {lacking:?}");
            return Err(Violation::new(Property::CountersGrow, what));
        }
        if let Some((at, told)) = ends.into_iter().find(|(at, told)| counted[at] != **told) {
            let what = format!("throttle {handle} ({at}) told {told:?}, and ends with {counted:?}");
            return Err(Violation::new(Property::CountersGrow, what));
        }
        Ok(())
    }

    /// Checks that only throttles that lost a limiting program are reported as lost.
    pub(super) fn check_lost(&mut self) -> Checked {
        for handle in self.system.take_lost() {
            let parts = self.expected.throttle(handle).into_iter().flat_map(|it| &it.parts);
            if parts.filter(|part| part.limits()).all(|part| self.is_attached(part)) {
                let what = format!("others have detached no program of throttle {handle}");
                return Err(Violation::new(Property::AnswersAreTrue, what));
            }
        }
        Ok(())
    }

    /// Returns the attached parts of a throttle that report counters.
    fn counting_parts<'a>(&'a self, throttle: &'a Throttle) -> impl Iterator<Item = &'a Part> {
        let tells = self.system.reports_counters();
        throttle.parts.iter().filter(move |it| tells && it.limits() && self.is_attached(it))
    }

    /// Checks that an owner reports counters of every attached throttle.
    fn check_counters(&mut self, Claim { handle, counters, .. }: &Claim) -> Checked {
        let throttle = self.expected.throttle(*handle);
        let parts = throttle.into_iter().flat_map(|it| self.counting_parts(it));
        let mut places = parts.map(|part| part.attach_type);
        if let Some(at) = places.find(|at| !counters.contains_key(at)) {
            let what = format!("what throttle {handle} has counted ({at}) is not told");
            return Err(Violation::new(Property::CountersGrow, what));
        }
        drop(places);
        for (&attach_type, &now) in counters {
            grown(&mut self.reported, *handle, attach_type, now)?;
        }
        Ok(())
    }
}

/// Checks that counters only grow.
fn grown(
    known: &mut BTreeMap<(Handle, AttachType), Counters>,
    handle: Handle,
    at: AttachType,
    now: Counters,
) -> Checked {
    let before = known.insert((handle, at), now).unwrap_or_default();
    let pairs = [
        (before.exempt, now.exempt),
        (before.passed, now.passed),
        (before.dropped, now.dropped),
        (before.held_back, now.held_back),
    ];
    if pairs.iter().all(|(a, b)| b.packets >= a.packets && b.bytes >= a.bytes) {
        return Ok(());
    }
    let what = format!("throttle {handle} ({at}): {before:?}, then {now:?}");
    Err(Violation::new(Property::CountersGrow, what))
}
