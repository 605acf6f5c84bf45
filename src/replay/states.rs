//! The states of a replay, in memory up to a budget and in a temporary file beyond it.

use std::sync::Arc;

use foldline_api::column::ColumnType;
use foldline_api::error::{Error, Result};
use foldline_api::json;
use foldline_api::model::{Key, Model, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Mark, Marks};
use foldline_api::value::Value;
use rusqlite::{Connection, OptionalExtension, params};

use crate::maps::HashMap;

/// A key's state after the events folded so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The row; none where the last event deleted it.
    pub(crate) row: Option<Row>,
    /// The position after the last event of each partition that wrote it.
    pub(crate) marks: Marks,
    /// Whether it was compared.
    pub(crate) seen: bool,
}

/// The states of all keys that some event wrote.
pub(crate) struct States {
    model: Arc<Model>,
    here: HashMap<Key, State>,
    bytes: usize,
    budget: usize,
    file: Option<Connection>,
}

/// A state of its own costs so much beside key and row.
const FIXED: usize = 160;

impl States {
    pub(crate) fn new(model: Arc<Model>, budget: usize) -> Self {
        States { model, here: HashMap::default(), bytes: 0, budget, file: None }
    }

    /// The state of a key that was brought by [`States::bring`]; none where no event wrote it.
    pub(crate) fn get(&self, key: &Key) -> Option<&State> {
        self.here.get(key)
    }

    /// Brings the states of `keys` into memory.
    pub(crate) fn bring(&mut self, keys: &[Key]) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut select = file
            .prepare_cached("SELECT row, marks, seen FROM states WHERE key = ?1")
            .map_err(broken)?;
        for key in keys {
            if self.here.contains_key(key) {
                continue;
            }
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let found: Option<(Option<String>, String, bool)> =
                select.query_row([text_of(key.values())], read).optional().map_err(broken)?;
            if let Some((row, marks, seen)) = found {
                let state = State {
                    row: row.map(|text| row_of(&self.model, &text)).transpose()?,
                    marks: marks_of(&marks)?,
                    seen,
                };
                self.bytes += bytes(key, &state);
                self.here.insert(key.clone(), state);
            }
        }
        Ok(())
    }

    /// Writes a row for the event before `position` of `partition`; the key's state was brought.
    pub(crate) fn put(
        &mut self,
        key: Key,
        row: Option<Row>,
        partition: &TopicPartition,
        position: Position,
    ) {
        let state = self.here.entry(key.clone()).or_default();
        self.bytes = self.bytes.saturating_sub(bytes(&key, state));
        (state.row, state.seen) = (row, false);
        match state.marks.iter_mut().find(|mark| mark.partition == *partition) {
            Some(mark) => mark.position = mark.position.max(position),
            None => state.marks.push(Mark { partition: partition.clone(), position }),
        }
        self.bytes += bytes(&key, state);
    }

    /// Notes that the state of `key` was compared.
    pub(crate) fn see(&mut self, key: &Key) {
        if let Some(state) = self.here.get_mut(key) {
            state.seen = true;
        }
    }

    /// Keys with a row that were not compared.
    pub(crate) fn unseen(&mut self) -> Result<Vec<Key>> {
        let open = |(key, state): (&Key, &State)| {
            (state.row.is_some() && !state.seen).then(|| key.clone())
        };
        if self.file.is_none() {
            return Ok(self.here.iter().filter_map(open).collect());
        }
        self.spill()?;
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let mut select = file
            .prepare("SELECT key FROM states WHERE row IS NOT NULL AND NOT seen")
            .map_err(broken)?;
        let texts = select.query_map([], |row| row.get::<_, String>(0)).map_err(broken)?;
        let types = || self.model.key_columns().map(|column| &column.ty);
        texts.map(|text| values_of(types(), &text.map_err(broken)?).map(Key::new)).collect()
    }

    /// Where memory holds more than the budget, all of it goes to the file.
    pub(crate) fn make_room(&mut self) -> Result<()> {
        if self.bytes > self.budget { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(open()?),
        };
        let tx = file.transaction().map_err(broken)?;
        {
            let mut insert = tx
                .prepare_cached("INSERT OR REPLACE INTO states VALUES (?1, ?2, ?3, ?4)")
                .map_err(broken)?;
            for (key, state) in self.here.drain() {
                let row = state.row.as_ref().map(|row| text_of(row.values()));
                let marks = text_of_marks(&state.marks);
                insert
                    .execute(params![text_of(key.values()), row, marks, state.seen])
                    .map_err(broken)?;
            }
        }
        self.bytes = 0;
        tx.commit().map_err(broken)
    }
}

