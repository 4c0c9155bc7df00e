//! Bytes, durations, counts and error chains as text for people. MB is 10⁶ bytes everywhere.

use std::error::Error;
use std::time::Duration;

/// Bytes with three significant digits: `999 B`, `1.50 kB`, `12.3 MB`, `1.00 GB`.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        // 999.5 would print as 1000: it belongs to the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// Sizes as people write them: a number and a unit, or bytes alone.
const UNITS: [(&str, u64); 9] = [
    ("TIB", 1 << 40),
    ("GIB", 1 << 30),
    ("MIB", 1 << 20),
    ("KIB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `400MB`, `1.5 GB`, `512 MiB` or `350000000`: MB is 10⁶ bytes, MiB 2²⁰, whatever the case. The error is a sentence
/// part.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("this must be a size such as 400MB, 1.5GB or 512MiB, not {text:?}");
    let upper = text.trim().to_ascii_uppercase();
    let unit = UNITS.into_iter().find_map(|(unit, bytes)| Some((upper.strip_suffix(unit)?, bytes)));
    let (number, unit) = unit.unwrap_or((&upper, 1));
    let number = number.trim_end();
    // Also `-1`, `1e9` and `inf` are numbers to Rust.
    if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(wrong());
    }
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit).ok_or_else(wrong)?,
        Err(_) => (number.parse::<f64>().map_err(|_| wrong())? * unit as f64).round() as u64,
    };
    // The cast ends at the largest number.
    if bytes == u64::MAX { Err(wrong()) } else { Ok(bytes) }
}

/// Bytes as [`parse_bytes`] reads them back to the last one: `350 MB`, `1.5 GB`, `12345678 B`.
pub fn exact_bytes(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000, 1_000_000), ("MB", 1_000_000, 1_000), ("kB", 1_000, 1_000)];
    match units.into_iter().find(|(_, unit, step)| bytes >= *unit && bytes.is_multiple_of(*step)) {
        Some((name, unit, _)) => format!("{} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Bytes, or "unknown" for a figure that cannot be had.
pub fn bytes_or_unknown(value: Option<u64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), bytes)
}

/// A count with thousands separators: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 photo`, `2,000 photos`.
pub fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A share as a person reads it: `97.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Two digits for each byte, in order.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A duration to the second: `8 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Reads `90`, `90 s`, `5 min` or `1.5 h`. The error is a sentence part.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("this must be a time such as 30 s, 5 min or 1 h, not {text:?}");
    let text = text.trim();
    let unit = [("min", 60.0), ("h", 3600.0), ("s", 1.0)];
    let unit = unit.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, unit) = unit.unwrap_or((text, 1.0));
    let number: f64 = number.trim_end().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

/// A duration as [`parse_duration`] reads it back, to the millisecond: `1 h`, `5 min`, `0.5 s`.
pub fn exact_duration(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) if seconds > 0 && seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        (seconds, 0) if seconds > 0 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        (seconds, millis) => format!("{} s", (seconds * 1000 + u64::from(millis)) as f64 / 1000.0),
    }
}

/// An error and its causes on one line, outermost first.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An error and its causes, outermost first.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_three_digits_across_unit_edges() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (1_003_000_000, "1.00 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("350000000", 350_000_000),
            ("400MB", 400_000_000),
            (" 400 mb ", 400_000_000),
            ("1.5GB", 1_500_000_000),
            ("1.5 gib", 1_610_612_736),
            ("512MiB", 536_870_912),
            ("12kB", 12_000),
            ("7 B", 7),
            ("2TB", 2_000_000_000_000),
            ("0.0000001 GB", 100),
        ];
        for (text, value) in cases {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
        for text in ["", "MB", "lots", "-1MB", "1e9", "inf", "4 apples", "1.2.3GB", "400M", "99999999999TB", "1 000"] {
            let error = parse_bytes(text).expect_err(text);
            assert!(error.contains("such as 400MB") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn exact_sizes_and_times_read_back_the_same() {
        let sizes = [0, 7, 999, 1000, 1234, 12_345_678, 350_000_000, 1_500_000_000, 536_870_912, 1 << 40];
        for bytes in sizes {
            assert_eq!(parse_bytes(&exact_bytes(bytes)), Ok(bytes), "{}", exact_bytes(bytes));
        }
        let text = [350_000_000, 1_500_000_000, 536_870_912].map(exact_bytes);
        assert_eq!(text, ["350 MB", "1.5 GB", "536870912 B"]);
        for millis in [0, 500, 1000, 30_000, 60_000, 90_000, 3_600_000, 5_400_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse_duration(&exact_duration(time)), Ok(time), "{}", exact_duration(time));
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let cases = [("90", 90), ("90s", 90), ("5 min", 300), ("1.5h", 5400), ("0", 0)];
        for (text, seconds) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-1 s", "5 days", "NaN", "inf"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "photo"), "1 photo");
        assert_eq!(counted(2000, "photo"), "2,000 photos");
    }

    #[test]
    fn durations_name_the_two_largest_units() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(8), text(200), text(7500)], ["8 s", "3 min 20 s", "2 h 5 min"]);
    }
}
