//! One connector's table, as the worker asks for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::check_owner;
use foldline_api::expiry::Horizons;
use foldline_api::hole::Holes;
use foldline_api::lifecycle::{Command, Facts, LogNow, Outcome, Record, transition};
use foldline_api::parked::Parking;
use foldline_api::query::Queries;
use foldline_api::rebuild::{Rebuilds, Role};
use foldline_api::removal::{Keep, Removed};
use foldline_api::schemas::KeptSchemas;
use foldline_api::sink::{
    Adopted, Beginning, DesiredState, Opened, Snapshot, Target, TargetSpec, Writer,
};
use foldline_api::{Error, Result};
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::{Books, Entry};
use crate::carry::texts;
use crate::config::PostgresConfig;
use crate::error::classify;
use crate::identifier::{self, TableName, quote};
use crate::joins;
use crate::pool::{Pool, Use};
use crate::schema;
use crate::session::{Lane, within};
use crate::site::Site;
use crate::snapshot::{self, PostgresSnapshot};
use crate::statement::{Statements, past_sql};
use crate::writer::{Place, PostgresWriter};

pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// A table lock that waits for one slow reader keeps all readers behind it waiting.
pub(crate) const LOCK_BRIEFLY: &str = "SET LOCAL lock_timeout = '1s'";
/// Emptying a large table that a foreign key refers to is a long DELETE.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(3_600);

/// A table with its books, in one database.
pub struct PostgresTarget {
    pub(crate) spec: TargetSpec,
    name: TableName,
    pool: Arc<Pool>,
    pub(crate) books: Books,
    books_schema: String,
    /// All that ends soon.
    pub(crate) lane: Lane,
    /// What may take long, and nobody else is to wait for.
    pub(crate) building: Lane,
    pub(crate) reading: Lane,
    /// The table that readers name.
    pub(crate) readable: OnceCell<TableName>,
    /// What the books call the table, as it was found when it was opened last.
    pub(crate) label: Mutex<Option<String>>,
}

/// Whether PostgreSQL can keep the table's name and the model at all, told without a connection.
///
/// # Errors
/// A config error that names what it cannot.
pub fn check(spec: &TargetSpec) -> Result<()> {
    table_name(spec).and_then(|_| schema::check(&spec.model))
}

/// The DDL and the statements that a connector uses, without a connection: what `foldline plan` shows.
/// `schema` is the one of Foldline's own tables. Means something only where [`check`] finds no fault.
pub(crate) fn plan(spec: &TargetSpec, schema: &str) -> Vec<String> {
    let whole = || TableName { schema: None, table: spec.target.clone() };
    let name = table_name(spec).unwrap_or_else(|_| whole());
    let books = Books::new(schema);
    let mut out = books.ddl();
    out.extend(name.schema.iter().map(|schema| create_schema(schema)));
    out.extend(schema::create(&name, &spec.model));
    out.push(books.fence_sql().trim_end().to_owned());
    out.extend(Statements::new(&name.sql(), &spec.model).into_texts());
    let rule = spec.expire.as_ref();
    out.extend(rule.and_then(|rule| past_sql(&name.sql(), &spec.model, rule)));
    out.extend(spec.joins.iter().flat_map(|joins| joins::plan(joins, &name, &spec.model)));
    out
}

fn table_name(spec: &TargetSpec) -> Result<TableName> {
    TableName::parse(&spec.target)
        .map_err(|reason| Error::config(format!("connectors.{}.table: {reason}", spec.connector)))
}

pub(crate) fn create_schema(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema))
}

impl PostgresTarget {
    /// Checks the config; connects when it is first asked for something.
    ///
    /// # Errors
    /// A config error, without the password, where the URL, the CA file, a name or the key is wrong.
    pub fn new(config: PostgresConfig, spec: TargetSpec) -> Result<Self> {
        check(&spec)?;
        let name = table_name(&spec)?;
        identifier::check(&config.schema).map_err(Error::config)?;
        let pool = Pool::shared(&config)?;
        let lane = |wanted| Lane::new(&pool, wanted, &spec.connector);
        let (building, reading, lane) = (lane(Use::Building), lane(Use::Reading), lane(Use::Brief));
        let books_schema = config.schema.clone();
        Ok(PostgresTarget {
            books: Books::new(&config.schema),
            books_schema,
            spec,
            name,
            pool,
            lane,
            building,
            reading,
            readable: OnceCell::new(),
            label: Mutex::default(),
        })
    }

