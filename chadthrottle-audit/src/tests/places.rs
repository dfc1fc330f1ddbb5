//! Tests the report about places with little or no room, whoever fills them.

use auditor::facts::Snapshot;
use auditor::judge::{Verdict, classify};
use auditor::report::{Report, report};
use terminal::Medium;

use crate::formats::Rendition;
use crate::story::*;

/// Returns a host with a place that somebody else's programs fill.
fn crowded(programs: u32, flags: u32) -> Snapshot {
    let mut host = host();
    for id in 0..programs {
        let name = if id % 4 == 0 { "acme_fw" } else { "" };
        host.program(1_000 + id, None).loaded.name = name.into();
        let fact = host.attach(1_000 + id, A, IN);
        (fact.list_flags, fact.program_flags) = (flags, None);
        fact.slots_used = programs;
    }
    host
}

fn made(host: &Snapshot) -> Report {
    report(host, &classify(host), false)
}

#[test]
fn a_full_place_is_told_of_in_a_plain_scan_and_changes_no_verdict() {
    let report = made(&crowded(64, 2));
    assert_eq!(report.verdict, Verdict::Clean);
    let [place] = &report.full_places[..] else { panic!("{:?}", report.full_places) };
    assert_eq!((place.slots_used, place.slots, place.attach_type), (64, 64, IN));
    let programs: Vec<_> = place.programs.iter().map(|it| (it.name.as_deref(), it.count)).collect();
    assert_eq!(programs, [(Some(""), 48), (Some("acme_fw"), 16)]);
    let text = report.text(Medium::FILE);
    let line = "  /cgroup-9310, cgroup_inet_ingress: 64 of 64 programs, full, so the kernel refuses another one \
                (E2BIG): 48 without a name, 16 acme_fw";
    assert!(text.contains(&format!("Full, or nearly full (1):\n{line}\n")), "{text}");
    // The report names the place, but does not list other tools' programs.
    assert_eq!(report.attachments, []);
}

#[test]
fn a_place_is_nearly_full_from_48_programs_on() {
    assert_eq!(made(&crowded(47, 2)).full_places, []);
    let report = made(&crowded(48, 2));
    let text = report.text(Medium::FILE);
    assert!(text.contains("48 of 64 programs, nearly full: 36 without a name"), "{text}");
}

#[test]
fn a_list_of_one_is_never_nearly_full() {
    for flags in [0, 1] {
        assert_eq!(made(&crowded(64, flags)).full_places, [], "{flags}");
    }
}

#[test]
fn a_name_that_could_not_be_read_is_told_as_such_and_many_names_are_counted() {
    let mut host = crowded(64, 2);
    for (at, program) in host.look().programs.iter_mut().rev().take(10).enumerate() {
        program.loaded.name = format!("name{at}");
    }
    host.look().programs.pop();
    let text = made(&host).text(Medium::FILE);
    assert!(text.contains("and 9 other names"), "{text}");
    let read = made(&host).full_places.remove(0);
    assert!(read.programs.iter().any(|it| it.name.is_none() && it.count == 1), "{read:?}");
}
