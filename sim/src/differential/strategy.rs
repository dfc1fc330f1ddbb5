//! Draws random calls. Few places, few programs and mostly valid flags make the calls interact.

use kernel::list::AttachFlags;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::call::{
    Call, Flags, KEPT, LINKS, Named, On, PATHS, PINS, PROGRAMS, Place, Revision, SOCKETS,
};

/// The most calls in a sequence.
const LONGEST: usize = 40;

fn below(count: usize) -> impl Strategy<Value = u8> + Clone {
    0..u8::try_from(count).expect("a handful")
}

fn path() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![3 => 0..2_u8, 1 => below(PATHS.len())]
}

fn place() -> impl Strategy<Value = Place> + Clone {
    prop_oneof![8 => path().prop_map(Place::Path), 1 => below(KEPT).prop_map(Place::Kept)]
}

fn on() -> impl Strategy<Value = On> + Clone {
    prop_oneof![
        6 => Just(On::Ingress),
        3 => Just(On::Egress),
        1 => Just(On::SockCreate),
        1 => Just(On::PostBind),
    ]
}

/// The programs of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cast {
    /// Programs that do nothing.
    Passes,
    /// The packet programs as well. Loading them takes longer than all else.
    Throttles,
}

/// Draws a program, mostly one that fits either direction.
fn program(cast: Cast) -> impl Strategy<Value = u8> + Clone {
    let throttles = if cast == Cast::Throttles { 5 } else { 0 };
    prop_oneof![8 => 0..5_u8, 1 => 5..7_u8, throttles => throttle()]
}

fn throttle() -> impl Strategy<Value = u8> + Clone {
    7..u8::try_from(PROGRAMS.len()).expect("a handful")
}

fn named(cast: Cast) -> impl Strategy<Value = Named> + Clone {
    prop_oneof![
        3 => (0..4_u8).prop_map(Named::Attached),
        1 => program(cast).prop_map(Named::Program),
    ]
}

fn revision() -> impl Strategy<Value = Revision> + Clone {
    prop_oneof![8 => Just(Revision::Any), 1 => Just(Revision::Right), 1 => Just(Revision::Wrong)]
}

/// Draws attach flags: mostly those that a sequence is about, and sometimes any flags.
fn flags(usual: AttachFlags) -> impl Strategy<Value = Flags> + Clone {
    let one = |flags: AttachFlags| Just(Flags(flags.bits()));
    prop_oneof![
        12 => one(usual),
        2 => one(AttachFlags::MULTI),
        1 => one(AttachFlags::OVERRIDE),
        1 => one(AttachFlags::empty()),
        3 => one(usual | AttachFlags::PREORDER),
        1 => prop::bits::u32::masked(0x8000_20ff).prop_map(Flags),
    ]
}

fn attach(usual: AttachFlags, cast: Cast) -> impl Strategy<Value = Call> + Clone {
    let what = prop_oneof![
        6 => (flags(usual), Just(None)),
        2 => named(cast).prop_map(|named| {
            (Flags((AttachFlags::MULTI | AttachFlags::REPLACE).bits()), Some(named))
        }),
        1 => (flags(usual | AttachFlags::REPLACE), prop::option::of(named(cast))),
        1 => (flags(usual), named(cast).prop_map(Some)),
    ];
    (program(cast), place(), on(), what, revision()).prop_map(
        |(program, place, on, (flags, replace), revision)| Call::Attach {
            program,
            place,
            on,
            flags,
            replace,
            revision,
        },
    )
}

fn detach(cast: Cast) -> impl Strategy<Value = Call> + Clone {
    let no_flags = prop_oneof![
        12 => Just(Flags(0)),
        1 => prop::bits::u32::masked(0x8000_20ff).prop_map(Flags),
    ];
    (prop::option::weighted(0.9, named(cast)), place(), on(), no_flags, revision()).prop_map(
        |(program, place, on, flags, revision)| Call::Detach {
            program,
            place,
            on,
            flags,
            revision,
        },
    )
}

/// Draws a call that is no attachment.
fn others(cast: Cast) -> Union<BoxedStrategy<Call>> {
    let old = prop_oneof![2 => Just(None), 1 => named(cast).prop_map(Some)];
    let link = || below(LINKS);
    let up_to = prop_oneof![3 => 62..66_u8, 1 => 0..8_u8];
    let mut calls = vec![
        (7, detach(cast).boxed()),
        (
            8,
            (link(), program(cast), place(), on())
                .prop_map(|(link, program, place, on)| Call::CreateLink {
                    link,
                    program,
                    place,
                    on,
                })
                .boxed(),
        ),
        (
            5,
            (link(), program(cast), old)
                .prop_map(|(link, new, old)| Call::UpdateLink { link, new, old })
                .boxed(),
        ),
        (3, link().prop_map(|link| Call::DetachLink { link }).boxed()),
        (4, link().prop_map(|link| Call::CloseLink { link }).boxed()),
        (2, (link(), below(PINS)).prop_map(|(link, pin)| Call::Pin { link, pin }).boxed()),
        (1, below(PINS).prop_map(|pin| Call::Unpin { pin }).boxed()),
        (1, (below(PINS), link()).prop_map(|(pin, link)| Call::OpenPinned { pin, link }).boxed()),
        (
            1,
            (program(cast), place(), on(), up_to)
                .prop_map(|(program, place, on, up_to)| Call::Fill { program, place, on, up_to })
                .boxed(),
        ),
        (1, (0..66_u8).prop_map(|count| Call::CloseFilling { count }).boxed()),
        (3, path().prop_map(|path| Call::CreateCgroup { path }).boxed()),
        (3, path().prop_map(|path| Call::RemoveCgroup { path }).boxed()),
        (1, (path(), below(KEPT)).prop_map(|(path, kept)| Call::KeepCgroup { path, kept }).boxed()),
        (
            1,
            (path(), below(SOCKETS))
                .prop_map(|(path, socket)| Call::OpenSocket { path, socket })
                .boxed(),
        ),
        (1, below(SOCKETS).prop_map(|socket| Call::CloseSocket { socket }).boxed()),
        (1, Just(Call::Wait).boxed()),
        (3, program(cast).prop_map(|program| Call::CloseProgram { program }).boxed()),
    ];
    if cast == Cast::Throttles {
        calls.push((3, set_state().boxed()));
        calls.push((1, state().boxed()));
    }
    Union::new_weighted(calls)
}

fn set_state() -> impl Strategy<Value = Call> {
    (throttle(), place(), on(), 1..1_000_u16).prop_map(|(program, place, on, kilobytes)| {
        Call::SetState { program, place, on, kilobytes }
    })
}

fn state() -> impl Strategy<Value = Call> {
    (throttle(), place(), on()).prop_map(|(program, place, on)| Call::State { program, place, on })
}

/// Draws a sequence of calls.
pub fn calls() -> impl Strategy<Value = Vec<Call>> {
    let about =
        |usual, cast| vec(prop_oneof![1 => attach(usual, cast), 2 => others(cast)], 1..LONGEST);
    prop_oneof![
        6 => about(AttachFlags::MULTI, Cast::Passes),
        2 => about(AttachFlags::OVERRIDE, Cast::Passes),
        2 => about(AttachFlags::empty(), Cast::Passes),
        2 => about(AttachFlags::MULTI, Cast::Throttles),
        1 => about(AttachFlags::OVERRIDE, Cast::Throttles),
    ]
}
