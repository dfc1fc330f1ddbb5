//! Maps the numbers of operands to the objects of one world, and views all of those objects.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bpf::Owner;
use bpf::throttle::Parts as Programs;
use kernel::list::{AttachFlags, Scope};
use kernel::{CgroupId, LinkId, ProgramId};
use nix::errno::Errno;

use super::answer::{LinkView, ListView, View, Which};
use super::call::{
    FIRST_PATHS, Flags, KEPT, Kind, LINKS, Named, On, PATHS, PINS, PROGRAMS, Place, SOCKETS,
};
use crate::World;

/// A world and the objects that a sequence made on it. Dropping it removes all of them.
pub(crate) struct Objects<W: World> {
    pub(crate) world: W,
    root: PathBuf,
    pins: PathBuf,
    owner: Owner,
    pub(crate) cgroups: [Option<W::Cgroup>; PATHS.len()],
    pub(crate) kept: [Option<W::Cgroup>; KEPT],
    pub(crate) programs: [Option<W::Program>; PROGRAMS.len()],
    pub(crate) links: [Option<W::Link>; LINKS],
    pub(crate) filling: Vec<W::Link>,
    pub(crate) sockets: [Option<W::Socket>; SOCKETS],
    cgroup_numbers: HashMap<CgroupId, usize>,
    program_numbers: HashMap<ProgramId, usize>,
    link_numbers: HashMap<LinkId, usize>,
    /// The programs that existed at the last look.
    alive: BTreeMap<usize, ProgramId>,
}

impl<W: World> Objects<W> {
    /// Creates the cgroups in a new one at `root`. Pins go into the folder `pins`.
    pub(crate) fn new(world: W, root: &Path, pins: &Path) -> Self {
        world.create_cgroup(root).unwrap_or_else(|errno| panic!("{}: {errno}", root.display()));
        let mut this = Self {
            world,
            root: root.to_owned(),
            pins: pins.to_owned(),
            owner: Owner::this_process("differential").expect("/proc"),
            cgroups: [const { None }; PATHS.len()],
            kept: [const { None }; KEPT],
            programs: [const { None }; PROGRAMS.len()],
            links: [const { None }; LINKS],
            filling: Vec::new(),
            sockets: [const { None }; SOCKETS],
            cgroup_numbers: HashMap::new(),
            program_numbers: HashMap::new(),
            link_numbers: HashMap::new(),
            alive: BTreeMap::new(),
        };
        for path in FIRST_PATHS {
            this.create_cgroup(path)
                .unwrap_or_else(|errno| panic!("{}: {errno}", this.path(path).display()));
        }
        this
    }

    pub(crate) fn path(&self, path: usize) -> PathBuf {
        self.root.join(PATHS[path])
    }

    pub(crate) fn pin(&self, pin: usize) -> PathBuf {
        self.pins.join(format!("pin{pin}"))
    }

    pub(crate) fn create_cgroup(&mut self, path: usize) -> nix::Result<()> {
        self.world.create_cgroup(&self.path(path))?;
        let cgroup = self.world.open_cgroup(&self.path(path)).map_err(|error| error.errno())?;
        number(&mut self.cgroup_numbers, self.world.cgroup_id(&cgroup));
        self.cgroups[path] = Some(cgroup);
        Ok(())
    }

    pub(crate) fn place(&self, place: Place) -> Option<&W::Cgroup> {
        match place {
            Place::Path(path) => self.cgroups[usize::from(path)].as_ref(),
            Place::Kept(kept) => self.kept[usize::from(kept)].as_ref(),
        }
    }

    /// Loads a program and the others of the same load, unless the program exists.
    ///
    /// # Panics
    /// Panics if the program cannot be loaded, because such a world cannot be compared.
    pub(crate) fn ensure_loaded(&mut self, program: usize) {
        if self.programs[program].is_some() {
            return;
        }
        match PROGRAMS[program] {
            Kind::Pass(on) => {
                let loaded = self.world.load_pass(&format!("chadtest_{program}"), on.attach_type());
                self.loaded(program, loaded.expect("a program that does nothing is loaded"));
            }
            Kind::ThrottleIngress => self.load_throttle(program),
            Kind::ThrottleEgress => self.load_throttle(program - 1),
        }
    }

    /// Loads both programs of a throttle. It first closes one of them that is still open.
    fn load_throttle(&mut self, ingress: usize) {
        let pair = self
            .world
            .load(&self.owner, 0, Programs::default())
            .expect("the packet programs are loaded");
        self.loaded(ingress, pair.ingress);
        self.loaded(ingress + 1, pair.egress);
    }

    fn loaded(&mut self, at: usize, program: W::Program) {
        let id = self.world.identity(&program).id;
        let number = number(&mut self.program_numbers, id);
        self.alive.insert(number, id);
        self.programs[at] = Some(program);
    }

    /// Opens a program that a call about a place names.
    pub(crate) fn named_at(&mut self, named: Named, place: Place, on: On) -> Option<W::Program> {
        let id = match named {
            Named::Program(program) => self.id_of(usize::from(program)),
            Named::Attached(position) => {
                let place = self.place(place)?;
                let list = self.world.query(place, on.attach_type(), Scope::Local).ok()?.programs;
                list.get(usize::from(position).checked_rem(list.len())?)?.id
            }
        };
        self.world.open_program(id).ok()
    }

    /// Opens a program that a call about a link names.
    pub(crate) fn named_of(&mut self, named: Named, link: usize) -> Option<W::Program> {
        let id = match named {
            Named::Program(program) => self.id_of(usize::from(program)),
            Named::Attached(_) => self.world.link_info(self.links[link].as_ref()?).ok()?.program_id,
        };
        self.world.open_program(id).ok()
    }

