//! Turns facts into a verdict. Nothing here asks the host.
//!
//! The judgement covers the last look. A suspect there counts as a leak if the previous look has the same suspect
//! ([`Key`]). A suspect that only the last look has is still changing. It makes the audit incomplete instead. If a
//! snapshot has a single look, every suspect counts.
//!
//! Four rules keep "unknown" apart from "no":
//! - A judgement that needs a missing fact is a gap instead. [`Subject`] says which kind of fact each gap hides.
//! - A gap makes an audit without leaks incomplete, never clean.
//! - The report lists an attachment that cannot be judged as unknown, with the reason.
//! - Only the gap names a program that has no attachment and cannot be judged.

mod attached;
mod correlate;
mod devices;
mod doubt;
mod duplicates;
mod facts;
mod finding;
mod ours;
pub(crate) mod reason;
pub(crate) mod room;
mod standing;
#[cfg(test)]
mod stories;
mod unattached;
mod unowned;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use kernel::{AttachType, CgroupId, LinkId, ProgramId};

pub(crate) use self::correlate::correlate;
pub use self::devices::JudgedDevice;
pub(crate) use self::devices::are_in_scope as devices_in_scope;
use self::facts::Facts;
pub use self::finding::{Finding, UnknownFinding, Verdict};
pub use self::ours::{DEFAULT_PROGRAMS, Ours, cannot_match};
pub use self::standing::{Claim, Source};
use self::unattached::Unattached;
use crate::facts::{
    AttachmentFact, DeviceLinkFact, Gap, HolderFact, LinkFact, Look, Note, Object, PinFact,
    ProgramFact, Scope, Snapshot, Subject, Vantage,
};

/// The judgement of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified<'a> {
    /// The overall verdict.
    pub verdict: Verdict,
    /// Every attachment of the last look, ours or not, in the order of the look.
    pub attachments: Vec<Judged<'a>>,
    /// Programs in scope without an attachment, and defunct links of any program in scope, by program id.
    pub programs: Vec<Judged<'a>>,
    /// Every network device whose name looks like our queues, in the order of the look.
    pub devices: Vec<JudgedDevice<'a>>,
    /// What could not be seen, and what could not be judged because of it.
    pub gaps: Vec<Gap>,
    /// What the look left out without casting doubt on the verdict.
    pub notes: Vec<Note>,
    /// The kinds of fact that the last look saw only in part, whether or not the verdict depends on them.
    pub unsure: Vec<Subject>,
}

impl<'a> Classified<'a> {
    /// Returns the confirmed leaks of programs, attached or not.
    pub fn leaks(&self) -> impl Iterator<Item = &Judged<'a>> {
        self.attachments.iter().chain(&self.programs).filter(|judged| judged.finding.is_leak())
    }

    /// Returns the programs that the user's globs name and that have no known owner.
    pub fn unowned(&self) -> impl Iterator<Item = &Judged<'a>> {
        let all = self.attachments.iter().chain(&self.programs);
        all.filter(|judged| judged.finding == Finding::Unowned)
    }

    /// Returns the confirmed leaks of network devices.
    pub fn leaked_devices(&self) -> impl Iterator<Item = &JudgedDevice<'a>> {
        self.devices.iter().filter(|judged| judged.finding.is_leak())
    }
}

/// One attachment, program or defunct link, and its finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged<'a> {
    /// The finding.
    pub finding: Finding,
    /// The reason, in one sentence. It contains names exactly as the system has them. Escape it before printing.
    pub reason: String,
    /// The place where the program is attached; none if it is attached nowhere.
    pub place: Option<&'a AttachmentFact>,
    /// The program's id.
    pub program_id: ProgramId,
    /// The program; none if its info could not be read.
    pub program: Option<&'a ProgramFact>,
    /// The link that attaches the program, or the defunct link.
    pub link: Option<&'a LinkFact>,
    /// The tcx links of the program: those that attach it to network devices, and defunct ones.
    pub device_links: Vec<&'a DeviceLinkFact>,
    /// Pins of the link and of the program.
    pub pins: Vec<&'a PinFact>,
    /// Processes that hold the link or the program.
    pub holders: Vec<&'a HolderFact>,
    /// The owner.
    pub owner: Option<Claim>,
    /// Whether metadata or a record proves that the program is ours. Otherwise only its name suggests that, if
    /// anything.
    pub is_proved: bool,
}

