use super::*;

const ROOT: u32 = 100;
const ELDER: u32 = 7;

fn fork(pid: u32, parent: u32) -> What {
    What::Fork { pid, parent }
}

fn load(id: u32, pid: u32) -> What {
    What::Load { id: ProgramId(id), pid }
}

fn name(pid: u32, name: &str) -> What {
    What::Name { pid, name: name.to_owned() }
}

/// Tells whether the loader of program 1 is a descendant.
fn is_descendant(happened: impl IntoIterator<Item = What>) -> Option<bool> {
    let mut family = Family::new(ROOT, [ROOT, ELDER].into_iter());
    happened.into_iter().for_each(|what| family.note(what, |_| String::new()));
    family.loaders[&ProgramId(1)].is_descendant
}

#[test]
fn who_is_forked_by_the_process_or_its_descendants_is_one_of_them() {
    assert_eq!(is_descendant([fork(200, ROOT), load(1, 200)]), Some(true));
    assert_eq!(is_descendant([fork(200, ROOT), fork(201, 200), load(1, 201)]), Some(true));
    assert_eq!(is_descendant([load(1, ELDER)]), Some(false));
    assert_eq!(is_descendant([fork(200, ELDER), fork(201, 200), load(1, 201)]), Some(false));
    assert_eq!(is_descendant([load(1, ROOT)]), Some(false), "itself");
    assert_eq!(is_descendant([fork(200, 0), load(1, 200)]), Some(false), "from outside");
    // A thread of the process is not its child.
    assert_eq!(is_descendant([fork(ROOT, ROOT), load(1, ROOT)]), Some(false));
}

#[test]
fn of_a_process_whose_beginning_was_not_seen_it_cannot_be_told() {
    assert_eq!(is_descendant([load(1, 300)]), None);
    assert_eq!(is_descendant([fork(301, 300), load(1, 301)]), None);
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    assert_eq!(is_descendant([fork(200, ROOT), fork(200, ELDER), load(1, 200)]), Some(false));
    assert_eq!(is_descendant([fork(200, ELDER), fork(200, ROOT), load(1, 200)]), Some(true));
    assert_eq!(is_descendant([fork(200, ROOT), fork(200, 300), load(1, 200)]), None);
    // The same holds for a program with a reused id.
    assert_eq!(is_descendant([fork(200, ROOT), load(1, ELDER), load(1, 200)]), Some(true));
}

#[test]
fn a_descendant_has_the_name_that_it_had_when_it_loaded_the_program() {
    let mut family = Family::new(ROOT, [ROOT, ELDER].into_iter());
    for what in [
        fork(200, ROOT),
        name(200, "sh"),
        fork(201, 200),
        load(1, 201),
        name(201, "bpftool"),
        load(2, 201),
        load(3, ELDER),
        fork(300, ELDER),
        name(300, "other"),
        load(4, 300),
        name(0, "anybody"),
        load(5, 0),
    ] {
        family.note(what, |pid| format!("asked for {pid}"));
    }
    let names = [1, 2, 3, 4, 5].map(|id| family.loaders[&ProgramId(id)].name.as_str());
    assert_eq!(names, ["sh", "bpftool", "asked for 7", "other", "asked for 0"]);
}

#[test]
fn what_happened_first_is_taken_first_and_what_is_too_young_waits() {
    let at = |at_ns, what| Record { at_ns, what };
    let mut state = State { family: Family::new(ROOT, [ROOT].into_iter()), ..State::default() };
    // Three rings, one after another.
    state.waiting = vec![at(30, load(1, 200)), at(20, fork(200, ROOT)), at(40, load(2, 200))];
    state.settle(35);
    assert_eq!(state.family.loaders.len(), 1);
    assert_eq!(state.family.loaders[&ProgramId(1)].is_descendant, Some(true));
    assert_eq!((state.until_ns, state.waiting.len()), (35, 1));
    state.settle(40);
    assert_eq!(state.family.loaders.len(), 2);
}

#[test]
fn what_descendants_or_unknown_processes_ask_for_is_told() {
    let mut family = Family::new(ROOT, [ROOT, ELDER].into_iter());
    let ask = |pid, asked| What::Ask { pid, asked };
    for what in [
        fork(200, ROOT),
        fork(300, ELDER),
        ask(200, Asked::Map),
        ask(300, Asked::Pin),
        ask(ELDER, Asked::Pin),
        ask(ROOT, Asked::Attachment),
        ask(400, Asked::Link),
    ] {
        family.note(what, |_| String::new());
    }
    assert_eq!(family.told().asked, Ok([Asked::Map, Asked::Link].into()));
    family.unseen = Some(fail(Errno::EPERM));
    assert_eq!(family.told().asked, Err(fail(Errno::EPERM)));
}

