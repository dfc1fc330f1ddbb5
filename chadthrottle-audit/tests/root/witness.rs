//! What is attached, compared with a witness that is not ours: bpftool.

use std::os::fd::AsFd;
use std::process::Command;

use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::AttachFlags;
use kernel::{AttachType, Program};
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;

use crate::common::*;

/// (cgroup, attach type, program id), sorted; a multiset.
type Places = Vec<(String, String, u64)>;

fn bpftool(root: &ScratchCgroup) -> Places {
    let output =
        Command::new("bpftool").args(["-j", "cgroup", "tree"]).arg(root.path()).output().unwrap();
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mount = kernel::cgroup::cgroup2_mount().unwrap();
    let mount = mount.to_str().unwrap();
    let mut places: Places = Vec::new();
    for cgroup in tree.as_array().unwrap() {
        let path = cgroup["cgroup"].as_str().unwrap().strip_prefix(mount).unwrap();
        for program in cgroup["programs"].as_array().unwrap() {
            let attach_type = program["attach_type"].as_str().unwrap();
            places.push((path.to_owned(), attach_type.to_owned(), program["id"].as_u64().unwrap()));
        }
    }
    places.sort();
    places
}

fn ours(root: &ScratchCgroup) -> Places {
    let (_, report) = scan(root.path(), "chadtest_nobody", &[]);
    let mut places: Places = report["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let path = it["cgroup"]["path"].as_str().unwrap().to_owned();
            let attach_type = it["attach_type"].as_str().unwrap().to_owned();
            (path, attach_type, it["program"]["id"].as_u64().unwrap())
        })
        .collect();
    places.sort();
    places
}

#[test]
fn root_bpftool_sees_the_same_attachments() {
    let root = ScratchCgroup::new("witness");
    let names = Names::new();
    let types: Vec<AttachType> = AttachType::all()
        .filter(|it| !it.name().contains("_unix_") && it.name() != "lsm_cgroup")
        .collect();
    for (number, &attach_type) in types.iter().enumerate() {
        let path = root.child(format!("c{}/d{}", number % 4, number % 3));
        plant(&path, &names.leak, attach_type, AttachFlags::MULTI);
        plant(path.parent().unwrap(), &names.foreign, attach_type, AttachFlags::MULTI);
    }
    // The same program several times at one place.
    let program = Program::load_pass(&names.leak, EGRESS).unwrap();
    let open = Cgroup::open(root.path()).unwrap();
    let _links = [(); 3].map(|()| Link::create(program.as_fd(), &open, EGRESS).unwrap());

    let (theirs, ours) = (bpftool(&root), ours(&root));
    assert_eq!(ours.len(), 2 * types.len() + 3);
    assert_eq!(ours, theirs);
}
