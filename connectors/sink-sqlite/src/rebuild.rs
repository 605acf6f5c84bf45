//! The next generation beside the live table, and the swap. Each step is one transaction.

use async_trait::async_trait;
use foldline_api::rebuild::{Build, Generations, Phase, Rebuilds, Role, Step, Stepped, is_reached};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, TargetSpec};
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::Transaction;

use crate::books;
use crate::carry;
use crate::database::{Access, sql};
use crate::generations::{self, Generation, name_in};
use crate::schema::{self, quote};
use crate::target::{SqliteTarget, bound};

/// The number of a generation that is made now: none comes twice.
pub(crate) fn next_number(tx: &Transaction<'_>, target: &str, live: u64) -> Result<u64> {
    let beside = generations::beside(tx, target)?;
    Ok(beside.iter().map(|generation| generation.number).fold(live, u64::max) + 1)
}

/// Ends the build under way and drops its table; its number, if there was one.
pub(crate) fn drop_build(tx: &Transaction<'_>, target: &str) -> Result<Option<u64>> {
    let Some(build) = generations::build(tx, target)? else { return Ok(None) };
    drop_generation(tx, target, &build)?;
    Ok(Some(build.number))
}

fn drop_generation(tx: &Transaction<'_>, target: &str, generation: &Generation) -> Result<()> {
    // Whatever else stands under that name is not ours to drop.
    if schema::is_marked(tx, &generation.relation, &generation.physical)? {
        let drop = format!("DROP TABLE {}", quote(&generation.relation));
        tx.execute_batch(&drop).map_err(sql)?;
    }
    generations::forget(tx, target, generation.number)
}

