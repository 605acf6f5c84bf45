//! What a copy from a backup brought along.

use crate::binding::Found;
use crate::lifecycle::Change;

/// What [`crate::sink::Target::adopt`] took over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The live generation.
    pub generation: u64,
    /// Whether what stands there is another table or index than the books meant until now.
    pub copied: bool,
    /// Whether it has rows.
    pub has_rows: bool,
    /// The numbers of the other generations that came along.
    pub beside: Vec<u64>,
    /// Sentences about what did not.
    pub notices: Vec<String>,
}

impl Adopted {
    /// What a change of [`crate::lifecycle::Command::Adopt`] took over of what was found.
    #[must_use]
    pub fn of(change: &Change, found: Option<&Found>, before: &str) -> Self {
        Adopted {
            generation: change.answer,
            copied: found.is_some_and(|found| found.physical != before),
            has_rows: found.is_some_and(|found| found.has_rows),
            beside: change.record.beside.iter().map(|beside| beside.number).collect(),
            notices: change.notices.clone(),
        }
    }
}
