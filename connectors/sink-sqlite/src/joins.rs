//! What a table shows of other tables' rows.
//!
//! SQLite lets one writer in at a time. So what a flush reads of the other rows is true until it commits, and a note stands
//! once: nobody reads it while it is written.

use std::sync::Arc;

use foldline_api::lookup::{Joins, Lookup};
use foldline_api::model::{Key, Model, Row};
use foldline_api::sink::{Flush, Refreshed, TargetSpec};
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use rusqlite::{OptionalExtension, Params, Transaction, params_from_iter};

use crate::books;
use crate::children;
use crate::codec::{Cell, decode_row, encode_key, encode_row};
use crate::database::{Access, End, sql};
use crate::row::{FromRow, get, select};
use crate::schema::quote;
use crate::writer::{Hold, SqliteWriter};

/// So many rows are looked at for each that a step may write.
const LOOKED_AT: usize = 5;
/// A note of all rows.
const ALL: &str = "all";

/// What has still to be shown.
struct Note {
    looked_up: String,
    /// `key ` and the other row's key, or [`ALL`].
    key: String,
    /// Of a note of all rows, the key up to which they were looked at.
    after: Option<String>,
}

impl FromRow for Note {
    fn from_row(row: &rusqlite::Row<'_>) -> Result<Self> {
        let (key, after) = (get(row, "key")?, get(row, "after")?);
        Ok(Note { looked_up: get(row, "looked_up")?, key, after })
    }
}

pub(crate) fn noted(key: &Key) -> String {
    format!("key {key}")
}

pub(crate) fn run(tx: &Transaction<'_>, text: &str, params: impl Params) -> Result<()> {
    tx.prepare_cached(text).map_err(sql)?.execute(params).map(drop).map_err(sql)
}

pub(crate) fn there(tx: &Transaction<'_>, table: &str) -> Result<bool> {
    let text = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    tx.query_row(text, [table], |row| row.get(0)).map_err(sql)
}

/// Another target's row, of the columns that `lookup` names.
fn other(tx: &Transaction<'_>, lookup: &Lookup, row: &Row) -> Result<Option<Row>> {
    let value = row.get(lookup.via);
    if value.is_null() || !there(tx, &lookup.target)? {
        return Ok(None);
    }
    let (model, key) = (&lookup.model, Key::of(value.clone()));
    let columns: Vec<String> = model.columns.iter().map(|column| quote(&column.name)).collect();
    let by = columns.first().cloned().unwrap_or_default();
    let text =
        format!("SELECT {} FROM {} WHERE {by} = ?1", columns.join(", "), quote(&lookup.target));
    let mut rows = rows(tx, model, &text, encode_key(model, &key))?;
    Ok(rows.pop())
}

pub(crate) fn rows(
    tx: &Transaction<'_>,
    model: &Model,
    text: &str,
    cells: Vec<Cell<'_>>,
) -> Result<Vec<Row>> {
    let mut statement = tx.prepare_cached(text).map_err(sql)?;
    let mut found = statement.query(params_from_iter(cells)).map_err(sql)?;
    let mut out = Vec::new();
    while let Some(stored) = found.next().map_err(sql)? {
        out.push(decode_row(model, stored, |_| ())?);
    }
    Ok(out)
}

/// The row with what it looks up now.
fn completed(tx: &Transaction<'_>, joins: &Joins, own: &Key, row: &Row) -> Result<Row> {
    let others = joins.lookups().iter().map(|lookup| other(tx, lookup, row));
    let others: Vec<Option<Row>> = others.collect::<Result<_>>()?;
    let children = joins.gathers().iter().map(|gather| children::children(tx, gather, own));
    let children: Vec<Value> = children.collect::<Result<_>>()?;
    Ok(joins.complete(row, others.iter().map(Option::as_ref), children.into_iter()))
}

/// The life of another target that rows were looked at for.
fn life(tx: &Transaction<'_>, spec: &TargetSpec, looked_up: &str) -> Result<String> {
    let live = books::live(tx, looked_up)?;
    let life =
        live.map_or_else(String::new, |live| format!("{} {}", live.generation, live.physical));
    Ok(format!("{} {life}", spec.fingerprint))
}

