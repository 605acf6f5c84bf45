//! The next generation beside the live table, and the swap.
//!
//! A build is a table `<table>__g<N>` in the live table's schema, a row in `foldline.generations` and
//! positions of its own. Locks are taken in one order: the target's row, position rows, tables.

use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::Binding;
use foldline_api::lifecycle::{Act, Command, Facts, Outcome};
use foldline_api::parked::Place;
use foldline_api::rebuild::{Build, By, Generations, Rebuilds, Role, Step, Stepped};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState};
use foldline_api::source::DeadLetter;
use foldline_api::{Error, ErrorClass, Result};
use tokio_postgres::Client;

use crate::books::Entry;
use crate::carry::{self, Table, WHOLE_NAMES, texts};
use crate::generations::{Generation, name_in};
use crate::identifier::{TableName, literal, quote};
use crate::schema;
use crate::session::within;
use crate::site::Site;
use crate::target::{CALL_LIMIT, LOCK_BRIEFLY, OPEN_LIMIT, PostgresTarget};

/// Short enough that readers behind a waiting rename notice nothing; a swap that does not get its locks is tried
/// again.
pub(crate) const LOCK_FOR_SWAP: &str = "SET LOCAL lock_timeout = '100ms'";
/// Tasks that were held ask again after 100 ms, 200 ms and so on: with the pause that they are in when the hold ends,
/// live events wait less than two seconds.
const HOLD_MAX: Duration = Duration::from_millis(700);
/// How often a cancellation asks the build's own flushes and indexes to make room.
const CANCEL_ATTEMPTS: u32 = 20;

/// A target as it stands, read under the lock that its caller asked for.
pub(crate) struct Standing {
    pub(crate) site: Site,
    pub(crate) live: Table,
    pub(crate) stored: Binding,
    pub(crate) desired: DesiredState,
    pub(crate) beside: Vec<Generation>,
}

impl Standing {
    pub(crate) fn build(&self) -> Option<&Generation> {
        self.beside.iter().find(|g| matches!(g.role, Role::Build(_)))
    }

    pub(crate) fn table(&self, generation: &Generation) -> Table {
        let schema = self.live.name.schema.clone();
        Table {
            name: TableName { schema, table: generation.relation.clone() },
            oid: generation.physical.parse().unwrap_or(0),
        }
    }
}

impl PostgresTarget {
    pub(crate) async fn standing(&self, client: &Client, lock: &str) -> Result<Standing> {
        let site = Site::find(self, client).await?;
        let entry = self.entry(client, &site.label, lock).await?;
        self.standing_at(client, site, entry, lock).await
    }

    /// The same of an entry that was read.
    pub(crate) async fn standing_at(
        &self,
        client: &Client,
        site: Site,
        entry: Entry,
        lock: &str,
    ) -> Result<Standing> {
        let Entry { binding: stored, desired, .. } = entry;
        let beside = self.books.generations(client, &site.label, lock).await?;
        let oid = site.relation.as_ref().map_or(0, |relation| relation.oid);
        let live = Table { name: site.table.clone(), oid };
        Ok(Standing { site, live, stored, desired, beside })
    }

    async fn begin_in(
        &self,
        client: &Client,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        self.books.ensure(client).await?;
        self.run(client, "SET LOCAL statement_timeout = 0").await?;
        let at = self.standing(client, "FOR UPDATE").await?;
        if at.site.relation.is_none() {
            return Err(Error::config(format!(
                "table {:?} was dropped: restart connector {:?}, which builds it anew",
                at.site.label, self.spec.connector
            )));
        }
        let change = match self.decide(&at, &Facts::default(), Command::Build(by))? {
            Outcome::Changes(change) => change,
            Outcome::Stands(number) => return Ok(number),
            Outcome::NotYet(reason) => return Err(Error::retriable(reason)),
            Outcome::Waits(_) => return Err(Error::retriable("the projection waits")),
        };
        self.carry_out(client, &at, &change, goals).await?;
        let (number, label) = (change.answer, &at.site.label);
        self.books.begin(client, label, number, beginnings).await?;
        if at.stored.log == self.spec.log {
            let pair = (at.stored.generation, number);
            self.books.take_over_verdicts(client, label, pair).await?;
            self.books.take_over_holes(client, label, pair).await?;
        }
        Ok(number)
    }

