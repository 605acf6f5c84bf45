//! Moments, dates and times of day in whole microseconds and days, as PostgreSQL keeps them.

use std::fmt;
use std::str::FromStr;

use jiff::civil;

/// Microseconds in a second.
pub const MICROS: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS;
/// 0001-01-01T00:00:00Z, CEL's first moment.
const TIMESTAMP_MIN: i64 = -62_135_596_800 * MICROS;
/// 9999-12-31T23:59:59.999999Z, CEL's last.
const TIMESTAMP_MAX: i64 = 253_402_300_800 * MICROS - 1;

/// The text is no such moment, or it lies outside the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
pub struct TimeError(&'static str);

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A calendar date: days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

/// A time of day: microseconds since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// A span of time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

/// Nanoseconds to microseconds, to the nearest, ties up, as PostgreSQL reads them.
fn nanos_to_micros(nanos: i128) -> i128 {
    (nanos + 500).div_euclid(1_000)
}

impl Timestamp {
    /// From microseconds since the epoch; none outside the years 1 to 9999.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&micros).then_some(Timestamp(micros))
    }

    /// From milliseconds since the epoch.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        Self::from_micros(millis.checked_mul(1_000)?)
    }

    /// From nanoseconds since the epoch, to the nearest microsecond, as the text of a moment is read.
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Option<Self> {
        Self::from_micros(i64::try_from(nanos_to_micros(i128::from(nanos))).ok()?)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Later by `span`; none outside the years 1 to 9999.
    #[must_use]
    pub fn plus(self, span: Duration) -> Option<Self> {
        Self::from_micros(self.0.checked_add(span.0)?)
    }

    /// The start of the window of length `span` that holds this moment, counted from the epoch.
    #[must_use]
    pub fn window(self, span: Duration) -> Option<Self> {
        if span.0 <= 0 {
            return None;
        }
        Self::from_micros(self.0 - self.0.rem_euclid(span.0))
    }

    /// The moment as jiff's, whose last one is 9999-12-30T22:00:00Z: later ones, which are moments here
    /// and in PostgreSQL (`9999-12-31` is many a table's "for ever"), become that.
    #[must_use]
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    /// RFC 3339, with `T` or a space and a zone or offset; finer than a microsecond is rounded.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = TimeError("timestamp (RFC 3339 with a zone, such as 2026-03-01T10:15:00Z)");
        // jiff also reads dates without a zone through other types; here a zone must be there.
        let nanos = match text.trim().parse::<jiff::Timestamp>() {
            Ok(moment) => moment.as_nanosecond(),
            Err(_) => beyond_jiff(text.trim()).ok_or(wrong)?,
        };
        let micros = nanos_to_micros(nanos);
        i64::try_from(micros).ok().and_then(Self::from_micros).ok_or(wrong)
    }
}

/// Nanoseconds since the epoch of a moment that jiff's calendar holds but its timestamps do not.
fn beyond_jiff(text: &str) -> Option<i128> {
    let pieces = jiff::fmt::temporal::DateTimeParser::new().parse_pieces(text).ok()?;
    let offset = pieces.to_numeric_offset()?.seconds();
    let date = Date::from_civil(pieces.date())?;
    let time = pieces.time()?.duration_since(civil::Time::midnight()).as_nanos();
    let seconds = i128::from(date.days()) * 86_400 - i128::from(offset);
    Some(seconds * 1_000_000_000 + time)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // jiff prints no more digits of a fraction than it needs, and neither does `Time`.
        if let Ok(moment) = jiff::Timestamp::from_microsecond(self.0) {
            return write!(f, "{moment}");
        }
        let days = i32::try_from(self.0.div_euclid(MICROS_PER_DAY)).unwrap_or_default();
        write!(f, "{}T{}Z", Date(days), Time(self.0.rem_euclid(MICROS_PER_DAY)))
    }
}

impl Date {
    /// From days since 1970-01-01; none outside the years 1 to 9999.
    #[must_use]
    pub fn from_days(days: i32) -> Option<Self> {
        let micros = i64::from(days).checked_mul(MICROS_PER_DAY)?;
        Timestamp::from_micros(micros).map(|_| Date(days))
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub fn days(self) -> i32 {
        self.0
    }

    /// From a calendar date of jiff's.
    #[must_use]
    pub fn from_civil(date: civil::Date) -> Option<Self> {
        let epoch = civil::date(1970, 1, 1);
        let days = date.since((jiff::Unit::Day, epoch)).ok()?.get_days();
        Self::from_days(days)
    }

    fn civil(self) -> civil::Date {
        let span = jiff::Span::new().try_days(self.0).unwrap_or_default();
        civil::date(1970, 1, 1).checked_add(span).unwrap_or(civil::Date::ZERO)
    }
}

impl FromStr for Date {
    type Err = TimeError;

