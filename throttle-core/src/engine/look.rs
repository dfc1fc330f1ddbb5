//! Looking at other people's programs before and after a throttle is attached.

use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::limits::Limits;
use kernel::AttachType;
use kernel::lineage::Lineage;

use super::Engine;
use super::add::parts;
use crate::error::{Error, Result};
use crate::load::Load;
use crate::mode::{Tcp, TcpWish};
use crate::neighbours::{Joining, Neighbour, check, displaced_by, joining};
use crate::spec::{Direction, Spec};

impl<B: CgroupBpf> Engine<B> {
    /// Looks whether the throttle's programs may be attached. Where only the one for TCP may not, and nobody insists on
    /// it, `tcp` becomes [`Tcp::Police`]. Returns the lists as they are, and the programs that will go out of force.
    ///
    /// # Errors
    /// When the kernel would refuse one, or one would put somebody's program out of force that must not go.
    pub(super) fn look_before(
        &self,
        cgroup: &Rc<B::Cgroup>,
        spec: &Spec,
        limits: &[(Direction, Limits)],
        tcp: &mut Tcp,
        notes: &mut Vec<&'static str>,
    ) -> Result<(Vec<Lineage>, Vec<Neighbour>)> {
        let attach_types: Vec<_> = parts(limits, *tcp).into_iter().map(|(at, _)| at).collect();
        let mut lineages = self.kernel.lineages(cgroup, &attach_types)?;
        let is_in_the_way = |lineage: &Lineage| match joining(lineage) {
            Joining::Free | Joining::Unknown(_) => false,
            Joining::Displaces(_) => !spec.displace,
            Joining::Full | Joining::Exclusive(_) => true,
        };
        let for_tcp = lineages.iter().position(|it| it.attach_type == AttachType::SOCK_OPS);
        // A limit that drops is better than none.
        if spec.tcp == TcpWish::Auto
            && let Some(at) = for_tcp.filter(|at| is_in_the_way(&lineages[*at]))
        {
            lineages.remove(at);
            *tcp = Tcp::Police;
            notes.push(
                "another program leaves no room for the one that shapes TCP ('--tcp shape' names it): packets above the \
                 limit are dropped",
            );
        }
        let displaced = check(&self.kernel, &lineages, spec.displace)?;
        Ok((lineages, displaced))
    }

    /// Looks whether every program still runs that did before, now that ours are attached. Returns those that do not,
    /// if that is allowed.
    ///
    /// # Errors
    /// When it is not allowed, or cannot be seen.
    pub(super) fn look_after(
        &self,
        cgroup: &Rc<B::Cgroup>,
        spec: &Spec,
        before: &[Lineage],
        load: &Load<B>,
    ) -> Result<Vec<Neighbour>> {
        let attach_types: Vec<_> = before.iter().map(|lineage| lineage.attach_type).collect();
        let after = self.kernel.lineages(cgroup, &attach_types)?;
        let ours = |at| self.kernel.identity(load.programs.program(at)).id;
        let displaced = displaced_by(&self.kernel, before, &after, ours);
        if displaced.is_empty() || spec.displace {
            return Ok(displaced);
        }
        Err(Error::Displaced { cgroup: spec.cgroup.clone(), programs: displaced, recorded: None })
    }
}
