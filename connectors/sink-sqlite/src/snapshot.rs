//! Rows and books of one moment. A thread of its own holds a connection with a transaction that reads;
//! a database in memory, which has no second connection, is copied.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use async_trait::async_trait;
use foldline_api::binding::check_projection;
use foldline_api::model::{Key, Row};
use foldline_api::sink::{Books, Loaded, Marks, Snapshot, TargetSpec, Version};
use foldline_api::{Error, Result};
use rusqlite::{Connection, Transaction, params_from_iter};
use tokio::sync::oneshot;

use crate::books;
use crate::codec::{Fingerprint, decode_versioned, encode_key};
use crate::database::sql;
use crate::schema::quote;
use crate::verdicts;
use crate::writer::Hold;

type Rows = Vec<(Key, Loaded)>;
/// What rows would show, where that is known.
type Shown = Vec<Option<Row>>;

/// What the thread is asked.
pub(crate) enum Ask {
    /// The next rows.
    Next(usize, oneshot::Sender<Result<Rows>>),
    /// The rows of these keys.
    Load(Vec<Key>, oneshot::Sender<Result<Vec<Loaded>>>),
    /// What these rows would show.
    Shown(Vec<Row>, oneshot::Sender<Result<Shown>>),
}

/// See the module.
pub(crate) enum SqliteSnapshot {
    /// Of a file; the thread ends with the sender.
    Thread(Books, mpsc::Sender<Ask>),
    /// Of a database in memory, with the rows still to be handed out.
    Copy(Books, BTreeMap<Key, Loaded>, Vec<Key>, BTreeMap<Key, Option<Row>>, Arc<TargetSpec>),
}

impl SqliteSnapshot {
    /// Starts the thread, and waits for the books.
    pub(crate) async fn thread(connection: Connection, hold: Hold) -> Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (told, books) = oneshot::channel();
        tokio::task::spawn_blocking(move || serve(connection, &hold, told, &asked));
        let books = books.await.map_err(|_| cut_off())??;
        Ok(SqliteSnapshot::Thread(books, asks))
    }

    /// Copies all rows.
    pub(crate) fn copy(tx: &Transaction<'_>, hold: &Hold) -> Result<Self> {
        let books = read_books(tx, hold)?;
        let rows: BTreeMap<Key, Loaded> = page(tx, hold, None, usize::MAX)?.into_iter().collect();
        let unread = rows.keys().cloned().collect();
        let stored: Vec<Row> = rows.values().filter_map(|loaded| loaded.row.clone()).collect();
        let shown = hold.shown(tx, &stored)?;
        let key = |row: &Row| hold.spec.model.key_of(row);
        let shown = stored.iter().map(key).zip(shown).collect();
        Ok(SqliteSnapshot::Copy(books, rows, unread, shown, Arc::clone(&hold.spec)))
    }
}

fn cut_off() -> Error {
    Error::retriable("reading a SQLite database was cut off")
}

fn serve(
    mut connection: Connection,
    hold: &Hold,
    told: oneshot::Sender<Result<Books>>,
    asked: &mpsc::Receiver<Ask>,
) {
    // Nobody waits for an answer any more where sending it fails.
    let tx = match connection.transaction().map_err(sql) {
        Ok(tx) => tx,
        Err(error) => {
            let _ = told.send(Err(error));
            return;
        }
    };
    let _ = told.send(read_books(&tx, hold));
    let mut last: Option<Key> = None;
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Next(max, reply) => {
                let rows = page(&tx, hold, last.as_ref(), max);
                if let Ok(rows) = &rows
                    && let Some((key, _)) = rows.last()
                {
                    last = Some(key.clone());
                }
                let _ = reply.send(rows);
            }
            Ask::Load(keys, reply) => {
                let _ = reply.send(hold.load(&tx, &keys, usize::MAX));
            }
            Ask::Shown(rows, reply) => {
                let _ = reply.send(hold.shown(&tx, &rows));
            }
        }
    }
}

