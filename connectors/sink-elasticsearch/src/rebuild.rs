//! The next generation beside the live index, and the swap.
//!
//! The record in the books says what there is; every step is a compare-and-set of it, made after
//! whatever must be true for it, or before idempotent work that anyone finishes who reads it.

use async_trait::async_trait;
use foldline_api::lifecycle::{Change, Command, Facts, Outcome};
use foldline_api::parked::Place;
use foldline_api::rebuild::{Build, By, Generations, Phase, Rebuilds, Step, Stepped, is_reached};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Beginning;
use foldline_api::source::DeadLetter;
use foldline_api::{Error, Result};
use serde_json::{Value as Json, json};

use crate::books::{BeginningDoc, NextDoc, OldDoc, TargetDoc, Versioned};
use crate::mapping::{self, index_body};
use crate::shape::Made;
use crate::target::{ATTEMPTS, ElasticsearchTarget, contended, new_build};

/// What a load is spared, and gets back when it is durable.
const SPARED: [(&str, &str); 3] = [
    ("index.auto_expand_replicas", "false"),
    ("index.number_of_replicas", "0"),
    ("index.refresh_interval", "-1"),
];

/// The phase of a build that is being dropped.
pub(crate) const CANCELLED: &str = "cancelled";

impl NextDoc {
    /// How far it is; none where it is being dropped.
    pub(crate) fn phase(&self) -> Option<Phase> {
        Phase::parse(&self.phase)
    }
}

