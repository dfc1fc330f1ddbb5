//! Escapes names before they go to a terminal.
//!
//! Whoever makes a cgroup, a program, a process or a pin chooses its name, and a terminal obeys control characters in
//! the name. So the programs print nothing unchanged that is not plainly visible.

use std::fmt::Write;

/// Writes out every character that is not plainly visible: `\n`, `\x1b`, `\u{202e}`.
///
/// A backslash stays single, because unit names are full of them (`system\x2dd.slice`). So the text is for people, not
/// for parsers: a byte 0xff and a name that spells out `\xff` look alike. The JSON report distinguishes them
/// (`path_hex`).
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

/// Escapes a path's bytes. Writes bytes that are not UTF-8 as `\xff`.
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

/// Tells whether a character has no width and reorders or hides its neighbours. `escape_debug` may let some of these
/// pass.
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
