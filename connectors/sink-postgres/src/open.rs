//! A table is opened: created, taken over, bound to its connector, and emptied for a rebuild in place.

use std::sync::PoisonError;

use foldline_api::binding::Binding;
use foldline_api::lifecycle::{Act, Change, Command, Facts, Outcome, transition};
use foldline_api::sink::{Beginning, Opened};
use foldline_api::{Error, Result};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::classify;
use crate::identifier::{self, quote};
use crate::rebuild::Standing;
use crate::schema;
use crate::site::Site;
use crate::target::{LOCK_BRIEFLY, PostgresTarget, create_schema};

impl PostgresTarget {
    pub(crate) async fn open_in(&self, client: &Client) -> Result<Opened> {
        self.books.ensure(client).await?;
        // From here on DDL may take its time; nobody else is kept waiting but other opens.
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        let place = Site::find(self, client).await?;
        let known = Some(place.label.clone());
        *self.label.lock().unwrap_or_else(PoisonError::into_inner) = known;
        let stored = self.books.entry(client, &place.label, "FOR UPDATE").await?;
        let found = self.found(client, &place).await?;
        let facts = Facts { found, ..Facts::default() };
        let Some(entry) = stored else {
            return self.open_first(client, &place, &facts).await;
        };
        let at = self.standing_at(client, place, entry, "").await?;
        let (waits, notices) = match self.decide(&at, &facts, Command::Open)? {
            Outcome::Waits(waits) => (Some(waits), Vec::new()),
            Outcome::Changes(change) => (None, self.open_again(client, &at, &change).await?),
            Outcome::Stands(_) | Outcome::NotYet(_) => (None, Vec::new()),
        };
        Ok(Opened { waits, ..self.opened(client, &at.site.label, notices).await? })
    }

