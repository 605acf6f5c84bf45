//! What may happen to a target, decided once for every store.
//!
//! [`transition`] is pure: from what the books say, what stands in the store and a command, it tells what the
//! books say next, whose tasks are fenced, what is done in the store, and what the log is told. Ownership comes
//! first. A store carries the change out: in one transaction, or, where it has none, the record first and then
//! the steps, which are idempotent and derived again from the record by whoever reads it after a crash.

mod adopt;
mod open;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value as Json;

use crate::binding::{Binding, Found, check_owner};
use crate::error::{Error, Result};
use crate::rebuild::{By, Phase, Role, Step};
use crate::sink::{DesiredState, StoredPosition, TargetSpec, Waits};
use open::{displaced_by, listed, open, open_first, superseded};

/// A generation beside the live one, as the books know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Its number.
    pub number: u64,
    /// What it is for.
    pub role: Role,
    /// Its physical target; empty until it exists.
    pub physical: String,
    /// The fingerprint of the projection that folds it.
    pub fingerprint: String,
    /// That projection in its stable JSON form.
    pub projection: Json,
}

/// What the books say of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is, and its live generation.
    pub binding: Binding,
    /// What the operator wants.
    pub desired: DesiredState,
    /// The other generations, by number.
    pub beside: Vec<Beside>,
}

impl Record {
    /// The generation that is being built.
    #[must_use]
    pub fn build(&self) -> Option<&Beside> {
        self.beside.iter().find(|beside| beside.role.phase().is_some())
    }

    /// Whether build `generation` holds the live generation.
    ///
    /// # Errors
    /// Retriable where it does not.
    pub fn held_by(&self, generation: u64) -> Result<()> {
        let build = self.build().filter(|build| build.number == generation);
        if build.and_then(|build| build.role.phase()) == Some(Phase::Holding) {
            return Ok(());
        }
        Err(Error::retriable(format!("generation {generation} does not hold the live one")))
    }

    /// Those kept for a rollback, the newest last.
    pub fn old(&self) -> impl DoubleEndedIterator<Item = &Beside> {
        self.beside.iter().filter(|beside| beside.role == Role::Old)
    }

    /// The number of a generation that is made now: none comes twice.
    fn next_number(&self, newest: u64) -> u64 {
        let known = self.beside.iter().map(|beside| beside.number);
        known.fold(self.binding.generation.max(newest), u64::max) + 1
    }

    fn remove(&mut self, number: u64) -> Option<Beside> {
        let at = self.beside.iter().position(|beside| beside.number == number)?;
        Some(self.beside.remove(at))
    }

    fn add(&mut self, beside: Beside) {
        self.beside.push(beside);
        self.beside.sort_by_key(|beside| beside.number);
    }
}

/// What is seen in the store, as far as a command asks for it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What stands under the target's name. [`Command::Open`] asks.
    pub found: Option<Found>,
    /// Whether the build has reached the live generation's positions. [`Step::Swap`] asks.
    pub reached: bool,
    /// The highest number of a generation that stands in the store, where the books may not know it.
    pub newest: u64,
    /// Kept generations of which nothing stands any more.
    pub lost: Vec<u64>,
    /// What stands of the generations beside the live one, by number, and may be taken as it is.
    /// [`Command::Adopt`] asks, and for all below.
    pub copies: Vec<(u64, String)>,
    /// Where the live generation's partitions stand.
    pub positions: Vec<StoredPosition>,
    /// What shows the store that rows and books are not of one moment.
    pub torn: Option<String>,
    /// The log as it is now.
    pub log: LogNow,
}

/// What a copy is compared with before it is taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogNow {
    /// How many members the connector's groups have.
    pub members: usize,
    /// The ids of its topics, where the log can tell.
    pub topics: Vec<(Arc<str>, Option<String>)>,
}

/// What is asked of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Create what is missing, or go on.
    Open,
    /// Take over what a restore from a backup left under the target's name, rows and books together.
    Adopt,
    /// Record where the fold begins in a generation.
    Begin(u64),
    /// Empty this generation in place, and begin the next one.
    Empty(u64),
    /// Build the next generation beside the live one.
    Build(By),
    /// A step of the build of this number.
    Step(u64, Step),
    /// End the build: this one, or whichever there is.
    Cancel(Option<u64>),
    /// Make the newest kept generation live, if this one is live.
    RollBack(Option<u64>),
    /// Drop the oldest kept generations until so many are left.
    DropOld(usize),
    /// Pause, resume or stop.
    Desire(DesiredState),
}

