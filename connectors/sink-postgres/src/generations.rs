//! The books of generations that are not the live one: the one being built, and those kept.

use foldline_api::column::IDENTIFIER_BYTES_MAX;
use foldline_api::lifecycle::Beside;
use foldline_api::rebuild::{Phase, Role};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::{Error, Result};
use serde_json::Value as Json;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param};
use crate::identifier::fnv1a;
use crate::row::{FromRow, get};

/// One generation beside the live one.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    /// Its number.
    pub(crate) number: u64,
    /// What it is for.
    pub(crate) role: Role,
    /// Its table's OID.
    pub(crate) physical: String,
    /// Its table's name, in the live table's schema.
    pub(crate) relation: String,
    /// The fingerprint of the projection that folds it.
    pub(crate) fingerprint: String,
    /// That projection in its stable JSON form.
    pub(crate) projection: Json,
    /// Where each partition ended when the build began.
    pub(crate) goals: Vec<(TopicPartition, Position)>,
    /// The transaction that ended the load.
    pub(crate) loaded_xid: Option<i64>,
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

    /// As the books keep it, of a table that is called `table` while it is live.
    pub(crate) fn of(beside: &Beside, table: &str, goals: &[(TopicPartition, Position)]) -> Self {
        Generation {
            number: beside.number,
            role: beside.role,
            physical: beside.physical.clone(),
            relation: name_in(table, beside.number),
            fingerprint: beside.fingerprint.clone(),
            projection: beside.projection.clone(),
            goals: if beside.role == Role::Old { Vec::new() } else { goals.to_vec() },
            loaded_xid: None,
        }
    }
}

/// The name that a table or an index has in generation `number`, while it is not live.
pub(crate) fn name_in(name: &str, number: u64) -> String {
    let suffix = format!("__g{number}");
    if name.len() + suffix.len() <= IDENTIFIER_BYTES_MAX {
        return format!("{name}{suffix}");
    }
    let suffix = format!("_{:08x}{suffix}", fnv1a(name.as_bytes()) as u32);
    let mut end = IDENTIFIER_BYTES_MAX - suffix.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}

impl Books {
    /// The generations beside the live one, by number. `lock` as in [`Books::entry`].
    pub(crate) async fn generations(
        &self,
        client: &Client,
        target: &str,
        lock: &str,
    ) -> Result<Vec<Generation>> {
        let sql = format!("{}{lock}", sql!("generations", schema = self.schema));
        self.select(client, &sql, &[(&target, Type::TEXT)]).await
    }

    /// Writes a generation's row.
    pub(crate) async fn put_generation(
        &self,
        client: &Client,
        target: &str,
        generation: &Generation,
    ) -> Result<()> {
        let sql = sql!("put_generation", schema = self.schema);
        let (number, role) = (generation.number.cast_signed(), generation.role.name());
        let projection = generation.projection.to_string();
        let goals = Json::Array(
            generation
                .goals
                .iter()
                .map(|(p, at)| serde_json::json!([&*p.topic, p.partition, at.0]))
                .collect(),
        )
        .to_string();
        let params: [Param<'_>; 9] = [
            (&target, Type::TEXT),
            (&number, Type::INT8),
            (&role, Type::TEXT),
            (&generation.physical, Type::TEXT),
            (&generation.relation, Type::TEXT),
            (&generation.fingerprint, Type::TEXT),
            (&projection, Type::TEXT),
            (&goals, Type::TEXT),
            (&generation.loaded_xid, Type::INT8),
        ];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Moves a build from one phase to another; false where it is not in the first.
    pub(crate) async fn move_build(
        &self,
        client: &Client,
        (target, number): (&str, u64),
        from: Phase,
        to: Phase,
    ) -> Result<bool> {
        let sql = sql!("move_build", schema = self.schema);
        let (number, from, to) = (number.cast_signed(), from.name(), to.name());
        let params: [Param<'_>; 4] =
            [(&target, Type::TEXT), (&number, Type::INT8), (&from, Type::TEXT), (&to, Type::TEXT)];
        Ok(self.execute(client, &sql, &params).await? == 1)
    }

    /// Another table has a generation's rows, of a restore from a backup. Transactions of the server that it was
    /// loaded on say nothing here.
    pub(crate) async fn take_generation(
        &self,
        client: &Client,
        (target, number): (&str, u64),
        physical: &str,
    ) -> Result<()> {
        let sql = sql!("take_generation", schema = self.schema);
        let number = number.cast_signed();
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&number, Type::INT8), (&physical, Type::TEXT)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Forgets a generation beside the live one, its positions too.
    pub(crate) async fn forget_generation(
        &self,
        client: &Client,
        target: &str,
        number: u64,
    ) -> Result<()> {
        self.forget(client, target, Some(number)).await?;
        self.forget_row(client, target, number).await
    }

    /// Forgets only the row of a generation that becomes the live one.
    pub(crate) async fn forget_row(
        &self,
        client: &Client,
        target: &str,
        number: u64,
    ) -> Result<()> {
        let sql = sql!("forget_generation", schema = self.schema);
        let number = number.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&number, Type::INT8)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }
}

impl FromRow for Generation {
    fn from_row(row: &Row) -> Result<Self> {
        let (number, role): (i64, &str) = (get(row, "generation")?, get(row, "role")?);
        let Some(role) = Role::parse(role) else {
            return Err(Error::config("Foldline's books are not of this version of Foldline"));
        };
        let (projection, goals): (&str, &str) = (get(row, "projection")?, get(row, "goals")?);
        let goals: Vec<(String, i32, i64)> = serde_json::from_str(goals).unwrap_or_default();
        Ok(Generation {
            number: number.cast_unsigned(),
            role,
            physical: get(row, "physical")?,
            relation: get(row, "relation")?,
            fingerprint: get(row, "fingerprint")?,
            projection: serde_json::from_str(projection).unwrap_or_default(),
            goals: goals
                .into_iter()
                .map(|(topic, partition, at)| (TopicPartition::new(topic, partition), Position(at)))
                .collect(),
            loaded_xid: get(row, "loaded_xid")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_generations_fit_and_stay_apart() {
        assert_eq!(name_in("orders", 2), "orders__g2");
        let (a, b) = (format!("{}a", "ä".repeat(31)), format!("{}b", "ä".repeat(31)));
        let (one, two) = (name_in(&a, 12), name_in(&b, 12));
        assert!(one.len() <= IDENTIFIER_BYTES_MAX && one != two, "{one} {two}");
    }
}
