//! What a batch does beside moving positions: what it sets aside, what it does about what is, and what it is for where that is
//! all it does.

use foldline_api::parked::{Changes, Parked};
use foldline_api::record::TopicPartition;

use super::inbox::Item;
use crate::maps::{HashMap, HashSet};

/// Parked keys by partition, as texts.
pub(super) type ParkedKeys = HashMap<TopicPartition, HashSet<String>>;

/// What a flush of side work is for; see [`super::side_work`].
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A request on these parked events.
    Parked(Vec<Parked>),
    /// Rows that the clock deletes; see [`super::expiry`].
    Expired,
}

/// What a batch sets aside, or does about what is set aside.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// What its flush changes in the books.
    pub(super) changes: Changes,
    pub(super) keys: ParkedKeys,
    /// How many events are parked with them.
    pub(super) events: u64,
    /// What came behind the record that the batch ends before.
    pub(super) rest: Vec<Item>,
    /// It ends there because no more may be parked.
    pub(super) full: bool,
    /// It ends there because what it touches fills the memory for states.
    pub(super) tight: bool,
}
