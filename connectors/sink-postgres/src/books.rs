//! Foldline's books: whose a table is, where each partition stands, and the verdicts of the store.

use std::sync::Arc;

use foldline_api::binding::Binding;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState, StoredPosition};
use foldline_api::{Error, Result};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::classify;
use crate::identifier::{fnv1a, literal, quote};

/// A parameter and its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

const DOING: &str = "Foldline's books";

/// The books in one schema, as SQL. Pure text but for its async methods, which run inside the caller's
/// transaction.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    schema: String,
    targets: String,
    pub(crate) positions: String,
    pub(crate) verdicts: String,
    extensions: String,
    pub(crate) generations: String,
    pub(crate) parked: String,
    pub(crate) holes: String,
    pub(crate) bad: String,
}

/// A target as the books have it.
pub(crate) struct Entry {
    /// Whose it is.
    pub(crate) binding: Binding,
    /// What the operator wants.
    pub(crate) desired: DesiredState,
}

/// The partitions of a statement, as its array parameters.
pub(crate) struct Partitions {
    /// Topics.
    pub(crate) topics: Vec<String>,
    /// Partition numbers, in step with the topics.
    pub(crate) partitions: Vec<i32>,
}

impl Partitions {
    pub(crate) fn new<'a>(list: impl IntoIterator<Item = &'a TopicPartition>) -> Self {
        let (topics, partitions) =
            list.into_iter().map(|p| (p.topic.to_string(), p.partition)).unzip();
        Partitions { topics, partitions }
    }
}

impl Books {
    pub(crate) fn new(schema: &str) -> Self {
        let schema = quote(schema);
        let table = |name: &str| format!("{schema}.{name}");
        Books {
            targets: table("targets"),
            positions: table("positions"),
            verdicts: table("verdicts"),
            extensions: table("extensions"),
            generations: table("generations"),
            parked: table("parked"),
            holes: table("holes"),
            bad: table("bad_records"),
            schema,
        }
    }

    /// The DDL of the books.
    pub(crate) fn ddl(&self) -> Vec<String> {
        let Books {
            schema,
            targets,
            positions,
            verdicts,
            extensions,
            generations,
            parked,
            holes,
            bad,
        } = self;
        vec![
            format!("CREATE SCHEMA IF NOT EXISTS {schema}"),
            format!(
                "CREATE TABLE IF NOT EXISTS {targets} (\n    target text PRIMARY KEY,\n    worker text NOT \
                 NULL,\n    connector text NOT NULL,\n    consumer_group text NOT NULL,\n    log text NOT \
                 NULL,\n    physical text NOT NULL,\n    generation bigint NOT NULL,\n    fingerprint text \
                 NOT NULL,\n    superseded text[] NOT NULL,\n    projection json NOT NULL,\n    desired text \
                 NOT NULL DEFAULT 'running',\n    updated_at timestamptz NOT NULL DEFAULT now()\n)"
            ),
            // Rewritten by every flush: half empty pages keep the updates on them.
            format!(
                "CREATE TABLE IF NOT EXISTS {positions} (\n    target text NOT NULL,\n    generation bigint \
                 NOT NULL,\n    topic text NOT NULL,\n    partition integer NOT NULL,\n    topic_id text,\n    \
                 beginning bigint NOT NULL,\n    position bigint NOT NULL,\n    epoch bigint NOT NULL,\n    \
                 updated_at timestamptz NOT NULL DEFAULT now(),\n    PRIMARY KEY (target, generation, topic, \
                 partition)\n) WITH (fillfactor = 50)"
            ),
            Books::verdicts_ddl(verdicts),
            format!(
                "CREATE TABLE IF NOT EXISTS {extensions} (\n    target text NOT NULL,\n    generation bigint \
                 NOT NULL,\n    fingerprint text NOT NULL,\n    topic text NOT NULL,\n    partition integer \
                 NOT NULL,\n    position bigint NOT NULL,\n    recorded_at timestamptz NOT NULL DEFAULT \
                 now(),\n    PRIMARY KEY (target, generation, fingerprint, topic, partition)\n)"
            ),
            Books::generations_ddl(generations),
            Books::parked_ddl(parked),
            Books::holes_ddl(holes),
            Books::bad_ddl(bad),
        ]
    }

