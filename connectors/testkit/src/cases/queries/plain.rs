//! Plain values, filters and order: nothing here is a store's, or the contract's.

use std::cmp::Ordering;

use foldline_api::query::Side;

use crate::rng::Rng;

/// A value as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plain {
    /// Numbers without a fraction; those with one times a power of ten, moments in microseconds, days.
    Whole(i128),
    Double(f64),
    Text(Vec<char>),
    Bool(bool),
}

pub(super) type PlainRow = Vec<Option<Plain>>;

/// What values there are of a type, and how JSON spells them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Small,
    Whole,
    /// Times ten to this.
    Scaled(u32),
    Moment,
    Day,
    Clock,
    Text,
    Uuid,
    Bool,
    Double,
}

const DAY: i128 = 86_400_000_000;
/// Before the epoch, around it, and the ends of time; two lie within one millisecond.
const MOMENTS: [i128; 12] = [
    -62_135_596_800_000_000,
    -62_135_596_799_999_999,
    -1_000_001,
    -1_000,
    -999,
    -1,
    0,
    1,
    999,
    1_000,
    1_772_359_200_500_001,
    253_402_300_799_999_999,
];
const TEXTS: [&str; 16] = [
    "", " ", "a", "A", "ab", "Z", "a'b", "a\\\"b%", "ä", "é", "e\u{301}", "ß", "中", "\u{ffff}",
    "😀", "zz",
];

impl Kind {
    /// A value; few differ, so that some are equal.
    pub(super) fn draw(self, rng: &mut Rng) -> Plain {
        let one_of = |rng: &mut Rng, among: &[i128]| among[rng.below(among.len() as u64) as usize];
        match self {
            Kind::Small => Plain::Whole(one_of(rng, &[-32_768, -1, 0, 1, 9, 10, 32_767])),
            Kind::Whole => {
                let (least, greatest) = (i128::from(i64::MIN), i128::from(i64::MAX));
                let near = (1 << 53) + 1;
                Plain::Whole(one_of(
                    rng,
                    &[
                        least,
                        least + 1,
                        -near,
                        -10,
                        -9,
                        0,
                        9,
                        10,
                        near - 1,
                        near,
                        greatest - 1,
                        greatest,
                    ],
                ))
            }
            // Beyond a double, and equal as one.
            Kind::Scaled(6) => {
                let long = 123_456_789_012_345_678_901_234_567_890_i128;
                Plain::Whole(one_of(
                    rng,
                    &[-long - 1, -long, -2_000_000, -1, 0, 1, 500_000, 10_000_000, long, long + 1],
                ))
            }
            Kind::Scaled(_) => {
                Plain::Whole(one_of(rng, &[-99_999, -1_000, -950, -1, 0, 1, 200, 1_000, 999_999]))
            }
            Kind::Moment => Plain::Whole(one_of(rng, &MOMENTS)),
            Kind::Day => Plain::Whole(one_of(rng, &[-719_162, -1, 0, 1, 20_512, 2_932_896])),
            Kind::Clock => Plain::Whole(one_of(rng, &[0, 1, 500_000, 1_000_000, DAY - 1])),
            Kind::Text => {
                let text = TEXTS[rng.below(TEXTS.len() as u64) as usize];
                Plain::Text(text.chars().collect())
            }
            Kind::Uuid => {
                let digits = ["0", "9", "a", "f"];
                let digit = digits[rng.below(4) as usize];
                let text = format!("0000000{digit}-0000-4000-8000-00000000000{digit}");
                Plain::Text(text.chars().collect())
            }
            Kind::Bool => Plain::Bool(rng.chance(500)),
            Kind::Double => {
                let all = [-1e30, -2.5, -0.25, 0.0, 0.25, 0.5, 3.0, 1e10, 1e30];
                Plain::Double(f64::from(all[rng.below(9) as usize] as f32))
            }
        }
    }

    /// A value as JSON.
    pub(super) fn json(self, value: &Option<Plain>) -> String {
        match (self, value) {
            (_, None) => "null".to_owned(),
            (_, Some(Plain::Text(text))) => {
                format!(
                    "\"{}\"",
                    text.iter().collect::<String>().replace('\\', "\\\\").replace('"', "\\\"")
                )
            }
            (_, Some(Plain::Bool(bool))) => bool.to_string(),
            (_, Some(Plain::Double(double))) => format!("{double:?}"),
            (Kind::Scaled(digits), Some(Plain::Whole(n))) => {
                let unit = 10_u128.pow(digits);
                let sign = if *n < 0 { "-" } else { "" };
                let (whole, rest) = (n.unsigned_abs() / unit, n.unsigned_abs() % unit);
                format!("{sign}{whole}.{rest:0width$}", width = digits as usize)
            }
            (Kind::Moment, Some(Plain::Whole(micros))) => {
                let (day, clock) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
                format!("\"{}T{}Z\"", date(day), time(clock))
            }
            (Kind::Day, Some(Plain::Whole(day))) => format!("\"{}\"", date(*day)),
            (Kind::Clock, Some(Plain::Whole(clock))) => format!("\"{}\"", time(*clock)),
            (_, Some(Plain::Whole(n))) => n.to_string(),
        }
    }
}

