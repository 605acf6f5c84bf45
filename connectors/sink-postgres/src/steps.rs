//! The steps of a build: following, holding, the swap, and the way back.

use foldline_api::lifecycle::{Change, Command, Facts, Outcome};
use foldline_api::rebuild::{Phase, Role, Step, Stepped, is_reached};
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use crate::carry::{self, WHOLE_NAMES, texts};
use crate::generations::Generation;
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
        let change = match self.step_to(&at, false, (generation, Step::Follow))? {
            Ok(change) => change,
            Err(not_yet) => return Ok(not_yet),
        };
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        self.carry_out(client, &at, &change, &[]).await.map(Stepped::Done)
    }

    /// The change of a step, or why it is not due.
    fn step_to(
        &self,
        at: &Standing,
        reached: bool,
        (generation, step): (u64, Step),
    ) -> Result<Result<Box<Change>, Stepped>> {
        let facts = Facts { reached, ..Facts::default() };
        Ok(match self.decide(at, &facts, Command::Step(generation, step))? {
            Outcome::Changes(change) => Ok(change),
            Outcome::NotYet(reason) => Err(Stepped::NotYet(reason)),
            Outcome::Stands(_) | Outcome::Waits(_) => {
                Err(Stepped::NotYet("there is nothing to do".to_owned()))
            }
        })
    }

    /// Gives a loaded build its indexes and statistics.
    pub(crate) async fn finish(&self, client: &Client, at: &Standing, number: u64) -> Result<()> {
        let Some(build) = at.generation(number) else { return Ok(()) };
        self.add_indexes(client, at, build).await?;
        self.run(client, &format!("ANALYZE {}", at.table(build).name.sql())).await
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
        let change = match self.step_to(&at, false, (generation, Step::Hold { patient }))? {
            Ok(change) => change,
            Err(not_yet) => return Ok(not_yet),
        };
        let Some(build) = at.build() else {
            return Ok(Stepped::NotYet("the build is over".to_owned()));
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
        let mut old = Vec::new();
        if let Some(xid) = build.loaded_xid {
            old = texts(client, &sql!("catalog/snapshot_before_load", xid = xid)).await?;
        }
        if patient && let Some(old) = old.first() {
            return Ok(Stepped::NotYet(format!(
                "{old} holds a snapshot from before the end of the load, and would read an empty table"
            )));
        }
        if self.books.is_stale(client, &at.site.label, generation).await? {
            let what = "rows have still to show what they look up";
            return Ok(Stepped::NotYet(what.to_owned()));
        }
        // In the order of all others: target, positions.
        if let Some(blocked) = self.probe(client, &at, build).await? {
            return Ok(Stepped::NotYet(blocked));
        }
        self.entry(client, &at.site.label, "FOR UPDATE").await?;
        let mut notices = self.carry_out(client, &at, &change, &[]).await?;
        let reads = "holds a snapshot from before the end of the load: it will read the rebuilt table as empty";
        notices.extend(old.iter().map(|old| format!("{old} {reads}")));
        Ok(Stepped::Done(notices))
    }

    /// Whether the swap would get its locks now; if not, who has them. Nobody waits behind the question, and nothing is
    /// held when it is answered. Foldline's own flushes end with the hold.
    async fn probe(
        &self,
        client: &Client,
        at: &Standing,
        build: &Generation,
    ) -> Result<Option<String>> {
        let (live, next) = (&at.live, at.table(build));
        self.run(client, "SAVEPOINT probe").await?;
        let lock = format!(
            "LOCK TABLE {}, {} IN ACCESS EXCLUSIVE MODE NOWAIT",
            live.name.sql(),
            next.name.sql()
        );
        let free = client.batch_execute(&lock).await.is_ok();
        self.run(client, "ROLLBACK TO SAVEPOINT probe").await?;
        if free {
            return Ok(None);
        }
        let holders = sql!("catalog/lock_holders", live = live.oid, next = next.oid);
        let blocking = texts(client, &holders).await?;
        Ok((!blocking.is_empty()).then(|| {
            format!(
                "{} of table {:?}, whose lock the swap needs for a moment: it is tried again, and the live \
                 generation goes on",
                blocking.join(", "),
                at.site.label
            )
        }))
    }

    pub(crate) async fn release_in(&self, client: &Client, generation: u64) -> Result<Stepped> {
        let at = self.standing(client, "FOR UPDATE").await?;
        match self.step_to(&at, false, (generation, Step::Release))? {
            Ok(change) => self.carry_out(client, &at, &change, &[]).await.map(Stepped::Done),
            Err(not_yet) => Ok(not_yet),
        }
    }

    /// Exchanges the names of the live table and of generation `to`; what is checked later.
    pub(crate) async fn exchange(
        &self,
        client: &Client,
        at: &Standing,
        to: u64,
    ) -> Result<Vec<String>> {
        let Some(next) = at.generation(to) else {
            return Err(Error::fenced("the generation is gone"));
        };
        let table = at.table(next);
        self.run(client, LOCK_FOR_SWAP).await?;
        self.run(client, WHOLE_NAMES).await?;
        let lock = format!(
            "LOCK TABLE {}, {} IN ACCESS EXCLUSIVE MODE",
            at.live.name.sql(),
            table.name.sql()
        );
        self.run(client, &lock).await?;
        self.books.end_lookups(client, &at.site.label, at.stored.generation).await?;
        let pair = (at.stored.generation, next.number);
        let swap = carry::swap(client, &at.live, &table, pair).await?;
        for sql in swap.before.iter().chain(&swap.renames).chain(&swap.after) {
            self.run(client, sql).await?;
        }
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
        let at = self.standing(client, "FOR UPDATE").await?;
        let held = at.generation(generation).filter(|g| g.role == Role::Build(Phase::Holding));
        let reached = match held {
            Some(build) => self.reached(client, &at, build).await?,
            None => false,
        };
        let change = match self.step_to(&at, reached, (generation, Step::Swap))? {
            Ok(change) => change,
            Err(not_yet) => return Ok(not_yet),
        };
        let pair = (at.stored.generation, generation);
        let same = at.stored.fingerprint == change.record.binding.fingerprint;
        self.books.keep_new_letters(client, &at.site.label, pair, same).await?;
        self.books.take_over_sent(client, &at.site.label, pair).await?;
        self.carry_out(client, &at, &change, &[]).await.map(Stepped::Done)
    }

    pub(crate) async fn roll_back_in(
        &self,
        client: &Client,
        from: Option<u64>,
    ) -> Result<(u64, Vec<String>)> {
        let at = self.standing(client, "FOR UPDATE").await?;
        let outcome = self.decide(&at, &Facts::default(), Command::RollBack(from))?;
        let Outcome::Changes(change) = outcome else {
            return Ok((at.stored.generation, Vec::new()));
        };
        let Some(old) = at.generation(change.answer) else {
            return Err(Error::fenced("the generation is gone"));
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
        let later = self.carry_out(client, &at, &change, &[]).await?;
        // Behind the fences: whoever was about to note a letter has.
        let pair = (at.stored.generation, change.answer);
        self.books.take_over_sent(client, &at.site.label, pair).await?;
        Ok((change.answer, later))
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
