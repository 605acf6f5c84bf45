//! A database that is only a copy: what is true is a log, and each transaction that changes something goes there first.
//!
//! The copy has the books and the live generation's rows as the log has them. A build that is loaded beside them is the copy's
//! own: the log learns of its rows when it takes the place of the live generation. Temporary triggers note which entries of
//! the books a transaction changes.

use std::fmt::Debug;
use std::sync::Arc;

use foldline_api::Result;
use foldline_api::sink::{RowWrite, TargetSpec};
use rusqlite::{Connection, OptionalExtension, Transaction};
use serde_json::Value as Json;

use crate::books;
use crate::database::sql;
use crate::replica::Replica;

/// The log that a database is a copy of. Its calls come one at a time, from a thread that may wait.
pub trait Journal: Debug + Send + Sync {
    /// The copy is empty: it is read from the beginning of the log.
    fn forget(&self);

    /// Whether this process alone writes to the log, as far as it knows.
    fn has_charge(&self) -> bool;

    /// Whether nobody else wrote since this process took the charge.
    ///
    /// # Errors
    /// Where the log does not answer.
    fn is_current(&self) -> Result<bool>;

    /// Reads into the copy what the log has more of the books.
    ///
    /// # Errors
    /// Nothing of it counts then.
    fn follow(&self, replica: &Replica<'_>) -> Result<()>;

    /// Fences all others, then reads into the copy all that the log has.
    ///
    /// # Errors
    /// Nothing of it counts then.
    fn take_charge(&self, replica: &Replica<'_>) -> Result<()>;

    /// Reads what the log has more of rows, where this process knows that it does, or `looks`. It has the charge.
    ///
    /// # Errors
    /// Nothing of it counts then.
    fn read_on(&self, replica: &Replica<'_>, looks: bool) -> Result<()>;

    /// Makes changes durable, all or none. `replica` has them already.
    ///
    /// # Errors
    /// Of class Record where the log refuses a row, and then none of it is there. After any other the outcome is unknown,
    /// and the charge is lost.
    fn publish(&self, replica: &Replica<'_>, changes: &Changes<'_>) -> Result<()>;
}

/// What a transaction changed.
#[derive(Debug)]
pub struct Changes<'a> {
    /// Entries of the books.
    pub entries: Vec<Entry>,
    /// Rows of the live generation.
    pub rows: Rows<'a>,
}

/// Which rows changed.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// These, and no others.
    These(&'a [RowWrite]),
    /// Another table is the live one: any.
    Any,
}

/// An entry of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its table.
    pub table: String,
    /// The values of its key, a JSON array.
    pub key: String,
    /// All of its columns, a JSON object; none where it is gone.
    pub row: Option<String>,
}

/// A journal, and the target that its log is of.
#[derive(Debug)]
pub(crate) struct Journaled {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) spec: Arc<TargetSpec>,
}

/// A table of the books: its columns, the first of which are its key.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) keys: usize,
}

const PLACE: [&str; 4] = ["target", "generation", "topic", "partition"];

/// All tables of the books.
pub(crate) static TABLES: [Table; 9] = [
    Table {
        name: "_foldline_targets",
        columns: &["target", "generation", "physical", "fingerprint", "binding", "desired"],
        keys: 1,
    },
    Table {
        name: POSITIONS,
        columns: &[
            PLACE[0],
            PLACE[1],
            PLACE[2],
            PLACE[3],
            "topic_id",
            "beginning",
            "position",
            "epoch",
        ],
        keys: 4,
    },
    Table {
        name: "_foldline_left_out",
        columns: &[
            PLACE[0],
            PLACE[1],
            PLACE[2],
            PLACE[3],
            "offset",
            "reason",
            "definition",
            "open",
        ],
        keys: 5,
    },
    Table {
        name: "_foldline_bad_records",
        columns: &[PLACE[0], PLACE[1], PLACE[2], PLACE[3], "offset", "by_store", "letter"],
        keys: 5,
    },
    Table {
        name: "_foldline_parked",
        columns: &[
            PLACE[0], PLACE[1], PLACE[2], PLACE[3], "offset", "topic_id", "keys", "reason",
            "request", "record",
        ],
        keys: 5,
    },
    Table {
        name: "_foldline_holes",
        columns: &[PLACE[0], PLACE[1], PLACE[2], PLACE[3], "from_offset", "to_offset", "repeated"],
        keys: 5,
    },
    Table {
        name: "_foldline_generations",
        columns: &[
            PLACE[0],
            PLACE[1],
            "role",
            "physical",
            "relation",
            "fingerprint",
            "projection",
            "goals",
        ],
        keys: 2,
    },
    Table { name: "_foldline_schemas", columns: &["target", "registry", "id", "schema"], keys: 3 },
    Table { name: "_foldline_horizons", columns: &["target", "rule", "horizon"], keys: 2 },
];

