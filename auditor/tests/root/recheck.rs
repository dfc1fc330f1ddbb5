//! What changes between the scan and the act. The library cleans, so that the moment can be chosen.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use auditor::clean::{Cleaner, Outcome};
use auditor::collect::Options;
use auditor::facts::{Look, Snapshot};
use auditor::judge::classify;
use bpf::limits::{Burst, Departures, Limits, Rate, Traffic};
use bpf::state::ThrottleState;
use bpf::throttle::{Parts, load};
use bpf::{LinuxBpf, Owner};
use kernel::boundary::Host as _;
use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, detach};
use kernel::{Program, ProgramId};
use testkit::cgroup::ScratchCgroup;

use crate::common::*;

const MULTI: AttachFlags = AttachFlags::MULTI;

/// Scans, lets something happen, cleans.
fn clean_after(root: &Path, program: &str, happens: impl FnOnce()) -> Vec<Outcome> {
    let options = Options {
        root: root.to_owned(),
        programs: vec![program.to_owned()],
        settle: Duration::from_millis(1),
        ..Options::default()
    };
    let cleaner = Cleaner::new(&options).unwrap();
    let snapshot = cleaner.scan(options.settle).unwrap();
    let scanned = classify(&snapshot);
    assert!(scanned.leaks().count() > 0, "the scan found a leak");
    happens();
    let mut outcomes = Vec::new();
    cleaner.clean(&scanned, |done| outcomes.push(done.outcome));
    outcomes
}

fn is_left_alone(outcomes: &[Outcome]) -> bool {
    !outcomes.is_empty() && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Gone(_)))
}

#[test]
fn root_without_a_change_it_is_removed() {
    let cgroup = ScratchCgroup::new("same");
    let names = Names::new();
    plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    assert_eq!(clean_after(cgroup.path(), &names.leak, || ()), [Outcome::Removed]);
    assert_eq!(attached(cgroup.path(), INGRESS), []);
}

/// A process of somebody else's that has the program open.
struct Holder(Child);

