//! The next generation beside the live index, and the swap.
//!
//! The record in the books says what there is; every step is a compare-and-set of it, made after
//! whatever must be true for it, or before idempotent work that anyone finishes who reads it.

use async_trait::async_trait;
use foldline_api::rebuild::{Build, Generations, Phase, Rebuilds, Step, Stepped, is_reached};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Beginning;
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
    fn check_allowed(&self, doc: &TargetDoc) -> Result<()> {
        let spec = &self.spec;
        let binding = &doc.binding;
        if binding.fingerprint != spec.fingerprint && binding.superseded.contains(&spec.fingerprint)
        {
            return Err(Error::config(format!(
                "this projection once built {:?} and was superseded by a newer one: deploy the newer config, \
                 or rebuild with `foldline rebuild {} --in-place`",
                spec.target, spec.connector
            )));
        }
        Ok(())
    }

    /// The record with a new build in it, whose index is still to be made.
    async fn with_next(
        &self,
        doc: &TargetDoc,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<TargetDoc> {
        let survey = self.cluster.survey().await?;
        self.cluster.check_name(&survey)?;
        let mut next = doc.clone();
        next.next = Some(NextDoc {
            generation: self.next_number(doc, &survey),
            tag: new_build(),
            physical: String::new(),
            fingerprint: self.spec.fingerprint.clone(),
            projection: self.spec.projection.clone(),
            phase: Phase::Loading.name().to_owned(),
            restore: Json::Null,
            beginnings: beginnings.iter().map(BeginningDoc::from).collect(),
            goals: goals.iter().map(|(p, at)| (p.topic.to_string(), p.partition, at.0)).collect(),
        });
        Ok(next)
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
        let partitions: Vec<TopicPartition> =
            stored.value.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        self.books.keep_verdicts_of(stored.value.binding.generation, &partitions).await?;
        self.books.seed(next.generation, &next.beginnings).await?;
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

    /// Drops a build in two steps, whatever stands of it; with `supersede`, its projection never comes
    /// back. True when it is gone.
    pub(crate) async fn drop_next(
        &self,
        stored: &Versioned<TargetDoc>,
        supersede: bool,
    ) -> Result<bool> {
        let mut doc = stored.value.clone();
        let Some(next) = &mut doc.next else { return Ok(true) };
        if next.phase().is_some() {
            if next.phase() == Some(Phase::Holding) {
                self.cluster.unblock(&self.index(doc.binding.generation)).await?;
            }
            next.phase = CANCELLED.to_owned();
            if supersede {
                let fingerprint = next.fingerprint.clone();
                doc.binding.superseded.push(fingerprint);
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
    async fn settled(&self) -> Result<Versioned<TargetDoc>> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            if !stored.value.ready {
                self.settle(&stored).await?;
            } else if stored.value.next.as_ref().is_some_and(|next| next.phase().is_none()) {
                self.drop_next(&stored, false).await?;
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

    async fn set_phase(&self, stored: &Versioned<TargetDoc>, phase: Phase) -> Result<Stepped> {
        let mut doc = stored.value.clone();
        if let Some(next) = &mut doc.next {
            next.phase = phase.name().to_owned();
        }
        Ok(if self.books.put_target(&doc, stored.version).await? {
            Stepped::Done(Vec::new())
        } else {
            Stepped::NotYet("another worker was faster".to_owned())
        })
    }

    async fn follow(&self, stored: &Versioned<TargetDoc>, next: &NextDoc) -> Result<Stepped> {
        let index = self.index(next.generation);
        self.cluster.set(&index, &next.restore).await?;
        self.cluster.refresh(&index).await?;
        self.set_phase(stored, Phase::Following).await
    }

    async fn hold(&self, stored: &Versioned<TargetDoc>, next: &NextDoc) -> Result<Stepped> {
        let live = stored.value.binding.generation;
        // A cluster of one node never has the replicas: no worse than the live one is good enough.
        let (new, old) = (self.index(next.generation), self.index(live));
        if self.cluster.health(&new).await? < self.cluster.health(&old).await? {
            return Ok(Stepped::NotYet("its replicas are still being made".to_owned()));
        }
        let held = self.set_phase(stored, Phase::Holding).await?;
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
        let not_yet = |reason: &str| Ok(Stepped::NotYet(reason.to_owned()));
        if next.fingerprint != self.spec.fingerprint {
            return not_yet("the build is another config's");
        }
        // Whoever held it may have gone before it fenced.
        self.fence_live(&stored.value).await?;
        let live =
            self.positions_of(stored.value.binding.generation, &stored.value.beginnings).await?;
        let new = self.positions_of(next.generation, &next.beginnings).await?;
        if !is_reached(&new, &live) {
            return not_yet("the live generation's positions are not reached");
        }
        self.cluster.refresh(&self.index(next.generation)).await?;
        let mut doc = stored.value.clone();
        let old = OldDoc::of(&doc);
        let superseded = doc.binding.fingerprint.clone();
        doc.next = None;
        doc.revive(OldDoc {
            generation: next.generation,
            tag: next.tag.clone(),
            physical: next.physical.clone(),
            fingerprint: next.fingerprint.clone(),
            projection: next.projection.clone(),
            beginnings: next.beginnings.clone(),
        });
        doc.supersede(superseded);
        doc.old.push(old);
        doc.swapped = true;
        if !self.books.put_target(&doc, stored.version).await? {
            self.unblock_unless_held().await?;
            return not_yet("another worker was faster");
        }
        self.settled().await?;
        Ok(Stepped::Done(Vec::new()))
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
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        mapping::check(&self.spec)?;
        for _ in 0..ATTEMPTS {
            let stored = self.settled().await?;
            self.check_allowed(&stored.value)?;
            match &stored.value.next {
                None => {
                    let doc = self.with_next(&stored.value, beginnings, goals).await?;
                    self.books.put_target(&doc, stored.version).await?;
                }
                Some(next) if next.fingerprint != self.spec.fingerprint => {
                    // A newer config's rebuild: the older one's projection never comes back.
                    self.drop_next(&stored, true).await?;
                }
                Some(next) if next.physical.is_empty() => {
                    self.make(&stored, next).await?;
                }
                Some(next) if self.is_with_these_options(next).await? => return Ok(next.generation),
                // It was begun before the connector's mapping or settings changed.
                Some(_) => drop(self.drop_next(&stored, false).await?),
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

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        let stored = self.settled().await?;
        let next = stored.value.next.as_ref().filter(|next| next.generation == generation);
        let Some(next) = next else { return Ok(Stepped::NotYet("the build is over".to_owned())) };
        match (step, next.phase()) {
            (Step::Follow, Some(Phase::Loading)) => self.follow(&stored, next).await,
            (Step::Hold { .. }, Some(Phase::Following)) => self.hold(&stored, next).await,
            (Step::Release, Some(Phase::Holding)) => {
                self.cluster.unblock(&self.index(stored.value.binding.generation)).await?;
                self.set_phase(&stored, Phase::Following).await
            }
            (Step::Swap, Some(Phase::Holding)) => self.swap(&stored, next).await,
            (_, phase) => Ok(Stepped::NotYet(format!(
                "the build is {}",
                phase.map_or(CANCELLED, Phase::name)
            ))),
        }
    }

    async fn cancel(&self) -> Result<Option<u64>> {
        let mut cancelled = None;
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            if !stored.value.ready {
                self.settle(&stored).await?;
                continue;
            }
            let Some(next) = &stored.value.next else { return Ok(cancelled) };
            cancelled = Some(next.generation);
            self.drop_next(&stored, false).await?;
        }
        Err(contended())
    }

    async fn roll_back(&self) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let stored = self.settled().await?;
            let mut doc = stored.value;
            if let Some(next) = &doc.next {
                return Err(Error::config(format!(
                    "generation {} is being built: cancel that first, with `foldline rebuild {} --cancel`",
                    next.generation, self.spec.connector
                )));
            }
            let survey = self.cluster.survey().await?;
            let stands = |old: &OldDoc| {
                survey.generations.get(&old.generation).is_some_and(|i| i.uuid() == old.physical)
            };
            let Some(at) = doc.old.iter().rposition(stands) else {
                return Err(Error::config(format!(
                    "no older generation of {:?} is kept (connectors.{}.keep_generations)",
                    self.spec.target, self.spec.connector
                )));
            };
            let back = doc.old.remove(at);
            let generation = back.generation;
            let (old, superseded) = (OldDoc::of(&doc), doc.binding.fingerprint.clone());
            doc.revive(back);
            doc.supersede(superseded);
            doc.old.push(old);
            doc.swapped = true;
            if self.books.put_target(&doc, stored.version).await? {
                self.settled().await?;
                return Ok(generation);
            }
        }
        Err(contended())
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        let mut dropped = Vec::new();
        for _ in 0..ATTEMPTS {
            let stored = self.settled().await?;
            let mut doc = stored.value;
            let surplus = doc.old.len().saturating_sub(keep);
            if surplus == 0 {
                return Ok(dropped);
            }
            dropped.clear();
            for old in doc.old.drain(..surplus) {
                // Nobody can roll back to it between: it would no longer be at this version.
                self.cluster.drop_index(&self.index(old.generation)).await?;
                let partitions: Vec<TopicPartition> =
                    old.beginnings.iter().map(BeginningDoc::topic_partition).collect();
                self.books.drop_positions(old.generation, &partitions).await?;
                dropped.push(old.generation);
            }
            if self.books.put_target(&doc, stored.version).await? {
                return Ok(dropped);
            }
        }
        Err(contended())
    }
}
