//! Tests how people read about programs without a known owner.

use auditor::facts::Snapshot;
use auditor::judge::Finding::{self, Unowned};
use auditor::judge::classify;
use auditor::report::report;
use terminal::Medium;

use crate::formats::Rendition;
use crate::story::*;

fn text(host: &Snapshot) -> String {
    report(host, &classify(host), false).text(Medium::FILE)
}

#[test]
fn the_text_lists_it_says_that_it_is_no_leak_and_names_no_command_that_removes_it() {
    for (what, host) in situations() {
        let text = text(&host);
        assert!(text.contains("unowned, and no leak ("), "{what}: {text}");
        assert!(text.contains("find out who made it"), "{what}: {text}");
        for command in ["audit clean", "bpftool", "detach it", "rm /", "unpin", "Remove what"] {
            assert!(!text.contains(command), "{what}: {command}: {text}");
        }
        let count = classify(&host).unowned().count();
        assert!(text.contains(&format!("foreign, {count} unowned")), "{what}: {text}");
    }
}

#[test]
fn a_program_without_a_name_can_be_asked_for() {
    let mut host = unowned();
    host.scope.programs = vec![String::new()];
    assert_eq!(attachments(&host), [Finding::Foreign]);
    host.look().programs.last_mut().unwrap().loaded.name.clear();
    assert_eq!(attachments(&host), [Unowned]);
    assert!(text(&host).contains("program 41 (no name) on /cgroup-9310"), "{}", text(&host));
}
