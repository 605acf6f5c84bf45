//! Other tables' rows that one holds as children.
//!
//! What a row holds cannot be kept from growing by a lock, so a flush holds nothing here. It reads who held its rows before it,
//! and notes them and those who hold them now, in its own transaction; the flush of the side that holds notes each row that it
//! wrote. Such a note is of the holder's own table. A step locks the row that is noted, reads the children in a later
//! statement, and lets the note go: what is committed after that brings a note of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use foldline_api::Result;
use foldline_api::column::ColumnType;
use foldline_api::lookup::Gather;
use foldline_api::model::{Key, Model, Row};
use foldline_api::sink::Flush;
use foldline_api::value::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::Param;
use crate::codec::{literal_text, sql_type};
use crate::error::{classify, is_missing};
use crate::identifier::{TableName, quote};
use crate::joins::Shown;
use crate::row::get;
use crate::snapshot::read_row;
use crate::writer::{PostgresWriter, Seal};

/// By the column that names them: the keys of those who hold rows, as texts.
pub(crate) type Owners = BTreeMap<String, BTreeSet<String>>;

/// One of the other tables, whose rows are held as children.
pub(crate) struct Gathering {
    pub(crate) gather: Gather,
    /// As the books call it.
    pub(crate) label: String,
    /// Quoted, with its schema.
    pub(crate) table: String,
    /// The column there that names who holds a row.
    pub(crate) via: String,
    /// Reads the children of rows by their keys.
    pub(crate) read: String,
    pub(crate) there: AtomicBool,
}

impl Gathering {
    /// Of a gather whose model is narrowed.
    pub(crate) fn new(gather: &Gather, name: &TableName) -> Self {
        let (model, table) = (&gather.model, name.sql());
        let column = |at: usize| model.columns.get(at).map_or_else(String::new, |c| quote(&c.name));
        let via = model.columns.get(gather.via);
        let ty = via.map_or_else(String::new, |via| sql_type(&via.ty));
        let key = model.key.first().and_then(|at| model.columns.get(*at));
        let order = key.map_or_else(String::new, |key| {
            // The first of the texts are the same in each store.
            let text = matches!(key.ty, ColumnType::Text | ColumnType::Varchar(_));
            format!("c.{}{}", quote(&key.name), if text { " COLLATE \"C\"" } else { "" })
        });
        let columns: Vec<String> = (0..model.columns.len()).map(column).collect();
        let inner: Vec<String> = columns.iter().map(|column| format!("c.{column}")).collect();
        let outer: Vec<String> = columns.iter().map(|column| format!("t.{column}")).collect();
        let read = format!(
            "SELECT 1::int8, {}, t.row_version FROM unnest($1::text[]::{ty}[]) AS u(k) CROSS JOIN LATERAL (SELECT {}, \
             c.xmin AS row_version FROM {table} AS c WHERE c.{} = u.k ORDER BY {order} LIMIT {}) AS t",
            outer.join(", "),
            inner.join(", "),
            column(gather.via),
            gather.max + 1,
        );
        Gathering {
            gather: gather.clone(),
            label: name.label(),
            via: via.map_or_else(String::new, |via| via.name.to_string()),
            read,
            there: AtomicBool::new(false),
            table,
        }
    }

    /// The children of rows of these keys, as they are now.
    async fn children(&self, client: &Client, owners: &[String]) -> Result<HashMap<Key, Vec<Row>>> {
        let mut found: HashMap<Key, Vec<Row>> = HashMap::new();
        if !self.there.load(Ordering::Relaxed) || owners.is_empty() {
            return Ok(found);
        }
        let rows = client.query_typed(&self.read, &[(&owners, Type::TEXT_ARRAY)]).await;
        let rows = rows.map_err(|error| {
            if is_missing(&error) {
                // It is looked for again.
                self.there.store(false, Ordering::Relaxed);
                let message =
                    format!("table {:?}, whose rows are held, was dropped or replaced", self.label);
                return foldline_api::Error::retriable(message);
            }
            classify(error, &format!("reading children of {:?}", self.label))
        })?;
        for row in &rows {
            let Some(row) = read_row(&self.gather.model, &self.label, row)?.row else { continue };
            let Some(owner) = self.gather.owner(&row) else { continue };
            found.entry(owner).or_default().push(row);
        }
        Ok(found)
    }

