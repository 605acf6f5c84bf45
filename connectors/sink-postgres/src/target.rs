//! One connector's table: created or checked, bound, rebuilt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::{Binding, Decision, Found, decide};
use foldline_api::parked::Parking;
use foldline_api::rebuild::{Rebuilds, Role};
use foldline_api::sink::{
    Beginning, DesiredState, OnChange, Opened, Snapshot, Target, TargetSpec, Writer,
};
use foldline_api::{Error, Result};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::{Books, Entry, binding};
use crate::config::{Endpoint, PostgresConfig};
use crate::error::classify;
use crate::identifier::{self, TableName, quote};
use crate::schema::{self, Relation};
use crate::session::{Lane, connect, within};
use crate::snapshot::{self, PostgresSnapshot};
use crate::statement::Statements;
use crate::writer::{Place, PostgresWriter};

pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// A table lock that waits for one slow reader keeps all readers behind it waiting.
pub(crate) const LOCK_BRIEFLY: &str = "SET LOCAL lock_timeout = '3s'";
/// Emptying a large table that a foreign key refers to is a long DELETE.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(3_600);

/// A table with its books, in one database.
pub struct PostgresTarget {
    pub(crate) spec: TargetSpec,
    name: TableName,
    endpoint: Arc<Endpoint>,
    pub(crate) books: Books,
    books_schema: String,
    lane: Lane,
    /// Steps of a rebuild may take long, and nobody else is to wait for them.
    pub(crate) steps: Lane,
    /// What is asked about a rebuild meanwhile.
    pub(crate) asks: Lane,
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
#[must_use]
pub fn plan(spec: &TargetSpec, schema: &str) -> Vec<String> {
    let whole = || TableName { schema: None, table: spec.target.clone() };
    let name = table_name(spec).unwrap_or_else(|_| whole());
    let books = Books::new(schema);
    let mut out = books.ddl();
    out.extend(name.schema.iter().map(|schema| create_schema(schema)));
    out.extend(schema::create(&name, &spec.model));
    out.push(books.fence_sql());
    out.extend(Statements::new(&name.sql(), &spec.model).into_texts());
    out
}

fn table_name(spec: &TargetSpec) -> Result<TableName> {
    TableName::parse(&spec.target)
        .map_err(|reason| Error::config(format!("connectors.{}.table: {reason}", spec.connector)))
}

fn create_schema(schema: &str) -> String {
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
        let endpoint = Arc::new(Endpoint::new(&config, &format!("foldline/{}", spec.connector))?);
        let lane = || Lane::new(Arc::clone(&endpoint), false);
        let (steps, asks, lane) = (lane(), lane(), lane());
        let books_schema = config.schema.clone();
        Ok(PostgresTarget {
            books: Books::new(&config.schema),
            books_schema,
            spec,
            name,
            endpoint,
            lane,
            steps,
            asks,
            label: Mutex::default(),
        })
    }

    /// The table's name with its schema. Two connectors that spell one table differently must meet in
    /// the books, so an unqualified name is looked up first.
    pub(crate) async fn resolve(&self, client: &Client) -> Result<TableName> {
        if self.name.schema.is_some() {
            return Ok(self.name.clone());
        }
        // A schema of bookkeeping is first in the path of a role of the same name; it is never meant.
        let sql = "SELECT s::text FROM unnest(current_schemas(false)) WITH ORDINALITY AS path(s, n) \
                   WHERE s NOT IN ($2, 'foldline') ORDER BY to_regclass(quote_ident(s) || '.' || $1) IS NULL, n LIMIT 1";
        let name = self.name.sql();
        let rows = client
            .query_typed(sql, &[(&name, Type::TEXT), (&self.books_schema, Type::TEXT)])
            .await
            .map_err(|error| classify(error, "looking up the table"))?;
        let schema: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
        let Some(schema) = schema else {
            return Err(Error::config(format!(
                "{:?}: the role's search_path leads to no schema: write schema.table",
                self.spec.target
            )));
        };
        Ok(TableName { schema: Some(schema), table: self.name.table.clone() })
    }

