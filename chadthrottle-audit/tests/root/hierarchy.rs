//! Which part of the cgroup2 hierarchy an audit sees, and where in it a path begins.

use crate::common::*;
use crate::place::*;

#[test]
fn root_what_is_attached_out_of_sight_is_not_called_attached_nowhere() {
    let place = Place::new("out-of-sight");
    place.plant();
    let script = r#"mkdir "$SPARE/part"; mount --bind "$INSIDE" "$SPARE/part"
        umount --lazy "$MOUNT"; mount --bind "$SPARE/part" "$MOUNT"; umount "$SPARE/part"; ROOT=/; scan"#;
    let output = place.run(script);
    not_known(&output, &["attached nowhere that could be seen", "paths are relative to it"]);
    assert!(!shown(&output).contains("attached nowhere;"), "{}", shown(&output));
}

#[test]
fn root_a_scan_begins_where_a_directory_on_another_mount_or_a_link_leads() {
    let place = Place::new("again");
    let leak = place.plant();
    let again =
        r#"mkdir "$SPARE/again"; mount -t cgroup2 none "$SPARE/again"; ROOT="$SPARE/again$ROOT"; "#;
    let link = r#"ln -s "$MOUNT$ROOT" "$SPARE/link"; ROOT="$SPARE/link"; "#;
    for root in [again, link] {
        found(&place.run(&format!("{root}scan")), leak);
    }
    let cleaned = place.run(&format!("{again}clean"));
    assert_eq!(cleaned.status.code(), Some(0), "{}", shown(&cleaned));
    assert_eq!(attached(place.cgroup.path(), INGRESS), []);
}
