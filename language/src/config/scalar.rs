//! Durations and sizes as texts with a unit.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 5] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// What a wrong duration is told.
pub(super) const DURATION_FORM: &str = "a duration such as `250ms`, `10s`, `5m`, `1h` or `30d`";
/// What a wrong size is told.
pub(super) const SIZE_FORM: &str = "a size such as `64KiB`, `8MiB` or `1GiB`";

/// `250ms`, `1h`, `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    scaled(text, &DURATIONS).map(Duration::from_millis)
}

/// `64KiB`, `8MiB`, in bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZES)
}

/// The shortest exact text of a duration.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact =
        DURATIONS.iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    let (name, unit) = exact.copied().unwrap_or(("ms", 1));
    format!("{}{name}", millis / unit)
}

/// The shortest exact text of a size.
pub fn format_size(bytes: u64) -> String {
    let mut units = SIZES;
    units.sort_by_key(|(_, unit)| std::cmp::Reverse(*unit));
    let exact = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = exact.unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_take_exactly_one_number_and_one_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("30d"), Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        for wrong in ["", "h", "1", "1.5h", "-1h", "1 h", "1H", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for wrong in ["64", "64kb", "64KB", "MiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_text_reads_back_as_the_value() {
        for text in ["250ms", "90s", "1h", "30d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["1000B", "64KiB", "8MiB", "3GiB"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
    }
}
