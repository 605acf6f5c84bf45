//! Rows that the clock deletes: two workers whose clocks differ, go on and back, a horizon in the books, and somebody who verifies.
//!
//! Whether a row is past is the real [`Rule::has_passed`](foldline_api::expiry::Rule::has_passed). The bound: the fields of [`Expire`]. The fence is another model's:
//! either worker may fold what comes next.

use std::sync::Arc;

use foldline_api::expiry::{self, Horizon};
use foldline_api::model::Key;
use foldline_api::time::Timestamp;
use foldline_api::value::Value;
use stateright::{Model, Property};

const HOURS: usize = 3;
const HOUR_MS: i64 = 3_600_000;

/// A rule that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The horizon only goes forward (`Horizons::advance`).
    Forward,
    /// Nothing follows from a horizon that the books do not have (`Expiry::look`).
    DurableFirst,
    /// All rows of an event have the same moment (`Compiler::several_moments`).
    OneMoment,
    /// Whoever judges rows knows a horizon that is no older than they (`Snapshot::books`).
    HorizonAfterRows,
}

/// The model and its bound.
#[derive(Clone, Debug)]
pub struct Expire {
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// How often a clock may go back.
    pub backs: u8,
    /// How often a worker may crash.
    pub crashes: u8,
}

/// How often each hour was counted; 0 where it has no row.
type Rows = [u8; HOURS];

/// Somebody who verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// Nobody.
    Idle,
    /// The books were read, with this horizon.
    Books(u8),
    /// Rows and position were read after them.
    Rows(u8, Rows, usize),
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// To where each worker's clock would move the horizon, in hours.
    clocks: [u8; 2],
    /// In the books.
    horizon: u8,
    /// What each worker has read of it.
    known: [Option<u8>; 2],
    position: usize,
    rows: Rows,
    reader: Reader,
    /// A row was called wrong that is right.
    accused: bool,
    backs: u8,
    crashes: u8,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A worker's clock goes on by an hour.
    Tick(usize),
    /// It is set back.
    Back(usize),
    /// A worker looks: `Expiry::look`.
    Look(usize),
    /// It folds the next event: `Folder::fold_record`.
    Fold(usize),
    /// It deletes what has expired: `Task::write_expired`.
    Sweep(usize),
    /// It is killed, and forgets what it has read.
    Crash(usize),
    /// Somebody verifies: the books, then the rows, then the verdict.
    Verify,
}

fn is_past(horizon: u8, hour: usize) -> bool {
    let rule = expiry::Rule { field: Arc::from("hour"), column: 0, at: 0, after: 0 };
    let millis = i64::try_from(hour).unwrap_or(i64::MAX) * HOUR_MS;
    let moment = Timestamp::from_millis(millis).map_or(Value::Null, Value::Timestamp);
    rule.has_passed(Horizon(i64::from(horizon) * HOUR_MS), &Key::of(moment))
}

/// The hours that each event counts. One of two hours is bad where the first has a row.
fn events(without: Option<Rule>) -> &'static [&'static [usize]] {
    if without == Some(Rule::OneMoment) {
        &[&[0], &[0, 1], &[2]]
    } else {
        &[&[0], &[1], &[0], &[2]]
    }
}

/// Applies an event to what the horizon has not passed.
fn apply(event: &[usize], horizon: u8, rows: &mut Rows) {
    let hours: Vec<usize> = event.iter().copied().filter(|hour| !is_past(horizon, *hour)).collect();
    let bad = event.len() > 1 && hours.contains(&event[0]) && rows[event[0]] > 0;
    if !bad {
        hours.iter().for_each(|hour| rows[*hour] += 1);
    }
}

impl Expire {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Whether these rows are what a fold without a clock gives, less what the horizon has passed.
    fn is_exact(&self, rows: &Rows, position: usize, horizon: u8) -> bool {
        let mut plain = Rows::default();
        events(self.without)[..position].iter().for_each(|event| apply(event, 0, &mut plain));
        (0..HOURS).all(|hour| is_past(horizon, hour) || rows[hour] == plain[hour])
    }
}

impl Model for Expire {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            clocks: [0; 2],
            horizon: 0,
            known: [None; 2],
            position: 0,
            rows: Rows::default(),
            reader: Reader::Idle,
            accused: false,
            backs: self.backs,
            crashes: self.crashes,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..2 {
            actions.extend([Action::Tick(at), Action::Look(at)]);
            if state.backs > 0 {
                actions.push(Action::Back(at));
            }
            if state.known[at].is_some() {
                actions.extend([Action::Fold(at), Action::Sweep(at)]);
                if state.crashes > 0 {
                    actions.push(Action::Crash(at));
                }
            }
        }
        actions.push(Action::Verify);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick(at) if usize::from(state.clocks[at]) < HOURS => state.clocks[at] += 1,
            Action::Tick(_) => return None,
            Action::Back(at) => {
                state.clocks[at] = state.clocks[at].checked_sub(1)?;
                state.backs -= 1;
            }
            Action::Look(at) => {
                let due = state.clocks[at];
                let kept = if self.keeps(Rule::Forward) { state.horizon } else { 0 };
                state.horizon = kept.max(due);
                state.known[at] = Some(state.horizon);
            }
            Action::Fold(at) => {
                let event = events(self.without).get(state.position)?;
                apply(event, state.known[at]?, &mut state.rows);
                state.position += 1;
            }
            Action::Sweep(at) => {
                let durable = self.keeps(Rule::DurableFirst);
                let horizon = if durable { state.known[at]? } else { state.clocks[at] };
                for (hour, row) in state.rows.iter_mut().enumerate() {
                    *row = if is_past(horizon, hour) { 0 } else { *row };
                }
            }
            Action::Crash(at) => {
                state.known[at] = None;
                state.crashes -= 1;
            }
            Action::Verify => {
                state.reader = match state.reader {
                    Reader::Idle => Reader::Books(state.horizon),
                    Reader::Books(horizon) => Reader::Rows(horizon, state.rows, state.position),
                    Reader::Rows(before, rows, position) => {
                        let after = self.keeps(Rule::HorizonAfterRows);
                        let horizon = if after { state.horizon } else { before };
                        state.accused |= !self.is_exact(&rows, position, horizon);
                        Reader::Idle
                    }
                };
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is left is exact", |model: &Expire, state: &State| {
                model.is_exact(&state.rows, state.position, state.horizon)
            }),
            Property::always("no row is accused that is right", |_, state: &State| !state.accused),
            Property::sometimes(
                "all is folded and one hour is left",
                |model: &Expire, state: &State| {
                    let all = events(model.without).len();
                    state.position == all && state.rows[..2] == [0, 0] && state.rows[2] > 0
                },
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries};

    use super::*;

    fn bounded(without: Option<Rule>) -> Expire {
        Expire { without, backs: 1, crashes: 1 }
    }

    #[test]
    fn what_the_horizon_has_not_passed_is_the_plain_fold() {
        let checker = bounded(None).checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        println!("{} states", checker.unique_state_count());
    }

    #[test]
    fn each_rule_is_needed() {
        let rules = [Rule::Forward, Rule::DurableFirst, Rule::OneMoment, Rule::HorizonAfterRows];
        for rule in rules {
            let checker = bounded(Some(rule)).checker().threads(2);
            let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
            let found = ["what is left is exact", "no row is accused that is right"];
            let found = found.into_iter().find_map(|name| checker.discovery(name));
            let path = found.unwrap_or_else(|| panic!("it holds without {rule:?}"));
            println!("without {rule:?}:\n{path}");
        }
    }
}
