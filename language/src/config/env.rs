//! The environment as a value, so that tests own it.

use std::collections::BTreeMap;

/// Environment variables.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
    placeholders: bool,
}

impl std::fmt::Debug for Env {
    /// Names only: a value may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Env {
    /// These variables and no others.
    pub fn new<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self { variables, placeholders: false }
    }

    /// For commands that connect to nothing (`test`, `plan`): a missing variable or secret file
    /// leaves a placeholder, where `run` and `validate` refuse.
    #[must_use]
    pub fn with_placeholders(mut self) -> Self {
        self.placeholders = true;
        self
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether what is missing leaves a placeholder.
    pub fn placeholders(&self) -> bool {
        self.placeholders
    }

    /// All of them, by name.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.variables.iter()
    }
}