    /// What a view has in the place of the column: the same, without the bound.
    pub(crate) fn view(&self, own: &Model) -> String {
        let fields = self.gather.fields.iter().filter_map(|at| self.gather.model.columns.get(*at));
        let pairs: Vec<String> = fields
            .map(|field| format!("'{}', c.{}", field.name.replace('\'', "''"), quote(&field.name)))
            .collect();
        let key = own.key_columns().next().map_or_else(String::new, |key| quote(&key.name));
        format!(
            "(SELECT coalesce(jsonb_agg(jsonb_build_object({}) ORDER BY c.{}), '[]') FROM {} AS c WHERE c.{} = t.{key})",
            pairs.join(", "),
            quote(self.gather.by()),
            self.table,
            quote(&self.via),
        )
    }
}

/// The one key column's value as text that PostgreSQL reads back.
fn text(model: &Model, key: &Key) -> Option<String> {
    Some(literal_text(&model.key_columns().next()?.ty, key.values().first()?))
}

impl Shown {
    /// The children of rows of these keys, by column of children; nothing where the table holds none.
    pub(crate) async fn children(
        &self,
        client: &Client,
        own: &Model,
        keys: &[Key],
    ) -> Result<Vec<HashMap<Key, Vec<Row>>>> {
        let texts: Vec<String> = keys.iter().filter_map(|key| text(own, key)).collect();
        let mut out = Vec::with_capacity(self.gatherings.len());
        for gathering in &self.gatherings {
            out.push(gathering.children(client, &texts).await?);
        }
        Ok(out)
    }

    /// The children of one row, a value for each column.
    pub(crate) fn values(&self, found: &[HashMap<Key, Vec<Row>>], own: &Key) -> Vec<Value> {
        let each = self.gatherings.iter().zip(found);
        each.map(|(gathering, found)| {
            gathering.gather.children(found.get(own).into_iter().flatten().collect()).0
        })
        .collect()
    }
}