    pub(crate) async fn run(&self, client: &Client, sql: &str) -> Result<()> {
        let doing = || format!("preparing {:?}", self.spec.target);
        client.batch_execute(sql).await.map_err(|error| classify(error, &doing()))
    }

    async fn ask(&self, client: &Client, sql: &str, oid: u32) -> Result<bool> {
        let wrong = |error| classify(error, &format!("looking at {:?}", self.spec.target));
        let with_oid = [(&oid as &(dyn tokio_postgres::types::ToSql + Sync), Type::OID)];
        let params = if sql.contains("$1") { &with_oid[..] } else { &[] };
        let rows = client.query_typed(sql, params).await.map_err(wrong)?;
        rows.first().map_or(Ok(false), |row| row.try_get(0).map_err(wrong))
    }

    async fn open_in(&self, client: &Client) -> Result<Opened> {
        self.books.ensure(client).await?;
        // From here on DDL may take its time; nobody else is kept waiting but other opens.
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        let place = Site::find(self, client).await?;
        let known = Some(place.label.clone());
        *self.label.lock().unwrap_or_else(PoisonError::into_inner) = known;
        let stored = self.books.entry(client, &place.label, "FOR UPDATE").await?;
        let found = match &place.relation {
            Some(relation) => {
                let rows = format!("SELECT EXISTS (SELECT 1 FROM {})", place.table.sql());
                Some(Found {
                    physical: relation.oid.to_string(),
                    has_rows: self.ask(client, &rows, 0).await?,
                })
            }
            None => None,
        };
        let stored = stored.map(|entry| entry.binding);
        // Someone has asked for a rebuild with this projection already, whatever the config says of it.
        let build =
            self.books.generations(client, &place.label, "").await?.into_iter().find(|g| {
                matches!(g.role, Role::Build(_)) && g.fingerprint == self.spec.fingerprint
            });
        let mut spec = self.spec.clone();
        if build.is_some() {
            spec.on_change = OnChange::Rebuild;
        }
        let decision = decide(stored.as_ref(), found.as_ref(), &spec)?;
        let mut notices = Vec::new();
        let waits = match (&decision, &stored) {
            (Decision::Rebuild, Some(stored)) => Some(format!(
                "generation {} was built by another projection: it serves its readers and folds nothing until \
                 a rebuild with this one takes its place",
                stored.generation
            )),
            _ => None,
        };
        if waits.is_none() {
            self.carry_out(client, &place, stored.as_ref(), decision, &mut notices).await?;
        }
        Ok(Opened { waits, ..self.opened(client, &place.label, notices).await? })
    }

    async fn carry_out(
        &self,
        client: &Client,
        site: &Site,
        stored: Option<&Binding>,
        decision: Decision,
        notices: &mut Vec<String>,
    ) -> Result<()> {
        let label = &site.label;
        match (decision, stored) {
            (Decision::Resume, _) => {
                self.check_fit(site)?;
                notices.extend(site.index_notices(&self.spec));
            }
            (Decision::Create | Decision::Adopt, _) | (_, None) => {
                let oid = self.prepare(client, site).await?;
                // Left over where someone removed the target's entry by hand.
                self.books.forget(client, label, None).await?;
                self.books.bind(client, label, &binding(&self.spec, oid, 1)).await?;
                let verb = if site.relation.is_some() { "adopted" } else { "created" };
                notices.push(format!("{verb} table {label:?}"));
            }
            (Decision::Renew { .. }, Some(stored)) => {
                self.refuse_superseded(stored)?;
                let oid = self.prepare(client, site).await?;
                let next = self.next_generation(client, site, (stored, oid), None).await?;
                notices.push(format!(
                    "table {label:?} was dropped, so its positions are void: generation {next} starts at the \
                     fold's beginnings"
                ));
            }
            (Decision::Extend, Some(stored)) => {
                notices.extend(self.extend(client, site, stored).await?);
            }
            // Built beside the live table, which stays as it is.
            (Decision::Rebuild, Some(_)) => {}
        }
        Ok(())
    }

