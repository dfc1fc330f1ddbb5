//! Two ways to see what is attached: asking each cgroup, and the kernel going over them itself. They have
//! nothing in common but the kernel's lists, so each is the other's witness.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auditor::collect::{Method, Options, collect};
use auditor::facts::{Look, Subject};
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{AttachFlags, attach};
use kernel::{AttachType, Program};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use testkit::cgroup::{ScratchCgroup, remove_tree};
use testkit::iterator::has_cgroup_iterator;

fn look(root: &Path, method: Method) -> Look {
    let options = Options {
        root: root.to_owned(),
        programs: vec!["chadtest_nobody".to_owned()],
        method,
        settle: Duration::from_millis(1),
        ..Options::default()
    };
    collect(&options).unwrap().looks.pop().unwrap()
}

/// A look that was to be taken with an iterator that the kernel does not have is no look.
fn is_told_of(look: &Look) -> bool {
    let of_cgroups = |gap: &&auditor::facts::Gap| gap.about == Subject::Cgroups;
    look.coverage.cgroups_visited == 0
        && look.coverage.gaps.iter().filter(of_cgroups).any(|gap| gap.why.contains("Linux 6.1"))
}

/// What is done to a tree of cgroups; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Deed {
    /// A cgroup below the nth.
    Make(usize),
    /// A program of the nth type on the nth cgroup, the legacy way, in a list of this kind.
    Attach(usize, usize, u32),
    /// The same through a link.
    Link(usize, usize),
    /// The nth program once more, on the nth cgroup.
    Again(usize, usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        1 => (0..9_usize).prop_map(Deed::Make),
        4 => (0..9_usize, 0..99_usize, 0..=2_u32).prop_map(|(a, b, c)| Deed::Attach(a, b, c)),
        2 => (0..9_usize, 0..99_usize).prop_map(|(a, b)| Deed::Link(a, b)),
        1 => (0..9_usize, 0..99_usize).prop_map(|(a, b)| Deed::Again(a, b)),
    ]
}

/// Hooks of security modules: each has a list of its own, and the queries have one answer for all.
const HOOKS: [&str; 3] = ["socket_bind", "socket_listen", "socket_create"];

/// A program that can be attached to a type; none where this kernel cannot load it.
fn load(attach_type: AttachType, number: usize) -> Option<Program> {
    let name = format!("chadtest_m{number}");
    if attach_type == AttachType::LSM {
        return Program::load_pass_on_hook(&name, HOOKS[number % HOOKS.len()]).ok();
    }
    Program::load_pass(&name, attach_type).ok()
}

/// Does it all; the kernel may refuse what it likes. Returns what must live on.
fn grow(root: &Path, deeds: &[Deed]) -> Vec<Link> {
    let types: Vec<AttachType> = AttachType::all().collect();
    let mut cgroups = vec![root.to_owned()];
    let mut programs: Vec<(Program, AttachType)> = Vec::new();
    let mut links = Vec::new();
    for (number, deed) in deeds.iter().enumerate() {
        let at = |nth: usize| cgroups[nth % cgroups.len()].clone();
        match *deed {
            Deed::Make(parent) => {
                let path = at(parent).join(format!("c{number}"));
                std::fs::create_dir(&path).unwrap();
                cgroups.push(path);
            }
            Deed::Attach(cgroup, nth, flags) => {
                let attach_type = types[nth % types.len()];
                let Some(program) = load(attach_type, number) else { continue };
                let flags = AttachFlags::from_bits_retain(flags);
                let open = Cgroup::open(&at(cgroup)).unwrap();
                let _ = attach(program.as_fd(), &open, attach_type, flags, None);
                programs.push((program, attach_type));
            }
            Deed::Link(cgroup, nth) => {
                let attach_type = types[nth % types.len()];
                let Some(program) = load(attach_type, number) else { continue };
                let open = Cgroup::open(&at(cgroup)).unwrap();
                links.extend(Link::create(program.as_fd(), &open, attach_type));
                programs.push((program, attach_type));
            }
            Deed::Again(cgroup, nth) if !programs.is_empty() => {
                let (program, attach_type) = &programs[nth % programs.len()];
                let open = Cgroup::open(&at(cgroup)).unwrap();
                links.extend(Link::create(program.as_fd(), &open, *attach_type));
            }
            Deed::Again(..) => {}
        }
    }
    links
}

