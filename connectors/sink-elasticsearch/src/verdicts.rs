//! The records that a generation leaves out, since the index refused them or an operator dropped them, and whether
//! what refused them still stands.
//!
//! They go through the fence in their partition's place, and stand in documents of their own later. A generation takes
//! those of the one before over as open; what its place has passed is answered. A refusal is known again by the field's
//! mapping and the projection's fingerprint.

use elasticsearch::http::Method;
use foldline_api::Result;
use foldline_api::parked::DROPPED;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{StoredVerdict, Version};
use serde_json::{Value as Json, json};

use crate::books::{ALIAS, ATTEMPTS, BeginningDoc, Books, PositionDoc, READ_MAX, VerdictDoc};
use crate::bulk;
use crate::error::{Failure, Fault};
use crate::letters;
use crate::search::{Hit, Page};
use crate::survey::Cluster;

/// Verdicts of one page.
const VERDICTS_MAX: usize = 1_000;
/// In the place of a generation: what an operator dropped, in whichever.
const OF_ALL: &str = "dropped";

impl VerdictDoc {
    /// As the worker reads it; whether what refused stands is to be said.
    pub(crate) fn stored(self, partition: &TopicPartition) -> StoredVerdict {
        StoredVerdict::new(partition.clone(), self.offset, self.reason, self.definition)
    }

    pub(crate) fn of(verdict: &StoredVerdict, topic_id: Option<&String>) -> Self {
        VerdictDoc {
            offset: verdict.offset,
            reason: verdict.reason.clone(),
            definition: verdict.definition.clone(),
            topic_id: topic_id.cloned(),
            by_store: false,
            letter: None,
            open: false,
        }
    }

    /// Whether it is about the topic of this id, as far as that can be told.
    fn is_of(&self, topic_id: Option<&String>) -> bool {
        self.topic_id.as_ref().zip(topic_id).is_none_or(|(known, now)| known == now)
    }
}

impl Books {
    /// Keeps verdicts of a generation, over what stands there of the same records.
    pub(crate) async fn keep_verdicts(
        &self,
        generation: u64,
        partition: &TopicPartition,
        docs: &[VerdictDoc],
    ) -> Result<()> {
        self.keep_under(&generation.to_string(), partition, docs).await?;
        let mut dropped: Vec<VerdictDoc> =
            docs.iter().filter(|doc| doc.reason == DROPPED).cloned().collect();
        dropped.retain(|doc| !doc.open);
        self.keep_under(OF_ALL, partition, &dropped).await
    }

    pub(crate) async fn keep_under(
        &self,
        of: &str,
        place: &TopicPartition,
        docs: &[VerdictDoc],
    ) -> Result<()> {
        if docs.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = docs.iter().map(|doc| self.kept_id(of, place, doc)).collect();
        for _ in 0..ATTEMPTS {
            let stand = self.client.mget(ALIAS, &ids, false, READ_MAX).await?;
            let mut items = Vec::with_capacity(docs.len());
            for ((id, doc), stands) in ids.iter().zip(docs).zip(stand) {
                // A question does not take the place of an answer.
                let asks = doc.open && doc.letter.is_none();
                if asks && stands.version != Version::Absent {
                    continue;
                }
                let mut body = json!(doc);
                if let Some(body) = body.as_object_mut() {
                    body.insert("target".to_owned(), json!(format!("{}#{of}", self.target)));
                    body.insert("topic".to_owned(), json!(place.topic));
                    body.insert("partition".to_owned(), json!(place.partition));
                }
                items.push(bulk::write(id, stands.version, &body.to_string()));
            }
            if self.put(&items).await?.iter().all(Option::is_some) {
                return Ok(());
            }
        }
        Err(foldline_api::Error::retriable("verdicts keep changing"))
    }

    /// A document's id.
    pub(crate) fn kept_id(
        &self,
        of: &str,
        TopicPartition { topic, partition }: &TopicPartition,
        doc: &VerdictDoc,
    ) -> String {
        let life = doc.topic_id.as_deref().filter(|_| of == OF_ALL).unwrap_or_default();
        format!("verdict:{}:{of}{life}:{topic}:{partition}:{}", self.target, doc.offset)
    }

    /// What a generation leaves out, and of what it has still to decide what its place has not passed.
    pub(crate) async fn left_out(
        &self,
        generation: u64,
        place: &PositionDoc,
        (from, topic_id): (Position, Option<&String>),
    ) -> Result<Vec<VerdictDoc>> {
        let partition = place.topic_partition();
        let mut docs = place.verdicts.clone();
        docs.retain(|doc| doc.offset >= from.0);
        docs.extend(self.search(&format!("{}#{generation}", self.target), &partition, from).await?);
        docs.retain(|doc| doc.is_of(topic_id) && (!doc.open || doc.offset >= place.position));
        // Those of the place come first: they are newer.
        docs.sort_by_key(|doc| doc.offset);
        docs.dedup_by_key(|doc| doc.offset);
        Ok(docs)
    }

