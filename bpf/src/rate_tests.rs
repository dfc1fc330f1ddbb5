//! Tests which texts are rates, and the messages for others.

use super::*;

/// A text, and the bytes per second or a part of the error.
type Case = (&'static str, Result<u64, &'static str>);

/// Texts that people type, each with the expected result.
const CASES: &[Case] = &[
    ("0", Err("outside of 1 kB/s")),
    ("1", Err("outside of")),
    ("100", Err("outside of")),
    ("999", Err("outside of")),
    ("1000", Ok(1_000)),
    ("1K", Ok(1_000)),
    ("0.5K", Err("outside of")),
    ("1k", Ok(1_000)),
    ("8kbit", Ok(1_000)),
    ("7.9kbit", Err("outside of")),
    ("100kbps", Err("kbps may mean bits or bytes, so write 100kB for bytes or 100kbit for bits")),
    ("100Kbps", Err("write 100kB for bytes or 100kbit for bits")),
    ("1Mbps", Err("write 1MB for bytes or 1mbit for bits")),
    ("1mbps", Err("write 1MB for bytes or 1mbit for bits")),
    ("1MBps", Err("write 1MB for bytes or 1mbit for bits")),
    ("10Mb", Err("Mb may mean bits or bytes, so write 10MB for bytes or 10mbit for bits")),
    ("10mb", Err("mb may mean bits or bytes, so write 10MB for bytes or 10mbit for bits")),
    ("10kb", Err("write 10kB for bytes or 10kbit for bits")),
    ("10Mb/s", Err("write 10MB for bytes or 10mbit for bits")),
    ("10Mib", Err("Mib may mean bits or bytes, so write 10MiB for bytes or 10mibit for bits")),
    ("10mib", Err("write 10MiB for bytes or 10mibit for bits")),
    ("5000b", Err("b may mean bits or bytes, so write 5000B for bytes or 5000bit for bits")),
    ("5000B", Ok(5_000)),
    ("10MB", Ok(10_000_000)),
    ("10mB", Ok(10_000_000)),
    ("10m", Ok(10_000_000)),
    ("10M", Ok(10_000_000)),
    ("10Mbit", Ok(1_250_000)),
    ("10mbit", Ok(1_250_000)),
    ("10MBIT", Ok(1_250_000)),
    ("10mbit/s", Ok(1_250_000)),
    ("10MB/s", Ok(10_000_000)),
    ("1.5MB/s", Ok(1_500_000)),
    ("1,5M", Err("the decimal point is a point, as in 1.5M")),
    ("10 M", Ok(10_000_000)),
    ("10 MB/s", Ok(10_000_000)),
    ("10MiB", Ok(10_485_760)),
    ("10miB", Ok(10_485_760)),
    ("10Mi", Err("there is no unit Mi")),
    ("5e6", Err("there is no unit e6")),
    ("1G", Ok(1_000_000_000)),
    ("10g", Ok(10_000_000_000)),
    ("1gbit", Ok(125_000_000)),
    ("0.01T", Ok(10_000_000_000)),
    ("1T", Err("outside of")),
    ("1tbit", Err("outside of")),
    ("0.8tbit", Ok(100_000_000_000)),
    ("100G", Ok(100_000_000_000)),
    ("100.1G", Err("outside of")),
    ("unlimited", Err("for no limit, leave the option out")),
    ("none", Err("for no limit, leave the option out")),
    ("max", Err("for no limit, leave the option out")),
    ("-1", Err("a rate has no sign")),
    ("-5M", Err("a rate has no sign")),
    ("+5M", Err("a rate has no sign")),
    ("--upload", Err("it looks like the next option, so the rate is missing")),
    ("0x100", Err("there is no unit x100")),
    ("1_000K", Err("there is no unit _000K")),
    (".5M", Err("a decimal point has digits on both sides")),
    ("5.M", Err("a decimal point has digits on both sides")),
    ("١M", Err("it does not begin with a number")),
    ("", Err("it does not begin with a number")),
    (" ", Err("it does not begin with a number")),
    ("M", Err("it does not begin with a number")),
    ("ten", Err("it does not begin with a number")),
    ("1.2.3M", Err("a number has one decimal point")),
    ("1.1234567M", Err("at most six digits")),
    ("1 m m", Err("there is no unit m m")),
    ("500k/s", Ok(500_000)),
    ("0.5gbit", Ok(62_500_000)),
    ("512KiB", Ok(524_288)),
    ("1GiB", Ok(1_073_741_824)),
    ("0.01TiB", Ok(10_995_116_277)),
    ("8kibit", Ok(1_024)),
    ("1mibit", Ok(131_072)),
    ("1gibit", Ok(134_217_728)),
    ("0.5tibit", Ok(68_719_476_736)),
    ("8000bit", Ok(1_000)),
    ("12.000001K", Ok(12_000)),
    ("000000000000000000001000", Ok(1_000)),
    ("0K", Err("outside of")),
    ("0.0M", Err("outside of")),
    ("101G", Err("outside of")),
    ("99999999999999999999999G", Err("outside of")),
];

