//! From facts to a verdict. Nothing here asks the host anything.
//!
//! The last look is the one that is judged. A suspect in it counts as a leak if the look before it has
//! the same suspect ([`Key`]); one that is new there is still changing, and makes the audit incomplete
//! instead. A snapshot with a single look is judged as it is: every suspect counts.
//!
//! Four rules keep "unknown" apart from "no":
//! - what rests on a fact that could not be seen is not judged, and that is a gap ([`Subject`] says what
//!   kind of fact each gap hides);
//! - what cannot be judged is a gap, and one gap makes an audit without leaks incomplete, never clean;
//! - an attachment that cannot be judged is listed as unknown, with a reason that says so;
//! - a program without attachments that cannot be judged is named in the gap only.

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
mod unattached;
mod unowned;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use bpf::{AttachType, CgroupId, LinkId, ProgramId};

pub(crate) use self::correlate::correlate;
pub use self::finding::{Finding, UnknownFinding, Verdict};
pub use self::ours::DEFAULT_PROGRAMS;
pub(crate) use self::ours::{Ours, cannot_match};
pub use self::standing::{Claim, Source};

pub use self::devices::JudgedDevice;
pub(crate) use self::devices::are_in_scope as devices_in_scope;
use self::facts::Facts;
use self::unattached::Unattached;
use crate::snapshot::{
    AttachmentFact, DeviceLinkFact, Gap, HolderFact, Host, LinkFact, Look, Note, Object, PinFact,
    ProgramFact, Scope, Snapshot, Subject,
};

/// What a snapshot comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified<'a> {
    /// The whole.
    pub verdict: Verdict,
    /// Every attachment of the last look, ours or not, in its order.
    pub attachments: Vec<Judged<'a>>,
    /// Programs in scope without an attachment, and defunct links of any of them, by program id.
    pub programs: Vec<Judged<'a>>,
    /// Every network device that is named as a queue of ours, in the order of the look.
    pub devices: Vec<JudgedDevice<'a>>,
    /// What could not be seen, and what could not be judged for it.
    pub gaps: Vec<Gap>,
    /// What was not looked at, and is no reason to doubt the verdict.
    pub notes: Vec<Note>,
    /// What kinds of fact the last look could not see all of, whether or not the verdict depends on them.
    pub unsure: Vec<Subject>,
}

impl<'a> Classified<'a> {
    /// The confirmed leaks of programs, attached or not.
    pub fn leaks(&self) -> impl Iterator<Item = &Judged<'a>> {
        self.attachments.iter().chain(&self.programs).filter(|judged| judged.finding.is_leak())
    }

    /// What was asked for by name and nothing says whose it is.
    pub fn unowned(&self) -> impl Iterator<Item = &Judged<'a>> {
        let all = self.attachments.iter().chain(&self.programs);
        all.filter(|judged| judged.finding == Finding::Unowned)
    }

    /// The confirmed leaks of network devices.
    pub fn leaked_devices(&self) -> impl Iterator<Item = &JudgedDevice<'a>> {
        self.devices.iter().filter(|judged| judged.finding.is_leak())
    }
}

/// One attachment, program or defunct link, with what was found about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged<'a> {
    /// What it is.
    pub finding: Finding,
    /// Why, in one sentence. Names are in it as they are: escape it before it goes to a terminal.
    pub reason: String,
    /// Where it is attached, if it is.
    pub place: Option<&'a AttachmentFact>,
    /// The program's id.
    pub program_id: ProgramId,
    /// The program; none where its info could not be read.
    pub program: Option<&'a ProgramFact>,
    /// The link that attaches it, or that is defunct.
    pub link: Option<&'a LinkFact>,
    /// The tcx links that attach it to network devices, and defunct ones.
    pub device_links: Vec<&'a DeviceLinkFact>,
    /// Pins of the link and of the program.
    pub pins: Vec<&'a PinFact>,
    /// Processes that hold the link or the program.
    pub holders: Vec<&'a HolderFact>,
    /// Who answers for it.
    pub owner: Option<Claim>,
    /// Its metadata or a record says that it is ours; else only its name does, if anything.
    pub is_proved: bool,
}

impl<'a> Judged<'a> {
    /// Gathers what is known of it; the judgement is the caller's.
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