impl PostgresWriter {
    /// The columns of this table that name who holds its rows, as the last flush saw them.
    pub(crate) fn known_vias(&self) -> Vec<String> {
        self.vias.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether those are still the ones; else the flush begins anew, since it did not see who held its rows before.
    pub(crate) fn knows_vias(&self, seal: &Seal) -> bool {
        let mut known = self.vias.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == seal.vias {
            return true;
        }
        known.clone_from(&seal.vias);
        false
    }

    /// Who holds the rows of a flush before they are written.
    pub(crate) async fn owners_before(&self, client: &Client, flush: &Flush) -> Result<Owners> {
        let mut owners = Owners::new();
        let (model, vias) = (&self.model, self.known_vias());
        let Some(key) = model.key_columns().next().filter(|_| !vias.is_empty()) else {
            return Ok(owners);
        };
        let keys: Vec<String> =
            flush.writes.iter().filter_map(|write| text(model, &write.key)).collect();
        for via in vias {
            let column = quote(&via);
            let sql = format!(
                "SELECT DISTINCT t.{column}::text AS owner FROM {} AS t WHERE t.{} = ANY($1::text[]::{}[]) AND t.{column} IS NOT NULL",
                self.place.table,
                quote(&key.name),
                sql_type(&key.ty),
            );
            let rows = client.query_typed(&sql, &[(&keys, Type::TEXT_ARRAY)]).await;
            let rows = rows.map_err(|error| self.classify(error, "writing into"))?;
            let known: Result<BTreeSet<String>> =
                rows.iter().map(|row| get(row, "owner")).collect();
            owners.insert(via, known?);
        }
        Ok(owners)
    }

    /// Notes who held the rows of a flush, and who holds them now, in its transaction.
    pub(crate) async fn note_owners(
        &self,
        client: &Client,
        flush: &Flush,
        before: &Owners,
    ) -> Result<()> {
        if self.place.building {
            return Ok(());
        }
        let sql = sql!("joins/note_owners", schema = self.books.schema);
        for (via, known) in before {
            let Some((at, column)) =
                self.model.position(via).and_then(|at| Some((at, self.model.columns.get(at)?)))
            else {
                continue;
            };
            let now = flush.writes.iter().filter_map(|write| write.row.as_ref());
            let now = now.map(|row| row.get(at)).filter(|value| !value.is_null());
            let mut owners = known.clone();
            owners.extend(now.map(|value| literal_text(&column.ty, value)));
            let owners: Vec<String> = owners.into_iter().collect();
            let params: [Param<'_>; 3] =
                [(&self.place.label, Type::TEXT), (via, Type::TEXT), (&owners, Type::TEXT_ARRAY)];
            self.books.execute(client, &sql, &params).await?;
        }
        Ok(())
    }

    /// Notes rows that a flush wrote for this generation: what they hold is looked at once more.
    pub(crate) async fn note_own(&self, client: &Client, flush: &Flush) -> Result<()> {
        let keys: Vec<String> =
            flush.writes.iter().filter_map(|write| text(&self.model, &write.key)).collect();
        let (own, label) = (&self.place, &*self.place.label);
        if keys.is_empty() {
            return Ok(());
        }
        self.books.note_keys(client, own, label, &keys).await
    }

    /// Makes sure that flushes of a table note who holds its rows.
    pub(crate) async fn gather_from(
        &self,
        client: &Client,
        shown: &Shown,
        label: &str,
    ) -> Result<()> {
        let sql = sql!("joins/register_gather", schema = self.books.schema);
        let generation = self.place.generation.cast_signed();
        for gathering in shown.gatherings.iter().filter(|gathering| gathering.label == label) {
            let params: [Param<'_>; 4] = [
                (&self.place.label, Type::TEXT),
                (&generation, Type::INT8),
                (&label, Type::TEXT),
                (&gathering.via, Type::TEXT),
            ];
            self.books.execute(client, &sql, &params).await?;
        }
        Ok(())
    }

    /// Follows notes of rows of this table: how many were written, and whether there may be more. A note goes where its row was
    /// held, or is not there.
    pub(crate) async fn refresh_own(
        &self,
        client: &Client,
        shown: &Shown,
        (keys, ids): (&[&str], &[i64]),
        rows_max: usize,
    ) -> Result<(u64, bool)> {
        let Some(key) = self.model.key_columns().next().filter(|_| !keys.is_empty()) else {
            return Ok((0, false));
        };
        let (name, ty) = (format!("t.{}", quote(&key.name)), sql_type(&key.ty));
        let sql = format!(
            "{} WHERE {name} = ANY($1::text[]::{ty}[]) ORDER BY {name} LIMIT {} FOR NO KEY UPDATE OF t SKIP LOCKED",
            self.selected(),
            rows_max.max(1),
        );
        let held = self.held(client, &sql, &[(&keys, Type::TEXT_ARRAY)], rows_max).await?;
        let texts: Vec<String> = held
            .rows
            .iter()
            .filter_map(|(row, _)| text(&self.model, &self.model.key_of(row)))
            .collect();
        let cut = held.cut;
        let written = self.show(client, shown, held.rows).await?;
        let sql = format!(
            "DELETE FROM {}.notes AS n WHERE n.target = $1 AND n.generation = $2 AND n.looked_up = $1 AND n.id = ANY($3) \
             AND NOT EXISTS (SELECT 1 FROM {} AS t WHERE {name} = n.key::{ty} AND NOT {name} = ANY($4::text[]::{ty}[]))",
            self.books.schema, self.place.table,
        );
        let generation = self.place.generation.cast_signed();
        let params: [Param<'_>; 4] = [
            (&self.place.label, Type::TEXT),
            (&generation, Type::INT8),
            (&ids, Type::INT8_ARRAY),
            (&texts, Type::TEXT_ARRAY),
        ];
        self.books.execute(client, &sql, &params).await?;
        Ok((written, cut))
    }

    /// The keys of these rows, as notes have them.
    pub(crate) fn key_texts<'r>(&self, rows: impl Iterator<Item = &'r Row>) -> Vec<String> {
        rows.filter_map(|row| text(&self.model, &self.model.key_of(row))).collect()
    }
}