    /// The table's name with its schema. Two connectors that spell one table differently must meet in
    /// the books, so an unqualified name is looked up first.
    pub(crate) async fn resolve(&self, client: &Client) -> Result<TableName> {
        self.resolve_name(client, &self.name).await
    }

    /// The names of the tables that are looked up, one for each lookup, then one for each column of children.
    pub(crate) async fn looked_up(&self, client: &Client) -> Result<Vec<TableName>> {
        let joins = self.spec.joins.iter();
        let mut names = Vec::new();
        let mut targets: Vec<String> = Vec::new();
        for joins in joins {
            targets.extend(joins.lookups().iter().map(|lookup| lookup.target.clone()));
            targets.extend(joins.gathers().iter().map(|gather| gather.target.clone()));
        }
        for target in targets {
            let name = TableName::parse(&target).map_err(Error::config)?;
            names.push(self.resolve_name(client, &name).await?);
        }
        Ok(names)
    }

    async fn resolve_name(&self, client: &Client, given: &TableName) -> Result<TableName> {
        if given.schema.is_some() {
            return Ok(given.clone());
        }
        // A schema of bookkeeping is first in the path of a role of the same name; it is never meant, and the
        // server's own, which a path may name first, neither.
        let sql = sql!("catalog/schema_of_table");
        let name = given.sql();
        let rows = client
            .query_typed(sql, &[(&name, Type::TEXT), (&self.books_schema, Type::TEXT)])
            .await
            .map_err(|error| classify(error, "looking up the table"))?;
        let schema: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
        let Some(schema) = schema else {
            return Err(Error::config(format!(
                "{:?}: the role's search_path leads to no schema: write schema.table",
                given.label()
            )));
        };
        Ok(TableName { schema: Some(schema), table: given.table.clone() })
    }

    pub(crate) async fn run(&self, client: &Client, sql: &str) -> Result<()> {
        let doing = || format!("preparing {:?}", self.spec.target);
        client.batch_execute(sql).await.map_err(|error| classify(error, &doing()))
    }

    /// Runs DDL of `table`. An index whose name something else in the schema has gets one that PostgreSQL chooses.
    pub(crate) async fn run_ddl(
        &self,
        client: &Client,
        table: &TableName,
        statements: &[String],
    ) -> Result<()> {
        let on = format!(" ON {} (", table.sql());
        for sql in statements {
            let index = sql.strip_prefix("CREATE INDEX ").and_then(|rest| rest.split_once(&on));
            let Some((name, columns)) = index else {
                self.run(client, sql).await?;
                continue;
            };
            let schema = table.schema.as_deref().map_or_else(String::new, quote);
            let full = identifier::literal(&format!("{schema}.{name}"));
            let taken =
                texts(client, &format!("SELECT 1 WHERE to_regclass({full}) IS NOT NULL")).await?;
            if taken.is_empty() {
                self.run(client, sql).await?;
            } else {
                self.run(client, &format!("CREATE INDEX{on}{columns}")).await?;
            }
        }
        Ok(())
    }

    /// The target's entry: this connector's, or nothing is done.
    pub(crate) async fn entry(&self, client: &Client, label: &str, lock: &str) -> Result<Entry> {
        self.owned(self.books.entry(client, label, lock).await?, label)
    }

    /// What a command leads to that concerns the live generation only.
    fn decide_alone(&self, entry: Entry, command: Command) -> Result<Outcome> {
        let Entry { binding, desired, .. } = entry;
        let record = Record { binding, desired, beside: Vec::new() };
        transition(Some(&record), &self.spec, &Facts::default(), command)
    }

    pub(crate) fn owned(&self, entry: Option<Entry>, label: &str) -> Result<Entry> {
        let entry = entry.ok_or_else(|| unknown(label))?;
        check_owner(&entry.binding, &self.spec)?;
        Ok(entry)
    }
}

fn unknown(label: &str) -> Error {
    Error::fenced(format!("the books know no table {label:?}: open it first"))
}

#[async_trait]
impl Target for PostgresTarget {
    async fn open(&self) -> Result<Opened> {
        within(OPEN_LIMIT, "opening the table", async {
            let session = self.lane.begin().await?;
            let result = self.open_in(&session.client).await;
            session.finish(result).await
        })
        .await
    }

    async fn check(&self) -> Result<()> {
        within(CALL_LIMIT, "checking the table", async {
            let session = self.lane.begin().await?;
            let result = self.check_in(&session.client).await;
            session.roll_back().await;
            result
        })
        .await
    }

