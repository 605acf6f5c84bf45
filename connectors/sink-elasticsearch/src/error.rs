//! Whose problem an answer is: the one place where Elasticsearch's statuses and error types are read.

use std::ops::RangeInclusive;

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
        let reason = self.cause.reason.as_deref().unwrap_or_default();
        let fits = |rule: &&Rule| {
            rule.status.contains(&self.status)
                && (rule.kind.is_empty() || rule.kind == self.cause.kind)
                && reason.contains(rule.reason)
        };
        RULES.iter().find(fits).map_or(Fault::Config, |rule| rule.fault)
    }

    /// Whether a proxy or the cluster gave the request up, as it took too long.
    pub(crate) fn is_of_time(&self) -> bool {
        matches!(self.status, 408 | 504)
    }

    /// As an error for the worker, of a request; `doing` completes "while".
    pub(crate) fn error(&self, doing: &str) -> Error {
        let says = self.sentence();
        let error = match self.fault() {
            Fault::Retriable | Fault::Conflict | Fault::TooLarge | Fault::Blocked => {
                Error::retriable(format!("Elasticsearch refused for now while {doing}: {says}"))
            }
            Fault::Gone => Error::fenced(format!("the index is gone while {doing}: {says}")),
            Fault::Rejected | Fault::Config => {
                Error::config(format!("Elasticsearch refused while {doing}: {says}"))
            }
        };
        self.coded(error)
    }

    /// The same of what holds documents: what is refused is the data of one of them.
    pub(crate) fn of_document(&self, doing: &str) -> Error {
        match self.fault() {
            Fault::Rejected => self.refused_document(),
            _ => self.error(doing),
        }
    }

    /// That one document is to blame.
    pub(crate) fn refused_document(&self) -> Error {
        let says = match self.fault() {
            Fault::TooLarge => "it has more bytes than a request may have".to_owned(),
            _ => self.sentence(),
        };
        self.coded(Error::record(format!("Elasticsearch refused a document: {says}")))
    }

    fn coded(&self, error: Error) -> Error {
        error.with_code(format!("{} {}", self.status, self.cause.kind))
    }

    /// The reason without what it quotes from a document.
    pub(crate) fn sentence(&self) -> String {
        self.cause.reason.as_deref().map_or_else(|| "no reason given".to_owned(), redact)
    }
}

/// What an answer means; the first rule that fits is taken, and where none does the request itself is wrong.
struct Rule {
    status: RangeInclusive<u16>,
    /// The error's type; empty for any.
    kind: &'static str,
    /// What the reason holds.
    reason: &'static str,
    fault: Fault,
}

const fn rule(
    status: RangeInclusive<u16>,
    kind: &'static str,
    reason: &'static str,
    fault: Fault,
) -> Rule {
    Rule { status, kind, reason, fault }
}

const RULES: &[Rule] = &[
    rule(0..=u16::MAX, "index_closed_exception", "", Fault::Retriable),
    rule(409..=409, "", "", Fault::Conflict),
    rule(413..=413, "", "", Fault::TooLarge),
    // Block 8 is `index.blocks.write`; the others are the disk's flood stage and maintenance.
    rule(403..=403, "cluster_block_exception", "FORBIDDEN/8/", Fault::Blocked),
    rule(404..=404, "index_not_found_exception", "", Fault::Gone),
    rule(404..=404, "aliases_not_found_exception", "", Fault::Gone),
    rule(401..=401, "", "", Fault::Retriable),
    rule(403..=403, "", "", Fault::Retriable),
    rule(408..=408, "", "", Fault::Retriable),
    rule(429..=429, "", "", Fault::Retriable),
    rule(500..=u16::MAX, "", "", Fault::Retriable),
    rule(400..=400, "mapper_parsing_exception", "", Fault::Rejected),
    rule(400..=400, "document_parsing_exception", "", Fault::Rejected),
    rule(400..=400, "strict_dynamic_mapping_exception", "", Fault::Rejected),
    rule(400..=400, "illegal_argument_exception", "", Fault::Rejected),
    rule(400..=400, "max_bytes_length_exceeded_exception", "", Fault::Rejected),
    rule(400..=400, "x_content_parse_exception", "", Fault::Rejected),
    rule(400..=400, "parse_exception", "", Fault::Rejected),
    rule(400..=400, "parsing_exception", "", Fault::Rejected),
];

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
    use super::*;

    fn failure(status: u16, kind: &str, reason: &str) -> Failure {
        Failure { status, cause: Cause { kind: kind.to_owned(), reason: Some(reason.to_owned()) } }
    }

    /// `docs/errors.md`: status, type, what the reason holds, fault, class.
    #[test]
    fn the_page_of_errors_tells_every_answers_fault_and_class() {
        let rows = foldline_testkit::page::table("docs/errors.md", "## Elasticsearch");
        let mut told = Vec::new();
        for row in &rows {
            let [status, kinds, reason, fault, class] = row.as_slice() else { panic!("{row:?}") };
            let any = |text: &str| if text == "any" { String::new() } else { text.to_owned() };
            for (status, kind) in
                status.iter().flat_map(|s| kinds.iter().map(move |k| (s.as_str(), k)))
            {
                let numbers = match status {
                    "any" => vec![400, 403],
                    "5xx" => vec![500, 502, 503, 504, 599],
                    "anything else" => vec![400, 404, 405, 406, 410],
                    number => vec![number.parse().unwrap()],
                };
                for number in numbers {
                    let (kind, reason) = (any(kind), any(&reason[0]));
                    let failure = failure(number, &kind, &format!("blocked by: [{reason}x]"));
                    let found = format!("{:?}", failure.fault()).to_lowercase();
                    assert_eq!(found, fault[0].replace(' ', ""), "{number} {row:?}");
                    let error = failure.of_document("writing");
                    assert_eq!(error.class().label(), class[0], "{row:?}");
                    // What is no document's is the config's: a mapping, a setting, a search.
                    let of_request = if class[0] == "record" { "config" } else { &class[0] };
                    let error = failure.error("creating index \"orders\"");
                    assert_eq!(error.class().label(), of_request, "{row:?}");
                    assert!(!error.message().contains("document"), "{error}");
                    told.push((number, kind, reason));
                }
            }
        }
        for Rule { status, kind, reason, .. } in RULES {
            let told = told.iter().any(|(s, k, r)| status.contains(s) && k == kind && r == reason);
            assert!(told, "{status:?} {kind} {reason} is not on the page");
        }
    }

    #[test]
    fn an_error_tells_what_was_done_and_why_it_was_refused() {
        let full = failure(429, "es_rejected_execution_exception", "queue of 200 is full");
        let error = full.error("writing");
        assert_eq!(
            error.message(),
            "Elasticsearch refused for now while writing: queue of 200 is full"
        );
        assert_eq!(error.code(), Some("429 es_rejected_execution_exception"));
        let silent = Failure { status: 503, cause: Cause { kind: String::new(), reason: None } };
        assert!(silent.error("writing").message().ends_with("while writing: no reason given"));
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