    fn id_of(&mut self, program: usize) -> ProgramId {
        self.ensure_loaded(program);
        let program = self.programs[program].as_ref().expect("it was loaded just now");
        self.world.identity(program).id
    }

    pub(crate) fn made_link(&mut self, link: &W::Link) {
        number(&mut self.link_numbers, self.world.link_id(link));
    }

    /// Returns everything visible, with the lists of these attach types.
    pub(crate) fn look(&mut self, types: &[On]) -> View {
        let mut view = View::default();
        for (path, cgroup) in self.cgroups.iter().enumerate() {
            let Some(cgroup) = cgroup else { continue };
            for &on in types {
                for scope in [Scope::Local, Scope::Effective] {
                    let which = Which { place: Place::Path(narrow(path)), on, scope };
                    view.lists.push((which, self.list(cgroup, on, scope)));
                }
            }
        }
        for (kept, cgroup) in self.kept.iter().enumerate() {
            let Some(cgroup) = cgroup else { continue };
            let (on, scope) = (On::Ingress, Scope::Local);
            let which = Which { place: Place::Kept(narrow(kept)), on, scope };
            view.lists.push((which, self.list(cgroup, on, scope)));
        }
        for (at, link) in self.links.iter().enumerate() {
            let Some(link) = link else { continue };
            view.links.insert(at, self.link(link));
        }
        self.alive.retain(|_, id| self.world.program_name(*id).is_ok_and(|name| name.is_some()));
        view.programs = self.alive.keys().copied().collect();
        view.pins = (0..PINS).map(|pin| self.world.pin_exists(&self.pin(pin))).collect();
        view.pins.push(self.world.pin_exists(&self.pins));
        self.look_at_states(&mut view);
        view
    }

    fn list(&self, cgroup: &W::Cgroup, on: On, scope: Scope) -> Result<ListView, Errno> {
        let list =
            self.world.query(cgroup, on.attach_type(), scope).map_err(|error| error.errno())?;
        let flags = |flags: kernel::list::AttachFlags| Flags(flags.bits());
        let programs = list.programs.iter();
        Ok(ListView {
            programs: programs
                .map(|it| (self.program_numbers.get(&it.id).copied(), it.flags.map(flags)))
                .collect(),
            flags: flags(list.flags),
            revision: list.revision,
        })
    }

    fn link(&self, link: &W::Link) -> Result<LinkView, Errno> {
        let info = self.world.link_info(link).map_err(|error| error.errno())?;
        Ok(LinkView {
            link: self.link_numbers.get(&info.id).copied(),
            program: self.program_numbers.get(&info.program_id).copied(),
            cgroup: info.cgroup_id.map(|id| self.cgroup_numbers.get(&id).copied()),
            on: info.attach_type.and_then(On::of),
        })
    }

    /// Adds the states to the view. Both programs of a load share a state, so it asks only one of them.
    fn look_at_states(&self, view: &mut View) {
        let mut asked = None;
        for (at, program) in self.programs.iter().enumerate() {
            let load = match PROGRAMS[at] {
                Kind::Pass(_) => continue,
                Kind::ThrottleIngress => at,
                Kind::ThrottleEgress => at - 1,
            };
            let Some(program) = program.as_ref().filter(|_| asked != Some(load)) else { continue };
            asked = Some(load);
            for (&id, &cgroup) in &self.cgroup_numbers {
                for on in [On::Ingress, On::Egress] {
                    if let Ok(Some(state)) = self.world.state(program, id, on.attach_type()) {
                        view.rates.insert((at, cgroup, on), state.rate());
                    }
                }
            }
        }
    }

    /// Detaches everything that was attached the legacy way. Removing the cgroups would detach it too, but some tens of
    /// milliseconds later. That would be most of a sequence's time.
    fn detach_all(&self) {
        for cgroup in self.cgroups.iter().flatten() {
            for on in On::ALL.map(On::attach_type) {
                // The kernel returns ENOENT for a removed cgroup.
                let list = self.world.query(cgroup, on, Scope::Local).unwrap_or_default();
                for attached in list.programs {
                    let program = self.world.open_program(attached.id).ok();
                    let flags = AttachFlags::empty();
                    let gone = self.world.detach_with(program.as_ref(), cgroup, on, flags, None);
                    // A link that was just unpinned detaches by itself.
                    if let Err(error) = gone
                        && error.errno() != Errno::ENOENT
                    {
                        eprintln!("{error}");
                    }
                }
            }
        }
    }

    /// Closes everything and removes everything that has a path.
    pub(crate) fn clear(&mut self) {
        self.links = [const { None }; LINKS];
        self.filling.clear();
        self.sockets = [const { None }; SOCKETS];
        for pin in 0..PINS {
            if let Err(error) = self.world.unpin(&self.pin(pin)) {
                eprintln!("{error}");
            }
        }
        self.programs = [const { None }; PROGRAMS.len()];
        self.detach_all();
        self.cgroups = [const { None }; PATHS.len()];
        self.kept = [const { None }; KEPT];
        let parents_last = (0..PATHS.len()).rev().map(|path| self.path(path));
        for path in parents_last.chain([self.root.clone()]) {
            match self.world.remove_cgroup(&path) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => eprintln!("{}: {errno}", path.display()),
            }
        }
    }
}

impl<W: World> Drop for Objects<W> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Returns the number of an id. A new id gets the next number.
fn number<K: Eq + std::hash::Hash>(numbers: &mut HashMap<K, usize>, id: K) -> usize {
    let next = numbers.len();
    *numbers.entry(id).or_insert(next)
}

fn narrow(number: usize) -> u8 {
    u8::try_from(number).expect("a handful")
}
