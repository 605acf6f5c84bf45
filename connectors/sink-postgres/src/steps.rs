//! The steps of a build: following, holding, the swap, and the way back.

use foldline_api::rebuild::{Phase, Role, Stepped, is_reached};
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use crate::books::binding;
use crate::carry::{self, WHOLE_NAMES, texts};
use crate::generations::{Generation, name_in};
use crate::identifier::fnv1a;
use crate::rebuild::{LOCK_FOR_SWAP, Standing};
use crate::schema;
use crate::session::within;
use crate::target::{OPEN_LIMIT, PostgresTarget};

impl PostgresTarget {
    pub(crate) async fn follow_in(&self, client: &Client, generation: u64) -> Result<Stepped> {
        let resolved = self.resolve(client).await?.label();
        let number = fnv1a(format!("foldline follow {resolved}").as_bytes()).cast_signed();
        let lock = format!("SELECT 1 WHERE pg_try_advisory_xact_lock({number})");
        if texts(client, &lock).await?.is_empty() {
            return Ok(Stepped::NotYet("another worker builds the indexes".to_owned()));
        }
        let at = self.standing(client, "").await?;
        let build = at.build().filter(|g| g.number == generation);
        let Some(build) = build.filter(|g| g.role == Role::Build(Phase::Loading)) else {
            return Ok(Stepped::NotYet("the build is not loading".to_owned()));
        };
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        self.add_indexes(client, &at, build).await?;
        self.run(client, &format!("ANALYZE {}", at.table(build).name.sql())).await?;
        let label = &at.site.label;
        let moved = self
            .books
            .move_build(client, (label, generation), Phase::Loading, Phase::Following)
            .await?;
        if moved {
            return Ok(Stepped::Done(Vec::new()));
        }
        Err(Error::fenced("the build ended meanwhile"))
    }