    /// Opens the table, in a transaction that is rolled back, and looks whether the role may write to what stands
    /// there then.
    pub(crate) async fn check_in(&self, client: &Client) -> Result<()> {
        self.open_in(client).await?;
        let mut tables = self.books.names();
        tables.push(self.resolve(client).await?.sql());
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&tables, Type::TEXT_ARRAY)];
        let rows = client
            .query_typed(sql!("catalog/lacks"), &params)
            .await
            .map_err(|error| classify(error, "looking up privileges"))?;
        let Some(row) = rows.first() else { return Ok(()) };
        let read = |column| row.try_get::<_, String>(column);
        let (Ok(table), Ok(lacks)) = (read(0), read(1)) else { return Ok(()) };
        Err(Error::retriable(format!(
            "the role of the sink's url lacks {lacks} on {table}: GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {table} TO it \
             (docs/getting-started.md lists all of it)"
        )))
    }

    async fn open_first(&self, client: &Client, site: &Site, facts: &Facts) -> Result<Opened> {
        let outcome = transition(None, &self.spec, facts, Command::Open)?;
        let Outcome::Changes(change) = outcome else {
            return Err(Error::retriable("there is nothing to open"));
        };
        let label = &site.label;
        let oid = self.prepare(client, site).await?;
        // Left over where someone removed the target's entry by hand.
        self.books.forget(client, label, None).await?;
        let physical = oid.to_string();
        self.books.bind(client, label, &Binding { physical, ..change.record.binding }).await?;
        let verb = if site.relation.is_some() { "adopted" } else { "created" };
        self.opened(client, label, vec![format!("{verb} table {label:?}")]).await
    }

    /// Sentences for the log.
    async fn open_again(
        &self,
        client: &Client,
        at: &Standing,
        change: &Change,
    ) -> Result<Vec<String>> {
        let label = &at.site.label;
        if change.answer != at.stored.generation {
            let oid = self.prepare(client, &at.site).await?;
            let next = self.next_generation(client, at, (change, oid), None).await?;
            return Ok(vec![format!(
                "table {label:?} was dropped, so its positions are void: generation {next} starts at the fold's \
                 beginnings"
            )]);
        }
        if change.steps.contains(&Act::Extend) {
            return self.extend(client, &at.site, change).await;
        }
        self.check_fit(&at.site)?;
        Ok(at.site.index_notices(&self.spec))
    }

    /// Creates the table, or checks the empty one that stands there; returns its OID.
    async fn prepare(&self, client: &Client, site: &Site) -> Result<u32> {
        if let Some(relation) = &site.relation {
            self.check_fit(site)?;
            let missing = relation.missing_indexes(&site.table, &self.spec.model);
            self.run_ddl(client, &site.table, &missing).await?;
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
        self.run_ddl(client, &site.table, &schema::create(&site.table, &self.spec.model)).await?;
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

    async fn extend(&self, client: &Client, site: &Site, change: &Change) -> Result<Vec<String>> {
        // Positions before tables, as flushes lock them. Tasks of the old projection are fenced.
        for fenced in &change.fences {
            self.books.raise_epochs(client, &site.label, *fenced).await?;
        }
        self.run(client, LOCK_BRIEFLY).await?;
        let missing = site.relation.as_ref().map_or_else(Vec::new, |r| r.missing(&self.spec.model));
        for column in &missing {
            self.run(client, &schema::add_column(&site.table, column)).await?;
        }
        let site = Site::find(self, client).await?;
        self.check_fit(&site)?;
        let oid = site.relation.as_ref().map_or(0, |relation| relation.oid);
        let next = Binding { physical: oid.to_string(), ..change.record.binding.clone() };
        self.books.bind(client, &site.label, &next).await?;
        self.books.record_extension(client, &site.label, &next).await?;
        let names: Vec<&str> = missing.iter().map(|column| &*column.name).collect();
        let mut notices = vec![format!(
            "table {:?} goes on with the changed projection{}{}",
            site.label,
            if names.is_empty() { "" } else { " and the new columns " },
            names.join(", ")
        )];
        notices.extend(change.notices.iter().cloned());
        notices.extend(site.index_notices(&self.spec));
        Ok(notices)
    }

    /// Voids the generation and records the next one, at the fold's beginnings or `beginnings`.
    async fn next_generation(
        &self,
        client: &Client,
        at: &Standing,
        (change, oid): (&Change, u32),
        beginnings: Option<&[Beginning]>,
    ) -> Result<u64> {
        let (label, stored, old) = (&at.site.label, &at.stored, at.stored.generation);
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
        for act in &change.steps {
            if let Act::Drop(build) = act {
                self.drop_generation(client, at, *build).await?;
            }
        }
        let next = Binding { physical: oid.to_string(), ..change.record.binding.clone() };
        self.books.begin(client, label, next.generation, &list).await?;
        if next.log == stored.log {
            self.books.take_over_verdicts(client, label, (old, next.generation)).await?;
            self.books.take_over_holes(client, label, (old, next.generation)).await?;
            self.books.take_over_sent(client, label, (old, next.generation)).await?;
        }
        self.books.forget(client, label, Some(old)).await?;
        self.books.bind(client, label, &next).await?;
        Ok(next.generation)
    }

    async fn empty_and_renew(
        &self,
        client: &Client,
        at: &Standing,
        change: &Change,
        beginnings: Option<&[Beginning]>,
    ) -> Result<u64> {
        let site = &at.site;
        let Some(relation) = &site.relation else {
            let oid = self.prepare(client, site).await?;
            return self.next_generation(client, at, (change, oid), beginnings).await;
        };
        // Positions before tables: this waits for the flushes on their way, and fences those to come.
        let oid = relation.oid;
        let next = self.next_generation(client, at, (change, oid), beginnings).await?;
        self.run(client, LOCK_BRIEFLY).await?;
        let slowly = sql!("catalog/empties_slowly");
        let verb = if self.ask(client, slowly, oid).await? { "DELETE FROM" } else { "TRUNCATE" };
        self.run(client, &format!("{verb} {}", site.table.sql())).await?;
        let reshape = relation.reshape(&site.table, &self.spec.model);
        self.run_ddl(client, &site.table, &reshape).await?;
        self.check_fit(&Site::find(self, client).await?)?;
        Ok(next)
    }

    pub(crate) async fn rebuild_in(
        &self,
        client: &Client,
        generation: u64,
        beginnings: Option<&[Beginning]>,
    ) -> Result<u64> {
        self.books.ensure(client).await?;
        let at = self.standing(client, "FOR UPDATE").await?;
        let outcome = self.decide(&at, &Facts::default(), Command::Empty(generation))?;
        let Outcome::Changes(change) = outcome else { return Ok(at.stored.generation) };
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        self.empty_and_renew(client, &at, &change, beginnings).await
    }

    async fn opened(&self, client: &Client, label: &str, notices: Vec<String>) -> Result<Opened> {
        let entry = self.entry(client, label, "").await?;
        let generation = entry.binding.generation;
        let positions = self.books.positions(client, label, generation, "").await?;
        Ok(Opened { generation, positions, desired: entry.desired, waits: None, notices })
    }

    pub(crate) async fn ask(&self, client: &Client, sql: &str, oid: u32) -> Result<bool> {
        let wrong = |error| classify(error, &format!("looking at {:?}", self.spec.target));
        let with_oid = [(&oid as &(dyn ToSql + Sync), Type::OID)];
        let params = if sql.contains("$1") { &with_oid[..] } else { &[] };
        let rows = client.query_typed(sql, params).await.map_err(wrong)?;
        rows.first().map_or(Ok(false), |row| row.try_get(0).map_err(wrong))
    }
}