impl ElasticsearchTarget {
    /// The record with a new build in it, whose index is still to be made.
    fn with_next(
        &self,
        (doc, change): (&TargetDoc, &Change),
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> TargetDoc {
        let mut next = doc.after(change);
        next.next = Some(NextDoc {
            generation: change.answer,
            tag: new_build(),
            physical: String::new(),
            fingerprint: self.spec.fingerprint.clone(),
            projection: self.spec.projection.clone(),
            phase: Phase::Loading.name().to_owned(),
            restore: Json::Null,
            beginnings: beginnings.iter().map(BeginningDoc::from).collect(),
            goals: goals.iter().map(|(p, at)| (p.topic.to_string(), p.partition, at.0)).collect(),
        });
        next
    }

    /// Makes the build's index; false where the record changed meanwhile.
    async fn make(&self, stored: &Versioned<TargetDoc>, next: &NextDoc) -> Result<bool> {
        let index = self.index(next.generation);
        let alias = self.cluster.names.write_alias(next.generation, &next.fingerprint);
        let mut body = index_body(&self.spec, &next.tag);
        if let Some(body) = body.as_object_mut() {
            body.insert("aliases".to_owned(), json!({ &alias: { "is_hidden": true } }));
        }
        self.cluster.create(&index, &body).await?;
        let survey = self.cluster.survey().await?;
        let Some(stands) = survey.generations.get(&next.generation) else { return Ok(false) };
        if stands.build() != Some(next.tag.as_str()) {
            return Err(Error::config(format!(
                "index {index:?} stands where the next generation of {:?} must go: delete it, or move it to \
                 another name",
                self.spec.target
            )));
        }
        mapping::refuse(&index, &stands.settings, &stands.mappings)?;
        self.keep_fields(&index, stands).await?;
        let live = &stored.value.binding;
        let writers = self.cluster.names.write_alias(live.generation, &live.fingerprint);
        let beside = (live.generation, Some(next.generation));
        if !self.cluster.point(&survey, beside, &writers).await? {
            return Ok(false);
        }
        self.books.seed(next.generation, &next.beginnings).await?;
        let live = (stored.value.binding.generation, stored.value.beginnings.as_slice());
        self.books.take_over_verdicts(live, (next.generation, &next.beginnings)).await?;
        self.books.take_over_holes(live, (next.generation, &next.beginnings)).await?;
        let restore = SPARED.iter().map(|(name, _)| {
            ((*name).to_owned(), stands.settings.get(*name).cloned().unwrap_or_default())
        });
        let mut doc = stored.value.clone();
        if let Some(next) = &mut doc.next {
            next.physical = stands.uuid().to_owned();
            next.restore = Json::Object(restore.collect());
        }
        if !self.books.put_target(&doc, stored.version).await? {
            return Ok(false);
        }
        let spared = SPARED.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
        self.cluster.set(&index, &Json::Object(spared.collect())).await?;
        Ok(true)
    }

    /// Drops a build in two steps, whatever stands of it, and writes what the lifecycle says of its end with the
    /// first. True when it is gone.
    pub(crate) async fn drop_next(
        &self,
        stored: &Versioned<TargetDoc>,
        change: Option<&Change>,
    ) -> Result<bool> {
        let mut doc = stored.value.clone();
        let Some(next) = &mut doc.next else { return Ok(true) };
        if next.phase().is_some() {
            if next.phase() == Some(Phase::Holding) {
                self.cluster.unblock(&self.index(doc.binding.generation)).await?;
            }
            next.phase = CANCELLED.to_owned();
            if let Some(change) = change {
                doc.binding.superseded.clone_from(&change.record.binding.superseded);
            }
            // Read again: whoever does goes on here.
            self.books.put_target(&doc, stored.version).await?;
            return Ok(false);
        }
        let next = next.clone();
        self.cluster.drop_index(&self.index(next.generation)).await?;
        let partitions: Vec<TopicPartition> =
            next.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        self.books.drop_positions(next.generation, &partitions).await?;
        doc.next = None;
        self.books.put_target(&doc, stored.version).await
    }

    /// The record, settled, with no build that is being dropped.
    pub(crate) async fn settled(&self) -> Result<Versioned<TargetDoc>> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            if !stored.value.ready {
                self.settle(&stored).await?;
            } else if stored.value.next.as_ref().is_some_and(|next| next.phase().is_none()) {
                self.drop_next(&stored, None).await?;
            } else {
                return Ok(stored);
            }
        }
        Err(contended())
    }

    async fn is_with_these_options(&self, next: &NextDoc) -> Result<bool> {
        let index = self.cluster.index(&self.index(next.generation)).await?;
        Ok(index.is_none_or(|index| Made::of(&index).is_with(&self.spec)))
    }

    /// Writes the record after a change.
    async fn put(&self, stored: &Versioned<TargetDoc>, change: &Change) -> Result<Stepped> {
        let doc = stored.value.after(change);
        Ok(if self.books.put_target(&doc, stored.version).await? {
            Stepped::Done(change.notices.clone())
        } else {
            Stepped::NotYet("another worker was faster".to_owned())
        })
    }

    async fn follow(
        &self,
        stored: &Versioned<TargetDoc>,
        next: &NextDoc,
        change: &Change,
    ) -> Result<Stepped> {
        let index = self.index(next.generation);
        self.cluster.set(&index, &next.restore).await?;
        self.cluster.refresh(&index).await?;
        self.put(stored, change).await
    }

    async fn hold(
        &self,
        stored: &Versioned<TargetDoc>,
        next: &NextDoc,
        change: &Change,
    ) -> Result<Stepped> {
        let live = stored.value.binding.generation;
        // A cluster of one node never has the replicas: no worse than the live one is good enough.
        let (new, old) = (self.index(next.generation), self.index(live));
        if self.cluster.health(&new).await? < self.cluster.health(&old).await? {
            return Ok(Stepped::NotYet("its replicas are still being made".to_owned()));
        }
        if self.shows_less(next.generation).await? {
            return Ok(Stepped::NotYet("rows are still to show what they look up".to_owned()));
        }
        // What was loaded since is made visible now, while the live generation goes on: the swap's own refresh has
        // little left to do then.
        self.cluster.refresh(&new).await?;
        let held = self.put(stored, change).await?;
        if let Stepped::Done(_) = held {
            self.fence_live(&stored.value).await?;
        }
        Ok(held)
    }

    /// Nobody writes to the live generation or moves its positions when this returns.
    async fn fence_live(&self, doc: &TargetDoc) -> Result<()> {
        let live = doc.binding.generation;
        // Returns when the writes under way have ended.
        self.cluster.block(&self.index(live)).await?;
        let partitions: Vec<TopicPartition> =
            doc.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        self.books.raise(doc, live, &partitions).await.map(drop)
    }

    async fn swap(&self, stored: &Versioned<TargetDoc>, next: &NextDoc) -> Result<Stepped> {
        // Whoever held it may have gone before it fenced.
        self.fence_live(&stored.value).await?;
        let live =
            self.positions_of(stored.value.binding.generation, &stored.value.beginnings).await?;
        let new = self.positions_of(next.generation, &next.beginnings).await?;
        let facts = Facts { reached: is_reached(&new, &live), ..Facts::default() };
        let change = match self.due(stored, &facts, (next.generation, Step::Swap))? {
            Ok(change) => change,
            Err(not_yet) => return Ok(not_yet),
        };
        self.cluster.refresh(&self.index(next.generation)).await?;
        let same = stored.value.binding.fingerprint == next.fingerprint;
        let pair = (stored.value.binding.generation, stored.value.beginnings.as_slice());
        self.books.keep_new_letters(pair, (next.generation, &next.beginnings), same).await?;
        let put = self.put(stored, &change).await?;
        if let Stepped::NotYet(_) = put {
            self.unblock_unless_held().await?;
            return Ok(put);
        }
        self.settled().await?;
        Ok(put)
    }

    /// The change of a step, or why it is not due.
    fn due(
        &self,
        stored: &Versioned<TargetDoc>,
        facts: &Facts,
        (generation, step): (u64, Step),
    ) -> Result<Result<Box<Change>, Stepped>> {
        Ok(match self.decide(&stored.value, facts, Command::Step(generation, step))? {
            Outcome::Changes(change) => Ok(change),
            Outcome::NotYet(reason) => Err(Stepped::NotYet(reason)),
            Outcome::Stands(_) | Outcome::Waits(_) => {
                Err(Stepped::NotYet("there is nothing to do".to_owned()))
            }
        })
    }

    /// A swap that lost against a cancellation must not leave its block behind.
    async fn unblock_unless_held(&self) -> Result<()> {
        let stored = self.stored().await?;
        let held = stored.value.next.as_ref().and_then(NextDoc::phase) == Some(Phase::Holding);
        if held || !stored.value.ready {
            return Ok(());
        }
        self.cluster.unblock(&self.index(stored.value.binding.generation)).await
    }
}

