//! Works out which attachments belong to links. The kernel does not say, so this module counts.

use std::collections::HashMap;

use kernel::{AttachType, CgroupId, LinkId, ProgramId};

use crate::facts::{AttachmentFact, LinkFact};

/// One program at one place. A program can be at a place several times: through links, and once the legacy way.
type Place = (CgroupId, AttachType, ProgramId);

/// Returns the link of each attachment, by position; `None` means a legacy attachment.
///
/// If a place has n attachments of a program and k links name that place, then min(n, k) of the attachments belong to
/// links. Nobody can know which, so this function picks the later ones. The choice is arbitrary. It is harmless because
/// the program is the same, and a legacy detach never removes a link's attachment.
pub(crate) fn correlate(attachments: &[AttachmentFact], links: &[LinkFact]) -> Vec<Option<LinkId>> {
    let mut links_at: HashMap<Place, Vec<LinkId>> = HashMap::new();
    for link in links {
        if let Some(attach_type) = link.attach_type {
            links_at
                .entry((link.cgroup_id, attach_type, link.program_id))
                .or_default()
                .push(link.id);
        }
    }
    for ids in links_at.values_mut() {
        ids.sort_unstable();
    }
    let mut link_of: Vec<Option<LinkId>> = attachments
        .iter()
        .rev()
        .map(|fact| links_at.get_mut(&(fact.cgroup_id, fact.attach_type, fact.program_id))?.pop())
        .collect();
    link_of.reverse();
    link_of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(program: u32) -> AttachmentFact {
        AttachmentFact {
            cgroup: "/a".into(),
            cgroup_id: CgroupId(7),
            attach_type: AttachType::INET_INGRESS,
            program_id: ProgramId(program),
            list_flags: 2,
            program_flags: None,
            slots_used: 1,
            state: None,
        }
    }

    fn link(id: u32, program: u32, cgroup: u64) -> LinkFact {
        LinkFact {
            id: LinkId(id),
            program_id: ProgramId(program),
            cgroup_id: CgroupId(cgroup),
            attach_type: Some(AttachType::INET_INGRESS),
        }
    }

    #[test]
    fn fewer_links_than_attachments_leave_the_first_ones_legacy() {
        let attachments = [attachment(1), attachment(2), attachment(1), attachment(1)];
        let links = [link(31, 1, 7), link(30, 1, 7)];
        let expected = [None, None, Some(LinkId(30)), Some(LinkId(31))];
        assert_eq!(correlate(&attachments, &links), expected);
    }

    #[test]
    fn more_links_than_attachments_leave_links_over() {
        let attachments = [attachment(1)];
        let links = [link(30, 1, 7), link(31, 1, 7)];
        assert_eq!(correlate(&attachments, &links), [Some(LinkId(31))]);
    }

    #[test]
    fn a_link_of_another_cgroup_type_or_program_is_not_taken() {
        let egress = LinkFact { attach_type: Some(AttachType::INET_EGRESS), ..link(32, 1, 7) };
        let unknown = LinkFact { attach_type: None, ..link(33, 1, 7) };
        let links = [link(30, 1, 8), link(31, 2, 7), egress, unknown, link(34, 1, 0)];
        assert_eq!(correlate(&[attachment(1)], &links), [None]);
    }
}