/// What is done in the store. Each is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Make the live generation's table or index.
    Create,
    /// Take the empty one that stands there.
    Adopt,
    /// Take the one that stands there with its rows, and what stands of the generations beside it.
    Take,
    /// See that the live one fits the model.
    Check,
    /// Add the model's new columns to the live one.
    Extend,
    /// Empty the live one.
    Empty,
    /// Make the table or index of a build.
    Make(u64),
    /// Give a loaded build what its load was spared: indexes, replicas, settings.
    Finish(u64),
    /// Let the name lead to another generation.
    Exchange {
        /// The generation that was live.
        from: u64,
        /// The one that is.
        to: u64,
    },
    /// Drop a generation and all that the books keep of it, which fences its tasks.
    Drop(u64),
}

/// What a command changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What the books say next. A physical target that is still to be made is empty.
    pub record: Record,
    /// The generation that answers the command.
    pub answer: u64,
    /// Generations whose tasks are fenced, before anything else is done.
    pub fences: Vec<u64>,
    /// What is done in the store, in this order.
    pub steps: Vec<Act>,
    /// Sentences for the log.
    pub notices: Vec<String>,
}

/// What a command leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing to do; the generation that answers the command, 0 where none does.
    Stands(u64),
    /// Not now, and why.
    NotYet(String),
    /// This projection does not fold into the live generation now.
    Waits(Waits),
    /// This.
    Changes(Box<Change>),
}

fn change(record: Record, answer: u64, fences: Vec<u64>, steps: Vec<Act>) -> Outcome {
    let notices = Vec::new();
    Outcome::Changes(Box::new(Change { record, answer, fences, steps, notices }))
}

/// What `command` of the connector of `spec` does to a target.
///
/// # Errors
/// Config errors name what stands against it and the way out. Fenced where the generation that a command names
/// is over, or where nothing was opened yet.
pub fn transition(
    record: Option<&Record>,
    spec: &TargetSpec,
    facts: &Facts,
    command: Command,
) -> Result<Outcome> {
    if let Some(record) = record {
        check_owner(&record.binding, spec)?;
    }
    let Some(record) = record else {
        return match command {
            Command::Open => open_first(spec, facts),
            Command::Adopt => Err(Error::config(format!(
                "Foldline's own tables hold nothing of {:?}: restore them too, from the same backup, and adopt then",
                spec.target
            ))),
            _ => {
                Err(Error::fenced(format!("{:?} is not in the books: open it first", spec.target)))
            }
        };
    };
    let live = record.binding.generation;
    match command {
        Command::Open => open(record, spec, facts),
        Command::Adopt => adopt::adopt(record, spec, facts),
        Command::Begin(generation) if generation == live => Ok(Outcome::Stands(live)),
        Command::Begin(generation) => Err(Error::fenced(format!(
            "generation {generation} of {:?} is over: {live} is live",
            spec.target
        ))),
        Command::Empty(generation) if generation == live => {
            Ok(renew(record, spec, facts, &[Act::Empty]))
        }
        Command::Empty(_) => Ok(Outcome::Stands(live)),
        Command::Build(by) => build(record, spec, facts, by),
        Command::Step(build, step) => Ok(advance(record, spec, facts, (build, step))),
        Command::Cancel(build) => cancel(record, spec, build),
        Command::RollBack(from) => roll_back(record, spec, facts, from),
        Command::DropOld(keep) => Ok(drop_old(record, keep)),
        Command::Desire(desired) => {
            Ok(change(Record { desired, ..record.clone() }, live, Vec::new(), Vec::new()))
        }
    }
}

fn first(spec: &TargetSpec) -> Binding {
    Binding {
        worker: spec.worker.clone(),
        connector: spec.connector.clone(),
        group: spec.group.clone(),
        log: spec.log.clone(),
        physical: String::new(),
        generation: 1,
        fingerprint: spec.fingerprint.clone(),
        superseded: Vec::new(),
        projection: spec.projection.clone(),
        continued: Vec::new(),
    }
}

