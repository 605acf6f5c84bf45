//! The swap of generations: a live task that folds into the old one, a build's task that folds into the new one, whoever
//! tries the steps, and a reader who follows the name.
//!
//! Checked over crashes, requests that arrive late and a hold that is released in between. The bound: the fields of [`Swap`]
//! and [`EPOCHS_MAX`] epochs of each generation.

use stateright::{Model, Property};

/// Nobody takes a generation over more often than that; longer runs are cut off.
const EPOCHS_MAX: u8 = 4;
const OLD: usize = 0;
const NEW: usize = 1;

/// A rule that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Comparing the positions and changing the names is one step.
    Atomic,
    /// The new generation has reached the old one's positions.
    Reached,
    /// A flush moves a position only under its own epoch.
    Fence,
}

/// The model and its bound.
#[derive(Clone, Debug)]
pub struct Swap {
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// How many events the log has.
    pub events: u8,
    /// How often a task may crash.
    pub crashes: u8,
    /// How often a hold may be given up.
    pub releases: u8,
}

/// Where the rebuild is: `foldline_api::rebuild::Phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The new generation is filled and follows the log.
    Following,
    /// Nobody may take the old generation.
    Holding,
    /// The names are changed.
    Live,
}

/// A task's hold on a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    epoch: u8,
    position: u8,
}

/// A flush on its way: it moves the position of a generation by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flush {
    generation: usize,
    epoch: u8,
    from: u8,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    phase: Phase,
    /// Which generation the name leads to.
    live: usize,
    position: [u8; 2],
    epoch: [u8; 2],
    /// The task of each generation.
    tasks: [Option<Lease>; 2],
    network: Vec<Flush>,
    /// Where the swap is not one step: the positions were compared, and the names come next.
    compared: bool,
    /// How far the reader has seen the fold.
    seen: u8,
    went_back: bool,
    crashes: u8,
    releases: u8,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A task takes its generation over: the sink's `Writer::acquire`, with `check_generation` or `free`.
    Acquire(usize),
    /// It sends a flush: `Task::start_write`.
    Send(usize),
    /// A flush arrives: the sink's `Writer::write`.
    Deliver(Flush),
    /// A task dies; what it sent is still on its way.
    Crash(usize),
    /// The live generation is held, its epochs raised: `Rebuilds::step` with `Step::Hold`.
    Hold,
    /// The hold is given up: `Step::Release`.
    Release,
    /// The names are changed: `Step::Swap`.
    Swap,
    /// The first half of a swap that is not one step.
    Compare,
    /// Its second half.
    Rename,
    /// The reader looks.
    Read,
}

impl Swap {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn reached(&self, state: &State) -> bool {
        !self.keeps(Rule::Reached) || state.position[NEW] >= state.position[OLD]
    }
}

impl State {
    fn swap(&mut self) {
        self.phase = Phase::Live;
        self.live = NEW;
        self.epoch[OLD] += 1;
        self.epoch[NEW] += 1;
    }

    /// Whether a task may take this generation now.
    fn free(&self, generation: usize) -> bool {
        match self.phase {
            Phase::Following => true,
            Phase::Holding => generation == NEW,
            Phase::Live => generation == self.live,
        }
    }
}

impl Model for Swap {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            phase: Phase::Following,
            live: OLD,
            position: [0; 2],
            epoch: [0; 2],
            tasks: [None; 2],
            network: Vec::new(),
            compared: false,
            seen: 0,
            went_back: false,
            crashes: self.crashes,
            releases: self.releases,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for generation in [OLD, NEW] {
            match state.tasks[generation] {
                // A task that still believes in its lease asks again only where it is fenced or ended.
                Some(lease) if lease.epoch == state.epoch[generation] => {}
                _ if state.free(generation) => actions.push(Action::Acquire(generation)),
                _ => {}
            }
            if let Some(lease) = state.tasks[generation] {
                if lease.position < self.events {
                    actions.push(Action::Send(generation));
                }
                if state.crashes > 0 {
                    actions.push(Action::Crash(generation));
                }
            }
        }
        actions.extend(state.network.iter().map(|flush| Action::Deliver(*flush)));
        match state.phase {
            Phase::Following => actions.push(Action::Hold),
            Phase::Holding => {
                if state.releases > 0 {
                    actions.push(Action::Release);
                }
                if self.reached(state) {
                    let whole = self.keeps(Rule::Atomic);
                    actions.push(if whole { Action::Swap } else { Action::Compare });
                }
            }
            Phase::Live => {}
        }
        if state.compared && state.live == OLD {
            actions.push(Action::Rename);
        }
        actions.push(Action::Read);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Acquire(generation) => {
                state.epoch[generation] += 1;
                let (epoch, position) = (state.epoch[generation], state.position[generation]);
                state.tasks[generation] = Some(Lease { epoch, position });
            }
            Action::Send(generation) => {
                let lease = state.tasks[generation].as_mut()?;
                let flush = Flush { generation, epoch: lease.epoch, from: lease.position };
                lease.position += 1;
                state.network.push(flush);
                state.network.sort_unstable();
            }
            Action::Deliver(flush) => {
                let at = state.network.iter().position(|other| *other == flush)?;
                state.network.remove(at);
                let Flush { generation, epoch, from } = flush;
                let stands = state.epoch[generation] == epoch && state.position[generation] == from;
                if stands || !self.keeps(Rule::Fence) {
                    state.position[generation] = from + 1;
                } else {
                    // Fenced: it acquires again, if it may.
                    state.tasks[generation] =
                        state.tasks[generation].filter(|lease| lease.epoch != epoch);
                }
            }
            Action::Crash(generation) => {
                state.tasks[generation] = None;
                state.crashes -= 1;
            }
            Action::Hold => {
                state.phase = Phase::Holding;
                state.epoch[OLD] += 1;
            }
            Action::Release => {
                state.phase = Phase::Following;
                state.releases -= 1;
            }
            Action::Swap => state.swap(),
            Action::Compare => state.compared = true,
            Action::Rename => state.swap(),
            Action::Read => {
                let now = state.position[state.live];
                state.went_back |= now < state.seen;
                state.seen = now;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the reader never goes back", |_, state: &State| !state.went_back),
            Property::sometimes(
                "the swap is done and all is folded",
                |model: &Swap, state: &State| {
                    state.phase == Phase::Live && state.position[NEW] == model.events
                },
            ),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.epoch.iter().all(|epoch| *epoch <= EPOCHS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries};

    use super::*;

    fn bounded(without: Option<Rule>) -> Swap {
        Swap { without, events: 2, crashes: 1, releases: 1 }
    }

    #[test]
    fn a_reader_never_goes_back() {
        let checker = bounded(None).checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        println!("{} states", checker.unique_state_count());
    }

    #[test]
    fn each_rule_is_needed() {
        for rule in [Rule::Atomic, Rule::Reached, Rule::Fence] {
            let checker = bounded(Some(rule)).checker().threads(2);
            let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
            let found = checker.discovery("the reader never goes back");
            let path = found.unwrap_or_else(|| panic!("it holds without {rule:?}"));
            println!("without {rule:?}:\n{path}");
        }
    }
}
