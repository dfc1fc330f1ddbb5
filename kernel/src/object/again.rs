//! Reads objects that change meanwhile, with a bounded number of attempts.
//!
//! A busy host creates and drops objects all the time. The kernel then answers `EAGAIN` (for a link that is still being
//! created), `EBUSY` or `EINTR`. Such an answer says nothing about a missing capability or a defect.

use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

use crate::error::Result;

/// The most looks at one object.
const LOOKS: u32 = 8;

/// The first pause between two looks. Each pause is twice as long as the last one, 127 ms in total.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The result of one look at one object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading<T> {
    /// The object was read.
    Here(T),
    /// The object went away after its id was read.
    Gone,
    /// The object is still being created, or the call was interrupted.
    Changing,
}

impl<T> Reading<T> {
    /// Sorts the kernel's answer about an id. Returns any other errno as an error.
    pub(crate) fn of(answer: std::result::Result<T, Errno>) -> std::result::Result<Self, Errno> {
        match answer {
            Ok(it) => Ok(Self::Here(it)),
            Err(Errno::ENOENT) => Ok(Self::Gone),
            Err(errno) if is_passing(errno) => Ok(Self::Changing),
            Err(errno) => Err(errno),
        }
    }
}

/// Tells whether another look may get another answer.
pub(crate) fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EBUSY | Errno::EINTR)
}

/// Reads all objects with these ids, in order. Reads those that are changing again after all the others. Returns the
/// results, and the ids that were changing at every look.
pub(crate) fn read_all<T>(
    ids: Vec<u32>,
    read: impl FnMut(u32) -> Result<Reading<T>>,
) -> Result<(Vec<T>, Vec<u32>)> {
    read_all_with(ids, read, sleep)
}

fn read_all_with<T>(
    ids: Vec<u32>,
    mut read: impl FnMut(u32) -> Result<Reading<T>>,
    mut pause: impl FnMut(Duration),
) -> Result<(Vec<T>, Vec<u32>)> {
    let mut found = Vec::with_capacity(ids.len());
    let mut left = ids;
    for look in 0..LOOKS {
        let mut changing = Vec::new();
        for id in left {
            match read(id)? {
                Reading::Here(it) => found.push((id, it)),
                Reading::Gone => {}
                Reading::Changing => changing.push(id),
            }
        }
        left = changing;
        if left.is_empty() {
            break;
        }
        if look + 1 < LOOKS {
            pause(FIRST_PAUSE * 2_u32.pow(look));
        }
    }
    found.sort_by_key(|(id, _)| *id);
    Ok((found.into_iter().map(|(_, it)| it).collect(), left))
}

/// Looks at one object until it is no longer changing.
pub(crate) fn settled<T>(
    mut ask: impl FnMut() -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    settled_with(&mut ask, sleep)
}

fn settled_with<T>(
    ask: &mut impl FnMut() -> std::result::Result<T, Errno>,
    mut pause: impl FnMut(Duration),
) -> std::result::Result<T, Errno> {
    for look in 0..LOOKS - 1 {
        match ask() {
            Err(errno) if is_passing(errno) => pause(FIRST_PAUSE * 2_u32.pow(look)),
            answer => return answer,
        }
    }
    ask()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Call, Error};

    /// Returns a kernel with these answers for each id, one after another; the last answer stays.
    fn kernel(answers: &[(u32, &[Errno])]) -> impl FnMut(u32) -> Result<Reading<u32>> {
        let mut asked = std::collections::HashMap::<u32, usize>::new();
        let answers = answers.to_vec();
        let answers: Vec<(u32, Vec<Errno>)> =
            answers.into_iter().map(|(id, it)| (id, it.to_vec())).collect();
        move |id| {
            let count = asked.entry(id).or_default();
            let of = &answers.iter().find(|(it, _)| *it == id).unwrap().1;
            let errno = of.get(*count).or(of.last()).copied();
            *count += 1;
            let answer = match errno {
                None | Some(Errno::UnknownErrno) => Ok(id),
                Some(errno) => Err(errno),
            };
            Reading::of(answer)
                .map_err(|errno| Error::new(Call::FdById, format!("link {id}"), errno))
        }
    }

    /// An errno that stands for success in a list of answers.
    const OK: Errno = Errno::UnknownErrno;

    #[test]
    fn what_is_being_made_is_read_when_it_is_there_and_what_went_is_left_out() {
        let answers: [(u32, &[Errno]); 4] = [
            (3, &[Errno::EAGAIN, Errno::EBUSY, Errno::EINTR, OK]),
            (4, &[OK]),
            (5, &[Errno::EAGAIN, Errno::ENOENT]),
            (6, &[Errno::ENOENT]),
        ];
        let mut pauses = Vec::new();
        let read = read_all_with(vec![3, 4, 5, 6], kernel(&answers), |it| pauses.push(it));
        assert_eq!(read, Ok((vec![3, 4], vec![])), "in the order of the ids");
        assert_eq!(pauses, [1, 2, 4].map(Duration::from_millis));
    }

    #[test]
    fn what_is_changing_at_every_look_is_told_and_is_no_error() {
        let answers: [(u32, &[Errno]); 2] = [(3, &[Errno::EAGAIN]), (4, &[OK])];
        let mut pauses = Vec::new();
        let read = read_all_with(vec![3, 4], kernel(&answers), |it| pauses.push(it));
        assert_eq!(read, Ok((vec![4], vec![3])));
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::from_millis(127), "bounded");
    }

    #[test]
    fn any_other_answer_ends_the_reading_and_is_told() {
        for errno in [Errno::EPERM, Errno::EMFILE, Errno::EINVAL] {
            let answers: [(u32, &[Errno]); 1] = [(3, &[Errno::EAGAIN, errno])];
            let error = read_all_with(vec![3], kernel(&answers), |_| {}).unwrap_err();
            assert_eq!((error.errno(), error.target()), (errno, "link 3"));
        }
    }

    #[test]
    fn one_thing_is_asked_for_until_it_has_settled_but_not_for_ever() {
        let mut answers = vec![OK, Errno::EINTR, Errno::EAGAIN];
        let mut ask = || match answers.pop() {
            Some(OK) => Ok(7),
            Some(errno) => Err(errno),
            None => unreachable!("it had an answer"),
        };
        assert_eq!(settled_with(&mut ask, |_| {}), Ok(7));
        let mut asked = 0;
        let mut never = || -> std::result::Result<(), Errno> {
            asked += 1;
            Err(Errno::EAGAIN)
        };
        assert_eq!(settled_with(&mut never, |_| {}), Err(Errno::EAGAIN));
        assert_eq!(asked, LOOKS);
        let mut asked = 0;
        let mut denied = || -> std::result::Result<(), Errno> {
            asked += 1;
            Err(Errno::EPERM)
        };
        assert_eq!(settled_with(&mut denied, |_| {}), Err(Errno::EPERM));
        assert_eq!(asked, 1, "that answer would be the same");
    }
}