    /// Creates the table, or checks the empty one that stands there; returns its OID.
    async fn prepare(&self, client: &Client, site: &Site) -> Result<u32> {
        if let Some(relation) = &site.relation {
            self.check_fit(site)?;
            for sql in relation.missing_indexes(&site.table, &self.spec.model) {
                self.run(client, &sql).await?;
            }
            return Ok(relation.oid);
        }
        if let Some(schema) = &site.table.schema {
            let there = format!(
                "SELECT to_regnamespace({}) IS NOT NULL",
                identifier::literal(&quote(schema))
            );
            if !self.ask(client, &there, 0).await? {
                self.run(client, &create_schema(schema)).await?;
            }
        }
        self.run(client, &schema::create(&site.table, &self.spec.model).join(";\n")).await?;
        let site = Site::find(self, client).await?;
        self.check_fit(&site)?;
        site.relation.map(|relation| relation.oid).ok_or_else(|| {
            Error::config(format!("table {:?} was created and is not there", site.label))
        })
    }

    pub(crate) fn check_fit(&self, site: &Site) -> Result<()> {
        let misfits = site.relation.as_ref().map_or_else(Vec::new, |r| r.misfits(&self.spec.model));
        if misfits.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!(
            "table {:?} does not fit connector {:?}: {}; `foldline plan {}` shows the table that does",
            site.label,
            self.spec.connector,
            misfits.join("; "),
            self.spec.connector
        )))
    }

    pub(crate) fn refuse_superseded(&self, stored: &Binding) -> Result<()> {
        if !stored.superseded.contains(&self.spec.fingerprint) {
            return Ok(());
        }
        Err(Error::config(format!(
            "this projection once built {:?} and was superseded by a newer one: deploy the newer config, or \
             rebuild with `foldline rebuild {} --in-place`",
            self.spec.target, self.spec.connector
        )))
    }

    async fn extend(&self, client: &Client, site: &Site, stored: &Binding) -> Result<Vec<String>> {
        // Positions before tables, as flushes lock them. Tasks of the old projection are fenced.
        self.books.raise_epochs(client, &site.label, stored.generation, None).await?;
        self.run(client, LOCK_BRIEFLY).await?;
        let missing = site.relation.as_ref().map_or_else(Vec::new, |r| r.missing(&self.spec.model));
        for column in &missing {
            self.run(client, &schema::add_column(&site.table, column)).await?;
        }
        let site = Site::find(self, client).await?;
        self.check_fit(&site)?;
        let oid = site.relation.as_ref().map_or(0, |relation| relation.oid);
        let next = self.succeed(stored, oid, stored.generation);
        self.books.bind(client, &site.label, &next).await?;
        self.books.record_extension(client, &site.label, &next).await?;
        let names: Vec<&str> = missing.iter().map(|column| &*column.name).collect();
        let mut notices = vec![format!(
            "table {:?} goes on with the changed projection{}{}",
            site.label,
            if names.is_empty() { "" } else { " and the new columns " },
            names.join(", ")
        )];
        notices.extend(site.index_notices(&self.spec));
        Ok(notices)
    }

    /// The next binding: the fingerprint that it replaces is never taken back by a deploy.
    fn succeed(&self, stored: &Binding, oid: u32, generation: u64) -> Binding {
        let mut next = binding(&self.spec, oid, generation);
        next.superseded.clone_from(&stored.superseded);
        next.superseded.push(stored.fingerprint.clone());
        next.superseded.sort_unstable();
        next.superseded.dedup();
        next.superseded.retain(|fingerprint| *fingerprint != self.spec.fingerprint);
        next
    }

    /// Voids the generation and records the next one, at the fold's beginnings or `beginnings`.
    async fn next_generation(
        &self,
        client: &Client,
        site: &Site,
        (stored, oid): (&Binding, u32),
        beginnings: Option<&[Beginning]>,
    ) -> Result<u64> {
        let (label, old) = (&site.label, stored.generation);
        let mut list = beginnings.unwrap_or_default().to_vec();
        if stored.log == self.spec.log {
            for position in self.books.positions(client, label, old, "FOR UPDATE").await? {
                if !list.iter().any(|given| given.partition == position.partition) {
                    list.push(Beginning {
                        partition: position.partition,
                        topic_id: position.topic_id,
                        position: position.beginning,
                    });
                }
            }
        }
        // What was being built is of another beginning now.
        let number = self.drop_build(client, site, stored).await?;
        let next = self.succeed(stored, oid, number);
        // The same table refuses the same rows of the same projection, and so a rebuild does too.
        if (&next.log, &next.fingerprint, &next.physical)
            == (&stored.log, &stored.fingerprint, &stored.physical)
        {
            self.books.keep_verdicts(client, label, old, next.generation).await?;
        }
        self.books.begin(client, label, next.generation, &list).await?;
        if next.log == stored.log {
            self.books.keep_dropped(client, label, (old, next.generation)).await?;
        }
        self.books.forget(client, label, Some(old)).await?;
        self.books.bind(client, label, &next).await?;
        Ok(next.generation)
    }

    async fn empty_and_renew(
        &self,
        client: &Client,
        site: &Site,
        stored: &Binding,
        beginnings: Option<&[Beginning]>,
    ) -> Result<u64> {
        let Some(relation) = &site.relation else {
            let oid = self.prepare(client, site).await?;
            return self.next_generation(client, site, (stored, oid), beginnings).await;
        };
        // Positions before tables: this waits for the flushes on their way, and fences those to come.
        let oid = relation.oid;
        let next = self.next_generation(client, site, (stored, oid), beginnings).await?;
        self.run(client, LOCK_BRIEFLY).await?;
        let slowly = "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE confrelid = $1 AND contype = 'f' AND \
                      conrelid <> confrelid) OR NOT has_table_privilege($1, 'TRUNCATE')";
        let verb = if self.ask(client, slowly, oid).await? { "DELETE FROM" } else { "TRUNCATE" };
        self.run(client, &format!("{verb} {}", site.table.sql())).await?;
        for sql in relation.reshape(&site.table, &self.spec.model) {
            self.run(client, &sql).await?;
        }
        self.check_fit(&Site::find(self, client).await?)?;
        Ok(next)
    }

    async fn rebuild_in(
        &self,
        client: &Client,
        generation: u64,
        beginnings: Option<&[Beginning]>,
    ) -> Result<u64> {
        self.books.ensure(client).await?;
        let site = Site::find(self, client).await?;
        let stored = self.entry(client, &site.label, "FOR UPDATE").await?.binding;
        if stored.generation != generation {
            return Ok(stored.generation);
        }
        let owner = (&stored.worker, &stored.connector, &stored.group);
        if owner != (&self.spec.worker, &self.spec.connector, &self.spec.group) {
            return Err(Error::config(format!(
                "{:?} belongs to connector {:?} of worker {:?}",
                site.label, stored.connector, stored.worker
            )));
        }
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        self.empty_and_renew(client, &site, &stored, beginnings).await
    }

    pub(crate) async fn entry(&self, client: &Client, label: &str, lock: &str) -> Result<Entry> {
        self.books.entry(client, label, lock).await?.ok_or_else(|| unknown(label))
    }

    async fn opened(&self, client: &Client, label: &str, notices: Vec<String>) -> Result<Opened> {
        let entry = self.entry(client, label, "").await?;
        let generation = entry.binding.generation;
        let positions = self.books.positions(client, label, generation, "").await?;
        Ok(Opened { generation, positions, desired: entry.desired, waits: None, notices })
    }
}

