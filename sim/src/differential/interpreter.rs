//! Runs calls on a world.

use std::time::Duration;

use bpf::limits::{Burst, Departures, Limits, Rate, Traffic};
use bpf::state::ThrottleState;
use kernel::list::{AttachFlags, Scope};

use super::answer::Answer;
use super::call::{Call, Flags, Named, On, Place, Revision};
use super::objects::Objects;
use crate::world::{Attach, World};

/// The answer to a call on something that does not exist.
const NOTHING: Answer = Answer::Nothing;

impl From<kernel::Result<()>> for Answer {
    fn from(result: kernel::Result<()>) -> Self {
        result.map_err(|error| error.errno()).into()
    }
}

impl From<nix::Result<()>> for Answer {
    fn from(result: nix::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(errno) => Self::Refused(errno),
        }
    }
}

impl<W: World> Objects<W> {
    /// Makes a call and returns the answer.
    pub(crate) fn run(&mut self, call: &Call) -> Answer {
        self.try_to(call).unwrap_or(NOTHING)
    }

    /// Makes a call. Returns `None` if an operand names nothing.
    fn try_to(&mut self, call: &Call) -> Option<Answer> {
        Some(match *call {
            Call::CreateCgroup { path } => self.create_cgroup(path.into()).into(),
            Call::RemoveCgroup { path } => self.world.remove_cgroup(&self.path(path.into())).into(),
            Call::KeepCgroup { path, kept } => {
                match self.world.open_cgroup(&self.path(path.into())) {
                    Ok(cgroup) => {
                        self.kept[usize::from(kept)] = Some(cgroup);
                        Answer::Done
                    }
                    Err(error) => Answer::Refused(error.errno()),
                }
            }
            Call::OpenSocket { path, socket } => self.open_socket(path.into(), socket.into())?,
            Call::CloseSocket { socket } => {
                self.sockets[usize::from(socket)].take()?;
                Answer::Done
            }
            Call::CloseProgram { program } => {
                self.programs[usize::from(program)].take()?;
                Answer::Done
            }
            Call::Attach { program, place, on, flags, replace, revision } => {
                self.attach(program.into(), place, on, flags, replace, revision)?
            }
            Call::Detach { program, place, on, flags, revision } => {
                self.detach(program, place, on, flags, revision)?
            }
            Call::SetState { program, place, on, kilobytes } => {
                self.set_state(program.into(), place, on, kilobytes)?
            }
            Call::State { program, place, on } => self.rate(program.into(), place, on)?,
            Call::Wait => Answer::Done,
            _ => return self.try_on_link(call),
        })
    }

    fn try_on_link(&mut self, call: &Call) -> Option<Answer> {
        Some(match *call {
            Call::CreateLink { link, program, place, on } => {
                self.create_link(link.into(), program.into(), place, on)?
            }
            Call::UpdateLink { link, new, old } => self.update(link.into(), new.into(), old)?,
            Call::DetachLink { link } => {
                self.world.link_detach(self.links[usize::from(link)].as_ref()?).into()
            }
            Call::CloseLink { link } => {
                self.links[usize::from(link)].take()?;
                Answer::Done
            }
            Call::Pin { link, pin } => {
                let path = self.pin(pin.into());
                self.world.link_pin(self.links[usize::from(link)].as_ref()?, &path).into()
            }
            Call::Unpin { pin } => self.world.unpin(&self.pin(pin.into())).into(),
            Call::OpenPinned { pin, link } => self.open_pinned(pin.into(), link.into())?,
            Call::Fill { program, place, on, up_to } => {
                self.fill(program.into(), place, on, up_to.into())?
            }
            Call::CloseFilling { count } => {
                let count = usize::from(count).min(self.filling.len());
                self.filling.drain(..count);
                Answer::Counted(count, None)
            }
            _ => return None,
        })
    }

    fn open_socket(&mut self, path: usize, socket: usize) -> Option<Answer> {
        if self.sockets[socket].is_some() {
            return None;
        }
        Some(match self.world.open_socket(&self.path(path)) {
            Ok(opened) => {
                self.sockets[socket] = Some(opened);
                Answer::Done
            }
            Err(errno) => Answer::Refused(errno),
        })
    }

    /// Returns the revision to expect so that it is the list's, or another one.
    fn expected(&self, revision: Revision, place: Place, on: On) -> Option<u64> {
        let off = match revision {
            Revision::Any => return None,
            Revision::Right => 0,
            Revision::Wrong => 1,
        };
        let list = self.world.query(self.place(place)?, on.attach_type(), Scope::Local).ok();
        Some(list.and_then(|list| list.revision).unwrap_or(1) + off)
    }

