//! What documents should show, for those who compare, and whether a build shows all of it.
//!
//! There is no moment of which both sides can be read. So a document is judged only where nothing says that it is on its way:
//! no document that it looks up is ahead of its positions, no note is there by then, and it is still as it was read.

use foldline_api::Result;
use foldline_api::lookup::Lookup;
use foldline_api::model::{Key, Row};
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Marks, Version};

use super::notes::{note_id, noted};
use super::{Follower, Others, life, looked_up};
use crate::books::{ALIAS, BeginningDoc, Books, TargetDoc};
use crate::target::ElasticsearchTarget;
use crate::writer::ElasticsearchWriter;

/// Notes of one read.
const READ_MAX: usize = 2_000;

impl Others {
    /// The marks of the documents that a row looks up.
    fn marks<'o>(
        &'o self,
        lookups: &'o [Lookup],
        row: &'o Row,
    ) -> impl Iterator<Item = (&'o str, &'o Marks)> {
        let each = lookups.iter().zip(&self.rows);
        each.filter_map(|(lookup, rows)| {
            let loaded = rows.get(&Key::of(row.get(lookup.via).clone()))?;
            Some((lookup.target.as_str(), &loaded.marks))
        })
    }
}

impl ElasticsearchWriter {
    /// See [`foldline_api::sink::Snapshot::shown`].
    pub(crate) async fn shown(&self, rows: &[Row]) -> Result<Vec<Option<Row>>> {
        let Some(joins) = self.joins() else { return Ok(rows.iter().cloned().map(Some).collect()) };
        let others = self.others(joins, rows.iter()).await?;
        let mut ahead = Vec::new();
        for (name, record) in &others.records {
            if let Some(record) = record {
                ahead.push((name.as_str(), self.positions_of(name, record).await?));
            }
        }
        let is_ahead = |row: &Row| {
            others.marks(joins.lookups(), row).any(|(target, marks)| {
                let place = |of: &TopicPartition| {
                    let (_, places) = ahead.iter().find(|(name, _)| *name == target)?;
                    places.iter().find(|(partition, _)| partition == of).map(|(_, at)| *at)
                };
                marks
                    .iter()
                    .any(|mark| place(&mark.partition).is_none_or(|at| mark.position.0 > at))
            })
        };
        let own = self.follower();
        let known = self.books.followers(&looked_up(joins)).await?;
        let unseen = known.iter().any(|doc| {
            let record = others.records.get(&doc.value.target).and_then(Option::as_ref);
            let life = life(&self.spec.fingerprint, record);
            !doc.value.followers.iter().any(|it| it.is(&own) && it.seen == life)
        });
        let waiting = self.noted(joins.lookups(), &own, rows).await?;
        let ids: Vec<String> = rows.iter().map(|row| self.id_of(row)).collect();
        let stored = self.read_some(&ids, usize::MAX).await?;
        let judged = rows.iter().zip(waiting).zip(&stored).map(|((row, waits), stored)| {
            let known = !unseen && !waits && !is_ahead(row) && self.is_as(stored, row);
            known.then(|| others.complete(joins, row))
        });
        Ok(judged.collect())
    }

    /// For each row, whether a note is about it.
    async fn noted(&self, lookups: &[Lookup], own: &Follower, rows: &[Row]) -> Result<Vec<bool>> {
        let place = own.place();
        let ids = rows.iter().flat_map(|row| {
            lookups.iter().flat_map(|lookup| {
                let key = noted(&Key::of(row.get(lookup.via).clone()));
                let id = |key| note_id(&place, &lookup.target, key);
                [id(key.as_deref()), id(None)]
            })
        });
        let ids: Vec<String> = ids.collect();
        let found = self.client.mget(ALIAS, &ids, false, READ_MAX).await?;
        let per_row = (lookups.len() * 2).max(1);
        let waits =
            found.chunks(per_row).map(|of| of.iter().any(|it| it.version != Version::Absent));
        Ok(waits.collect())
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
        let (own, names) = (Follower::new(&self.spec.target, generation), looked_up(joins));
        let records = self.books.targets(&names).await?;
        let known = self.books.followers(&names).await?;
        let seen = known.iter().zip(&records).all(|(doc, record)| {
            let life = life(&self.spec.fingerprint, record.as_ref());
            doc.value.followers.iter().any(|it| it.is(&own) && it.seen == life)
        });
        Ok(!seen || self.books.is_stale(&own, &names).await?)
    }
}