pub(crate) fn unknown(label: &str) -> Error {
    Error::fenced(format!("the books know no table {label:?}: open it first"))
}

/// The table's place: its full name, and what stands there.
pub(crate) struct Site {
    pub(crate) table: TableName,
    pub(crate) label: String,
    pub(crate) relation: Option<Relation>,
}

impl Site {
    pub(crate) async fn find(target: &PostgresTarget, client: &Client) -> Result<Self> {
        let table = target.resolve(client).await?;
        let schema = table.schema.as_deref().unwrap_or_default();
        let relation = schema::inspect(client, schema, &table.table).await?;
        if let Some(reason) = relation.as_ref().and_then(|relation| relation.refused.as_ref()) {
            return Err(Error::config(format!(
                "{:?} is {reason}: rows and positions cannot be kept together there, give connector {:?} \
                 another table",
                table.label(),
                target.spec.connector
            )));
        }
        Ok(Site { label: table.label(), table, relation })
    }

    /// Where the table differs from the plan.
    fn differences(&self, spec: &TargetSpec) -> Vec<String> {
        let Some(relation) = &self.relation else {
            return vec![format!("table {:?} does not exist", self.label)];
        };
        let mut out = relation.misfits(&spec.model);
        let planned = |name: &str| spec.model.position(name).is_some();
        let own = relation.columns.iter().map(|column| column.name()).filter(|name| !planned(name));
        out.extend(own.map(|name| format!("column {name:?} is there, and the plan has none")));
        let missing = relation.missing_indexes(&self.table, &spec.model);
        out.extend(missing.iter().map(|sql| format!("an index is missing: {sql}")));
        out
    }

