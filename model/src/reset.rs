//! The group's reset: two workers, a group of two partitions whose offsets an operator puts back to the beginning while nobody
//! runs, and a store that folds everything again once for each such reset, however many workers see it and whenever they die.
//!
//! The verdict is the real one: `foldline::reset::judge`. The bound: the fields of [`Reset`].

use foldline::reset::{self, Verdict};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::StoredPosition;
use foldline_api::source::{Commit, PartitionInfo};
use stateright::{Model, Property};

const PARTITIONS: usize = 2;

/// A rule that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing of a partition is written before the group has its mark (`Assignment::unmarked`).
    MarkBeforeWrite,
    /// A new generation is begun only in the place of the one that was looked at (the sink's `Target::rebuild`).
    OneSuccessor,
}

/// The model and its bound.
#[derive(Clone, Debug)]
pub struct Reset {
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// How often the operator resets the group.
    pub resets: u8,
    /// How often a worker may crash.
    pub crashes: u8,
    /// How often a commit for the whole group may be lost.
    pub losses: u8,
}

/// A committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offset {
    back: bool,
    /// The generation of Foldline's own mark.
    mark: Option<u8>,
}

/// What a worker is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    /// It does not run.
    Down,
    /// It has read the group and the books of this generation.
    Looked {
        /// The generation.
        generation: u8,
        /// Whether the group was reset.
        reset: bool,
    },
    /// It has begun this generation and marks the group next.
    Begun {
        /// The generation.
        generation: u8,
    },
    /// Its tasks run.
    Running {
        /// The generation.
        generation: u8,
        /// Of which partitions it knows that the group has the mark.
        marked: [bool; PARTITIONS],
    },
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    group: [Option<Offset>; PARTITIONS],
    generation: u8,
    folded: [bool; PARTITIONS],
    workers: [Worker; 2],
    resets: u8,
    /// A reset of what was folded, not obeyed yet.
    pending: bool,
    crashes: u8,
    losses: u8,
    /// A task of a worker ran although a reset waited to be obeyed.
    missed: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The operator resets the group, which Kafka allows while nobody is in it.
    Reset,
    /// A worker reads the group and the books: `Connector::look_at_group`, `reset::judge`.
    Look(usize),
    /// It begins the next generation: `Target::rebuild`, `Rebuilds::begin`.
    Begin(usize),
    /// It marks the whole group: `Connector::mark_group`.
    MarkGroup(usize),
    /// The same, refused or lost.
    LoseMark(usize),
    /// Its tasks start: `Connector::run_tasks`.
    Start(usize),
    /// A task commits a marked offset: `Assignment::take_commits`.
    Commit(usize, usize),
    /// A task folds an event of a partition: `Task::start_write`.
    Fold(usize, usize),
    /// A worker sees that another generation is live and looks again: `Connector::follow`.
    Restart(usize),
    /// A worker stops or is killed.
    Crash(usize),
}

impl Reset {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

fn place(partition: usize) -> TopicPartition {
    TopicPartition::new("t", i32::try_from(partition).unwrap_or_default())
}

impl State {
    fn verdict(&self) -> Verdict {
        let offset = |(partition, offset): (usize, &Option<Offset>)| {
            let Offset { back, mark } = (*offset)?;
            let metadata = mark.map(|generation| reset::mark(None, u64::from(generation)));
            let position = Position(if back { 0 } else { 5 });
            Some(Commit {
                partition: place(partition),
                position,
                metadata: metadata.unwrap_or_default(),
            })
        };
        let committed: Vec<Commit> = self.group.iter().enumerate().filter_map(offset).collect();
        let stored = |(partition, folded): (usize, &bool)| StoredPosition {
            partition: place(partition),
            topic_id: None,
            beginning: Position(0),
            position: Position(if *folded { 5 } else { 0 }),
            epoch: 1,
        };
        let stored: Vec<StoredPosition> = self.folded.iter().enumerate().map(stored).collect();
        let info = |partition| PartitionInfo {
            partition: place(partition),
            topic_id: None,
            low: Position(0),
            high: Position(9),
        };
        let log: Vec<PartitionInfo> = (0..PARTITIONS).map(info).collect();
        reset::judge(&committed, &stored, &log)
    }

    fn mark(&mut self, partition: usize) {
        let back = !self.folded[partition];
        self.group[partition] = Some(Offset { back, mark: Some(self.generation) });
    }

