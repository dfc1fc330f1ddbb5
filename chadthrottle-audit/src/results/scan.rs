//! Turns the report into checks: one rule for each kind of leak, and one for coverage.

use auditor::judge::Finding;
use auditor::report::{Cgroup, Leak, ProgramInfo, Report};
use kernel::AttachType;

use super::{COVERAGE, Check, FULL_PLACE, Outcome, Place, Problem, Results};
use crate::explain::{UNOWNED_ADVICE, summary};
use crate::remedy;
use crate::text::{conclusion, full_place};

/// Returns the result of a scan. With gaps no rule about leaks passes: either there are leaks, or nobody knows that
/// there are none.
pub(crate) fn of_scan(report: &Report) -> Results {
    let rules = Finding::ALL.into_iter().filter(|finding| finding.is_leak());
    Results {
        command: "scan",
        tool: report.tool.clone(),
        hostname: report.host.hostname.clone(),
        taken_at: report.taken_at.clone(),
        duration_ms: report.duration_ms,
        verdict: report.verdict,
        conclusion: conclusion(report),
        checks: rules
            .map(|rule| check(report, rule))
            .chain([unowned(report), full_places(report), coverage(report)])
            .collect(),
    }
}

fn check(report: &Report, finding: Finding) -> Check {
    let leaks = report.leaks.iter().filter(|leak| leak.finding == finding && !leak.known);
    let problems: Vec<Problem> = leaks.map(leaked).collect();
    let unseen = unseen(report, out_of_scope(report, finding));
    let outcome = match (problems.is_empty(), unseen.is_empty()) {
        (false, _) => Outcome::Failed(problems),
        (true, false) => Outcome::Unseen(unseen),
        (true, true) => Outcome::Passed,
    };
    Check { rule: finding.name(), summary: summary(finding), outcome }
}

fn unowned(report: &Report) -> Check {
    let is_unowned = |finding: Finding| finding == Finding::Unowned;
    let attached = report.attachments.iter().filter(|it| is_unowned(it.finding)).map(|it| {
        let place = Some((&it.cgroup, it.attach_type));
        told(&it.program, place, &it.pins, &it.reason)
    });
    let others = report.programs.iter().filter(|it| is_unowned(it.finding));
    let others = others.map(|it| told(&it.program, None, &it.pins, &it.reason));
    let finding = Finding::Unowned;
    let problems = attached.chain(others).collect();
    noted(report, finding.name(), summary(finding), problems, out_of_scope(report, finding))
}

fn told(
    info: &ProgramInfo,
    place: Option<(&Cgroup, AttachType)>,
    pins: &[String],
    reason: &str,
) -> Problem {
    let on = place.map(|(cgroup, attach_type)| format!(" on {}, {attach_type}", cgroup.path));
    let names = [info.name.clone(), place.map(|(cgroup, _)| cgroup.path.clone())];
    let attach_type = place.map(|(_, attach_type)| attach_type.to_string());
    let identity = names.into_iter().flatten().chain(attach_type).chain(pins.iter().cloned());
    Problem {
        what: format!("{}{}", program(info), on.unwrap_or_default()),
        why: reason.to_owned(),
        remedy: Some(UNOWNED_ADVICE.to_owned()),
        identity: identity.collect::<Vec<_>>().join(" "),
        place: place
            .map(|(cgroup, _)| Place::Cgroup(cgroup.path.clone()))
            .or(pins.first().cloned().map(Place::Pin)),
    }
}

fn full_places(report: &Report) -> Check {
    let problems = report.full_places.iter().map(|place| Problem {
        what: format!("{}, {}", place.cgroup.path, place.attach_type),
        why: full_place(place),
        remedy: None,
        identity: format!("{} {}", place.cgroup.path, place.attach_type),
        place: Some(Place::Cgroup(place.cgroup.path.clone())),
    });
    let summary = "A cgroup takes no program of an attach type more, or few.".to_owned();
    noted(report, FULL_PLACE, summary, problems.collect(), None)
}

fn noted(
    report: &Report,
    rule: &'static str,
    summary: String,
    problems: Vec<Problem>,
    unasked: Option<Problem>,
) -> Check {
    let unseen = unseen(report, unasked);
    let outcome = match (problems.is_empty(), unseen.is_empty()) {
        (false, _) => Outcome::Noted(problems),
        (true, false) => Outcome::Unseen(unseen),
        (true, true) => Outcome::Passed,
    };
    Check { rule, summary, outcome }
}

fn unseen(report: &Report, unasked: Option<Problem>) -> Vec<Problem> {
    report.coverage.gaps.iter().map(Problem::from).chain(unasked).collect()
}

fn coverage(report: &Report) -> Check {
    let gaps: Vec<Problem> = report.coverage.gaps.iter().map(Problem::from).collect();
    Check {
        rule: COVERAGE,
        summary: "Something in scope could not be seen, or not be judged.".to_owned(),
        outcome: if gaps.is_empty() { Outcome::Passed } else { Outcome::Failed(gaps) },
    }
}

/// Returns what the scope leaves out. That is no gap, but it prevents the claim that there is no such leak.
fn out_of_scope(report: &Report, finding: Finding) -> Option<Problem> {
    let (what, why) = match finding {
        Finding::Unowned
        | Finding::OrphanedPin
        | Finding::DefunctLink
        | Finding::UnattachedProgram
        | Finding::UnreachableProgram
            if report.root != "/" || !report.has_every_type =>
        {
            ("programs that are attached nowhere", "not judged with --root or --attach-type")
        }
        Finding::OrphanedDevice if report.coverage.network_namespaces.is_none() => {
            let why =
                "not looked at with --root or --program, nor where the snapshot is without them";
            ("network devices of queues", why)
        }
        _ => return None,
    };
    Some(Problem {
        what: what.to_owned(),
        why: why.to_owned(),
        remedy: Some("scan everything: chadthrottle-audit scan".to_owned()),
        place: None,
        identity: what.to_owned(),
    })
}

fn leaked(leak: &Leak) -> Problem {
    let cgroup = leak.cgroup.as_ref().map(|cgroup| cgroup.path.clone());
    let device = leak.device.as_ref().map(|device| device.name.clone());
    let name = leak.program.as_ref().and_then(|program| program.name.clone());
    let attach_type = leak.attach_type.map(|attach_type| attach_type.to_string());
    let identity = [name, device.clone(), cgroup.clone(), attach_type];
    let identity = identity.into_iter().flatten().chain(leak.pins.iter().cloned());
    Problem {
        what: what(leak),
        why: leak.reason.clone(),
        remedy: Some(remedy::of_leak(&leak.remedy)),
        identity: identity.collect::<Vec<_>>().join(" "),
        place: cgroup.map(Place::Cgroup).or(device.map(Place::Device)).or(leak
            .pins
            .first()
            .cloned()
            .map(Place::Pin)),
    }
}

/// Names a leak: `program 41 (chadthrottle_in) on /a, cgroup_inet_ingress`.
fn what(leak: &Leak) -> String {
    let program = leak.program.as_ref().map(program);
    let device =
        leak.device.as_ref().map(|it| format!("network device {} ({})", it.name, it.index));
    let on = leak.cgroup.as_ref().map(|cgroup| format!(" on {}", cgroup.path));
    let attach_type = leak.attach_type.map(|attach_type| format!(", {attach_type}"));
    [program, device, on, attach_type].into_iter().flatten().collect()
}

fn program(program: &ProgramInfo) -> String {
    match program.shown_name() {
        Some("") => format!("program {} (no name)", program.id),
        Some(name) => format!("program {} ({name})", program.id),
        None => format!("program {}", program.id),
    }
}