impl Holder {
    fn of(id: ProgramId) -> Self {
        let program = Program::open(id).unwrap();
        // A copy that survives exec.
        let fd = program.as_fd().as_raw_fd();
        let script = format!("exec sleep 60 <&{fd}");
        nix::fcntl::fcntl(
            program.as_fd(),
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        Self(Command::new("sh").args(["-c", &script]).spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn root_a_process_that_turns_up_with_the_program_open_keeps_it() {
    let cgroup = ScratchCgroup::new("holder");
    let names = Names::new();
    let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let mut holder = None;
    let outcomes = clean_after(cgroup.path(), &names.leak, || {
        holder = Some(Holder::of(leak));
    });
    assert!(is_left_alone(&outcomes), "{outcomes:?}");
    assert_eq!(attached(cgroup.path(), INGRESS), [leak]);
}

#[test]
fn root_another_cgroup_under_the_same_name_is_left_alone() {
    let cgroup = ScratchCgroup::new("again");
    let names = Names::new();
    let child = cgroup.child("child");
    plant(&child, &names.leak, INGRESS, MULTI);
    let mut second = None;
    let outcomes = clean_after(cgroup.path(), &names.leak, || {
        std::fs::remove_dir(&child).unwrap();
        std::fs::create_dir(&child).unwrap();
        second = Some(plant(&child, &names.leak, INGRESS, MULTI));
    });
    assert!(is_left_alone(&outcomes), "{outcomes:?}");
    assert_eq!(attached(&child, INGRESS), [second.unwrap()]);
}

#[test]
fn root_a_cgroup_that_has_gone_is_nothing_to_do() {
    let cgroup = ScratchCgroup::new("went");
    let names = Names::new();
    let child = cgroup.child("child");
    plant(&child, &names.leak, INGRESS, MULTI);
    let outcomes = clean_after(cgroup.path(), &names.leak, || {
        std::fs::remove_dir(&child).unwrap();
    });
    assert!(is_left_alone(&outcomes), "{outcomes:?}");
}

/// In such a list the kernel takes off whatever is there: this is where a careless cleaner does harm.
#[test]
fn root_a_foreign_program_that_took_the_place_in_an_override_list_stays() {
    for flags in [AttachFlags::OVERRIDE, AttachFlags::empty()] {
        let cgroup = ScratchCgroup::new("replaced");
        let names = Names::new();
        let leak = plant(cgroup.path(), &names.leak, INGRESS, flags);
        let mut foreign = None;
        // It lives on, but elsewhere.
        let kept = Program::open(leak).unwrap();
        let outcomes = clean_after(cgroup.path(), &names.leak, || {
            foreign = Some(plant(cgroup.path(), &names.foreign, INGRESS, flags));
        });
        assert!(is_left_alone(&outcomes), "{flags:?} {outcomes:?}");
        assert_eq!(attached(cgroup.path(), INGRESS), [foreign.unwrap()]);
        drop(kept);
    }
}

#[test]
fn root_somebody_else_who_cleans_at_the_same_time_is_no_failure() {
    let cgroup = ScratchCgroup::new("twice");
    let names = Names::new();
    let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let outcomes = clean_after(cgroup.path(), &names.leak, || {
        let program = Program::open(leak).unwrap();
        detach(program.as_fd(), &Cgroup::open(cgroup.path()).unwrap(), INGRESS, None).unwrap();
    });
    assert!(is_left_alone(&outcomes), "{outcomes:?}");
}

#[test]
fn root_a_throttle_that_is_armed_again_is_left_alone() {
    let cgroup = ScratchCgroup::new("armed");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let loaded = load(&Owner::this_process("test").unwrap(), 0, Parts::TCP).unwrap();
    kernel::list::attach(loaded.egress.as_fd(), &open, EGRESS, MULTI, None).unwrap();
    let outcomes = clean_after(cgroup.path(), "chadthrottle*", || {
        let limits = Limits {
            rate: Rate::from_bytes_per_second(1_000_000).unwrap(),
            burst: Burst::new(Duration::from_millis(20)).unwrap(),
            traffic: Traffic::All,
            departures: Departures::Never,
        };
        let state = ThrottleState::armed(&limits, LinuxBpf::new().unwrap().now_ns());
        loaded.egress.set_state(open.id(), EGRESS, &state).unwrap();
    });
    assert!(is_left_alone(&outcomes), "{outcomes:?}");
    assert_eq!(attached(cgroup.path(), EGRESS), [loaded.egress.info().id]);
}

/// Does something when it is told that the first look is over, in the thread that looks.
struct Meanwhile<F>(Option<F>);

impl<F: FnOnce()> Write for Meanwhile<F> {
    fn write(&mut self, said: &[u8]) -> io::Result<usize> {
        if String::from_utf8_lossy(said).contains(LOOKS_AGAIN) {
            self.0.take().into_iter().for_each(|happens| happens());
        }
        Ok(said.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is found in the first look of a scan, and what in the last, where something happens between the first two.
fn looks(root: &Path, program: &str, happens: impl FnOnce() + Send + 'static) -> Snapshot {
    let options = Options {
        root: root.to_owned(),
        programs: vec![program.to_owned()],
        settle: Duration::from_millis(1),
        ..Options::default()
    };
    let meanwhile = Mutex::new(Meanwhile(Some(happens)));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(meanwhile)
        .finish();
    tracing::subscriber::with_default(subscriber, || auditor::collect::collect(&options)).unwrap()
}

#[test]
fn root_a_later_look_asks_only_the_cgroups_of_suspects_again() {
    let cgroup = ScratchCgroup::new("partial");
    let names = Names::new();
    let (leaking, other, gone) =
        (cgroup.child("leaking"), cgroup.child("other"), cgroup.child("gone"));
    plant(&leaking, &names.leak, INGRESS, MULTI);
    plant(&other, &names.foreign, INGRESS, MULTI);
    let ending = plant(&gone, &names.foreign, INGRESS, MULTI);
    let name = names.foreign.clone();
    let snapshot = looks(cgroup.path(), &names.leak, move || {
        plant(&other, &name, EGRESS, MULTI);
        plant(&leaking, &name, EGRESS, MULTI);
        std::fs::remove_dir(&gone).unwrap();
        // The kernel lets go of it a while later.
        let deadline = Instant::now() + Duration::from_secs(30);
        while kernel::objects::program(ending).unwrap().is_some() {
            assert!(Instant::now() < deadline, "it outlives its cgroup");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let [first, second] = &snapshot.looks[..] else { panic!("{}", snapshot.looks.len()) };
    assert_eq!(first.coverage.cgroups_visited, second.coverage.cgroups_visited);
    let at = |look: &Look, name: &str| {
        look.attachments.iter().filter(|it| it.cgroup.ends_with(name)).count()
    };
    let counts = ["leaking", "other", "gone"].map(|name| (at(first, name), at(second, name)));
    assert_eq!(counts, [(1, 2), (1, 1), (1, 0)], "what its program's end tells is told");
    assert_eq!(classify(&snapshot).leaks().count(), 1);
}

#[test]
fn root_a_program_that_is_attached_while_the_audit_waits_is_not_unattached() {
    let cgroup = ScratchCgroup::new("late");
    let names = Names::new();
    plant(&cgroup.child("leaking"), &names.leak, INGRESS, MULTI);
    let program = Program::load_pass(&names.leak, EGRESS).unwrap();
    let late = cgroup.child("late");
    let fd = program.as_fd().try_clone_to_owned().unwrap();
    let snapshot = looks(Path::new("/"), &names.leak, move || {
        let open = Cgroup::open(&late).unwrap();
        kernel::list::attach(fd.as_fd(), &open, EGRESS, MULTI, None).unwrap();
    });
    let classified = classify(&snapshot);
    assert_eq!(classified.programs, []);
    assert!(classified.attachments.iter().any(|it| it.program_id == program.info().id));
}
