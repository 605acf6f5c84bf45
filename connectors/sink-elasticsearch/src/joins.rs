//! What documents show of other targets' documents.
//!
//! Nothing is locked here: both sides write first and read after. The looked-up side's flush writes its documents, then a
//! note of each for those that follow it, then its positions; a replay writes each document once more, and so notes it once
//! more. The showing side's flush writes its documents with what the others say, and reads those again once they are
//! durable: what is another by then it notes itself. So of two that cross one sees the other.

mod children;
mod notes;
mod refresh;
mod shown;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldline_api::Result;
use foldline_api::lookup::{Joins, Lookup};
use foldline_api::model::{Key, Model, Row};
use foldline_api::rebuild::Phase;
use foldline_api::sink::{Flush, Loaded, Marks, Version};

use crate::books::{NextDoc, TargetDoc};
use crate::client::Document;
use crate::document;
use crate::writer::ElasticsearchWriter;
use children::Children;
pub(crate) use notes::Follower;
use notes::{Until, noted};
pub(crate) use refresh::Keeping;

/// Documents of one multi-get.
const READ_MAX: usize = 2_000;
/// Bytes that one multi-get's answer should stay below.
const READ_BYTES: usize = 2 << 20;

/// The other targets' documents, by lookup and key, as they were at one time.
pub(crate) struct Others {
    /// By target: which of its generations was live.
    pub(crate) records: BTreeMap<String, Option<TargetDoc>>,
    /// By column of children; none where documents keep what they hold.
    children: Option<Children>,
    rows: Vec<HashMap<Key, Loaded>>,
}

/// A flush with what its rows show.
pub(crate) struct Joined {
    pub(crate) flush: Flush,
    others: Others,
}

/// The life of another target, as rows of this fingerprint were looked at for it.
pub(crate) fn life(fingerprint: &str, record: Option<&TargetDoc>) -> String {
    let live = record.map(|doc| format!("{} {}", doc.binding.generation, doc.binding.physical));
    format!("{fingerprint} {}", live.unwrap_or_default())
}

impl Others {
    fn row(&self, at: usize, lookup: &Lookup, row: &Row) -> Option<&Row> {
        let value = row.get(lookup.via);
        let key = (!value.is_null()).then(|| Key::of(value.clone()))?;
        self.rows.get(at)?.get(&key)?.row.as_ref()
    }

    /// The row with what these say.
    pub(crate) fn complete(&self, joins: &Joins, own: &Key, row: &Row) -> Row {
        let lookups = joins.lookups().iter().enumerate();
        let children = self.children.as_ref().map(|all| children::values(joins, all, own));
        let children = children.into_iter().flatten().map(|(value, _)| value);
        joins.complete(row, lookups.map(|(at, lookup)| self.row(at, lookup, row)), children)
    }

    /// The keys whose documents say something else than `later`, by their target.
    fn differ<'t>(&self, joins: &'t Joins, later: &Others) -> BTreeMap<&'t str, BTreeSet<Key>> {
        let mut out: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::new();
        let pairs = self.rows.iter().zip(&later.rows).zip(joins.lookups());
        for ((before, after), lookup) in pairs {
            let row =
                |rows: &HashMap<Key, Loaded>, key| rows.get(key).and_then(|it| it.row.clone());
            let changed = before.keys().filter(|key| row(before, key) != row(after, key)).cloned();
            out.entry(lookup.target.as_str()).or_default().extend(changed);
        }
        out.retain(|_, keys| !keys.is_empty());
        out
    }
}

/// Keys as they are noted, each once.
fn each_once<'k>(keys: impl Iterator<Item = &'k Key>) -> Vec<Option<String>> {
    let keys: BTreeSet<Option<String>> = keys.map(noted).collect();
    keys.into_iter().collect()
}

impl ElasticsearchWriter {
    pub(crate) fn joins(&self) -> Option<&Joins> {
        self.shown.as_ref()
    }

    pub(crate) fn follower(&self) -> Follower {
        Follower::new(&self.spec.target, self.generation())
    }