fn begin(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    beginnings: &[Beginning],
    goals: &[(TopicPartition, Position)],
) -> Result<u64> {
    let (target, mut stored) = (&spec.target, bound(tx, spec)?);
    let changed = stored.fingerprint != spec.fingerprint;
    if changed && stored.superseded.contains(&spec.fingerprint) {
        return Err(Error::config(format!(
            "this projection once built {target:?} and was superseded by a newer one: deploy the newer \
             config, or rebuild with `foldline rebuild {} --in-place`",
            spec.connector
        )));
    }
    if let Some(build) = generations::build(tx, target)? {
        if build.fingerprint == spec.fingerprint {
            return Ok(build.number);
        }
        // A newer config's rebuild: the older one's projection never comes back.
        stored.superseded.push(build.fingerprint);
        books::put_binding(tx, target, &stored)?;
        drop_build(tx, target)?;
    }
    let number = next_number(tx, target, stored.generation)?;
    let relation = name_in(target, number);
    if schema::find(tx, &relation)?.is_some() {
        return Err(Error::config(format!(
            "{relation:?} stands where the next generation of {target:?} must go: drop or rename it"
        )));
    }
    carry::check_own(tx, spec, &stored.projection)?;
    let physical = carry::make(tx, spec, &stored.projection, &relation)?;
    carry::rehearse(tx, spec, &name_in(target, stored.generation), &relation)?;
    let generation = Generation {
        number,
        role: Role::Build(Phase::Loading),
        physical,
        relation,
        fingerprint: spec.fingerprint.clone(),
        projection: spec.projection.clone(),
        goals: goals.to_vec(),
    };
    generations::put(tx, target, &generation)?;
    books::begin(tx, target, number, beginnings)?;
    Ok(number)
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

/// From one phase to the next; false where the build is in neither.
fn move_build(
    tx: &Transaction<'_>,
    target: &str,
    number: u64,
    (from, to): (Phase, Phase),
) -> Result<Stepped> {
    let build = generations::build(tx, target)?;
    let Some(build) = build.filter(|b| b.number == number && b.role == Role::Build(from)) else {
        return Ok(Stepped::NotYet(format!("the build is not {}", from.name())));
    };
    generations::put(tx, target, &Generation { role: Role::Build(to), ..build })?;
    Ok(Stepped::Done(Vec::new()))
}

fn step(tx: &Transaction<'_>, spec: &TargetSpec, number: u64, step: Step) -> Result<Stepped> {
    let (target, live) = (&spec.target, bound(tx, spec)?.generation);
    match step {
        Step::Follow => move_build(tx, target, number, (Phase::Loading, Phase::Following)),
        // A reader's snapshot never sees another table than it began with.
        Step::Hold { .. } => {
            let held = move_build(tx, target, number, (Phase::Following, Phase::Holding))?;
            if let Stepped::Done(_) = held {
                books::raise_epochs(tx, target, Some(live))?;
            }
            Ok(held)
        }
        Step::Release => move_build(tx, target, number, (Phase::Holding, Phase::Following)),
        Step::Swap => try_swap(tx, spec, number),
    }
}

fn try_swap(tx: &Transaction<'_>, spec: &TargetSpec, number: u64) -> Result<Stepped> {
    let not_yet = |reason: &str| Ok(Stepped::NotYet(reason.to_owned()));
    let (target, stored) = (&spec.target, bound(tx, spec)?);
    let build = generations::build(tx, target)?.filter(|build| build.number == number);
    let Some(build) = build.filter(|build| build.role == Role::Build(Phase::Holding)) else {
        return not_yet("the build is not holding");
    };
    if build.fingerprint != spec.fingerprint {
        return not_yet("the build is another config's");
    }
    let live = books::positions(tx, target, stored.generation)?;
    if !is_reached(&books::positions(tx, target, number)?, &live) {
        return not_yet("the live generation's positions are not reached");
    }
    carry::check_own(tx, spec, &stored.projection)?;
    swap(tx, spec, &build).map(Stepped::Done)
}

/// Makes `next` live and keeps what was; sentences for the log.
fn swap(tx: &Transaction<'_>, spec: &TargetSpec, next: &Generation) -> Result<Vec<String>> {
    let (target, mut stored) = (&spec.target, bound(tx, spec)?);
    let old = Generation {
        number: stored.generation,
        role: Role::Old,
        physical: stored.physical.clone(),
        relation: name_in(target, stored.generation),
        fingerprint: stored.fingerprint.clone(),
        projection: stored.projection.clone(),
        goals: Vec::new(),
    };
    if !schema::is_marked(tx, target, &old.physical)? {
        return Err(Error::fenced(format!("table {target:?} was dropped or replaced")));
    }
    carry::exchange(tx, spec, &old.relation, &next.relation)?;
    stored.superseded.push(old.fingerprint.clone());
    stored.superseded.retain(|fingerprint| *fingerprint != next.fingerprint);
    stored.superseded.dedup();
    stored.generation = next.number;
    stored.physical.clone_from(&next.physical);
    stored.fingerprint.clone_from(&next.fingerprint);
    stored.projection.clone_from(&next.projection);
    books::put_binding(tx, target, &stored)?;
    books::raise_epochs(tx, target, None)?;
    generations::forget_row(tx, target, next.number)?;
    generations::put(tx, target, &old)?;
    carry::orphans(tx, target)
}

fn roll_back(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<u64> {
    let target = &spec.target;
    bound(tx, spec)?;
    let beside = generations::beside(tx, target)?;
    if let Some(build) = beside.iter().find(|generation| generation.role.phase().is_some()) {
        return Err(Error::config(format!(
            "generation {} is being built: cancel that first, with `foldline rebuild {} --cancel`",
            build.number, spec.connector
        )));
    }
    let Some(old) = beside.last() else {
        return Err(Error::config(format!(
            "no older generation of {target:?} is kept (connectors.{}.keep_generations)",
            spec.connector
        )));
    };
    for notice in swap(tx, spec, old)? {
        tracing::warn!(connector = %spec.connector, "{notice}");
    }
    Ok(old.number)
}

fn drop_old(tx: &Transaction<'_>, spec: &TargetSpec, keep: usize) -> Result<Vec<u64>> {
    bound(tx, spec)?;
    let mut old = generations::beside(tx, &spec.target)?;
    old.retain(|generation| generation.role == Role::Old);
    old.truncate(old.len().saturating_sub(keep));
    for generation in &old {
        drop_generation(tx, &spec.target, generation)?;
    }
    Ok(old.iter().map(|generation| generation.number).collect())
}

#[async_trait]
impl Rebuilds for SqliteTarget {
    async fn begin(
        &self,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        let (beginnings, goals) = (beginnings.to_vec(), goals.to_vec());
        self.run(Access::Rename, move |tx, spec| {
            books::create(tx)?;
            begin(tx, spec, &beginnings, &goals)
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

    async fn cancel(&self) -> Result<Option<u64>> {
        self.run(Access::Write, |tx, spec| {
            bound(tx, spec)?;
            drop_build(tx, &spec.target)
        })
        .await
    }

    async fn roll_back(&self) -> Result<u64> {
        self.run(Access::Rename, roll_back).await
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        self.run(Access::Write, move |tx, spec| drop_old(tx, spec, keep)).await
    }
}
