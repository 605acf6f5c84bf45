//! Values that must not be shown.

use std::fmt;

use foldline_api::mask::MASK;

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
