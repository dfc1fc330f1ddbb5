//! Finds places with little or no room for another program, whoever fills them.

use std::collections::{BTreeMap, HashMap};

use kernel::AttachType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cgroup, cgroup};
use crate::judge::Judged;
use crate::judge::room::{Room, SLOTS, room};

/// A cgroup and an attach type with 48 programs or more. The kernel takes 64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FullPlace {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// Where on it.
    #[schemars(with = "String")]
    pub attach_type: AttachType,
    /// How many programs are attached there.
    pub slots_used: u32,
    /// How many the kernel takes there.
    pub slots: u32,
    /// Whose they are, by name, the most first.
    pub programs: Vec<PlacedPrograms>,
}

/// The programs of one name at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedPrograms {
    /// Their name; empty where they have none, null where it could not be read.
    pub name: Option<String>,
    /// How many there are.
    pub count: usize,
}

/// Returns the places with little or no room, in the order of the attachments.
pub(super) fn full(attachments: &[Judged<'_>]) -> Vec<FullPlace> {
    let mut places: Vec<FullPlace> = Vec::new();
    let mut names: HashMap<_, BTreeMap<Option<String>, usize>> = HashMap::new();
    for judged in attachments {
        let Some(place) = judged.place.filter(|place| room(place) != Room::Enough) else {
            continue;
        };
        let key = (place.cgroup_id, place.attach_type);
        let at = names.entry(key).or_default();
        if at.is_empty() {
            places.push(FullPlace {
                cgroup: cgroup(place),
                attach_type: place.attach_type,
                slots_used: place.slots_used,
                slots: SLOTS,
                programs: Vec::new(),
            });
        }
        *at.entry(judged.program.map(|program| program.loaded.shown_name().to_owned()))
            .or_default() += 1;
    }
    for place in &mut places {
        let names = names.remove(&(place.cgroup.id, place.attach_type)).unwrap_or_default();
        let mut programs: Vec<_> =
            names.into_iter().map(|(name, count)| PlacedPrograms { name, count }).collect();
        // Programs with equal counts sort by name.
        programs.sort_by_key(|it| std::cmp::Reverse(it.count));
        place.programs = programs;
    }
    places
}
