//! What a table shows of other tables' rows, as its flush fills it in, and what a flush notes for those that show its
//! own.
//!
//! The other rows are read under `FOR SHARE`, so none of them changes before this flush is seen by whoever brings rows
//! up to date. Nobody waits for another connector's locks here: a row that is being changed, or is not there, cannot be
//! held, and the flush notes its key for its own generation, in its own transaction. So no order of locks between
//! connectors is needed, and no deadlock is possible.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use foldline_api::lookup::{Joins, Lookup};
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::sink::Flush;
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use crate::books::Books;
use crate::children::{Gathering, Owners};
use crate::codec::{literal_text, sql_type};
use crate::error::{classify, is_missing};
use crate::identifier::{TableName, literal, quote};
use crate::refresh::wrong_by_key;
use crate::snapshot;
use crate::statement::Statements;
use crate::writer::{Place, PostgresWriter, Seal};

/// How many rows a step of `plan` has.
const ROWS_SHOWN: usize = 1_000;
/// The notes are counted once in so many flushes that leave some.
const COUNT_EVERY: u32 = 100;

/// One of the other tables.
pub(crate) struct Side {
    /// As the books call it.
    pub(crate) label: String,
    /// Quoted, with its schema.
    table: String,
    /// The key and what is shown of it.
    pub(crate) model: std::sync::Arc<Model>,
    /// The column here that holds the other row's key.
    pub(crate) via: usize,
    /// Reads rows by their keys.
    read: String,
    /// The same, and holds them as they are; those that cannot be held at once are left out.
    hold: String,
    /// The join with it; where it is not there, with nothing.
    joined: [String; 2],
    /// Whether a row `t` does not show what the other one says.
    pub(crate) wrong: String,
    /// Whether it was there when it was looked for last.
    there: AtomicBool,
}

/// What a table shows of others.
pub(crate) struct Shown {
    pub(crate) joins: Joins,
    /// One for each lookup.
    pub(crate) sides: Vec<Side>,
    /// One for each column of children.
    pub(crate) gatherings: Vec<Gathering>,
}

/// Rows of the other tables, by side and key.
type Others = Vec<HashMap<Key, Row>>;

/// A flush with what its rows show.
pub(crate) struct Joined {
    pub(crate) flush: Flush,
    /// Per side, the keys whose rows could not be held.
    unsure: Vec<BTreeSet<Key>>,
    /// Who held its rows before.
    before: Owners,
}