    fn nobody_runs(&self) -> bool {
        !self.workers.iter().any(|worker| matches!(worker, Worker::Running { .. }))
    }
}

impl Model for Reset {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            group: [None; PARTITIONS],
            generation: 1,
            folded: [false; PARTITIONS],
            workers: [Worker::Down; 2],
            resets: 0,
            pending: false,
            crashes: self.crashes,
            losses: self.losses,
            missed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.resets < self.resets
            && state.workers == [Worker::Down; 2]
            && state.group.iter().all(Option::is_some)
        {
            actions.push(Action::Reset);
        }
        for (at, worker) in state.workers.iter().enumerate() {
            match worker {
                Worker::Down => actions.push(Action::Look(at)),
                Worker::Looked { reset: true, .. } => actions.push(Action::Begin(at)),
                Worker::Looked { .. } => actions.push(Action::Start(at)),
                Worker::Begun { .. } => {
                    actions.push(Action::MarkGroup(at));
                    if state.losses > 0 {
                        actions.push(Action::LoseMark(at));
                    }
                }
                Worker::Running { generation, marked } => {
                    if *generation != state.generation {
                        actions.push(Action::Restart(at));
                        continue;
                    }
                    for (partition, marked) in marked.iter().enumerate() {
                        actions.push(Action::Commit(at, partition));
                        if *marked || !self.keeps(Rule::MarkBeforeWrite) {
                            actions.push(Action::Fold(at, partition));
                        }
                    }
                }
            }
            if *worker != Worker::Down && state.crashes > 0 {
                actions.push(Action::Crash(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Reset => {
                state.group = [Some(Offset { back: true, mark: None }); PARTITIONS];
                state.resets += 1;
                state.pending = state.folded.iter().any(|folded| *folded);
            }
            Action::Look(at) => {
                let (generation, reset) = (state.generation, state.verdict() == Verdict::Reset);
                state.workers[at] = Worker::Looked { generation, reset };
            }
            Action::Begin(at) => {
                let Worker::Looked { generation, .. } = state.workers[at] else { return None };
                if generation == state.generation || !self.keeps(Rule::OneSuccessor) {
                    state.generation += 1;
                    state.folded = [false; PARTITIONS];
                    state.pending = false;
                }
                state.workers[at] = Worker::Begun { generation: state.generation };
            }
            Action::MarkGroup(at) | Action::LoseMark(at) => {
                let Worker::Begun { generation } = state.workers[at] else { return None };
                let lost = action == Action::LoseMark(at);
                state.losses -= u8::from(lost);
                // The group refuses a commit from outside while it has members.
                if !lost && state.nobody_runs() && generation == state.generation {
                    (0..PARTITIONS).for_each(|partition| state.mark(partition));
                }
                state.workers[at] = Worker::Looked { generation, reset: false };
            }
            Action::Start(at) => {
                let Worker::Looked { generation, .. } = state.workers[at] else { return None };
                state.missed |= state.pending && generation == state.generation;
                // A partition of which something was folded has its mark.
                state.workers[at] = Worker::Running { generation, marked: state.folded };
            }
            Action::Commit(at, partition) => {
                if let Worker::Running { marked, .. } = &mut state.workers[at] {
                    marked[partition] = true;
                }
                state.mark(partition);
            }
            Action::Fold(_, partition) => state.folded[partition] = true,
            Action::Restart(at) => state.workers[at] = Worker::Down,
            Action::Crash(at) => {
                state.workers[at] = Worker::Down;
                state.crashes -= 1;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a reset is obeyed once", |_, state: &State| {
                state.generation <= 1 + state.resets
            }),
            Property::always("a reset is not missed", |_, state: &State| !state.missed),
            Property::sometimes("each reset is obeyed", |model: &Reset, state: &State| {
                state.generation == 1 + model.resets && state.folded == [true; PARTITIONS]
            }),
        ]
    }

    /// One generation too many is bad enough.
    fn within_boundary(&self, state: &State) -> bool {
        state.generation <= 2 + self.resets
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries};

    use super::*;

    fn bounded(without: Option<Rule>) -> Reset {
        Reset { without, resets: 2, crashes: 5, losses: 1 }
    }

    #[test]
    fn a_reset_is_obeyed_once_by_whoever_sees_it() {
        let checker = bounded(None).checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        println!("{} states", checker.unique_state_count());
    }

    #[test]
    fn each_rule_is_needed() {
        for rule in [Rule::MarkBeforeWrite, Rule::OneSuccessor] {
            let checker = bounded(Some(rule)).checker().threads(2);
            let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
            let found = checker.discovery("a reset is obeyed once");
            let path = found.unwrap_or_else(|| panic!("it holds without {rule:?}"));
            println!("without {rule:?}:\n{path}");
        }
    }
}