/// The table of positions.
pub(crate) const POSITIONS: &str = "_foldline_positions";

impl Table {
    /// The table of this name.
    pub(crate) fn of(name: &str) -> Option<&'static Table> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// A JSON object of all columns of a row called `row`.
    fn object(&self, row: &str) -> String {
        let pairs = self.columns.iter().map(|column| format!("'{column}', {row}.{column}"));
        format!("json_object({})", pairs.collect::<Vec<_>>().join(", "))
    }

    fn key(&self, row: &str) -> String {
        let columns = self.columns.iter().take(self.keys);
        let columns = columns.map(|column| format!("{row}.{column}"));
        format!("json_array({})", columns.collect::<Vec<_>>().join(", "))
    }

    /// The condition that a row has the key `?1`.
    pub(crate) fn has_key(&self) -> String {
        let columns = self.columns.iter().take(self.keys).enumerate();
        let equal = columns.map(|(at, column)| format!("{column} = json_extract(?1, '$[{at}]')"));
        equal.collect::<Vec<_>>().join(" AND ")
    }

    /// The triggers that note a change. An outer statement's conflict clause would hold for theirs too, so they have none.
    fn triggers(&self) -> String {
        let one = |of: &str, key: &str, before: &str| {
            let Table { name, .. } = self;
            let key = self.key(key);
            format!(
                "CREATE TEMP TRIGGER {name}_{of} AFTER {of} ON main.{name} BEGIN \
                 INSERT INTO _foldline_changed SELECT '{name}', {key}, {before} WHERE NOT EXISTS \
                 (SELECT 1 FROM _foldline_changed WHERE name = '{name}' AND key = {key}); END;"
            )
        };
        let before = self.object("OLD");
        [one("INSERT", "NEW", "NULL"), one("UPDATE", "OLD", &before), one("DELETE", "OLD", &before)]
            .concat()
    }
}

/// Makes the books of a fresh copy, and lets each change of them be noted.
pub(crate) fn prepare(connection: &mut Connection) -> Result<()> {
    let tx = connection.transaction().map_err(sql)?;
    books::create(&tx)?;
    tx.execute_batch(
        "CREATE TEMP TABLE _foldline_changed (name TEXT NOT NULL, key TEXT NOT NULL, before TEXT, \
         PRIMARY KEY (name, key)) WITHOUT ROWID;",
    )
    .map_err(sql)?;
    for table in &TABLES {
        tx.execute_batch(&table.triggers()).map_err(sql)?;
    }
    tx.commit().map_err(sql)
}

/// Forgets what was noted.
pub(crate) fn forget_noted(tx: &Transaction<'_>) -> Result<()> {
    tx.execute("DELETE FROM _foldline_changed", []).map(drop).map_err(sql)
}

