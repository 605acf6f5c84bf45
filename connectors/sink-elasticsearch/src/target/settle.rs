//! Makes the cluster what the target's document says: its index, its alias, what is left over.

use foldline_api::record::TopicPartition;
use foldline_api::{Error, Result};
use serde_json::json;

use super::ElasticsearchTarget;
use crate::books::{BeginningDoc, TargetDoc, Versioned};
use crate::document::hex;
use crate::mapping::{self, index_body};
use crate::survey::{Index, Survey};

impl ElasticsearchTarget {
    /// Makes index and aliases what the record says, and marks it ready. False where another worker
    /// changed something meanwhile: look again.
    pub(crate) async fn settle(&self, stored: &Versioned<TargetDoc>) -> Result<bool> {
        let doc = &stored.value;
        let generation = doc.binding.generation;
        let index = self.index(generation);
        let write_alias = self.cluster.names.write_alias(generation, &doc.binding.fingerprint);
        if doc.binding.physical.is_empty() {
            let mut body = index_body(&self.spec, &doc.build);
            if let Some(body) = body.as_object_mut() {
                let aliases = json!({ &write_alias: { "is_hidden": true } });
                body.insert("aliases".to_owned(), aliases);
            }
            self.cluster.create(&index, &body).await?;
        }
        let survey = self.cluster.survey().await?;
        let Some(stands) = survey.generations.get(&generation) else { return Ok(false) };
        if !self.is_meant(doc, stands, &index).await? {
            return Ok(false);
        }
        let uuid = stands.uuid().to_owned();
        let partitions: Vec<TopicPartition> =
            doc.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        let fenced = self.cluster.has_other_writers(stands, generation, &write_alias);
        if fenced {
            // Returns when the writes under way have ended: no writer of the old model is left that
            // could write a document without the new columns over one that has them.
            self.cluster.block(&index).await?;
            // Nor may they move positions, with flushes that write no document.
            self.books.raise(doc, generation, &partitions).await?;
        }
        let ours = doc.binding.fingerprint == self.spec.fingerprint;
        if ours && stands.fingerprint() != Some(doc.binding.fingerprint.as_str()) {
            // Made by someone else, or by a projection that this one carries on.
            self.cluster.extend(&index, &mapping::mapping(&self.spec, &doc.build)).await?;
            if let Some(extended) = self.cluster.index(&index).await? {
                self.keep_fields(&index, &extended).await?;
            }
        } else if ours && doc.binding.physical.is_empty() {
            self.keep_fields(&index, stands).await?;
        }
        if doc.swapped {
            self.books.raise(doc, generation, &partitions).await?;
        }
        for old in &doc.old {
            self.cluster.block(&self.index(old.generation)).await?;
        }
        for &old in &doc.dropping {
            self.cluster.block(&self.index(old)).await?;
            self.books.raise(doc, old, &partitions).await?;
        }
        let beside = doc.next.as_ref().map(|next| next.generation);
        if !self.cluster.point(&survey, (generation, beside), &write_alias).await? {
            return Ok(false);
        }
        self.books.seed(generation, &doc.beginnings).await?;
        self.hand_on(doc).await?;
        for &old in &doc.dropping {
            self.cluster.drop_index(&self.index(old)).await?;
            self.books.forget(old, &partitions).await?;
        }
        if fenced || doc.swapped {
            self.cluster.unblock(&index).await?;
        }
        let mut done = doc.clone();
        done.binding.physical = uuid;
        (done.ready, done.swapped, done.dropping) = (true, false, Vec::new());
        done.before = None;
        self.books.put_target(&done, stored.version).await
    }

    /// Gives the live generation what those before it know: verdicts, holes, and which letters were sent.
    async fn hand_on(&self, doc: &TargetDoc) -> Result<()> {
        let generation = doc.binding.generation;
        if let Some(known) = &doc.before {
            let to = (generation, doc.beginnings.as_slice());
            let from = (known.generation, known.beginnings.as_slice());
            self.books.take_over_verdicts(from, to).await?;
            self.books.take_over_holes(from, to).await?;
            self.books.take_over_sent(from, to).await?;
        }
        if doc.swapped {
            // Nobody of theirs can send a letter any more and note it.
            for old in &doc.old {
                let from = (old.generation, old.beginnings.as_slice());
                self.books.take_over_sent(from, (generation, &doc.beginnings)).await?;
            }
        }
        Ok(())
    }

    /// Whether the index is the one that the record means; one that stands in its way is dropped if
    /// it is an empty leftover of Foldline's.
    pub(super) async fn is_meant(
        &self,
        doc: &TargetDoc,
        index: &Index,
        name: &str,
    ) -> Result<bool> {
        let fresh = doc.binding.physical.is_empty();
        let meant = if fresh {
            index.build() == Some(doc.build.as_str())
        } else {
            index.uuid() == doc.binding.physical
        };
        if meant {
            let verdict = mapping::refuse(name, &index.settings, &index.mappings);
            if verdict.is_err() && fresh {
                // Made from a template that must change first; then it is made anew.
                self.cluster.drop_index(name).await?;
            }
            return verdict.map(|()| true);
        }
        if !fresh {
            return Ok(false);
        }
        if index.build().is_none() || self.cluster.has_rows(name).await? {
            return Err(Error::config(format!(
                "index {name:?} stands where the next generation of {:?} must go: delete it, or move it \
                 to another name",
                self.spec.target
            )));
        }
        self.cluster.drop_index(name).await?;
        Ok(false)
    }

    /// Whether readers and writers find the live generation, and it alone.
    pub(super) fn is_pointed(&self, doc: &TargetDoc, survey: &Survey) -> bool {
        let generation = doc.binding.generation;
        let beside = doc.next.as_ref().map(|next| next.generation);
        let writers = self.cluster.names.write_alias(generation, &doc.binding.fingerprint);
        self.cluster.pointing(survey, (generation, beside), &writers).is_empty()
    }
}

pub(crate) fn contended() -> Error {
    Error::retriable("other workers keep changing the same target")
}

/// Tells one index from another of its name.
pub(crate) fn new_build() -> String {
    hex(&rand::random::<[u8; 12]>())
}
