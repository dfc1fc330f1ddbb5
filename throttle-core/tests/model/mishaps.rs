//! What comes of it when one call fails, for every call of an operation.

use std::rc::Rc;

use bpf::ledger::Stage;
use kernel::AttachType;
use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::list::AttachFlags;
use sim::World;
use throttle_core::mode::Wish;
use throttle_core::{Engine, Error, Spec};
use vmtests::sequences::faulty::Faulty;
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;

/// The calls of an operation in order: each `-` where its failure is nothing to the operation, else as the
/// operation's error tells of it.
pub(crate) fn told(fail: Fail, operation: impl Fn(Fault) -> Option<Option<Error>>) -> Vec<String> {
    (1..)
        .map_while(|nth| operation(Fault { nth, mishap: Mishap::Fail(fail) }))
        .map(|error| error.map_or("-".to_owned(), |error| name(&error)))
        .collect()
}

pub(crate) fn name(error: &Error) -> String {
    match error {
        Error::Kernel(error) => error.call().name().to_owned(),
        Error::Ledger { action, .. } => action.words().to_owned(),
        Error::StillAttached { .. } => "still attached".to_owned(),
        Error::OutOfSight { .. } => "out of sight".to_owned(),
        Error::Several(errors) => errors.iter().map(name).collect::<Vec<_>>().join(" + "),
        other => other.to_string(),
    }
}

fn removing(wish: Wish, fail: Fail) -> Vec<String> {
    told(fail, |fault| {
        let host = Host::boot();
        let process = host.process();
        let mut engine = process.start();
        let cgroup = host.cgroup("a");
        let id = engine.add(&spec(&cgroup, wish)).unwrap().id;
        process.control.plan(Some(fault));
        let error = engine.remove(id).err();
        let struck = process.control.struck();
        process.control.plan(None);
        // Whatever failed, it can be tried again, and the next start finds what was not seen.
        if error.is_some() {
            engine.remove(id).unwrap();
        }
        assert_eq!(host.attached(&cgroup), 0);
        process.kill(engine);
        assert_eq!(host.settle().failed.len(), 0);
        assert!(host.is_clean());
        struck.then_some(error)
    })
}

fn settling(wish: Wish, vanished: bool, fail: Fail) -> Vec<String> {
    told(fail, |fault| {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, wish);
        host.edit(|entry| {
            entry.stage = Stage::Removing;
            if vanished {
                entry.cgroup_path = "/nowhere".into();
                for attachment in &mut entry.attachments {
                    attachment.pin = Some("/sys/fs/bpf/nowhere/x".into());
                }
            }
        });
        let process = host.process();
        process.control.plan(Some(fault));
        let error = match process.try_start() {
            Ok((_, mut settlement)) => {
                let failed = settlement.failed.pop().map(|(_, error)| error);
                failed.or_else(|| settlement.queues.err().map(Error::Kernel))
            }
            Err(error) => Some(error),
        };
        let struck = process.control.struck();
        process.control.plan(None);
        struck.then_some(error)
    })
}

// Calls into the ledger and /proc, and into the kernel.
const LOCK: [&str; 2] = ["make the folder", "lock"];
/// The entry is read, and written again: that it could not be marked does not matter if it can be removed.
const MARK: [&str; 3] = ["-"; 3];
const FORGET: [&str; 2] = ["read", "remove"];
/// Of a program: disarmed at first, and counted at last, if that can be.
pub(crate) const LINK: [&str; 4] = ["-", "BPF_LINK_DETACH", "BPF_PROG_QUERY", "-"];
const PINNED: [&str; 6] = ["-", "BPF_LINK_DETACH", "BPF_OBJ_GET", "unlink", "BPF_PROG_QUERY", "-"];
const LEGACY: [&str; 5] = ["-", "BPF_PROG_QUERY", "BPF_PROG_DETACH", "BPF_PROG_QUERY", "-"];

