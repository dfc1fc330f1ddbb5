//! What the engine refuses before it attaches anything.

use sim::Version;
use throttle_core::mode::{Mode, Wish};
use throttle_core::{Error, Spec};

use crate::common::*;

#[test]
fn without_links_only_the_legacy_way_is_left_and_only_who_asks_gets_it() {
    let host = Host::boot_as(Version::new(5, 6));
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let refused = engine.add(&spec(&cgroup, Wish::default())).unwrap_err();
    assert!(matches!(refused, Error::Mode(_)) && refused.to_string().contains("5.7"), "{refused}");
    let started = engine.add(&spec(&cgroup, Wish::Legacy)).unwrap();
    assert_eq!(started.mode, Mode::Legacy);
}

#[test]
fn a_throttle_that_limits_nothing_is_refused() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let nothing = Spec { download: None, upload: None, ..spec(&cgroup, Wish::Link) };
    assert!(matches!(host.process().start().add(&nothing), Err(Error::NothingToLimit)));
}
