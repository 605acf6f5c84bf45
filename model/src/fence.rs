//! The fence: two workers, of which each may believe that the partition is its own, and one row that counts the partition's
//! events.
//!
//! Checked over crashes, rebalances that nobody hears of, requests that arrive late, twice or after their sender gave up,
//! and replies that are lost. The bound: the fields of [`Fence`] and [`EPOCHS_MAX`] epochs.

use stateright::{Model, Property};

/// The store takes over no more often than that; longer runs are cut off.
const EPOCHS_MAX: u8 = 3;

/// How the store keeps rows and positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In one transaction, as PostgreSQL and SQLite.
    Transaction,
    /// One document after the other, the position last, as Elasticsearch.
    Documents,
}

/// A rule that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A flush moves a position only from where it began and under its own epoch.
    Fence,
    /// A row is written only at the version that it was folded from.
    Version,
    /// Rows are durable before the position moves.
    Order,
    /// An event whose mark the row bears is not folded into it again.
    Replay,
}

/// The model and its bound.
#[derive(Clone, Debug)]
pub struct Fence {
    /// How the store keeps rows and positions.
    pub kind: Kind,
    /// The rule that is left out.
    pub without: Option<Rule>,
    /// How many events the partition has.
    pub events: u8,
    /// How often a worker may crash.
    pub crashes: u8,
    /// How often the broker may give the partition to the other worker.
    pub moves: u8,
    /// How often a worker may give up waiting for a reply.
    pub losses: u8,
    /// How often a request may arrive twice.
    pub duplicates: u8,
}

/// The row that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    value: u8,
    /// Behind the last event that it holds.
    mark: u8,
    version: u8,
}

/// What a worker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    /// Nothing: it has just started, or was told that the partition is gone.
    Idle,
    /// That another worker took over; it may take the partition again (`Assignment::acquire_all`).
    Fenced,
    /// That the partition is its own, and maybe the row.
    Holding {
        /// The epoch of its lease.
        epoch: u8,
        /// Where it goes on.
        position: u8,
        /// The cached row.
        cached: Option<Row>,
    },
    /// It waits for the reply to a request.
    Waiting(Request),
    /// It gave up waiting, or was refused by the fence.
    Unsure {
        /// The epoch of its lease.
        epoch: u8,
        /// Where the flush began; it ends one further.
        from: u8,
    },
}

/// A request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    worker: usize,
    what: What,
    epoch: u8,
    from: u8,
    /// The version that the row was folded from.
    guard: u8,
    row: Row,
}

/// What it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// Row and position together.
    Both,
    /// The row.
    Row,
    /// The position.
    Position,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Whom the broker gave the partition.
    owner: usize,
    workers: [Worker; 2],
    epoch: u8,
    position: u8,
    row: Row,
    /// Requests that may still arrive, in order, so that equal moments are equal.
    network: Vec<Request>,
    crashes: u8,
    moves: u8,
    losses: u8,
    duplicates: u8,
    refused: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The broker gives the partition to the other worker, and the one that had it does not hear of it.
    Move,
    /// A worker hears that it lost the partition: `Task::lose`.
    Lose(usize),
    /// A worker is killed; what it sent is still on its way.
    Crash(usize),
    /// A worker takes the partition: `Ops::acquire`, and the sink's `Writer::acquire`, which raises the epoch.
    Acquire(usize),
    /// It reads the row: `Ops::load`.
    Load(usize),
    /// It folds the next event and sends the flush: `Folder::fold`, `Task::start_write`.
    Send(usize),
    /// A request arrives, is judged by the sink's `Writer::write`, and the reply reaches whoever waits: `Task::on_written`.
    Deliver(Request),
    /// The same, and the request will arrive again.
    Duplicate(Request),
    /// A worker gives up waiting; the request may have been done, or be done later: `Ops::write`.
    GiveUp(usize),
    /// It asks where the store stands: `Ops::stored`, `Assignment::compare`.
    Ask(usize),
}

