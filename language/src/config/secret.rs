//! Secrets in a config: how they are read, and where they may stand, so that no message shows one.

use foldline_api::secret::Secret;

use super::form::{FilePath, Text};
use super::key::{Key, Section};
use super::reader::Field;
use super::tree::Item;

/// Tables whose values may be logins, whatever key they were written under.
const TABLES: [&str; 4] = ["sources", "sinks", "registries", "worker"];

/// Whether a value at this key path may be a secret that was written in the wrong place.
pub(super) fn may_be_at(path: &str) -> bool {
    let harmless = ["worker.name", "worker.listen", "worker.memory"];
    TABLES.iter().any(|table| path.split('.').next() == Some(table)) && !harmless.contains(&path)
}

/// Whether what broke the TOML after `before` may be part of a secret: a text that spans lines shows only by the
/// table in which it stands, and one that is not closed takes in what follows.
pub(super) fn may_be_after(before: &str) -> bool {
    let header = before.lines().rev().find_map(|line| {
        let name = line.trim_start().strip_prefix('[')?;
        Some(name.trim_start_matches(['[', ' ', '\t', '"', '\'']))
    });
    match header {
        Some(name) => !["projections", "connectors"].iter().any(|table| name.starts_with(table)),
        None => TABLES.iter().any(|table| before.contains(table)),
    }
}

/// `{ env = "NAME" }` or `{ file = "/path" }`.
pub static SECRET: Section =
    Section { name: "secret", doc: "A secret from elsewhere.", keys: &[&ENV, &FILE] };

const ENV: Key<Text> = Key::new("env", Text, "An environment variable that holds it");
const FILE: Key<FilePath> = Key::new(
    "file",
    FilePath,
    "A file that holds it; a relative path starts at this file's directory",
);

impl Field<'_> {
    /// A text, `{ env = "NAME" }` or `{ file = "/path" }`.
    pub fn secret(&self) -> Option<Secret> {
        let secret = secret_of(self)?;
        if secret.expose().is_empty() {
            self.problem("is empty");
            return None;
        }
        Some(secret)
    }
}

fn secret_of(field: &Field<'_>) -> Option<Secret> {
    const FORMS: &str = "a text, `{ env = \"NAME\" }` or `{ file = \"/path\" }`";
    match &field.node.item {
        Item::Scalar(toml::Value::String(text)) => Some(Secret::new(text.as_str())),
        Item::Table(_) => {
            let mut reader = field.table(&SECRET)?;
            let env = reader.field(&ENV);
            let file = reader.field(&FILE);
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
    match (field.cx.read_file)(&path) {
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