    fn attach(
        &mut self,
        program: usize,
        place: Place,
        on: On,
        flags: Flags,
        replace: Option<Named>,
        revision: Revision,
    ) -> Option<Answer> {
        self.ensure_loaded(program);
        let replace = match replace {
            Some(named) => Some(self.named_at(named, place, on)?),
            None => None,
        };
        let asked = Attach {
            flags: AttachFlags::from_bits_retain(flags.0),
            replace: replace.as_ref(),
            expected_revision: self.expected(revision, place, on),
        };
        let program = self.programs[program].as_ref()?;
        Some(self.world.attach_with(program, self.place(place)?, on.attach_type(), &asked).into())
    }

    fn detach(
        &mut self,
        program: Option<Named>,
        place: Place,
        on: On,
        flags: Flags,
        revision: Revision,
    ) -> Option<Answer> {
        let program = match program {
            Some(named) => Some(self.named_at(named, place, on)?),
            None => None,
        };
        let revision = self.expected(revision, place, on);
        let flags = AttachFlags::from_bits_retain(flags.0);
        let place = self.place(place)?;
        let detached =
            self.world.detach_with(program.as_ref(), place, on.attach_type(), flags, revision);
        Some(detached.into())
    }

    fn create_link(&mut self, link: usize, program: usize, place: Place, on: On) -> Option<Answer> {
        if self.links[link].is_some() {
            return None;
        }
        self.ensure_loaded(program);
        let program = self.programs[program].as_ref()?;
        Some(match self.world.link_create(program, self.place(place)?, on.attach_type()) {
            Ok(created) => {
                self.made_link(&created);
                self.links[link] = Some(created);
                Answer::Done
            }
            Err(error) => Answer::Refused(error.errno()),
        })
    }

    fn update(&mut self, link: usize, new: usize, old: Option<Named>) -> Option<Answer> {
        self.links[link].as_ref()?;
        self.ensure_loaded(new);
        let old = match old {
            Some(named) => Some(self.named_of(named, link)?),
            None => None,
        };
        let new = self.programs[new].as_ref()?;
        Some(self.world.link_update(self.links[link].as_ref()?, new, old.as_ref()).into())
    }

    fn open_pinned(&mut self, pin: usize, link: usize) -> Option<Answer> {
        if self.links[link].is_some() {
            return None;
        }
        Some(match self.world.link_open_pinned(&self.pin(pin)) {
            Ok(opened) => {
                self.links[link] = Some(opened);
                Answer::Done
            }
            Err(error) => Answer::Refused(error.errno()),
        })
    }

    fn fill(&mut self, program: usize, place: Place, on: On, up_to: usize) -> Option<Answer> {
        self.ensure_loaded(program);
        let program = self.programs[program].as_ref()?;
        let cgroup = self.place(place)?;
        let list = self.world.query(cgroup, on.attach_type(), Scope::Local);
        let there = list.map_or(0, |list| list.programs.len());
        let mut made = Vec::new();
        let mut refused = None;
        while there + made.len() < up_to && refused.is_none() {
            match self.world.link_create(program, cgroup, on.attach_type()) {
                Ok(link) => made.push(link),
                Err(error) => refused = Some(error.errno()),
            }
        }
        let count = made.len();
        for link in &made {
            self.made_link(link);
        }
        self.filling.append(&mut made);
        Some(Answer::Counted(count, refused))
    }

    fn set_state(
        &mut self,
        program: usize,
        place: Place,
        on: On,
        kilobytes: u16,
    ) -> Option<Answer> {
        self.ensure_loaded(program);
        let rate = Rate::from_bytes_per_second(u64::from(kilobytes.max(1)) * 1_000).ok()?;
        let burst = Burst::new(Duration::from_millis(100)).ok()?;
        let state = ThrottleState::armed(
            &Limits { rate, burst, traffic: Traffic::All, departures: Departures::Never },
            1,
        );
        let cgroup = self.world.cgroup_id(self.place(place)?);
        let program = self.programs[program].as_ref()?;
        Some(self.world.set_state(program, cgroup, on.attach_type(), &state).into())
    }

    fn rate(&mut self, program: usize, place: Place, on: On) -> Option<Answer> {
        self.ensure_loaded(program);
        let cgroup = self.world.cgroup_id(self.place(place)?);
        let state = self.world.state(self.programs[program].as_ref()?, cgroup, on.attach_type());
        Some(match state {
            Ok(state) => Answer::Rate(state.map(|state| state.rate())),
            Err(error) => Answer::Refused(error.errno()),
        })
    }
}