    /// The same from a place's position on, with what an operator dropped in any generation.
    pub(crate) async fn still_open(
        &self,
        generation: u64,
        place: &PositionDoc,
        topic_id: Option<&String>,
    ) -> Result<Vec<VerdictDoc>> {
        let from = Position(place.position);
        let partition = place.topic_partition();
        let of_all = format!("{}#{OF_ALL}", self.target);
        let mut docs = self.search(&of_all, &partition, from).await?;
        docs.retain(|doc| doc.is_of(topic_id));
        docs.extend(self.left_out(generation, place, (from, topic_id)).await?);
        docs.sort_by_key(|doc| doc.offset);
        docs.dedup_by_key(|doc| doc.offset);
        Ok(docs)
    }

    /// Takes what one generation leaves out, or has still to decide, over into another, for topics of the same id.
    pub(crate) async fn take_over_verdicts(
        &self,
        (from, known): (u64, &[BeginningDoc]),
        (to, beginnings): (u64, &[BeginningDoc]),
    ) -> Result<()> {
        self.refresh().await?;
        for beginning in beginnings {
            let partition = beginning.topic_partition();
            let mut place = self.positions(from, std::slice::from_ref(&partition)).await?;
            let Some(place) = place.pop().flatten() else { continue };
            let old = known.iter().find(|known| known.topic_partition() == partition);
            let old = old.and_then(|known| known.topic_id.clone());
            let all = (Position(0), None);
            let mut docs = self.left_out(from, &place.value, all).await?;
            for doc in &mut docs {
                doc.topic_id = doc.topic_id.take().or_else(|| old.clone());
            }
            docs.retain(|doc| doc.is_of(beginning.topic_id.as_ref()));
            // What an operator dropped counts in every generation.
            let dropped: Vec<VerdictDoc> =
                docs.iter().filter(|doc| doc.reason == DROPPED).cloned().collect();
            self.keep_under(OF_ALL, &partition, &dropped).await?;
            docs.iter_mut().for_each(|doc| doc.open = true);
            self.keep_under(&to.to_string(), &partition, &docs).await?;
        }
        Ok(())
    }

    /// Gives what an earlier version kept for all generations at once to each of these.
    pub(crate) async fn move_in_verdicts(
        &self,
        generations: &[u64],
        beginnings: &[BeginningDoc],
    ) -> Result<()> {
        self.refresh().await?;
        for beginning in beginnings {
            let partition = beginning.topic_partition();
            let hits = self.hits(&self.target, &partition, Position(0)).await?;
            if hits.is_empty() {
                continue;
            }
            let of_life = |hit: &Hit<VerdictDoc>| VerdictDoc {
                topic_id: beginning.topic_id.clone(),
                ..hit.source.clone()
            };
            let docs: Vec<VerdictDoc> = hits.iter().map(of_life).collect();
            for &generation in generations {
                let place = self.positions(generation, std::slice::from_ref(&partition)).await?;
                let position = place.into_iter().flatten().next().map_or(0, |p| p.value.position);
                let mut docs = docs.clone();
                docs.iter_mut().for_each(|doc| doc.open = doc.offset >= position);
                self.keep_verdicts(generation, &partition, &docs).await?;
            }
            self.remove_verdicts(hits).await?;
        }
        Ok(())
    }

    /// Removes what a generation left out that is gone.
    pub(crate) async fn forget_verdicts(
        &self,
        generation: u64,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        // What was written a moment ago would be missed, and taken for the next generation's that has this number.
        self.refresh().await?;
        for partition in partitions {
            for of in [generation.to_string(), letters::of(generation)] {
                let of = format!("{}#{of}", self.target);
                let mut from = Some(0);
                while let Some(at) = from {
                    let (hits, next) = self.page(&of, partition, at).await?;
                    self.remove_verdicts(hits).await?;
                    from = next;
                }
            }
        }
        Ok(())
    }

    async fn remove_verdicts(&self, hits: Vec<Hit<VerdictDoc>>) -> Result<()> {
        let ids: Vec<String> = hits.into_iter().map(|hit| hit.id).collect();
        let stand = self.client.mget(ALIAS, &ids, false, READ_MAX).await?;
        let there = ids.iter().zip(&stand).filter(|(_, doc)| doc.version != Version::Absent);
        let items: Vec<String> = there.map(|(id, doc)| bulk::delete(id, doc.version)).collect();
        self.put(&items).await.map(drop)
    }

    pub(crate) async fn search(
        &self,
        target: &str,
        partition: &TopicPartition,
        from: Position,
    ) -> Result<Vec<VerdictDoc>> {
        let hits = self.hits(target, partition, from).await?;
        Ok(hits.into_iter().map(|hit| hit.source).collect())
    }

