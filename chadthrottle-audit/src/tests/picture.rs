//! Tests that the README's picture shows what the program prints.

use std::path::Path;

use auditor::judge::classify;
use auditor::report::report;

use crate::story::*;
use crate::text::render;

/// Returns the text for a killed throttle like the historic one: both directions, and no owner left.
fn leaking() -> String {
    let mut host = host();
    let owner = owner(4711);
    host.owner_lives(&owner, Some(false));
    for (id, name, attach_type) in [(41, "chadthrottle_in", IN), (42, "chadthrottle_eg", EG)] {
        host.program(id, Some(&owner)).loaded.name = name.into();
        host.attach(id, A, attach_type).cgroup = "/system.slice/sync.service".into();
    }
    let text = render(&report(&host, &classify(&host), false), true, Some(120));
    format!("\x1b[1m# chadthrottle-audit scan\x1b[0m\n{text}")
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scan.svg");
    let picture = anstyle_svg::Term::new().render_svg(&leaking());
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        std::fs::write(&file, &picture).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap();
    assert_eq!(there, picture, "UPDATE_PICTURES=1 draws it anew");
}
