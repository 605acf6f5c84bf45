//! Names: of topics, tables and indexes.

use foldline_language::config::reader::Field;

/// Kafka's rule for topics.
pub(super) fn is_topic(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(allowed)
}

pub(super) fn check_topic(field: &Field<'_>, name: &str) {
    if !is_topic(name) {
        field.problem(format!(
            "{name:?} is no topic's name: letters, digits, `.`, `_` and `-`, at most 249 bytes"
        ));
    }
}

/// `table` or `schema.table`.
pub(super) fn check_table(field: &Field<'_>, name: &str) {
    let parts: Vec<&str> = name.split('.').collect();
    let fits = |part: &&str| (1..=63).contains(&part.len()) && !part.contains('\0');
    if parts.len() > 2 || !parts.iter().all(fits) {
        field.problem(format!(
            "{name:?} is no table's name: `table` or `schema.table`, each of 1 to 63 bytes"
        ));
    }
}

/// Elasticsearch's rule for indexes.
pub(super) fn index_fault(name: &str) -> Option<&'static str> {
    // A `%` is none of Elasticsearch's, and no proxy before it agrees with another on what it means in a path.
    const FORBIDDEN: &[char] = &['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':', '%'];
    if name.chars().any(char::is_uppercase) {
        return Some("an index name has no upper-case letters");
    }
    if name.starts_with(['-', '_', '+', '.']) {
        return Some("an index name does not start with `-`, `_`, `+` or `.`");
    }
    if name.contains(FORBIDDEN) {
        return Some("an index name has no space and none of \\ / * ? \" < > | , # : %");
    }
    // The rebuild's suffix must fit as well.
    (!(1..=240).contains(&name.len())).then_some("an index name has 1 to 240 bytes")
}