/// What became of a request.
enum Judged {
    Done,
    Conflict,
    Fenced,
}

impl Fence {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn send(&self, state: &mut State, worker: usize, epoch: u8, from: u8, cached: Row) {
        let replayed =
            self.kind == Kind::Documents && self.keeps(Rule::Replay) && cached.mark > from;
        let row = if replayed {
            cached
        } else {
            Row {
                value: cached.value + 1,
                mark: cached.mark.max(from + 1),
                version: cached.version + 1,
            }
        };
        let what = match self.kind {
            Kind::Transaction => What::Both,
            Kind::Documents if replayed || !self.keeps(Rule::Order) => What::Position,
            Kind::Documents => What::Row,
        };
        let request = Request { worker, what, epoch, from, guard: cached.version, row };
        state.ask(request);
    }

    fn judge(&self, state: &mut State, request: &Request) -> Judged {
        let row = request.what != What::Position;
        let position = request.what != What::Row;
        let stands = state.epoch == request.epoch && state.position == request.from;
        if position && self.keeps(Rule::Fence) && !stands {
            state.refused = true;
            return Judged::Fenced;
        }
        if row && self.keeps(Rule::Version) && state.row.version != request.guard {
            return Judged::Conflict;
        }
        if row {
            state.row = request.row;
        }
        if position {
            state.position = request.from + 1;
        }
        Judged::Done
    }

    /// The reply reaches the worker.
    fn reply(&self, state: &mut State, request: &Request, judged: &Judged) {
        let Request { worker, epoch, from, .. } = *request;
        let last = match self.kind {
            Kind::Transaction => What::Both,
            Kind::Documents if self.keeps(Rule::Order) => What::Position,
            Kind::Documents => What::Row,
        };
        let holding = |position, cached| Worker::Holding { epoch, position, cached };
        state.workers[worker] = match judged {
            Judged::Done if request.what == last => holding(from + 1, Some(request.row)),
            Judged::Done => {
                let what = if last == What::Row { What::Row } else { What::Position };
                return state.ask(Request { what, ..*request });
            }
            Judged::Conflict => holding(from, None),
            Judged::Fenced => Worker::Unsure { epoch, from },
        };
    }

    fn deliver(&self, state: &mut State, request: &Request) {
        let judged = self.judge(state, request);
        if state.workers[request.worker] == Worker::Waiting(*request) {
            self.reply(state, request, &judged);
        }
    }
}

impl State {
    fn ask(&mut self, request: Request) {
        self.workers[request.worker] = Worker::Waiting(request);
        self.network.push(request);
        self.network.sort_unstable();
    }

    fn take(&mut self, request: &Request) {
        if let Some(at) = self.network.iter().position(|other| other == request) {
            self.network.remove(at);
        }
    }
}

