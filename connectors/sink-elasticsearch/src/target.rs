//! One connector's target: the record in the books decides, index and aliases follow.
//!
//! Every change starts with a compare-and-set of the target's record, marked as not ready. Whoever
//! reads such a record, this worker or another one after a crash, carries out the same idempotent
//! steps and marks it ready.

mod settle;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::{Binding, Found, check_owner, check_projection};
use foldline_api::expiry::Horizons;
use foldline_api::hole::Holes;
use foldline_api::lifecycle::{Act, Change, Command, Facts, LogNow, Outcome, transition};
use foldline_api::parked::Parking;
use foldline_api::query::Queries;
use foldline_api::rebuild::Rebuilds;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::removal::{Keep, Removed};
use foldline_api::schemas::KeptSchemas;
use foldline_api::sink::{
    self, Adopted, Beginning, Configured, DesiredState, Opened, Snapshot, StoredPosition, Target,
    TargetSpec, Version, Writer,
};
use foldline_api::{Error, Result};

use crate::books::{
    BeginningDoc, Books, DesiredDoc, PositionDoc, TargetDoc, Versioned, add_beginnings,
};
use crate::client::Client;
use crate::compare;
use crate::config::ElasticsearchConfig;
use crate::mapping::{self, Names};
use crate::purge;
use crate::query::Refreshed;
use crate::shape::{self, Made};
use crate::snapshot::ElasticsearchSnapshot;
use crate::survey::{Cluster, Survey};
use crate::verdicts;
use crate::writer::ElasticsearchWriter;
pub(crate) use settle::{contended, new_build};

/// How often a step starts over because another worker was faster.
pub(crate) const ATTEMPTS: u32 = 20;

/// How long a deleted document's tombstone guards it against a writer that was paused.
const TOMBSTONE_RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// An index, or rather the alias of that name, its generations and its books.
#[derive(Debug)]
pub struct ElasticsearchTarget {
    pub(crate) spec: TargetSpec,
    pub(crate) books: Books,
    pub(crate) cluster: Cluster,
    pub(crate) refreshed: Refreshed,
}

impl ElasticsearchTarget {
    /// A target of `spec` in the cluster of `config`. Nothing is sent yet.
    ///
    /// # Errors
    /// Config errors: a wrong address or login, an unreadable `ca`.
    pub fn new(config: &ElasticsearchConfig, spec: TargetSpec) -> Result<Self> {
        let client = Arc::new(Client::new(config)?);
        let books = Books::new(Arc::clone(&client), &spec.target);
        let cluster = Cluster { client, names: Names::new(&spec.target) };
        Ok(ElasticsearchTarget { spec, books, cluster, refreshed: Refreshed::default() })
    }

    /// Removes tombstone documents for good, those that are older than `retention` and whose markers
    /// the stored positions have passed; how many were removed. Exactness against a writer that was
    /// paused for longer than `retention` ends here.
    ///
    /// # Errors
    /// Retriable ones; nothing is half done.
    pub async fn purge_tombstones(&self, retention: Duration) -> Result<u64> {
        let doc = self.stored().await?;
        if !doc.value.ready {
            return Ok(0);
        }
        let positions = self.stored_positions(&doc.value).await?;
        let binding = &doc.value.binding;
        let alias = self.cluster.names.write_alias(binding.generation, &binding.fingerprint);
        purge::purge(&self.cluster.client, &alias, &positions, retention).await
    }

    /// What stands where the books say the live generation is.
    pub(crate) async fn find(
        &self,
        stored: Option<&TargetDoc>,
        survey: &Survey,
    ) -> Result<Option<Found>> {
        let Some(stored) = stored else {
            // Nothing recorded: an index with documents is someone's; an empty one can be taken.
            let mut found = None;
            for (&generation, index) in &survey.generations {
                let has_rows = self.cluster.has_rows(&self.index(generation)).await?;
                found = Some(Found { physical: index.uuid().to_owned(), has_rows });
                if has_rows {
                    break;
                }
            }
            return Ok(found);
        };
        let physical = &stored.binding.physical;
        if physical.is_empty() {
            // Still being made: as good as there, `settle` goes on with it.
            return Ok(Some(Found { physical: String::new(), has_rows: false }));
        }
        let Some(index) = survey.generations.get(&stored.binding.generation) else {
            return Ok(None);
        };
        let has_rows = index.uuid() != physical
            && self.cluster.has_rows(&self.index(stored.binding.generation)).await?;
        Ok(Some(Found { physical: index.uuid().to_owned(), has_rows }))
    }

