//! Names as they may go to a terminal.
//!
//! Whoever makes a cgroup, a program, a process or a pin chooses its name, and a terminal obeys what is
//! in it. So nothing that is not plainly visible is printed as it is.

use std::fmt::Write;

/// The text with every character that is not plainly visible written out: `\n`, `\x1b`, `\u{202e}`.
///
/// A backslash stays single, because unit names are full of them (`system\x2dd.slice`). So this is to be read,
/// not to be read back: a byte 0xff and a name that spells out `\xff` look alike. The JSON report tells them
/// apart (`path_hex`).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = match character {
            '\\' | '\'' | '"' => write!(escaped, "{character}"),
            '\n' | '\r' | '\t' => write!(escaped, "{}", character.escape_default()),
            control if control.is_control() => write!(escaped, "\\x{:02x}", u32::from(control)),
            other if is_invisible(other) => write!(escaped, "{}", other.escape_unicode()),
            other => write!(escaped, "{}", other.escape_debug()),
        };
    }
    escaped
}

/// The same for a path's bytes; those that are no text are written as `\xff`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escaped += &escape(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    escaped
}

/// Characters without a width that reorder or hide what is beside them, and that `escape_debug` may let by.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(escape("a\n\t\r\x1b[31m\x07\u{9b}1m\x7f"), r"a\n\t\r\x1b[31m\x07\x9b1m\x7f");
        assert_eq!(escape("\u{202e}evil\u{200b}"), r"\u{202e}evil\u{200b}");
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        let name = r#"/system.slice/system-systemd\x2dcryptsetup.slice/Größe "q" 'x' 日本"#;
        assert_eq!(escape(name), name);
    }

    #[test]
    fn bytes_that_are_no_text_are_written_out() {
        assert_eq!(escape_bytes(b"/a\xff\xc3/\xc3\xa9\x1b"), "/a\\xff\\xc3/é\\x1b");
    }
}
