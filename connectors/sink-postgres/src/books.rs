//! Foldline's books: whose a table is, where each partition stands, and the verdicts of the store.

use foldline_api::binding::{Binding, check_owner, check_projection};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState, StoredPosition, TargetSpec};
use foldline_api::{Error, Result};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::classify;
use crate::identifier::{fnv1a, literal, quote};
use crate::row::{FromRow, get, only, partition_of};

/// A parameter and its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

const DOING: &str = "Foldline's books";

/// The tables of the books.
const TABLES: [&str; 13] = [
    "targets",
    "positions",
    "verdicts",
    "extensions",
    "generations",
    "parked",
    "holes",
    "bad_records",
    "schemas",
    "horizons",
    "lookups",
    "notes",
    "gathers",
];

/// The books in one schema, as SQL. Pure text but for its async methods, which run inside the caller's
/// transaction.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    pub(crate) schema: String,
}

/// A target as the books have it.
pub(crate) struct Entry {
    /// Whose it is.
    pub(crate) binding: Binding,
    /// What the operator wants.
    pub(crate) desired: DesiredState,
}

/// What the books say of a table, once it is sure that its rows are this connector's and this projection's; `cannot` is as of
/// [`check_projection`].
pub(crate) fn built_here(
    entry: Option<Entry>,
    spec: &TargetSpec,
    label: &str,
    cannot: &str,
) -> Result<Binding> {
    let binding = entry.map(|entry| entry.binding).ok_or_else(|| {
        Error::config(format!("the books know no table {label:?}: the connector has never run"))
    })?;
    check_owner(&binding, spec)?;
    check_projection(&binding.fingerprint, spec, label, cannot)?;
    Ok(binding)
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
        Books { schema: quote(schema) }
    }

    /// The DDL of the books.
    pub(crate) fn ddl(&self) -> Vec<String> {
        let tables = sql!("tables").split(';').filter_map(|part| part.get(part.find("CREATE ")?..));
        let tables = tables.map(|table| table.replace("{schema}", &self.schema));
        let schema = format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema);
        std::iter::once(schema).chain(tables).collect()
    }

    /// One of the tables.
    /// The names of all tables.
    pub(crate) fn names(&self) -> Vec<String> {
        TABLES.iter().map(|name| self.table(name)).collect()
    }

    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.schema)
    }

    /// Takes the lock under which tables are made, until the transaction ends, and makes what is
    /// missing. A role without the right to create is fine where nothing is missing.
    pub(crate) async fn ensure(&self, client: &Client) -> Result<()> {
        let number = fnv1a(format!("foldline {}", self.schema).as_bytes()).cast_signed();
        self.execute(client, "SELECT pg_advisory_xact_lock($1)", &[(&number, Type::INT8)]).await?;
        let names = TABLES.map(|name| self.table(name)).to_vec();
        let sql = "SELECT bool_and(to_regclass(n) IS NOT NULL) FROM unnest($1::text[]) AS n";
        let there: bool = only(&self.query(client, sql, &[(&names, Type::TEXT_ARRAY)]).await?)?;
        if there && self.verdicts_are_open(client).await? && self.holes_are_repeated(client).await?
        {
            return Ok(());
        }
        // Who may create in the schema that an administrator made may not create schemas, and PostgreSQL asks that first.
        let sql = "SELECT to_regnamespace($1) IS NOT NULL";
        let rows = self.query(client, sql, &[(&self.schema, Type::TEXT)]).await?;
        let there = usize::from(only::<bool>(&rows)?);
        client
            .batch_execute(&self.ddl().split_off(there).join(";\n"))
            .await
            .map_err(|error| classify(error, "creating Foldline's books"))?;
        self.open_verdicts(client).await?;
        self.repeat_holes(client).await
    }

    /// Whether one of the tables has a column.
    pub(crate) async fn has_column(
        &self,
        client: &Client,
        table: &str,
        column: &str,
    ) -> Result<bool> {
        let sql = sql!("catalog/has_column");
        let params: [Param<'_>; 2] = [(&self.table(table), Type::TEXT), (&column, Type::TEXT)];
        only(&self.query(client, sql, &params).await?)
    }

    /// Whether the books have been made.
    pub(crate) async fn exist(&self, client: &Client) -> Result<bool> {
        let sql = "SELECT to_regclass($1) IS NOT NULL";
        only(&self.query(client, sql, &[(&self.table("targets"), Type::TEXT)]).await?)
    }

    pub(crate) async fn query(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>> {
        client.query_typed(sql, params).await.map_err(|error| classify(error, DOING))
    }

    /// The rows of a statement, as what they stand for.
    pub(crate) async fn select<T: FromRow>(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        self.query(client, sql, params).await?.iter().map(T::from_row).collect()
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
        let sql = format!("{}{lock}", sql!("entry", schema = self.schema));
        Ok(self.select(client, &sql, &[(&target, Type::TEXT)]).await?.pop())
    }

    /// Writes the entry of `target`; what the operator wants stays.
    pub(crate) async fn bind(
        &self,
        client: &Client,
        target: &str,
        binding: &Binding,
    ) -> Result<()> {
        let sql = sql!("bind", schema = self.schema);
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
        let sql = sql!("set_desired", schema = self.schema);
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
        let sql = format!("{}{lock}", sql!("positions", schema = self.schema));
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        self.select(client, &sql, &params).await
    }

    /// The positions of all generations, each with its generation.
    pub(crate) async fn all_positions(
        &self,
        client: &Client,
        target: &str,
    ) -> Result<Vec<(u64, StoredPosition)>> {
        let sql = sql!("all_positions", schema = self.schema);
        self.select(client, &sql, &[(&target, Type::TEXT)]).await
    }

    /// Records beginnings where there is no position yet.
    pub(crate) async fn begin(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
        beginnings: &[Beginning],
    ) -> Result<()> {
        let sql = sql!("begin_positions", schema = self.schema);
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

    /// Raises the epochs of all partitions of the generation, and so fences whoever holds them.
    pub(crate) async fn raise_epochs(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
    ) -> Result<()> {
        let sql = sql!("raise_epochs", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Raises the epochs of the partitions of `list`, and returns their rows.
    pub(crate) async fn take_positions(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
        list: &Partitions,
    ) -> Result<Vec<StoredPosition>> {
        let sql = sql!("take_positions", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 4] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&list.topics, Type::TEXT_ARRAY),
            (&list.partitions, Type::INT4_ARRAY),
        ];
        self.select(client, &sql, &params).await
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
        for name in [
            "positions",
            "verdicts",
            "extensions",
            "parked",
            "holes",
            "bad_records",
            "lookups",
            "notes",
            "gathers",
        ] {
            let sql = format!(
                "DELETE FROM {} WHERE target = $1 AND coalesce(generation = $2, true)",
                self.table(name)
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
        let sql = sql!("record_extension", schema = self.schema);
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
        let sql = sql!("is_extended", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        only(&self.query(client, &sql, &params).await?)
    }

    /// The fence: moves positions that are where the task expects them, under its epoch.
    pub(crate) fn fence_sql(&self) -> String {
        sql!("fence", schema = self.schema)
    }

    /// The fence of a flush that moves no position: the generation must be live.
    pub(crate) fn live_sql(&self) -> String {
        sql!("is_live", schema = self.schema)
    }

    /// The last statement of a flush: its transaction id, the table's OID now, whether triggers may
    /// have changed the rows (1) or left them out (2, as those before each row may), which server this is, and whether
    /// rows of other targets show its own.
    pub(crate) fn seal_sql(&self, table: &str, label: &str) -> String {
        let (table, label) = (literal(table), literal(label));
        sql!("catalog/seal", table = table, label = label, schema = self.schema)
    }
}

impl FromRow for Entry {
    fn from_row(row: &Row) -> Result<Self> {
        let generation: i64 = get(row, "generation")?;
        let (projection, desired): (&str, &str) = (get(row, "projection")?, get(row, "desired")?);
        let binding = Binding {
            worker: get(row, "worker")?,
            connector: get(row, "connector")?,
            group: get(row, "consumer_group")?,
            log: get(row, "log")?,
            physical: get(row, "physical")?,
            generation: generation.cast_unsigned(),
            fingerprint: get(row, "fingerprint")?,
            superseded: get(row, "superseded")?,
            projection: serde_json::from_str(projection).unwrap_or_default(),
            // Kept with their positions, in a table of their own.
            continued: Vec::new(),
        };
        let desired = match desired {
            "paused" => DesiredState::Paused,
            "stopped" => DesiredState::Stopped,
            _ => DesiredState::Running,
        };
        Ok(Entry { binding, desired })
    }
}

impl FromRow for StoredPosition {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(StoredPosition {
            partition: partition_of(row)?,
            topic_id: get(row, "topic_id")?,
            beginning: Position(get(row, "beginning")?),
            position: Position(get(row, "position")?),
            epoch: get(row, "epoch")?,
        })
    }
}

/// A position with its generation.
impl FromRow for (u64, StoredPosition) {
    fn from_row(row: &Row) -> Result<Self> {
        let generation: i64 = get(row, "generation")?;
        Ok((generation.cast_unsigned(), StoredPosition::from_row(row)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_quoted_everywhere() {
        let books = Books::new("odd\"; --");
        let mut texts = books.ddl();
        texts.extend([books.fence_sql(), books.live_sql(), books.verdict_sql(), books.bad_sql()]);
        texts.extend([books.park_sql(), books.free_sql(), books.keep_sql()]);
        for sql in texts {
            assert!(sql.contains("\"odd\"\"; --\""), "{sql}");
        }
    }

    #[test]
    fn each_statement_is_sent_by_someone() {
        let unused = foldline_testkit::statements::unused(env!("CARGO_MANIFEST_DIR"));
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn each_table_has_its_ddl() {
        let ddl = Books::new("foldline").ddl();
        let (schema, tables) = ddl.split_first().unwrap();
        assert_eq!(schema, "CREATE SCHEMA IF NOT EXISTS \"foldline\"");
        let start = |name| format!("CREATE TABLE IF NOT EXISTS \"foldline\".{name} (\n");
        assert_eq!(tables.len(), TABLES.len());
        for (ddl, name) in tables.iter().zip(TABLES) {
            assert!(ddl.starts_with(&start(name)), "{ddl}");
        }
    }

    #[test]
    fn the_seal_names_the_table_as_a_constant() {
        assert!(Books::new("f").seal_sql("\"it's\"", "it's").contains("to_regclass('\"it''s\"')"));
    }
}