    /// What stands in the cluster, and what opening the target would do about it.
    async fn opening(&self, stored: Option<&TargetDoc>) -> Result<(Survey, Outcome)> {
        let survey = self.cluster.survey().await?;
        self.cluster.check_name(&survey)?;
        let found = self.find(stored, &survey).await?;
        let known = stored.map_or_else(Facts::default, |doc| Self::facts(doc, &survey));
        let record = stored.map(TargetDoc::record);
        let facts = Facts { found, ..known };
        let outcome = transition(record.as_ref(), &self.spec, &facts, Command::Open)?;
        Ok((survey, outcome))
    }

    /// The record that a change asks for; none where it stays as it is.
    fn changed(
        &self,
        stored: Option<&TargetDoc>,
        change: &Change,
        survey: &Survey,
    ) -> Option<(TargetDoc, Vec<String>)> {
        let (target, binding) = (&self.spec.target, change.record.binding.clone());
        let Some(stored) = stored else {
            let taken = survey.generations.last_key_value();
            let taken = taken.filter(|_| change.steps.contains(&Act::Adopt));
            return Some(match taken {
                Some((&generation, index)) => {
                    let physical = index.uuid().to_owned();
                    let notice = format!("took the empty index {:?}", self.index(generation));
                    (self.first(Binding { generation, physical, ..binding }), vec![notice])
                }
                None => {
                    let generation = survey.first();
                    let notice = format!("created {target:?}, generation {generation}");
                    (self.first(Binding { generation, ..binding }), vec![notice])
                }
            });
        };
        if change.answer != stored.binding.generation {
            let notice = format!(
                "the index behind {target:?} was dropped: its positions are void, generation {} is filled from \
                 the fold's beginnings",
                change.answer
            );
            return Some((stored.renewed(change), vec![notice]));
        }
        change.steps.contains(&Act::Extend).then(|| {
            let mut next = stored.after(change);
            next.ready = false;
            let mut notices = vec![format!("added the new columns to {target:?}")];
            notices.extend(change.notices.iter().cloned());
            (next, notices)
        })
    }

    fn first(&self, binding: Binding) -> TargetDoc {
        TargetDoc {
            target: self.spec.target.clone(),
            binding,
            build: new_build(),
            ready: false,
            beginnings: Vec::new(),
            dropping: Vec::new(),
            desired: DesiredDoc::Running,
            next: None,
            old: Vec::new(),
            before: None,
            swapped: false,
            seal: None,
        }
    }

    async fn opened(&self, doc: &TargetDoc, notices: Vec<String>) -> Result<Opened> {
        Ok(Opened {
            generation: doc.binding.generation,
            positions: self.stored_positions(doc).await?,
            desired: doc.desired.into(),
            waits: None,
            notices,
        })
    }

    pub(crate) async fn stored_positions(&self, doc: &TargetDoc) -> Result<Vec<StoredPosition>> {
        self.positions_of(doc.binding.generation, &doc.beginnings).await
    }

    /// Where a generation's partitions stand.
    pub(crate) async fn positions_of(
        &self,
        generation: u64,
        beginnings: &[BeginningDoc],
    ) -> Result<Vec<StoredPosition>> {
        let partitions: Vec<TopicPartition> =
            beginnings.iter().map(BeginningDoc::topic_partition).collect();
        let places = self.books.positions(generation, &partitions).await?;
        let stored = |((partition, beginning), place): ((TopicPartition, &BeginningDoc), _)| {
            let place: Option<Versioned<PositionDoc>> = place;
            let (position, epoch) =
                place.map_or((beginning.position, 0), |p| (p.value.position, p.value.epoch));
            StoredPosition {
                partition,
                topic_id: beginning.topic_id.clone(),
                beginning: Position(beginning.position),
                position: Position(position),
                epoch,
            }
        };
        Ok(partitions.into_iter().zip(beginnings).zip(places).map(stored).collect())
    }

