//! A table that was restored together with its books is taken over, in one transaction.

use foldline_api::binding::Found;
use foldline_api::lifecycle::{Command, Facts, LogNow, Outcome, transition};
use foldline_api::sink::Adopted;
use foldline_api::{Error, Result};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::Param;
use crate::carry::texts;
use crate::identifier::literal;
use crate::rebuild::Standing;
use crate::row::only;
use crate::site::Site;
use crate::target::PostgresTarget;

impl PostgresTarget {
    pub(crate) async fn adopt_in(&self, client: &Client, log: &LogNow) -> Result<Adopted> {
        let mut facts = Facts { log: log.clone(), ..Facts::default() };
        // Books that are not there are not made: a restore would find its place taken.
        let entry = if self.books.exist(client).await? {
            self.books.ensure(client).await?;
            let site = Site::find(self, client).await?;
            let entry = self.books.entry(client, &site.label, "FOR UPDATE").await?;
            entry.map(|entry| (site, entry))
        } else {
            None
        };
        let Some((site, entry)) = entry else {
            transition(None, &self.spec, &facts, Command::Adopt)?;
            return Err(Error::config("there is nothing to adopt"));
        };
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        facts.found = self.found(client, &site).await?;
        let at = self.standing_at(client, site, entry, "FOR UPDATE").await?;
        facts.copies = self.copies(client, &at).await?;
        let (label, live) = (&at.site.label, at.stored.generation);
        facts.positions = self.books.positions(client, label, live, "FOR UPDATE").await?;
        facts.torn = self.torn(client, &at).await?;
        let Outcome::Changes(change) = self.decide(&at, &facts, Command::Adopt)? else {
            return Err(Error::retriable("there is nothing to adopt"));
        };
        self.carry_out(client, &at, &change, &[]).await?;
        Ok(Adopted::of(&change, facts.found.as_ref(), &at.stored.physical))
    }

    /// What stands under the table's name.
    pub(crate) async fn found(&self, client: &Client, site: &Site) -> Result<Option<Found>> {
        let Some(relation) = &site.relation else { return Ok(None) };
        let rows = format!("SELECT EXISTS (SELECT 1 FROM {})", site.table.sql());
        let has_rows = self.ask(client, &rows, 0).await?;
        Ok(Some(Found { physical: relation.oid.to_string(), has_rows }))
    }

    /// Whether the table was made when the positions had been written already: then they are of another one. A restore makes
    /// all tables before it fills any. The attribute `tableoid` keeps the transaction that made its table, whatever
    /// is altered later.
    async fn torn(&self, client: &Client, at: &Standing) -> Result<Option<String>> {
        let sql = sql!("is_torn", schema = self.books.schema);
        let generation = at.stored.generation.cast_signed();
        let params: [Param<'_>; 3] =
            [(&at.site.label, Type::TEXT), (&generation, Type::INT8), (&at.live.oid, Type::OID)];
        let older: bool = only(&self.books.query(client, &sql, &params).await?)?;
        Ok(older.then(|| {
            "its books were there before it, so they are not those that were kept with its rows"
                .to_owned()
        }))
    }

    /// The tables that stand under the names of the generations beside the live one.
    async fn copies(&self, client: &Client, at: &Standing) -> Result<Vec<(u64, String)>> {
        let mut copies = Vec::new();
        for generation in &at.beside {
            let name = literal(&at.table(generation).name.sql());
            let table = format!(
                "SELECT oid::text FROM pg_class WHERE oid = to_regclass({name}) AND relkind = 'r'"
            );
            let oids = texts(client, &table).await?;
            copies.extend(oids.into_iter().map(|oid| (generation.number, oid)));
        }
        Ok(copies)
    }
}