#[async_trait]
impl Rebuilds for ElasticsearchTarget {
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        mapping::check(&self.spec)?;
        let mut dropped = 0;
        for _ in 0..ATTEMPTS {
            let stored = self.settled().await?;
            let doc = &stored.value;
            let survey = self.cluster.survey().await?;
            self.cluster.check_name(&survey)?;
            let mut facts = Self::facts(doc, &survey);
            facts.newest = facts.newest.max(dropped);
            match self.decide(doc, &facts, Command::Build(by))? {
                Outcome::Changes(change) if doc.next.is_some() => {
                    dropped = doc.next.as_ref().map_or(0, |next| next.generation);
                    // Another config's is dropped first; then it is decided again.
                    self.drop_next(&stored, Some(&change)).await?;
                }
                Outcome::Changes(change) => {
                    let doc = self.with_next((doc, &change), beginnings, goals);
                    self.books.put_target(&doc, stored.version).await?;
                }
                Outcome::Stands(number) => match &doc.next {
                    Some(next) if next.fingerprint != self.spec.fingerprint => return Ok(number),
                    Some(next) if next.physical.is_empty() => {
                        self.make(&stored, next).await?;
                    }
                    Some(next) if !self.is_with_these_options(next).await? => {
                        // It was begun before the connector's mapping or settings changed.
                        self.drop_next(&stored, None).await?;
                    }
                    _ => return Ok(number),
                },
                Outcome::NotYet(reason) => return Err(Error::retriable(reason)),
                Outcome::Waits(_) => return Err(Error::retriable("the projection waits")),
            }
        }
        Err(contended())
    }

    async fn generations(&self) -> Result<Generations> {
        let stored = self.stored().await?;
        match &stored.value.next {
            // Left by a crash in the middle: whoever looks goes on with it.
            Some(next) if next.phase().is_none() => drop(self.settled().await?),
            Some(next) if next.physical.is_empty() && next.fingerprint == self.spec.fingerprint => {
                self.make(&stored, next).await?;
            }
            Some(_) | None => {}
        }
        let doc = self.stored().await?.value;
        let positions = self.positions_of(doc.binding.generation, &doc.beginnings).await?;
        let mut build = None;
        if let Some(next) = doc.next.filter(|next| !next.physical.is_empty())
            && let Some(phase) = next.phase()
        {
            build = Some(Build {
                generation: next.generation,
                positions: self.positions_of(next.generation, &next.beginnings).await?,
                fingerprint: next.fingerprint,
                projection: next.projection,
                phase,
                goals: next
                    .goals
                    .into_iter()
                    .map(|(topic, p, at)| (TopicPartition::new(topic, p), Position(at)))
                    .collect(),
            });
        }
        let old = doc.old.iter().map(|old| old.generation).collect();
        let (live, projection) = (doc.binding.generation, doc.binding.projection);
        let desired = doc.desired.into();
        Ok(Generations { live, projection, desired, positions, build, old })
    }

    // A flush writes its documents before it moves the positions.
    fn rows_precede_positions(&self) -> bool {
        true
    }

    async fn fence(&self, generation: u64) -> Result<()> {
        let doc = self.settled().await?.value;
        doc.record().held_by(generation)?;
        // Whoever held it may have gone before it fenced.
        self.fence_live(&doc).await
    }

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        let stored = self.settled().await?;
        // Whether a swap has reached the positions is asked once nobody moves them.
        let facts = Facts { reached: true, ..Facts::default() };
        let change = match self.due(&stored, &facts, (generation, step))? {
            Ok(change) => change,
            Err(not_yet) => return Ok(not_yet),
        };
        let Some(next) = &stored.value.next else {
            return Ok(Stepped::NotYet("the build is over".to_owned()));
        };
        match step {
            Step::Follow => self.follow(&stored, next, &change).await,
            Step::Hold { .. } => self.hold(&stored, next, &change).await,
            Step::Release => {
                self.cluster.unblock(&self.index(stored.value.binding.generation)).await?;
                self.put(&stored, &change).await
            }
            Step::Swap => self.swap(&stored, next).await,
        }
    }

    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>> {
        let mut cancelled = None;
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            if !stored.value.ready {
                self.settle(&stored).await?;
                continue;
            }
            // What this call has begun to drop is dropped, whatever begins meanwhile.
            let expected =
                expected.or(cancelled).filter(|_| stored.value.record().build().is_some());
            match self.decide(&stored.value, &Facts::default(), Command::Cancel(expected)) {
                Ok(Outcome::Changes(change)) => {
                    cancelled = Some(change.answer);
                    self.drop_next(&stored, Some(&change)).await?;
                }
                Ok(_) if stored.value.next.is_some() => {
                    self.drop_next(&stored, None).await?;
                }
                Err(error) if cancelled.is_none() => return Err(error),
                Ok(_) | Err(_) => return Ok(cancelled),
            }
        }
        Err(contended())
    }

    async fn roll_back(&self, from: Option<u64>) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let stored = self.settled().await?;
            let doc = &stored.value;
            let survey = self.cluster.survey().await?;
            let facts = Self::facts(doc, &survey);
            let Outcome::Changes(change) = self.decide(doc, &facts, Command::RollBack(from))?
            else {
                return Ok(doc.binding.generation);
            };
            if self.books.put_target(&doc.after(&change), stored.version).await? {
                self.settled().await?;
                return Ok(change.answer);
            }
        }
        Err(contended())
    }

    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>> {
        let doc = self.stored().await?.value;
        let partitions: Vec<TopicPartition> =
            doc.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        self.books.letters(generation, &partitions, max).await
    }

    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        self.stored().await?;
        self.books.letters_sent(generation, places).await
    }

    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        self.stored().await?;
        self.books.were_sent(generation, places).await
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        for _ in 0..ATTEMPTS {
            let stored = self.settled().await?;
            let doc = &stored.value;
            let Outcome::Changes(change) =
                self.decide(doc, &Facts::default(), Command::DropOld(keep))?
            else {
                return Ok(Vec::new());
            };
            let next = doc.after(&change);
            let gone = |old: &&OldDoc| next.old.iter().all(|it| it.generation != old.generation);
            let mut dropped = Vec::new();
            for old in doc.old.iter().filter(gone) {
                // Nobody can roll back to it between: it would no longer be at this version.
                self.cluster.drop_index(&self.index(old.generation)).await?;
                let partitions: Vec<TopicPartition> =
                    old.beginnings.iter().map(BeginningDoc::topic_partition).collect();
                self.books.drop_positions(old.generation, &partitions).await?;
                dropped.push(old.generation);
            }
            if self.books.put_target(&next, stored.version).await? {
                return Ok(dropped);
            }
        }
        Err(contended())
    }
}