    /// Gives the generations what an earlier version kept for all of them.
    async fn move_in(&self, doc: &TargetDoc) -> Result<()> {
        let beside = doc.old.iter().map(|old| old.generation);
        let next = doc.next.iter().map(|next| next.generation);
        let all: Vec<u64> = beside.chain(next).chain([doc.binding.generation]).collect();
        self.books.move_in_verdicts(&all, &doc.beginnings).await
    }

    pub(crate) fn index(&self, generation: u64) -> String {
        self.cluster.names.index(generation)
    }

    /// The target's record: this connector's, or nothing is done.
    pub(crate) async fn stored(&self) -> Result<Versioned<TargetDoc>> {
        let stored = self.books.target().await?.ok_or_else(|| {
            Error::fenced(format!("{:?} is not in the books: open it again", self.spec.target))
        })?;
        check_owner(&stored.value.binding, &self.spec)?;
        Ok(stored)
    }
}

#[async_trait]
impl Target for ElasticsearchTarget {
    async fn check(&self) -> Result<()> {
        mapping::check(&self.spec)?;
        self.cluster.client.check_version().await?;
        self.cluster.check_privileges().await?;
        let stored = if self.books.exist().await? { self.books.target().await? } else { None };
        self.opening(stored.as_ref().map(|stored| &stored.value)).await.map(drop)
    }