#[test]
fn root_both_ways_see_the_same_in_random_trees() {
    let root = ScratchCgroup::new("methods");
    let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
    let deeds = prop::collection::vec(deed(), 20..80);
    let seen = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&deeds, |deeds| {
        let tree: PathBuf = root.child("tree");
        let links = grow(&tree, &deeds);
        let [asked, iterated] = [Method::Query, Method::Iter].map(|method| look(&tree, method));
        drop(links);
        seen.set(seen.get() + asked.attachments.len());
        remove_tree(&tree).unwrap();
        if !has_cgroup_iterator() {
            prop_assert!(is_told_of(&iterated));
            return Ok(());
        }
        prop_assert_eq!((&*asked.method, &*iterated.method), ("query", "iter"));
        prop_assert_eq!(&iterated.attachments, &asked.attachments);
        // (Of the tree before there may be programs that are on their way out.)
        let [iterated_programs, asked_programs] = [&iterated, &asked].map(|look| {
            let is_here =
                |id| look.attachments.iter().any(|attachment| attachment.program_id == id);
            look.programs.iter().filter(|it| is_here(it.loaded.id)).collect::<Vec<_>>()
        });
        prop_assert_eq!(iterated_programs, asked_programs);
        prop_assert_eq!(iterated.coverage.cgroups_visited, asked.coverage.cgroups_visited);
        prop_assert_eq!(&iterated.coverage.gaps, &asked.coverage.gaps);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // The comparison is of more than empty lists.
    assert!(seen.get() > 100, "{seen:?}");
}

/// Each attach type on a cgroup that has nothing else: each has a number of its own that the iterator has to know, also
/// in order to see that a cgroup has anything.
#[test]
fn root_both_ways_know_every_attach_type() {
    let root = ScratchCgroup::new("types");
    let mut planted = 0;
    // Not every host lets programs be security modules; the kernels in virtual machines do.
    let hook = Program::load_pass_on_hook("chadtest_hook", HOOKS[0]);
    println!("security modules: {:?}", hook.as_ref().map(|it| it.info().id));
    assert!(hook.is_ok() || std::env::var_os("VMTESTS_KERNEL").is_none(), "{hook:?}");
    for attach_type in AttachType::all() {
        let alone = root.child(attach_type.to_string());
        for number in 0..3 {
            let Some(program) = load(attach_type, number) else { continue };
            let open = Cgroup::open(&alone).unwrap();
            match attach(program.as_fd(), &open, attach_type, AttachFlags::MULTI, None) {
                Ok(()) => planted += 1,
                // A kernel that can load a program for a type need not have the type.
                Err(error) => assert!(error.errno() == nix::errno::Errno::EINVAL, "{error}"),
            }
        }
    }
    let [asked, iterated] = [Method::Query, Method::Iter].map(|method| look(root.path(), method));
    assert_eq!(asked.attachments.len(), planted);
    assert!(planted >= 3 * 23, "{planted}");
    if has_cgroup_iterator() {
        assert_eq!(iterated.attachments, asked.attachments);
    } else {
        assert!(is_told_of(&iterated));
    }
}

#[test]
fn root_where_there_are_many_cgroups_the_iterator_is_taken_and_its_load_is_told_apart() {
    let root = ScratchCgroup::new("many");
    let few = look(root.path(), Method::Auto);
    assert_eq!(few.method, "query");
    // Enough also where the kernel knows fewer attach types, and asking each cgroup is the cheaper.
    for number in 0..1_600 {
        root.child(format!("c{number}"));
    }
    let options = Options {
        root: root.path().to_owned(),
        programs: vec!["chadtest_nobody".to_owned()],
        ..Options::default()
    };
    let snapshot = collect(&options).unwrap();
    let many = &snapshot.looks[0];
    assert_eq!(many.coverage.cgroups_visited, 1_601);
    assert_eq!(many.method, if has_cgroup_iterator() { "iter" } else { "query" });
    assert_eq!(snapshot.timings_ms.load > 0.0, has_cgroup_iterator());
}