fn read_books(tx: &Transaction<'_>, hold: &Hold) -> Result<Books> {
    let target = &hold.spec.target;
    let live = hold.check_live(tx)?;
    check_projection(&live.fingerprint, &hold.spec, target, "its rows cannot be judged")?;
    let positions = books::positions(tx, target, hold.generation)?;
    let verdicts = verdicts::all(tx, target, hold.generation)?;
    let verdicts = verdicts::judge(tx, &hold.spec, &[target], verdicts)?;
    let binding = books::binding(tx, target)?;
    let continued = binding.is_some_and(|binding| binding.continued.contains(&hold.generation));
    let rule = hold.spec.expire.as_ref();
    let horizon = rule.map(|rule| books::horizon(tx, target, rule)).transpose()?.flatten();
    Ok(Books { generation: hold.generation, positions, verdicts, continued, horizon })
}

/// Up to `max` rows behind `after`, in the order of their keys.
fn page(tx: &Transaction<'_>, hold: &Hold, after: Option<&Key>, max: usize) -> Result<Rows> {
    let model = &hold.spec.model;
    let names: Vec<String> = model.columns.iter().map(|column| quote(&column.name)).collect();
    let key: Vec<String> = model.key_columns().map(|column| quote(&column.name)).collect();
    let key = key.join(", ");
    let slots: Vec<String> = (1..=model.key.len()).map(|slot| format!("?{slot}")).collect();
    let behind = after.map(|_| format!("WHERE ({key}) > ({}) ", slots.join(", ")));
    let text = format!(
        "SELECT {} FROM {} {}ORDER BY {key} LIMIT {}",
        names.join(", "),
        quote(&hold.spec.target),
        behind.unwrap_or_default(),
        i64::try_from(max).unwrap_or(i64::MAX)
    );
    let mut select = tx.prepare_cached(&text).map_err(sql)?;
    let cells = after.map(|key| encode_key(model, key)).unwrap_or_default();
    let mut found = select.query(params_from_iter(cells)).map_err(sql)?;
    let (mut out, mut print) = (Vec::new(), Fingerprint::default());
    while let Some(stored) = found.next().map_err(sql)? {
        let (row, version) = decode_versioned(model, stored, &mut print)?;
        let key = model.key_of(&row);
        out.push((key, Loaded { row: Some(row), version, marks: Marks::new() }));
    }
    Ok(out)
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    fn books(&self) -> &Books {
        match self {
            SqliteSnapshot::Thread(books, _) | SqliteSnapshot::Copy(books, ..) => books,
        }
    }

    async fn next(&mut self, max: usize) -> Result<Rows> {
        match self {
            SqliteSnapshot::Thread(_, asks) => {
                let (reply, answer) = oneshot::channel();
                asks.send(Ask::Next(max.max(1), reply)).map_err(|_| cut_off())?;
                answer.await.map_err(|_| cut_off())?
            }
            SqliteSnapshot::Copy(_, rows, unread, ..) => {
                let from = unread.len() - max.max(1).min(unread.len());
                let keys = unread.split_off(from);
                Ok(keys
                    .into_iter()
                    .filter_map(|key| rows.get_key_value(&key))
                    .map(copied)
                    .collect())
            }
        }
    }

    async fn load(&mut self, keys: &[Key]) -> Result<Vec<Loaded>> {
        match self {
            SqliteSnapshot::Thread(_, asks) => {
                let (reply, answer) = oneshot::channel();
                asks.send(Ask::Load(keys.to_vec(), reply)).map_err(|_| cut_off())?;
                answer.await.map_err(|_| cut_off())?
            }
            SqliteSnapshot::Copy(_, rows, ..) => {
                let absent = || Loaded { row: None, version: Version::Absent, marks: Marks::new() };
                Ok(keys.iter().map(|key| rows.get(key).cloned().unwrap_or_else(absent)).collect())
            }
        }
    }

    async fn shown(&mut self, rows: &[Row]) -> Result<Shown> {
        match self {
            SqliteSnapshot::Thread(_, asks) => {
                let (reply, answer) = oneshot::channel();
                asks.send(Ask::Shown(rows.to_vec(), reply)).map_err(|_| cut_off())?;
                answer.await.map_err(|_| cut_off())?
            }
            SqliteSnapshot::Copy(.., shown, spec) => {
                let of = |row| shown.get(&spec.model.key_of(row)).cloned().flatten();
                Ok(rows.iter().map(of).collect())
            }
        }
    }
}

fn copied((key, loaded): (&Key, &Loaded)) -> (Key, Loaded) {
    (key.clone(), loaded.clone())
}