    /// Takes the lock under which tables are made, until the transaction ends, and makes what is
    /// missing. A role without the right to create is fine where nothing is missing.
    pub(crate) async fn ensure(&self, client: &Client) -> Result<()> {
        let number = fnv1a(format!("foldline {}", self.schema).as_bytes()).cast_signed();
        self.execute(client, "SELECT pg_advisory_xact_lock($1)", &[(&number, Type::INT8)]).await?;
        let Books {
            targets, positions, verdicts, extensions, generations, parked, holes, bad, ..
        } = self;
        let tables = [targets, positions, verdicts, extensions, generations, parked, holes, bad];
        let names: Vec<&str> = tables.iter().map(|name| name.as_str()).collect();
        let sql = "SELECT bool_and(to_regclass(n) IS NOT NULL) FROM unnest($1::text[]) AS n";
        let rows = self.query(client, sql, &[(&names, Type::TEXT_ARRAY)]).await?;
        let there: bool = read(rows.first(), 0)?;
        if there && self.verdicts_are_open(client).await? {
            return Ok(());
        }
        // Who may create in the schema that an administrator made may not create schemas, and PostgreSQL asks that first.
        let sql = "SELECT to_regnamespace($1) IS NOT NULL";
        let rows = self.query(client, sql, &[(&self.schema, Type::TEXT)]).await?;
        let there = usize::from(read::<bool>(rows.first(), 0)?);
        client
            .batch_execute(&self.ddl().split_off(there).join(";\n"))
            .await
            .map_err(|error| classify(error, "creating Foldline's books"))?;
        self.open_verdicts(client).await
    }

    /// Whether the books have been made.
    pub(crate) async fn exist(&self, client: &Client) -> Result<bool> {
        let sql = "SELECT to_regclass($1) IS NOT NULL";
        read(self.query(client, sql, &[(&self.targets, Type::TEXT)]).await?.first(), 0)
    }