impl Side {
    fn new(lookup: &Lookup, at: usize, name: &TableName, own: &Model) -> Self {
        let (table, model) = (name.sql(), &lookup.model);
        let read = Statements::new(&table, model).load;
        let column = |model: &Model, at: usize| {
            model.columns.get(at).map_or_else(String::new, |column| quote(&column.name))
        };
        let (key, via) = (column(model, 0), column(own, lookup.via));
        let on = format!("AS s{at} ON s{at}.{key} = t.{via}");
        let empty: Vec<String> = model
            .columns
            .iter()
            .map(|Column { name, ty, .. }| format!("NULL::{} AS {}", sql_type(ty), quote(name)))
            .collect();
        let wrong: Vec<String> = lookup
            .fields
            .iter()
            .map(|(here, there)| {
                format!("t.{} IS DISTINCT FROM s{at}.{}", column(own, *here), column(model, *there))
            })
            .collect();
        Side {
            label: name.label(),
            hold: format!("{read} ORDER BY u.ord FOR SHARE OF t SKIP LOCKED"),
            read,
            joined: [
                format!("LEFT JOIN (SELECT {} WHERE false) {on}", empty.join(", ")),
                format!("LEFT JOIN {table} {on}"),
            ],
            wrong: format!("({})", wrong.join(" OR ")),
            model: std::sync::Arc::clone(model),
            via: lookup.via,
            there: AtomicBool::new(false),
            table,
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// The join with it as it is now.
    pub(crate) fn joined(&self) -> &str {
        let [nothing, table] = &self.joined;
        if self.is_there() { table } else { nothing }
    }

    /// The name of its key's type.
    pub(crate) fn key_type(&self) -> String {
        self.model.columns.first().map_or_else(String::new, |column| sql_type(&column.ty))
    }

    /// Keys as the notes keep them.
    pub(crate) fn texts<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Vec<String> {
        texts(&self.model, keys)
    }

    async fn rows(&self, client: &Client, keys: &[Key], hold: bool) -> Result<HashMap<Key, Row>> {
        let place = (if hold { &*self.hold } else { &*self.read }, &*self.label);
        let loaded = snapshot::load(client, place, &self.model, keys, usize::MAX).await?;
        let loaded = loaded.map_err(|error| self.refused(error))?;
        let rows = keys.iter().cloned().zip(loaded);
        Ok(rows.filter_map(|(key, loaded)| Some((key, loaded.row?))).collect())
    }

    fn refused(&self, error: tokio_postgres::Error) -> Error {
        if !is_missing(&error) {
            return classify(error, &format!("looking up rows of {:?}", self.label));
        }
        // It is looked for again.
        self.there.store(false, Ordering::Relaxed);
        Error::retriable(format!(
            "table {:?}, which is looked up, was dropped or replaced",
            self.label
        ))
    }
}

/// What `plan` shows of lookups: how the other rows are read as rows are written, which rows follow a change, and the view
/// that would do the same. Of a computed field it has what is stored.
pub(crate) fn plan(joins: &Joins, table: &TableName, model: &Model) -> Vec<String> {
    let lookups = joins.lookups().iter().map(|lookup| &lookup.target);
    let names: Vec<TableName> = lookups
        .chain(joins.gathers().iter().map(|gather| &gather.target))
        .map(|target| {
            let plain = || TableName { schema: None, table: target.clone() };
            TableName::parse(target).unwrap_or_else(|_| plain())
        })
        .collect();
    let shown = Shown::new(joins, &names, model);
    let mut out = Vec::new();
    for side in &shown.sides {
        side.there.store(true, Ordering::Relaxed);
        out.push(side.hold.clone());
        out.push(wrong_by_key(&table.sql(), model, side, ROWS_SHOWN));
    }
    out.extend(shown.gatherings.iter().map(|gathering| gathering.read.clone()));
    let column = |(at, column): (usize, &Column)| {
        let held = shown.gatherings.iter().find(|gathering| gathering.gather.column == at);
        if let Some(gathering) = held {
            return format!("{} AS {}", gathering.view(model), quote(&column.name));
        }
        let sides = shown.joins.lookups().iter().zip(&shown.sides).enumerate();
        let there = sides.flat_map(|(number, (lookup, side))| {
            lookup.fields.iter().map(move |(here, there)| (*here, number, side, *there))
        });
        let mut there = there.filter(|(here, ..)| *here == at);
        let other = there.next().and_then(|(_, number, side, there)| {
            Some(format!("s{number}.{}", quote(&side.model.columns.get(there)?.name)))
        });
        let own = quote(&column.name);
        other.map_or_else(|| format!("t.{own}"), |other| format!("{other} AS {own}"))
    };
    let columns: Vec<String> = model.columns.iter().enumerate().map(column).collect();
    let joined: Vec<&str> = shown.sides.iter().map(Side::joined).collect();
    out.push(format!(
        "A view that shows the same without being written:\nCREATE VIEW {} AS SELECT {} FROM {} AS t {}",
        quote(&format!("{}_shown", table.table)),
        columns.join(", "),
        table.sql(),
        joined.join(" ")
    ));
    out
}

/// The one key column's values as text that PostgreSQL reads back.
fn texts<'k>(model: &Model, keys: impl Iterator<Item = &'k Key>) -> Vec<String> {
    let Some(column) = model.key_columns().next() else { return Vec::new() };
    keys.filter_map(|key| Some(literal_text(&column.ty, key.values().first()?))).collect()
}

impl Shown {
    /// Of the tables of these names, one for each lookup, then one for each column of children.
    pub(crate) fn new(joins: &Joins, names: &[TableName], own: &Model) -> Self {
        let joins = joins.narrowed();
        let sides = joins.lookups().iter().zip(names).enumerate();
        let sides = sides.map(|(at, (lookup, name))| Side::new(lookup, at, name, own)).collect();
        let others = names.iter().skip(joins.lookups().len());
        let gatherings = joins.gathers().iter().zip(others);
        let gatherings = gatherings.map(|(gather, name)| Gathering::new(gather, name)).collect();
        Shown { joins, sides, gatherings }
    }

    /// The labels of the other tables, each once.
    pub(crate) fn labels(&self) -> Vec<String> {
        let sides = self.sides.iter().map(|side| &side.label);
        let labels: BTreeSet<&String> =
            sides.chain(self.gatherings.iter().map(|gathering| &gathering.label)).collect();
        labels.into_iter().cloned().collect()
    }