impl<'a> Judged<'a> {
    /// Gathers what the facts say about a program. The caller judges.
    fn new(facts: &Facts<'a>, program: ProgramId, link: Option<LinkId>) -> Self {
        let fact = facts.program(program);
        Self {
            finding: Finding::Foreign,
            reason: String::new(),
            place: None,
            program_id: program,
            program: fact,
            is_proved: fact.is_some_and(|fact| facts.is_proved(fact)),
            link: link.and_then(|id| facts.link(id)),
            device_links: facts.device_links(program),
            pins: facts.pins(program, link),
            holders: facts.holders(program, link),
            owner: None,
        }
    }

    /// Returns the key that identifies the same suspect in another look.
    pub(crate) fn key(&self) -> Key {
        Key::Program {
            cgroup: self.place.map(|place| place.cgroup_id),
            attach_type: self.place.map(|place| place.attach_type),
            program: self.program_id,
            link: self.link.map(|link| link.id),
            pin: self.pins.first().map(|pin| pin.path.clone()),
        }
    }

    /// Tells whether the pin holds the link that attaches this program.
    pub(crate) fn is_of_its_link(&self, pin: &PinFact) -> bool {
        self.link.is_some_and(|link| pin.object == Object::Link(link.id))
    }
}

/// Names the thing for people: `program 41 (chadthrottle_in) on /a, cgroup_inet_ingress`.
impl fmt::Display for Judged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}", self.program_id)?;
        match self.program.map(|program| program.loaded.shown_name()) {
            Some("") => f.write_str(" (no name)")?,
            Some(name) => write!(f, " ({name})")?,
            None => {}
        }
        if let Some(place) = self.place {
            write!(f, " on {}, {}", place.cgroup.display(), place.attach_type)?;
        }
        Ok(())
    }
}

/// Identifies the same suspect in two looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A program, attached or not, or a defunct link.
    Program {
        /// The cgroup that the program is attached to.
        cgroup: Option<CgroupId>,
        /// The attach type.
        attach_type: Option<AttachType>,
        /// The program.
        program: ProgramId,
        /// The link that attaches the program, or the defunct link.
        link: Option<LinkId>,
        /// The first pin.
        pin: Option<PathBuf>,
    },
    /// A network device.
    Device {
        /// The device's network namespace.
        network_namespace: u64,
        /// The device's interface index in that namespace.
        index: u32,
        /// The device's alias.
        alias: Option<String>,
    },
}

impl Key {
    /// Returns the cgroup that the suspect is attached to, if any.
    pub(crate) fn cgroup(&self) -> Option<CgroupId> {
        match self {
            Self::Program { cgroup, .. } => *cgroup,
            Self::Device { .. } => None,
        }
    }

    /// Tells whether the suspect is a program without a known link.
    fn has_no_link(&self) -> bool {
        matches!(self, Self::Program { link: None, .. })
    }

    /// Tells whether the suspect is a network device, which has nothing to do with cgroups.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self, Self::Device { .. })
    }
}