/// Returns a record in the kernel's format.
fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let trailer = [&9_u32.to_ne_bytes()[..], &10_u32.to_ne_bytes(), &77_u64.to_ne_bytes()].concat();
    let size = u16::try_from(8 + body.len() + trailer.len()).unwrap();
    let header = [&kind.to_ne_bytes()[..], &0_u16.to_ne_bytes(), &size.to_ne_bytes()].concat();
    [&header[..], body, &trailer].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn records_are_read_as_the_kernel_writes_them() {
    let read = |kind, body: &[u8]| Record::parse(&record(kind, body));
    let at = |what| Some(Record { at_ns: 77, what });
    let forked = words(&[200, 100, 201, 101, 0, 0]);
    assert_eq!(read(kernel::PERF_RECORD_FORK, &forked), at(fork(200, 100)));
    let named = [&words(&[200, 200])[..], b"bpftool\0"].concat();
    assert_eq!(read(kernel::PERF_RECORD_COMM, &named), at(name(200, "bpftool")));
    let thread = [&words(&[200, 201])[..], b"worker\0\0"].concat();
    assert_eq!(read(kernel::PERF_RECORD_COMM, &thread), None, "a thread's name");
    let loaded = words(&[kernel::PERF_BPF_EVENT_PROG_LOAD, 41, 0, 0]);
    assert_eq!(read(kernel::PERF_RECORD_BPF_EVENT, &loaded), at(load(41, 9)));
    // The kernel's record for the second and the third listener.
    for longer in [16, 32] {
        let record = [record(kernel::PERF_RECORD_BPF_EVENT, &loaded), vec![0; longer]].concat();
        assert_eq!(Record::parse(&record), at(load(41, 9)), "{longer} bytes longer");
    }
    let unloaded = words(&[kernel::PERF_BPF_EVENT_PROG_UNLOAD, 41, 0, 0]);
    assert_eq!(read(kernel::PERF_RECORD_BPF_EVENT, &unloaded), None);
    assert_eq!(read(kernel::PERF_RECORD_LOST, &words(&[0; 4])), at(What::Lost));
    assert_eq!(read(kernel::PERF_RECORD_EXIT, &forked), None);
    for whole in [record(kernel::PERF_RECORD_FORK, &forked), record(kernel::PERF_RECORD_LOST, &[])]
    {
        (0..24).for_each(|end| assert_eq!(Record::parse(&whole[..end]), None, "{end}"));
    }
}

mod on_the_kernel {
    use std::os::fd::AsFd;
    use std::process::Command;

    use testkit::cgroup::ScratchCgroup;
    use testkit::isolation::isolate;

    use super::super::*;
    use crate::attach::attach_type::AttachType;
    use crate::cgroup::Cgroup;
    use crate::object::link::Link;
    use crate::object::program::Program;

    #[test]
    fn root_who_loads_a_program_is_known_when_it_has_ended() {
        let follow = || Loads::open().unwrap().follow(std::process::id()).unwrap();
        // The format of the kernel's record depends on the number of listeners.
        let all = [follow(), follow(), follow()];
        let own = Program::load_pass("chadtest_loads", AttachType::INET_INGRESS).unwrap();
        let child = Command::new("sh")
            .args(["-c", "bpftool feature probe kernel >/dev/null & echo $!; wait"])
            .output()
            .unwrap();
        let pid: u32 = String::from_utf8_lossy(&child.stdout).trim().parse().unwrap();
        for following in all {
            let loaders = following.told().unwrap().expect("nothing was lost").loaders;
            let loader = &loaders[&own.info().id];
            assert_eq!((loader.pid, loader.is_descendant), (std::process::id(), Some(false)));
            let theirs: Vec<_> = loaders.values().filter(|loader| loader.pid == pid).collect();
            assert!(theirs.len() > 10, "{loaders:?}");
            let is_right = |it: &&Loader| it.is_descendant == Some(true) && it.name == "bpftool";
            assert!(theirs.iter().all(is_right), "{theirs:?}");
        }
    }

    #[test]
    fn root_what_a_process_and_its_descendants_ask_for_is_known_and_what_others_do_is_not_theirs() {
        isolate();
        let following = Loads::open().unwrap().follow(std::process::id()).unwrap();
        // This process loaded the program itself, and it is not its own descendant.
        let cgroup = ScratchCgroup::new("asked");
        let open = Cgroup::open(cgroup.path()).unwrap();
        let program = Program::load_pass("chadtest_asked", AttachType::INET_INGRESS).unwrap();
        drop(Link::create(program.as_fd(), &open, AttachType::INET_INGRESS).unwrap());
        let asked = || following.told().unwrap().expect("nothing was lost").asked.unwrap();
        assert_eq!(asked(), HashSet::new());
        let make = "bpftool map create /sys/fs/bpf/m type array key 4 value 4 entries 1 name m";
        assert!(Command::new("sh").args(["-c", make]).status().unwrap().success());
        assert!([Asked::Map, Asked::Pin].iter().all(|it| asked().contains(it)), "{:?}", asked());
        assert!(!asked().contains(&Asked::Attachment), "{:?}", asked());
    }

    #[test]
    fn root_more_than_there_is_room_for_is_said_to_be_lost() {
        let mut records = Loads::open().unwrap().records;
        // Nobody reads meanwhile.
        for _ in 0..6_000 {
            thread::spawn(|| {}).join().unwrap();
        }
        records.read(Duration::ZERO, |_| {}).unwrap();
        // The kernel reports the loss with the next record in that ring.
        for _ in 0..200 {
            thread::spawn(|| {}).join().unwrap();
        }
        let mut is_lost = false;
        records
            .read(Duration::ZERO, |bytes| {
                is_lost |= Record::parse(bytes).is_some_and(|it| it.what == What::Lost);
            })
            .unwrap();
        assert!(is_lost);
    }
}
