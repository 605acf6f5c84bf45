//! Moments and durations. Zones come from the data that is compiled in, so that every machine gives
//! the same.

use std::borrow::Cow;
use std::sync::LazyLock;

use foldline_api::budget::Budget;
use foldline_api::decimal::Decimal;
use foldline_api::time::{Date, Duration, MICROS, Time, Timestamp};
use foldline_api::value::Value;
use jiff::Zoned;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use crate::expr::node::{Args, Fault, Form, Function, Out};
use crate::expr::ops;

const fn part(name: &'static str, run: fn(Args<'_, '_>, &Budget) -> Out) -> Function {
    Function::new(name, Form::Member, (1, 2), run).checked(check_zone)
}

pub(super) const TABLE: &[Function] = &[
    Function::new("timestampMillis", Form::Global, (1, 1), |args, _| epoch(args, 1_000)),
    Function::new("timestampMicros", Form::Global, (1, 1), |args, _| epoch(args, 1)),
    Function::new("dateDays", Form::Global, (1, 1), days),
    Function::new("timeMicros", Form::Global, (1, 1), micros),
    Function::new("window", Form::Global, (2, 2), window).checked(check_window),
    Function::new("date", Form::Global, (2, 2), date).checked(check_zone),
    part("getFullYear", year),
    part("getMonth", |args, _| calendar(args, |t| i64::from(t.month()) - 1)),
    part("getDate", |args, _| calendar(args, |t| i64::from(t.day()))),
    part("getDayOfMonth", |args, _| calendar(args, |t| i64::from(t.day()) - 1)),
    part("getDayOfYear", |args, _| calendar(args, |t| i64::from(t.day_of_year()) - 1)),
    part("getDayOfWeek", |args, _| {
        calendar(args, |t| i64::from(t.weekday().to_sunday_zero_offset()))
    }),
    part("getHours", |args, _| clock(args, |t| i64::from(t.hour()), |d| d / 3_600_000_000)),
    part("getMinutes", |args, _| clock(args, |t| i64::from(t.minute()), |d| d / 60_000_000)),
    part("getSeconds", |args, _| clock(args, |t| i64::from(t.second()), |d| d / 1_000_000)),
    // Of a duration too it is the part below the second, as CEL's conformance tests have it.
    part("getMilliseconds", |args, _| {
        clock(args, |t| i64::from(t.millisecond()), |d| d / 1_000 % 1_000)
    }),
];

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// An IANA name, or an offset such as `+02:00`.
fn zone(name: &str) -> Result<TimeZone, Fault> {
    if let Some(seconds) = offset(name) {
        return Offset::from_seconds(seconds)
            .map(TimeZone::fixed)
            .map_err(|_| "the text is no time zone".into());
    }
    ZONES.get(name).map_err(|_| "the text is no time zone, such as Europe/Berlin".into())
}

fn offset(name: &str) -> Option<i32> {
    let (sign, digits) = match name.as_bytes().first()? {
        b'-' => (-1, name.get(1..)?),
        b'+' => (1, name.get(1..)?),
        _ => (1, name),
    };
    let (hours, minutes) = digits.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60)
        .then(|| sign * (i32::from(hours) * 3_600 + i32::from(minutes) * 60))
}

fn check_zone(args: &[Option<&Value>]) -> Result<(), Fault> {
    match args.get(1) {
        Some(Some(Value::Text(name))) => zone(name).map(|_| ()),
        Some(Some(_)) => Err("a zone is a text, such as 'Europe/Berlin'".into()),
        _ => Ok(()),
    }
}

fn check_window(args: &[Option<&Value>]) -> Result<(), Fault> {
    match args.get(1) {
        Some(Some(Value::Duration(Duration(1..)))) | None | Some(None) => Ok(()),
        Some(Some(Value::Duration(_))) => Err(WINDOW.into()),
        Some(Some(_)) => Err("a window's length is a duration, such as duration('1h')".into()),
    }
}

const OUTSIDE: &str = "the date is outside the years 1 to 9999";
const WINDOW: &str = "a window is longer than nothing";

fn moment(args: Args<'_, '_>) -> Result<Timestamp, Fault> {
    match args.first().map(Cow::as_ref) {
        Some(Value::Timestamp(moment)) => Ok(*moment),
        _ => Err(Fault::Types),
    }
}

/// Years after which the calendar repeats, weekdays and the zones' rules too, and their days.
const CYCLE: (i64, i32) = (400, 146_097);

