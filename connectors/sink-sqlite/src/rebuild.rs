//! The next generation beside the live table, and the swap. Each step is one transaction.

use async_trait::async_trait;
use foldline_api::lifecycle::{Act, Command, Facts, Outcome};
use foldline_api::parked::Place;
use foldline_api::rebuild::{Build, By, Generations, Rebuilds, Role, Step, Stepped, is_reached};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, TargetSpec};
use foldline_api::source::DeadLetter;
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::Transaction;

use crate::books;
use crate::change;
use crate::database::Access;
use crate::generations;
use crate::hole;
use crate::joins;
use crate::letters;
use crate::target::{SqliteTarget, bound};
use crate::verdicts;

fn begin(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    by: By,
    beginnings: &[Beginning],
    goals: &[(TopicPartition, Position)],
) -> Result<u64> {
    let stored = bound(tx, spec)?;
    let asked = (&Facts::default(), Command::Build(by));
    match change::command(tx, spec, asked, goals)?.0 {
        Outcome::Changes(change) => {
            books::begin(tx, &spec.target, change.answer, beginnings)?;
            if stored.log == spec.log {
                let pair = (stored.generation, change.answer);
                verdicts::take_over(tx, &spec.target, pair)?;
                hole::take_over(tx, &spec.target, pair)?;
            }
            Ok(change.answer)
        }
        Outcome::Stands(number) => Ok(number),
        Outcome::NotYet(reason) => Err(Error::retriable(reason)),
        Outcome::Waits(_) => Err(Error::retriable("the projection waits")),
    }
}

fn read(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Generations> {
    let target = &spec.target;
    let stored = bound(tx, spec)?;
    let (mut build, mut old) = (None, Vec::new());
    for beside in generations::beside(tx, target)? {
        match beside.role {
            Role::Old => old.push(beside.number),
            Role::Build(phase) => {
                build = Some(Build {
                    generation: beside.number,
                    fingerprint: beside.fingerprint,
                    projection: beside.projection,
                    phase,
                    positions: books::positions(tx, target, beside.number)?,
                    goals: beside.goals,
                });
            }
        }
    }
    Ok(Generations {
        live: stored.generation,
        projection: stored.projection,
        desired: books::desired(tx, target)?,
        positions: books::positions(tx, target, stored.generation)?,
        build,
        old,
    })
}

fn step(tx: &Transaction<'_>, spec: &TargetSpec, number: u64, step: Step) -> Result<Stepped> {
    let (target, stored) = (&spec.target, bound(tx, spec)?);
    let live = stored.generation;
    let reached = step == Step::Swap
        && is_reached(&books::positions(tx, target, number)?, &books::positions(tx, target, live)?);
    if matches!(step, Step::Hold { .. }) && joins::waits(tx, target, number)? {
        return Ok(Stepped::NotYet("rows have still to show what they look up".to_owned()));
    }
    let facts = Facts { reached, ..Facts::default() };
    let (outcome, notices) = change::command(tx, spec, (&facts, Command::Step(number, step)), &[])?;
    Ok(match outcome {
        Outcome::Changes(change) => {
            if step == Step::Swap {
                let same = stored.fingerprint == change.record.binding.fingerprint;
                letters::keep_new(tx, target, (live, number), same)?;
                letters::take_over_sent(tx, target, (live, number))?;
            }
            Stepped::Done(notices)
        }
        Outcome::NotYet(reason) => Stepped::NotYet(reason),
        Outcome::Stands(_) | Outcome::Waits(_) => Stepped::NotYet("nothing to do".to_owned()),
    })
}

fn roll_back(tx: &Transaction<'_>, spec: &TargetSpec, from: Option<u64>) -> Result<u64> {
    let asked = (&Facts::default(), Command::RollBack(from));
    let live = bound(tx, spec)?.generation;
    let (outcome, notices) = change::command(tx, spec, asked, &[])?;
    if let Outcome::Changes(change) = outcome {
        letters::take_over_sent(tx, &spec.target, (live, change.answer))?;
    }
    for notice in notices {
        tracing::warn!(connector = %spec.connector, "{notice}");
    }
    Ok(bound(tx, spec)?.generation)
}

/// The generations that a command drops.
fn dropped(outcome: &Outcome) -> Vec<u64> {
    let Outcome::Changes(change) = outcome else { return Vec::new() };
    let number = |act: &Act| if let Act::Drop(number) = act { Some(*number) } else { None };
    change.steps.iter().filter_map(number).collect()
}

#[async_trait]
impl Rebuilds for SqliteTarget {
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        let (beginnings, goals) = (beginnings.to_vec(), goals.to_vec());
        self.run(Access::Rename, move |tx, spec| {
            books::create(tx)?;
            begin(tx, spec, by, &beginnings, &goals)
        })
        .await
    }

    async fn generations(&self) -> Result<Generations> {
        self.run(Access::Read, read).await
    }

    async fn step(&self, generation: u64, of: Step) -> Result<Stepped> {
        let access = if of == Step::Swap { Access::Rename } else { Access::Write };
        match self.run(access, move |tx, spec| step(tx, spec, generation, of)).await {
            Err(error) if matches!(error.class(), ErrorClass::Retriable | ErrorClass::Fenced) => {
                Ok(Stepped::NotYet(error.to_string()))
            }
            stepped => stepped,
        }
    }

    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>> {
        self.run(Access::Write, move |tx, spec| {
            let asked = (&Facts::default(), Command::Cancel(expected));
            Ok(dropped(&change::command(tx, spec, asked, &[])?.0).pop())
        })
        .await
    }

    async fn roll_back(&self, from: Option<u64>) -> Result<u64> {
        self.run(Access::Rename, move |tx, spec| roll_back(tx, spec, from)).await
    }

    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>> {
        self.run(Access::Read, move |tx, spec| {
            bound(tx, spec)?;
            letters::waiting(tx, &spec.target, generation, max)
        })
        .await
    }

    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        let places = places.to_vec();
        self.run(Access::Write, move |tx, spec| {
            bound(tx, spec)?;
            letters::sent(tx, &spec.target, generation, &places)
        })
        .await
    }

    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        let places = places.to_vec();
        self.run(Access::Read, move |tx, spec| {
            bound(tx, spec)?;
            letters::were_sent(tx, &spec.target, generation, &places)
        })
        .await
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        self.run(Access::Write, move |tx, spec| {
            let asked = (&Facts::default(), Command::DropOld(keep));
            Ok(dropped(&change::command(tx, spec, asked, &[])?.0))
        })
        .await
    }
}