/// The next generation takes the place of this one, whose positions are void. What was being built was to
/// follow another life of the target.
fn renew(record: &Record, spec: &TargetSpec, facts: &Facts, making: &[Act]) -> Outcome {
    let mut next = record.clone();
    let number = record.next_number(facts.newest);
    let mut steps = Vec::new();
    if let Some(build) = record.build() {
        next.remove(build.number);
        forget_displaced(&mut next.binding, &build.fingerprint);
        steps.push(Act::Drop(build.number));
    }
    take_model(&mut next.binding, spec);
    next.binding.log.clone_from(&spec.log);
    next.binding.generation = number;
    next.binding.physical.clear();
    steps.extend_from_slice(making);
    change(next, number, vec![record.binding.generation], steps)
}

/// This projection folds the live generation from now on: asked for by name, an old one is a new one.
fn take_model(binding: &mut Binding, spec: &TargetSpec) {
    let old = std::mem::replace(&mut binding.fingerprint, spec.fingerprint.clone());
    supersede(binding, old);
    binding.projection = spec.projection.clone();
}

/// A deploy never takes this fingerprint back, unless it is the live one.
fn supersede(binding: &mut Binding, fingerprint: String) {
    binding.superseded.push(fingerprint);
    binding.superseded.sort_unstable();
    binding.superseded.dedup();
    let live = &binding.fingerprint;
    binding.superseded.retain(|other| other != live);
}

/// How the books note among the superseded that the build of one projection took the place of another's, which was
/// never live. That one is superseded only when the build is live; until then its workers wait.
fn displaced(by: &str, fingerprint: &str) -> String {
    format!("beside {by} {fingerprint}")
}

/// Takes away what was noted of a build's projection: the fingerprints that it displaced.
fn forget_displaced(binding: &mut Binding, by: &str) -> Vec<String> {
    let note = displaced(by, "");
    let mut out = Vec::new();
    binding.superseded.retain(|entry| match entry.strip_prefix(&note) {
        Some(fingerprint) => {
            out.push(fingerprint.to_owned());
            false
        }
        None => true,
    });
    out
}

fn build(record: &Record, spec: &TargetSpec, facts: &Facts, by: By) -> Result<Outcome> {
    let deployed = by == By::Deploy;
    let mut next = record.clone();
    let number = record.next_number(facts.newest);
    let mut steps = Vec::new();
    if let Some(under_way) = record.build()
        && (under_way.fingerprint == spec.fingerprint || (deployed && displaced_by(record, spec)))
    {
        return Ok(Outcome::Stands(under_way.number));
    }
    if deployed && let Some(message) = superseded(record, spec) {
        return Err(Error::config(message));
    }
    if let Some(under_way) = record.build() {
        // Another config's: its workers wait until this one is live or cancelled.
        let mut passed = forget_displaced(&mut next.binding, &under_way.fingerprint);
        passed.push(under_way.fingerprint.clone());
        passed.retain(|fingerprint| *fingerprint != spec.fingerprint);
        let notes = passed.iter().map(|it| displaced(&spec.fingerprint, it));
        next.binding.superseded.extend(notes);
        next.remove(under_way.number);
        steps.push(Act::Drop(under_way.number));
    }
    next.add(Beside {
        number,
        role: Role::Build(Phase::Loading),
        physical: String::new(),
        fingerprint: spec.fingerprint.clone(),
        projection: spec.projection.clone(),
    });
    steps.push(Act::Make(number));
    Ok(change(next, number, Vec::new(), steps))
}

fn advance(record: &Record, spec: &TargetSpec, facts: &Facts, (n, step): (u64, Step)) -> Outcome {
    let (from, to) = match step {
        Step::Follow => (Phase::Loading, Some(Phase::Following)),
        Step::Hold { .. } => (Phase::Following, Some(Phase::Holding)),
        Step::Release => (Phase::Holding, Some(Phase::Following)),
        Step::Swap => (Phase::Holding, None),
    };
    let Some(build) = record.build().filter(|build| build.number == n) else {
        return Outcome::NotYet("the build is over".to_owned());
    };
    if build.role != Role::Build(from) {
        return Outcome::NotYet(format!("the build is not {}", from.name()));
    }
    let live = record.binding.generation;
    let Some(to) = to else {
        if build.fingerprint != spec.fingerprint {
            return Outcome::NotYet("the build is another config's".to_owned());
        }
        if !facts.reached {
            return Outcome::NotYet("the live generation's positions are not reached".to_owned());
        }
        let mut next = record.clone();
        next.binding.log.clone_from(&spec.log);
        return exchange(next, n);
    };
    let mut next = record.clone();
    next.beside
        .iter_mut()
        .filter(|beside| beside.number == n)
        .for_each(|beside| beside.role = Role::Build(to));
    let fences = if to == Phase::Holding { vec![live] } else { Vec::new() };
    let steps = if from == Phase::Loading { vec![Act::Finish(n)] } else { Vec::new() };
    change(next, n, fences, steps)
}