    /// Columns that the stored projection has and this one does not, and those whose type changes.
    pub(crate) fn changed_columns(&self, stored: &Binding) -> (Vec<String>, Vec<String>) {
        let list = |json: &serde_json::Value| -> Vec<(String, serde_json::Value)> {
            let columns =
                json.get("columns").and_then(|c| c.as_array()).cloned().unwrap_or_default();
            let one = |c: serde_json::Value| {
                let name = c.get("name")?.as_str()?.to_owned();
                Some((name, c.get("type").cloned().unwrap_or_default()))
            };
            columns.into_iter().filter_map(one).collect()
        };
        let (old, new) = (list(&stored.projection), list(&self.spec.projection));
        let find = |name: &str| new.iter().find(|(other, _)| other == name);
        let gone = old.iter().filter(|(name, _)| find(name).is_none()).map(|(n, _)| n.clone());
        let other = old.iter().filter(|(name, ty)| find(name).is_some_and(|(_, new)| new != ty));
        (gone.collect(), other.map(|(name, _)| name.clone()).collect())
    }

    pub(crate) async fn make_table(
        &self,
        client: &Client,
        at: &Standing,
        number: u64,
    ) -> Result<Table> {
        let Some(relation) = &at.site.relation else {
            return Err(Error::config("there is no table to rebuild"));
        };
        let (gone, other) = self.changed_columns(&at.stored);
        self.run(client, WHOLE_NAMES).await?;
        carry::check(client, &at.live, &[gone.clone(), other].concat()).await?;
        let model = &self.spec.model;
        let own: Vec<String> = relation
            .columns
            .iter()
            .map(|column| column.name().to_owned())
            .filter(|name| model.position(name).is_none() && !gone.contains(name))
            .collect();
        carry::check_own(client, &at.live, &own).await?;
        let name = TableName {
            schema: at.live.name.schema.clone(),
            table: name_in(&at.live.name.table, number),
        };
        for sql in carry::create(client, &at.live, &name, number).await? {
            self.run(client, &sql).await?;
        }
        let schema = name.schema.clone().unwrap_or_default();
        let inspect = || schema::inspect(client, &schema, &name.table);
        let gone_there = || Error::retriable(format!("{} is gone", name.label()));
        let made = inspect().await?.ok_or_else(gone_there)?;
        for column in gone.iter().filter(|name| made.has_column(name)) {
            let drop = format!("ALTER TABLE {} DROP COLUMN {} CASCADE", name.sql(), quote(column));
            self.run(client, &drop).await?;
        }
        let made = inspect().await?.ok_or_else(gone_there)?;
        // Its secondary indexes come when the rows are there.
        let indexes = made.missing_indexes(&name, model);
        for sql in made.reshape(&name, model).iter().filter(|sql| !indexes.contains(sql)) {
            self.run(client, sql).await?;
        }
        let made = inspect().await?.ok_or_else(gone_there)?;
        let misfits = made.misfits(model);
        if !misfits.is_empty() {
            return Err(Error::config(format!(
                "the next generation of {:?} does not fit: {}",
                at.site.label,
                misfits.join("; ")
            )));
        }
        Ok(Table { name, oid: made.oid })
    }

    /// Drops a generation's table, if what stands there is the one that is meant.
    pub(crate) async fn drop_table(&self, client: &Client, table: &Table) -> Result<()> {
        let name = table.name.sql();
        let stands = texts(
            client,
            &format!("SELECT 1 WHERE to_regclass({})::oid = {}", literal(&name), table.oid),
        )
        .await?;
        if stands.is_empty() {
            return Ok(());
        }
        self.run(client, &format!("DROP TABLE {name}")).await
    }

    async fn drop_old_in(&self, client: &Client, keep: usize) -> Result<Vec<u64>> {
        let at = self.standing(client, "FOR UPDATE").await?;
        self.run(client, LOCK_BRIEFLY).await?;
        let outcome = self.decide(&at, &Facts::default(), Command::DropOld(keep))?;
        let Outcome::Changes(change) = outcome else { return Ok(Vec::new()) };
        self.carry_out(client, &at, &change, &[]).await?;
        let number = |act: &Act| if let Act::Drop(number) = act { Some(*number) } else { None };
        Ok(change.steps.iter().filter_map(number).collect())
    }

