use std::collections::BTreeSet;
use std::process::Command;

use testkit::process::{Mortal, soon};

use super::*;
use crate::folder::Folder;

/// A fake procfs and cgroup. A namespace is a file, named after its own inode number as in procfs.
struct Story(Folder);

impl Story {
    fn new(name: &str) -> Self {
        let story = Self(Folder::new(name));
        fs::create_dir(story.0.path().join("proc")).unwrap();
        story
    }

    /// Adds a cgroup with all its threads and its processes' pids.
    fn cgroup(&self, path: &str, threads: &[u32], processes: &[u32]) {
        let lines = |numbers: &[u32]| {
            let lines: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        self.0.file(&format!("cgroup{path}/cgroup.threads"), lines(threads));
        self.0.file(&format!("cgroup{path}/cgroup.procs"), lines(processes));
    }

    fn namespace(&self, name: &str) -> (u64, PathBuf) {
        let path = self.0.file(&format!("namespaces/{name}"), "");
        (fs::metadata(&path).unwrap().ino(), path)
    }

    /// Adds threads in this namespace.
    fn threads(&self, threads: &[u32], (inode, path): &(u64, PathBuf)) {
        for thread in threads {
            let name = format!("net:[{inode}]");
            self.0.link(&format!("proc/{thread}/ns/net"), &name);
            fs::hard_link(path, self.0.path().join(format!("proc/{thread}/ns/{name}"))).unwrap();
        }
    }

    fn members(&self) -> Result<Members> {
        let proc = self.0.path().join("proc");
        Members::of(&self.0.path().join("cgroup"), proc.to_str().unwrap())
    }

    /// Returns the inode numbers of the namespaces, and the number of threads with an unknown one.
    fn told(&self) -> (BTreeSet<u64>, u64) {
        let found = self.members().unwrap();
        let numbers: Vec<u64> =
            found.namespaces.iter().map(|it| it.metadata().unwrap().ino()).collect();
        let each_once: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(each_once.len(), numbers.len(), "{numbers:?}");
        (each_once, found.untold)
    }
}

#[test]
fn the_namespaces_of_all_threads_of_all_processes_there_and_below_are_told_each_once() {
    let story = Story::new("members");
    let [first, second, third, fourth, fifth] =
        ["1", "2", "3", "4", "5"].map(|name| story.namespace(name));
    story.cgroup("", &[10, 11, 20, 30], &[10, 20, 30]);
    // The second thread of a process, another process, and a last process in a known namespace.
    story.threads(&[10, 30], &first);
    story.threads(&[11], &second);
    story.threads(&[20], &third);
    // A cgroup without processes above one with processes, and a cgroup beside it.
    story.cgroup("/x", &[], &[]);
    story.cgroup("/x/y", &[40, 41], &[40]);
    story.threads(&[40], &first);
    story.threads(&[41], &fourth);
    story.cgroup("/z", &[50], &[50]);
    story.threads(&[50], &fifth);
    // This process is not a member.
    story.threads(&[60], &story.namespace("6"));
    assert_eq!(
        story.told(),
        (BTreeSet::from([&first, &second, &third, &fourth, &fifth].map(|it| it.0)), 0)
    );
}

#[test]
fn threads_out_of_sight_are_counted_and_those_that_have_ended_are_not() {
    let story = Story::new("untold");
    let there = story.namespace("1");
    // 0 stands for a process of another pid namespace. No process has the number 11 any more.
    story.cgroup("", &[0, 10, 11, 0], &[0, 10]);
    story.cgroup("/x", &[0], &[0]);
    story.threads(&[10], &there);
    assert_eq!(story.told(), (BTreeSet::from([there.0]), 3));
    let empty = Story::new("nobody");
    empty.cgroup("", &[], &[]);
    assert_eq!(empty.told(), (BTreeSet::new(), 0));
}

#[test]
fn a_cgroup_that_has_gone_has_no_namespace_and_what_cannot_be_read_is_an_error() {
    assert_eq!(Story::new("gone").told(), (BTreeSet::new(), 0));
    let odd = Story::new("odd");
    fs::create_dir_all(odd.0.path().join("cgroup/cgroup.threads")).unwrap();
    assert_eq!(odd.members().err().unwrap().errno(), Errno::EISDIR);
    let story = Story::new("closed");
    story.cgroup("", &[10], &[10]);
    story.0.link("proc/10/ns/net", "net:[1]");
    story.0.link("proc/10/ns/net:[1]", "net:[1]");
    let error = story.members().err().unwrap();
    assert_eq!(error.errno(), Errno::ELOOP);
}

#[test]
fn threads_that_are_hidden_are_counted_and_the_first_one_says_why() {
    let story = Story::new("hidden");
    let there = story.namespace("1");
    story.cgroup("", &[10, 11, 12], &[10]);
    story.threads(&[10], &there);
    // Nobody may read this file, not even root.
    for thread in [11, 12] {
        story.0.link(&format!("proc/{thread}/ns/net"), "net:[1]");
        story.0.link(&format!("proc/{thread}/ns/net:[1]"), "/proc/sys/net/ipv4/route/flush");
    }
    let found = story.members().unwrap();
    assert_eq!((found.namespaces.len(), found.untold), (1, 2));
    let why = found.why.unwrap();
    assert!(why.kind() == Kind::Denied && why.to_string().contains("proc/11/ns/net"), "{why}");
}

#[test]
fn a_process_that_cannot_be_looked_into_is_told_and_one_that_ends_or_moves_is_not() {
    let story = Story::new("tour");
    story.0.link("proc/loop", "loop");
    story.0.link("proc/7/ns/net", "net:[3]");
    story.0.link("proc/7/ns/net:[3]", "net:[3]");
    story.0.link("proc/9/ns/net", "net:[1]");
    // No file of the test has this number. The process has entered another namespace since its link was read.
    story.threads(&[8], &(1, story.namespace("2").1));
    let mut tour = Tour {
        wanted: None,
        what: |it: &Namespace| panic!("{it:?}"),
        seen: HashSet::new(),
        unseen: Vec::new(),
    };
    for process in ["loop", "7", "8", "9", "10"] {
        tour.enter_that_of(&story.0.path().join(format!("proc/{process}/ns/net"))).unwrap();
    }
    let is_told = matches!(&*tour.unseen, [Unseen::Untold(_), Unseen::Closed(_)]);
    assert!(is_told, "{:?}", tour.unseen);
    // The tour also visits the next process in the other namespace.
    assert_eq!(tour.seen, HashSet::from([3]));
}

#[test]
fn a_namespace_is_told_by_its_number() {
    assert_eq!(inode_of("net:[4026531840]"), Some(4_026_531_840));
    for other in ["mnt:[4026531840]", "net:[x]", "net:[1", "/"] {
        assert_eq!(inode_of(other), None, "{other}");
    }
}

#[test]
fn only_the_namespace_of_a_process_that_is_not_there_is_one_of_an_ended_one() {
    assert!(has_ended(Path::new("/proc/4194305/ns/net")), "no pid is that large");
    assert!(!has_ended(Path::new("/proc/self/ns/net")));
    assert!(!has_ended(Path::new("/no/run/netns/x")));
}

#[test]
fn ones_own_namespace_comes_first_and_once() {
    let own = fs::metadata(OWN).unwrap().ino();
    let mut seen = Vec::new();
    // Without the capability, other namespaces cannot be entered, and the result says so.
    in_every(None, |it| {
        seen.push((it.inode, it.path.is_none()));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen[0], (own, true));
    assert_eq!(seen.iter().filter(|(inode, _)| *inode == own).count(), 1);
    let mut alone = Vec::new();
    in_every(Some(own), |it| {
        alone.push(it.inode);
        Ok(())
    })
    .unwrap();
    assert_eq!(alone, [own]);
}

#[test]
fn root_the_namespaces_of_other_processes_are_entered_each_once() {
    let own = fs::metadata(OWN).unwrap().ino();
    let child = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
    let child = Mortal::from(child);
    let path = format!("/proc/{}/ns/net", child.id());
    let mut theirs = own;
    soon("the process is in a namespace of its own", || {
        theirs = fs::metadata(&path).unwrap().ino();
        theirs != own
    });
    let look = |wanted| {
        let mut entered = Vec::new();
        in_every(wanted, |it| {
            entered.push((it.inode, fs::metadata(OWN).unwrap().ino()));
            Ok(())
        })
        .map(|_| entered)
    };
    let (all, one) = (look(None), look(Some(theirs)));
    let all = all.unwrap();
    assert!(all.iter().all(|(named, entered)| named == entered), "{all:?}");
    assert_eq!(all.iter().filter(|it| it.0 == theirs).count(), 1, "{all:?}");
    assert_eq!(one.unwrap(), [(theirs, theirs)]);
}
