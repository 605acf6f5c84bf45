//! The books of generations that are not the live one: the one being built, and those kept.

use foldline_api::lifecycle::Beside;
use foldline_api::rebuild::Role;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::{Error, Result};
use rusqlite::{Row, Transaction};
use serde_json::Value as Json;

use crate::database::sql;

/// Made at first open.
pub(crate) const DDL: &str = "CREATE TABLE IF NOT EXISTS _foldline_generations (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  role TEXT NOT NULL,
  physical TEXT NOT NULL,
  relation TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  projection TEXT NOT NULL,
  goals TEXT NOT NULL,
  PRIMARY KEY (target, generation)
) STRICT, WITHOUT ROWID";

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
    let mut statement = tx
        .prepare_cached(
            "SELECT generation, role, physical, relation, fingerprint, projection, goals \
             FROM _foldline_generations WHERE target = ?1 ORDER BY generation",
        )
        .map_err(sql)?;
    let rows = statement.query_map([target], read).map_err(sql)?;
    let strange = || Error::config("Foldline's books are not of this version of Foldline");
    rows.map(|row| row.map_err(sql)?.ok_or_else(strange)).collect()
}

/// None where the role is none of this version's.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<Generation>> {
    let (number, role): (i64, String) = (row.get(0)?, row.get(1)?);
    let Some(role) = Role::parse(&role) else { return Ok(None) };
    let (projection, goals): (String, String) = (row.get(5)?, row.get(6)?);
    let goals: Vec<(String, i32, i64)> = serde_json::from_str(&goals).unwrap_or_default();
    Ok(Some(Generation {
        number: number.cast_unsigned(),
        role,
        physical: row.get(2)?,
        relation: row.get(3)?,
        fingerprint: row.get(4)?,
        projection: serde_json::from_str(&projection).unwrap_or_default(),
        goals: goals
            .into_iter()
            .map(|(topic, partition, at)| (TopicPartition::new(topic, partition), Position(at)))
            .collect(),
    }))
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
        "INSERT OR REPLACE INTO _foldline_generations (target, generation, role, physical, relation, \
         fingerprint, projection, goals) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
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
    ] {
        let delete = format!("DELETE FROM {table} WHERE target = ?1 AND generation = ?2");
        tx.execute(&delete, (target, number.cast_signed())).map_err(sql)?;
    }
    Ok(())
}
