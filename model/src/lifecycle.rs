//! The lifecycle of a target in a store without transactions, decided by `foldline_api::lifecycle::transition`: a command is one
//! compare-and-set of the record, and what follows from it in the store is done step by step, by whoever reads the record.
//!
//! Checked over crashes between any two steps, two workers and commands in any order. The bound: the fields of [`Lifecycle`].

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldline_api::binding::{Binding, Found};
use foldline_api::lifecycle::{Act, Command, Facts, Outcome, Record, transition};
use foldline_api::model;
use foldline_api::rebuild::{By, Step};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{DesiredState, OnChange, StoredPosition, TargetSpec};
use stateright::{Model, Property};

/// A rule that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The steps are derived again from the record, by whoever reads it.
    Derived,
    /// The record is written before the store is touched, if it is still what was read.
    Compared,
    /// A rollback carries the generation that it expects to be live.
    Expected,
    /// Epochs are raised before a copy counts as taken.
    Raised,
}

/// The model and its bound.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// How many commands are given.
    pub commands: u8,
    /// How often a worker may crash.
    pub crashes: u8,
    /// How often a copy of the live generation takes its place, as a restore does.
    pub copies: u8,
}

/// What the books say: the record, and what follows from it and is not known to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    record: Record,
    due: Vec<Act>,
    version: u8,
}

impl Hash for Books {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{self:?}").hash(state);
    }
}

/// What a worker is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// The books as it read or wrote them.
    books: Books,
    /// So many of the due steps it has done.
    done: usize,
    /// What it decided and has still to write.
    next: Option<Books>,
    /// Whether that is a rollback.
    rolls_back: bool,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    books: Books,
    /// Where the name leads.
    name: u64,
    /// The generations that stand in the store.
    stand: BTreeSet<u64>,
    workers: [Option<Work>; 2],
    /// The second generation was seen live, and two operators asked to go back.
    asked: bool,
    /// So many of their requests are still to be carried out, each by either worker.
    rollbacks: u8,
    went_forth: bool,
    commands: u8,
    crashes: u8,
    copies: u8,
    /// What stands under the name of the first generation: which copy of it.
    copy: u8,
    epoch: u8,
    /// The epoch under which a task took a partition before the last copy was made; it may wake at any time.
    zombie: Option<u8>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A worker reads the books and decides what a command does.
    Decide(usize, Command),
    /// It writes its decision: `Books::put_target`.
    Write(usize),
    /// It reads the books, to go on with what is due: `ElasticsearchTarget::settle`.
    Read(usize),
    /// It does the next due step.
    Perform(usize),
    /// It writes that nothing is due any more.
    Settle(usize),
    /// It dies.
    Crash(usize),
    /// Someone restores the first generation from a backup, where a task still holds a partition.
    Copy,
}

fn spec() -> TargetSpec {
    TargetSpec {
        worker: "w".to_owned(),
        connector: "c".to_owned(),
        group: "g".to_owned(),
        log: "log".to_owned(),
        target: "t".to_owned(),
        model: Arc::new(model::Model { columns: Vec::new(), key: Vec::new(), indexes: Vec::new() }),
        joins: None,
        fingerprint: "v1".to_owned(),
        projection: Default::default(),
        on_change: OnChange::Rebuild,
        auto_create: true,
        mapping: None,
        settings: None,
        expire: None,
    }
}

