//! What documents should show, for those who compare, and whether a build shows all of it.
//!
//! There is no moment of which both sides can be read. So a document that shows something else than it should is judged only
//! where nothing says that it is on its way: no document that it looks up is ahead of its positions, no note is there by then,
//! and it is still as it was read.

use std::collections::{BTreeMap, BTreeSet};

use foldline_api::Result;
use foldline_api::lookup::{Gather, Joins};
use foldline_api::model::{Key, Row};
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Loaded, Marks, Version};

use super::notes::{note_id, noted};
use super::{Follower, Others, life};
use crate::books::{ALIAS, BeginningDoc, Books, TargetDoc};
use crate::document;
use crate::target::ElasticsearchTarget;
use crate::writer::ElasticsearchWriter;

/// Notes of one read.
const READ_MAX: usize = 2_000;

/// By target: where its partitions stand.
type Places = BTreeMap<String, Vec<(TopicPartition, i64)>>;

/// A row that shows something else than it should.
struct Doubted<'r> {
    at: usize,
    own: Key,
    row: &'r Row,
    should: Row,
}

impl Doubted<'_> {
    /// The keys of the children that it holds or should hold.
    fn children(&self, gather: &Gather) -> BTreeSet<Key> {
        gather.held(self.row).chain(gather.held(&self.should)).collect()
    }

    /// The ids of the notes that may be about it.
    fn notes(&self, joins: &Joins, (target, place): (&str, &str)) -> Vec<String> {
        let mut all =
            vec![note_id(place, target, noted(&self.own).as_deref()), note_id(place, target, None)];
        all.extend(joins.targets().iter().map(|target| note_id(place, target, None)));
        for lookup in joins.lookups() {
            let key = noted(&Key::of(self.row.get(lookup.via).clone()));
            all.push(note_id(place, &lookup.target, key.as_deref()));
        }
        for gather in joins.gathers() {
            let keys = self.children(gather);
            all.extend(
                keys.iter().map(|key| note_id(place, &gather.target, noted(key).as_deref())),
            );
        }
        all
    }
}

fn is_ahead(marks: &Marks, places: Option<&Vec<(TopicPartition, i64)>>) -> bool {
    let place = |of: &TopicPartition| {
        let stands = places?.iter().find(|(partition, _)| partition == of);
        stands.map(|(_, at)| *at)
    };
    marks.iter().any(|mark| place(&mark.partition).is_none_or(|at| mark.position.0 > at))
}

