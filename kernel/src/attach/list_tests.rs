//! Tests lists of programs with a scripted kernel.
// A list is a range of ids.
#![allow(clippy::single_range_in_vec_init)]

use super::*;
use crate::sys::Queried;

/// A kernel with one list for each call; the last list stays. The flags of each program are its id plus 1.
struct Kernel {
    lists: Vec<std::ops::Range<u32>>,
    /// The room for ids and flags at each call; `None` if the call did not request flags.
    asked: Vec<(usize, Option<usize>)>,
}

impl Kernel {
    fn new(lists: &[std::ops::Range<u32>]) -> Self {
        Self { lists: lists.to_vec(), asked: Vec::new() }
    }

    /// Answers like `__cgroup_bpf_query`: as many as fit, and how many there are.
    fn answer(
        &mut self,
        ids: &mut [u32],
        flags: Option<&mut [u32]>,
    ) -> (Queried, std::result::Result<(), Errno>) {
        self.asked.push((ids.len(), flags.as_ref().map(|it| it.len())));
        let end = self.lists.len() - 1;
        let told = self.lists[(self.asked.len() - 1).min(end)].clone();
        ids.iter_mut().zip(told.clone()).for_each(|(to, id)| *to = id);
        if let Some(flags) = flags {
            flags.iter_mut().zip(told.clone()).for_each(|(to, id)| *to = id + 1);
        }
        let count = u32::try_from(told.len()).unwrap();
        let is_whole = told.len() <= ids.len();
        let queried = Queried { count, attach_flags: 2, revision: self.asked.len() as u64 };
        (queried, if is_whole { Ok(()) } else { Err(Errno::ENOSPC) })
    }
}

fn ask(query: &mut Query, scope: Scope, kernel: &mut Kernel) -> ProgramList {
    query.fill(scope, |ids, flags| kernel.answer(ids, flags)).unwrap()
}

fn expected(list: std::ops::Range<u32>, has_flags: bool) -> Vec<AttachedProgram> {
    let flags = |id| has_flags.then(|| AttachFlags::from_bits_retain(id + 1));
    list.map(|id| AttachedProgram { id: ProgramId(id), flags: flags(id) }).collect()
}

#[test]
fn a_list_that_grows_while_it_is_asked_for_is_told_whole_with_each_programs_flags() {
    let mut kernel = Kernel::new(&[1..66, 1_000..1_129, 2_000..2_256]);
    let list = ask(&mut Query::new(true), Scope::Local, &mut kernel);
    assert_eq!(list.programs, expected(2_000..2_256, true));
    assert_eq!((list.flags, list.revision), (AttachFlags::MULTI, Some(3)), "of the last answer");
    assert_eq!(kernel.asked, [64, 128, 256].map(|room| (room, Some(room))));
}

#[test]
fn as_many_as_there_is_room_for_take_one_call_and_one_more_takes_two() {
    for (many, calls) in [(0, 1), (63, 1), (64, 1), (65, 2), (128, 2)] {
        let mut kernel = Kernel::new(&[0..many]);
        let list = ask(&mut Query::new(true), Scope::Local, &mut kernel);
        assert_eq!(list.programs, expected(0..many, true));
        assert_eq!(kernel.asked.len(), calls, "{many} programs");
    }
}

#[test]
fn of_a_list_that_shrinks_while_it_is_asked_for_nothing_stays_of_what_it_was() {
    let mut query = Query::new(true);
    let mut kernel = Kernel::new(&[0..100, 500..502]);
    assert_eq!(ask(&mut query, Scope::Local, &mut kernel).programs, expected(500..502, true));
    // The answer has nothing of an earlier one in the same buffers.
    let mut next = Kernel::new(&[900..903]);
    assert_eq!(ask(&mut query, Scope::Local, &mut next).programs, expected(900..903, true));
    assert_eq!(next.asked, [(128, Some(128))], "the room stays");
    assert_eq!(ask(&mut query, Scope::Local, &mut Kernel::new(&[0..0])).programs, []);
}

#[test]
fn no_flags_are_asked_for_or_told_of_what_runs_or_where_the_kernel_has_none() {
    for (has_flags, scope) in
        [(true, Scope::Effective), (false, Scope::Effective), (false, Scope::Local)]
    {
        let mut kernel = Kernel::new(&[0..70]);
        let mut query = Query::new(has_flags);
        let list = ask(&mut query, scope, &mut kernel);
        assert_eq!(list.programs, expected(0..70, false));
        assert_eq!(kernel.asked, [(64, None), (128, None)]);
        // The buffers stay large for the next query.
        let mut next = Kernel::new(&[0..100]);
        let local = ask(&mut query, Scope::Local, &mut next);
        assert_eq!(local.programs, expected(0..100, has_flags));
        assert_eq!(next.asked, [(128, has_flags.then_some(128))]);
    }
}

#[test]
fn an_error_is_no_list_also_when_it_comes_after_the_list_has_grown() {
    let mut errors = vec![Errno::ENODEV, Errno::ENOSPC];
    let told = Query::new(true).fill(Scope::Local, |ids, _| {
        ids.fill(7);
        let errno = errors.pop().unwrap();
        let count = if errno == Errno::ENOSPC { 70 } else { 2 };
        (Queried { count, ..Queried::default() }, Err(errno))
    });
    assert_eq!(told, Err(Errno::ENODEV));
    assert_eq!(errors, []);
}

#[test]
fn a_program_is_counted_as_often_as_it_is_attached() {
    let programs = [7, 8, 7].map(|id| AttachedProgram { id: ProgramId(id), flags: None });
    let list = ProgramList { programs: programs.into(), ..ProgramList::default() };
    assert_eq!([7, 8, 9].map(|id| list.count(ProgramId(id))), [2, 1, 0]);
}

#[test]
fn messages_name_the_cgroup_and_the_attach_type() {
    let mount = crate::cgroup::cgroup2_mount().unwrap();
    let cgroup = Cgroup::open(&mount).unwrap();
    let expected = format!("{} (cgroup_inet_egress)", mount.display());
    assert_eq!(place(&cgroup, AttachType::INET_EGRESS), expected);
}