    /// What makes it the same suspect in another look.
    pub(crate) fn key(&self) -> Key {
        Key::Program {
            cgroup: self.place.map(|place| place.cgroup_id),
            attach_type: self.place.map(|place| place.attach_type),
            program: self.program_id,
            link: self.link.map(|link| link.id),
            pin: self.pins.first().map(|pin| pin.path.clone()),
        }
    }

    /// The pin is of the link that attaches this.
    pub(crate) fn is_of_its_link(&self, pin: &PinFact) -> bool {
        self.link.is_some_and(|link| pin.object == Object::Link(link.id))
    }
}

/// For people: `program 41 (chadthrottle_in) on /a, cgroup_inet_ingress`.
impl fmt::Display for Judged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}", self.program_id)?;
        match self.program.map(ProgramFact::shown_name) {
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

/// What makes a suspect the same one in two looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A program, attached or not, or a defunct link.
    Program {
        /// The cgroup that it is attached to.
        cgroup: Option<CgroupId>,
        /// Where on it.
        attach_type: Option<AttachType>,
        /// The program.
        program: ProgramId,
        /// The link that attaches it, or that is defunct.
        link: Option<LinkId>,
        /// The first of its pins.
        pin: Option<PathBuf>,
    },
    /// A network device.
    Device {
        /// The network namespace that it is in.
        network_namespace: u64,
        /// Its number there.
        index: u32,
        /// What is written on it.
        alias: Option<String>,
    },
}

impl Key {
    /// The cgroup that it is attached to, if it is attached.
    pub(crate) fn cgroup(&self) -> Option<CgroupId> {
        match self {
            Self::Program { cgroup, .. } => *cgroup,
            Self::Device { .. } => None,
        }
    }

    /// Whether it is a program that no link is known to attach.
    fn has_no_link(&self) -> bool {
        matches!(self, Self::Program { link: None, .. })
    }

    /// Whether cgroups have anything to do with it.
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
        let count = crate::text::count(snapshot.looks.len(), "look");
        let mut settle = |finding: Finding, key: &Key, what: String, reason: &str| {
            let is_new = before.as_ref().is_some_and(|before| !before.contains(key));
            // A link that is being made may be the one that attaches it.
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

/// What a look alone would call leaks. Where there are any, another look tells those that stay from
/// those that were just being set up or taken down.
pub fn suspects(look: &Look, host: &Host, scope: &Scope) -> BTreeSet<Key> {
    judge(look, host, scope).suspects()
}

/// The suspects, and programs that cannot be judged: what is attached nowhere may be about to go (the kernel frees it
/// some time after its last holder let go of it), and then there is nothing to be judged.
pub fn unsettled(look: &Look, host: &Host, scope: &Scope) -> BTreeSet<Key> {
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

/// What one look comes to.
struct Judgement<'a> {
    attachments: Vec<Judged<'a>>,
    programs: Vec<Judged<'a>>,
    /// Programs without an attachment for each of which there is a gap instead of a judgement.
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

fn judge<'a>(look: &'a Look, host: &'a Host, scope: &'a Scope) -> Judgement<'a> {
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
        // What may be out of sight matters only where something would be judged by it.
        if count(&gaps, about) == count(&look.coverage.gaps, about) {
            gaps.retain(|gap| gap.about != hidden);
        }
    }
    Judgement { attachments, programs, undecided, devices, gaps, notes }
}

/// What a look could not see. Whatever it does not say itself, its numbers do.
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

/// Nothing is a leak, so somebody answers for everything of ours. (Some systems hide a process even from root.)
fn is_answered_for(attachments: &[Judged<'_>], programs: &[Judged<'_>]) -> bool {
    attachments.iter().chain(programs).all(|judged| !judged.finding.is_leak())
}

/// The gaps of a judgement by which everything of ours is answered for: then processes that could not be looked into do
/// not matter, as no verdict would change whatever they hold.
pub(crate) fn without_processes(gaps: &[Gap], look: &Look) -> Vec<Gap> {
    let unseen = |gaps: &[Gap]| gaps.iter().filter(|gap| is_about_processes(gap)).count();
    // A gap that judging has added is one for which a holder was missed.
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