/// Judges a snapshot.
pub fn classify(snapshot: &Snapshot) -> Classified<'_> {
    let Some((last, earlier)) = snapshot.looks.split_last() else {
        let gap = gap(Subject::Cgroups, "the snapshot", "it holds no look at the host".to_owned());
        return Classified {
            verdict: Verdict::Incomplete,
            attachments: Vec::new(),
            programs: Vec::new(),
            devices: Vec::new(),
            gaps: vec![gap],
            notes: Vec::new(),
            unsure: Vec::new(),
        };
    };
    let Judgement { mut attachments, mut programs, mut devices, mut gaps, notes, .. } =
        judge(last, &snapshot.host, &snapshot.scope);
    let is_making_links = !last.coverage.changing_links.is_empty();
    if !earlier.is_empty() || is_making_links {
        let before = earlier.last().map(|it| suspects(it, &snapshot.host, &snapshot.scope));
        let count = reason::looks(snapshot.looks.len());
        let mut settle = |finding: Finding, key: &Key, what: String, reason: &str| {
            let is_new = before.as_ref().is_some_and(|before| !before.contains(key));
            // A link that somebody is creating may attach this program.
            let is_changing = is_new || is_making_links && key.has_no_link();
            if finding.is_leak() && is_changing {
                let why = format!(
                    "still changing after {count} ({finding}, it seems: {reason}); look again, or raise --settle"
                );
                gaps.push(gap(Subject::Programs, &what, why));
            }
            finding.is_leak() && is_changing
        };
        let unsettled = |reason: &str| format!("not settled after {count}: {reason}");
        for judged in &mut attachments {
            if settle(judged.finding, &judged.key(), judged.to_string(), &judged.reason) {
                judged.finding = Finding::Unknown;
                judged.reason = unsettled(&judged.reason);
            }
        }
        programs.retain(|judged| {
            !settle(judged.finding, &judged.key(), judged.to_string(), &judged.reason)
        });
        for judged in &mut devices {
            if settle(judged.finding, &judged.key(), judged.device.to_string(), &judged.reason) {
                judged.finding = Finding::Unknown;
                judged.reason = unsettled(&judged.reason);
            }
        }
    }
    let found = attachments.iter().chain(&programs).map(|judged| judged.finding);
    let found = found.chain(devices.iter().map(|judged| judged.finding));
    let leaks = found.filter(|finding| finding.is_leak()).count();
    let verdict = Verdict::of(leaks, gaps.len());
    let unsure = last.coverage.gaps.iter().map(|gap| gap.about).collect();
    Classified { verdict, attachments, programs, devices, gaps, notes, unsure }
}

/// Returns the suspects: what this look alone would call leaks. If there are suspects, a second look separates lasting
/// leaks from programs that somebody was just setting up or taking down.
pub fn suspects(look: &Look, host: &Vantage, scope: &Scope) -> BTreeSet<Key> {
    judge(look, host, scope).suspects()
}

/// Returns the suspects and the programs that cannot be judged. An unattached program may be about to go, because the
/// kernel frees it some time after the last holder closes it. A later look then has nothing to judge.
pub fn unsettled(look: &Look, host: &Vantage, scope: &Scope) -> BTreeSet<Key> {
    let judged = judge(look, host, scope);
    let undecided = judged.undecided.iter().map(|&program| Key::Program {
        cgroup: None,
        attach_type: None,
        program,
        link: None,
        pin: None,
    });
    judged.suspects().into_iter().chain(undecided).collect()
}

/// The judgement of one look.
struct Judgement<'a> {
    attachments: Vec<Judged<'a>>,
    programs: Vec<Judged<'a>>,
    /// Programs without an attachment that have a gap instead of a finding.
    undecided: Vec<ProgramId>,
    devices: Vec<JudgedDevice<'a>>,
    gaps: Vec<Gap>,
    notes: Vec<Note>,
}

impl Judgement<'_> {
    fn suspects(&self) -> BTreeSet<Key> {
        let programs = self.attachments.iter().chain(&self.programs);
        let programs = programs.filter(|judged| judged.finding.is_leak()).map(Judged::key);
        let devices = self.devices.iter().filter(|judged| judged.finding.is_leak());
        programs.chain(devices.map(JudgedDevice::key)).collect()
    }
}

