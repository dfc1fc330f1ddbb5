//! Checks of other people's programs, before and after attaching a throttle.

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
    /// Checks whether the throttle's programs may be attached. Returns the current lists, and the programs that will go
    /// out of force.
    ///
    /// If only the program for TCP is a problem and nobody insists on it, sets `tcp` to [`Tcp::Police`].
    ///
    /// # Errors
    /// When the kernel would refuse a program. When a program would put somebody else's program out of force without
    /// permission.
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
        // Dropping packets is better than no limit at all.
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

    /// Checks, after attaching, whether every program that ran before still runs. Returns those that do not, if the
    /// spec allows that.
    ///
    /// # Errors
    /// When the spec does not allow that, or when the kernel cannot be queried.
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
