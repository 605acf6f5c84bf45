//! The records that a generation leaves out, since the database refused them or an operator dropped them, and
//! whether what refused them still stands.
//!
//! A generation takes those of the one before over as open; what its position has passed is answered. A refusal is
//! known again by the constraint's definition and the projection's fingerprint. Foreign keys, partitions, triggers and
//! constraints that call a user's function depend on more, so there is nothing to know them by.

use std::collections::HashSet;

use foldline_api::Result;
use foldline_api::parked::DROPPED;
use foldline_api::sink::StoredVerdict;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param, Partitions};
use crate::row::{FromRow, get, partition_of};

/// What an error says of what refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blame {
    constraint: Option<String>,
    column: Option<String>,
    table: Option<String>,
}

impl Blame {
    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else { return Blame::default() };
        let text = |name: Option<&str>| name.map(str::to_owned);
        match db.code().code() {
            "23514" | "23505" | "23P01" => {
                Blame { constraint: text(db.constraint()), table: text(db.table()), column: None }
            }
            "23502" => {
                Blame { constraint: None, table: text(db.table()), column: text(db.column()) }
            }
            _ => Blame::default(),
        }
    }

    /// Whether no rule of the table is named.
    pub(crate) fn is_unknown(&self) -> bool {
        self.constraint.is_none() && self.column.is_none()
    }
}

/// A rule of a table.
#[derive(Clone, Debug)]
struct Rule {
    /// What an error calls it by: the constraint, the index, or the column.
    name: String,
    definition: String,
    table: String,
}

impl Books {
    /// Whether the table is of this version.
    pub(crate) async fn verdicts_are_open(&self, client: &Client) -> Result<bool> {
        self.has_column(client, "verdicts", "open").await
    }

    /// Brings the table of an earlier version up to this one. What no position has passed is a question.
    pub(crate) async fn open_verdicts(&self, client: &Client) -> Result<()> {
        if self.verdicts_are_open(client).await? {
            return Ok(());
        }
        for sql in
            [sql!("open_column", schema = self.schema), sql!("open_unpassed", schema = self.schema)]
        {
            self.execute(client, &sql, &[]).await?;
        }
        Ok(())
    }

    /// Keeps verdicts.
    pub(crate) fn verdict_sql(&self) -> String {
        sql!("keep_verdicts", schema = self.schema)
    }

    /// Takes what one generation leaves out, or has still to decide, over into another, for topics of the same id.
    pub(crate) async fn take_over_verdicts(
        &self,
        client: &Client,
        target: &str,
        (from, to): (u64, u64),
    ) -> Result<()> {
        let sql = sql!("take_verdicts_over", schema = self.schema);
        let (from, to) = (from.cast_signed(), to.cast_signed());
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&from, Type::INT8), (&to, Type::INT8)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// What a generation has still to decide in `list`, at or after its positions, and what an operator dropped in any
    /// generation of the same topic ids.
    pub(crate) async fn verdicts(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
        list: &Partitions,
    ) -> Result<Vec<StoredVerdict>> {
        let sql = sql!("open_verdicts", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 5] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&list.topics, Type::TEXT_ARRAY),
            (&list.partitions, Type::INT4_ARRAY),
            (&DROPPED, Type::TEXT),
        ];
        let mut found: Vec<StoredVerdict> = self.select(client, &sql, &params).await?;
        // The first of a place is the operator's.
        found.dedup_by(|next, kept| {
            (&next.partition, next.offset) == (&kept.partition, kept.offset)
        });
        Ok(found)
    }

    /// The records that a generation leaves out.
    pub(crate) async fn all_verdicts(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
    ) -> Result<Vec<StoredVerdict>> {
        let sql = sql!("left_out", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        self.select(client, &sql, &params).await
    }

    /// Says of each verdict whether what refused stands on one of these tables.
    pub(crate) async fn judge(
        &self,
        client: &Client,
        tables: &[u32],
        fingerprint: &str,
        verdicts: Vec<StoredVerdict>,
    ) -> Result<Vec<StoredVerdict>> {
        if verdicts.iter().all(|verdict| verdict.definition.is_none()) {
            return Ok(verdicts.into_iter().map(|verdict| verdict.judged(|_| false)).collect());
        }
        let rules = self.rules(client, tables).await?;
        let now: HashSet<String> =
            rules.iter().map(|rule| signed(fingerprint, &rule.definition)).collect();
        let judged = |verdict: StoredVerdict| verdict.judged(|known| now.contains(known));
        Ok(verdicts.into_iter().map(judged).collect())
    }

    /// The definition that refused, if the table's own rules alone decide.
    pub(crate) async fn definition(
        &self,
        client: &Client,
        table: u32,
        fingerprint: &str,
        blame: &Blame,
    ) -> Result<Option<String>> {
        let Some(name) = blame.constraint.as_ref().or(blame.column.as_ref()) else {
            return Ok(None);
        };
        let rules = self.rules(client, &[table]).await?;
        let rule = rules
            .iter()
            .find(|rule| rule.name == *name && blame.table.as_ref() == Some(&rule.table));
        Ok(rule.map(|rule| signed(fingerprint, &rule.definition)))
    }

    /// What tables ask of each row by themselves; nothing of a table with triggers, which may change it first.
    async fn rules(&self, client: &Client, tables: &[u32]) -> Result<Vec<Rule>> {
        let params: [Param<'_>; 1] = [(&tables, Type::OID_ARRAY)];
        self.select(client, sql!("catalog/rules"), &params).await
    }
}

impl FromRow for Rule {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Rule {
            name: get(row, "name")?,
            definition: get(row, "definition")?,
            table: get(row, "relname")?,
        })
    }
}

impl FromRow for StoredVerdict {
    fn from_row(row: &Row) -> Result<Self> {
        let (reason, definition): (String, _) = (get(row, "reason")?, get(row, "definition")?);
        let offset = get(row, "record_offset")?;
        Ok(StoredVerdict::new(partition_of(row)?, offset, reason, definition))
    }
}

/// A definition as verdicts keep it: another model makes other rows.
fn signed(fingerprint: &str, definition: &str) -> String {
    format!("{fingerprint} {definition}")
}