fn bytes(key: &Key, state: &State) -> usize {
    FIXED + key.heap_bytes() + state.row.as_ref().map_or(0, Row::heap_bytes)
}

/// A private file that SQLite removes when it is closed.
fn open() -> Result<Connection> {
    let file = Connection::open("").map_err(broken)?;
    file.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE states (key TEXT PRIMARY KEY, row TEXT, marks TEXT NOT NULL, seen INTEGER NOT NULL)
         WITHOUT ROWID",
    )
    .map_err(broken)?;
    Ok(file)
}

fn broken(error: rusqlite::Error) -> Error {
    Error::retriable(format!("the temporary file of a replay: {error}")).with_source(error)
}

fn text_of(values: &[Value]) -> String {
    let mut out = String::from("[");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        json::write(value, &mut out);
    }
    out.push(']');
    out
}

fn values_of<'a>(types: impl Iterator<Item = &'a ColumnType>, text: &str) -> Result<Vec<Value>> {
    let unfit = || Error::retriable("the temporary file of a replay cannot be read back");
    let Ok(Value::List(values)) = json::parse(text.as_bytes()) else { return Err(unfit()) };
    let value = |(ty, value): (&ColumnType, &Value)| ty.from_json(value.clone());
    types.zip(values.iter()).map(value).collect::<std::result::Result<_, _>>().map_err(|_| unfit())
}

fn row_of(model: &Model, text: &str) -> Result<Row> {
    values_of(model.columns.iter().map(|column| &column.ty), text).map(Row::new)
}

fn text_of_marks(marks: &Marks) -> String {
    let one =
        |mark: &Mark| (mark.partition.topic.to_string(), mark.partition.partition, mark.position.0);
    serde_json::to_string(&marks.iter().map(one).collect::<Vec<_>>()).unwrap_or_default()
}

fn marks_of(text: &str) -> Result<Marks> {
    let list: Vec<(String, i32, i64)> = serde_json::from_str(text)
        .map_err(|e| Error::retriable("the temporary file of a replay").with_source(e))?;
    let one = |(topic, partition, position): (String, i32, i64)| Mark {
        partition: TopicPartition::new(topic, partition),
        position: Position(position),
    };
    Ok(list.into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use foldline_testkit::contract::{model_of, row};

    use super::*;

    #[test]
    fn what_spills_comes_back_to_the_digit() {
        let columns =
            [("id", "bigint"), ("at", "timestamptz"), ("sum", "numeric"), ("raw", "bytea")];
        let model = Arc::new(model_of(&columns, 2));
        let row_of = |id: i64| {
            let id = id.to_string();
            let values = [&*id, "\"2026-01-01T00:00:00.25Z\"", "1.00100", "\"AQI=\""];
            row(&model, &values)
        };
        let (partition, other) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        // Nothing fits: each write spills.
        for budget in [0, 2_000, usize::MAX] {
            let mut states = States::new(Arc::clone(&model), budget);
            for id in 0..40 {
                let key = model.key_of(&row_of(id));
                for (partition, position) in [(&partition, 3), (&other, 9), (&partition, 2)] {
                    states.bring(std::slice::from_ref(&key)).unwrap();
                    states.put(key.clone(), Some(row_of(id)), partition, Position(position));
                    states.make_room().unwrap();
                }
            }
            let keys: Vec<Key> = (0..40).map(|id| model.key_of(&row_of(id))).collect();
            states.bring(&keys).unwrap();
            for (id, key) in (0..40).zip(&keys) {
                let state = states.get(key).unwrap();
                assert_eq!(state.row, Some(row_of(id)));
                let marks: Vec<i64> = state.marks.iter().map(|mark| mark.position.0).collect();
                assert_eq!(marks, [3, 9], "budget {budget}");
            }
            keys.iter().take(38).for_each(|key| states.see(key));
            states.put(keys[39].clone(), None, &partition, Position(4));
            assert_eq!(
                states.unseen().unwrap(),
                [keys[38].clone()],
                "a deleted row is not missing"
            );
        }
    }
}
