//! Verdicts of the store: taken over with the partitions, and come to by refusals.

use foldline_api::error::Error;
use foldline_api::parked::Place;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{Acquired, Lease, StoredVerdict};
use foldline_language::projection::{BadRecord, Prepared};

use super::{Folder, Halt, touch_all};
use crate::decoding;
use crate::policy::OnBadRecord;
use crate::task::asked::Verdict;
use crate::task::batch::Batch;
use crate::task::cache::Cache;

impl Folder {
    /// Takes in verdicts of partitions that were just acquired: to repeat, or to ask about. None of them is this
    /// generation's own yet.
    pub(super) fn recall_verdicts(
        &mut self,
        acquired: &Acquired,
        ends: &[(TopicPartition, Position)],
    ) {
        for lease in &acquired.leases {
            self.verdicts.retain(|(partition, _), _| *partition != lease.partition);
            self.asked.forget(&lease.partition);
        }
        for StoredVerdict { partition, offset, reason, definition, holds } in &acquired.verdicts {
            let place = (partition.clone(), *offset);
            if *holds {
                let (reason, definition) = (reason.clone(), definition.clone());
                self.verdicts.insert(place, Verdict { reason, definition, stored: false });
            } else {
                self.asked.ask(place, ends);
            }
        }
        let parked = self.asked.parked();
        for place in parked.iter() {
            let ahead = |lease: &Lease| lease.partition == place.0 && lease.position.0 <= place.1;
            if acquired.leases.iter().any(ahead) && !self.verdicts.contains_key(place) {
                self.asked.ask(place.clone(), ends);
            }
        }
    }

    /// Learns the rows of an asked record that `batch` holds.
    pub(super) fn note_asked(&mut self, batch: &Batch) {
        if batch.alone.is_some() {
            self.asked.touches(batch.keys());
        }
    }

    /// The store refused a record alone; its verdict where it said the same twice.
    pub(in crate::task) fn blame(&mut self, place: Place, error: &Error) {
        self.verdicts.extend(self.asked.refused(place, error));
    }

    /// Whether all that decides about an event of several rows is there: their states, or that it is bad whatever they are.
    pub(super) fn can_apply(
        &self,
        (partition, offset): (&TopicPartition, i64),
        prepared: &Prepared,
        cache: &mut Cache,
        batch: u64,
    ) -> bool {
        let known = || self.decisions.get(partition, offset);
        prepared.is_exceeded()
            || touch_all(prepared, cache, batch)
            || self.keeps_marks && known().is_some_and(|known| known.bad.is_some())
    }

    /// The store refused this record before.
    pub(super) fn refuse(
        &self,
        record: &Record,
        verdict: &Verdict,
        outcome: &decoding::Decoded,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Result<(), Halt> {
        // The verdict was about the states that the record met.
        let read = match outcome {
            Ok((_, prepared)) if prepared.is_exceeded() => {
                let keys = prepared.keys().iter().filter(|key| cache.get(key).is_some());
                keys.cloned().collect()
            }
            Ok((_, prepared)) if !touch_all(prepared, cache, batch.number) => {
                return Err(Halt::Missing);
            }
            Ok((_, prepared)) => prepared.keys().to_vec(),
            Err(_) => Vec::new(),
        };
        // A parked event is its own verdict.
        if self.on_bad_record != OnBadRecord::Park {
            batch.verdicts.extend(verdict.to_keep(&record.topic_partition(), record.offset));
        }
        Err(Halt::Bad(BadRecord { stage: "sink", reason: verdict.reason.clone(), read }))
    }
}