    /// Looks for the tables that were not there; with `all`, for each.
    pub(crate) async fn look(&self, client: &Client, all: bool) -> Result<()> {
        let sides = self.sides.iter().map(|side| (&side.table, &side.there));
        let gatherings = self.gatherings.iter().map(|it| (&it.table, &it.there));
        for (table, is_there) in sides.chain(gatherings) {
            if !all && is_there.load(Ordering::Relaxed) {
                continue;
            }
            let sql = format!("SELECT to_regclass({}) IS NOT NULL", literal(table));
            let rows = client.query_typed(&sql, &[]).await;
            let rows = rows.map_err(|error| classify(error, "looking for what is looked up"))?;
            let there = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false);
            is_there.store(there, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Per side, the other rows' keys in these rows.
    fn keys<'r>(&self, rows: impl Iterator<Item = &'r Row> + Clone) -> Vec<BTreeSet<Key>> {
        let keys = |side: &Side| {
            let values = rows.clone().map(|row| row.get(side.via));
            values.filter(|value| !value.is_null()).map(|value| Key::of(value.clone())).collect()
        };
        self.sides.iter().map(keys).collect()
    }

    /// The rows as they shall be, with what the others say.
    fn complete(&self, row: &Row, others: &Others, children: Vec<Value>) -> Row {
        let shown = self.sides.iter().zip(others).map(|(side, rows)| {
            let value = row.get(side.via);
            if value.is_null() { None } else { rows.get(&Key::of(value.clone())) }
        });
        self.joins.complete(row, shown, children.into_iter())
    }

    /// Rows as they shall be, by what the others say now. The caller holds them.
    pub(crate) async fn completed(
        &self,
        client: &Client,
        own: &Model,
        rows: &[Row],
    ) -> Result<Vec<Row>> {
        let mut others = Others::new();
        for (side, keys) in self.sides.iter().zip(self.keys(rows.iter())) {
            let keys: Vec<Key> = keys.into_iter().collect();
            others.push(if side.is_there() && !keys.is_empty() {
                side.rows(client, &keys, false).await?
            } else {
                HashMap::new()
            });
        }
        let keys: Vec<Key> = rows.iter().map(|row| own.key_of(row)).collect();
        let found = self.children(client, own, &keys).await?;
        let each = rows.iter().zip(&keys);
        Ok(each.map(|(row, key)| self.complete(row, &others, self.values(&found, key))).collect())
    }
}

impl PostgresWriter {
    /// Begins the flush's transaction, where its rows show something, and fills that in. Those of a build are not held:
    /// its flush may take long, and nobody is to wait for it; all its rows are noted instead.
    pub(crate) async fn join(&self, client: &Client, flush: &Flush) -> Result<Option<Joined>> {
        let gathered = !self.place.building && !self.known_vias().is_empty();
        if self.shown.is_none() && !gathered {
            return Ok(None);
        }
        let begun = client.batch_execute(&self.begin).await;
        begun.map_err(|error| self.classify(error, "writing into"))?;
        let before =
            if gathered { self.owners_before(client, flush).await? } else { Owners::new() };
        let Some(shown) = &self.shown else {
            return Ok(Some(Joined { flush: flush.clone(), unsure: Vec::new(), before }));
        };
        let rows = || flush.writes.iter().filter_map(|write| write.row.as_ref());
        shown.look(client, false).await?;
        let (mut others, mut unsure) = (Others::new(), Vec::new());
        for (side, keys) in shown.sides.iter().zip(shown.keys(rows())) {
            let mut list: Vec<Key> = keys.iter().cloned().collect();
            let mut found = HashMap::new();
            if !self.place.building && side.is_there() && !list.is_empty() {
                found = side.rows(client, &list, true).await?;
                list.retain(|key| !found.contains_key(key));
            }
            unsure.push(list.iter().cloned().collect());
            if side.is_there() && !list.is_empty() {
                found.extend(side.rows(client, &list, false).await?);
            }
            others.push(found);
        }
        let mut flush = flush.clone();
        let keys: Vec<Key> = flush.writes.iter().map(|write| write.key.clone()).collect();
        let found = shown.children(client, &self.model, &keys).await?;
        for write in &mut flush.writes {
            if let Some(row) = &mut write.row {
                *row = shown.complete(row, &others, shown.values(&found, &write.key));
            }
        }
        Ok(Some(Joined { flush, unsure, before }))
    }

    /// What a flush leaves to be looked at, in its transaction: by itself, and by those that show its rows. False where it
    /// did not see who held its rows before.
    pub(crate) async fn leave_notes(
        &self,
        client: &Client,
        flush: &Flush,
        joined: Option<&Joined>,
        seal: &Seal,
    ) -> Result<bool> {
        if !self.place.building && !self.knows_vias(seal) {
            return Ok(false);
        }
        if let Some((shown, joined)) = self.shown.as_ref().zip(joined) {
            self.note_unsure(client, shown, joined).await?;
        }
        if let Some(joined) = joined {
            self.note_owners(client, flush, &joined.before).await?;
        }
        if seal.followed {
            self.note_followers(client, flush).await?;
        }
        Ok(true)
    }

