//! Tests how many programs a list takes according to the report.

use auditor::judge::classify;
use auditor::report::report;

use crate::story::*;
use crate::text::render;

#[test]
fn a_list_that_takes_one_program_is_full_with_it() {
    // BPF_F_ALLOW_OVERRIDE, no flag, BPF_F_ALLOW_MULTI.
    for (flags, slots, shown) in [(1, 1, "1/1"), (0, 1, "1/1"), (2, 64, "1/64")] {
        let mut host = orphan();
        for place in &mut host.look().attachments {
            (place.list_flags, place.program_flags) = (flags, Some(flags));
        }
        let report = report(&host, &classify(&host), false);
        let [attachment] = report.attachments.as_slice() else { panic!("{report:?}") };
        assert_eq!((attachment.slots_used, attachment.slots), (1, slots));
        for width in [None, Some(20)] {
            let text = render(&report, false, width);
            let words: Vec<_> = text.split([' ', ',', '\n']).collect();
            assert!(words.contains(&shown), "{text}");
        }
    }
}

/// A kernel before 6.0 reports only the list's flags. For LSM programs newer kernels report only the programs' flags.
#[test]
fn the_flags_count_wherever_the_kernel_tells_them() {
    for (list_flags, program_flags) in [(2, None), (0, Some(2))] {
        let mut host = orphan();
        for place in &mut host.look().attachments {
            (place.list_flags, place.program_flags) = (list_flags, program_flags);
        }
        let report = report(&host, &classify(&host), true);
        assert_eq!(report.attachments[0].slots, 64);
    }
}