    /// An index on a table with rows would lock it for long: that one is the user's to create.
    fn index_notices(&self, spec: &TargetSpec) -> Vec<String> {
        let Some(relation) = &self.relation else {
            return Vec::new();
        };
        relation
            .missing_indexes(&self.table, &spec.model)
            .iter()
            .map(|sql| {
                let sql = sql.replacen("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1);
                format!("table {:?} lacks an index of the projection: {sql}", self.label)
            })
            .collect()
    }
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

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        within(CALL_LIMIT, "recording beginnings", async {
            let session = self.lane.begin().await?;
            let result = async {
                let client = &session.client;
                let label = self.resolve(client).await?.label();
                let live = self.entry(client, &label, "FOR SHARE").await?.binding.generation;
                if live != generation {
                    return Err(Error::fenced(format!(
                        "generation {generation} of {label:?} is over: {live} is live"
                    )));
                }
                self.books.begin(client, &label, generation, beginnings).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        within(OPEN_LIMIT, "emptying the table", async {
            let session = self.lane.begin().await?;
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
                if self.books.set_desired(&session.client, &label, desired).await? {
                    return Ok(());
                }
                Err(unknown(&label))
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
                let label = table.label();
                let binding = self.entry(&session.client, &label, "").await?.binding;
                let beside = self.books.generations(&session.client, &label, "").await?;
                let build = beside
                    .into_iter()
                    .find(|g| g.number == generation && matches!(g.role, Role::Build(_)));
                Ok(match build {
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
                })
            }
            .await;
            let place = session.finish(result).await?;
            let writer =
                PostgresWriter::new(Arc::clone(&self.endpoint), &self.books, &self.spec, place);
            Ok(Arc::new(writer) as Arc<dyn Writer>)
        })
        .await
    }

    fn parking(&self) -> &dyn Parking {
        self
    }

    async fn differences(&self) -> Result<Vec<String>> {
        within(CALL_LIMIT, "looking at the table", async {
            let session = self.asks.snapshot().await?;
            let result =
                Site::find(self, &session.client).await.map(|site| site.differences(&self.spec));
            session.finish(result).await
        })
        .await
    }

    fn rebuilds(&self) -> &dyn Rebuilds {
        self
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        within(CALL_LIMIT, "reading the books", async {
            let client = connect(&self.endpoint).await?;
            self.run(&client, snapshot::BEGIN).await?;
            let table = self.resolve(&client).await?;
            let snapshot = PostgresSnapshot::new(client, &self.books, &self.spec, table).await?;
            Ok(Box::new(snapshot) as Box<dyn Snapshot>)
        })
        .await
    }
}