    async fn cancel_in(&self, client: &Client, expected: Option<u64>) -> Result<Option<u64>> {
        let at = self.standing(client, "FOR UPDATE").await?;
        let outcome = self.decide(&at, &Facts::default(), Command::Cancel(expected))?;
        let Outcome::Changes(change) = outcome else { return Ok(None) };
        let Some(build) = at.build() else { return Ok(None) };
        let table = at.table(build);
        // Whoever loads it or builds its indexes is Foldline: there is nothing left to wait for.
        texts(client, &sql!("catalog/cancel_users", oid = table.oid)).await?;
        self.run(client, LOCK_FOR_SWAP).await?;
        self.carry_out(client, &at, &change, &[]).await?;
        Ok(Some(change.answer))
    }
}

/// A step that a lock or another worker stopped: later again.
fn later(error: Error) -> Result<Stepped> {
    match error.class() {
        ErrorClass::Retriable | ErrorClass::Fenced => Ok(Stepped::NotYet(error.to_string())),
        _ => Err(error),
    }
}

#[async_trait]
impl Rebuilds for PostgresTarget {
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        within(OPEN_LIMIT, "beginning a rebuild", async {
            let session = self.lane.begin().await?;
            let result = self.begin_in(&session.client, by, beginnings, goals).await;
            session.finish(result).await
        })
        .await
    }

    async fn generations(&self) -> Result<Generations> {
        within(CALL_LIMIT, "reading the books", async {
            let look = self.look(&self.lane).await?;
            let old = look.beside.iter().filter(|g| g.role == Role::Old);
            let old = old.map(|g| g.number).collect();
            let build = look.beside.iter().find_map(|beside| {
                Some(Build {
                    generation: beside.number,
                    fingerprint: beside.fingerprint.clone(),
                    projection: beside.projection.clone(),
                    phase: beside.role.phase()?,
                    positions: look.positions(beside.number),
                    goals: beside.goals.clone(),
                })
            });
            let positions = look.positions(look.entry.binding.generation);
            let Entry { binding: Binding { generation: live, projection, .. }, desired } =
                look.entry;
            Ok(Generations { live, projection, desired, positions, build, old })
        })
        .await
    }

    fn hold_max(&self) -> Duration {
        HOLD_MAX
    }

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        within(OPEN_LIMIT, "a step of the rebuild", async {
            let session = match step {
                // Indexes of a whole table are made here.
                Step::Follow => self.building.begin().await?,
                _ => self.lane.begin().await?,
            };
            let client = &session.client;
            let result = match step {
                Step::Follow => self.follow_in(client, generation).await,
                Step::Hold { patient } => self.hold_in(client, generation, patient).await,
                Step::Release => self.release_in(client, generation).await,
                Step::Swap => self.try_swap(client, generation).await,
            };
            let stepped = session.finish(result).await.or_else(later)?;
            Ok(match (step, stepped) {
                (Step::Swap, Stepped::Done(more)) => Stepped::Done(self.check_later(&more).await),
                (_, stepped) => stepped,
            })
        })
        .await
    }

    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>> {
        let mut attempt = 0;
        loop {
            let cancelled = within(CALL_LIMIT, "cancelling the rebuild", async {
                let session = self.lane.begin().await?;
                let result = self.cancel_in(&session.client, expected).await;
                session.finish(result).await
            });
            match cancelled.await {
                Err(error)
                    if error.class() == ErrorClass::Retriable && attempt < CANCEL_ATTEMPTS =>
                {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn roll_back(&self, from: Option<u64>) -> Result<u64> {
        within(OPEN_LIMIT, "rolling back", async {
            let session = self.lane.begin().await?;
            let result = self.roll_back_in(&session.client, from).await;
            let (live, later) = session.finish(result).await?;
            for notice in self.check_later(&later).await {
                tracing::warn!(connector = %self.spec.connector, "{notice}");
            }
            Ok(live)
        })
        .await
    }

    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>> {
        within(CALL_LIMIT, "reading letters", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.letters(&session.client, (&label, generation), max).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        within(CALL_LIMIT, "reading which letters were sent", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.were_sent(&session.client, (&label, generation), places).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        within(CALL_LIMIT, "noting that letters were sent", async {
            let session = self.lane.begin().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.letters_sent(&session.client, (&label, generation), places).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        within(OPEN_LIMIT, "dropping old generations", async {
            let session = self.lane.begin().await?;
            let result = self.drop_old_in(&session.client, keep).await;
            session.finish(result).await
        })
        .await
    }
}
