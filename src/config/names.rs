//! Names: of entries, topics, tables and indexes.

use regex::Regex;

use super::projection::Names;
use super::reader::Field;
use super::tree::Item;

/// A name of a worker, source, sink, projection, connector or registry: lower case, since an
/// environment variable must be able to spell it.
pub(super) fn check_name(field: &Field<'_>, name: &str) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && name.len() <= 63 && name.chars().all(allowed) {
        return;
    }
    let message = format!(
        "the name {name:?} is not allowed: a name is lower-case letters, digits, `-` and `_`, \
         starts with a letter or digit, and has at most 63 bytes"
    );
    let better: String = name
        .to_lowercase()
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect::<String>()
        .trim_start_matches(['-', '_'])
        .chars()
        .take(63)
        .collect();
    if better.is_empty() {
        field.problem(message);
    } else {
        field.problem_with_help(message, format!("`{better}` would do"));
    }
}

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
    const FORBIDDEN: &[char] = &['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'];
    if name.chars().any(char::is_uppercase) {
        return Some("an index name has no upper-case letters");
    }
    if name.starts_with(['-', '_', '+', '.']) {
        return Some("an index name does not start with `-`, `_`, `+` or `.`");
    }
    if name.contains(FORBIDDEN) {
        return Some("an index name has no space and none of \\ / * ? \" < > | , # :");
    }
    // The rebuild's suffix must fit as well.
    (!(1..=240).contains(&name.len())).then_some("an index name has 1 to 240 bytes")
}

/// A name, a list of names, or a regex that starts with `^`.
pub(super) fn read_names(field: &Field<'_>) -> Option<Names> {
    if let Some(text) = field.node.as_str() {
        if text.starts_with('^') {
            check_regex(field, text);
            return Some(Names::Regex(text.to_owned()));
        }
        return Some(Names::List(vec![field.text()?]));
    }
    let Item::List(_) = field.node.item else {
        let found = field.node.describe();
        field.problem(format!(
            "found {found}, expected a name, a list of names, or a regex that starts with `^`"
        ));
        return None;
    };
    let mut names: Vec<String> = Vec::new();
    for item in field.list("a list of names")? {
        let Some(name) = item.text() else { continue };
        if name.starts_with('^') {
            item.problem("a regex stands alone, not in a list; join several with `|`");
        } else if names.contains(&name) {
            item.problem(format!("{name:?} is given twice"));
        } else {
            names.push(name);
        }
    }
    if names.is_empty() {
        field.problem("the list is empty");
        return None;
    }
    Some(Names::List(names))
}

pub(super) fn check_regex(field: &Field<'_>, pattern: &str) {
    if let Err(error) = Regex::new(pattern) {
        let reason = match error {
            regex::Error::Syntax(text) => {
                text.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned()
            }
            other => other.to_string(),
        };
        field.problem(format!("the regex `{pattern}` does not compile: {reason}"));
    }
}