    async fn adopt(&self, log: &LogNow) -> Result<Adopted> {
        within(OPEN_LIMIT, "taking the table over", async {
            let session = self.lane.begin().await?;
            let result = self.adopt_in(&session.client, log).await;
            session.finish(result).await
        })
        .await
    }

    async fn remove(&self, keep: Keep) -> Result<Removed> {
        within(OPEN_LIMIT, "removing the table", async {
            let session = self.building.begin().await?;
            let result = self.remove_in(&session.client, keep).await;
            session.finish(result).await
        })
        .await
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        within(CALL_LIMIT, "recording beginnings", async {
            let session = self.lane.begin().await?;
            let result = async {
                let client = &session.client;
                let label = self.resolve(client).await?.label();
                let entry = self.entry(client, &label, "FOR SHARE").await?;
                self.decide_alone(entry, Command::Begin(generation))?;
                self.books.begin(client, &label, generation, beginnings).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        within(OPEN_LIMIT, "emptying the table", async {
            let session = self.building.begin().await?;
            let result = self.rebuild_in(&session.client, generation, beginnings).await;
            session.finish(result).await
        })
        .await
    }

    async fn status(&self) -> Result<Opened> {
        within(CALL_LIMIT, "reading the books", async {
            let look = self.look(&self.lane).await?;
            let (generation, desired) = (look.entry.binding.generation, look.entry.desired);
            let positions = look.positions(generation);
            Ok(Opened { generation, positions, desired, waits: None, notices: Vec::new() })
        })
        .await
    }

    async fn live(&self) -> Result<(u64, DesiredState)> {
        within(CALL_LIMIT, "reading the books", async {
            let entry = self.glance(&self.lane).await?;
            Ok((entry.binding.generation, entry.desired))
        })
        .await
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        within(CALL_LIMIT, "writing the books", async {
            let session = self.lane.begin().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                let entry = self.entry(&session.client, &label, "FOR UPDATE").await?;
                self.decide_alone(entry, Command::Desire(desired))?;
                self.books.set_desired(&session.client, &label, desired).await.map(drop)
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>> {
        within(CALL_LIMIT, "reading the books", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let table = self.resolve(&session.client).await?;
                let looked_up = self.looked_up(&session.client).await?;
                let label = table.label();
                let binding = self.entry(&session.client, &label, "").await?.binding;
                let beside = self.books.generations(&session.client, &label, "").await?;
                let build = beside
                    .into_iter()
                    .find(|g| g.number == generation && matches!(g.role, Role::Build(_)));
                let place = match build {
                    Some(build) => Place {
                        table: TableName { table: build.relation, ..table }.sql(),
                        physical: build.physical.parse().unwrap_or(0),
                        label,
                        generation,
                        building: true,
                    },
                    None => Place {
                        table: table.sql(),
                        physical: binding.physical.parse().unwrap_or(0),
                        label,
                        generation,
                        building: false,
                    },
                };
                Ok((place, looked_up))
            }
            .await;
            let (place, looked_up) = session.finish(result).await?;
            let writer =
                PostgresWriter::new(&self.pool, &self.books, &self.spec, place, &looked_up);
            Ok(Arc::new(writer) as Arc<dyn Writer>)
        })
        .await
    }

    fn parking(&self) -> &dyn Parking {
        self
    }

    fn holes(&self) -> &dyn Holes {
        self
    }

    fn schemas(&self) -> &dyn KeptSchemas {
        self
    }

    async fn differences(&self) -> Result<Vec<String>> {
        within(CALL_LIMIT, "looking at the table", async {
            let session = self.lane.snapshot().await?;
            let result =
                Site::find(self, &session.client).await.map(|site| site.differences(&self.spec));
            session.finish(result).await
        })
        .await
    }

    fn rebuilds(&self) -> &dyn Rebuilds {
        self
    }

    fn horizons(&self) -> Option<&dyn Horizons> {
        Some(self)
    }

    fn queries(&self) -> Option<&dyn Queries> {
        Some(self)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        within(CALL_LIMIT, "reading the books", async {
            let session = self.reading.begin_with(snapshot::BEGIN).await?;
            let table = self.resolve(&session.client).await?;
            let looked_up = self.looked_up(&session.client).await?;
            let snapshot =
                PostgresSnapshot::new(session, &self.books, &self.spec, table, &looked_up).await?;
            Ok(Box::new(snapshot) as Box<dyn Snapshot>)
        })
        .await
    }
}