fn judge<'a>(look: &'a Look, host: &'a Vantage, scope: &'a Scope) -> Judgement<'a> {
    let facts = Facts::new(look, host, scope);
    let mut gaps = [gaps_of(look), facts.gaps.clone()].concat();
    let mut notes = look.coverage.notes.clone();
    let attachments = attached::judge(&facts, &mut gaps);
    let Unattached { judged: programs, undecided } =
        unattached::judge(&facts, &attachments, &mut gaps);
    let devices = devices::judge(&facts, &mut gaps, &mut notes);
    if is_answered_for(&attachments, &programs) {
        let kept = without_processes(&gaps, look);
        if attachments.iter().chain(&programs).any(unowned::may_have_another_holder) {
            notes.extend(unowned::notes(&gaps, &kept));
        }
        gaps = kept;
    }
    for (hidden, about) in
        [(Subject::HiddenPins, Subject::Pins), (Subject::HiddenLedger, Subject::Ledger)]
    {
        // A hidden pin or ledger matters only if a judgement would need it.
        if count(&gaps, about) == count(&look.coverage.gaps, about) {
            gaps.retain(|gap| gap.about != hidden);
        }
    }
    Judgement { attachments, programs, undecided, devices, gaps, notes }
}

/// Returns what a look could not see. If the look's gaps do not mention cgroups, this derives a gap from its counts.
pub(crate) fn gaps_of(look: &Look) -> Vec<Gap> {
    let mut gaps = look.coverage.gaps.clone();
    let is_told = |gaps: &[Gap]| gaps.iter().any(|gap| gap.about == Subject::Cgroups);
    if look.coverage.cgroups_visited == 0 && !is_told(&gaps) {
        gaps.push(gap(Subject::Cgroups, "cgroups", "not one was visited".to_owned()));
    }
    let denied = look.coverage.cgroups_denied;
    if denied > 0 && !is_told(&gaps) {
        gaps.push(gap(Subject::Cgroups, "cgroups", format!("{denied} could not be asked")));
    }
    gaps
}

/// Tells whether nothing is a leak, so that everything of ours has an owner. (Some systems hide a process even from
/// root.)
fn is_answered_for(attachments: &[Judged<'_>], programs: &[Judged<'_>]) -> bool {
    attachments.iter().chain(programs).all(|judged| !judged.finding.is_leak())
}

/// Returns the gaps without those about processes, for use if everything of ours has an owner. Nothing that a hidden
/// process holds could then change a finding.
pub(crate) fn without_processes(gaps: &[Gap], look: &Look) -> Vec<Gap> {
    let unseen = |gaps: &[Gap]| gaps.iter().filter(|gap| is_about_processes(gap)).count();
    // Judging adds such a gap only if a finding needed a holder that may be hidden.
    let is_added = unseen(gaps) != unseen(&look.coverage.gaps);
    gaps.iter().filter(|gap| is_added || !is_about_processes(gap)).cloned().collect()
}

fn count(gaps: &[Gap], about: Subject) -> usize {
    gaps.iter().filter(|gap| gap.about == about).count()
}

fn is_about_processes(gap: &Gap) -> bool {
    matches!(gap.about, Subject::Processes | Subject::HiddenProcesses)
}

fn gap(about: Subject, what: &str, why: String) -> Gap {
    Gap { about, what: what.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_looked_for_again_where_it_is_attached() {
        let cgroups = |recorded: &str| -> Vec<Option<CgroupId>> {
            let snapshot: Snapshot = serde_json::from_str(recorded).unwrap();
            let suspects = suspects(&snapshot.looks[0], &snapshot.host, &snapshot.scope);
            suspects.iter().map(Key::cgroup).collect()
        };
        let orphaned = include_str!("../../tests/snapshots-in/orphaned_attachment.json");
        assert_eq!(cgroups(orphaned), [4821, 9310, 9310].map(|id| Some(CgroupId(id))));
        let unattached = include_str!("../../tests/snapshots-in/unattached_program.json");
        assert!(cgroups(unattached).iter().all(Option::is_none));
    }
}