    async fn add_indexes(&self, client: &Client, at: &Standing, build: &Generation) -> Result<()> {
        self.run(client, WHOLE_NAMES).await?;
        let next = at.table(build);
        for sql in carry::indexes(client, &at.live, &next.name, build.number, false).await? {
            self.run(client, &sql).await?;
        }
        let schema = next.name.schema.clone().unwrap_or_default();
        let made = schema::inspect(client, &schema, &next.name.table).await?;
        if build.fingerprint == self.spec.fingerprint {
            let missing = made.iter().flat_map(|m| m.missing_indexes(&next.name, &self.spec.model));
            self.run_ddl(client, &next.name, &missing.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    pub(crate) async fn hold_in(
        &self,
        client: &Client,
        generation: u64,
        patient: bool,
    ) -> Result<Stepped> {
        let at = self.standing(client, "").await?;
        let build = at.build().filter(|g| g.number == generation);
        let Some(build) = build.filter(|g| g.role == Role::Build(Phase::Following)) else {
            return Ok(Stepped::NotYet("the build is not following".to_owned()));
        };
        let (gone, _) = self.changed_columns(&at.stored);
        self.run(client, WHOLE_NAMES).await?;
        let missing = carry::missing(client, &at.live, &at.table(build), &gone).await?;
        if !missing.is_empty() {
            return Err(Error::config(format!(
                "{:?} was changed since its rebuild began ({}): cancel the rebuild and begin it again",
                at.site.label,
                missing.join(", ")
            )));
        }
        carry::check(client, &at.live, &[]).await?;
        // Made since the load; there are few rows to come, so this is where they belong.
        self.add_indexes(client, &at, build).await?;
        if patient && let Some(xid) = build.loaded_xid {
            let old = texts(client, &format!(
                "SELECT format('process %s (%s)', pid, coalesce(application_name, '')) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND coalesce(backend_type, \
                 'client backend') = 'client backend' AND backend_xmin IS NOT NULL AND age(backend_xmin) > \
                 age(({xid} % 4294967296)::text::xid) ORDER BY xact_start LIMIT 1"
            )).await?;
            if let Some(old) = old.first() {
                return Ok(Stepped::NotYet(format!(
                    "{old} holds a snapshot from before the end of the load, and would read an empty table"
                )));
            }
        }
        // In the order of all others: target, positions.
        let label = &at.site.label;
        self.entry(client, label, "FOR UPDATE").await?;
        self.books.raise_epochs(client, label, at.stored.generation, None).await?;
        let moved = self
            .books
            .move_build(client, (label, generation), Phase::Following, Phase::Holding)
            .await?;
        if moved {
            return Ok(Stepped::Done(Vec::new()));
        }
        Err(Error::fenced("the build ended meanwhile"))
    }

    pub(crate) async fn release_in(&self, client: &Client, generation: u64) -> Result<Stepped> {
        let label = self.resolve(client).await?.label();
        self.entry(client, &label, "FOR UPDATE").await?;
        let at = (label.as_str(), generation);
        Ok(if self.books.move_build(client, at, Phase::Holding, Phase::Following).await? {
            Stepped::Done(Vec::new())
        } else {
            Stepped::NotYet("the build is not holding".to_owned())
        })
    }

    /// Makes `next` the live table and keeps the live one, in the caller's transaction.
    async fn swap_in(
        &self,
        client: &Client,
        at: &Standing,
        next: &Generation,
    ) -> Result<Vec<String>> {
        let (label, stored) = (&at.site.label, &at.stored);
        let table = at.table(next);
        self.run(client, LOCK_FOR_SWAP).await?;
        self.run(client, WHOLE_NAMES).await?;
        let lock = format!(
            "LOCK TABLE {}, {} IN ACCESS EXCLUSIVE MODE",
            at.live.name.sql(),
            table.name.sql()
        );
        self.run(client, &lock).await?;
        let pair = (stored.generation, next.number);
        let swap = carry::swap(client, &at.live, &table, pair).await?;
        for sql in swap.before.iter().chain(&swap.renames).chain(&swap.after) {
            self.run(client, sql).await?;
        }
        self.books.raise_epochs(client, label, stored.generation, None).await?;
        self.books.raise_epochs(client, label, next.number, None).await?;
        let mut live = binding(&self.spec, table.oid, next.number);
        live.fingerprint.clone_from(&next.fingerprint);
        live.projection.clone_from(&next.projection);
        live.superseded.clone_from(&stored.superseded);
        live.superseded.push(stored.fingerprint.clone());
        live.superseded.sort_unstable();
        live.superseded.dedup();
        live.superseded.retain(|fingerprint| *fingerprint != next.fingerprint);
        self.books.bind(client, label, &live).await?;
        self.books.forget_row(client, label, next.number).await?;
        let old = Generation {
            number: stored.generation,
            role: Role::Old,
            physical: stored.physical.clone(),
            relation: name_in(&at.live.name.table, stored.generation),
            fingerprint: stored.fingerprint.clone(),
            projection: stored.projection.clone(),
            goals: Vec::new(),
            loaded_xid: None,
        };
        self.books.put_generation(client, label, &old).await?;
        Ok(swap.later)
    }

    /// The position rows of both generations, locked; whether the build has reached the live one.
    async fn reached(&self, client: &Client, at: &Standing, build: &Generation) -> Result<bool> {
        let label = &at.site.label;
        let lock = "FOR UPDATE";
        let live = self.books.positions(client, label, at.stored.generation, lock).await?;
        let next = self.books.positions(client, label, build.number, lock).await?;
        Ok(is_reached(&next, &live))
    }

    /// Done with the statements that are still to be run, each alone.
    pub(crate) async fn try_swap(&self, client: &Client, generation: u64) -> Result<Stepped> {
        let not_yet = |reason: &str| Ok(Stepped::NotYet(reason.to_owned()));
        let at = self.standing(client, "FOR UPDATE").await?;
        let build = at.build().filter(|g| g.number == generation);
        let Some(build) = build.filter(|g| g.role == Role::Build(Phase::Holding)) else {
            return not_yet("the build is not holding");
        };
        if build.fingerprint != self.spec.fingerprint {
            return not_yet("the build is another config's");
        }
        if !self.reached(client, &at, build).await? {
            return not_yet("the live generation's positions are not reached");
        }
        self.swap_in(client, &at, build).await.map(Stepped::Done)
    }

    pub(crate) async fn roll_back_in(&self, client: &Client) -> Result<(u64, Vec<String>)> {
        let at = self.standing(client, "FOR UPDATE").await?;
        if let Some(build) = at.build() {
            return Err(Error::config(format!(
                "generation {} is being built: cancel that first, with `foldline rebuild {} --cancel`",
                build.number, self.spec.connector
            )));
        }
        let Some(old) = at.old().last() else {
            return Err(Error::config(format!(
                "no older generation of {:?} is kept (connectors.{}.keep_generations)",
                at.site.label, self.spec.connector
            )));
        };
        self.run(client, WHOLE_NAMES).await?;
        let (live, table) = (&at.live, at.table(old));
        let missing = carry::missing(client, live, &table, &[]).await?;
        if old.fingerprint == at.stored.fingerprint && !missing.is_empty() {
            return Err(Error::config(format!(
                "{:?} was changed since generation {} was live ({}): give that table the same change first",
                at.site.label,
                old.number,
                missing.join(", ")
            )));
        }
        let later = self.swap_in(client, &at, old).await?;
        Ok((old.number, later))
    }

    /// What is checked after a swap: whatever becomes of it, the swap is done.
    pub(crate) async fn check_later(&self, later: &[String]) -> Vec<String> {
        let mut notices = Vec::new();
        for sql in later {
            let checked = within(OPEN_LIMIT, "checking a foreign key", async {
                let session = self.building.take().await?;
                let checked = self.run(&session.client, sql).await;
                session.keep();
                checked
            });
            if let Err(error) = checked.await {
                notices.push(format!("{sql}: {error}; the foreign key holds for new rows only"));
            }
        }
        notices
    }
}
