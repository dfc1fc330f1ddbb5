//! Network devices of queues, on the real kernel.
//!
//! Everything is judged by one program's name that nobody else here uses, in a pid namespace of the test's own: what
//! others leak meanwhile has owners that cannot be told from there, and is left alone.

use std::os::fd::AsFd;
use std::process::{Command, Output};

use bpf::Owner;
use bpf::throttle::{Parts, load};
use kernel::link::{Link, Way};
use serde_json::Value;
use testkit::isolation::isolate;
use testkit::tcx::{assert_refused, has_tcx};

use crate::common::shown;

/// Runs a script in a pid and a network namespace of its own: `$AUDIT` is the auditor, `alias PID` prints what an owner
/// that is dead wrote on its device.
fn inside(script: &str) -> Output {
    let owner = Owner::this_process("test").unwrap();
    let prelude = format!(
        r#"
        alias() {{
            printf '{{"pid":%s,"start_time":%s,"pid_namespace":%s,"boot_id":"{}","version":"test"}}' \
                "$1" "${{2-1}}" "$(stat -Lc %i /proc/self/ns/pid)"
        }}
        queue() {{ ip link add "$1" type "${{3-ifb}}" && ip link set "$1" alias "$2"; }}
        "#,
        owner.boot_id
    );
    Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--mount-proc", "bash", "-euc"])
        .arg(format!("{prelude}{script}"))
        .env("AUDIT", env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(output)))
}

fn devices(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let devices = report["devices"].as_array().unwrap().iter();
    let mut devices: Vec<_> =
        devices.map(|it| (text(&it["device"]["name"]), text(&it["finding"]))).collect();
    devices.sort();
    devices
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// A leak, a queue in use (of the shell), and devices that only have such a name.
const QUEUES: &str = r#"
    queue chadq4194000a "$(alias 4194000)"
    started=$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)
    queue chadq$$b "$(alias $$ "$started")"
    ip link add chadq4194001a type ifb
    queue chadq4194002a "somebody's uplink"
    queue chadq4194003a "$(alias 4194000)"
    queue chadq4194004a "$(alias 4194004)" bridge
    queue ifb7 "$(alias 4194000)"
"#;

#[test]
fn root_a_device_that_a_killed_owner_left_is_found_and_what_only_looks_like_one_is_not_touched() {
    let output = inside(&format!(
        "{QUEUES}\n$AUDIT scan --all --format json --program chadthrottle_queue || [ $? = 1 ]"
    ));
    let report = report(&output);
    assert_eq!(report["verdict"], "leaks", "{}", shown(&output));
    let mut expected = pairs(&[
        ("chadq4194000a", "orphaned_device"),
        ("chadq4194001a", "foreign"),
        ("chadq4194002a", "foreign"),
        ("chadq4194003a", "foreign"),
        // The first process of its pid namespace.
        ("chadq1b", "active"),
    ]);
    expected.sort();
    assert_eq!(devices(&report), expected);
    let leaks = report["leaks"].as_array().unwrap();
    let leaked: Vec<&Value> =
        leaks.iter().filter(|leak| leak["finding"] == "orphaned_device").collect();
    assert_eq!(leaked.len(), 1);
    assert_eq!(leaked[0]["device"]["name"], "chadq4194000a");
    assert_eq!(leaked[0]["device"]["namespace_path"], Value::Null);
}

#[test]
fn root_a_leaked_device_is_cleaned_and_nothing_else() {
    let output = inside(&format!(
        r#"{QUEUES}
        names() {{ ip -o link | cut -d: -f2 | cut -d@ -f1 | tr -d ' ' | sort; }}
        before=$(names)
        $AUDIT clean --dry-run --program chadthrottle_queue || [ $? = 1 ]
        [ "$before" = "$(names)" ]
        $AUDIT clean --yes --program chadthrottle_queue || [ $? != 1 ]
        echo "gone: $(comm -23 <(echo "$before") <(names))"
        "#
    ));
    assert!(output.status.success(), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("would remove network device chadq4194000a ("), "{text}");
    assert!(text.contains("\nremoved network device chadq4194000a ("), "{text}");
    assert!(text.ends_with("gone: chadq4194000a\n"), "{text}");
}

#[test]
fn root_a_leaked_device_is_found_and_cleaned_in_another_network_namespace() {
    let output = inside(
        r#"
        mount -t tmpfs tmpfs /run
        ip netns add chadtest_blue
        ip netns exec chadtest_blue ip link add chadq4194000a type ifb
        ip netns exec chadtest_blue ip link set chadq4194000a alias "$(alias 4194000)"
        unshare --net sleep 60 & other=$!
        # Until it is in there.
        while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
        nsenter --net=/proc/$other/ns/net ip link add chadq4194001a type ifb
        nsenter --net=/proc/$other/ns/net ip link set chadq4194001a alias "$(alias 4194001)"
        $AUDIT clean --yes --program chadthrottle_queue || [ $? != 1 ]
        echo "blue: $(ip -n chadtest_blue -o link show type ifb)"
        echo "other: $(nsenter --net=/proc/$other/ns/net ip -o link show type ifb)"
        kill $other
        ip netns delete chadtest_blue
        "#,
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", shown(&output));
    assert!(
        text.contains("removed network device chadq4194000a (2) in /run/netns/chadtest_blue"),
        "{text}"
    );
    assert!(text.contains("removed network device chadq4194001a (2) in /proc/"), "{text}");
    assert!(text.contains("\nblue: \nother: \n"), "{text}");
}

#[test]
fn root_below_a_cgroup_no_device_is_looked_at() {
    isolate();
    let cgroup = testkit::cgroup::ScratchCgroup::new("devices");
    let output = crate::common::audit(&["scan", "--format", "json", "--root"])
        .arg(cgroup.path())
        .output()
        .unwrap();
    let report = report(&output);
    assert_eq!(report["coverage"]["network_namespaces"], Value::Null);
}

/// What a scan finds of a program by its id.
fn found(program: u32) -> Value {
    let scan = ["scan", "--format", "json", "--program", "chadthrottle_redirect"];
    let report = report(&crate::common::audit(&scan).output().unwrap());
    let mut programs = report["programs"].as_array().unwrap().iter();
    programs.find(|it| it["program"]["id"] == program).cloned().unwrap_or_default()
}

#[test]
fn root_a_program_on_a_network_device_is_judged_by_its_link_and_its_owner() {
    if !has_tcx() {
        return assert_refused();
    }
    isolate();
    let here = Owner::this_process("test").unwrap();
    let dead = Owner { start_time: here.start_time + 1, ..here.clone() };
    for (owner, finding) in [(here, "active"), (dead, "orphaned_attachment")] {
        let queue = load(&owner, 0, Parts { tcp: false, queue: true }).unwrap().queue.unwrap();
        let link = Link::create_on_device(queue.redirect.as_fd(), 1, Way::Ingress).unwrap();
        let id = queue.redirect.info().id.0;
        // Only the link keeps it.
        drop(queue);
        let found = found(id);
        assert_eq!(found["finding"], finding, "{found}");
        let expected =
            serde_json::json!([{"id": link.id(), "device": 1, "attach_type": "tcx_ingress"}]);
        assert_eq!(found["device_links"], expected);
        assert_eq!(found["program"]["type"], "sched_cls");
    }
}
