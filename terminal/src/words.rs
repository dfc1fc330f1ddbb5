//! Words numbers for people.

/// Counts things: `1 thing`, `2 things`.
pub fn count(number_of: usize, noun: &str) -> String {
    format!("{} {noun}{}", number(number_of), if number_of == 1 { "" } else { "s" })
}

/// Groups a number's digits by three: `10,000`.
pub fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
