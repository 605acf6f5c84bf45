//! Verdicts of the store: taken over with the partitions, and come to by refusals.

use foldline_api::error::Error;
use foldline_api::parked::Place;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Acquired, Lease, StoredVerdict};

use super::Folder;
use crate::task::asked::Verdict;
use crate::task::batch::Batch;

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
}
