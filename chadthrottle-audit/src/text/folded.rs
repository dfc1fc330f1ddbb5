//! Folds lists that are wider than the terminal.

/// Joins the parts with commas. Begins a new line where a part would end beyond `width`, and never cuts a part.
pub(super) fn folded(parts: &[String], indent: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let comma = usize::from(n + 1 < parts.len());
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + part.chars().count() + comma <= width => {
                line.push(' ');
                line.push_str(part);
            }
            _ => lines.push(format!("{indent}{part}")),
        }
        if comma == 1
            && let Some(line) = lines.last_mut()
        {
            line.push(',');
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&str], width: usize) -> String {
        let parts: Vec<_> = parts.iter().map(|&part| part.to_owned()).collect();
        folded(&parts, "  ", width)
    }

    #[test]
    fn a_line_is_filled_to_the_width_and_not_beyond() {
        assert_eq!(of(&["abc", "de", "f"], 11), "  abc, de,\n  f");
        assert_eq!(of(&["abc", "de", "f"], 12), "  abc, de, f");
        assert_eq!(of(&["abc", "de", "f"], 9), "  abc,\n  de, f");
    }

    #[test]
    fn what_is_too_long_by_itself_has_a_line_and_stays_whole() {
        assert_eq!(of(&["a", "bcdefgh", "i"], 5), "  a,\n  bcdefgh,\n  i");
        assert_eq!(of(&[], 5), "");
    }
}
