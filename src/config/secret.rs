//! Values that must not be shown.

use std::fmt;

use foldline_api::mask::MASK;
use foldline_language::config::reader::Field;
use foldline_language::config::tree::Item;

/// A value that never shows itself: not in logs, not in errors, not over REST.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A text, `{ env = "NAME" }` or `{ file = "/path" }`.
pub(super) fn read_secret(field: &Field<'_>) -> Option<Secret> {
    let secret = secret_of(field)?;
    if secret.expose().is_empty() {
        field.problem("is empty");
        return None;
    }
    Some(secret)
}

fn secret_of(field: &Field<'_>) -> Option<Secret> {
    const FORMS: &str = "a text, `{ env = \"NAME\" }` or `{ file = \"/path\" }`";
    match &field.node.item {
        Item::Scalar(toml::Value::String(text)) => Some(Secret::new(text.as_str())),
        Item::Table(_) => {
            let mut reader = field.table("secret")?;
            let env = reader.get("env");
            let file = reader.get("file");
            reader.finish();
            match (env, file) {
                (Some(env), None) => secret_of_variable(&env),
                (None, Some(file)) => secret_of_file(&file),
                _ => {
                    field.problem(format!("expected {FORMS}"));
                    None
                }
            }
        }
        // What was found is not shown: a password may be written as a number.
        Item::Scalar(_) | Item::List(_) => {
            field.problem(format!("expected {FORMS}"));
            None
        }
    }
}

fn secret_of_variable(field: &Field<'_>) -> Option<Secret> {
    let name = field.text()?;
    match field.cx.env.get(&name) {
        Some(value) => Some(Secret::new(value)),
        None if field.cx.env.placeholders() => Some(Secret::new(format!("${{{name}}}"))),
        None => {
            field.problem(format!("the environment variable `{name}` is not set"));
            None
        }
    }
}

fn secret_of_file(field: &Field<'_>) -> Option<Secret> {
    let path = field.file_path()?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\n', '\r']))),
        Err(_) if field.cx.env.placeholders() => {
            Some(Secret::new(format!("${{{}}}", path.display())))
        }
        Err(error) => {
            field.problem(format!("the file {} cannot be read: {error}", path.display()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "hunter2");
    }
}
