//! A target that goes for good, in one transaction.

use foldline_api::Result;
use foldline_api::removal::{Keep, Owned, Removed, generations};
use foldline_api::sink::TargetSpec;
use rusqlite::Transaction;

use crate::database::sql;
use crate::generations::name_in;
use crate::schema::{self, quote};
use crate::{books, change};

/// Drops the tables of all generations, and what the books keep of the target.
pub(crate) fn remove(tx: &Transaction<'_>, spec: &TargetSpec, keep: Keep) -> Result<Removed> {
    let mut removed = Removed::default();
    if !books::exist(tx)? {
        return Ok(removed);
    }
    let record = change::record(tx, spec)?;
    let live = record.as_ref().map(|record| record.binding.generation);
    for (number, physical) in generations(record.as_ref(), spec, keep)? {
        let name =
            if live == Some(number) { spec.target.clone() } else { name_in(&spec.target, number) };
        if schema::is_marked(tx, &name, &physical)? {
            tx.execute_batch(&format!("DROP TABLE {}", quote(&name))).map_err(sql)?;
            removed.dropped.push(name);
        } else if schema::stands(tx, &name)? {
            removed.strangers.push(name);
        }
    }
    books::forget(tx, &spec.target)?;
    Ok(removed)
}

/// The targets of a connector.
pub(crate) fn owned(tx: &Transaction<'_>, connector: &str) -> Result<Vec<Owned>> {
    let mut owned = Vec::new();
    if !books::exist(tx)? {
        return Ok(owned);
    }
    for target in books::targets(tx)? {
        let binding = books::binding(tx, &target)?;
        let binding = binding.filter(|binding| binding.connector == connector);
        owned.extend(binding.map(|binding| Owned::new(target, binding)));
    }
    Ok(owned)
}
