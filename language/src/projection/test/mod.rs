//! `foldline test`: the cases that a projection carries.
//!
//! Topics have no order among each other, so a case runs in every interleaving that keeps each
//! topic's own order, up to a bound. In reading order: this file (running a case), `record` (a
//! test's record as the event a converter would make), `orders` (interleavings), `compare` (rows
//! expected and found), `report` (for humans and scripts).

mod compare;
mod joined;
mod orders;
mod record;
mod report;

use std::sync::Arc;

use foldline_api::model::{Key, Row};

#[cfg(test)]
pub(super) use record::event_of_json;
pub use report::{Difference, Failure, TestOutcome, Traced};

use super::prepare::bad;
use super::{BadRecord, Effects, Prepared, Projection, StateRef, States};
use crate::config::projection::{Located, TestConfig};
use crate::event::Event;
use compare::ExpectedRow;
use hashbrown::HashMap;
use indexmap::IndexMap;
use joined::Joined;

/// At most this many interleavings of one case are tried.
pub const ORDERS_MAX: usize = 2_000;

/// Runs the tests of a projection that looks nothing up, in config order.
#[must_use]
pub fn run(projection: &Projection, tests: &[Located<TestConfig>]) -> Vec<TestOutcome> {
    tests.iter().map(|test| run_one(projection, &Joined::default(), test)).collect()
}

/// Runs a projection's tests, in config order, with the records of the projections that it looks up: `all` has them.
#[must_use]
pub fn run_among(
    projection: &Arc<Projection>,
    all: &IndexMap<String, Arc<Projection>>,
    tests: &[Located<TestConfig>],
) -> Vec<TestOutcome> {
    let joined = Joined::new(projection, all);
    tests.iter().map(|test| run_one(projection, &joined, test)).collect()
}

/// What the records of a case come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The rows in JSON, in no order.
    pub rows: Vec<String>,
    /// How many records were bad.
    pub bad: u64,
    /// How many were filtered.
    pub filtered: u64,
}

/// Folds the records of a case in the order that is written; what it expects is not looked at.
///
/// # Errors
/// What about the case is wrong.
pub fn folded(projection: &Projection, case: &TestConfig) -> Result<Folded, String> {
    let joined = Joined::default();
    let (given, _) = read(projection, &joined, case).map_err(|found| format!("{found:?}"))?;
    let order: Vec<usize> = (0..given.len()).collect();
    let (rows, trace) = fold(projection, &joined, &given, &order);
    let count = |fits: fn(&Done) -> bool| trace.iter().filter(|done| fits(done)).count() as u64;
    Ok(Folded {
        rows: rows.values().map(|row| report::row_json(projection, row)).collect(),
        bad: count(|done| matches!(done, Done::Bad(_))),
        filtered: count(|done| matches!(done, Done::Filtered)),
    })
}

/// An event with what could be decided of it; or why it is bad already.
type Ready = Result<(Event, Prepared), BadRecord>;

/// One record of a case, decoded.
struct Given {
    topic: String,
    /// For each projection that reads the topic: which of those that are looked up, none for the one that is tested,
    /// and the event with what could be decided of it; or why it is bad already.
    events: Vec<(Option<usize>, Ready)>,
}

/// What one event did: rows by key as they are after it.
enum Done {
    Applied(Vec<(Key, Option<Row>)>),
    Filtered,
    Bad(String),
}

fn run_one(projection: &Projection, joined: &Joined, test: &Located<TestConfig>) -> TestOutcome {
    let case = &test.value;
    let mut outcome = TestOutcome::new(projection.name(), &test.path, &case.name);
    let (given, expected) = match read(projection, joined, case) {
        Ok(read) => read,
        Err(invalid) => {
            return outcome.fail(Failure { differences: invalid, ..Failure::default() });
        }
    };
    let topics: Vec<&str> = given.iter().map(|given| given.topic.as_str()).collect();
    let orders = orders::orders(&topics, case.order_given, ORDERS_MAX);
    outcome.possible = orders.possible;
    for order in orders.tried {
        outcome.tried += 1;
        let (rows, trace) = fold(projection, joined, &given, &order);
        let mut differences = compare::counts(case, &trace);
        differences.extend(compare::rows(projection, &expected, &rows, &order, &trace));
        if !differences.is_empty() {
            let events = report::traced(projection, &given, &order, &trace);
            let order = order.iter().map(|at| at + 1).collect();
            return outcome.fail(Failure { order, differences, events });
        }
    }
    outcome
}

