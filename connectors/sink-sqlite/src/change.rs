//! What `foldline_api::lifecycle` decides, carried out in one transaction.

use foldline_api::lifecycle::{Act, Change, Command, Facts, Outcome, Record, transition};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::TargetSpec;
use foldline_api::{Error, Result};
use rusqlite::Transaction;

use crate::books;
use crate::carry;
use crate::database::sql;
use crate::generations::{self, Generation, name_in};
use crate::joins;
use crate::schema::{self, quote};
use crate::target::{adopt, bound};

/// The end of each partition when a build began.
pub(crate) type Goals = [(TopicPartition, Position)];

/// What the books say of a target; none before it is opened first.
pub(crate) fn record(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Option<Record>> {
    let Some(binding) = books::binding(tx, &spec.target)? else { return Ok(None) };
    let beside = generations::beside(tx, &spec.target)?;
    Ok(Some(Record {
        binding,
        desired: books::desired(tx, &spec.target)?,
        beside: beside.iter().map(Generation::beside).collect(),
    }))
}

/// Decides what a command does to a target that is open, and does it: what it led to, and sentences for the log.
pub(crate) fn command(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    (facts, command): (&Facts, Command),
    goals: &Goals,
) -> Result<(Outcome, Vec<String>)> {
    bound(tx, spec)?;
    let before = record(tx, spec)?;
    let outcome = transition(before.as_ref(), spec, facts, command)?;
    let notices = match &outcome {
        Outcome::Changes(change) => carry_out(tx, spec, (before.as_ref(), change), goals)?,
        _ => Vec::new(),
    };
    Ok((outcome, notices))
}

/// Carries a change out; sentences for the log.
pub(crate) fn carry_out(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    (before, change): (Option<&Record>, &Change),
    goals: &Goals,
) -> Result<Vec<String>> {
    for fenced in &change.fences {
        books::raise_epochs(tx, &spec.target, Some(*fenced))?;
    }
    let mut next = change.record.clone();
    let mut notices = Vec::new();
    for act in &change.steps {
        notices.extend(perform(tx, spec, (before, &mut next), *act)?);
    }
    notices.extend(change.notices.iter().cloned());
    if before != Some(&next) {
        write(tx, spec, &next, goals)?;
    }
    Ok(notices)
}

fn perform(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    (before, next): (Option<&Record>, &mut Record),
    act: Act,
) -> Result<Vec<String>> {
    let target = &spec.target;
    match act {
        Act::Create => {
            next.binding.physical = schema::create_now(tx, spec)?;
            Ok(vec![format!("created table {target:?}")])
        }
        Act::Adopt => {
            next.binding.physical = adopt(tx, spec)?;
            Ok(vec![format!("took the empty table {target:?}")])
        }
        // It has its mark.
        Act::Take => Ok(Vec::new()),
        Act::Check => schema::check_table(tx, spec).map(|()| Vec::new()),
        Act::Extend => schema::extend(tx, spec),
        Act::Empty => {
            next.binding.physical = schema::empty(tx, spec)?;
            Ok(Vec::new())
        }
        Act::Make(number) => make(tx, spec, (before, next), number).map(|()| Vec::new()),
        // A reader's snapshot never sees another table than it began with, and indexes are there from the beginning.
        Act::Finish(_) => Ok(Vec::new()),
        Act::Exchange { from, to } => exchange(tx, spec, before, (from, to)),
        Act::Drop(number) => drop_generation(tx, spec, before, number).map(|()| Vec::new()),
    }
}

fn make(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    (before, next): (Option<&Record>, &mut Record),
    number: u64,
) -> Result<()> {
    let (target, Some(stored)) = (&spec.target, before.map(|record| &record.binding)) else {
        return Ok(());
    };
    let relation = name_in(target, number);
    if schema::find(tx, &relation)?.is_some() {
        return Err(Error::config(format!(
            "{relation:?} stands where the next generation of {target:?} must go: drop or rename it"
        )));
    }
    carry::check_own(tx, spec, &stored.projection)?;
    let physical = carry::make(tx, spec, &stored.projection, &relation)?;
    carry::rehearse(tx, spec, &name_in(target, stored.generation), &relation)?;
    let made = next.beside.iter_mut().find(|beside| beside.number == number);
    if let Some(made) = made {
        made.physical = physical;
    }
    Ok(())
}

/// Exchanges the tables of two generations.
fn exchange(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    before: Option<&Record>,
    (from, to): (u64, u64),
) -> Result<Vec<String>> {
    let (target, Some(before)) = (&spec.target, before) else { return Ok(Vec::new()) };
    if !schema::is_marked(tx, target, &before.binding.physical)? {
        return Err(Error::fenced(format!("table {target:?} was dropped or replaced")));
    }
    if before.build().is_some() {
        carry::check_own(tx, spec, &before.binding.projection)?;
    }
    joins::end(tx, target, from)?;
    carry::exchange(tx, spec, &name_in(target, from), &name_in(target, to))?;
    carry::orphans(tx, target)
}

fn drop_generation(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    before: Option<&Record>,
    number: u64,
) -> Result<()> {
    let beside = before.iter().flat_map(|record| &record.beside);
    let mut physical =
        beside.filter(|beside| beside.number == number).map(|beside| &beside.physical);
    let relation = name_in(&spec.target, number);
    // Whatever else stands under that name is not ours to drop.
    if let Some(physical) = physical.next_back()
        && schema::is_marked(tx, &relation, physical)?
    {
        tx.execute_batch(&format!("DROP TABLE {}", quote(&relation))).map_err(sql)?;
    }
    generations::forget(tx, &spec.target, number)
}

/// Writes the books as they shall be.
fn write(tx: &Transaction<'_>, spec: &TargetSpec, next: &Record, goals: &Goals) -> Result<()> {
    let target = &spec.target;
    books::put_binding(tx, target, &next.binding)?;
    books::set_desired(tx, target, next.desired)?;
    let known = generations::beside(tx, target)?;
    for gone in known.iter().filter(|k| next.beside.iter().all(|beside| beside.number != k.number))
    {
        generations::forget_row(tx, target, gone.number)?;
    }
    for beside in &next.beside {
        let stands = known.iter().find(|known| known.number == beside.number);
        let goals = stands.map_or_else(|| goals.to_vec(), |known| known.goals.clone());
        generations::put(tx, target, &Generation::of(beside, target, goals))?;
    }
    Ok(())
}
