//! How a writer takes partitions over, and sees that the table is still the one it was made for.

use std::sync::atomic::Ordering;

use foldline_api::binding::check_owner;
use foldline_api::parked::Which;
use foldline_api::rebuild::{Phase, Role};
use foldline_api::sink::{Acquired, Beginning, Lease};
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use super::{Place, PostgresWriter};
use crate::books::Partitions;
use crate::fit::signature;
use crate::session::Lane;

impl PostgresWriter {
    pub(super) async fn learn_encoding(&self, client: &Client) -> Result<()> {
        let sql = "SELECT current_setting('server_encoding') NOT IN ('UTF8', 'SQL_ASCII')";
        let rows = client.query_typed(sql, &[]).await;
        let rows = rows.map_err(|error| self.classify(error, "looking at"))?;
        let ascii = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false);
        self.ascii.store(ascii, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn acquire_in(
        &self,
        client: &Client,
        claims: &[Beginning],
    ) -> Result<Acquired> {
        let Place { label, generation, physical, .. } = &self.place;
        let live = self.check_generation(client).await?;
        self.check_fit(client).await?;
        if let Some(shown) = &self.shown {
            self.register(client, shown).await?;
        }
        self.learn_encoding(client).await?;
        let list = Partitions::new(claims.iter().map(|claim| &claim.partition));
        self.books.begin(client, label, *generation, claims).await?;
        let raised = self.books.take_positions(client, label, *generation, &list).await?;
        let leases = claims
            .iter()
            .map(|claim| {
                let row = raised.iter().find(|row| row.partition == claim.partition);
                row.map(|row| Lease {
                    partition: row.partition.clone(),
                    epoch: row.epoch,
                    position: row.position,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::retriable("a position disappeared while it was taken over"))?;
        let verdicts = self.books.verdicts(client, label, *generation, &list).await?;
        // What stands on the live table will stand on this one, once it takes its place.
        let tables = [*physical, live.parse().unwrap_or(0)];
        let verdicts = self.books.judge(client, &tables, &self.spec.fingerprint, verdicts).await?;
        let partitions = claims.iter().map(|claim| claim.partition.clone()).collect();
        let which = Which { partitions: Some(partitions), asked: false };
        let parked = self.books.parked(client, (label, *generation), &which).await?;
        let mut holes = self.books.holes(client, label, *generation).await?;
        holes.retain(|hole| leases.iter().any(|lease| lease.partition == hole.partition));
        let rows = client
            .query_typed(&self.statements.empty, &[])
            .await
            .map_err(|error| self.classify(error, "looking into"))?;
        let empty = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false);
        let seal = self.seal(client).await?;
        if seal.oid != Some(*physical) {
            return Err(self.replaced());
        }
        self.server.store(seal.started, Ordering::Relaxed);
        Ok(Acquired { leases, empty, verdicts, decisions: Vec::new(), parked, holes })
    }

    /// Whether the writer's generation may be folded into by its projection now. Nobody swaps until the
    /// transaction ends. The live table's OID.
    pub(crate) async fn check_generation(&self, client: &Client) -> Result<String> {
        let Place { label, generation, building, .. } = &self.place;
        let Some(entry) = self.books.entry(client, label, "FOR SHARE").await? else {
            return Err(self.replaced());
        };
        check_owner(&entry.binding, &self.spec)?;
        let live = entry.binding.generation;
        let beside = self.books.generations(client, label, "").await?;
        let fingerprint = if *building {
            let build = beside.iter().find(|g| g.number == *generation);
            build.filter(|g| matches!(g.role, Role::Build(_))).map(|g| &g.fingerprint)
        } else {
            Some(&entry.binding.fingerprint).filter(|_| live == *generation)
        };
        let Some(fingerprint) = fingerprint else {
            return Err(Error::fenced(format!(
                "generation {generation} of {label:?} is over: {live} is live"
            )));
        };
        if *fingerprint != self.spec.fingerprint {
            return Err(Error::fenced(format!(
                "{label:?} is now built by another version of projection and connector: this worker's config \
                 is not the one that the table was opened with last"
            )));
        }
        if !building && beside.iter().any(|g| g.role == Role::Build(Phase::Holding)) {
            return Err(Error::retriable(format!(
                "{label:?} is held: its next generation is about to take its place"
            )));
        }
        Ok(entry.binding.physical.clone())
    }

    /// Whether the table still fits, in a transaction in which nobody changes it from here on.
    pub(super) async fn check_fit(&self, client: &Client) -> Result<()> {
        let seen = signature(client, &self.lock, self.place.physical).await;
        let seen = seen.map_err(|error| self.classify(error, "looking at"))?;
        if self.fit.knows(seen) {
            return Ok(());
        }
        let oid = self.place.physical;
        if self.seal(client).await?.oid != Some(oid) {
            return Err(self.replaced());
        }
        let names = (&*self.place.label, &*self.spec.connector);
        self.fit.check(client, (oid, seen), &self.model, names).await
    }

    /// The same in a transaction of its own.
    pub(super) async fn look_again(&self, lane: &Lane) -> Result<()> {
        let session = lane.begin().await?;
        let result = self.check_fit(&session.client).await;
        session.finish(result).await
    }
}
