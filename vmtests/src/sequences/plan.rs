//! Draws steps at random that make sense at that point. It keeps a rough picture of what exists; the trial knows
//! exactly.

use proptest::prelude::*;
use proptest::strategy::Union;
use proptest_state_machine::ReferenceStateMachine;

use super::step::{Damage, Fail, Fault, How, Kind, Mishap, Place, Step, Target, Way, Ways};

/// The steps before every random sequence.
pub const PRELUDE: [Step; 3] = [
    Step::CreateCgroup(Place::A),
    Step::CreateCgroup(Place::AB),
    Step::Start { owner: 0, fault: None },
];

/// A rough picture of what exists.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    cgroups: [bool; 4],
    running: [bool; 2],
    held: [u8; 2],
    pinned: u8,
    legacy: u8,
    processes: u8,
    sockets: u8,
    foreign: u8,
}

impl Plan {
    /// Returns what exists after the [`PRELUDE`].
    fn prelude() -> Self {
        Self {
            cgroups: [true, true, false, false],
            running: [true, false],
            held: [0; 2],
            pinned: 0,
            legacy: 0,
            processes: 0,
            sockets: 0,
            foreign: 0,
        }
    }

    fn exists(&self, place: Place) -> bool {
        self.cgroups[place as usize]
    }

    fn runs(&self, owner: u8) -> bool {
        self.running[usize::from(owner) % 2]
    }
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let mishap = prop_oneof![
        2 => Just(Mishap::DieBefore),
        2 => Just(Mishap::DieAfter),
        3 => proptest::sample::select(&Fail::ALL[..]).prop_map(Mishap::Fail),
    ];
    let fault = (1..=26_u16, mishap).prop_map(|(nth, mishap)| Fault { nth, mishap });
    prop_oneof![3 => Just(None), 2 => fault.prop_map(Some)]
}

fn place() -> impl Strategy<Value = Place> {
    proptest::sample::select(&Place::ALL[..])
}

fn way() -> impl Strategy<Value = Way> {
    proptest::sample::select(&Way::BOTH[..])
}

fn add(owner: u8, processes: bool) -> BoxedStrategy<Step> {
    let target = if processes {
        prop_oneof![2 => place().prop_map(Target::Cgroup), 1 => (0..4_u8).prop_map(Target::Process)]
            .boxed()
    } else {
        place().prop_map(Target::Cgroup).boxed()
    };
    let ways = prop_oneof![
        1 => Just(Ways::Download),
        1 => Just(Ways::Upload),
        3 => Just(Ways::Both),
    ];
    let how = prop_oneof![Just(How::Link), Just(How::Pinned), Just(How::Legacy)];
    (target, ways, how, fault())
        .prop_map(move |(target, ways, how, fault)| Step::Add { owner, target, ways, how, fault })
        .boxed()
}

