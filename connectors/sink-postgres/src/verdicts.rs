//! The records that a generation leaves out, since the database refused them or an operator dropped them, and
//! whether what refused them still stands.
//!
//! A generation takes those of the one before over as open; what its position has passed is answered. A refusal is
//! known again by the constraint's definition and the projection's fingerprint. Foreign keys, partitions, triggers and
//! constraints that call a user's function depend on more, so there is nothing to know them by.

use std::collections::HashSet;

use foldline_api::parked::DROPPED;
use foldline_api::sink::StoredVerdict;
use foldline_api::{Error, Result};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param, Partitions, partition_of, read};

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
    /// The DDL of the verdicts' table.
    pub(crate) fn verdicts_ddl(table: &str) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    target text NOT NULL,\n    generation bigint NOT NULL,\n    \
             topic text NOT NULL,\n    partition integer NOT NULL,\n    record_offset bigint NOT NULL,\n    reason \
             text NOT NULL,\n    definition text,\n    open boolean NOT NULL DEFAULT false,\n    PRIMARY KEY \
             (target, generation, topic, partition, record_offset)\n)"
        )
    }

    /// Whether the table is of this version.
    pub(crate) async fn verdicts_are_open(&self, client: &Client) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'open' \
                   AND NOT attisdropped)";
        let rows = self.query(client, sql, &[(&self.verdicts, Type::TEXT)]).await?;
        read(rows.first(), 0)
    }

    /// Brings the table of an earlier version up to this one. What no position has passed is a question.
    pub(crate) async fn open_verdicts(&self, client: &Client) -> Result<()> {
        if self.verdicts_are_open(client).await? {
            return Ok(());
        }
        let Books { verdicts, positions, .. } = self;
        for sql in [
            format!(
                "ALTER TABLE {verdicts} ADD COLUMN definition text, ADD COLUMN open boolean NOT NULL DEFAULT false"
            ),
            format!(
                "UPDATE {verdicts} AS v SET open = true FROM {positions} AS p WHERE p.target = v.target AND \
                 p.generation = v.generation AND p.topic = v.topic AND p.partition = v.partition AND \
                 v.record_offset >= p.position"
            ),
        ] {
            self.execute(client, &sql, &[]).await?;
        }
        Ok(())
    }

    /// Keeps verdicts.
    pub(crate) fn verdict_sql(&self) -> String {
        format!(
            "INSERT INTO {} (target, generation, topic, partition, record_offset, reason, definition) SELECT $1, \
             $2, u.topic, u.partition, u.record_offset, u.reason, u.definition FROM unnest($3::text[], $4::int4[], \
             $5::int8[], $6::text[], $7::text[]) AS u(topic, partition, record_offset, reason, definition) ON \
             CONFLICT (target, generation, topic, partition, record_offset) DO UPDATE SET reason = excluded.reason, \
             definition = excluded.definition, open = false",
            self.verdicts
        )
    }

    /// Takes what one generation leaves out, or has still to decide, over into another, for topics of the same id.
    pub(crate) async fn take_over_verdicts(
        &self,
        client: &Client,
        target: &str,
        (from, to): (u64, u64),
    ) -> Result<()> {
        let sql = format!(
            "INSERT INTO {0} (target, generation, topic, partition, record_offset, reason, definition, open) SELECT \
             v.target, $3, v.topic, v.partition, v.record_offset, v.reason, v.definition, true FROM {0} AS v JOIN {1} \
             AS a USING (target, generation, topic, partition) JOIN {1} AS b ON b.target = v.target AND b.generation = \
             $3 AND b.topic = v.topic AND b.partition = v.partition WHERE v.target = $1 AND v.generation = $2 AND (NOT \
             v.open OR v.record_offset >= a.position) AND (a.topic_id <> b.topic_id) IS NOT TRUE ON CONFLICT DO \
             NOTHING",
            self.verdicts, self.positions
        );
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
        let sql = format!(
            "SELECT v.topic, v.partition, v.record_offset, v.reason, v.definition FROM {0} AS v JOIN {1} AS a USING \
             (target, generation, topic, partition) JOIN {1} AS p ON p.target = v.target AND p.generation = $2 AND \
             p.topic = v.topic AND p.partition = v.partition JOIN unnest($3::text[], $4::int4[]) AS u(topic, \
             partition) ON u.topic = v.topic AND u.partition = v.partition WHERE v.target = $1 AND v.record_offset >= \
             p.position AND (v.generation = $2 OR v.reason = $5 AND (a.topic_id <> p.topic_id) IS NOT TRUE) ORDER BY \
             1, 2, 3, v.reason <> $5",
            self.verdicts, self.positions
        );
        let generation = generation.cast_signed();
        let params: [Param<'_>; 5] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&list.topics, Type::TEXT_ARRAY),
            (&list.partitions, Type::INT4_ARRAY),
            (&DROPPED, Type::TEXT),
        ];
        let rows = self.query(client, &sql, &params).await?;
        let mut found: Vec<StoredVerdict> = rows.iter().map(stored).collect::<Result<_>>()?;
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
        let sql = format!(
            "SELECT topic, partition, record_offset, reason, definition FROM {} WHERE target = $1 AND generation = $2 \
             AND NOT open ORDER BY 1, 2, 3",
            self.verdicts
        );
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        let rows = self.query(client, &sql, &params).await?;
        rows.iter().map(stored).collect()
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
        let sql = "SELECT r.name, r.definition, t.relname FROM pg_class AS t, LATERAL (SELECT c.conname::text AS name, \
                   pg_get_constraintdef(c.oid) AS definition FROM pg_constraint AS c WHERE c.conrelid = t.oid AND \
                   c.contype IN ('c', 'x') AND NOT EXISTS (SELECT 1 FROM pg_depend AS d WHERE d.classid = \
                   'pg_constraint'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_proc'::regclass) UNION ALL \
                   SELECT i.relname::text, 'UNIQUE' || substring(pg_get_indexdef(i.oid) FROM ' USING .*') FROM pg_index \
                   AS x JOIN pg_class AS i ON i.oid = x.indexrelid WHERE x.indrelid = t.oid AND x.indisunique AND NOT \
                   EXISTS (SELECT 1 FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid AND \
                   d.refclassid = 'pg_proc'::regclass) UNION ALL SELECT a.attname::text, 'NOT NULL ' || \
                   quote_ident(a.attname) FROM pg_attribute AS a WHERE a.attrelid = t.oid AND a.attnum > 0 AND \
                   a.attnotnull) AS r(name, definition) WHERE t.oid = ANY($1) AND NOT EXISTS (SELECT 1 FROM pg_trigger \
                   AS g WHERE g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D')";
        let rows = self.query(client, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        let rule = |row: &Row| -> Result<Rule> {
            let row = Some(row);
            let (name, definition, table) = (read(row, 0)?, read(row, 1)?, read(row, 2)?);
            Ok(Rule { name, definition, table })
        };
        rows.iter().map(rule).collect()
    }
}

/// A definition as verdicts keep it: another model makes other rows.
fn signed(fingerprint: &str, definition: &str) -> String {
    format!("{fingerprint} {definition}")
}

fn stored(row: &Row) -> Result<StoredVerdict, Error> {
    let row = Some(row);
    let reason: String = read(row, 3)?;
    Ok(StoredVerdict::new(partition_of(row)?, read(row, 2)?, reason, read(row, 4)?))
}
