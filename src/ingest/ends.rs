//! What became of the records of one post.

use foldline_api::ErrorClass;
use foldline_api::producer::{Undelivered, Written};
use serde_json::{Value, json};

/// librdkafka's code for a partition that the topic does not have.
const NO_PARTITION: &str = "UnknownPartition";

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All replicas have it.
    Written(Written),
    /// The topic does not take it, however often it comes.
    Refused(String),
    /// It was not sent, or for certain not written: it may be sent again.
    NotWritten(String),
    /// It was sent, and no answer came.
    Unknown(String),
}

impl End {
    /// Its name where ends are counted.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        match self {
            End::Written(_) => None,
            End::Refused(_) => Some("refused"),
            End::NotWritten(_) => Some("not_written"),
            End::Unknown(_) => Some("unknown"),
        }
    }

    fn json(&self) -> Value {
        let (code, error) = match self {
            End::Written(Written { partition, offset }) => {
                return json!({ "partition": partition, "offset": offset, "error_code": null, "error": null });
            }
            End::Refused(error) => (400, error),
            End::NotWritten(error) => (503, error),
            End::Unknown(error) => (504, error),
        };
        json!({ "partition": null, "offset": null, "error_code": code, "error": error })
    }
}

/// What became of all of them, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends(Vec<End>);

impl Ends {
    /// By what the producer tells of each.
    pub(crate) fn of(ends: Vec<Result<Written, Undelivered>>) -> Self {
        let one = |end: Result<Written, Undelivered>| match end {
            Ok(written) => End::Written(written),
            Err(Undelivered { error, may_be_written }) => {
                let refused =
                    error.class() == ErrorClass::Record || error.code() == Some(NO_PARTITION);
                let message = error.message().to_owned();
                match (refused, may_be_written) {
                    (true, _) => End::Refused(message),
                    (false, true) => End::Unknown(message),
                    (false, false) => End::NotWritten(message),
                }
            }
        };
        Ends(ends.into_iter().map(one).collect())
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &End> {
        self.0.iter()
    }

    /// The status of the whole. 503 says that nothing was written and all may be sent again, 504 that nobody knows of some,
    /// 207 that some are written and others, for certain, are not.
    pub(crate) fn status(&self) -> u16 {
        let any = |fits: fn(&End) -> bool| self.0.iter().any(fits);
        let written = any(|end| matches!(end, End::Written(_)));
        let (refused, failed) = (
            any(|end| matches!(end, End::Refused(_))),
            any(|end| matches!(end, End::NotWritten(_))),
        );
        if any(|end| matches!(end, End::Unknown(_))) {
            504
        } else if !refused && !failed {
            200
        } else if written {
            207
        } else if refused {
            400
        } else {
            503
        }
    }

    /// What went wrong, in a sentence with the index of the first record that it went wrong with.
    pub(crate) fn trouble(&self) -> Option<String> {
        let count = |fits: fn(&End) -> bool| self.0.iter().filter(|end| fits(end)).count();
        let first = self.0.iter().enumerate().find_map(|(at, end)| match end {
            End::Written(_) => None,
            End::Refused(error) | End::NotWritten(error) | End::Unknown(error) => Some((at, error)),
        });
        let (at, error) = first?;
        let written = count(|end| matches!(end, End::Written(_)));
        let unknown = count(|end| matches!(end, End::Unknown(_)));
        let none = self.0.len() - written - unknown;
        Some(format!(
            "{written} written, {none} not written, {unknown} unknown (sent, and no answer came); records[{at}]: {error}"
        ))
    }

    /// The answer: one entry for each record, as Confluent's REST Proxy gives them.
    pub(crate) fn json(&self) -> Value {
        let mut answer = json!({ "offsets": self.0.iter().map(End::json).collect::<Vec<_>>() });
        if let Some(trouble) = self.trouble() {
            answer["error_code"] = json!(self.status());
            answer["message"] = json!(trouble);
        }
        answer
    }
}