/// Nobody notes keys any more for a generation that is live no longer.
pub(crate) fn end(tx: &Transaction<'_>, target: &str, generation: u64) -> Result<()> {
    for table in ["_foldline_lookups", "_foldline_gathers", "_foldline_notes"] {
        let text = format!("DELETE FROM {table} WHERE target = ?1 AND generation = ?2");
        run(tx, &text, (target, generation.cast_signed()))?;
    }
    Ok(())
}

/// Whether rows of a generation have still to show something.
pub(crate) fn waits(tx: &Transaction<'_>, target: &str, generation: u64) -> Result<bool> {
    let text =
        "SELECT EXISTS (SELECT 1 FROM _foldline_notes WHERE target = ?1 AND generation = ?2)";
    tx.query_row(text, (target, generation.cast_signed()), |row| row.get(0)).map_err(sql)
}

impl Hold {
    pub(crate) fn place(&self) -> (&str, i64) {
        (&self.spec.target, self.generation.cast_signed())
    }

    /// A flush with what its rows show.
    pub(crate) fn joined(&self, tx: &Transaction<'_>, flush: &Flush) -> Result<Option<Flush>> {
        let Some(joins) = &self.spec.joins else { return Ok(None) };
        let (joins, mut flush) = (joins.narrowed(), flush.clone());
        for write in &mut flush.writes {
            if let Some(row) = &mut write.row {
                *row = completed(tx, &joins, &write.key, row)?;
            }
        }
        Ok(Some(flush))
    }

    /// Notes the keys that a flush wrote for the generations that show its rows, where its own is live.
    pub(crate) fn note_followers(&self, tx: &Transaction<'_>, flush: &Flush) -> Result<()> {
        let target = &self.spec.target;
        let followed = "SELECT EXISTS (SELECT 1 FROM _foldline_lookups WHERE looked_up = ?1)";
        let followed =
            tx.prepare_cached(followed).map_err(sql)?.query_row([target], |row| row.get(0));
        if self.is_built() || !followed.map_err(sql)? {
            return Ok(());
        }
        let mut note = tx.prepare_cached(include_str!("sql/note_followers.sql")).map_err(sql)?;
        for write in &flush.writes {
            note.execute((target, noted(&write.key))).map_err(sql)?;
        }
        Ok(())
    }

    /// Makes sure that flushes of what is looked up note their keys for this generation. With `new`, only of what is
    /// not known yet; else of what lives another life than the one that rows were looked at for. Whether there was any.
    pub(crate) fn observe(&self, tx: &Transaction<'_>, new: bool) -> Result<bool> {
        let Some(joins) = &self.spec.joins else { return Ok(false) };
        let (mut any, (target, generation)) = (false, self.place());
        for name in joins.targets() {
            let seen = self.seen(tx, name)?;
            let life = life(tx, &self.spec, name)?;
            if seen.as_ref().map_or(!new, |seen| new || *seen == life) {
                continue;
            }
            self.gather_from(tx, joins, name)?;
            run(tx, include_str!("sql/register_lookup.sql"), (target, generation, name, &life))?;
            run(tx, include_str!("sql/note.sql"), (target, generation, name, ALL))?;
            any = true;
        }
        Ok(any)
    }

    /// Whether there is something to show, and for how long the oldest of it has waited.
    pub(crate) fn look(&self, tx: &Transaction<'_>) -> Result<(bool, Option<f64>)> {
        let Some(joins) = &self.spec.joins else { return Ok((false, None)) };
        let (target, generation) = self.place();
        let text = include_str!("sql/oldest_note.sql");
        let waits: Option<f64> =
            tx.query_row(text, (target, generation), |row| row.get(0)).map_err(sql)?;
        let mut changed = false;
        for name in joins.targets() {
            let seen = self.seen(tx, name)?;
            changed |= match seen {
                Some(seen) => seen != life(tx, &self.spec, name)?,
                None => false,
            };
        }
        Ok((changed, waits.map(|seconds| seconds.max(0.0))))
    }

