//! `foldline test`: the cases that a projection carries.
//!
//! Topics have no order among each other, so a case runs in every interleaving that keeps each
//! topic's own order, up to a bound. In reading order: this file (running a case), `record` (a
//! test's record as the event a converter would make), `orders` (interleavings), `compare` (rows
//! expected and found), `report` (for humans and scripts).

mod compare;
mod orders;
mod record;
mod report;

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

/// At most this many interleavings of one case are tried.
pub const ORDERS_MAX: usize = 2_000;

/// Runs a projection's tests, in config order.
#[must_use]
pub fn run(projection: &Projection, tests: &[Located<TestConfig>]) -> Vec<TestOutcome> {
    tests.iter().map(|test| run_one(projection, test)).collect()
}

/// One record of a case, decoded.
struct Given {
    topic: String,
    /// The event and what could be decided of it; or why it is bad already.
    event: Result<(Event, Prepared), BadRecord>,
}

/// What one event did: rows by key as they are after it.
enum Done {
    Applied(Vec<(Key, Option<Row>)>),
    Filtered,
    Bad(String),
}

fn run_one(projection: &Projection, test: &Located<TestConfig>) -> TestOutcome {
    let case = &test.value;
    let mut outcome = TestOutcome::new(projection.name(), &test.path, &case.name);
    let (given, expected) = match read(projection, case) {
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
        let (rows, trace) = fold(projection, &given, &order);
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
    case: &TestConfig,
) -> Result<(Vec<Given>, Vec<ExpectedRow>), Vec<Difference>> {
    let mut invalid = Vec::new();
    let mut given = Vec::with_capacity(case.given.len());
    let mut offsets: HashMap<String, i64> = HashMap::default();
    for at in &case.given {
        match record::event(projection, &at.value) {
            Ok(record::Given::Bad(topic, reason)) => {
                let event = Err(bad("value_converter", reason));
                given.push(Given { topic: topic.to_string(), event });
            }
            Ok(record::Given::Event(event)) => {
                let mut event = *event;
                let offset = offsets.entry(event.topic.to_string()).or_insert(0);
                event.offset = *offset;
                *offset += 1;
                let topic = event.topic.to_string();
                let event = projection.prepare(&event).map(|prepared| (event, prepared));
                given.push(Given { topic, event });
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

struct Rows(HashMap<Key, Row>);

impl States for Rows {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

fn fold(
    projection: &Projection,
    given: &[Given],
    order: &[usize],
) -> (HashMap<Key, Row>, Vec<Done>) {
    let mut rows = Rows(HashMap::default());
    let mut trace = Vec::with_capacity(order.len());
    for record in order.iter().filter_map(|&at| given.get(at)) {
        let effects = match &record.event {
            Ok((event, prepared)) => projection.apply(event, prepared, &rows),
            Err(bad) => Err(bad.clone()),
        };
        trace.push(match effects {
            Err(bad) => Done::Bad(bad.reason),
            Ok(Effects::Filtered { .. }) => Done::Filtered,
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in &writes {
                    match row {
                        Some(row) => rows.0.insert(key.clone(), row.clone()),
                        None => rows.0.remove(key),
                    };
                }
                Done::Applied(writes.into_vec())
            }
        });
    }
    (rows.0, trace)
}
