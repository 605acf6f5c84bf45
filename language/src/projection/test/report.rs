//! What became of a test, for humans and for scripts. Rows and values are JSON texts, so that no digit
//! is lost on the way.

use std::fmt;

use foldline_api::json;
use foldline_api::model::Row;
use serde::Serialize;

use super::super::Projection;
use super::{Done, Given};

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// The projection.
    pub projection: String,
    /// The test's key path.
    pub path: String,
    /// The test's name.
    pub name: String,
    /// Interleavings tried; the last of them failed where there is a failure.
    pub tried: usize,
    /// Interleavings that there are; none where they are too many to count.
    pub possible: Option<u64>,
    /// Why it failed; none where it passed.
    pub failure: Option<Failure>,
}

/// The first interleaving that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Records in the order that failed, from 1.
    pub order: Vec<usize>,
    /// What is not as expected.
    pub differences: Vec<Difference>,
    /// What each event did, in that order.
    pub events: Vec<Traced>,
}

/// Something that is not as expected. Rows and values are JSON texts, records count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The test itself cannot be read.
    Invalid {
        /// The key path.
        path: String,
        /// What is wrong there.
        message: String,
    },
    /// A number of records.
    Count {
        /// `bad` or `filtered`.
        what: &'static str,
        /// As the test says.
        expected: u64,
        /// As it came.
        found: u64,
    },
    /// A field of a row.
    Field {
        /// The row's key.
        key: String,
        /// The field.
        field: String,
        /// As the test says.
        expected: String,
        /// As it came.
        found: String,
        /// The record at which they part.
        record: Option<u64>,
    },
    /// A row that is not there.
    Missing {
        /// As the test says.
        expected: String,
        /// The record that deleted it, if one did.
        record: Option<u64>,
    },
    /// A row that the test does not name.
    Unexpected {
        /// The row's key.
        key: String,
        /// The row.
        found: String,
        /// The record that made it.
        record: Option<u64>,
    },
}

/// What one event did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Traced {
    /// The record, from 1.
    pub record: usize,
    /// Its topic.
    pub topic: String,
    /// `applied`, `filtered` or `bad`.
    pub outcome: &'static str,
    /// Why it is bad.
    pub reason: Option<String>,
    /// The rows that it wrote: key, and the row as JSON; none where it deleted it.
    pub rows: Vec<(String, Option<String>)>,
}

impl TestOutcome {
    pub(super) fn new(projection: &str, path: &str, name: &str) -> Self {
        TestOutcome {
            projection: projection.to_owned(),
            path: path.to_owned(),
            name: name.to_owned(),
            tried: 0,
            possible: Some(1),
            failure: None,
        }
    }

    pub(super) fn fail(mut self, failure: Failure) -> Self {
        self.failure = Some(failure);
        self
    }

    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    /// How many interleavings, in words; nothing where there is only one.
    fn orders(&self) -> String {
        match self.possible {
            Some(1) => String::new(),
            Some(possible) if usize::try_from(possible) == Ok(self.tried) => {
                format!(" (all {possible} orders)")
            }
            Some(possible) => format!(" ({} of {possible} orders tried)", self.tried),
            None => format!(" ({} orders tried, of more than can be counted)", self.tried),
        }
    }
}

/// A row as JSON, its fields in column order.
pub(super) fn row_json(projection: &Projection, row: &Row) -> String {
    let mut out = String::from("{");
    for (column, value) in projection.model().columns.iter().zip(row.values()) {
        if out.len() > 1 {
            out.push(',');
        }
        json::write_text(&column.name, &mut out);
        out.push(':');
        json::write(value, &mut out);
    }
    out.push('}');
    out
}

pub(super) fn traced(
    projection: &Projection,
    given: &[Given],
    order: &[usize],
    trace: &[Done],
) -> Vec<Traced> {
    let traced = |(at, done): (&usize, &Done)| {
        let topic = given.get(*at).map_or(String::new(), |given| given.topic.clone());
        let (outcome, reason, rows) = match done {
            Done::Bad(reason) => ("bad", Some(reason.clone()), Vec::new()),
            Done::Filtered => ("filtered", None, Vec::new()),
            Done::Applied(writes) => {
                let row = |row: &Row| row_json(projection, row);
                let rows = writes.iter().map(|(k, r)| (k.to_string(), r.as_ref().map(row)));
                ("applied", None, rows.collect())
            }
        };
        Traced { record: at + 1, topic, outcome, reason, rows }
    };
    order.iter().zip(trace).map(traced).collect()
}

impl fmt::Display for TestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failure) = &self.failure else {
            return write!(f, "ok   {}: {}{}", self.projection, self.name, self.orders());
        };
        write!(f, "FAIL {}: {}{}", self.projection, self.name, self.orders())?;
        write!(f, "\n  at {}", self.path)?;
        for difference in &failure.differences {
            write!(f, "\n  {difference}")?;
        }
        if failure.order.windows(2).any(|pair| matches!(pair, [a, b] if a > b)) {
            let order: Vec<String> = failure.order.iter().map(ToString::to_string).collect();
            write!(f, "\n  in the order {}:", order.join(", "))?;
        }
        for event in &failure.events {
            let blamed =
                failure.differences.iter().any(|d| d.record() == Some(event.record as u64));
            write!(f, "\n  {}{event}", if blamed { ">" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {} {} {}", self.record, self.topic, self.outcome)?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        for (key, row) in &self.rows {
            match row {
                Some(row) => write!(f, "\n      {key}: {row}")?,
                None => write!(f, "\n      {key}: deleted")?,
            }
        }
        Ok(())
    }
}

impl Difference {
    fn record(&self) -> Option<u64> {
        match self {
            Difference::Invalid { .. } | Difference::Count { .. } => None,
            Difference::Field { record, .. }
            | Difference::Missing { record, .. }
            | Difference::Unexpected { record, .. } => *record,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Invalid { path, message } => return write!(f, "{path}: {message}"),
            Difference::Count { what, expected, found } => {
                return write!(f, "{found} {what}, expected {expected}");
            }
            Difference::Field { key, field, expected, found, .. } => {
                write!(f, "row {key}: {field} is {found}, expected {expected}")?;
            }
            Difference::Missing { expected, .. } => write!(f, "no row {expected}")?,
            Difference::Unexpected { key, found, .. } => {
                write!(f, "row {key} is not expected: {found}")?;
            }
        }
        match self.record() {
            Some(record) => write!(f, " (since record {record})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_one_line_of_json() {
        let outcome =
            TestOutcome::new("orders", "projections.orders.tests[0]", "a case").fail(Failure {
                order: vec![1],
                differences: vec![Difference::Count { what: "bad", expected: 0, found: 1 }],
                events: Vec::new(),
            });
        let text = serde_json::to_string(&outcome).unwrap();
        assert!(text.contains(r#""kind":"count","what":"bad","expected":0,"found":1"#), "{text}");
        assert!(outcome.to_string().contains("1 bad, expected 0"), "{outcome}");
    }
}
