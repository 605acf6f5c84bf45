//! What fails now with its time, what failed before, and the bad records so far. Times are milliseconds since the epoch,
//! for what is shown only.

use foldline_api::parked::Place;

/// An error that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastError {
    /// Its last sentence.
    pub message: String,
    /// When it began.
    pub since: i64,
    /// When work went on.
    pub until: i64,
}

/// The error of now, and the last one that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorTimes {
    /// What fails, and since when something does.
    pub now: Option<(String, i64)>,
    /// The last one before.
    pub past: Option<PastError>,
}

impl ErrorTimes {
    /// This fails from now on, or nothing does. One error that comes after another belongs to the same trouble.
    pub(crate) fn set(&mut self, message: Option<String>, at: i64) {
        self.now = match (self.now.take(), message) {
            (Some((_, since)), Some(message)) => Some((message, since)),
            (None, message) => message.map(|message| (message, at)),
            (Some((message, since)), None) => {
                self.past = Some(PastError { message, since, until: at });
                None
            }
        };
    }

    /// Takes over what another one, which ends, had. What it had of now is over, but for `goes_on`.
    pub(crate) fn absorb(&mut self, mut ended: ErrorTimes, goes_on: Option<&str>, at: i64) {
        if ended.now.as_ref().is_some_and(|(message, _)| goes_on == Some(message)) {
            ended.now = None;
        }
        ended.set(None, at);
        self.past = newer(self.past.take(), ended.past);
    }
}

/// The one that ended last.
pub(crate) fn newer(a: Option<PastError>, b: Option<PastError>) -> Option<PastError> {
    let until = |past: &Option<PastError>| past.as_ref().map(|past| past.until);
    if until(&b) > until(&a) { b } else { a }
}

/// A record that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBad {
    /// Where it stands.
    pub place: Place,
    /// The stage and the reason, without payload.
    pub reason: String,
    /// When its outcome was durable.
    pub at: i64,
}

/// Bad records whose outcome is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bad {
    /// How many there were.
    pub count: u64,
    /// How many came since the last record that was not bad.
    pub in_a_row: u64,
    /// The last one.
    pub last: Option<LastBad>,
}

impl Bad {
    /// So many in a row are no exception any more: more likely the config or a producer is wrong.
    pub const ALL_FROM: u64 = 10;

    /// So many came, and so many others.
    pub(crate) fn add(&mut self, bad: u64, good: u64, last: Option<LastBad>) {
        self.count += bad;
        self.in_a_row = if good > 0 { 0 } else { self.in_a_row + bad };
        self.last = last.or(self.last.take());
    }

    /// Whether no record is anything but bad.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.in_a_row >= Self::ALL_FROM
    }

    /// Of several tasks: in a row are only those of tasks that had nothing else.
    #[must_use]
    pub fn with(mut self, other: &Bad, other_had_good: bool) -> Self {
        self.count += other.count;
        self.in_a_row = if other_had_good { 0 } else { self.in_a_row + other.in_a_row };
        let at = |last: &Option<LastBad>| last.as_ref().map(|last| last.at);
        if at(&other.last) > at(&self.last) {
            self.last.clone_from(&other.last);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::TopicPartition;

    use super::*;

    #[test]
    fn an_error_has_its_time_and_is_past_once_work_goes_on() {
        let mut errors = ErrorTimes::default();
        errors.set(None, 1);
        assert_eq!(errors, ErrorTimes::default());
        errors.set(Some("refused".to_owned()), 2);
        errors.set(Some("refused; 2 times in a row".to_owned()), 3);
        assert_eq!(errors.now, Some(("refused; 2 times in a row".to_owned(), 2)));
        errors.set(None, 9);
        errors.set(None, 10);
        let past = errors.past.clone().unwrap();
        assert_eq!((errors.now.clone(), past.since, past.until), (None, 2, 9));
        errors.set(Some("closed".to_owned()), 11);
        assert_eq!(errors.past.map(|past| past.until), Some(9), "it stays beside the next");
    }

    #[test]
    fn what_a_task_leaves_is_past_but_for_what_goes_on() {
        let mut task = ErrorTimes::default();
        task.set(Some("gone".to_owned()), 5);
        let mut connector = ErrorTimes::default();
        connector.absorb(task.clone(), Some("gone"), 7);
        assert_eq!(connector.past, None, "the connector shows it itself");
        connector.absorb(task.clone(), None, 7);
        assert_eq!(connector.past.as_ref().map(|past| past.until), Some(7));
        connector.absorb(task, None, 6);
        assert_eq!(connector.past.map(|past| past.until), Some(7), "the last one stays");
    }

    #[test]
    fn in_a_row_are_those_since_the_last_that_was_not_bad() {
        let last = |at| LastBad {
            place: (TopicPartition::new("t", 0), at),
            reason: "fold: no".to_owned(),
            at,
        };
        let mut bad = Bad::default();
        bad.add(9, 0, Some(last(1)));
        assert!(!bad.is_all());
        bad.add(1, 0, None);
        assert!(bad.is_all());
        let both = bad.clone().with(&Bad { count: 1, in_a_row: 1, last: Some(last(3)) }, false);
        assert_eq!((both.count, both.in_a_row, both.last), (11, 11, Some(last(3))));
        assert!(!bad.clone().with(&Bad::default(), true).is_all(), "another task applies events");
        bad.add(3, 2, None);
        assert_eq!((bad.count, bad.in_a_row, bad.last), (13, 0, Some(last(1))));
    }
}
