//! `${VAR}` inside string values, after parsing: a variable's value can never become TOML.

use super::diagnostic::{Diagnostic, join};
use super::env::Env;
use super::tree::{Item, Node};

/// Replaces `${VAR}`, `${VAR:-default}` and `${VAR:?message}`; `$${` is a plain `${`, and a lone
/// `$` stays. `None` where there is nothing to replace.
///
/// # Errors
/// A sentence, where a variable is missing or the braces hold something else.
pub fn interpolate(text: &str, env: &Env) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (head, tail) = rest.split_at(start);
        let body = tail.strip_prefix("${").unwrap_or(tail);
        if let Some(escaped) = head.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = body;
            continue;
        }
        out.push_str(head);
        let Some((inside, after)) = body.split_once('}') else {
            return Err("`${` without a `}`; a plain `${` is written `$${`".to_owned());
        };
        out.push_str(&replace(inside, env)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// Replaces the variables of every text in `node`, which stands at `path`.
pub fn interpolate_node(node: &mut Node, path: &str, env: &Env, problems: &mut Vec<Diagnostic>) {
    match &mut node.item {
        Item::Scalar(toml::Value::String(text)) if !node.soft => match interpolate(text, env) {
            Ok(None) => {}
            Ok(Some(replaced)) => {
                // With placeholders, a missing variable stays as it is written.
                node.missing = env.placeholders() && replaced.contains("${");
                node.soft = true;
                *text = replaced;
            }
            Err(message) => {
                problems.push(node.at.problem(path, message));
                node.missing = true;
            }
        },
        Item::Scalar(_) => {}
        Item::List(nodes) => {
            for (index, node) in nodes.iter_mut().enumerate() {
                interpolate_node(node, &format!("{path}[{index}]"), env, problems);
            }
        }
        Item::Table(table) => {
            for (key, node) in table {
                interpolate_node(node, &join(path, key), env, problems);
            }
        }
    }
}

fn replace(inside: &str, env: &Env) -> Result<String, String> {
    let name_end =
        inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, action) = inside.split_at(name_end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        // What it holds may be a piece of a password.
        return Err("`${…}` names no variable; a plain `${` is written `$${`".to_owned());
    }
    let value = env.get(name);
    if action.is_empty() {
        return match value {
            Some(value) => Ok(value.to_owned()),
            None if env.placeholders() => Ok(format!("${{{name}}}")),
            None => Err(format!("the environment variable `{name}` is not set")),
        };
    }
    // As in a shell, the colon forms take an empty variable for a missing one.
    let value = value.filter(|value| !value.is_empty());
    if let Some(default) = action.strip_prefix(":-") {
        return Ok(value.unwrap_or(default).to_owned());
    }
    if let Some(message) = action.strip_prefix(":?") {
        return match value {
            Some(value) => Ok(value.to_owned()),
            None if env.placeholders() => Ok(format!("${{{name}}}")),
            None => Err(format!("the environment variable `{name}` is not set: {message}")),
        };
    }
    Err("`${…}` is none of `${VAR}`, `${VAR:-default}` and `${VAR:?message}`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        let env = Env::new([("A", "one"), ("EMPTY", "")]);
        interpolate(text, &env).map(|done| done.unwrap_or_else(|| text.to_owned()))
    }

    #[test]
    fn variables_are_replaced() {
        let cases = [
            ("x ${A} y", "x one y"),
            ("${A}${A}", "oneone"),
            ("${EMPTY}", ""),
            ("${MISSING:-localhost:9092}", "localhost:9092"),
            ("${EMPTY:-d}", "d"),
            ("${MISSING:-}", ""),
            ("${A:?needed}", "one"),
            ("$${A}", "${A}"),
            ("a$b $ $1 $", "a$b $ $1 $"),
            ("^a$", "^a$"),
        ];
        for (text, expected) in cases {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_variable_is_an_error_that_names_it() {
        for (text, part) in [
            ("${MISSING}", "`MISSING` is not set"),
            ("${EMPTY:?the address}", "`EMPTY` is not set: the address"),
            ("${A", "without a `}`"),
            ("${}", "names no variable"),
            ("${A-x}", "is none of"),
        ] {
            let error = with(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn placeholders_stand_for_what_is_missing() {
        let env = Env::new([("A", "one")]).with_placeholders();
        assert_eq!(interpolate("${A} ${B}", &env), Ok(Some("one ${B}".to_owned())));
    }
}