    async fn open(&self) -> Result<Opened> {
        mapping::check(&self.spec)?;
        self.cluster.client.check_version().await?;
        self.books.ensure().await?;
        let (mut notices, mut pointed) = (Vec::new(), false);
        for _ in 0..ATTEMPTS {
            let stored = self.books.target().await?;
            let doc = stored.as_ref().map(|stored| &stored.value);
            let (survey, outcome) = self.opening(doc).await?;
            let (change, waits) = match outcome {
                Outcome::Changes(change) => (Some(change), None),
                Outcome::Waits(waits) => (None, Some(waits)),
                Outcome::Stands(_) | Outcome::NotYet(_) => (None, None),
            };
            if let Some((next, told)) =
                change.and_then(|change| self.changed(doc, &change, &survey))
            {
                let version = stored.as_ref().map_or(Version::Absent, |stored| stored.version);
                // Won or lost, the record is read again: then it says what there is to do.
                if self.books.put_target(&next, version).await? {
                    notices.extend(told);
                }
                continue;
            }
            let Some(stored) = stored else { continue };
            if stored.value.ready && !std::mem::replace(&mut pointed, true) {
                let doc = &stored.value;
                if !self.is_pointed(doc, &survey) {
                    let doc = TargetDoc { ready: false, ..doc.clone() };
                    if self.books.put_target(&doc, stored.version).await? {
                        notices.push(format!(
                            "the aliases of {:?} were not as Foldline makes them: set right",
                            self.spec.target
                        ));
                    }
                    continue;
                }
            }
            if stored.value.ready {
                let live = survey.generations.get(&stored.value.binding.generation);
                if let Some(live) = live {
                    let name = self.index(stored.value.binding.generation);
                    mapping::refuse(&name, &live.settings, &live.mappings)?;
                    let made = Made::of(live);
                    if waits.is_none() && made.is_with(&self.spec) {
                        shape::check(&self.spec, (&name, live), &made.fields, false)?;
                    }
                }
                self.move_in(&stored.value).await?;
                return Ok(Opened { waits, ..self.opened(&stored.value, notices).await? });
            }
            self.settle(&stored).await?;
        }
        Err(contended())
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            self.decide(&stored.value, &Facts::default(), Command::Begin(generation))?;
            let mut doc = stored.value;
            if !add_beginnings(&mut doc.beginnings, beginnings)
                || self.books.put_target(&doc, stored.version).await?
            {
                return self.books.seed(generation, &doc.beginnings).await;
            }
        }
        Err(contended())
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        mapping::check(&self.spec)?;
        let mut next_generation = None;
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            let doc = &stored.value;
            if doc.binding.generation != generation {
                let ours = doc.binding.fingerprint == self.spec.fingerprint;
                // Another worker's rebuild with another model is that worker's to finish.
                if doc.ready || !ours || self.settle(&stored).await? {
                    return Ok(next_generation.unwrap_or(doc.binding.generation));
                }
                continue;
            }
            let survey = self.cluster.survey().await?;
            self.cluster.check_name(&survey)?;
            let facts = Self::facts(doc, &survey);
            let Outcome::Changes(change) = self.decide(doc, &facts, Command::Empty(generation))?
            else {
                continue;
            };
            let mut next = doc.renewed(&change);
            if let Some(beginnings) = beginnings {
                next.beginnings = beginnings.iter().map(BeginningDoc::from).collect();
            }
            if self.books.put_target(&next, stored.version).await? {
                next_generation = Some(next.binding.generation);
            }
        }
        Err(contended())
    }

    async fn adopt(&self, log: &LogNow) -> Result<Adopted> {
        self.cluster.client.check_version().await?;
        self.take_over(log).await
    }

    async fn remove(&self, keep: Keep) -> Result<Removed> {
        self.remove_all(keep).await
    }

    async fn note_stopped(&self) -> Result<()> {
        self.seal().await
    }

    async fn status(&self) -> Result<Opened> {
        let stored = self.stored().await?;
        self.opened(&stored.value, Vec::new()).await
    }

    async fn maintain(&self) -> Result<()> {
        let purged = self.purge_tombstones(TOMBSTONE_RETENTION).await?;
        if purged > 0 {
            tracing::info!(connector = %self.spec.connector, purged, "old tombstones purged");
        }
        Ok(())
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            let outcome =
                self.decide(&stored.value, &Facts::default(), Command::Desire(desired))?;
            let Outcome::Changes(change) = outcome else { return Ok(()) };
            let doc = stored.value.after(&change);
            if self.books.put_target(&doc, stored.version).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn configure(&self) -> Result<Configured> {
        self.configured().await
    }

    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>> {
        let stored = self.stored().await?;
        let building = stored.value.next.is_some_and(|next| next.generation == generation);
        Ok(Arc::new(ElasticsearchWriter::new(
            Arc::clone(&self.cluster.client),
            self.books.clone(),
            &self.spec,
            (generation, building),
        )))
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
        let generation = self.stored().await?.value.binding.generation;
        let survey = self.cluster.survey().await?;
        Ok(match survey.generations.get(&generation) {
            Some(stands) => compare::differences(&self.spec, &stands.mappings, &stands.settings),
            None => vec![format!("index {:?} does not exist", self.index(generation))],
        })
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
        let stored = self.stored().await?;
        let binding = &stored.value.binding;
        let cannot = "its documents cannot be judged";
        check_projection(&binding.fingerprint, &self.spec, &self.spec.target, cannot)?;
        let generation = binding.generation;
        let alias = self.cluster.names.write_alias(generation, &binding.fingerprint);
        let positions = self.stored_positions(&stored.value).await?;
        let partitions: Vec<TopicPartition> =
            positions.iter().map(|stored| stored.partition.clone()).collect();
        self.books.refresh().await?;
        let mut verdicts = Vec::new();
        let places = self.books.positions(generation, &partitions).await?;
        let mapping = self.cluster.mapping(&alias).await?;
        for (stored, place) in positions.iter().zip(places) {
            let Some(place) = place.map(|place| place.value) else { continue };
            let from = (stored.beginning, stored.topic_id.as_ref());
            let mut docs = self.books.left_out(generation, &place, from).await?;
            docs.retain(|doc| !doc.open);
            let stands = |known: &str| verdicts::stands(&mapping, &binding.fingerprint, known);
            let judged = docs.into_iter().map(|doc| doc.stored(&stored.partition).judged(stands));
            verdicts.extend(judged);
        }
        let client = Arc::clone(&self.cluster.client);
        let writer = ElasticsearchWriter::new(
            Arc::clone(&client),
            self.books.clone(),
            &self.spec,
            (generation, false),
        );
        let continued = binding.continued.contains(&generation);
        let horizon = self.books.horizon(self.spec.expire.as_ref()).await?;
        let books = sink::Books { generation, positions, verdicts, continued, horizon };
        let model = Arc::clone(&self.spec.model);
        let snapshot = ElasticsearchSnapshot::new(client, alias, model, books, writer);
        Ok(Box::new(snapshot))
    }
}
