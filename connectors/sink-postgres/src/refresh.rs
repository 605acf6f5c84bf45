//! Brings rows up to what they show, by the notes that flushes left.
//!
//! A step is one transaction. It holds the rows that it is about to write, and reads what they show afterwards, so what
//! it writes is never older than what another step wrote before. It waits for nobody's row: one that a flush holds is
//! left, and so is its note. A note goes once a later look finds no row that is still wrong, in the same transaction.

use foldline_api::model::{Key, Model, Row};
use foldline_api::sink::{Marks, Refreshed, RowWrite, Version};
use foldline_api::{Error, Result};
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::books::Param;
use crate::codec::{Encoded, encode_column, wire_array_type};
use crate::flush::Part;
use crate::identifier::quote;
use crate::joins::{Shown, Side};
use crate::row::get;
use crate::session::BEGIN_READ;
use crate::snapshot::read_row;
use crate::writer::{PostgresWriter, as_param};

/// So many notes are taken up by one step.
const NOTES: i64 = 500;
/// Rows of one step come to about so many bytes.
const BYTES_MAX: usize = 4 << 20;

/// Rows that do not show what they should, held, with what they are.
pub(crate) struct Wrong {
    pub(crate) rows: Vec<(Row, u32)>,
    /// Whether there may be more.
    pub(crate) cut: bool,
}

/// A note of one key.
struct Note {
    id: i64,
    looked_up: String,
    key: String,
}

impl PostgresWriter {
    /// See [`foldline_api::sink::Writer::refresh`].
    pub(crate) async fn refresh_step(&self, rows_max: usize) -> Result<Refreshed> {
        let Some(shown) = &self.shown else { return Ok(Refreshed::default()) };
        let (changed, waits) = self.look_for_notes().await?;
        if !changed && waits.is_none() {
            return Ok(Refreshed::default());
        }
        let session = self.writing.begin().await?;
        let done = self.refresh_in(&session.client, shown, rows_max).await;
        let (rows, more) = session.finish(done).await?;
        let (_, waits) = self.look_for_notes().await?;
        Ok(Refreshed { rows, waits, more: more && waits.is_some() })
    }

    /// Whether another target's life is another one, and how long the oldest note has waited.
    async fn look_for_notes(&self) -> Result<(bool, Option<f64>)> {
        let sql = sql!("joins/look", schema = self.books.schema);
        let refused = |error| self.classify(error, "looking for notes of");
        let read = async |client: &Client| {
            let generation = self.place.generation.cast_signed();
            let params: [Param<'_>; 3] = [
                (&self.place.label, Type::TEXT),
                (&generation, Type::INT8),
                (&self.spec.fingerprint, Type::TEXT),
            ];
            client.query_typed(&sql, &params).await.map_err(refused)
        };
        let rows = self.loading.take().await?.at_once(BEGIN_READ, read, refused).await?;
        let row = rows.first().ok_or_else(|| Error::retriable("PostgreSQL sent no row"))?;
        let waits: Option<f64> = get(row, "waits")?;
        Ok((get(row, "changed")?, waits.map(|seconds| seconds.max(0.0))))
    }

    async fn refresh_in(
        &self,
        client: &Client,
        shown: &Shown,
        rows_max: usize,
    ) -> Result<(u64, bool)> {
        self.check_generation(client).await?;
        let changed = self.books.changed(client, &self.place, &self.spec.fingerprint).await?;
        for label in &changed {
            self.observe(client, label).await?;
        }
        if !changed.is_empty() {
            return Ok((0, true));
        }
        shown.look(client, true).await?;
        let (rows, full) = self.refresh_keys(client, shown, rows_max).await?;
        let left = rows_max.saturating_sub(usize::try_from(rows).unwrap_or(usize::MAX)).max(1);
        let (swept, unfinished) = self.sweep(client, shown, left).await?;
        Ok((rows + swept, full || unfinished))
    }

