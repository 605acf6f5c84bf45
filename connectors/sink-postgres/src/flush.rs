//! A flush as statements: pure, but for sending one.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use foldline_api::column::ColumnType;
use foldline_api::letters::BadRecord;
use foldline_api::model::{Column, Key, Model};
use foldline_api::parked::{Changes, ParkedEvent, Place, ascii, clean, write_keys, write_record};
use foldline_api::sink::{Advance, Check, Flush, RowWrite, StoredVerdict, Version};
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use futures_util::SinkExt;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::books::{Param, Partitions};
use crate::codec::{
    CodecError, ColumnWriter, encode_column, encode_xids, literal_text, wire_array_type,
};

/// Rows of one statement, and of the statements that are sent before the first answer is awaited.
pub(crate) const ROWS_MAX: usize = 100_000;
/// Bytes of the same, roughly, unless one row alone is larger: on its way a row is there three times more.
const BYTES_MAX: usize = 4 << 20;
/// From so many new rows on a load copies them.
const COPY_MIN: usize = 1_000;

/// One statement's share of a flush.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Moves the positions that are where they should be.
    Fence(&'a [Advance]),
    /// Stands for the fence where no position moves.
    Live,
    /// Locks rows in the order of their keys.
    Lock(Vec<&'a Key>),
    /// Checks rows that are there.
    Present(Vec<(&'a Key, u32)>),
    /// Checks keys without a row.
    Absent(Vec<&'a Key>),
    /// Writes rows that are there.
    Update(Vec<(&'a RowWrite, u32)>),
    /// Writes rows that are not.
    Insert(Vec<&'a RowWrite>),
    /// The same for the many rows of a load.
    Copy(Vec<&'a RowWrite>),
    /// Deletes rows.
    Delete(Vec<(&'a Key, u32)>),
    /// Keeps verdicts.
    Verdicts(&'a [StoredVerdict]),
    /// Keeps bad records.
    Bad(&'a [BadRecord]),
    /// Sets events aside.
    Park(&'a [ParkedEvent]),
    /// Takes events out of the parked ones.
    Free(&'a [Place]),
    /// Is done with requests on parked events.
    Keep(&'a [(Place, Option<String>)]),
}

/// What a statement's count must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// This, or the task is fenced.
    Fence(u64),
    /// This, or a row is not at its version.
    Rows(u64),
    /// This, or a row is not at its version, or a trigger left it out.
    Written(u64),
    /// Anything.
    Any,
}

/// What all statements of a flush share.
pub(crate) struct Scope<'a> {
    pub(crate) model: &'a Model,
    pub(crate) label: &'a str,
    pub(crate) generation: u64,
    /// The database's encoding lacks letters: texts of the books are written without them.
    pub(crate) ascii: bool,
}

impl Scope<'_> {
    fn spell(&self, text: String) -> String {
        if self.ascii { ascii(&text) } else { text }
    }
}

/// A statement's parameters and what must come of it.
pub(crate) struct Bound {
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
    /// What follows the statement, where it is a `COPY`.
    copy: Option<Bytes>,
    /// What its count must be.
    pub(crate) expect: Expect,
}

impl Bound {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        sql: &str,
    ) -> Result<u64, tokio_postgres::Error> {
        if let Some(rows) = &self.copy {
            let mut sink = std::pin::pin!(client.copy_in::<_, Bytes>(sql).await?);
            sink.send(rows.clone()).await?;
            return sink.finish().await;
        }
        let params: Vec<Param<'_>> =
            self.params.iter().map(|(param, ty)| (&**param as _, ty.clone())).collect();
        client.execute_typed(sql, &params).await
    }
}

/// Cuts a flush into statements, and these into windows: the statements of a window are sent together.
/// The fence is always the first statement; rows are locked in the order updates, inserts, deletes, by
/// key in each, and by key over all of them where `cautious`. With `copy`, many new rows are copied. A statement has
/// at most `rows_max` rows.
pub(crate) fn cut(
    flush: &Flush,
    cautious: bool,
    copy: bool,
    rows_max: usize,
) -> Vec<Vec<Part<'_>>> {
    let mut parts = Parts { rows_max, ..Parts::default() };
    parts
        .push(if flush.advances.is_empty() { Part::Live } else { Part::Fence(&flush.advances) }, 0);
    let (mut updates, mut inserts, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for Check { key, version } in &flush.checks {
        match version {
            Version::Absent => absent.push(key),
            Version::At(xid, _) => present.push((key, *xid as u32)),
        }
    }
    for write in &flush.writes {
        match (&write.row, write.version) {
            (Some(_), Version::Absent) => inserts.push(write),
            (Some(_), Version::At(xid, _)) => updates.push((write, xid as u32)),
            (None, Version::At(xid, _)) => deletes.push((&write.key, xid as u32)),
            // Made and deleted in one flush: nothing to write, but still nobody else's row may be there.
            (None, Version::Absent) => absent.push(&write.key),
        }
    }
    if cautious {
        let keys: Vec<&Key> = flush.writes.iter().map(|write| &write.key).collect();
        parts.chunks(keys, |key| key.heap_bytes(), Part::Lock);
    }
    parts.chunks(present, |(key, _)| key.heap_bytes(), Part::Present);
    parts.chunks(absent, |key| key.heap_bytes(), Part::Absent);
    parts.chunks(updates, |(write, _)| bytes_of(write), Part::Update);
    let insert = if copy && inserts.len() >= COPY_MIN { Part::Copy } else { Part::Insert };
    parts.chunks(inserts, |write| bytes_of(write), insert);
    parts.chunks(deletes, |(key, _)| key.heap_bytes(), Part::Delete);
    if !flush.verdicts.is_empty() {
        parts.push(Part::Verdicts(&flush.verdicts), 0);
    }
    if !flush.bad.is_empty() {
        parts.push(Part::Bad(&flush.bad), 0);
    }
    parts.parking(&flush.parking);
    parts.windows
}

fn bytes_of(write: &RowWrite) -> usize {
    write.row.as_ref().map_or(0, foldline_api::model::Row::heap_bytes)
}

#[derive(Default)]
struct Parts<'a> {
    rows_max: usize,
    windows: Vec<Vec<Part<'a>>>,
    rows: usize,
    bytes: usize,
}

impl<'a> Parts<'a> {
    fn push(&mut self, part: Part<'a>, bytes: usize) {
        match self.windows.last_mut() {
            Some(window)
                if self.rows < ROWS_MAX && (self.bytes == 0 || self.bytes + bytes <= BYTES_MAX) =>
            {
                window.push(part);
            }
            _ => {
                self.windows.push(vec![part]);
                (self.rows, self.bytes) = (0, 0);
            }
        }
        self.bytes += bytes;
    }

    fn parking(&mut self, changes: &'a Changes) {
        if !changes.park.is_empty() {
            let bytes = changes.park.iter().map(|event| event.record.bytes()).sum();
            self.push(Part::Park(&changes.park), bytes);
        }
        if !changes.free.is_empty() {
            self.push(Part::Free(&changes.free), 0);
        }
        if !changes.keep.is_empty() {
            self.push(Part::Keep(&changes.keep), 0);
        }
    }

    fn chunks<T>(
        &mut self,
        rows: Vec<T>,
        size: impl Fn(&T) -> usize,
        part: impl Fn(Vec<T>) -> Part<'a>,
    ) {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let more = size(&row);
            if !chunk.is_empty() && (chunk.len() >= self.rows_max || bytes + more > BYTES_MAX) {
                let count = chunk.len();
                self.push(part(std::mem::take(&mut chunk)), bytes);
                self.rows += count;
                bytes = 0;
            }
            bytes += more;
            chunk.push(row);
        }
        if !chunk.is_empty() {
            let count = chunk.len();
            self.push(part(chunk), bytes);
            self.rows += count;
        }
    }
}

impl Part<'_> {
    /// Encodes the parameters.
    pub(crate) fn bind(&self, scope: &Scope<'_>) -> Result<Bound, CodecError> {
        let mut binder = Binder::default();
        let expect = match self {
            Part::Fence(advances) => {
                binder.scope(scope);
                binder.partitions(&Partitions::new(advances.iter().map(|a| &a.partition)));
                binder.ints(advances.iter().map(|a| a.epoch));
                binder.ints(advances.iter().map(|a| a.from.0));
                binder.ints(advances.iter().map(|a| a.to.0));
                Expect::Fence(advances.len() as u64)
            }
            Part::Live => {
                binder.scope(scope);
                Expect::Fence(1)
            }
            Part::Lock(keys) => {
                binder.keys(scope, keys.len(), |at| keys.get(at).copied())?;
                Expect::Any
            }
            Part::Absent(keys) => {
                binder.keys(scope, keys.len(), |at| keys.get(at).copied())?;
                Expect::Rows(0)
            }
            Part::Present(keys) => {
                binder.keys(scope, keys.len(), |at| keys.get(at).map(|(key, _)| *key))?;
                binder.versions(keys.iter().map(|(_, xid)| *xid))?;
                Expect::Rows(0)
            }
            Part::Delete(keys) => {
                binder.keys(scope, keys.len(), |at| keys.get(at).map(|(key, _)| *key))?;
                binder.versions(keys.iter().map(|(_, xid)| *xid))?;
                Expect::Written(keys.len() as u64)
            }
            Part::Update(rows) => {
                binder.rows(scope, rows.iter().map(|(write, _)| *write))?;
                binder.versions(rows.iter().map(|(_, xid)| *xid))?;
                Expect::Written(rows.len() as u64)
            }
            Part::Insert(rows) => {
                binder.rows(scope, rows.iter().copied())?;
                Expect::Written(rows.len() as u64)
            }
            Part::Copy(rows) => {
                binder.copy = Some(copy_text(scope.model, rows)?);
                Expect::Written(rows.len() as u64)
            }
            Part::Verdicts(verdicts) => binder.verdicts(scope, verdicts),
            Part::Bad(bad) => binder.bad(scope, bad),
            Part::Park(events) => binder.park(scope, events),
            Part::Free(places) => {
                binder.places(scope, places.iter());
                Expect::Any
            }
            Part::Keep(kept) => binder.keep(scope, kept),
        };
        Ok(Bound { params: binder.params, copy: binder.copy, expect })
    }
}

/// Encodes rows as a flush does and says how many bytes that takes: to measure it without a server.
///
/// # Errors
/// Of class Record, when a row is not of the model.
pub fn encoded_bytes(model: &Model, writes: &[RowWrite]) -> Result<usize> {
    let mut binder = Binder::default();
    let scope = Scope { model, label: "", generation: 0, ascii: false };
    binder.rows(&scope, writes.iter()).map_err(|CodecError(reason)| Error::record(reason))?;
    let mut out = BytesMut::new();
    for (param, ty) in &binder.params {
        param.to_sql_checked(ty, &mut out).map_err(|error| Error::record(error.to_string()))?;
    }
    Ok(out.len())
}

#[derive(Default)]
struct Binder {
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
    copy: Option<Bytes>,
}

/// Rows in the text form of `COPY`.
fn copy_text(model: &Model, rows: &[&RowWrite]) -> Result<Bytes, CodecError> {
    let mut out = BytesMut::new();
    for row in rows.iter().filter_map(|write| write.row.as_ref()) {
        for (at, column) in model.columns.iter().enumerate() {
            if at > 0 {
                out.put_u8(b'\t');
            }
            let value = row.get(at);
            if value.is_null() {
                out.put_slice(b"\\N");
                continue;
            }
            let text = match (&column.ty, value) {
                (ColumnType::Text | ColumnType::Varchar(_), Value::Text(text)) => {
                    Cow::Borrowed(&**text)
                }
                (ty, other) => Cow::Owned(literal_text(ty, other)),
            };
            if text.contains('\0') {
                return Err(CodecError(format!("column {:?}: a text with a NUL", column.name)));
            }
            for byte in text.bytes() {
                match byte {
                    b'\\' => out.put_slice(b"\\\\"),
                    b'\n' => out.put_slice(b"\\n"),
                    b'\r' => out.put_slice(b"\\r"),
                    b'\t' => out.put_slice(b"\\t"),
                    other => out.put_u8(other),
                }
            }
        }
        out.put_u8(b'\n');
    }
    Ok(out.freeze())
}

impl Binder {
    fn push(&mut self, param: impl ToSql + Sync + Send + 'static, ty: Type) {
        self.params.push((Box::new(param), ty));
    }

    fn scope(&mut self, scope: &Scope<'_>) {
        self.push(scope.label.to_owned(), Type::TEXT);
        self.push(scope.generation.cast_signed(), Type::INT8);
    }

    fn partitions(&mut self, list: &Partitions) {
        self.push(list.topics.clone(), Type::TEXT_ARRAY);
        self.push(list.partitions.clone(), Type::INT4_ARRAY);
    }

    fn places<'p>(&mut self, scope: &Scope<'_>, places: impl Iterator<Item = &'p Place> + Clone) {
        self.scope(scope);
        self.partitions(&Partitions::new(places.clone().map(|(partition, _)| partition)));
        self.ints(places.map(|(_, offset)| *offset));
    }

    fn park(&mut self, scope: &Scope<'_>, events: &[ParkedEvent]) -> Expect {
        let places: Vec<Place> = events.iter().map(ParkedEvent::place).collect();
        self.places(scope, places.iter());
        let keys = events.iter().map(|event| scope.spell(write_keys(&event.keys)));
        self.push(keys.collect::<Vec<_>>(), Type::TEXT_ARRAY);
        let reason = |event: &ParkedEvent| event.reason.as_deref().map(|r| scope.spell(clean(r)));
        self.push(events.iter().map(reason).collect::<Vec<_>>(), Type::TEXT_ARRAY);
        let records: Vec<String> =
            events.iter().map(|event| scope.spell(write_record(&event.record))).collect();
        self.push(records, Type::TEXT_ARRAY);
        Expect::Rows(events.len() as u64)
    }

    fn verdicts(&mut self, scope: &Scope<'_>, verdicts: &[StoredVerdict]) -> Expect {
        self.scope(scope);
        self.partitions(&Partitions::new(verdicts.iter().map(|v| &v.partition)));
        self.ints(verdicts.iter().map(|v| v.offset));
        let reasons = verdicts.iter().map(|v| scope.spell(clean(&v.reason)));
        self.push(reasons.collect::<Vec<_>>(), Type::TEXT_ARRAY);
        let definitions = verdicts.iter().map(|v| v.definition.clone());
        self.push(definitions.collect::<Vec<_>>(), Type::TEXT_ARRAY);
        Expect::Any
    }

    fn bad(&mut self, scope: &Scope<'_>, bad: &[BadRecord]) -> Expect {
        self.scope(scope);
        self.partitions(&Partitions::new(bad.iter().map(|bad| &bad.partition)));
        self.ints(bad.iter().map(|bad| bad.offset));
        self.push(bad.iter().map(|bad| bad.by_store).collect::<Vec<_>>(), Type::BOOL_ARRAY);
        let letters = bad.iter().map(|bad| bad.text().map(|text| scope.spell(text)));
        self.push(letters.collect::<Vec<_>>(), Type::TEXT_ARRAY);
        Expect::Any
    }

    fn keep(&mut self, scope: &Scope<'_>, kept: &[(Place, Option<String>)]) -> Expect {
        self.places(scope, kept.iter().map(|(place, _)| place));
        let reasons =
            kept.iter().map(|(_, reason)| reason.as_deref().map(|r| scope.spell(clean(r))));
        self.push(reasons.collect::<Vec<_>>(), Type::TEXT_ARRAY);
        Expect::Any
    }

    fn ints(&mut self, ints: impl Iterator<Item = i64>) {
        self.push(ints.collect::<Vec<_>>(), Type::INT8_ARRAY);
    }

    fn versions(&mut self, xids: impl ExactSizeIterator<Item = u32>) -> Result<(), CodecError> {
        let encoded = encode_xids(xids)?;
        self.push(encoded, Type::XID_ARRAY);
        Ok(())
    }

    fn column<'v>(
        &mut self,
        ty: &ColumnType,
        values: impl ExactSizeIterator<Item = &'v Value>,
        column: &Column,
    ) -> Result<(), CodecError> {
        let encoded = encode_column(ty, values).map_err(|error| named(&error, Some(column)))?;
        self.push(encoded, wire_array_type(ty));
        Ok(())
    }

    fn keys<'k>(
        &mut self,
        scope: &Scope<'_>,
        count: usize,
        key: impl Fn(usize) -> Option<&'k Key>,
    ) -> Result<(), CodecError> {
        for (part, column) in scope.model.key_columns().enumerate() {
            let values = (0..count)
                .map(|at| key(at).and_then(|key| key.values().get(part)).unwrap_or(&Value::Null));
            self.column(&column.ty, values, column)?;
        }
        Ok(())
    }

    fn rows<'r>(
        &mut self,
        scope: &Scope<'_>,
        rows: impl ExactSizeIterator<Item = &'r RowWrite>,
    ) -> Result<(), CodecError> {
        let columns = &scope.model.columns;
        let writers = columns.iter().map(|column| ColumnWriter::new(&column.ty, rows.len()));
        let mut writers = writers.collect::<Result<Vec<_>, _>>()?;
        // Row by row, since a row's values lie together.
        for write in rows {
            for (at, writer) in writers.iter_mut().enumerate() {
                let value = write.row.as_ref().map_or(&Value::Null, |row| row.get(at));
                writer.push(value).map_err(|error| named(&error, columns.get(at)))?;
            }
        }
        for (writer, column) in writers.into_iter().zip(columns) {
            self.push(writer.finish(), wire_array_type(&column.ty));
        }
        Ok(())
    }
}

/// The error with the name of its column.
fn named(CodecError(reason): &CodecError, column: Option<&Column>) -> CodecError {
    let name = column.map(|column| &*column.name).unwrap_or_default();
    CodecError(format!("column {name:?}: {reason}"))
}

#[cfg(test)]
mod tests;
