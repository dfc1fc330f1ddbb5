//! What the report says of each attachment: order, flags, and which attach types were asked for.

use kernel::list::AttachFlags;
use serde_json::{Value, json};
use testkit::cgroup::ScratchCgroup;

use crate::common::*;

/// (attach type, program, flags), in the report's order.
fn rows(report: &Value) -> Vec<(String, u32, Value)> {
    let attachments = report["attachments"].as_array().unwrap();
    attachments
        .iter()
        .map(|it| {
            let id = u32::try_from(it["program"]["id"].as_u64().unwrap()).unwrap();
            (it["attach_type"].as_str().unwrap().to_owned(), id, it["attach_flags"].clone())
        })
        .collect()
}

#[test]
fn root_attachments_are_listed_in_the_order_in_which_they_run_with_their_flags() {
    let cgroup = ScratchCgroup::new("order");
    let multi: Vec<_> = (0..3)
        .map(|_| plant(cgroup.path(), "chadtest_any", INGRESS, AttachFlags::MULTI).0)
        .collect();
    let single = plant(cgroup.path(), "chadtest_any", EGRESS, AttachFlags::OVERRIDE).0;
    let (_, report) = scan(cgroup.path(), "chadtest_nobody", &[]);
    let mut expected: Vec<_> = multi
        .into_iter()
        .map(|id| ("cgroup_inet_ingress".to_owned(), id, json!(["multi"])))
        .collect();
    expected.push(("cgroup_inet_egress".to_owned(), single, json!(["override"])));
    assert_eq!(rows(&report), expected);
}

#[test]
fn root_only_the_attach_types_that_were_asked_for_are_looked_at() {
    let cgroup = ScratchCgroup::new("types");
    plant(cgroup.path(), "chadtest_any", INGRESS, AttachFlags::MULTI);
    let id = plant(cgroup.path(), "chadtest_any", EGRESS, AttachFlags::MULTI).0;
    let only = ["--attach-type", "cgroup_inet_egress"];
    let (_, report) = scan(cgroup.path(), "chadtest_nobody", &only);
    assert_eq!(rows(&report), [("cgroup_inet_egress".to_owned(), id, json!(["multi"]))]);
    assert_eq!(report["coverage"]["attach_types"], json!(["cgroup_inet_egress"]));
}
