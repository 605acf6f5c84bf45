//! What follows from an error. The only place that decides it.

use std::time::Duration;

use crate::chance::fraction;
use foldline_api::ErrorClass;

/// What the loop does about an error at the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Wait, then try again, for ever.
    Retry,
    /// Find the record that is to blame and set it aside.
    Blame,
    /// Stop the connector and show why.
    Fail,
    /// Drop what was cached and acquire again.
    Reacquire,
}

/// The reaction to an error of `class`.
///
/// | class     | reaction    | why                                                         |
/// |-----------|-------------|-------------------------------------------------------------|
/// | retriable | retry       | a machine problem never needs a person, nor fills dead letters |
/// | record    | blame       | a data problem never stops other keys                       |
/// | config    | fail        | trying again changes nothing; the sentence says what does   |
/// | fenced    | reacquire   | another writer owns it; nothing of ours may be written      |
#[must_use]
pub fn reaction(class: ErrorClass) -> Reaction {
    match class {
        ErrorClass::Retriable => Reaction::Retry,
        ErrorClass::Record => Reaction::Blame,
        ErrorClass::Config => Reaction::Fail,
        ErrorClass::Fenced => Reaction::Reacquire,
    }
}

/// What to do with a bad record: `errors.on_bad_record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnBadRecord {
    /// To the dead-letter topic, before its position moves.
    #[default]
    DeadLetter,
    /// Set it aside with its key's later events; one whose key nobody can tell goes to the dead letters.
    Park,
    /// Stop the connector before it.
    Stop,
    /// Count it and go on.
    Skip,
}

/// How long to wait before attempt number `attempt` (from 0): 100 ms doubling to 30 s, half of it
/// jitter, so that a fleet does not knock in step.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    const FIRST_MS: u64 = 100;
    const LAST_MS: u64 = 30_000;
    let full = (FIRST_MS << attempt.min(16)).min(LAST_MS);
    Duration::from_millis(full / 2).mul_f64(1.0 + fraction())
}

/// How many rows are taken at once after so many went through, where a store had no time for more. Doubled, each second attempt would
/// take too long again.
pub(crate) fn more(rows: usize) -> usize {
    rows.saturating_add(rows / 8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_errors_tells_what_follows_from_each_class() {
        let rows = foldline_testkit::page::table("docs/errors.md", "## Classes");
        for class in
            [ErrorClass::Retriable, ErrorClass::Record, ErrorClass::Config, ErrorClass::Fenced]
        {
            let row = rows.iter().find(|row| row[0][0] == class.label());
            let row = row.unwrap_or_else(|| panic!("{class:?} is not on the page"));
            assert_eq!(format!("{:?}", reaction(class)).to_lowercase(), row[2][0], "{class:?}");
        }
        assert_eq!(rows.len(), 4, "classes on the page");
    }

    #[test]
    fn backoff_grows_to_its_bound_and_keeps_half() {
        for attempt in 0..40 {
            let wait = backoff(attempt);
            assert!(wait <= Duration::from_secs(30), "{wait:?}");
            assert!(wait >= Duration::from_millis(50), "{wait:?}");
        }
        assert!(backoff(12) >= Duration::from_secs(15));
    }
}
