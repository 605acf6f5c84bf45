//! Names: of entries, and those that projections list.

use regex::Regex;

use super::form::Other;
use super::projection::Names;
use super::reader::Field;
use super::schema::refer;
use super::tree::Item;

/// A name, a list of names, or a regex that starts with `^`: see [`read_names`].
pub(super) const NAMES: Other = Other(|description| refer(description, "names"));

/// A name of a worker, source, sink, projection, connector or registry: lower case, since an
/// environment variable must be able to spell it.
pub fn check_name(field: &Field<'_>, name: &str) {
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

/// A name, a list of names, or a regex that starts with `^`.
pub fn read_names(field: &Field<'_>) -> Option<Names> {
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

/// Says where a regex does not compile.
pub fn check_regex(field: &Field<'_>, pattern: &str) {
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

/// Whether names cover one name; a regex that does not compile covers all.
pub fn covers(names: &Names, name: &str) -> bool {
    match names {
        Names::List(list) => list.iter().any(|known| known == name),
        Names::Regex(pattern) => Regex::new(pattern).map_or(true, |regex| regex.is_match(name)),
    }
}