    pub(crate) async fn query(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>> {
        client.query_typed(sql, params).await.map_err(|error| classify(error, DOING))
    }

    pub(crate) async fn execute(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<u64> {
        client.execute_typed(sql, params).await.map_err(|error| classify(error, DOING))
    }

    /// The entry of `target`. `lock` is empty, `FOR SHARE` or `FOR UPDATE`.
    pub(crate) async fn entry(
        &self,
        client: &Client,
        target: &str,
        lock: &str,
    ) -> Result<Option<Entry>> {
        let sql = format!(
            "SELECT worker, connector, consumer_group, log, physical, generation, fingerprint, superseded, \
             projection::text, desired FROM {} WHERE target = $1 {lock}",
            self.targets
        );
        let rows = self.query(client, &sql, &[(&target, Type::TEXT)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let row = Some(row);
        let generation: i64 = read(row, 5)?;
        let projection: String = read(row, 8)?;
        let desired: String = read(row, 9)?;
        let binding = Binding {
            worker: read(row, 0)?,
            connector: read(row, 1)?,
            group: read(row, 2)?,
            log: read(row, 3)?,
            physical: read(row, 4)?,
            generation: generation.cast_unsigned(),
            fingerprint: read(row, 6)?,
            superseded: read(row, 7)?,
            projection: serde_json::from_str(&projection).unwrap_or_default(),
            // Kept with their positions, in a table of their own.
            continued: Vec::new(),
        };
        let desired = match desired.as_str() {
            "paused" => DesiredState::Paused,
            "stopped" => DesiredState::Stopped,
            _ => DesiredState::Running,
        };
        Ok(Some(Entry { binding, desired }))
    }

    /// Writes the entry of `target`; what the operator wants stays.
    pub(crate) async fn bind(
        &self,
        client: &Client,
        target: &str,
        binding: &Binding,
    ) -> Result<()> {
        let sql = format!(
            "INSERT INTO {} (target, worker, connector, consumer_group, log, physical, generation, \
             fingerprint, superseded, projection) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::json) ON \
             CONFLICT (target) DO UPDATE SET worker = excluded.worker, connector = excluded.connector, \
             consumer_group = excluded.consumer_group, log = excluded.log, physical = excluded.physical, \
             generation = excluded.generation, fingerprint = excluded.fingerprint, superseded = \
             excluded.superseded, projection = excluded.projection, updated_at = now()",
            self.targets
        );
        let generation = binding.generation.cast_signed();
        let projection = binding.projection.to_string();
        let params: [Param<'_>; 10] = [
            (&target, Type::TEXT),
            (&binding.worker, Type::TEXT),
            (&binding.connector, Type::TEXT),
            (&binding.group, Type::TEXT),
            (&binding.log, Type::TEXT),
            (&binding.physical, Type::TEXT),
            (&generation, Type::INT8),
            (&binding.fingerprint, Type::TEXT),
            (&binding.superseded, Type::TEXT_ARRAY),
            (&projection, Type::TEXT),
        ];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Keeps what the operator wants; false where there is no such target.
    pub(crate) async fn set_desired(
        &self,
        client: &Client,
        target: &str,
        desired: DesiredState,
    ) -> Result<bool> {
        let desired = match desired {
            DesiredState::Running => "running",
            DesiredState::Paused => "paused",
            DesiredState::Stopped => "stopped",
        };
        let sql = format!(
            "UPDATE {} SET desired = $2, updated_at = now() WHERE target = $1",
            self.targets
        );
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&desired, Type::TEXT)];
        Ok(self.execute(client, &sql, &params).await? > 0)
    }

    /// The positions of a generation, by topic and partition. `lock` as in [`Books::entry`].
    pub(crate) async fn positions(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
        lock: &str,
    ) -> Result<Vec<StoredPosition>> {
        let sql = format!(
            "SELECT topic, partition, topic_id, beginning, position, epoch FROM {} WHERE target = $1 AND \
             generation = $2 ORDER BY topic COLLATE \"C\", partition {lock}",
            self.positions
        );
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        let rows = self.query(client, &sql, &params).await?;
        rows.iter().map(stored_position).collect()
    }

    /// The positions of all generations, each with its generation.
    pub(crate) async fn all_positions(
        &self,
        client: &Client,
        target: &str,
    ) -> Result<Vec<(u64, StoredPosition)>> {
        let sql = format!(
            "SELECT topic, partition, topic_id, beginning, position, epoch, generation FROM {} \
             WHERE target = $1 ORDER BY topic COLLATE \"C\", partition",
            self.positions
        );
        let rows = self.query(client, &sql, &[(&target, Type::TEXT)]).await?;
        let each = |row: &Row| {
            let generation: i64 = read(Some(row), 6)?;
            Ok((generation.cast_unsigned(), stored_position(row)?))
        };
        rows.iter().map(each).collect()
    }

    /// Records beginnings where there is no position yet.
    pub(crate) async fn begin(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
        beginnings: &[Beginning],
    ) -> Result<()> {
        let sql = self.begin_sql();
        let list = Partitions::new(beginnings.iter().map(|b| &b.partition));
        let ids: Vec<Option<&str>> = beginnings.iter().map(|b| b.topic_id.as_deref()).collect();
        let from: Vec<i64> = beginnings.iter().map(|b| b.position.0).collect();
        let generation = generation.cast_signed();
        let params: [Param<'_>; 6] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&list.topics, Type::TEXT_ARRAY),
            (&list.partitions, Type::INT4_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&from, Type::INT8_ARRAY),
        ];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    fn begin_sql(&self) -> String {
        format!(
            "INSERT INTO {} (target, generation, topic, partition, topic_id, beginning, position, epoch) \
             SELECT $1, $2, u.topic, u.partition, u.id, u.start, u.start, 0 FROM unnest($3::text[], \
             $4::int4[], $5::text[], $6::int8[]) AS u(topic, partition, id, start) ORDER BY u.topic, \
             u.partition ON CONFLICT DO NOTHING",
            self.positions
        )
    }

    /// Raises the epochs of `list`, or of all partitions of the generation where it is none, and returns
    /// the rows.
    pub(crate) async fn raise_epochs(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
        list: Option<&Partitions>,
    ) -> Result<Vec<StoredPosition>> {
        let generation = generation.cast_signed();
        let mut sql =
            format!("UPDATE {} AS p SET epoch = p.epoch + 1, updated_at = now() ", self.positions);
        let mut params: Vec<Param<'_>> = vec![(&target, Type::TEXT), (&generation, Type::INT8)];
        if let Some(list) = list {
            sql.push_str("FROM unnest($3::text[], $4::int4[]) AS u(topic, partition) ");
            params.push((&list.topics, Type::TEXT_ARRAY));
            params.push((&list.partitions, Type::INT4_ARRAY));
        }
        sql.push_str("WHERE p.target = $1 AND p.generation = $2 ");
        if list.is_some() {
            sql.push_str("AND p.topic = u.topic AND p.partition = u.partition ");
        }
        sql.push_str(
            "RETURNING p.topic, p.partition, p.topic_id, p.beginning, p.position, p.epoch",
        );
        let rows = self.query(client, &sql, &params).await?;
        rows.iter().map(stored_position).collect()
    }

    /// Forgets a generation, or all of them, and so fences its tasks: their positions match no row any
    /// more.
    pub(crate) async fn forget(
        &self,
        client: &Client,
        target: &str,
        generation: Option<u64>,
    ) -> Result<()> {
        let generation = generation.map(u64::cast_signed);
        let Books { positions, verdicts, extensions, parked, holes, bad, .. } = self;
        for table in [positions, verdicts, extensions, parked, holes, bad] {
            let sql = format!(
                "DELETE FROM {table} WHERE target = $1 AND coalesce(generation = $2, true)"
            );
            self.execute(client, &sql, &[(&target, Type::TEXT), (&generation, Type::INT8)]).await?;
        }
        Ok(())
    }

    /// Records from which positions on a changed projection holds.
    pub(crate) async fn record_extension(
        &self,
        client: &Client,
        target: &str,
        binding: &Binding,
    ) -> Result<()> {
        let sql = format!(
            "INSERT INTO {} (target, generation, fingerprint, topic, partition, position) SELECT target, \
             generation, $3, topic, partition, position FROM {} WHERE target = $1 AND generation = $2 ON \
             CONFLICT DO NOTHING",
            self.extensions, self.positions
        );
        let generation = binding.generation.cast_signed();
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&generation, Type::INT8), (&binding.fingerprint, Type::TEXT)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Whether a changed projection carried the generation on.
    pub(crate) async fn is_extended(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
    ) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE target = $1 AND generation = $2)",
            self.extensions
        );
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        read(self.query(client, &sql, &params).await?.first(), 0)
    }

    /// The fence: moves positions that are where the task expects them, under its epoch.
    pub(crate) fn fence_sql(&self) -> String {
        format!(
            "UPDATE {} AS p SET position = u.next, updated_at = now() FROM unnest($3::text[], $4::int4[], \
             $5::int8[], $6::int8[], $7::int8[]) AS u(topic, partition, epoch, prev, next) WHERE p.target = \
             $1 AND p.generation = $2 AND p.topic = u.topic AND p.partition = u.partition AND p.epoch = \
             u.epoch AND p.position = u.prev",
            self.positions
        )
    }

    /// The fence of a flush that moves no position: the generation must be live.
    pub(crate) fn live_sql(&self) -> String {
        format!("SELECT 1 FROM {} WHERE target = $1 AND generation = $2 FOR SHARE", self.targets)
    }

    /// The last statement of a flush: its transaction id, the table's OID now, whether triggers may
    /// have changed the rows (1) or left them out (2, as those before each row may), and which server this is.
    pub(crate) fn seal_sql(table: &str) -> String {
        format!(
            "SELECT pg_current_xact_id()::xid, t.oid, coalesce((SELECT max(CASE WHEN g.tgtype & 3 = 3 THEN 2 ELSE 1 END) \
             FROM pg_trigger AS g WHERE NOT \
             g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 28 <> 0 AND (g.tgrelid = t.oid OR \
             g.tgrelid IN (SELECT relid FROM pg_partition_tree(t.oid)))), 0), (extract(epoch FROM \
             pg_postmaster_start_time()) * 1000000)::int8 FROM (SELECT to_regclass({})::oid) AS t(oid)",
            literal(table)
        )
    }
}

pub(crate) fn read<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: Option<&'a Row>,
    at: usize,
) -> Result<T> {
    let row = row.ok_or_else(|| Error::retriable("Foldline's books: PostgreSQL sent no row"))?;
    row.try_get(at).map_err(|error| {
        Error::config("Foldline's books are not of this version of Foldline").with_source(error)
    })
}

pub(crate) fn partition_of(row: Option<&Row>) -> Result<TopicPartition> {
    let topic: &str = read(row, 0)?;
    Ok(TopicPartition::new(Arc::<str>::from(topic), read(row, 1)?))
}

fn stored_position(row: &Row) -> Result<StoredPosition> {
    let row = Some(row);
    Ok(StoredPosition {
        partition: partition_of(row)?,
        topic_id: read(row, 2)?,
        beginning: Position(read(row, 3)?),
        position: Position(read(row, 4)?),
        epoch: read(row, 5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_quoted_everywhere() {
        let books = Books::new("odd\"; --");
        let mut texts = books.ddl();
        texts.extend([books.fence_sql(), books.live_sql(), books.verdict_sql(), books.begin_sql()]);
        texts.extend([books.bad_sql(), books.park_sql(), books.free_sql(), books.keep_sql()]);
        for sql in texts {
            assert!(sql.contains("\"odd\"\"; --\""), "{sql}");
        }
    }

    #[test]
    fn the_seal_names_the_table_as_a_constant() {
        assert!(Books::seal_sql("\"it's\"").contains("to_regclass('\"it''s\"')"));
    }
}