impl Lifecycle {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// What a command makes of the books; none where it changes nothing.
    fn decided(state: &State, command: Command) -> Option<Books> {
        let books = &state.books;
        let found = Found { physical: state.physical(), has_rows: true };
        let place = |to: i64| StoredPosition {
            partition: TopicPartition::new("events", 0),
            topic_id: None,
            beginning: Position(0),
            position: Position(to),
            epoch: 0,
        };
        let copies = state.books.record.beside.iter().map(|it| (it.number, it.physical.clone()));
        let facts = Facts {
            found: Some(found),
            reached: true,
            copies: copies.collect(),
            positions: vec![place(1)],
            ..Facts::default()
        };
        match transition(Some(&books.record), &spec(), &facts, command) {
            Ok(Outcome::Changes(change)) => {
                let mut record = change.record;
                if command != Command::Adopt {
                    for beside in &mut record.beside {
                        beside.physical = state.physical_of(beside.number);
                    }
                    record.binding.physical = state.physical_of(record.binding.generation);
                }
                Some(Books { record, due: change.steps, version: books.version + 1 })
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn commands(&self, state: &State) -> Vec<Command> {
        let record = &state.books.record;
        if state.physical() != record.binding.physical {
            // A connector whose target was replaced has failed.
            return vec![Command::Adopt];
        }
        let mut all = vec![Command::Build(By::Operator), Command::DropOld(1)];
        if let Some(build) = record.build() {
            let number = build.number;
            let steps = [Step::Follow, Step::Hold { patient: true }, Step::Swap];
            all.extend(steps.map(|step| Command::Step(number, step)));
            all.push(Command::Cancel(Some(number)));
        }
        all
    }
}

impl State {
    /// What stands under the name.
    fn physical(&self) -> String {
        self.physical_of(self.name)
    }

    fn physical_of(&self, generation: u64) -> String {
        match (generation, self.copy) {
            (1, copy) if copy > 0 => format!("copy {copy}"),
            (other, _) => other.to_string(),
        }
    }

    /// Whether a task from before the copy could write to it.
    fn is_fenced(&self) -> bool {
        let taken = self.physical() == self.books.record.binding.physical;
        let open = self.books.due.is_empty() && taken;
        self.copy == 0 || !open || self.zombie != Some(self.epoch)
    }

    fn perform(&mut self, act: Act, raises: bool) {
        match act {
            Act::Take => self.epoch += u8::from(raises),
            Act::Make(number) => drop(self.stand.insert(number)),
            Act::Exchange { to, .. } => self.name = to,
            Act::Drop(number) => drop(self.stand.remove(&number)),
            Act::Create | Act::Adopt | Act::Check | Act::Extend | Act::Empty | Act::Finish(_) => {}
        }
    }

    /// Whether the store is what settled books say.
    fn agrees(&self) -> bool {
        let Books { record, due, .. } = &self.books;
        let besides = record.beside.iter().all(|beside| self.stand.contains(&beside.number));
        let live = record.binding.generation;
        !due.is_empty() || (self.name == live && self.stand.contains(&live) && besides)
    }
}

impl Model for Lifecycle {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let spec = spec();
        let opened = transition(None, &spec, &Facts::default(), Command::Open);
        let Ok(Outcome::Changes(change)) = opened else { return Vec::new() };
        let binding = Binding { physical: "1".to_owned(), ..change.record.binding };
        let record = Record { binding, desired: DesiredState::Running, beside: Vec::new() };
        vec![State {
            books: Books { record, due: Vec::new(), version: 0 },
            name: 1,
            stand: BTreeSet::from([1]),
            workers: [None, None],
            asked: false,
            rollbacks: 2,
            went_forth: false,
            commands: self.commands,
            crashes: self.crashes,
            copies: self.copies,
            copy: 0,
            epoch: 0,
            zombie: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let idle = state.workers == [None, None] && state.books.due.is_empty();
        if state.copies > 0 && idle && state.name == 1 && state.books.record.beside.is_empty() {
            actions.push(Action::Copy);
        }
        for at in [0, 1] {
            let Some(work) = &state.workers[at] else {
                if self.keeps(Rule::Derived) && !state.books.due.is_empty() {
                    actions.push(Action::Read(at));
                    continue;
                }
                if state.commands > 0 {
                    let commands = self.commands(state);
                    actions.extend(commands.into_iter().map(|it| Action::Decide(at, it)));
                }
                if state.asked && state.rollbacks > 0 {
                    let from = self.keeps(Rule::Expected).then_some(2);
                    actions.push(Action::Decide(at, Command::RollBack(from)));
                }
                continue;
            };
            actions.push(match &work.next {
                Some(_) => Action::Write(at),
                None if work.done < work.books.due.len() => Action::Perform(at),
                None => Action::Settle(at),
            });
            if state.crashes > 0 {
                actions.push(Action::Crash(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Decide(at, command) => {
                let next = Self::decided(&state, command)?;
                let rolls_back = matches!(command, Command::RollBack(_));
                let left = if rolls_back { &mut state.rollbacks } else { &mut state.commands };
                *left -= 1;
                let books = state.books.clone();
                state.workers[at] = Some(Work { books, done: 0, next: Some(next), rolls_back });
            }
            Action::Write(at) => {
                let work = state.workers[at].take()?;
                let next = work.next?;
                let same = work.books.version == state.books.version;
                if same || !self.keeps(Rule::Compared) {
                    state.went_forth |=
                        work.rolls_back && state.books.record.binding.generation == 1;
                    state.books = next.clone();
                    let work = Work { books: next, done: 0, next: None, rolls_back: false };
                    state.workers[at] = Some(work);
                } else if work.rolls_back {
                    // It reads again, and decides again.
                    state.rollbacks += 1;
                }
            }
            Action::Read(at) => {
                let books = state.books.clone();
                state.workers[at] = Some(Work { books, done: 0, next: None, rolls_back: false });
            }
            Action::Perform(at) => {
                let work = state.workers[at].as_mut()?;
                let act = *work.books.due.get(work.done)?;
                work.done += 1;
                // Who finds other books than it read stops.
                let same = work.books.version == last.books.version;
                if same || !self.keeps(Rule::Compared) {
                    state.perform(act, self.keeps(Rule::Raised));
                } else {
                    state.workers[at] = None;
                }
            }
            Action::Settle(at) => {
                let work = state.workers[at].take()?;
                if work.books.version == state.books.version {
                    state.books.due.clear();
                }
            }
            Action::Copy => {
                state.copies -= 1;
                state.copy += 1;
                state.zombie = Some(state.epoch);
            }
            Action::Crash(at) => {
                state.workers[at] = None;
                state.crashes -= 1;
            }
        }
        state.asked |= state.books.due.is_empty() && state.name == 2;
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("settled books are what stands", |_, state: &State| state.agrees()),
            Property::always(
                "who held a partition before the copy is fenced",
                |_, state: &State| state.is_fenced(),
            ),
            Property::always("two rollbacks do not toggle", |_, state: &State| !state.went_forth),
            Property::sometimes("a rebuilt generation is live", |_, state: &State| {
                state.books.due.is_empty() && state.name == 2
            }),
            Property::sometimes("and the first again", |_, state: &State| {
                state.books.due.is_empty() && state.name == 1 && state.rollbacks == 1
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries};

    use super::*;

    #[test]
    fn the_store_is_what_the_books_say_whoever_crashes() {
        let model = Lifecycle { without: None, commands: 6, crashes: 1, copies: 0 };
        let checker = model.checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        println!("{} states", checker.unique_state_count());
    }

    #[test]
    fn a_copy_is_taken_whoever_crashes_and_fences_who_was_there_before() {
        let model = Lifecycle { without: None, commands: 3, crashes: 2, copies: 2 };
        let checker = model.checker().threads(2).spawn_bfs().join();
        let broken =
            ["settled books are what stands", "who held a partition before the copy is fenced"];
        assert!(broken.iter().all(|name| checker.discovery(name).is_none()));
        println!("{} states", checker.unique_state_count());
    }

    #[test]
    fn each_rule_is_needed() {
        for rule in [Rule::Derived, Rule::Compared, Rule::Expected, Rule::Raised] {
            let copies = u8::from(rule == Rule::Raised);
            let model = Lifecycle { without: Some(rule), commands: 5, crashes: 1, copies };
            let checker = model.checker().threads(2);
            let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
            let broken = [
                "settled books are what stands",
                "two rollbacks do not toggle",
                "who held a partition before the copy is fenced",
            ];
            let found = broken.iter().find_map(|name| Some((name, checker.discovery(name)?)));
            let (name, path) = found.unwrap_or_else(|| panic!("it holds without {rule:?}"));
            println!("without {rule:?}, {name}:\n{path}");
        }
    }
}