    /// Notes what this flush could not be sure of, in its transaction.
    async fn note_unsure(&self, client: &Client, shown: &Shown, joined: &Joined) -> Result<()> {
        for (side, keys) in shown.sides.iter().zip(&joined.unsure).filter(|(_, k)| !k.is_empty()) {
            let (own, other) = (&self.place, &*side.label);
            if own.building {
                self.books.note_all(client, own, other).await?;
            } else {
                self.books.note_keys(client, own, other, &side.texts(keys.iter())).await?;
            }
        }
        match shown.gatherings.first() {
            Some(gathering) if self.place.building => {
                self.books.note_all(client, &self.place, &gathering.label).await
            }
            Some(_) => self.note_own(client, &joined.flush).await,
            None => Ok(()),
        }
    }

    /// Notes the keys that this flush wrote for those that show its rows, in its transaction.
    async fn note_followers(&self, client: &Client, flush: &Flush) -> Result<()> {
        if self.model.key.len() != 1 || flush.writes.is_empty() {
            return Ok(());
        }
        let keys = texts(&self.model, flush.writes.iter().map(|write| &write.key));
        self.books.note_followers(client, &self.place, &keys).await?;
        if self.noted.fetch_add(1, Ordering::Relaxed) % COUNT_EVERY == COUNT_EVERY - 1 {
            self.books.collapse(client, &self.place.label).await?;
        }
        Ok(())
    }

    /// Makes sure that flushes of what is looked up note their keys for this generation, and that its rows are all
    /// looked at once more. In the transaction that checked that the generation is wanted.
    pub(crate) async fn register(&self, client: &Client, shown: &Shown) -> Result<()> {
        let labels = shown.labels();
        for label in self.books.unregistered(client, &self.place, &labels).await? {
            self.observe(client, &label).await?;
        }
        Ok(())
    }

    /// Notes all rows, and the life of the other target that this is for. Its flushes under way are waited for, and
    /// those to come see that its keys are wanted.
    pub(crate) async fn observe(&self, client: &Client, label: &str) -> Result<()> {
        if let Some(entry) = self.books.entry(client, label, "FOR UPDATE").await? {
            let live = entry.binding.generation;
            self.books.positions(client, label, live, "FOR SHARE").await?;
        }
        if let Some(shown) = &self.shown {
            self.gather_from(client, shown, label).await?;
        }
        self.books.register(client, &self.place, label, &self.spec.fingerprint).await?;
        self.books.note_all(client, &self.place, label).await
    }
}

/// Which rows of a generation have still to be brought up to what they show, at one moment.
pub(crate) struct Waiting {
    books: Books,
    own: Place,
    /// All of them.
    pub(crate) all: bool,
}

impl Waiting {
    pub(crate) fn new(books: &Books, label: &str, generation: u64) -> Self {
        let own = Place {
            table: String::new(),
            label: label.to_owned(),
            physical: 0,
            generation,
            building: false,
        };
        Waiting { books: books.clone(), own, all: false }
    }

    /// Whether the other tables live another life than the one that the rows were looked at for.
    pub(crate) async fn is_all(
        &self,
        client: &Client,
        shown: &Shown,
        fingerprint: &str,
    ) -> Result<bool> {
        let labels = shown.labels();
        let unknown = self.books.unregistered(client, &self.own, &labels).await?;
        let changed = self.books.changed(client, &self.own, fingerprint).await?;
        Ok(!unknown.is_empty() || !changed.is_empty())
    }

    /// For each of these rows, whether it waits.
    pub(crate) async fn of(
        &self,
        client: &Client,
        shown: &Shown,
        own: &Model,
        rows: &[Row],
    ) -> Result<Vec<bool>> {
        let mut waits = vec![self.all; rows.len()];
        for (side, keys) in shown.sides.iter().zip(shown.keys(rows.iter())) {
            let texts = side.texts(keys.iter());
            let noted = self.books.noted(client, &self.own, &side.label, &texts).await?;
            let is_noted =
                |key: &str| noted.iter().any(|it| it.as_deref().is_none_or(|it| it == key));
            for (waits, row) in waits.iter_mut().zip(rows) {
                let value = row.get(side.via);
                if !value.is_null() {
                    let key = Key::of(value.clone());
                    *waits |= side.texts(std::iter::once(&key)).iter().any(|key| is_noted(key));
                }
            }
        }
        if shown.gatherings.is_empty() {
            return Ok(waits);
        }
        let texts: Vec<String> =
            rows.iter().map(|row| texts(own, [own.key_of(row)].iter()).concat()).collect();
        let labels = shown.gatherings.iter().map(|gathering| &gathering.label);
        for label in labels.chain([&self.own.label]) {
            let noted = self.books.noted(client, &self.own, label, &texts).await?;
            for (waits, text) in waits.iter_mut().zip(&texts) {
                *waits |= noted.iter().any(|it| it.as_ref().is_none_or(|it| it == text));
            }
        }
        Ok(waits)
    }
}

/// A counter of flushes that left notes.
pub(crate) type Noted = AtomicU32;