    /// Follows notes of keys: how many rows were written, and whether there is more to do.
    async fn refresh_keys(
        &self,
        client: &Client,
        shown: &Shown,
        rows_max: usize,
    ) -> Result<(u64, bool)> {
        let sql = sql!("joins/keys", schema = self.books.schema);
        let generation = self.place.generation.cast_signed();
        let params: [Param<'_>; 3] =
            [(&self.place.label, Type::TEXT), (&generation, Type::INT8), (&NOTES, Type::INT8)];
        let notes = self.books.query(client, &sql, &params).await?;
        let notes = notes.iter().map(|row| {
            let (id, key) = (get(row, "id")?, get(row, "key")?);
            Ok(Note { id, looked_up: get(row, "looked_up")?, key })
        });
        let notes: Vec<Note> = notes.collect::<Result<_>>()?;
        let (mut rows, mut more) = (0, notes.len() as i64 == NOTES);
        for label in shown.labels() {
            let of_label = || notes.iter().filter(|note| note.looked_up == label);
            let mut keys: Vec<&str> = of_label().map(|note| &*note.key).collect();
            keys.sort_unstable();
            keys.dedup();
            if keys.is_empty() {
                continue;
            }
            for side in shown.sides.iter().filter(|side| side.label == label) {
                let wrong = self.wrong_by_key(client, side, &keys, rows_max).await?;
                more |= wrong.cut;
                rows += self.show(client, shown, wrong.rows).await?;
            }
            let ids: Vec<i64> = of_label().map(|note| note.id).collect();
            self.clear(client, shown, &label, &ids).await?;
        }
        let of_own = || notes.iter().filter(|note| note.looked_up == self.place.label);
        let mut keys: Vec<&str> = of_own().map(|note| &*note.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let ids: Vec<i64> = of_own().map(|note| note.id).collect();
        let (written, cut) = self.refresh_own(client, shown, (&keys, &ids), rows_max).await?;
        (rows, more) = (rows + written, more || cut);
        // Without a row written, what is left waits for a flush that holds it.
        Ok((rows, more && (rows > 0 || notes.len() as i64 == NOTES)))
    }

    /// Holds rows that show the other rows of these keys, and show them wrong.
    async fn wrong_by_key(
        &self,
        client: &Client,
        side: &Side,
        keys: &[&str],
        rows_max: usize,
    ) -> Result<Wrong> {
        let sql = wrong_by_key(&self.place.table, &self.model, side, rows_max);
        self.held(client, &sql, &[(&keys, Type::TEXT_ARRAY)], rows_max).await
    }

    pub(crate) fn selected(&self) -> String {
        selected(&self.place.table, &self.model)
    }

    fn column(&self, at: usize) -> String {
        column(&self.model, at)
    }

    fn key_columns(&self) -> String {
        key_columns(&self.model)
    }

    pub(crate) async fn held(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
        rows_max: usize,
    ) -> Result<Wrong> {
        let refused = |error| self.classify(error, "bringing up to date");
        let params = params.iter().map(|(param, ty)| (*param as &(dyn ToSql + Sync), ty.clone()));
        let rows = client.query_typed_raw(sql, params).await.map_err(refused)?;
        let mut rows = std::pin::pin!(rows);
        let (mut out, mut bytes) = (Vec::new(), 0_usize);
        while let Some(row) = rows.try_next().await.map_err(refused)? {
            let loaded = read_row(&self.model, &self.place.label, &row)?;
            bytes = bytes.saturating_add(loaded.heap_bytes());
            if let (Some(row), Version::At(xid, _)) = (loaded.row, loaded.version) {
                out.push((row, xid as u32));
            }
            // The others are held for nothing.
            if bytes > BYTES_MAX {
                return Ok(Wrong { rows: out, cut: true });
            }
        }
        Ok(Wrong { cut: out.len() >= rows_max, rows: out })
    }

    /// Writes rows that are held, with what the others say now.
    pub(crate) async fn show(
        &self,
        client: &Client,
        shown: &Shown,
        rows: Vec<(Row, u32)>,
    ) -> Result<u64> {
        let (stored, xids): (Vec<Row>, Vec<u32>) = rows.into_iter().unzip();
        let completed = shown.completed(client, &self.model, &stored).await?;
        let wrong = stored.iter().zip(completed).zip(xids).filter(|((old, new), _)| *old != new);
        let writes: Vec<(RowWrite, u32)> = wrong
            .map(|((_, row), xid)| {
                let (key, version) = (self.model.key_of(&row), Version::At(u64::from(xid), 0));
                (RowWrite { key, row: Some(row), version, marks: Marks::new() }, xid)
            })
            .collect();
        if writes.is_empty() {
            return Ok(0);
        }
        let part = [Part::Update(writes.iter().map(|(write, xid)| (write, *xid)).collect())];
        let mut written = 0;
        for (part, bound) in part.iter().zip(self.bind(&part)?) {
            let done = bound.execute(client, self.sql(part)).await;
            written += done.map_err(|error| self.classify(error, "bringing up to date"))?;
        }
        Ok(written)
    }

    /// Forgets notes of which no row is wrong any more.
    async fn clear(&self, client: &Client, shown: &Shown, label: &str, ids: &[i64]) -> Result<()> {
        let right: Vec<String> = shown
            .sides
            .iter()
            .filter(|side| side.label == label)
            .map(|side| {
                format!(
                    "AND NOT EXISTS (SELECT 1 FROM {} AS t {} WHERE {} = n.key::{} AND {})",
                    self.place.table,
                    side.joined(),
                    self.column(side.via),
                    side.key_type(),
                    side.wrong
                )
            })
            .collect();
        let sql = format!(
            "DELETE FROM {}.notes AS n WHERE n.target = $1 AND n.generation = $2 AND n.looked_up = $3 \
             AND n.id = ANY($4) {}",
            self.books.schema,
            right.join(" ")
        );
        let generation = self.place.generation.cast_signed();
        let params: [Param<'_>; 4] = [
            (&self.place.label, Type::TEXT),
            (&generation, Type::INT8),
            (&label, Type::TEXT),
            (&ids, Type::INT8_ARRAY),
        ];
        self.books.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Looks at the next rows of a note of all, in the order of their keys: how many were written, and whether that is
    /// not the end yet.
    async fn sweep(&self, client: &Client, shown: &Shown, rows_max: usize) -> Result<(u64, bool)> {
        let sql = sql!("joins/sweep", schema = self.books.schema);
        let generation = self.place.generation.cast_signed();
        let params: [Param<'_>; 2] = [(&self.place.label, Type::TEXT), (&generation, Type::INT8)];
        let rows = self.books.query(client, &sql, &params).await?;
        let Some(row) = rows.first() else { return Ok((0, false)) };
        let (id, after): (i64, Option<String>) = (get(row, "id")?, get(row, "after")?);
        if after.is_none() {
            self.move_sweep(client, sql!("joins/swept_with", schema = self.books.schema), id, None)
                .await?;
        }
        let after = after.and_then(|text| self.model.parse_key(&text).ok());
        // Of rows that hold children each is read to be judged.
        let looked_at = if shown.gatherings.is_empty() { rows_max * 5 } else { rows_max };
        let end = self.end_of_sweep(client, after.as_ref(), looked_at).await?;
        let range = Range { after, until: end };
        let wrong = self.wrong_in(client, shown, &range).await?;
        let cut = wrong.cut;
        let last = wrong.rows.last().map(|(row, _)| self.model.key_of(row));
        let range = Range { until: last.filter(|_| cut).or(range.until), ..range };
        let texts = self.key_texts(wrong.rows.iter().map(|(row, _)| row));
        let written = self.show(client, shown, wrong.rows).await?;
        self.note_left(client, shown, (&range, &texts)).await?;
        match &range.until {
            Some(until) => {
                let sql = sql!("joins/swept_to", schema = self.books.schema);
                self.move_sweep(client, sql, id, Some(until.to_string())).await?;
            }
            None => {
                let sql = sql!("joins/swept", schema = self.books.schema);
                self.move_sweep(client, sql, id, None).await?;
            }
        }
        Ok((written, range.until.is_some()))
    }

    async fn move_sweep(
        &self,
        client: &Client,
        sql: String,
        id: i64,
        to: Option<String>,
    ) -> Result<()> {
        let generation = self.place.generation.cast_signed();
        let mut params: Vec<Param<'_>> =
            vec![(&self.place.label, Type::TEXT), (&generation, Type::INT8), (&id, Type::INT8)];
        if let Some(to) = &to {
            params.push((to, Type::TEXT));
        }
        self.books.execute(client, &sql, &params).await.map(|_| ())
    }

    /// The key of the last row that this step looks at; none where it looks at all that are left.
    async fn end_of_sweep(
        &self,
        client: &Client,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Option<Key>> {
        let columns = self.key_columns();
        let (behind, params) = self.bounds(after, None)?;
        let sql = format!(
            "{} WHERE {behind} ORDER BY {columns} OFFSET {rows_max} LIMIT 1",
            self.selected()
        );
        let found = self.held(client, &sql, &refs(&params), 2).await?;
        Ok(found.rows.first().map(|(row, _)| self.model.key_of(row)))
    }

    /// What says that a row is in a range, and its parameters.
    fn bounds(
        &self,
        after: Option<&Key>,
        until: Option<&Key>,
    ) -> Result<(String, Vec<(Encoded, Type)>)> {
        let (mut text, mut params) = ("true".to_owned(), Vec::new());
        for (key, sign) in [(after, ">"), (until, "<=")] {
            let Some(key) = key else { continue };
            let mut places = Vec::new();
            for (column, value) in self.model.key_columns().zip(key.values()) {
                let encoded = encode_column(&column.ty, std::iter::once(value))
                    .map_err(|error| Error::record(error.to_string()))?;
                params.push((encoded, wire_array_type(&column.ty)));
                places.push(format!("(${})[1]", params.len()));
            }
            text.push_str(&format!(" AND ({}) {sign} ({})", self.key_columns(), places.join(", ")));
        }
        Ok((text, params))
    }

    async fn wrong_in(&self, client: &Client, shown: &Shown, range: &Range) -> Result<Wrong> {
        let (within, params) = self.bounds(range.after.as_ref(), range.until.as_ref())?;
        let joins: Vec<&str> = shown.sides.iter().map(Side::joined).collect();
        let all = (!shown.gatherings.is_empty()).then_some("true");
        let wrong = shown.sides.iter().map(|side| &*side.wrong).chain(all);
        let wrong: Vec<&str> = wrong.collect();
        let sql = format!(
            "{} {} WHERE {within} AND ({}) ORDER BY {} FOR NO KEY UPDATE OF t SKIP LOCKED",
            self.selected(),
            joins.join(" "),
            wrong.join(" OR "),
            self.key_columns(),
        );
        self.held(client, &sql, &refs(&params), usize::MAX).await
    }

    /// Notes what is still wrong of a range that was looked at, since a flush holds it.
    async fn note_left(
        &self,
        client: &Client,
        shown: &Shown,
        (range, held): (&Range, &[String]),
    ) -> Result<()> {
        if !shown.gatherings.is_empty() {
            self.note_not_held(client, range, held).await?;
        }
        let (within, params) = self.bounds(range.after.as_ref(), range.until.as_ref())?;
        for side in &shown.sides {
            let (at, mut params) = (params.len(), refs(&params));
            let generation = self.place.generation.cast_signed();
            params.extend([
                (&self.place.label as &(dyn ToSql + Sync), Type::TEXT),
                (&generation, Type::INT8),
                (&side.label, Type::TEXT),
            ]);
            let sql = format!(
                "INSERT INTO {}.notes (target, generation, looked_up, key) SELECT DISTINCT ${}, ${}, ${}, {}::text \
                 FROM {} AS t {} WHERE {within} AND {} AND {} IS NOT NULL",
                self.books.schema,
                at + 1,
                at + 2,
                at + 3,
                self.column(side.via),
                self.place.table,
                side.joined(),
                side.wrong,
                self.column(side.via),
            );
            self.books.execute(client, &sql, &params).await?;
        }
        Ok(())
    }
}

impl PostgresWriter {
    /// Notes each row of a range that a flush holds, by its own key: what it holds as children was not read.
    async fn note_not_held(&self, client: &Client, range: &Range, held: &[String]) -> Result<()> {
        let Some(key) = self.model.key_columns().next() else { return Ok(()) };
        let (within, params) = self.bounds(range.after.as_ref(), range.until.as_ref())?;
        let (at, mut params) = (params.len(), refs(&params));
        let generation = self.place.generation.cast_signed();
        params.extend([
            (&self.place.label as &(dyn ToSql + Sync), Type::TEXT),
            (&generation, Type::INT8),
            (&held, Type::TEXT_ARRAY),
        ]);
        let sql = format!(
            "INSERT INTO {}.notes (target, generation, looked_up, key) SELECT ${}, ${}, ${}, t.{key}::text FROM {} AS t \
             WHERE {within} AND NOT t.{key} = ANY(${}::text[]::{}[])",
            self.books.schema,
            at + 1,
            at + 2,
            at + 1,
            self.place.table,
            at + 3,
            crate::codec::sql_type(&key.ty),
            key = quote(&key.name),
        );
        self.books.execute(client, &sql, &params).await.map(|_| ())
    }
}

/// Rows behind one key, up to another.
struct Range {
    after: Option<Key>,
    until: Option<Key>,
}

fn refs(params: &[(Encoded, Type)]) -> Vec<Param<'_>> {
    params.iter().map(|(encoded, ty)| (as_param(encoded), ty.clone())).collect()
}

/// The columns that `read_row` reads, of the table as `t`.
fn selected(table: &str, model: &Model) -> String {
    let columns = (0..model.columns.len()).map(|at| column(model, at));
    format!("SELECT 1::int8, {}, t.xmin FROM {table} AS t", columns.collect::<Vec<_>>().join(", "))
}

fn column(model: &Model, at: usize) -> String {
    let name = model.columns.get(at).map_or("", |column| &*column.name);
    format!("t.{}", quote(name))
}

fn key_columns(model: &Model) -> String {
    let columns: Vec<String> = model.key.iter().map(|at| column(model, *at)).collect();
    columns.join(", ")
}

/// Holds rows that show the other rows of some keys, and show them wrong.
pub(crate) fn wrong_by_key(table: &str, model: &Model, side: &Side, rows_max: usize) -> String {
    format!(
        "{} {} WHERE {} = ANY($1::text[]::{}[]) AND {} ORDER BY {} LIMIT {} FOR NO KEY UPDATE OF t SKIP LOCKED",
        selected(table, model),
        side.joined(),
        column(model, side.via),
        side.key_type(),
        side.wrong,
        key_columns(model),
        rows_max.max(1),
    )
}
