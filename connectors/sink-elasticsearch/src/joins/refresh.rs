//! Brings documents up to what they show, by the notes that flushes left.
//!
//! A step reads notes, then the documents that they are about, then the others', and writes each document by the version
//! that it read: so what it writes is never older than what another step wrote before. A note goes by the version that was
//! read, and only where each of its documents is right by then.
//!
//! Documents are found by a search, which sees what was durable at the last refresh. A note is followed where it stood
//! before that refresh: what is written later looks for itself.

use std::time::Duration;

use foldline_api::Result;
use foldline_api::column::scalar_text;
use foldline_api::lookup::Joins;
use foldline_api::model::{Key, Model, Row};
use foldline_api::rebuild::Phase;
use foldline_api::sink::{Loaded, Refreshed, RowWrite, Version};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::children;
use super::notes::{Found, NoteDoc};
use crate::books::{NextDoc, Versioned, text};
use crate::bulk;
use crate::document::{self, META};
use crate::error::Fault;
use crate::search::Page;
use crate::writer::{ElasticsearchWriter, now_millis};

/// At most one forced refresh in this time, and one search where nothing tells of notes.
const PAUSE: Duration = Duration::from_secs(1);
/// Documents of one search.
const PAGE: usize = 5_000;
/// Notes of keys that are followed together.
const TOGETHER: usize = 200;
/// Bytes of the documents that are looked at together.
const BYTES_MAX: usize = 8 << 20;

/// What a writer knows of its notes.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// What it saw of what changes with each note.
    pulse: Option<Version>,
    /// Notes that stood before the last forced refresh, the oldest first.
    fresh: Vec<Found>,
    /// When the oldest was left of those that are to be looked for again.
    left: Option<i64>,
    forced: Option<Instant>,
    searched: Option<Instant>,
}

/// What became of the documents that were looked at.
#[derive(Default)]
struct Brought {
    written: usize,
    /// How many were looked at, from the first on.
    looked: usize,
    /// Whether one could not be written.
    held: bool,
}

/// A note that is followed.
struct Note {
    found: Found,
    doc: NoteDoc,
}

/// A document's id and where it stands.
struct Place {
    id: String,
    seq_no: i64,
}

impl Keeping {
    fn forget(&mut self, id: &str) {
        self.fresh.retain(|found| found.id != id);
    }

    /// It is to be looked for again, after a while.
    fn leave(&mut self, found: &Found) {
        self.left = Some(self.left.map_or(found.noted_at, |left| left.min(found.noted_at)));
        self.forget(&found.id);
    }

    /// What is left to do.
    fn done(&self, written: usize) -> Refreshed {
        let oldest = self.fresh.iter().map(|found| found.noted_at).chain(self.left).min();
        let waits = oldest.map(|at| (now_millis() - at).max(0));
        // A count of milliseconds is far below what a double holds exactly.
        let waits = waits.map(|millis| Duration::from_millis(millis.cast_unsigned()).as_secs_f64());
        Refreshed { rows: written as u64, waits, more: !self.fresh.is_empty() }
    }
}

impl ElasticsearchWriter {
    /// See [`foldline_api::sink::Writer::refresh`].
    pub(crate) async fn bring_up(&self, rows_max: usize) -> Result<Refreshed> {
        let Some(joins) = self.joins() else { return Ok(Refreshed::default()) };
        let record = self.live().await?.ok_or_else(|| self.not_live())?.value;
        let phase = record.next.as_ref().and_then(NextDoc::phase);
        if self.is_building() && phase == Some(Phase::Loading) {
            return Ok(Refreshed::default());
        }
        self.observe(false).await?;
        let mut keeping = self.keeping.lock().await;
        if keeping.fresh.is_empty() && !self.find(&mut keeping, joins).await? {
            return Ok(keeping.done(0));
        }
        let notes = self.standing(&mut keeping).await?;
        let written = self.follow(&mut keeping, joins, notes, rows_max.max(1)).await?;
        Ok(keeping.done(written))
    }