/// Another generation becomes the live one; what was live is kept in its place.
fn exchange(mut next: Record, to: u64) -> Outcome {
    let Some(back) = next.remove(to) else {
        return Outcome::NotYet("the generation is gone".to_owned());
    };
    let binding = &mut next.binding;
    let from = binding.generation;
    let passed = forget_displaced(binding, &back.fingerprint);
    // A newer config's: what it displaced does not come back by a deploy. A build of what was live displaced
    // nobody for good.
    let newer = binding.fingerprint != back.fingerprint;
    let old = Beside {
        number: from,
        role: Role::Old,
        physical: std::mem::replace(&mut binding.physical, back.physical),
        fingerprint: std::mem::replace(&mut binding.fingerprint, back.fingerprint),
        projection: std::mem::replace(&mut binding.projection, back.projection),
    };
    binding.generation = to;
    supersede(binding, old.fingerprint.clone());
    if newer {
        passed.into_iter().for_each(|fingerprint| supersede(binding, fingerprint));
    }
    next.add(old);
    change(next, to, vec![from, to], vec![Act::Exchange { from, to }])
}

fn cancel(record: &Record, spec: &TargetSpec, expected: Option<u64>) -> Result<Outcome> {
    let Some(build) = record.build() else { return Ok(Outcome::Stands(0)) };
    if let Some(expected) = expected.filter(|expected| *expected != build.number) {
        return Err(Error::config(format!(
            "generation {expected} of {:?} is no longer being built: {} is. To cancel that one: `foldline rebuild \
             {} --cancel`",
            spec.target, build.number, spec.connector
        )));
    }
    let (number, mut next) = (build.number, record.clone());
    next.remove(number);
    // Nobody's place was taken.
    forget_displaced(&mut next.binding, &build.fingerprint);
    Ok(change(next, number, Vec::new(), vec![Act::Drop(number)]))
}

fn roll_back(
    record: &Record,
    spec: &TargetSpec,
    facts: &Facts,
    from: Option<u64>,
) -> Result<Outcome> {
    let live = record.binding.generation;
    if from.is_some_and(|from| from != live) {
        // Someone was faster: once more would go forth again.
        return Ok(Outcome::Stands(live));
    }
    if let Some(build) = record.build() {
        return Err(Error::config(format!(
            "generation {} is being built: cancel that first, with `foldline rebuild {} --cancel`",
            build.number, spec.connector
        )));
    }
    let Some(old) = record.old().rfind(|old| !facts.lost.contains(&old.number)) else {
        return Err(Error::config(format!(
            "no older generation of {:?} is kept (connectors.{}.keep_generations)",
            spec.target, spec.connector
        )));
    };
    Ok(exchange(record.clone(), old.number))
}

fn drop_old(record: &Record, keep: usize) -> Outcome {
    let mut surplus: Vec<u64> = record.old().map(|old| old.number).collect();
    surplus.truncate(surplus.len().saturating_sub(keep));
    if surplus.is_empty() {
        return Outcome::Stands(record.binding.generation);
    }
    let mut next = record.clone();
    next.beside.retain(|beside| !surplus.contains(&beside.number));
    let steps = surplus.into_iter().map(Act::Drop).collect();
    change(next, record.binding.generation, Vec::new(), steps)
}

/// What keeps a worker from taking part in the build of another config.
#[must_use]
pub fn others_build(number: u64, projection: &Json, mine: &Json, connector: &str) -> String {
    format!(
        "generation {number} is being built by another config than this worker's (different: {}): a worker with \
         that config goes on with it, or `foldline rebuild {connector} --cancel` ends it",
        listed(projection, mine)
    )
}