    /// The documents at or after `from`, by offset.
    async fn hits(
        &self,
        target: &str,
        partition: &TopicPartition,
        from: Position,
    ) -> Result<Vec<Hit<VerdictDoc>>> {
        let (mut found, mut from) = (Vec::new(), Some(from.0));
        while let Some(at) = from {
            let (mut hits, next) = self.page(target, partition, at).await?;
            found.append(&mut hits);
            from = next;
        }
        Ok(found)
    }

    /// The same in parts: the first documents at or after `from`, and from where on there may be more.
    pub(crate) async fn search_some(
        &self,
        target: &str,
        partition: &TopicPartition,
        from: i64,
    ) -> Result<(Vec<VerdictDoc>, Option<i64>)> {
        let (hits, next) = self.page(target, partition, from).await?;
        Ok((hits.into_iter().map(|hit| hit.source).collect(), next))
    }

    async fn page(
        &self,
        target: &str,
        partition: &TopicPartition,
        from: i64,
    ) -> Result<(Vec<Hit<VerdictDoc>>, Option<i64>)> {
        let path = format!("/{ALIAS}/_search");
        let query = json!({
            "size": VERDICTS_MAX,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "_source": { "excludes": ["letter"] },
            "query": { "bool": { "filter": [
                { "term": { "target": target } },
                { "term": { "topic": partition.topic } },
                { "term": { "partition": partition.partition } },
                { "range": { "offset": { "gte": from } } },
            ] } },
            "sort": [{ "offset": "asc" }],
        });
        let found: Page<VerdictDoc> = self.client.search(&path, &query, "reading verdicts").await?;
        let hits = found.into_hits();
        let last = hits.last().filter(|_| hits.len() == VERDICTS_MAX);
        let next = last.map(|last| last.source.offset + 1);
        Ok((hits, next))
    }
}

impl Cluster {
    /// The mapping of the index behind an alias.
    pub(crate) async fn mapping(&self, alias: &str) -> Result<Json> {
        let path = format!("/{alias}/_mapping");
        let reply = self.client.json(Method::Get, &path, &[], None).await?;
        let indexes: Json = reply.read("reading the mapping")?;
        let first = indexes.as_object().and_then(|indexes| indexes.values().next());
        Ok(first.and_then(|index| index.get("mappings")).cloned().unwrap_or_default())
    }
}

/// The definition that a refusal names; none where the mapping did not refuse.
pub(crate) fn definition(mapping: &Json, fingerprint: &str, failure: &Failure) -> Option<String> {
    if failure.fault() != Fault::Rejected {
        return None;
    }
    let field = failure.cause.reason.as_deref().and_then(field_of).unwrap_or_default();
    Some(of_field(mapping, fingerprint, field))
}

/// Whether a definition stands in this mapping.
pub(crate) fn stands(mapping: &Json, fingerprint: &str, known: &str) -> bool {
    let rest = known.strip_prefix(fingerprint).and_then(|rest| rest.strip_prefix(' '));
    rest.and_then(|rest| rest.split_once(' '))
        .is_some_and(|(field, _)| of_field(mapping, fingerprint, field) == *known)
}

/// A field's mapping, or the whole one, as verdicts keep it: another model makes other rows.
fn of_field(mapping: &Json, fingerprint: &str, field: &str) -> String {
    let top = field.split('.').next().unwrap_or_default();
    let properties = mapping.get("properties");
    let of = match properties.and_then(|fields| fields.get(top)) {
        Some(of) => of.clone(),
        None => json!({ "dynamic": mapping.get("dynamic"), "properties": properties }),
    };
    format!("{fingerprint} {field} {of}")
}

/// The field that a reason names, as `failed to parse field [ip] of type [ip]`. No name has a space.
fn field_of(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("field [")?;
    let (name, _) = rest.split_once(']')?;
    Some(name).filter(|name| !name.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    #[test]
    fn a_refusal_is_known_by_its_fields_mapping_and_the_model() {
        let mapping = |ip: &str| json!({ "_meta": { "build": ip }, "properties": { "ip": { "type": ip }, "n": { "type": "long" } } });
        let reason = "[1:9] failed to parse field [ip] of type [ip] in document with id '1'";
        let cause = Cause {
            kind: "document_parsing_exception".to_owned(),
            reason: Some(reason.to_owned()),
        };
        let failure = Failure { status: 400, cause };
        let known = definition(&mapping("ip"), "print", &failure).unwrap();
        assert!(stands(&mapping("ip"), "print", &known));
        assert!(!stands(&mapping("keyword"), "print", &known), "the mapping was corrected");
        assert!(!stands(&mapping("ip"), "other", &known), "another projection");
        let large = Failure { status: 413, cause: Cause::default() };
        assert_eq!(definition(&mapping("ip"), "print", &large), None);
        let unnamed = Failure { status: 400, cause: Cause { reason: None, ..failure.cause } };
        let known = definition(&mapping("ip"), "print", &unnamed).unwrap();
        assert!(stands(&mapping("ip"), "print", &known));
        assert!(!stands(&mapping("keyword"), "print", &known));
    }
}
