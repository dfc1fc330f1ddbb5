//! Judges attachments.

use kernel::LinkId;

use super::doubt::Doubt;
use super::duplicates::{Duplicate, duplicates};
use super::facts::Facts;
use super::reason::{nobody, owner};
use super::standing::Standing;
use super::unowned::{self, is_unowned};
use super::{Finding, Judged};
use crate::facts::{AttachmentFact, Gap, PinFact, Subject};

/// Judges every attachment, in the order of the look.
pub(super) fn judge<'a>(facts: &Facts<'a>, gaps: &mut Vec<Gap>) -> Vec<Judged<'a>> {
    let standings: Vec<Option<Standing<'_>>> = facts
        .attachments()
        .map(|(fact, link)| {
            let program = facts.program(fact.program_id)?;
            let place = Some((fact.cgroup_id, fact.attach_type));
            (facts.ours.has(&program.loaded.name) && !is_unowned(facts, program))
                .then(|| Standing::of(facts, program, link, place))
        })
        .collect();
    let duplicates = duplicates(facts, &standings);
    facts
        .attachments()
        .zip(standings)
        .zip(duplicates)
        .map(|(((fact, link), standing), duplicate)| match standing {
            Some(standing) => ours(facts, fact, link, &standing, duplicate, gaps),
            None => others(facts, fact, link, gaps),
        })
        .collect()
}

fn judged<'a>(facts: &Facts<'a>, fact: &'a AttachmentFact, link: Option<LinkId>) -> Judged<'a> {
    Judged { place: Some(fact), ..Judged::new(facts, fact.program_id, link) }
}

fn others<'a>(
    facts: &Facts<'a>,
    fact: &'a AttachmentFact,
    link: Option<LinkId>,
    gaps: &mut Vec<Gap>,
) -> Judged<'a> {
    let judged = judged(facts, fact, link);
    if judged.program.is_some_and(|program| facts.ours.has(&program.loaded.name)) {
        return unowned::attached(facts, judged);
    }
    let reason = if let Some(program) = judged.program {
        format!("its name, '{}', is none of {}", program.loaded.name, facts.ours.wording)
    } else {
        gaps.push(Gap {
            about: Subject::Programs,
            what: judged.to_string(),
            why: "its info was not read, so nobody can tell whose it is".to_owned(),
        });
        "its info was not read, so it is left alone as if it were somebody else's".to_owned()
    };
    Judged { finding: Finding::Foreign, reason, ..judged }
}

/// Judges one attachment of ours. Returns `Unknown` and adds a gap if the judgement needs a fact that is missing.
fn ours<'a>(
    facts: &Facts<'a>,
    fact: &'a AttachmentFact,
    link: Option<LinkId>,
    standing: &Standing<'a>,
    duplicate: Option<Duplicate>,
    gaps: &mut Vec<Gap>,
) -> Judged<'a> {
    let judged = Judged { owner: standing.claim, ..judged(facts, fact, link) };
    let how = if link.is_some() { "attached through a link" } else { "attached the legacy way" };
    let pins = pins_without_purpose(facts, &judged);
    let doubt_of_duplicate = duplicate.as_ref().and_then(|it| it.doubt);
    let (finding, reason) = row(&judged, standing, how, &pins, duplicate);
    let doubt = match finding {
        None => standing.doubt,
        Some(finding) if finding.is_leak() => Doubt::of_everything(facts)
            .or(doubt_of_duplicate.filter(|_| finding == Finding::StackedDuplicate)),
        Some(_) => None,
    };
    if let Some(doubt) = doubt {
        let what = doubt.what(standing);
        gaps.push(Gap {
            about: doubt.about(),
            what: judged.to_string(),
            why: format!("{what}{}", doubt.help()),
        });
        return Judged { finding: Finding::Unknown, reason: format!("{how}; {what}"), ..judged };
    }
    // `row` returns no finding only if there is a doubt, and the code above has already returned for a doubt.
    let finding = finding.unwrap_or(Finding::Unknown);
    // The report lists, and `clean` later removes, exactly these pins of an orphaned pin.
    let pins = if finding == Finding::OrphanedPin { pins } else { judged.pins };
    Judged { finding, reason, pins, ..judged }
}

/// Returns the finding of the first rule that applies, with the reason. Returns no finding if the look shows no owner
/// but one may exist out of sight.
fn row(
    judged: &Judged<'_>,
    standing: &Standing<'_>,
    how: &str,
    pins: &[&PinFact],
    duplicate: Option<Duplicate>,
) -> (Option<Finding>, String) {
    let strangers = &judged.holders;
    // A process that holds the link open keeps it, but no owner wants it. For the cgroup the link is as
    // orphaned as a legacy attachment. A link without a visible holder is out of reach instead.
    let is_in_reach = judged.link.is_none() || !strangers.is_empty();
    let state = judged.place.and_then(|place| place.state.as_ref());
    let disarmed = state.is_some_and(|state| !state.armed);

    let (finding, reason) = if standing.nobody() && pins.is_empty() && is_in_reach {
        let at = judged.program.map_or("some time ago", |program| &program.loaded.loaded_at);
        let reason = format!("{how}, loaded {at}, and {}", nobody(standing, strangers));
        (Finding::OrphanedAttachment, reason)
    } else if let Some(Duplicate { why, .. }) = duplicate {
        (Finding::StackedDuplicate, format!("{how}, but {why}"))
    } else if disarmed && standing.living().is_some() {
        let reason = format!("{how} and disarmed: {} has removed this throttle", owner(standing));
        (Finding::DisarmedAttachment, reason)
    } else if standing.nobody() && !pins.is_empty() {
        let reason =
            format!("kept by the pin {}, but {}", paths(pins), nobody(standing, strangers));
        (Finding::OrphanedPin, reason)
    } else if standing.nobody() {
        let reason =
            format!("{how} that nothing visible holds open, and {}", nobody(standing, strangers));
        (Finding::UnreachableProgram, reason)
    } else if let Some(entry) =
        standing.kept.filter(|_| standing.living().is_none() || !judged.pins.is_empty())
    {
        let how = if judged.pins.is_empty() {
            how.to_owned()
        } else {
            format!("pinned as {}", paths(&judged.pins))
        };
        let reason = format!(
            "{how}, and recorded as meant to outlive its owner: throttle '{}'",
            entry.throttle
        );
        (Finding::Pinned, reason)
    } else if standing.living().is_some() {
        (Finding::Active, format!("{how}; {} lives", owner(standing)))
    } else {
        return (None, String::new());
    };
    (Some(finding), reason)
}

/// Returns the pins that may be the only thing keeping the attachment. The pins of its link always count. The pins of
/// its program count only if nobody claims the program elsewhere. Such an owner may have made them.
fn pins_without_purpose<'a>(facts: &Facts<'a>, judged: &Judged<'a>) -> Vec<&'a PinFact> {
    let meant_elsewhere =
        judged.program.is_some_and(|program| !Standing::of(facts, program, None, None).nobody());
    judged
        .pins
        .iter()
        .copied()
        .filter(|pin| judged.is_of_its_link(pin) || !meant_elsewhere)
        .collect()
}

/// Joins the paths of pins for use in a sentence.
pub(super) fn paths(pins: &[&PinFact]) -> String {
    pins.iter().map(|pin| pin.path.to_string_lossy()).collect::<Vec<_>>().join(", ")
}