fn time(micros: i128) -> String {
    let seconds = micros / 1_000_000;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:06}", micros % 1_000_000)
}

/// The calendar's day, counted from 1970-01-01.
fn date(day: i128) -> String {
    let leap = |year: i128| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // Days since 0001-01-01, counted off by four hundred years first.
    let mut left = day + 719_162;
    let mut year = 1 + left / 146_097 * 400;
    left %= 146_097;
    while left >= 365 + i128::from(leap(year)) {
        left -= 365 + i128::from(leap(year));
        year += 1;
    }
    let february = 28 + i128::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", left + 1)
}

/// The order of two values; null is the greatest.
fn order(one: &Option<Plain>, other: &Option<Plain>) -> Ordering {
    match (one, other) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => compare(one, other),
    }
}

fn compare(one: &Plain, other: &Plain) -> Ordering {
    match (one, other) {
        (Plain::Whole(one), Plain::Whole(other)) => one.cmp(other),
        (Plain::Double(one), Plain::Double(other)) => one.partial_cmp(other).unwrap(),
        (Plain::Text(one), Plain::Text(other)) => one.cmp(other),
        (Plain::Bool(one), Plain::Bool(other)) => one.cmp(other),
        _ => panic!("values of two types"),
    }
}

/// The order of two rows by one column.
pub(super) fn by(one: &PlainRow, other: &PlainRow, column: usize, descending: bool) -> Ordering {
    let ascending = order(&one[column], &other[column]);
    if descending { ascending.reverse() } else { ascending }
}

/// A filter.
#[derive(Clone, Debug)]
pub(super) enum Want {
    And(Vec<Want>),
    Or(Vec<Want>),
    Not(Box<Want>),
    In(usize, Vec<Option<Plain>>),
    Side(usize, Side, Plain),
}

impl Want {
    /// Any filter over columns of these kinds.
    pub(super) fn draw(rng: &mut Rng, kinds: &[Kind], depth: u64) -> Want {
        let inner = |rng: &mut Rng| {
            let count = rng.below(3) + u64::from(depth > 0);
            (0..count).map(|_| Want::draw(rng, kinds, depth - 1)).collect::<Vec<Want>>()
        };
        match rng.below(if depth == 0 { 2 } else { 5 }) {
            0 => {
                let column = rng.below(kinds.len() as u64) as usize;
                let value = |rng: &mut Rng| (!rng.chance(200)).then(|| kinds[column].draw(rng));
                let values = (0..rng.below(4)).map(|_| value(rng)).collect();
                Want::In(column, values)
            }
            1 => {
                let sides = [Side::Less, Side::LessOrEqual, Side::Greater, Side::GreaterOrEqual];
                let column = rng.below(kinds.len() as u64) as usize;
                Want::Side(column, sides[rng.below(4) as usize], kinds[column].draw(rng))
            }
            2 => Want::And(inner(rng)),
            3 => Want::Or(inner(rng)),
            _ => Want::Not(Box::new(Want::draw(rng, kinds, depth - 1))),
        }
    }

    pub(super) fn holds(&self, row: &PlainRow) -> bool {
        match self {
            Want::And(list) => list.iter().all(|want| want.holds(row)),
            Want::Or(list) => list.iter().any(|want| want.holds(row)),
            Want::Not(inner) => !inner.holds(row),
            Want::In(column, values) => {
                values.iter().any(|value| order(&row[*column], value) == Ordering::Equal)
            }
            Want::Side(column, side, value) => row[*column].as_ref().is_some_and(|of| {
                let order = compare(of, value);
                match side {
                    Side::Less => order == Ordering::Less,
                    Side::LessOrEqual => order != Ordering::Greater,
                    Side::Greater => order == Ordering::Greater,
                    Side::GreaterOrEqual => order != Ordering::Less,
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_the_calendars() {
        for (day, text) in [
            (-719_162, "0001-01-01"),
            (-1, "1969-12-31"),
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (20_512, "2026-02-28"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(date(day), text);
        }
    }
}
