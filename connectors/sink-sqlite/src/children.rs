//! Other targets' rows that one holds as children.
//!
//! A flush knows where its rows were before it and where they are then, so it notes the keys of those who hold them: such a
//! note is of the holder's own target.

use std::collections::{BTreeMap, BTreeSet};

use foldline_api::Result;
use foldline_api::column::ColumnType;
use foldline_api::lookup::{Gather, Joins};
use foldline_api::model::{Column, Key, Model};
use foldline_api::sink::Flush;
use foldline_api::value::Value;
use rusqlite::Transaction;

use crate::codec::encode_key;
use crate::database::sql;
use crate::joins::{noted, rows, run, there};
use crate::schema::quote;
use crate::writer::Hold;

/// By the column that names them: the keys of those who hold rows.
pub(crate) type Owners = BTreeMap<String, BTreeSet<Key>>;

/// A model of one column, which is its key.
fn alone(column: &Column) -> Model {
    Model { columns: vec![column.clone()], key: vec![0], indexes: Vec::new() }
}

/// The children of a row, as they are now.
pub(crate) fn children(tx: &Transaction<'_>, gather: &Gather, own: &Key) -> Result<Value> {
    let (none, model) = (Value::list(Vec::new()), &gather.model);
    let (Some(via), Some(key)) = (model.columns.get(gather.via), model.key_columns().next()) else {
        return Ok(none);
    };
    if !there(tx, &gather.target)? {
        return Ok(none);
    }
    let columns: Vec<String> = model.columns.iter().map(|column| quote(&column.name)).collect();
    // Numbers with all their digits are kept as texts, in another order.
    let first = match key.ty {
        ColumnType::Numeric(_) => String::new(),
        _ => format!("ORDER BY {} LIMIT {}", quote(&key.name), gather.max + 1),
    };
    let text = format!(
        "SELECT {} FROM {} WHERE {} = ?1 {first}",
        columns.join(", "),
        quote(&gather.target),
        quote(&via.name)
    );
    let found = rows(tx, model, &text, encode_key(&alone(via), own))?;
    Ok(gather.children(found.iter().collect()).0)
}

impl Hold {
    /// Who holds the rows of a flush before it; called before they are written.
    pub(crate) fn owners_before(&self, tx: &Transaction<'_>, flush: &Flush) -> Result<Owners> {
        let mut owners = Owners::new();
        if self.is_built() || flush.writes.is_empty() {
            return Ok(owners);
        }
        let text = "SELECT DISTINCT via FROM _foldline_gathers WHERE looked_up = ?1";
        let mut vias = tx.prepare_cached(text).map_err(sql)?;
        let vias = vias.query_map([&self.spec.target], |row| row.get(0)).map_err(sql)?;
        let vias: Vec<String> = vias.collect::<Result<_, _>>().map_err(sql)?;
        let model = &self.spec.model;
        let by: Vec<String> = (1..)
            .zip(model.key_columns())
            .map(|(slot, column)| format!("{} = ?{slot}", quote(&column.name)))
            .collect();
        for via in vias {
            let Some(column) = model.columns.iter().find(|column| *column.name == *via) else {
                continue;
            };
            let text = format!(
                "SELECT {} FROM {} WHERE {}",
                quote(&via),
                quote(self.table()),
                by.join(" AND ")
            );
            let mut known = BTreeSet::new();
            for write in &flush.writes {
                let before = rows(tx, &alone(column), &text, encode_key(model, &write.key))?;
                known.extend(
                    before
                        .iter()
                        .map(|row| row.get(0))
                        .filter(|it| !it.is_null())
                        .cloned()
                        .map(Key::of),
                );
            }
            owners.insert(via, known);
        }
        Ok(owners)
    }

    /// Notes who held the rows of a flush, and who holds them now.
    pub(crate) fn note_owners(
        &self,
        tx: &Transaction<'_>,
        flush: &Flush,
        before: Owners,
    ) -> Result<()> {
        for (via, mut owners) in before {
            let Some(at) = self.spec.model.position(&via) else { continue };
            let now = flush.writes.iter().filter_map(|write| write.row.as_ref());
            let now = now.map(|row| row.get(at)).filter(|value| !value.is_null());
            owners.extend(now.cloned().map(Key::of));
            let mut note = tx.prepare_cached(include_str!("sql/note_owners.sql")).map_err(sql)?;
            for owner in &owners {
                note.execute((&self.spec.target, &via, noted(owner))).map_err(sql)?;
            }
        }
        Ok(())
    }

    /// Makes sure that flushes of a target note who holds its rows.
    pub(crate) fn gather_from(
        &self,
        tx: &Transaction<'_>,
        joins: &Joins,
        target: &str,
    ) -> Result<()> {
        for gather in joins.gathers().iter().filter(|gather| gather.target == target) {
            let Some(via) = gather.model.columns.get(gather.via) else { continue };
            let (own, generation) = self.place();
            let place = (own, generation, target, &*via.name);
            run(tx, include_str!("sql/register_gather.sql"), place)?;
        }
        Ok(())
    }
}