    /// The records of the other targets.
    pub(crate) async fn records(
        &self,
        joins: &Joins,
    ) -> Result<BTreeMap<String, Option<TargetDoc>>> {
        let names = joins.targets();
        let docs = self.books.targets(&names).await?;
        Ok(names.into_iter().map(str::to_owned).zip(docs).collect())
    }

    /// What the others of these rows say now.
    pub(crate) async fn others<'r>(
        &self,
        joins: &Joins,
        rows: impl Iterator<Item = &'r Row> + Clone,
    ) -> Result<Others> {
        let records = self.records(joins).await?;
        let mut found = Vec::with_capacity(joins.lookups().len());
        for lookup in joins.lookups() {
            let values = rows.clone().map(|row| row.get(lookup.via));
            let values = values.filter(|value| !value.is_null());
            let keys: BTreeSet<Key> = values.map(|value| Key::of(value.clone())).collect();
            let keys: Vec<Key> = keys.into_iter().collect();
            let record = records.get(&lookup.target).and_then(Option::as_ref);
            let loaded = self.read_other(lookup, record, &keys).await?;
            found.push(keys.into_iter().zip(loaded).collect());
        }
        Ok(Others { records, children: None, rows: found })
    }

    async fn read_other(
        &self,
        lookup: &Lookup,
        record: Option<&TargetDoc>,
        keys: &[Key],
    ) -> Result<Vec<Loaded>> {
        self.read_keys((&lookup.target, &lookup.model), record, keys).await
    }

    /// The same, with the children that a search finds.
    pub(crate) async fn others_and_children(&self, joins: &Joins, rows: &[Row]) -> Result<Others> {
        let mut others = self.others(joins, rows.iter()).await?;
        let owners: Vec<Key> = rows.iter().map(|row| self.model.key_of(row)).collect();
        others.children = Some(self.children(joins, &others.records, &owners).await?);
        Ok(others)
    }

    /// A flush with what its rows show now.
    pub(crate) async fn join(&self, flush: &Flush) -> Result<Option<Joined>> {
        let Some(joins) = &self.shown else { return Ok(None) };
        let rows = flush.writes.iter().filter_map(|write| write.row.as_ref());
        let others = self.others(joins, rows).await?;
        let mut flush = flush.clone();
        self.keep_children(joins, &mut flush, &others).await?;
        for write in &mut flush.writes {
            if let Some(row) = &mut write.row {
                *row = others.complete(joins, &write.key, row);
            }
        }
        Ok(Some(Joined { flush, others }))
    }

    /// Before a flush that moves no position writes a document: a replay does not note its keys, if it ends in between.
    pub(crate) async fn note_before(&self, flush: &Flush) -> Result<()> {
        let moves = flush.advances.iter().any(|advance| advance.from != advance.to);
        if moves || flush.writes.is_empty() {
            return Ok(());
        }
        let followers = self.followers().await?;
        if followers.is_empty() {
            return Ok(());
        }
        let place = flush.advances.first().and_then(|advance| self.place_of(&advance.partition));
        let until = place.and_then(|(id, version)| Until::new(id, version));
        let keys = each_once(flush.writes.iter().map(|write| &write.key));
        self.books.note(&followers, &self.spec.target, &keys, until.as_ref()).await
    }

    /// What is to be looked at, now that these documents of a flush are durable, and before its positions move.
    pub(crate) async fn note_after(
        &self,
        flush: &Flush,
        written: &[Option<Version>],
        joined: Option<&Joined>,
    ) -> Result<()> {
        if written.iter().any(Option::is_some) {
            let followers = self.followers().await?;
            if !followers.is_empty() {
                let durable = flush.writes.iter().zip(written).filter(|(_, is)| is.is_some());
                let keys = each_once(durable.map(|(write, _)| &write.key));
                self.books.note(&followers, &self.spec.target, &keys, None).await?;
            }
        }
        match self.joins().zip(joined) {
            Some((joins, joined)) => self.look_again(joins, joined).await,
            None => Ok(()),
        }
    }

    /// Those that show this target's rows, where this generation is the live one. Whoever registers later looks at all rows, and so
    /// at those that are durable now.
    async fn followers(&self) -> Result<Vec<Follower>> {
        if self.is_building() || self.model.key.len() != 1 {
            return Ok(Vec::new());
        }
        let found = self.books.followers(&[self.spec.target.as_str()]).await?;
        Ok(found.into_iter().flat_map(|doc| doc.value.followers).collect())
    }

    /// Reads the others again: what changed meanwhile is noted for this generation. All rows of a load are looked at when
    /// it is over.
    async fn look_again(&self, joins: &Joins, joined: &Joined) -> Result<()> {
        if self.is_loading().await? {
            return Ok(());
        }
        if !joins.gathers().is_empty() {
            // What they hold is what a search found, or what they held: they are looked at after a refresh.
            let keys: Vec<Option<String>> =
                joined.flush.writes.iter().map(|write| noted(&write.key)).collect();
            self.books.note(&[self.follower()], &self.spec.target, &keys, None).await?;
        }
        let rows = joined.flush.writes.iter().filter_map(|write| write.row.as_ref());
        let later = self.others(joins, rows).await?;
        for (target, keys) in joined.others.differ(joins, &later) {
            let keys: Vec<Option<String>> = keys.iter().map(noted).collect();
            self.books.note(&[self.follower()], target, &keys, None).await?;
        }
        Ok(())
    }

    /// Whether this generation is built and its load is not over: nobody follows its notes until then.
    pub(crate) async fn is_loading(&self) -> Result<bool> {
        if !self.is_building() {
            return Ok(false);
        }
        let record = self.live().await?.ok_or_else(|| self.not_live())?;
        Ok(record.value.next.as_ref().and_then(NextDoc::phase) == Some(Phase::Loading))
    }

    /// Makes sure that flushes of what is looked up note their keys for this generation, and that its rows are all looked
    /// at where another target lives another life than they were looked at for. With `new`, only where it is not known yet.
    pub(crate) async fn observe(&self, new: bool) -> Result<()> {
        let Some(joins) = self.joins() else { return Ok(()) };
        let (own, names) = (self.follower(), joins.targets());
        let records = self.records(joins).await?;
        for doc in self.books.followers(&names).await? {
            let Some((target, record)) = records.get_key_value(&doc.value.target) else { continue };
            let life = life(&self.spec.fingerprint, record.as_ref());
            let known = doc.value.followers.iter().find(|follower| follower.is(&own));
            if known.is_some_and(|known| new || known.seen == life) {
                continue;
            }
            if known.is_none() {
                self.end_others(target, &own).await?;
            }
            self.books.note(std::slice::from_ref(&own), target, &[None], None).await?;
            let seen = Follower { seen: life, ..own.clone() };
            let set = |all: &mut Vec<Follower>| {
                all.iter_mut().filter(|it| it.is(&seen)).for_each(|it| it.clone_from(&seen));
            };
            self.books.change_followers(target, set).await?;
        }
        Ok(())
    }

    /// Registers this generation, in the place of those that are neither live nor built any more.
    async fn end_others(&self, target: &str, own: &Follower) -> Result<()> {
        let record = self.live().await?.ok_or_else(|| self.not_live())?.value;
        let beside = record.next.as_ref().map(|next| next.generation);
        let stays = |follower: &Follower| {
            let number = follower.generation;
            follower.target != own.target
                || number == record.binding.generation
                || Some(number) == beside
        };
        let known = self.books.followers(&[target]).await?;
        let all = known.iter().flat_map(|doc| &doc.value.followers);
        let over: Vec<Follower> = all.filter(|follower| !stays(follower)).cloned().collect();
        let register = |all: &mut Vec<Follower>| {
            all.retain(stays);
            if !all.iter().any(|follower| follower.is(own)) {
                all.push(own.clone());
            }
        };
        self.books.change_followers(target, register).await?;
        for follower in &over {
            self.books.forget_notes(follower).await?;
        }
        Ok(())
    }
}

/// Another target's document, of the columns of `model`.
fn loaded(model: &Model, found: &Document) -> Result<Loaded> {
    let Some(source) = &found.source else {
        return Ok(Loaded { row: None, version: found.version, marks: Marks::new() });
    };
    let decoded = document::decode(model, source.get().as_bytes());
    let (row, marks) = decoded.map_err(|error| children::unreadable(&error))?;
    Ok(Loaded { row, version: found.version, marks })
}