    /// One step of bringing rows up to what they show.
    pub(crate) fn refresh(&self, tx: &Transaction<'_>, rows_max: usize) -> Result<Refreshed> {
        let Some(joins) = &self.spec.joins else { return Ok(Refreshed::default()) };
        if self.check_live(tx)?.fingerprint != self.spec.fingerprint {
            return Err(Error::fenced("another projection builds it now"));
        }
        let joins = joins.narrowed();
        if self.observe(tx, false)? {
            return Ok(Refreshed { rows: 0, waits: Some(0.0), more: true });
        }
        let mut written = 0;
        while written < rows_max {
            let text = include_str!("sql/next_note.sql");
            let Some(note) = select::<Note>(tx, text, self.place())?.pop() else { break };
            let (count, done) = self.follow(tx, &joins, &note, rows_max - written)?;
            written += count;
            let (target, generation) = self.place();
            let key = (target, generation, &note.looked_up, &note.key);
            match done {
                Done::All => run(tx, include_str!("sql/forget_note.sql"), key)?,
                Done::Until(after) => {
                    let moved = (key.0, key.1, key.2, key.3, after);
                    run(tx, include_str!("sql/move_note.sql"), moved)?;
                    break;
                }
            }
        }
        let (_, waits) = self.look(tx)?;
        Ok(Refreshed { rows: written as u64, waits, more: waits.is_some() })
    }

    /// Writes rows that show something else than they should by this note: how many, and how far that is.
    fn follow(
        &self,
        tx: &Transaction<'_>,
        joins: &Joins,
        note: &Note,
        rows_max: usize,
    ) -> Result<(usize, Done)> {
        let max = rows_max.saturating_mul(LOOKED_AT);
        let found = self.page(tx, joins, note, max)?;
        let full = found.len() == max;
        let (mut written, mut last) = (0, None);
        for row in found {
            last = Some(self.spec.model.key_of(&row).to_string());
            written += usize::from(self.show(tx, joins, &row)?);
            if written == rows_max {
                return Ok((written, last.map_or(Done::All, Done::Until)));
            }
        }
        Ok((written, last.filter(|_| full).map_or(Done::All, Done::Until)))
    }

