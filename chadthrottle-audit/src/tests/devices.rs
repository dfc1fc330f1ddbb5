//! Tests how people read about network devices of queues.

use auditor::actions::{Action, Premise, plan};
use auditor::facts::Snapshot;
use auditor::judge::{Finding, Verdict, classify};
use auditor::report::report;
use kernel::LinkId;

use crate::remedy;
use crate::story::*;
use crate::text::render;

fn found(host: &Snapshot) -> (Verdict, Vec<Finding>) {
    let classified = classify(host);
    (classified.verdict, classified.devices.iter().map(|judged| judged.finding).collect())
}

fn actions(host: &Snapshot) -> Vec<Action> {
    plan(&classify(host)).into_iter().map(|step| step.action).collect()
}

#[test]
fn a_snapshot_of_a_program_that_did_not_look_for_devices_is_not_taken_for_one_that_saw_none() {
    let mut old = host();
    old.look().coverage.network_namespaces = None;
    let classified = classify(&old);
    assert_eq!(classified.verdict, Verdict::Clean);
    let text = render(&report(&old, &classified, false), false, None);
    assert!(text.contains("network devices of queues: the program that took this"), "{text}");
    assert!(!text.contains("no leaked device"), "{text}");
}

#[test]
fn a_leaked_device_is_removed_as_the_one_that_was_judged() {
    let host = queue(Some(false));
    let classified = classify(&host);
    let steps = plan(&classified);
    assert_eq!(steps.len(), 1);
    assert_eq!((steps[0].finding, &steps[0].program), (Finding::OrphanedDevice, &None));
    assert_eq!(steps[0].premise, Premise::OwnerGone);
    assert_eq!(steps[0].action, Action::RemoveDevice(host.looks[0].devices[0].clone()));

    let report = report(&host, &classified, false);
    assert_eq!((report.leaks.len(), report.summary.leaked), (1, 1));
    let leak = &report.leaks[0];
    assert_eq!((&leak.program, leak.device.as_ref().unwrap().index), (&None, 7));
    assert_eq!(remedy::of_leak(&leak.remedy), "`chadthrottle-audit clean` removes it");
    let text = render(&report, false, None);
    assert!(text.contains("leaks: 1 leaked network device; 0 active"), "{text}");
}

#[test]
fn a_program_on_a_network_device_is_active_while_its_owner_lives() {
    let host = on_device(true);
    assert_eq!((found(&host).0, programs(&host)), (Verdict::Clean, vec![Finding::Active]));
    let text = render(&report(&host, &classify(&host), false), false, None);
    let row = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(row.starts_with("active device 2 tcx_ingress 41 chadthrottle_re 31 "), "{text}");
    assert!(text.contains("device 7 chadq4711a"), "{text}");
    assert!(text.contains("; 0 active, 0 pinned, 3 foreign, 1 network device of queues in use"));
}

#[test]
fn a_program_that_a_stranger_keeps_on_a_network_device_is_detached_by_its_link() {
    let mut host = on_device(false);
    host.look().devices.clear();
    host.hold(99, &[link(31)]);
    assert_eq!(programs(&host), [Finding::OrphanedAttachment]);
    let reason = reason(&host);
    assert!(reason.contains("device 2 (tcx_ingress, link 31)"), "{reason}");
    assert!(reason.contains("process 99 (somebody) did not make it, but holds it"), "{reason}");
    assert_eq!(actions(&host), [Action::DetachFromDevice { link: LinkId(31), device: 2 }]);
    let text = render(&report(&host, &classify(&host), false), false, None);
    assert!(text.contains("leaks: 1 leaked program on network devices; "), "{text}");
}
