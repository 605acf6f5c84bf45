//! What becomes of a record that cannot be applied, and of those that wait behind it.

use std::borrow::Cow;

use foldline_api::model::Key;
use foldline_api::parked::ParkedEvent;
use foldline_api::record::{Record, TopicPartition};
use foldline_language::projection::BadRecord;

use super::{Folder, Went};
use crate::dead_letter::Reason;
use crate::decoding::UNPREPARED;
use crate::policy::OnBadRecord;
use crate::task::batch::Batch;

impl Folder {
    /// Whether an event waits behind parked ones, of earlier batches or of this one.
    pub(super) fn waits(&self, partition: &TopicPartition, keys: &[Key], batch: &Batch) -> bool {
        self.parking.holds(partition, keys, &batch.aside.keys)
    }

    /// Sets a record aside with its keys, as long as more may be.
    pub(super) fn park(
        &self,
        record: &Record,
        keys: &[Key],
        reason: Option<String>,
        batch: &mut Batch,
    ) -> Went {
        if !self.parking.take() {
            batch.aside.full = true;
            return Went::Stopped;
        }
        let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
        let parked = batch.aside.keys.entry(record.topic_partition()).or_default();
        parked.extend(keys.iter().cloned());
        batch.aside.changes.park.push(ParkedEvent { record: record.clone(), keys, reason });
        batch.aside.events += 1;
        batch.hold(record);
        batch.counts.parked += 1;
        Went::On
    }

    /// The keys that a record would have touched which is bad before any is known.
    fn keys_of_bad(&self, record: &Record) -> Vec<Key> {
        let decoder = self.decoders.of(&record.topic);
        match decoder.decode(record) {
            Ok(event) => self.projection.keys_of_bad(&event),
            Err(_) => decoder
                .decode_without_value(record)
                .map(|event| self.projection.keys_without_value(&event))
                .unwrap_or_default(),
        }
    }

    /// Why no more may be parked.
    pub(in crate::task) fn full(&self) -> String {
        let max = self.parking.max();
        format!("{max} events are parked, and errors.limit allows no more")
    }

    /// `keys` are those of the event, where it got so far that it has some.
    pub(super) fn set_aside(
        &self,
        record: &Record,
        keys: &[Key],
        bad: BadRecord,
        batch: &mut Batch,
    ) -> Went {
        if bad.stage == UNPREPARED {
            let (of, offset) = (record.topic_partition(), record.offset);
            batch.stop = Some(format!("{of} at offset {offset} cannot be decoded: {}", bad.reason));
            return Went::Stopped;
        }
        batch.reads.extend(bad.read);
        let reason = Reason { stage: bad.stage, message: bad.reason };
        let went = self.part_with(record, keys, &reason, batch);
        if went == Went::On {
            let why = format!("{}: {}", reason.stage, reason.message);
            batch.last_bad = Some(((record.topic_partition(), record.offset), why));
            batch.bad_records += 1;
        }
        went
    }

    /// Does with a bad record what the config says.
    fn part_with(&self, record: &Record, keys: &[Key], reason: &Reason, batch: &mut Batch) -> Went {
        let mut keys = Cow::Borrowed(keys);
        if self.on_bad_record == OnBadRecord::Park && keys.is_empty() {
            keys = Cow::Owned(self.keys_of_bad(record));
        }
        match self.on_bad_record {
            OnBadRecord::Park if !keys.is_empty() => {
                let why = format!("{}: {}", reason.stage, reason.message);
                self.park(record, &keys, Some(why), batch)
            }
            // Where nobody can tell whose event it is, nobody can tell which events would have to wait.
            OnBadRecord::DeadLetter | OnBadRecord::Park => {
                let by_store = reason.stage == "sink";
                batch.bad.push(((record.topic_partition(), record.offset), by_store));
                batch.letters.push(crate::dead_letter::letter(record, reason, &self.origin));
                batch.hold(record);
                batch.counts.dead_lettered += 1;
                Went::On
            }
            OnBadRecord::Skip => {
                batch.counts.skipped += 1;
                Went::On
            }
            OnBadRecord::Stop => {
                batch.stop = Some(format!(
                    "record {}-{} at offset {} is bad ({}: {}) and on_bad_record is \"stop\"",
                    record.topic, record.partition, record.offset, reason.stage, reason.message
                ));
                Went::Stopped
            }
        }
    }
}