    /// The next rows that a note is about, in the order of their keys.
    fn page(
        &self,
        tx: &Transaction<'_>,
        joins: &Joins,
        note: &Note,
        max: usize,
    ) -> Result<Vec<Row>> {
        let model = &self.spec.model;
        let name = |at: usize| model.columns.get(at).map_or_else(String::new, |c| quote(&c.name));
        let of_note = || joins.lookups().iter().filter(|lookup| lookup.target == note.looked_up);
        let text = note.key.strip_prefix("key ");
        let is_own = note.looked_up == self.spec.target;
        let other = of_note().next().map(|lookup| &lookup.model);
        let other = if is_own { Some(model) } else { other };
        let Some(other) = other.or((text.is_none()).then_some(model)) else {
            // Of a row that is held as a child: who holds it is noted too.
            return Ok(Vec::new());
        };
        let other = text.and_then(|text| Some((Arc::clone(other), other.parse_key(text).ok()?)));
        let after = note.after.as_deref().and_then(|text| model.parse_key(text).ok());
        let (mut cells, mut within) = (Vec::new(), vec!["true".to_owned()]);
        if let Some((other, key)) = &other {
            cells.extend(encode_key(other, key));
            let own = model.key.iter().take(usize::from(is_own)).copied();
            let via = of_note().map(|lookup| lookup.via).chain(own);
            let via: Vec<String> = via.map(|at| format!("{} = ?1", name(at))).collect();
            within.push(format!("({})", via.join(" OR ")));
        }
        let key: Vec<String> = model.key.iter().map(|at| name(*at)).collect();
        let key = key.join(", ");
        if let Some(after) = &after {
            let from = cells.len() + 1;
            cells.extend(encode_key(model, after));
            let slots: Vec<String> = (from..=cells.len()).map(|slot| format!("?{slot}")).collect();
            within.push(format!("({key}) > ({})", slots.join(", ")));
        }
        let columns: Vec<String> = (0..model.columns.len()).map(name).collect();
        let text = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {key} LIMIT {max}",
            columns.join(", "),
            quote(self.table()),
            within.join(" AND ")
        );
        rows(tx, model, &text, cells)
    }

    /// Writes what a row should show, where it shows something else.
    fn show(&self, tx: &Transaction<'_>, joins: &Joins, row: &Row) -> Result<bool> {
        let model = &self.spec.model;
        let shown = completed(tx, joins, &model.key_of(row), row)?;
        if shown == *row {
            return Ok(false);
        }
        let name = |at: &usize| model.columns.get(*at).map_or_else(String::new, |c| quote(&c.name));
        let set = |(slot, at)| format!("{} = ?{slot}", name(at));
        let hidden: Vec<String> = (1..).zip(joins.hidden()).map(set).collect();
        let by: Vec<String> = (hidden.len() + 1..).zip(&model.key).map(set).collect();
        let text = format!(
            "UPDATE {} SET {} WHERE {}",
            quote(self.table()),
            hidden.join(", "),
            by.join(" AND ")
        );
        let cells = encode_row(model, &shown);
        let cells = joins.hidden().iter().chain(&model.key).filter_map(|at| cells.get(*at));
        let mut update = tx.prepare_cached(&text).map_err(sql)?;
        Ok(update.execute(params_from_iter(cells)).map_err(sql)? == 1)
    }

    /// Rows as they would be with what they look up; none of those that have still to be brought up to it.
    pub(crate) fn shown(&self, tx: &Transaction<'_>, rows: &[Row]) -> Result<Vec<Option<Row>>> {
        let Some(joins) = &self.spec.joins else {
            return Ok(rows.iter().cloned().map(Some).collect());
        };
        let joins = joins.narrowed();
        let (target, generation) = self.place();
        let mut unknown = false;
        for name in joins.targets() {
            unknown |= self.seen(tx, name)? != Some(life(tx, &self.spec, name)?);
        }
        let waits = |row: &Row| -> Result<bool> {
            let lookups = joins.lookups().iter().map(|lookup| {
                (lookup.target.as_str(), noted(&Key::of(row.get(lookup.via).clone())))
            });
            let gathers = joins.gathers().iter().map(|it| (it.target.as_str(), ALL.to_owned()));
            let own = (target, noted(&self.spec.model.key_of(row)));
            for (looked_up, key) in lookups.chain(gathers).chain([own]) {
                let text = include_str!("sql/is_noted.sql");
                let mut asked = tx.prepare_cached(text).map_err(sql)?;
                let place = (target, generation, looked_up, ALL, key);
                if asked.query_row(place, |row| row.get(0)).map_err(sql)? {
                    return Ok(true);
                }
            }
            Ok(unknown)
        };
        let shown = rows.iter().map(|row| {
            if waits(row)? {
                Ok(None)
            } else {
                completed(tx, &joins, &self.spec.model.key_of(row), row).map(Some)
            }
        });
        shown.collect()
    }

    /// The life of another target that this generation's rows were looked at for.
    fn seen(&self, tx: &Transaction<'_>, looked_up: &str) -> Result<Option<String>> {
        let (target, generation) = self.place();
        let text = include_str!("sql/seen_life.sql");
        let mut seen = tx.prepare_cached(text).map_err(sql)?;
        let seen = seen.query_row((target, generation, looked_up), |row| row.get(0));
        seen.optional().map_err(sql)
    }
}

impl SqliteWriter {
    /// See [`foldline_api::sink::Writer::refresh`]. Nothing is locked where there is nothing to do.
    pub(crate) async fn bring_up(&self, rows_max: usize) -> Result<Refreshed> {
        if self.hold.spec.joins.is_none() {
            return Ok(Refreshed::default());
        }
        let look = |tx: &Transaction<'_>, hold: &Hold| hold.look(tx).map(End::Commit);
        if matches!(self.run(Access::Read, look).await?, (false, None)) {
            return Ok(Refreshed::default());
        }
        let step =
            move |tx: &Transaction<'_>, hold: &Hold| hold.refresh(tx, rows_max).map(End::Commit);
        self.run(Access::Write, step).await
    }
}

/// How far a note was followed.
enum Done {
    All,
    /// Up to this key.
    Until(String),
}