fn read(
    projection: &Projection,
    joined: &Joined,
    case: &TestConfig,
) -> Result<(Vec<Given>, Vec<ExpectedRow>), Vec<Difference>> {
    let mut invalid = Vec::new();
    let mut given = Vec::with_capacity(case.given.len());
    let mut offsets: HashMap<String, i64> = HashMap::default();
    for at in &case.given {
        let readers = joined.readers(projection, at.value.topic.as_deref());
        let read = readers.into_iter().map(|(which, reader)| {
            let (topic, event) = match record::event(reader, &at.value)? {
                record::Given::Bad(topic, reason) => {
                    (topic.to_string(), Err(bad("value_converter", reason)))
                }
                record::Given::Event(event) => (event.topic.to_string(), Ok(event)),
            };
            let offset = offsets.get(&topic).copied().unwrap_or(0);
            let event = event.and_then(|mut event| {
                event.offset = offset;
                reader.prepare(&event).map(|prepared| (*event, prepared))
            });
            Ok((topic, (which, event)))
        });
        match read.collect::<Result<Vec<_>, String>>() {
            Ok(read) => {
                let (mut topics, events): (Vec<String>, Vec<_>) = read.into_iter().unzip();
                let Some(topic) = topics.pop() else { continue };
                *offsets.entry(topic.clone()).or_insert(0) += 1;
                given.push(Given { topic, events });
            }
            Err(message) => invalid.push(Difference::Invalid { path: at.path.clone(), message }),
        }
    }
    let mut expected = Vec::with_capacity(case.expect.len());
    for at in &case.expect {
        match compare::expected(projection, &at.value) {
            Ok(row) => expected.push(row),
            Err(message) => invalid.push(Difference::Invalid { path: at.path.clone(), message }),
        }
    }
    if invalid.is_empty() { Ok((given, expected)) } else { Err(invalid) }
}

#[derive(Default)]
struct Rows(HashMap<Key, Row>);

impl States for Rows {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

impl Rows {
    /// Folds one event.
    fn fold(&mut self, projection: &Projection, event: &Ready) -> Done {
        let effects = match event {
            Ok((event, prepared)) => projection.apply(event, prepared, self),
            Err(bad) => Err(bad.clone()),
        };
        match effects {
            Err(bad) => Done::Bad(bad.reason),
            Ok(Effects::Filtered { .. }) => Done::Filtered,
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in &writes {
                    match row {
                        Some(row) => self.0.insert(key.clone(), row.clone()),
                        None => self.0.remove(key),
                    };
                }
                Done::Applied(writes.into_vec())
            }
        }
    }
}

fn fold(
    projection: &Projection,
    joined: &Joined,
    given: &[Given],
    order: &[usize],
) -> (HashMap<Key, Row>, Vec<Done>) {
    let mut rows = Rows::default();
    let mut others = joined.rows();
    let mut trace = Vec::with_capacity(order.len());
    for record in order.iter().filter_map(|&at| given.get(at)) {
        let mut done = None;
        for (which, event) in &record.events {
            let of_other = which.and_then(|at| joined.fold(at, &mut others, event));
            let one = of_other.unwrap_or_else(|| rows.fold(projection, event));
            done = Some(Done::both(done, one));
        }
        trace.extend(done);
    }
    joined.complete(&mut rows.0, &others);
    (rows.0, trace)
}

impl Done {
    /// What became of a record that two projections read: bad where it is to one of them, and filtered where it is to both.
    fn both(before: Option<Done>, now: Done) -> Done {
        match (before, now) {
            (None, done) | (Some(Done::Filtered), done) | (Some(done), Done::Filtered) => done,
            (Some(Done::Bad(reason)), _) | (Some(_), Done::Bad(reason)) => Done::Bad(reason),
            (Some(Done::Applied(mut writes)), Done::Applied(more)) => {
                writes.extend(more);
                Done::Applied(writes)
            }
        }
    }
}
