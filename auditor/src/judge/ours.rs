//! Decides by name which programs are ours.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::facts::{Gap, Subject};

/// The globs that apply if the user names none.
pub const DEFAULT_PROGRAMS: &str = "chadthrottle*";

/// The prefix of every program name of ours, since the first version.
const NAMED_AS_OURS: &str = "chadthrottle";

/// The number of bytes that the kernel keeps of a program's name: `BPF_OBJ_NAME_LEN` without the final NUL.
const KEPT: usize = 15;

/// The globs that name our programs.
///
/// The kernel cuts a name at 15 bytes, so everybody sees `chadthrottle_ingress` as `chadthrottle_in`. A glob that
/// begins with 15 or more literal characters is therefore cut as well. `chadthrottle_ingress*` becomes
/// `chadthrottle_in`, which must match the whole name.
///
/// A glob with a wildcard among its first 15 characters applies unchanged to the cut name. Guessing the lost part would
/// be dangerous: `*_fw` would then claim every program with a 15-character name, and `clean` removes what a glob
/// claims.
pub struct Ours {
    globs: GlobSet,
    /// The globs as the user gave them, for sentences.
    pub(super) wording: String,
}

impl Ours {
    /// Reads the globs; an empty list means [`DEFAULT_PROGRAMS`]. An invalid glob becomes a gap, because the audit does
    /// not cover the programs that it would have named.
    pub fn new(globs: &[String]) -> (Self, Vec<Gap>) {
        let default = [DEFAULT_PROGRAMS.to_owned()];
        let globs = if globs.is_empty() { &default } else { globs };
        let mut gaps = Vec::new();
        let mut unreadable = |glob: &str, why: &str| {
            gaps.push(Gap {
                about: Subject::Programs,
                what: format!("programs named '{glob}'"),
                why: why.to_owned(),
            });
        };
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            match (Glob::new(cut(glob)), cannot_match(glob)) {
                (Ok(cut), None) => _ = set.add(cut),
                (Ok(_), Some(why)) => unreadable(glob, &why),
                (Err(error), _) => {
                    unreadable(glob, &format!("the name is no glob: {}", error.kind()));
                }
            }
        }
        let set = set.build().unwrap_or_else(|error| {
            unreadable(&globs.join(" "), &format!("the names are no globs: {}", error.kind()));
            GlobSet::empty()
        });
        (Self { globs: set, wording: globs.join(", ") }, gaps)
    }

    /// Tells whether a program with that name is ours.
    pub fn has(&self, name: &str) -> bool {
        self.globs.is_match(name)
    }
}

/// Tells whether a program's name has our prefix, whatever globs the user gave.
pub(super) fn is_named_as_ours(name: &str) -> bool {
    name.starts_with(NAMED_AS_OURS)
}

/// Cuts the glob as the kernel would cut a name.
pub(super) fn cut(glob: &str) -> &str {
    let literal = glob.find(['*', '?', '[', ']', '{', '}', '\\']).unwrap_or(glob.len());
    if literal < KEPT {
        return glob;
    }
    // If the kernel cuts a name within a character, we see a replacement character. No glob matches either way.
    glob.get(..KEPT).unwrap_or(glob)
}

/// Says why this glob cannot match any program name; `None` if it can. A search for it would find nothing on any host.
pub fn cannot_match(glob: &str) -> Option<String> {
    let least = shortest(cut(glob));
    (least > KEPT).then(|| {
        format!(
            "what it matches has {least} bytes at least, and of a program's name the kernel keeps {KEPT}: no program is \
             named so"
        )
    })
}