/// Of both directions and then TCP, whose program has no limit of its own to disarm, and does not count.
pub(crate) fn of_all(direction: &[&'static str]) -> Vec<&'static str> {
    [direction, direction, &direction[1..direction.len() - 1]].concat()
}

#[test]
fn a_removal_tells_of_every_call_that_failed_unless_it_does_not_matter() {
    assert_eq!(removing(Wish::Link, Fail::EPERM), of_all(&LINK));
    let recorded =
        |direction: &[&'static str]| [&LOCK[..], &MARK, &of_all(direction), &FORGET].concat();
    assert_eq!(removing(Wish::Pinned, Fail::EPERM), recorded(&PINNED));
    assert_eq!(removing(Wish::Legacy, Fail::EPERM), recorded(&LEGACY));
}

/// It asks whether that is so, and believes only the cgroup's list.
#[test]
fn a_removal_that_comes_upon_nothing_has_done_its_work() {
    assert_eq!(removing(Wish::Link, Fail::ENOENT), of_all(&["-", "BPF_LINK_DETACH", "-", "-"]));
    let recorded =
        |direction: &[&'static str]| [&LOCK[..], &MARK, &of_all(direction), &["-", "-"]].concat();
    // A pin that is there and cannot be opened may be another's by now.
    let pinned = recorded(&["-", "BPF_LINK_DETACH", "BPF_OBJ_GET", "unlink", "-", "-"]);
    assert_eq!(removing(Wish::Pinned, Fail::ENOENT), pinned);
    let legacy = recorded(&["-", "still attached", "still attached", "-", "-"]);
    assert_eq!(removing(Wish::Legacy, Fail::ENOENT), legacy);
}

/// Looking for queues that were left behind.
const QUEUES: [&str; 1] = ["rtnetlink"];
/// Sweeping, reading (an entry that cannot be read is told of as such), the cgroup, whether its owner lives.
const FIND: [&str; 5] = ["list", "list", "-", "open", "read"];

#[test]
fn settling_tells_of_every_call_that_failed() {
    let pinned = [
        "BPF_*_GET_FD_BY_ID",
        "BPF_OBJ_GET",
        "BPF_OBJ_GET_INFO_BY_FD",
        "BPF_LINK_DETACH",
        "unlink",
        "BPF_OBJ_GET_INFO_BY_FD",
        "BPF_PROG_QUERY",
    ];
    let legacy = ["BPF_*_GET_FD_BY_ID", "BPF_PROG_QUERY", "BPF_PROG_DETACH", "BPF_PROG_QUERY"];
    let all = |program: &[&'static str]| {
        [&QUEUES[..], &LOCK, &FIND, &["open"], &program.repeat(3), &["remove"]].concat()
    };
    assert_eq!(settling(Wish::Pinned, false, Fail::EPERM), all(&pinned));
    assert_eq!(settling(Wish::Legacy, false, Fail::EPERM), all(&legacy));
}

#[test]
fn settling_where_nothing_is_found_tells_of_every_call_that_failed_as_well() {
    let find = [&FIND[..4], &["BPF_OBJ_GET"; 3], &["read", "open"]].concat();
    let with_link = [
        "BPF_*_GET_FD_BY_ID",
        "BPF_OBJ_GET",
        "unlink",
        "BPF_*_GET_FD_BY_ID",
        "BPF_OBJ_GET_INFO_BY_FD",
    ];
    for (wish, calls) in [(Wish::Pinned, &with_link[..]), (Wish::Legacy, &with_link[..3])] {
        // Where queues cannot be looked for, the programs that cannot be placed are told of all the same.
        let queues = ["out of sight + out of sight + out of sight"];
        let before = queues.iter().chain(&LOCK).chain(&find);
        let mut expected: Vec<_> = before.map(ToString::to_string).collect();
        // One program fails, and of the others nothing is found.
        for fails in 0..3 {
            expected.extend(calls.iter().map(|call| {
                let mut told = ["out of sight"; 3];
                told[fails] = call;
                told.join(" + ")
            }));
        }
        assert_eq!(settling(wish, true, Fail::EPERM), expected);
    }
}

#[test]
fn settling_takes_what_is_not_there_for_gone_unless_it_is_on_the_cgroups_list() {
    let found = ["list", "-", "-", "-", "read"];
    // A pin that is not found is removed all the same, for its folder.
    let info = "BPF_OBJ_GET_INFO_BY_FD";
    let pinned = ["-", "-", info, "BPF_LINK_DETACH", "unlink", info, "-"];
    let pinned = [&QUEUES[..], &LOCK, &found, &["-"], &pinned.repeat(3), &["-"]].concat();
    assert_eq!(settling(Wish::Pinned, false, Fail::ENOENT), pinned);
    // Without its cgroup, of a program that exists nothing can be said.
    let found = ["list", "-", "-", "-", "read", "out of sight + out of sight + out of sight"];
    let legacy = ["still attached", "still attached", "still attached", "-"];
    let legacy = [&QUEUES[..], &LOCK, &found, &legacy.repeat(3), &["-"]].concat();
    assert_eq!(settling(Wish::Legacy, false, Fail::ENOENT), legacy);
}

/// Somebody attaches between the look at the list and the detach that insists on what was seen.
#[test]
fn a_list_that_changes_while_it_is_looked_at_is_looked_at_again() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let (kernel, path) = (host.kernel.clone(), cgroup.clone());
    let process = host.process_with(move || {
        let open = kernel.open_cgroup(&path).unwrap();
        let program = kernel.load_pass("neighbour", AttachType::INET_INGRESS).unwrap();
        let multi = AttachFlags::MULTI;
        kernel.attach(&program, &open, AttachType::INET_INGRESS, multi, None).unwrap();
    });
    let mut engine = process.start();
    let id = engine.add(&spec(&cgroup, Wish::Legacy)).unwrap().id;
    // After the lock, the mark, and the first state comes the first query.
    process.control.plan(Some(Fault { nth: 7, mishap: Mishap::DieAfter }));
    engine.remove(id).unwrap();
    assert!(process.control.struck());
    // The neighbour.
    assert_eq!(host.attached(&cgroup), 1);
}

/// The state goes with the cgroup, so that this is no mishap.
#[test]
fn that_a_limit_could_not_be_lifted_is_told_only_of_one_that_may_still_hold() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    // Two around each other, so that two calls can fail.
    let (process, second) = (host.process(), host.process());
    let kernel = Faulty::new(process.faulty(), Rc::clone(&second.control));
    let (mut engine, _) = Engine::start(kernel, process.config.clone()).unwrap();
    let id = engine.add(&Spec { download: None, ..spec(&cgroup, Wish::Link) }).unwrap().id;
    let eperm = |nth| Some(Fault { nth, mishap: Mishap::Fail(Fail::EPERM) });

    // The state, and then detaching: the first that the inner one sees.
    second.control.plan(eperm(1));
    process.control.plan(eperm(1));
    assert_eq!(name(&engine.remove(id).unwrap_err()), "BPF_LINK_DETACH + BPF_MAP_UPDATE_ELEM");

    // With the cgroup the state is gone.
    host.kernel.remove_cgroup(&cgroup).unwrap();
    second.control.plan(eperm(2));
    process.control.plan(None);
    assert_eq!(name(&engine.remove(id).unwrap_err()), "BPF_LINK_DETACH");
    second.control.plan(None);
    engine.remove(id).unwrap();
}
