//! Edits recorded snapshots. A text made up from nothing is hardly ever a snapshot, and hardly ever has a leak.

use std::sync::LazyLock;

use serde_json::{Value, json};

macro_rules! recorded {
    ($($name:literal)*) => {
        [$(include_bytes!(concat!("../../../auditor/tests/snapshots-in/", $name, ".json")).as_slice()),*]
    };
}

const RECORDED: [&[u8]; 14] = recorded!(
    "active" "pinned" "waiting" "foreign" "unowned" "orphaned_attachment" "stacked_duplicate" "disarmed_attachment" "orphaned_pin" "defunct_link"
    "unattached_program" "unreachable_program" "orphaned_device" "unknown"
);

/// The maximum size of a snapshot, in values. Copies of copies would take up the fuzzer's time.
const MOST: usize = 4_000;

/// Returns the nth recorded snapshot after the edits, five bytes each; `None` if there is no nth.
pub(super) fn recorded(nth: u8, edits: &[u8]) -> Option<Vec<u8>> {
    let mut snapshot = values().get(usize::from(nth))?.clone();
    for edit in edits.as_chunks::<5>().0 {
        if count(&snapshot, any) > MOST {
            break;
        }
        apply(*edit, &mut snapshot);
    }
    serde_json::to_vec(&snapshot).ok()
}

/// Returns the recorded snapshots. Reads them only once, because the fuzzer asks thousands of times per second.
fn values() -> &'static [Value] {
    static VALUES: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let read = |text: &&[u8]| serde_json::from_slice(text).expect("what is recorded is JSON");
        RECORDED.iter().map(read).collect()
    });
    &VALUES
}

/// Applies one edit: what to do, the nth suitable value to do it to, and a number as the argument.
fn apply([what, high, low, more_high, more_low]: [u8; 5], snapshot: &mut Value) {
    let place = usize::from(u16::from_be_bytes([high, low]));
    let more = usize::from(u16::from_be_bytes([more_high, more_low]));
    match what % 7 {
        0 => {
            // Replace a value only by one of the same kind. Otherwise the parser would reject nearly everything.
            let kind = nth_mut(snapshot, place, any).map(|value| std::mem::discriminant(value));
            let is_alike = |value: &Value| Some(std::mem::discriminant(value)) == kind;
            let other = nth_mut(snapshot, more, is_alike).cloned();
            if let (Some(value), Some(other)) = (nth_mut(snapshot, place, any), other) {
                *value = other;
            }
        }
        1 => {
            let mut odd = odd();
            if let Some(value) = nth_mut(snapshot, place, any) {
                *value = odd.swap_remove(more % odd.len());
            }
        }
        2 => match nth_mut(snapshot, place, is_filled) {
            Some(Value::Array(list)) => _ = list.remove(more % list.len()),
            Some(Value::Object(fields)) => {
                let key = fields.keys().nth(more % fields.len()).cloned();
                key.and_then(|key| fields.remove(&key));
            }
            _ => {}
        },
        3 => {
            if let Some(Value::Array(list)) = nth_mut(snapshot, place, is_filled_list) {
                list.push(list[more % list.len()].clone());
            }
        }
        4 => {
            if let Some(Value::Array(list)) = nth_mut(snapshot, place, is_filled_list) {
                list.reverse();
            }
        }
        5 => {
            // A number close to the old one.
            let value = nth_mut(snapshot, place, Value::is_u64);
            if let Some((value, number)) =
                value.and_then(|it| it.as_u64().map(|number| (it, number)))
            {
                *value =
                    if more % 2 == 0 { number.wrapping_add(1) } else { number.wrapping_sub(1) }
                        .into();
            }
        }
        _ => {
            // The old text, followed by a character that no name should have.
            if let Some(Value::String(text)) = nth_mut(snapshot, place, Value::is_string) {
                text.push(u32::try_from(more).ok().and_then(char::from_u32).unwrap_or('\u{9b}'));
            }
        }
    }
}

/// Returns values that nobody expects in a field.
fn odd() -> Vec<Value> {
    vec![
        json!(null),
        json!(0),
        json!(1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(-1),
        json!(0.1),
        json!(1e308),
        json!(true),
        json!(false),
        json!(""),
        json!("/"),
        json!("*"),
        json!("[\u{1b}"),
        json!("a\u{1b}[2J\r\nb\u{9b}\u{202e}\u{7f}"),
        json!("Größe 日本 \\x1b '\"`$(true)"),
        json!({"hex": "2f61ff1b0a"}),
        json!("lsm_cgroup"),
        json!("sched_cls"),
        json!("chadthrottle_in"),
        json!("chadq4711a"),
        json!([]),
        json!({}),
    ]
}

fn any(_: &Value) -> bool {
    true
}

fn is_filled_list(value: &Value) -> bool {
    matches!(value, Value::Array(list) if !list.is_empty())
}

fn is_filled(value: &Value) -> bool {
    is_filled_list(value) || matches!(value, Value::Object(fields) if !fields.is_empty())
}

/// Counts the matching values in a value, including itself.
fn count(value: &Value, is: impl Fn(&Value) -> bool + Copy) -> usize {
    let within = match value {
        Value::Array(list) => list.iter().map(|value| count(value, is)).sum(),
        Value::Object(fields) => fields.values().map(|value| count(value, is)).sum(),
        _ => 0,
    };
    usize::from(is(value)) + within
}

/// Returns the nth matching value in a value, for a change. Starts again at the first one after the last.
fn nth_mut(
    value: &mut Value,
    nth: usize,
    is: impl Fn(&Value) -> bool + Copy,
) -> Option<&mut Value> {
    fn find<'a>(
        value: &'a mut Value,
        left: &mut usize,
        is: impl Fn(&Value) -> bool + Copy,
    ) -> Option<&'a mut Value> {
        if is(value) {
            if *left == 0 {
                return Some(value);
            }
            *left -= 1;
        }
        match value {
            Value::Array(list) => list.iter_mut().find_map(|value| find(value, left, is)),
            Value::Object(fields) => fields.values_mut().find_map(|value| find(value, left, is)),
            _ => None,
        }
    }
    let all = count(value, is);
    find(value, &mut nth.checked_rem(all)?, is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_edits_every_recorded_snapshot_is_one() {
        for (nth, text) in (0..).zip(RECORDED) {
            let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
            assert_eq!(read(&recorded(nth, &[]).unwrap()), read(text));
        }
        assert_eq!(recorded(u8::try_from(RECORDED.len()).unwrap(), &[]), None);
    }

    #[test]
    fn edits_change_a_snapshot_where_they_say() {
        // The order of counting: the whole, "a", 1, 2, "b".
        let mut value = json!({"a": [1, 2], "b": "x"});
        for (edit, expected) in [
            ([0, 0, 2, 0, 1], json!({"a": [2, 2], "b": "x"})),
            ([1, 0, 4, 0, 10], json!({"a": [2, 2], "b": ""})),
            ([3, 0, 0, 0, 0], json!({"a": [2, 2, 2], "b": ""})),
            ([5, 0, 1, 0, 0], json!({"a": [2, 3, 2], "b": ""})),
            ([2, 0, 1, 0, 0], json!({"a": [3, 2], "b": ""})),
            ([4, 0, 7, 0, 0], json!({"a": [2, 3], "b": ""})),
            ([6, 0, 0, 0, 9], json!({"a": [2, 3], "b": "\t"})),
            ([2, 0, 0, 0, 1], json!({"a": [2, 3]})),
        ] {
            apply(edit, &mut value);
            assert_eq!(value, expected, "{edit:?}");
        }
    }
}