impl ElasticsearchWriter {
    /// See [`foldline_api::sink::Snapshot::shown`].
    pub(crate) async fn shown(&self, rows: &[Row]) -> Result<Vec<Option<Row>>> {
        let Some(joins) = self.joins() else { return Ok(rows.iter().cloned().map(Some).collect()) };
        if !joins.gathers().is_empty() {
            self.refresh_others(joins, &self.records(joins).await?).await?;
        }
        let others = self.others_and_children(joins, rows).await?;
        let mut out = Vec::with_capacity(rows.len());
        let mut doubted = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let own = self.model.key_of(row);
            let should = others.complete(joins, &own, row);
            if should == *row {
                out.push(Some(should));
            } else {
                out.push(None);
                doubted.push(Doubted { at, own, row, should });
            }
        }
        if doubted.is_empty() || self.is_unseen(joins, &others).await? {
            return Ok(out);
        }
        let ahead = self.ahead(joins, &others, &doubted).await?;
        let noted = self.noted(joins, &doubted).await?;
        let ids: Vec<String> = doubted.iter().map(|it| document::id(&it.own)).collect();
        let stored = self.read_some(&ids, usize::MAX).await?;
        let waits = ahead.into_iter().zip(noted).map(|(ahead, noted)| ahead || noted);
        for ((it, waits), stored) in doubted.into_iter().zip(waits).zip(stored) {
            let judged = !waits && stored.row.as_ref() == Some(it.row);
            if let Some(place) = out.get_mut(it.at).filter(|_| judged) {
                *place = Some(it.should);
            }
        }
        Ok(out)
    }

    /// Whether another target lives another life than the one that rows were looked at for.
    async fn is_unseen(&self, joins: &Joins, others: &Others) -> Result<bool> {
        let own = self.follower();
        let known = self.books.followers(&joins.targets()).await?;
        Ok(known.iter().any(|doc| {
            let record = others.records.get(&doc.value.target).and_then(Option::as_ref);
            let life = life(&self.spec.fingerprint, record);
            !doc.value.followers.iter().any(|it| it.is(&own) && it.seen == life)
        }))
    }

    /// For each, whether a document that it looks up is ahead of its positions: its note need not be there yet.
    async fn ahead(
        &self,
        joins: &Joins,
        others: &Others,
        doubted: &[Doubted<'_>],
    ) -> Result<Vec<bool>> {
        let mut children: Vec<BTreeMap<Key, Loaded>> = Vec::new();
        for gather in joins.gathers() {
            let keys: BTreeSet<Key> = doubted.iter().flat_map(|it| it.children(gather)).collect();
            let keys: Vec<Key> = keys.into_iter().collect();
            let record = others.records.get(&gather.target).and_then(Option::as_ref);
            let loaded = self.read_keys((&gather.target, &gather.model), record, &keys).await?;
            children.push(keys.into_iter().zip(loaded).collect());
        }
        let mut places = Places::new();
        for (name, record) in &others.records {
            if let Some(record) = record {
                places.insert(name.clone(), self.positions_of(name, record).await?);
            }
        }
        let each = doubted.iter().map(|it| {
            let lookups = joins.lookups().iter().zip(&others.rows).any(|(lookup, rows)| {
                let loaded = rows.get(&Key::of(it.row.get(lookup.via).clone()));
                loaded.is_some_and(|of| is_ahead(&of.marks, places.get(&lookup.target)))
            });
            lookups
                || joins.gathers().iter().zip(&children).any(|(gather, known)| {
                    let of = places.get(&gather.target);
                    let keys = it.children(gather);
                    keys.iter().any(|key| known.get(key).is_some_and(|it| is_ahead(&it.marks, of)))
                })
        });
        Ok(each.collect())
    }

    /// For each, whether a note is about it.
    async fn noted(&self, joins: &Joins, doubted: &[Doubted<'_>]) -> Result<Vec<bool>> {
        let place = self.follower().place();
        let of = |it: &Doubted<'_>| it.notes(joins, (&self.spec.target, &place));
        let notes: Vec<Vec<String>> = doubted.iter().map(of).collect();
        let found = self.client.mget(ALIAS, &notes.concat(), false, READ_MAX).await?;
        let mut found = found.into_iter();
        let each = notes.iter().map(|ids| {
            let of: Vec<_> = found.by_ref().take(ids.len()).collect();
            of.iter().any(|it| it.version != Version::Absent)
        });
        Ok(each.collect())
    }

    /// Where the partitions of another target's live generation stand.
    async fn positions_of(
        &self,
        name: &str,
        record: &TargetDoc,
    ) -> Result<Vec<(TopicPartition, i64)>> {
        let partitions: Vec<TopicPartition> =
            record.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        let books = Books::new(self.client.clone(), name);
        let places = books.positions(record.binding.generation, &partitions).await?;
        let stands = partitions.into_iter().zip(places);
        Ok(stands.filter_map(|(of, place)| Some((of, place?.value.position))).collect())
    }
}

impl ElasticsearchTarget {
    /// Whether rows of a build do not show yet what is promised of live ones.
    pub(crate) async fn shows_less(&self, generation: u64) -> Result<bool> {
        let Some(joins) = &self.spec.joins else { return Ok(false) };
        let (own, names) = (Follower::new(&self.spec.target, generation), joins.targets());
        let records = self.books.targets(&names).await?;
        let known = self.books.followers(&names).await?;
        let seen = known.iter().zip(&records).all(|(doc, record)| {
            let life = life(&self.spec.fingerprint, record.as_ref());
            doc.value.followers.iter().any(|it| it.is(&own) && it.seen == life)
        });
        let kinds: Vec<&str> = names.into_iter().chain([self.spec.target.as_str()]).collect();
        Ok(!seen || self.books.is_stale(&own, &kinds).await?)
    }
}
