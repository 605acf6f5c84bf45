//! What a flush or a swap sends of a state topic and its books.

use foldline_api::record::Record;
use foldline_api::{Error, Result};
use foldline_sink_sqlite::{Changes, Entry, Replica, Rows};

use super::{State, StateLog};
use crate::books::{Of, TOPIC, There, stretch};
use crate::producer::Open;
use crate::state::partition;

impl StateLog {
    /// Writes what the live generation's rows have other than the topic, and takes away what they do not have.
    fn send_differences(
        &self,
        state: &mut State,
        replica: &Replica<'_>,
        there: &There,
        transaction: &Open<'_>,
    ) -> Result<()> {
        let scratch = replica.scratch()?;
        let whole = (0..).zip(&there.ends);
        let whole = whole.map(|(at, (low, high))| stretch(&self.names.states, at, *low, *high));
        self.read(state, whole.collect(), |records| {
            records.iter().try_for_each(|record| {
                let key = record.key.as_deref().unwrap_or_default();
                if partition(key, there.of.partitions) != record.partition {
                    return Err(self.misplaced(record));
                }
                scratch.put(key, record.value.as_deref())
            })
        })?;
        let (model, mut value) = (replica.model(), Vec::new());
        replica.each_row(|key, row| {
            let key = key.to_string();
            self.values.encode(model, &row, &mut value)?;
            if scratch.take(key.as_bytes())?.is_some_and(|stands| *stands == *value) {
                return Ok(());
            }
            self.send(transaction, there.of.partitions, key.as_bytes(), Some(&value))
        })?;
        scratch.each_key(|key| self.send(transaction, there.of.partitions, key, None))
    }

    fn send(
        &self,
        transaction: &Open<'_>,
        partitions: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        transaction.send(&self.names.states, partition(key, partitions), key, value)
    }

    pub(super) fn send_all(
        &self,
        state: &mut State,
        transaction: &Open<'_>,
        replica: &Replica<'_>,
        changes: &Changes<'_>,
    ) -> Result<Of> {
        let of = match (changes.rows, &state.of) {
            (Rows::These(rows), Some(of)) => {
                let (model, mut value) = (replica.model(), Vec::new());
                for write in rows {
                    let key = write.key.to_string();
                    let value = match &write.row {
                        Some(row) => {
                            self.values.encode(model, row, &mut value)?;
                            Some(&*value)
                        }
                        None => None,
                    };
                    self.send(transaction, of.partitions, key.as_bytes(), value)?;
                }
                of.clone()
            }
            _ => {
                let there = self.there(state)?.ok_or_else(|| self.missing())?;
                if state.of.is_none() && there.has_records() {
                    self.check_empty(state, &there)?;
                }
                self.send_differences(state, replica, &there, transaction)?;
                if state.of.as_ref() != Some(&there.of) {
                    let row = there.of.row();
                    transaction.send(
                        &self.names.books,
                        0,
                        TOPIC.as_bytes(),
                        Some(row.as_bytes()),
                    )?;
                }
                there.of
            }
        };
        for Entry { table, key, row } in &changes.entries {
            let key = format!("{table}{key}");
            let row = row.as_deref().map(str::as_bytes);
            transaction.send(&self.names.books, 0, key.as_bytes(), row)?;
        }
        Ok(of)
    }

    fn misplaced(&self, record: &Record) -> Error {
        Error::config(format!(
            "`{}`/{} holds at offset {} a key that Foldline puts into another partition, as Java's producers do: whoever wrote it \
             has another partitioner, or the topic had another number of partitions. Delete the topic, which is built anew then",
            self.names.states, record.partition, record.offset
        ))
    }

    fn missing(&self) -> Error {
        Error::retriable(format!("the state topic `{}` does not exist", self.names.states))
    }

    /// A topic without books has no states of anybody else.
    fn check_empty(&self, state: &mut State, there: &There) -> Result<()> {
        let whole = (0..).zip(&there.ends);
        let whole = whole.map(|(at, (low, high))| stretch(&self.names.states, at, *low, *high));
        let (mut keys, topic) = (0_usize, &self.names.states);
        self.read(state, whole.collect(), |records| {
            keys += records.iter().filter(|record| record.value.is_some()).count();
            Ok(())
        })?;
        if keys == 0 {
            return Ok(());
        }
        Err(Error::config(format!(
            "the topic `{topic}` has records that Foldline's books (`{}`) do not know: give the connector another \
             topic, or delete this one",
            self.names.books
        )))
    }
}