    /// `YYYY-MM-DD` and nothing behind it: a moment is a date only in a zone, which `date(t, zone)` names. A `Z` says what a
    /// date here is, and Debezium writes it (`time.precision.mode=isostring`).
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = TimeError("date (YYYY-MM-DD)");
        let text = text.trim();
        let text = text.strip_suffix('Z').unwrap_or(text);
        if text.len() != 10 {
            return Err(wrong);
        }
        text.parse::<civil::Date>().ok().and_then(Self::from_civil).ok_or(wrong)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.civil())
    }
}

impl Time {
    /// From microseconds since midnight, below 24 hours.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..MICROS_PER_DAY).contains(&micros).then_some(Time(micros))
    }

    /// From nanoseconds since midnight, to the nearest microsecond.
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Option<Self> {
        Self::from_micros(i64::try_from(nanos_to_micros(i128::from(nanos))).ok()?)
    }

    /// Microseconds since midnight.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }
}

impl FromStr for Time {
    type Err = TimeError;

    /// `HH:MM[:SS[.ffffff]]`; with a `Z`, as for a date.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = TimeError("time (HH:MM:SS)");
        let text = text.trim();
        let text = text.strip_suffix('Z').unwrap_or(text);
        if text.get(2..3) != Some(":") || text.contains(['T', ' ', '+', 'Z']) {
            return Err(wrong);
        }
        let time: civil::Time = text.parse().map_err(|_| wrong)?;
        let midnight = civil::Time::midnight();
        let nanos = time.duration_since(midnight).as_nanos();
        let micros = i64::try_from(nanos_to_micros(nanos)).map_err(|_| wrong)?;
        Self::from_micros(micros).ok_or(wrong)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / MICROS, self.0 % MICROS);
        write!(f, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
        if micros > 0 {
            let fraction = format!("{micros:06}");
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl fmt::Display for Duration {
    /// CEL's text of a duration: seconds with `s`, such as `5400s` or `0.25s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (seconds, micros) =
            (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        if micros == 0 {
            write!(f, "{sign}{seconds}s")
        } else {
            let fraction = format!("{micros:06}");
            write!(f, "{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_and_print() {
        let t: Timestamp = "2026-03-01T12:59:59+02:00".parse().unwrap();
        assert_eq!(t.to_string(), "2026-03-01T10:59:59Z");
        assert_eq!(t.window(Duration(3_600 * MICROS)).unwrap().to_string(), "2026-03-01T10:00:00Z");
        let t: Timestamp = "2026-03-01 12:59:59.1234565Z".parse().unwrap();
        assert_eq!(t.to_string(), "2026-03-01T12:59:59.123457Z");
        assert!("2026-03-01T12:59:59".parse::<Timestamp>().is_err(), "no zone");
        assert!("2026-03-01".parse::<Timestamp>().is_err());
        assert_eq!(
            "1969-12-31T23:59:59Z".parse::<Timestamp>().unwrap().window(Duration(3_600 * MICROS)),
            "1969-12-31T23:00:00Z".parse().ok()
        );
    }

    #[test]
    fn the_first_and_the_last_moment_read_and_print() {
        for text in [
            "0001-01-01T00:00:00Z",
            "9999-12-30T22:00:00.999999Z",
            "9999-12-30T22:00:01Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999Z",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        let t: Timestamp = "9999-12-31T23:59:59.25+05:00".parse().unwrap();
        assert_eq!(t.to_string(), "9999-12-31T18:59:59.25Z");
        for text in [
            "9999-12-31T23:59:59-01:00",
            "9999-12-31T23:59:59",
            "9999-12-31",
            "9999-12-32T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn dates_and_times_read_and_print() {
        for text in ["0001-01-01", "1969-12-31", "1970-01-01", "2026-02-28", "9999-12-31"] {
            assert_eq!(text.parse::<Date>().unwrap().to_string(), text);
        }
        assert!("2026-02-30".parse::<Date>().is_err());
        assert!("2026-02-03T00:00:00Z".parse::<Date>().is_err());
        assert_eq!("2026-02-28".parse::<Date>().unwrap().days(), 20_512);
        for text in ["00:00:00", "23:59:59.999999", "10:20:30.5"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        assert!("24:00:00".parse::<Time>().is_err());
        // As Debezium writes them, whose zone is none of theirs.
        assert_eq!("2026-02-28Z".parse::<Date>().unwrap().to_string(), "2026-02-28");
        assert_eq!("10:20:30.5Z".parse::<Time>().unwrap().to_string(), "10:20:30.5");
        assert!(
            "2026-02-28+02:00".parse::<Date>().is_err()
                && "10:20:30+02:00".parse::<Time>().is_err()
        );
    }
}