impl Model for Fence {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            owner: 0,
            workers: [Worker::Idle; 2],
            epoch: 0,
            position: 0,
            row: Row { value: 0, mark: 0, version: 0 },
            network: Vec::new(),
            crashes: self.crashes,
            moves: self.moves,
            losses: self.losses,
            duplicates: self.duplicates,
            refused: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.moves > 0 {
            actions.push(Action::Move);
        }
        for (at, worker) in state.workers.iter().enumerate() {
            if *worker != Worker::Idle {
                if state.owner != at {
                    actions.push(Action::Lose(at));
                }
                if state.crashes > 0 {
                    actions.push(Action::Crash(at));
                }
            }
            match worker {
                Worker::Idle if state.owner == at => actions.push(Action::Acquire(at)),
                Worker::Idle => {}
                Worker::Fenced => actions.push(Action::Acquire(at)),
                Worker::Holding { cached: None, .. } => actions.push(Action::Load(at)),
                Worker::Holding { position, .. } if *position < self.events => {
                    actions.push(Action::Send(at));
                }
                Worker::Holding { .. } => {}
                Worker::Waiting(_) if state.losses > 0 => actions.push(Action::GiveUp(at)),
                Worker::Waiting(_) => {}
                Worker::Unsure { .. } => actions.push(Action::Ask(at)),
            }
        }
        for request in &state.network {
            actions.push(Action::Deliver(*request));
            if state.duplicates > 0 {
                actions.push(Action::Duplicate(*request));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Move => {
                state.owner = 1 - state.owner;
                state.moves -= 1;
            }
            Action::Lose(at) => state.workers[at] = Worker::Idle,
            Action::Crash(at) => {
                state.workers[at] = Worker::Idle;
                state.crashes -= 1;
            }
            Action::Acquire(at) => {
                state.epoch += 1;
                let (epoch, position) = (state.epoch, state.position);
                state.workers[at] = Worker::Holding { epoch, position, cached: None };
            }
            Action::Load(at) => {
                if let Worker::Holding { cached, .. } = &mut state.workers[at] {
                    *cached = Some(state.row);
                }
            }
            Action::Send(at) => {
                if let Worker::Holding { epoch, position, cached: Some(row) } = state.workers[at] {
                    self.send(&mut state, at, epoch, position, row);
                }
            }
            Action::Deliver(request) => {
                state.take(&request);
                self.deliver(&mut state, &request);
            }
            Action::Duplicate(request) => {
                state.duplicates -= 1;
                self.deliver(&mut state, &request);
            }
            Action::GiveUp(at) => {
                if let Worker::Waiting(Request { epoch, from, .. }) = state.workers[at] {
                    state.losses -= 1;
                    state.workers[at] = Worker::Unsure { epoch, from };
                }
            }
            Action::Ask(at) => {
                if let Worker::Unsure { epoch, from } = state.workers[at] {
                    let holding = |position| Worker::Holding { epoch, position, cached: None };
                    state.workers[at] = match (state.epoch == epoch, state.position) {
                        (true, position) if position == from + 1 => holding(position),
                        (true, position) if position == from => holding(position),
                        _ => Worker::Fenced,
                    };
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the row is the plain fold", |model: &Fence, state: &State| {
                let Row { value, mark, .. } = state.row;
                match model.kind {
                    Kind::Transaction => value == state.position,
                    // The row may be ahead of the position by what is under way, and bears its mark then.
                    Kind::Documents => {
                        value == mark && (state.position..=state.position + 1).contains(&mark)
                    }
                }
            }),
            Property::sometimes("all events are folded", |model: &Fence, state: &State| {
                state.position == model.events && state.row.value == model.events
            }),
            Property::sometimes("a zombie's flush is refused", |_, state: &State| state.refused),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.epoch <= EPOCHS_MAX
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries};

    use super::*;

    const EXACT: &str = "the row is the plain fold";

    fn bounded(kind: Kind, without: Option<Rule>) -> Fence {
        Fence { kind, without, events: 2, crashes: 1, moves: 2, losses: 1, duplicates: 1 }
    }

    #[test]
    fn every_interleaving_ends_in_the_plain_fold() {
        for kind in [Kind::Transaction, Kind::Documents] {
            let checker = bounded(kind, None).checker().threads(2).spawn_bfs().join();
            checker.assert_properties();
            println!("{kind:?}: {} states", checker.unique_state_count());
        }
    }

    #[test]
    fn each_rule_is_needed() {
        for (kind, rule) in [
            (Kind::Transaction, Rule::Fence),
            // Where documents bear marks, a position that went back would only be replayed.
            (Kind::Documents, Rule::Version),
            (Kind::Documents, Rule::Order),
            (Kind::Documents, Rule::Replay),
        ] {
            let checker = bounded(kind, Some(rule)).checker().threads(2);
            let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
            let found = checker.discovery(EXACT);
            let path = found.unwrap_or_else(|| panic!("{kind:?} holds without {rule:?}"));
            println!("{kind:?} without {rule:?}:\n{path}");
        }
    }
}
