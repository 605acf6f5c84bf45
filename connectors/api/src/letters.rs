//! The bad records of a generation, and the letters about them that wait for a build to become the live one.
//!
//! Each generation keeps the places of its bad records, with the flush that moves the position past them. A build keeps
//! the letters too: those of records that were good in the live generation leave once it takes its place, and are
//! removed as they are acknowledged; a letter may come twice, but never not at all. A cancelled build takes its letters
//! along.

use crate::error::Result;
use crate::parked::{Place, read_record, write_record};
use crate::record::{Record, TopicPartition};
use crate::source::DeadLetter;

/// A record that a generation calls bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its partition.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Only the store could tell: two generations of one projection may differ.
    pub by_store: bool,
    /// The letter, where it waits for the swap.
    pub letter: Option<DeadLetter>,
}

impl BadRecord {
    /// Its letter as the books keep it.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let DeadLetter { partition, offset, key, value, headers } = self.letter.clone()?;
        let TopicPartition { topic, partition } = partition;
        // Its record's own time is among the headers.
        let record = Record { topic, partition, offset, timestamp: None, key, value, headers };
        Some(write_record(&record))
    }
}

/// Reads [`BadRecord::text`] back.
///
/// # Errors
/// Class Record where someone else wrote it.
pub fn read_letter(place: &Place, text: &str) -> Result<DeadLetter> {
    let Record { key, value, headers, .. } = read_record(place, text)?;
    let (partition, offset) = place.clone();
    Ok(DeadLetter { partition, offset, key, value, headers })
}