impl ReferenceStateMachine for Plan {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::prelude()).boxed()
    }

    fn transitions(plan: &Self) -> BoxedStrategy<Step> {
        let mut choices: Vec<(u32, BoxedStrategy<Step>)> = Vec::new();
        let mut offer = |weight, choice: BoxedStrategy<Step>| choices.push((weight, choice));
        for owner in 0..2 {
            if !plan.runs(owner) {
                let start = fault().prop_map(move |fault| Step::Start { owner, fault });
                offer(if owner == 0 { 8 } else { 3 }, start.boxed());
                continue;
            }
            offer(12, add(owner, plan.processes > 0));
            offer(1, Just(Step::Kill { owner }).boxed());
            offer(1, fault().prop_map(move |fault| Step::ShutDown { owner, fault }).boxed());
            if plan.held[usize::from(owner)] > 0 {
                let pick = || (0..4_u8, fault());
                offer(
                    4,
                    pick()
                        .prop_map(move |(throttle, fault)| Step::Change { owner, throttle, fault })
                        .boxed(),
                );
                offer(
                    8,
                    pick()
                        .prop_map(move |(throttle, fault)| Step::Remove { owner, throttle, fault })
                        .boxed(),
                );
                offer(2, Just(Step::Kill { owner }).boxed());
            }
        }
        offer(3, place().prop_map(Step::CreateCgroup).boxed());
        offer(2, place().prop_map(Step::RemoveCgroup).boxed());
        offer(1, place().prop_map(Step::Spawn).boxed());
        offer(1, place().prop_map(Step::HoldSocket).boxed());
        if plan.processes > 0 {
            offer(1, (0..4_u8, place()).prop_map(|(nth, place)| Step::Move(nth, place)).boxed());
            offer(1, (0..4_u8).prop_map(Step::End).boxed());
            offer(3, (0..4_u8).prop_map(Step::Send).boxed());
        }
        if plan.sockets > 0 {
            offer(1, (0..4_u8).prop_map(Step::CloseSocket).boxed());
        }
        let kind = prop_oneof![
            1 => Just(Kind::None),
            1 => Just(Kind::Override),
            3 => Just(Kind::Multi),
            2 => Just(Kind::Link),
        ];
        offer(
            4,
            (place(), way(), kind)
                .prop_map(|(place, way, kind)| Step::OthersAttach { place, way, kind })
                .boxed(),
        );
        if plan.foreign > 0 {
            offer(3, (0..8_u8).prop_map(Step::OthersDetach).boxed());
        }
        if plan.legacy > 0 {
            offer(1, (0..4_u8).prop_map(Step::Stranger).boxed());
        }
        if plan.pinned > 0 {
            offer(
                3,
                (0..4_u8, fault())
                    .prop_map(|(throttle, fault)| Step::RemovePinned { throttle, fault })
                    .boxed(),
            );
        }
        // This step is expensive for the kernel and rare in practice.
        if plan.foreign < 60 && plan.held[0] > 1 {
            offer(1, (place(), way()).prop_map(|(place, way)| Step::Fill { place, way }).boxed());
        }
        if plan.legacy + plan.pinned > 0 {
            let damage = prop_oneof![
                Just(Damage::Junk),
                Just(Damage::Draft),
                Just(Damage::OtherBoot),
                (0..4_u8).prop_map(Damage::Torn),
            ];
            offer(1, damage.prop_map(Step::Damage).boxed());
        }
        Union::new_weighted(choices).boxed()
    }

    fn apply(mut plan: Self, step: &Step) -> Self {
        match *step {
            Step::CreateCgroup(place) => plan.cgroups[place as usize] = true,
            Step::RemoveCgroup(place) => plan.cgroups[place as usize] = false,
            Step::Spawn(_) => plan.processes += 1,
            Step::End(_) => plan.processes = plan.processes.saturating_sub(1),
            Step::HoldSocket(_) => plan.sockets += 1,
            Step::CloseSocket(_) => plan.sockets = plan.sockets.saturating_sub(1),
            Step::Start { owner, .. } => plan.running[usize::from(owner) % 2] = true,
            Step::Add { owner, how, .. } => {
                plan.held[usize::from(owner) % 2] += 1;
                match how {
                    How::Link => {}
                    How::Pinned => plan.pinned += 1,
                    How::Legacy => plan.legacy += 1,
                }
            }
            Step::Remove { owner, .. } => {
                let held = &mut plan.held[usize::from(owner) % 2];
                *held = held.saturating_sub(1);
            }
            Step::ShutDown { owner, .. } | Step::Kill { owner } => {
                plan.running[usize::from(owner) % 2] = false;
                plan.held[usize::from(owner) % 2] = 0;
            }
            Step::OthersAttach { .. } => plan.foreign = plan.foreign.saturating_add(1),
            Step::OthersDetach(_) => plan.foreign = plan.foreign.saturating_sub(1),
            Step::Fill { .. } => plan.foreign = plan.foreign.saturating_add(64),
            Step::Move(..)
            | Step::Send(_)
            | Step::Change { .. }
            | Step::RemovePinned { .. }
            | Step::Stranger(_)
            | Step::Damage(_) => {}
        }
        plan
    }

    fn preconditions(plan: &Self, step: &Step) -> bool {
        match *step {
            Step::CreateCgroup(place) => !plan.exists(place),
            Step::RemoveCgroup(place)
            | Step::Spawn(place)
            | Step::HoldSocket(place)
            | Step::OthersAttach { place, .. }
            | Step::Fill { place, .. } => plan.exists(place),
            Step::Start { owner, .. } => !plan.runs(owner),
            Step::Add { owner, .. } | Step::ShutDown { owner, .. } | Step::Kill { owner } => {
                plan.runs(owner)
            }
            _ => true,
        }
    }
}