/// Returns the length in bytes of the shortest name that the glob can match.
fn shortest(glob: &str) -> usize {
    let mut chars = glob.chars().peekable();
    // One pair per open `{`: the length before the brace, and the shortest alternative so far.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut bytes = 0;
    while let Some(char) = chars.next() {
        match char {
            '*' => {}
            '{' => {
                open.push((bytes, usize::MAX));
                bytes = 0;
            }
            ',' if !open.is_empty() => {
                if let Some((_, least)) = open.last_mut() {
                    *least = (*least).min(bytes);
                }
                bytes = 0;
            }
            '}' if !open.is_empty() => {
                if let Some((before, least)) = open.pop() {
                    bytes = before + least.min(bytes);
                }
            }
            '[' => {
                chars.next_if(|&it| it == '!' || it == '^');
                // A `]` at the very start of a set is a member of the set.
                chars.next_if_eq(&']');
                chars.by_ref().find(|&it| it == ']');
                bytes += 1;
            }
            '\\' => bytes += chars.next().map_or(0, char::len_utf8),
            other => bytes += other.len_utf8(),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(glob: &str, name: &str) -> bool {
        let (ours, gaps) = Ours::new(&[glob.to_owned()]);
        assert_eq!(gaps, []);
        ours.has(name)
    }

    #[test]
    fn a_glob_is_cut_where_the_kernel_cuts_a_name() {
        for glob in [
            "chadthrottle*",
            "chadthrottle_in*",
            "chadthrottle_in?ress",
            "chadthrottle_ingress*",
            "chadthrottle_ingress",
        ] {
            assert!(ours(glob, "chadthrottle_in"), "{glob}");
        }
        assert!(!ours("chadthrottle_ingress*", "chadthrottle_eg"));
        assert!(!ours("chadthrottle_ingress*", "chadthrottle_i"));
    }

    #[test]
    fn a_glob_that_fits_is_not_cut() {
        assert!(ours("sd_fw_*", "sd_fw_ingress"));
        assert!(!ours("sd_fw_in", "sd_fw_ingress"));
        assert!(!ours("chadthrottle*", "sd_fw_ingress"));
    }

    #[test]
    fn a_wildcard_claims_no_more_than_it_matches() {
        assert!(!ours("*_fw_of_somebody", "chadthrottle_in"));
        assert!(!ours("*_fw_of_somebody", "x_fw_of_somebod"));
        assert!(!ours("chad*_ingress_al", "chadthrottle_in"));
    }

    #[test]
    fn what_no_name_can_be_is_a_gap_and_not_nothing() {
        for (glob, bytes) in [
            ("chad*_ingress_all", 16),
            ("l*_that_is_much_too_long", 23),
            ("{a,bc}????????????*???", 16),
            ("[a-z]*_____________\\_\\*", 16),
        ] {
            let (ours, gaps) = Ours::new(&[glob.to_owned(), "chad*".to_owned()]);
            assert!(ours.has("chadthrottle_in"));
            assert_eq!(gaps.len(), 1, "{glob}");
            assert!(gaps[0].why.contains(&format!("has {bytes} bytes")), "{}", gaps[0].why);
        }
        for glob in [
            "*",
            "{a,much_longer_than_any_name}*",
            "[]abcdefghijklmnopqrst]x",
            "{a,b{c,d}}?????????????",
            "chadthrottle_ingress*",
        ] {
            assert_eq!(cannot_match(glob), None, "{glob}");
        }
    }

    #[test]
    fn an_empty_glob_is_for_programs_without_a_name() {
        assert!(ours("", ""));
        assert!(!ours("", "sd_devices"));
        assert!(ours("*", ""));
        assert!(!ours("?*", ""));
    }

    #[test]
    fn a_name_of_ours_is_one_whatever_was_asked_for() {
        assert!(is_named_as_ours("chadthrottle_in"));
        assert!(is_named_as_ours("chadthrottle"));
        assert!(!is_named_as_ours("chadthrottl"));
        assert!(!is_named_as_ours("my_chadthrottle"));
        assert!(!is_named_as_ours(""));
    }

    #[test]
    fn no_glob_at_all_means_the_default_and_not_nothing() {
        let (ours, _) = Ours::new(&[]);
        assert!(ours.has("chadthrottle_in"));
        assert!(!ours.has("sd_devices"));
    }

    #[test]
    fn what_is_no_glob_is_a_gap_and_the_others_still_count() {
        let (ours, gaps) = Ours::new(&["sd_[".to_owned(), "chad*".to_owned()]);
        assert!(ours.has("chadthrottle_in"));
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].what, "programs named 'sd_['");
    }
}
