//! Whose problem an answer is: the one place where Elasticsearch's statuses and error types are read.

use foldline_api::Error;
use serde::Deserialize;

/// What an answer that is not a success means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Overload, outage, disk full, refused login: wait and try again.
    Retriable,
    /// The document is not at the version that the write expected.
    Conflict,
    /// The document does not fit the index.
    Rejected,
    /// The index, or the alias it is written through, is not there.
    Gone,
    /// The index has a write block.
    Blocked,
    /// The request has more bytes than the cluster takes.
    TooLarge,
    /// The request itself is refused, and would be again.
    Config,
}

/// Elasticsearch's own words for an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Cause {
    /// The error's type, as `version_conflict_engine_exception`.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    /// A sentence; it may quote what a document holds.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// A failed request or bulk item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What Elasticsearch says.
    pub(crate) cause: Cause,
}

impl Failure {
    /// What it means.
    pub(crate) fn fault(&self) -> Fault {
        let kind = self.cause.kind.as_str();
        let reason = self.cause.reason.as_deref().unwrap_or_default();
        match (self.status, kind) {
            (_, "index_closed_exception") => Fault::Retriable,
            (409, _) => Fault::Conflict,
            (413, _) => Fault::TooLarge,
            // Block 8 is `index.blocks.write`; the others are the disk's flood stage and maintenance.
            (403, "cluster_block_exception") if reason.contains("FORBIDDEN/8/") => Fault::Blocked,
            (404, "index_not_found_exception" | "aliases_not_found_exception") => Fault::Gone,
            (401 | 403 | 408 | 429 | 500.., _) => Fault::Retriable,
            (400, kind) if is_rejection(kind) => Fault::Rejected,
            _ => Fault::Config,
        }
    }

    /// As an error for the worker; `doing` completes "while".
    pub(crate) fn error(&self, doing: &str) -> Error {
        let says = self.sentence();
        let error = match self.fault() {
            Fault::Retriable | Fault::Conflict | Fault::TooLarge | Fault::Blocked => {
                Error::retriable(format!("Elasticsearch refused for now while {doing}: {says}"))
            }
            Fault::Rejected => Error::record(format!("Elasticsearch refused a document: {says}")),
            Fault::Gone => Error::fenced(format!("the index is gone while {doing}: {says}")),
            Fault::Config => Error::config(format!("Elasticsearch refused while {doing}: {says}")),
        };
        error.with_code(format!("{} {}", self.status, self.cause.kind))
    }

    /// The reason without what it quotes from a document.
    fn sentence(&self) -> String {
        self.cause.reason.as_deref().map_or_else(|| "no reason given".to_owned(), redact)
    }
}

fn is_rejection(kind: &str) -> bool {
    matches!(
        kind,
        "mapper_parsing_exception"
            | "document_parsing_exception"
            | "strict_dynamic_mapping_exception"
            | "illegal_argument_exception"
            | "max_bytes_length_exceeded_exception"
            | "x_content_parse_exception"
            | "parse_exception"
            | "parsing_exception"
    )
}

/// What follows these words is a document's content or id.
const QUOTING: [&str; 7] = [
    " in document with id",
    "Preview of field",
    ", all of which were skipped",
    "The prefix of",
    "For input string",
    "[1:",
    "failed to parse date field [",
];

/// Cuts a reason before it quotes a document: an operator needs the field's name, never its value.
pub(crate) fn redact(reason: &str) -> String {
    // The place in the document comes first in parsing errors: "[1:7] failed to parse ...".
    let reason = match reason.strip_prefix("[1:").and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest,
        None => reason,
    };
    let end = QUOTING.iter().filter_map(|words| reason.find(words)).min().unwrap_or(reason.len());
    let cut = reason.get(..end).unwrap_or_default().trim_end_matches([' ', '.', ';', ':']);
    cut.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use foldline_api::ErrorClass;

    use super::*;

    fn failure(status: u16, kind: &str, reason: &str) -> Failure {
        Failure { status, cause: Cause { kind: kind.to_owned(), reason: Some(reason.to_owned()) } }
    }

    #[test]
    fn every_answer_has_its_fault() {
        let block = "cluster_block_exception";
        for (status, kind, reason, expect) in [
            (409, "version_conflict_engine_exception", "", Fault::Conflict),
            (413, "", "", Fault::TooLarge),
            (429, "es_rejected_execution_exception", "", Fault::Retriable),
            (429, block, "blocked by: [TOO_MANY_REQUESTS/12/disk usage]", Fault::Retriable),
            (403, block, "blocked by: [FORBIDDEN/12/index read-only]", Fault::Retriable),
            (403, block, "blocked by: [FORBIDDEN/5/index read-only (api)]", Fault::Retriable),
            (403, block, "blocked by: [FORBIDDEN/8/index write (api)]", Fault::Blocked),
            (503, "unavailable_shards_exception", "", Fault::Retriable),
            (502, "", "", Fault::Retriable),
            (504, "", "", Fault::Retriable),
            (500, "exception", "", Fault::Retriable),
            (408, "", "", Fault::Retriable),
            (401, "security_exception", "", Fault::Retriable),
            (403, "security_exception", "", Fault::Retriable),
            (400, "index_closed_exception", "", Fault::Retriable),
            (400, "mapper_parsing_exception", "", Fault::Rejected),
            (400, "document_parsing_exception", "", Fault::Rejected),
            (400, "strict_dynamic_mapping_exception", "", Fault::Rejected),
            (400, "illegal_argument_exception", "", Fault::Rejected),
            (404, "index_not_found_exception", "", Fault::Gone),
            (404, "aliases_not_found_exception", "", Fault::Gone),
            (400, "invalid_alias_name_exception", "", Fault::Config),
            (400, "action_request_validation_exception", "", Fault::Config),
            (406, "", "", Fault::Config),
        ] {
            assert_eq!(failure(status, kind, reason).fault(), expect, "{status} {kind} {reason}");
        }
    }

    #[test]
    fn every_fault_has_its_class() {
        for (status, kind, class) in [
            (503, "", ErrorClass::Retriable),
            (400, "document_parsing_exception", ErrorClass::Record),
            (404, "index_not_found_exception", ErrorClass::Fenced),
            (400, "invalid_alias_name_exception", ErrorClass::Config),
        ] {
            assert_eq!(
                failure(status, kind, "").error("writing").class(),
                class,
                "{status} {kind}"
            );
        }
    }

    #[test]
    fn reasons_name_the_field_and_not_its_value() {
        for (reason, expect) in [
            (
                "[1:7] failed to parse field [id] of type [long] in document with id 'canary'. Preview of \
                 field's value: 'canary'",
                "failed to parse field [id] of type [long]",
            ),
            (
                "Document contains at least one immense term in field=\"raw\" (whose UTF8 encoding is \
                 longer than the max length 32766), all of which were skipped. The prefix is: '[99]'",
                "Document contains at least one immense term in field=\"raw\" (whose UTF8 encoding is \
                 longer than the max length 32766)",
            ),
            ("For input string: \"canary\"", ""),
        ] {
            assert_eq!(redact(reason), expect);
        }
    }
}
