//! What `list` shows, of this process's throttles, of others' and of pinned ones, and what `rm` does to those.

use std::path::Path;

use kernel::AttachType;
use kernel::link::Link;
use nix::sys::signal::Signal;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::leak;

use crate::common::programs;
use crate::{Limit, run, text};

#[test]
fn root_a_pinned_throttle_stays_until_rm() {
    isolate();
    let cgroup = ScratchCgroup::new("pinned");
    let path = text(&cgroup);
    let said = run(&[
        "limit",
        "--cgroup",
        &path,
        "--download",
        "2M",
        "--upload",
        "1M",
        "--attach",
        "pinned",
    ]);
    assert!(said.status.success(), "{}", said.stderr);
    assert!(said.stdout.ends_with("; stays until 'chadthrottle rm 1'\n"), "{}", said.stdout);
    assert_eq!(programs(cgroup.path()), 3);

    let list = run(&["list"]);
    assert!(
        list.stdout.contains("2 MB/s down")
            && list.stdout.contains(&*cgroup.relative().to_string_lossy())
    );
    assert!(list.stdout.lines().all(|line| line.len() <= 80), "{}", list.stdout);
    let wide = run(&["list", "--wide"]).stdout;
    let here = cgroup.relative();
    let is_ours = |line: &&str| line.starts_with("1 ") && line.ends_with(here.to_str().unwrap());
    let rows: Vec<_> = wide.lines().filter(is_ours).collect();
    assert_eq!(rows.len(), 2, "{wide}");
    assert!(rows[0].contains("2 MB/s down") && rows[0].contains("pinned"), "{wide}");
    assert!(rows.iter().all(|row| row.contains("shape")), "{wide}");

    assert_eq!(run(&["ids"]).stdout, "1\n", "for completions");

    let wrong = run(&["rm", "7"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(wrong.stderr.contains("no pinned throttle '7'"), "{}", wrong.stderr);
    let wrong = run(&["rm", "7", "8"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(wrong.stderr.contains("'7'") && wrong.stderr.contains("'8'"), "{}", wrong.stderr);
    let removed = run(&["rm", "1"]);
    assert!(removed.status.success(), "{}", removed.stderr);
    assert_eq!(removed.stdout, format!("removed 1 from {path}\n"));
    assert_eq!(programs(cgroup.path()), 0);
    assert!(!Path::new("/sys/fs/bpf/chadthrottle/1").exists());
}

#[test]
fn root_a_pinned_throttle_that_lost_its_program_is_listed_with_its_id() {
    isolate();
    let cgroup = ScratchCgroup::new("lost");
    let path = text(&cgroup);
    let said = run(&[
        "limit", "--cgroup", &path, "--upload", "1M", "--tcp", "police", "--attach", "pinned",
    ]);
    assert!(said.status.success(), "{}", said.stderr);
    // As `bpftool link detach` does.
    let pins = std::fs::read_dir("/sys/fs/bpf/chadthrottle/1").unwrap();
    let links = pins.filter_map(|pin| Link::open_pinned(&pin.unwrap().path()).ok());
    links.for_each(|link| link.detach().unwrap());
    assert_eq!(programs(cgroup.path()), 0);

    let list = run(&["list"]);
    assert!(
        list.stdout.contains("1 MB/s up") && list.stdout.contains(" detached"),
        "{}",
        list.stdout
    );
    assert!(list.stderr.contains("'chadthrottle rearm ID' arms it again"), "{}", list.stderr);
    let json: serde_json::Value =
        serde_json::from_str(&run(&["list", "--format", "json"]).stdout).unwrap();
    let here = cgroup.relative();
    let rows = json["throttles"].as_array().unwrap();
    let row = rows.iter().find(|row| row["cgroup"].as_str() == here.to_str()).unwrap();
    assert_eq!((&row["id"], &row["detached"]), (&"1".into(), &true.into()), "{json:#}");
    assert!(row["finding"].is_null(), "{json:#}");

    let armed = run(&["rearm", "1"]);
    assert!(armed.status.success(), "{}", armed.stderr);
    let list = run(&["list"]).stdout;
    let ours = list.lines().find(|line| line.ends_with(here.to_str().unwrap()));
    assert!(ours.is_some_and(|line| !line.contains(" detached")), "{list}");
    assert!(run(&["rm", "1"]).status.success());
}

#[test]
fn root_list_shows_the_throttles_of_others_as_json() {
    isolate();
    let cgroup = ScratchCgroup::new("list");
    let path = text(&cgroup);
    let one = Limit::start(&["--cgroup", &path, "--download", "1M", "--traffic", "internet"]);
    let two = Limit::start(&["--cgroup", &path, "--upload", "8mbit", "--attach", "legacy"]);
    let said = run(&["list", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let schema = include_str!("../../../docs/schema/list.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let errors: Vec<_> = schema.iter_errors(&json).map(|it| it.to_string()).collect();
    assert_eq!(errors, [""; 0], "{json:#}");
    let mut broken = json.clone();
    broken["throttles"][0]["direction"] = "sideways".into();
    assert!(!schema.is_valid(&broken));
    let of = |limit: &Limit| {
        let rows = json["throttles"].as_array().unwrap();
        let own = |row: &&serde_json::Value| row["owner_pid"] == limit.child.id();
        let rows: Vec<_> = rows.iter().filter(own).cloned().collect();
        assert_eq!(rows.len(), 1, "{json:#}");
        rows[0].clone()
    };
    let (first, second) = (of(&one), of(&two));
    assert_eq!(first["direction"], "download");
    assert_eq!(first["traffic"], "internet");
    assert_eq!(first["attach"], "link");
    assert_eq!(first["tcp"], "shape");
    assert_eq!(first["cgroup"].as_str(), cgroup.relative().to_str());
    assert_eq!(first["owner_alive"], true);
    assert_eq!(second["rate_bytes_per_second"], 1_000_000);
    assert_eq!(second["attach"], "legacy");
    assert_eq!(second["finding"], "active");
    for limit in [one, two] {
        limit.signal(Signal::SIGTERM);
        assert!(limit.end().status.success());
    }
}

#[test]
fn root_list_points_to_the_auditor_when_something_is_leaked() {
    isolate();
    let cgroup = ScratchCgroup::new("leaked");
    leak::plant(cgroup.path(), AttachType::INET_EGRESS).unwrap();
    let said = run(&["list"]);
    assert!(said.stdout.contains("named chadthrottle*"), "{}", said.stdout);
    assert!(said.stderr.contains("chadthrottle-audit scan"), "{}", said.stderr);
}
