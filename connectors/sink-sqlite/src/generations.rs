//! The books of generations that are not the live one: the one being built, and those kept.

use foldline_api::lifecycle::Beside;
use foldline_api::rebuild::Role;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::{Error, Result};
use rusqlite::{Row, Transaction};
use serde_json::Value as Json;

use crate::database::sql;
use crate::row::{FromRow, get, select};

/// One generation beside the live one.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    /// Its number.
    pub(crate) number: u64,
    /// What it is for.
    pub(crate) role: Role,
    /// Its table's mark.
    pub(crate) physical: String,
    /// Its table's name while it is not live.
    pub(crate) relation: String,
    /// The fingerprint of the projection that folds it.
    pub(crate) fingerprint: String,
    /// That projection in its stable JSON form.
    pub(crate) projection: Json,
    /// Where each partition ended when the build began.
    pub(crate) goals: Vec<(TopicPartition, Position)>,
}

impl Generation {
    /// As the lifecycle knows it.
    pub(crate) fn beside(&self) -> Beside {
        Beside {
            number: self.number,
            role: self.role,
            physical: self.physical.clone(),
            fingerprint: self.fingerprint.clone(),
            projection: self.projection.clone(),
        }
    }

    /// As the books keep it.
    pub(crate) fn of(
        beside: &Beside,
        target: &str,
        goals: Vec<(TopicPartition, Position)>,
    ) -> Self {
        Generation {
            number: beside.number,
            role: beside.role,
            physical: beside.physical.clone(),
            relation: name_in(target, beside.number),
            fingerprint: beside.fingerprint.clone(),
            projection: beside.projection.clone(),
            goals: if beside.role == Role::Old { Vec::new() } else { goals },
        }
    }
}

/// The name of a generation's table while it is not live.
pub(crate) fn name_in(target: &str, number: u64) -> String {
    format!("{target}__g{number}")
}

/// The generations beside the live one, by number.
pub(crate) fn beside(tx: &Transaction<'_>, target: &str) -> Result<Vec<Generation>> {
    select(tx, include_str!("sql/generations.sql"), [target])
}

impl FromRow for Generation {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let (number, role): (i64, String) = (get(row, "generation")?, get(row, "role")?);
        let Some(role) = Role::parse(&role) else {
            return Err(Error::config("Foldline's books are not of this version of Foldline"));
        };
        let (projection, goals): (String, String) = (get(row, "projection")?, get(row, "goals")?);
        let goals: Vec<(String, i32, i64)> = serde_json::from_str(&goals).unwrap_or_default();
        Ok(Generation {
            number: number.cast_unsigned(),
            role,
            physical: get(row, "physical")?,
            relation: get(row, "relation")?,
            fingerprint: get(row, "fingerprint")?,
            projection: serde_json::from_str(&projection).unwrap_or_default(),
            goals: goals
                .into_iter()
                .map(|(topic, partition, at)| (TopicPartition::new(topic, partition), Position(at)))
                .collect(),
        })
    }
}

/// The build of a target, if there is one.
pub(crate) fn build(tx: &Transaction<'_>, target: &str) -> Result<Option<Generation>> {
    Ok(beside(tx, target)?.into_iter().find(|generation| generation.role.phase().is_some()))
}

/// Writes a generation's row.
pub(crate) fn put(tx: &Transaction<'_>, target: &str, generation: &Generation) -> Result<()> {
    let goals: Vec<(&str, i32, i64)> =
        generation.goals.iter().map(|(p, at)| (&*p.topic, p.partition, at.0)).collect();
    let goals = serde_json::to_string(&goals)
        .map_err(|error| Error::config("goals cannot be written").with_source(error))?;
    tx.execute(
        include_str!("sql/put_generation.sql"),
        (
            target,
            generation.number.cast_signed(),
            generation.role.name(),
            &generation.physical,
            &generation.relation,
            &generation.fingerprint,
            generation.projection.to_string(),
            goals,
        ),
    )
    .map(drop)
    .map_err(sql)
}

/// Forgets the row of a generation that becomes the live one.
pub(crate) fn forget_row(tx: &Transaction<'_>, target: &str, number: u64) -> Result<()> {
    let delete = "DELETE FROM _foldline_generations WHERE target = ?1 AND generation = ?2";
    tx.execute(delete, (target, number.cast_signed())).map(drop).map_err(sql)
}

/// Forgets a generation beside the live one, its positions, what it parked and what it left out too.
pub(crate) fn forget(tx: &Transaction<'_>, target: &str, number: u64) -> Result<()> {
    forget_row(tx, target, number)?;
    for table in [
        "_foldline_positions",
        "_foldline_parked",
        "_foldline_holes",
        "_foldline_left_out",
        "_foldline_bad_records",
        "_foldline_lookups",
        "_foldline_gathers",
        "_foldline_notes",
    ] {
        let delete = format!("DELETE FROM {table} WHERE target = ?1 AND generation = ?2");
        tx.execute(&delete, (target, number.cast_signed())).map_err(sql)?;
    }
    Ok(())
}