#[test]
fn each_thing_that_people_type_is_the_rate_that_was_meant_or_refused_with_a_reason() {
    for (text, expected) in CASES {
        match (text.parse::<Rate>(), expected) {
            (Ok(rate), Ok(expected)) => assert_eq!(rate.bytes_per_second(), *expected, "{text}"),
            (Err(error), Err(part)) => {
                let error = error.to_string();
                assert!(error.starts_with(&format!("\"{text}\" is not a rate: ")), "{error}");
                assert!(error.contains(part), "{error}");
            }
            (got, _) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_table_has_every_unit_and_so_has_the_error() {
    let table = Rate::units();
    let error = "fast".parse::<Rate>().unwrap_err().to_string();
    assert!(error.contains(table.trim_end()), "{error}");
    let words: Vec<_> = table.split_whitespace().collect();
    for (name, _) in UNITS.iter().flat_map(|row| row.names).filter(|(name, _)| !name.is_empty()) {
        assert!(words.contains(name), "{name} in {table}");
        // For smaller units that is too little, and the message shows that the unit is known.
        let parsed = format!("0.9{name}").parse::<Rate>();
        assert!(matches!(parsed, Ok(_) | Err(RateError::OutOfRange(_))), "{parsed:?}");
    }
    assert!(table.lines().all(|line| line.len() <= 80), "{table}");
}

/// `docs/using/limit.md` shows the same table.
#[test]
fn the_documentation_has_the_table() {
    let page = include_str!("../../docs/using/limit.md");
    assert!(page.contains(&Rate::units()), "put this into docs/using/limit.md:\n{}", Rate::units());
}

#[test]
fn no_unit_that_is_written_with_a_small_b_is_taken_for_bytes() {
    for (name, _) in UNITS.iter().filter(|row| row.per_byte == 1).flat_map(|row| row.names) {
        for written in [name.to_ascii_lowercase(), name.replace('B', "b")] {
            if written.ends_with('b') {
                let error = format!("10{written}").parse::<Rate>().unwrap_err().to_string();
                assert!(error.contains("may mean bits or bytes"), "{error}");
            }
        }
    }
}

#[test]
fn a_rate_is_a_number_of_bytes_in_json_and_stays_within_its_range() {
    let rate: Rate = serde_json::from_str("1250000").unwrap();
    assert_eq!(serde_json::to_string(&rate).unwrap(), "1250000");
    assert!(serde_json::from_str::<Rate>("999").is_err());
}

#[test]
fn a_rate_is_printed_in_columns_and_what_is_printed_is_read() {
    assert_eq!(format!("{:>10}|", Rate(1_250_000)), " 1.25 MB/s|");
    for rate in [Rate::MIN, Rate(1_250_000), Rate(62_500_000), Rate::MAX] {
        assert_eq!(rate.to_string().parse(), Ok(rate));
    }
}