/// What a transaction changed of the books, and whether another table is the live one.
pub(crate) fn noted(tx: &Transaction<'_>, target: &str) -> Result<(Vec<Entry>, bool)> {
    let mut select = tx
        .prepare_cached("SELECT name, key, before FROM _foldline_changed ORDER BY name, key")
        .map_err(sql)?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let rows = select.query_map([], read).map_err(sql)?;
    let noted: Vec<(String, String, Option<String>)> =
        rows.collect::<rusqlite::Result<_>>().map_err(sql)?;
    let live = books::live(tx, target)?;
    let generation = live.as_ref().map(|live| live.generation);
    let (mut entries, mut remade) = (Vec::new(), false);
    let mut before_live = generation;
    for (name, key, before) in noted {
        let Some(table) = Table::of(&name) else { continue };
        let row = row(tx, table, &key)?;
        if name == TABLES[0].name {
            let physical = |row: &Option<String>| field(row.as_deref(), "physical");
            remade |= physical(&row) != physical(&before);
            before_live = field(before.as_deref(), "generation").and_then(|it| it.as_u64());
        }
        let shown = |row| if name == POSITIONS { shown(row, generation) } else { row };
        let (row, before) = (shown(row), shown(before));
        if row != before {
            entries.push(Entry { table: name, key, row });
        }
    }
    if let Some(generation) = generation.filter(|live| before_live != Some(*live)) {
        // What a build kept to itself.
        entries.extend(all_of(tx, target, generation, &entries)?);
    }
    Ok((entries, remade))
}

/// A position as the log has it: one of a generation that is not live is where a copy without its rows begins.
fn shown(row: Option<String>, live: Option<u64>) -> Option<String> {
    let text = row?;
    let Ok(Json::Object(mut row)) = serde_json::from_str(&text) else { return Some(text) };
    if row.get("generation").and_then(Json::as_u64) == live {
        return Some(text);
    }
    let beginning = row.get("beginning").cloned().unwrap_or_default();
    row.insert("position".to_owned(), beginning);
    row.insert("epoch".to_owned(), 0.into());
    Some(Json::Object(row).to_string())
}

fn field(row: Option<&str>, name: &str) -> Option<Json> {
    let row: Json = serde_json::from_str(row?).ok()?;
    row.get(name).cloned()
}

/// An entry as it stands.
fn row(tx: &Transaction<'_>, table: &Table, key: &str) -> Result<Option<String>> {
    let (name, object) = (table.name, table.object(table.name));
    let text = format!("SELECT {object} FROM {name} WHERE {}", table.has_key());
    let mut select = tx.prepare_cached(&text).map_err(sql)?;
    select.query_row([key], |row| row.get(0)).optional().map_err(sql)
}

/// The entries of a generation that are not among `known`.
fn all_of(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    known: &[Entry],
) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    let of_generations = TABLES.iter().filter(|table| table.keys > 3);
    for table in of_generations {
        let (name, key, object) = (table.name, table.key(table.name), table.object(table.name));
        let text =
            format!("SELECT {key}, {object} FROM {name} WHERE target = ?1 AND generation = ?2");
        let mut select = tx.prepare_cached(&text).map_err(sql)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let rows = select.query_map((target, generation.cast_signed()), read).map_err(sql)?;
        for row in rows {
            let (key, row): (String, String) = row.map_err(sql)?;
            if !known.iter().any(|known| known.table == name && known.key == key) {
                out.push(Entry { table: name.to_owned(), key, row: Some(row) });
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_books_is_copied() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        // A target of a log shows no rows of another, and none shows its: `Sink::looks_up`.
        let empty = ["_foldline_lookups", "_foldline_gathers", "_foldline_notes"];
        let mut known: Vec<&str> = TABLES.iter().map(|table| table.name).chain(empty).collect();
        for table in &TABLES {
            let mut select = connection
                .prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY pk = 0, pk, cid")
                .unwrap();
            let columns: Vec<(String, i64)> = select
                .query_map([table.name], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let names: Vec<&str> = columns.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, table.columns, "{}", table.name);
            assert_eq!(
                columns.iter().filter(|(_, pk)| *pk > 0).count(),
                table.keys,
                "{}",
                table.name
            );
        }
        let mut select = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .unwrap();
        let there: Vec<String> =
            select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        known.sort_unstable();
        assert_eq!(there, known);
    }
}