/// The moment in the zone that the second argument names, UTC without one; and whether it is a cycle
/// of the calendar early, as jiff does not reach the last hours of the year 9999.
fn zoned(args: Args<'_, '_>) -> Result<(Zoned, bool), Fault> {
    let zone = match args.get(1).map(Cow::as_ref) {
        None => TimeZone::UTC,
        Some(Value::Text(name)) => zone(name)?,
        Some(_) => return Err(Fault::Types),
    };
    let moment = moment(args)?;
    // Two days before its end no zone's offset leads beyond it.
    let near_end = jiff::Timestamp::MAX.as_microsecond() - 48 * 3_600 * MICROS;
    if moment.micros() < near_end {
        return Ok((moment.to_jiff().to_zoned(zone), false));
    }
    let cycle = Duration(-i64::from(CYCLE.1) * 86_400 * MICROS);
    let early = moment.plus(cycle).map(Timestamp::to_jiff).ok_or(OUTSIDE)?;
    Ok((early.to_zoned(zone), true))
}

fn calendar(args: Args<'_, '_>, part: fn(&Zoned) -> i64) -> Out {
    zoned(args).map(|(moment, _)| Value::Int(part(&moment)))
}

fn year(args: Args<'_, '_>, _: &Budget) -> Out {
    let (moment, early) = zoned(args)?;
    Ok(Value::Int(i64::from(moment.year()) + if early { CYCLE.0 } else { 0 }))
}

/// A part of a moment, or of a duration's microseconds.
fn clock(args: Args<'_, '_>, part: fn(&Zoned) -> i64, of_span: fn(i64) -> i64) -> Out {
    match args {
        [span] if matches!(span.as_ref(), Value::Duration(_)) => match span.as_ref() {
            Value::Duration(span) => Ok(Value::Int(of_span(span.0))),
            _ => Err(Fault::Types),
        },
        _ => calendar(args, part),
    }
}

/// A moment from a count since the epoch, `micros` long each.
fn epoch(args: Args<'_, '_>, micros: i64) -> Out {
    let count = match args.first().map(Cow::as_ref) {
        Some(Value::Int(count)) => count.checked_mul(micros),
        Some(number @ (Value::Decimal(_) | Value::Double(_))) => {
            let Some(decimal) = Decimal::from(micros)
                .times(&*match number {
                    Value::Double(double) => {
                        Cow::Owned(Decimal::from_f64(*double).ok_or("the double is not finite")?)
                    }
                    exact => ops::exact(exact).ok_or(Fault::Types)?,
                })
                .to_i64()
            else {
                return Err("the number is finer than a microsecond, or too large".into());
            };
            Some(decimal)
        }
        _ => return Err(Fault::Types),
    };
    count
        .and_then(Timestamp::from_micros)
        .map(Value::Timestamp)
        .ok_or_else(|| "the moment is outside the years 1 to 9999".into())
}

/// A date from days since the epoch.
fn days(args: Args<'_, '_>, _: &Budget) -> Out {
    match args.first().map(Cow::as_ref) {
        Some(Value::Int(days)) => i32::try_from(*days)
            .ok()
            .and_then(Date::from_days)
            .map(Value::Date)
            .ok_or_else(|| OUTSIDE.into()),
        _ => Err(Fault::Types),
    }
}

/// A time from microseconds since midnight.
fn micros(args: Args<'_, '_>, _: &Budget) -> Out {
    match args.first().map(Cow::as_ref) {
        Some(Value::Int(micros)) => Time::from_micros(*micros)
            .map(Value::Time)
            .ok_or_else(|| "a day has no such microsecond".into()),
        _ => Err(Fault::Types),
    }
}

fn window(args: Args<'_, '_>, _: &Budget) -> Out {
    let moment = moment(args)?;
    match args.get(1).map(Cow::as_ref) {
        Some(Value::Duration(span)) => match moment.window(*span) {
            Some(start) => Ok(Value::Timestamp(start)),
            None if span.0 <= 0 => Err(WINDOW.into()),
            None => Err("the window starts before the year 1".into()),
        },
        _ => Err(Fault::Types),
    }
}

fn date(args: Args<'_, '_>, _: &Budget) -> Out {
    let (moment, early) = zoned(args)?;
    let days = Date::from_civil(moment.date()).map(Date::days);
    days.and_then(|days| Date::from_days(days + if early { CYCLE.1 } else { 0 }))
        .map(Value::Date)
        .ok_or_else(|| OUTSIDE.into())
}
