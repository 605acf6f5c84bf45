//! Rows that are deleted by the clock.
//!
//! The clock decides nothing by itself. A target keeps a [`Horizon`] for each [`Rule`] that was ever asked of it, in its books
//! and not in a generation's. It only goes forward, and it is durable before anything is done by it: rows whose
//! column lies before it are deleted, and events of such rows are left alone. So whoever knows the horizon, or an older one,
//! comes to the same rows at and behind it: those are of events that no horizon has passed.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::column::ColumnType;
use crate::error::Result;
use crate::model::Key;
use crate::time::{Date, Timestamp};
use crate::value::Value;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// `expire`: rows go once a key column's moment lies further back than `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The column's name.
    pub field: Arc<str>,
    /// Its place among the model's columns.
    pub column: usize,
    /// Its place in the key.
    pub at: usize,
    /// Milliseconds.
    pub after: i64,
}

/// As the books name it, and as it is told apart from another rule of the same target.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} ms", self.field, self.after)
    }
}

impl Rule {
    /// The column that wants an index of its own: the first of the key is found by that of the key.
    #[must_use]
    pub fn indexed(&self) -> Option<usize> {
        (self.at > 0).then_some(self.column)
    }

    /// Whether a row of this key is gone, or never to be made.
    #[must_use]
    pub fn has_passed(&self, horizon: Horizon, key: &Key) -> bool {
        key.values().get(self.at).is_some_and(|value| horizon.is_past(value))
    }
}

/// Rows of earlier moments are deleted: milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Horizon(pub i64);

impl Horizon {
    /// The least value of a column of this type that stays: a date is its first moment in UTC. None where all stay, or the
    /// type has no moments.
    #[must_use]
    pub fn bound(self, ty: &ColumnType) -> Option<Value> {
        match ty {
            ColumnType::TimestampTz => Timestamp::from_millis(self.0).map(Value::Timestamp),
            ColumnType::Date => {
                let days = self.0.div_euclid(MILLIS_PER_DAY);
                let days = days + i64::from(self.0.rem_euclid(MILLIS_PER_DAY) > 0);
                i32::try_from(days).ok().and_then(Date::from_days).map(Value::Date)
            }
            _ => None,
        }
    }

    /// Whether it has passed this moment or date.
    fn is_past(self, value: &Value) -> bool {
        match value {
            Value::Timestamp(moment) => moment.micros() < self.0.saturating_mul(1_000),
            Value::Date(date) => i64::from(date.days()) * MILLIS_PER_DAY < self.0,
            _ => false,
        }
    }
}

/// As a moment in RFC 3339.
impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millis(self.0) {
            Some(moment) => moment.fmt(f),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// What the store says of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The horizon of the rule; none where there has been none yet.
    pub horizon: Option<Horizon>,
    /// The store's own clock, in milliseconds since the epoch; the latest of all where it has none.
    pub now: i64,
}

/// The horizon of a target's rule, which all of its generations share.
#[async_trait]
pub trait Horizons: Send + Sync {
    /// The horizon, and the store's clock.
    ///
    /// # Errors
    /// Where the target has not been opened; class Config where it is another connector's.
    async fn look(&self) -> Result<Look>;

    /// Moves the horizon forward to `to`, durably. Returns where it is: where someone was faster, behind `to`.
    ///
    /// # Errors
    /// As of [`Horizons::look`].
    async fn advance(&self, to: Horizon) -> Result<Horizon>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_past_where_it_lies_before_the_bound() {
        let (stamp, date) = (ColumnType::TimestampTz, ColumnType::Date);
        let moments = ["1969-12-31T23:59:59.9995Z", "1970-01-02T00:00:00Z", "2026-03-01T10:00:00Z"];
        let dates = ["1969-12-31", "1970-01-01", "1970-01-02", "2026-03-01"];
        for at in [-86_400_001, -86_400_000, -1, 0, 1, 86_399_999, 86_400_000, 86_400_001] {
            let horizon = Horizon(at);
            for (ty, texts) in [(&stamp, &moments[..]), (&date, &dates[..])] {
                let bound = horizon.bound(ty).unwrap();
                for text in texts {
                    let value = ty.coerce(Value::text(text)).unwrap();
                    assert_eq!(horizon.is_past(&value), value < bound, "{text} at {at}");
                }
            }
        }
        assert_eq!(Horizon(i64::MIN).bound(&stamp), None, "all stay");
        assert!(!Horizon(i64::MAX).is_past(&Value::Null));
    }

    #[test]
    fn a_horizon_shows_as_a_moment() {
        assert_eq!(Horizon(1_500).to_string(), "1970-01-01T00:00:01.5Z");
    }
}