    /// Looks for notes; whether there are any to follow now.
    async fn find(&self, keeping: &mut Keeping, joins: &Joins) -> Result<bool> {
        let follower = self.follower();
        let pulse = self.books.pulse(&follower).await?;
        let due = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= PAUSE);
        let told = keeping.pulse != Some(pulse) || (keeping.left.is_some() && due(keeping.forced));
        if !told && (keeping.left.is_some() || !due(keeping.searched)) {
            return Ok(false);
        }
        if !told {
            keeping.searched = Some(Instant::now());
            if self.books.find_notes(&follower, 1).await?.0.is_empty() {
                return Ok(false);
            }
        }
        if let Some(at) = keeping.forced {
            tokio::time::sleep_until(at + PAUSE).await;
        }
        keeping.forced = Some(Instant::now());
        let pulse = self.books.pulse(&follower).await?;
        self.books.refresh().await?;
        let (found, total) = self.books.find_notes(&follower, usize::MAX).await?;
        // Now: what stood before these notes is found, and what comes later looks for itself.
        self.client.refresh(&self.alias, "looking for rows that are to be shown anew").await?;
        self.refresh_others(joins, &self.records(joins).await?).await?;
        let mut kinds = joins.targets();
        kinds.push(&self.spec.target);
        let collapsed = self.books.collapse(&follower, &kinds, total).await?;
        // Where there are more, they are looked for again.
        let all = !collapsed && total <= found.len() as u64;
        keeping.pulse = Some(pulse).filter(|_| all);
        keeping.left = (!all).then(now_millis);
        keeping.fresh = if collapsed { Vec::new() } else { found };
        Ok(!keeping.fresh.is_empty())
    }

    /// The notes of which a search told, as they are now: one that was left anew is not followed before the next refresh.
    async fn standing(&self, keeping: &mut Keeping) -> Result<Vec<Note>> {
        let first: Vec<Found> = keeping.fresh.iter().take(TOGETHER).cloned().collect();
        let ids: Vec<String> = first.iter().map(|found| found.id.clone()).collect();
        let mut notes = Vec::new();
        for (found, stored) in first.into_iter().zip(self.books.read::<NoteDoc>(&ids).await?) {
            match stored {
                Some(Versioned { value, version }) if version == found.version => {
                    let open = match &value.until {
                        Some(until) => self.books.version_of(until).await? == until.version(),
                        None => false,
                    };
                    if open {
                        keeping.leave(&found);
                    } else {
                        notes.push(Note { found, doc: value });
                    }
                }
                Some(_) => keeping.leave(&found),
                None => keeping.forget(&found.id),
            }
        }
        Ok(notes)
    }

    /// Follows notes: how many documents were written.
    async fn follow(
        &self,
        keeping: &mut Keeping,
        joins: &Joins,
        mut notes: Vec<Note>,
        rows_max: usize,
    ) -> Result<usize> {
        // Those of keys go together; one that is long, and one of all rows, by itself.
        let together = |note: &Note| note.doc.key.is_some() && note.doc.after.is_none();
        let alone = notes.iter().position(|note| !together(note));
        match alone {
            Some(0) => notes.truncate(1),
            Some(at) => notes.truncate(at),
            None => {}
        }
        let (places, full) = loop {
            let Some(first) = notes.first() else { return Ok(0) };
            let after = first.doc.after.unwrap_or(-1);
            let query = self.shows(joins, &notes).await?;
            let places = self.places(&query, after).await?;
            let full = places.len() == PAGE;
            if !full || notes.len() == 1 {
                break (places, full);
            }
            notes.truncate(notes.len().div_ceil(2));
        };
        let brought = self.bring(joins, &places, rows_max).await?;
        let all = brought.looked == places.len() && !full;
        if brought.held {
            notes.iter().for_each(|note| keeping.leave(&note.found));
        } else if all {
            let deletes = notes.iter().map(|note| bulk::delete(&note.found.id, note.found.version));
            self.books.put(&deletes.collect::<Vec<_>>()).await?;
            notes.iter().for_each(|note| keeping.forget(&note.found.id));
        } else if let ([note], Some(last)) =
            (notes.as_slice(), brought.looked.checked_sub(1).and_then(|at| places.get(at)))
        {
            self.move_note(keeping, note, last.seq_no).await?;
        }
        Ok(brought.written)
    }

    async fn move_note(&self, keeping: &mut Keeping, note: &Note, to: i64) -> Result<()> {
        let Note { found, doc } = note;
        let item = bulk::write(&found.id, found.version, &text(&doc.moved(to))?);
        match self.books.put(&[item]).await?.pop().flatten() {
            Some(version) => {
                let known = keeping.fresh.iter_mut().find(|known| known.id == found.id);
                if let Some(known) = known {
                    known.version = version;
                }
            }
            None => keeping.leave(found),
        }
        Ok(())
    }

    /// What finds the documents that notes are about.
    async fn shows(&self, joins: &Joins, notes: &[Note]) -> Result<Json> {
        if notes.iter().any(|note| note.doc.key.is_none()) {
            return Ok(json!({ "match_all": {} }));
        }
        let mut any = Vec::new();
        for lookup in joins.lookups() {
            let keys = texts(&keys_of(&lookup.target, &lookup.model, notes));
            let via = self.model.columns.get(lookup.via).map(|column| &*column.name);
            any.extend(
                via.filter(|_| !keys.is_empty()).map(|via| json!({ "terms": { via: keys } })),
            );
        }
        let mut own = keys_of(&self.spec.target, &self.model, notes);
        if !joins.gathers().is_empty() {
            let records = self.records(joins).await?;
            for gather in joins.gathers() {
                let keys = keys_of(&gather.target, &gather.model, notes);
                let record = records.get(&gather.target).and_then(Option::as_ref);
                own.extend(self.owners(gather, record, &keys).await?);
                let texts = texts(&keys);
                any.extend(
                    children::holding(&self.model, gather, &texts).filter(|_| !texts.is_empty()),
                );
            }
        }
        if !own.is_empty() {
            let ids: Vec<String> = own.iter().map(document::id).collect();
            any.push(json!({ "ids": { "values": ids } }));
        }
        Ok(json!({ "bool": { "should": any, "minimum_should_match": 1 } }))
    }

    /// The next documents that match, in the order of their sequence numbers: one that is written goes behind all others.
    async fn places(&self, query: &Json, after: i64) -> Result<Vec<Place>> {
        let search = json!({
            "size": PAGE,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "_source": false,
            "query": { "bool": {
                "filter": [query],
                "must_not": [{ "term": { format!("{META}.deleted"): true } }],
            } },
            "sort": [{ "_seq_no": "asc" }],
            // Each shard counts by itself: several documents may have the last one's number.
            "search_after": [after - 1],
        });
        let path = format!("/{}/_search", self.alias);
        let doing = "looking for rows that are to be shown anew";
        let page: Page<Option<Box<RawValue>>> = self.client.search(&path, &search, doing).await?;
        let place = |hit: crate::search::Hit<_>| Place {
            seq_no: i64::try_from(hit.seq_no).unwrap_or(i64::MAX),
            id: hit.id,
        };
        Ok(page.into_hits().into_iter().map(place).collect())
    }

    /// Writes documents that show something else than they should.
    async fn bring(&self, joins: &Joins, places: &[Place], rows_max: usize) -> Result<Brought> {
        let mut out = Brought::default();
        while let Some(rest) = places.get(out.looked..).filter(|rest| !rest.is_empty())
            && out.written < rows_max
        {
            let next: Vec<String> = rest.iter().take(rows_max).map(|it| it.id.clone()).collect();
            // Before the others: who writes one of these later, with what they say later, is told by its version.
            let stored = self.read_some(&next, BYTES_MAX).await?;
            let rows: Vec<Row> = stored.iter().filter_map(|loaded| loaded.row.clone()).collect();
            let others = self.others_and_children(joins, &rows).await?;
            let mut writes = Vec::new();
            let mut looked = 0;
            for Loaded { row, version, marks } in stored {
                let write = row.and_then(|row| {
                    let key = self.model.key_of(&row);
                    let shown = others.complete(joins, &key, &row);
                    (shown != row).then_some(RowWrite { key, row: Some(shown), version, marks })
                });
                if write.is_some() && out.written + writes.len() == rows_max {
                    break;
                }
                writes.extend(write);
                looked += 1;
            }
            let written = self.write_shown(&writes).await?;
            out.written += written;
            out.held |= written < writes.len();
            out.looked += looked;
            if looked == 0 {
                break;
            }
        }
        Ok(out)
    }

    /// How many of these documents were written: one that a flush wrote meanwhile is not.
    async fn write_shown(&self, writes: &[RowWrite]) -> Result<usize> {
        let now = now_millis();
        let lines = |at: usize, out: &mut String| {
            if let Some(write) = writes.get(at) {
                self.encode(write, now, out);
            }
        };
        let mut written = 0;
        for outcome in self.client.bulk(&self.alias, writes.len(), &lines).await? {
            match outcome {
                Ok(_) => written += 1,
                Err(failure) if matches!(failure.fault(), Fault::Conflict) => {}
                Err(failure) if matches!(failure.fault(), Fault::Rejected | Fault::TooLarge) => {
                    let error = failure.refused_document();
                    tracing::debug!(%error, "a row is not taken with what it looks up");
                }
                Err(failure) => return Err(failure.error("bringing rows up to what they look up")),
            }
        }
        Ok(written)
    }
}

/// The keys of a target that notes are about.
fn keys_of(target: &str, model: &Model, notes: &[Note]) -> Vec<Key> {
    let of = notes.iter().filter(|note| note.doc.topic == target);
    of.filter_map(|note| model.parse_key(note.doc.key.as_deref()?).ok()).collect()
}

/// Keys as a search takes them.
fn texts(keys: &[Key]) -> Vec<String> {
    keys.iter().filter_map(|key| Some(scalar_text(key.values().first()?))).collect()
}
